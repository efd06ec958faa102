"""What a server has beside its databases' content, as data: roles, settings, privileges.

The item roles@PORT is this as JSON. Names and values are data from the backup to the restore: no
SQL text is stored, and the target server quotes each of them when it builds a statement.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tools.base import foreign_json
from tools.base.errors import StoreError

FORMAT = "nc-backup-py PostgreSQL server"
VERSION = 1
MAX_BYTES = 64 << 20
_HINT = "Use another copy of the run, or the version of nc-backup-py that wrote it."
T = TypeVar("T")


@dataclass(frozen=True)
class Label:
    """A security label (SECURITY LABEL)."""

    provider: str
    label: str


@dataclass(frozen=True)
class Privilege:
    """One privilege of an access control list. grantee: "" for PUBLIC"""

    privilege: str
    grantee: str
    grantor: str
    grantable: bool


@dataclass(frozen=True)
class Role:
    """A role. password: its hash; None if it has none, or if it could not be read."""

    name: str
    superuser: bool
    inherit: bool
    createrole: bool
    createdb: bool
    login: bool
    replication: bool
    bypassrls: bool
    connection_limit: int
    password: str | None
    valid_until: str | None
    comment: str | None
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Membership:
    """A membership. inherit, set: None before PostgreSQL 16. grantor: None if it was dropped."""

    role: str
    member: str
    grantor: str | None
    admin: bool
    inherit: bool | None
    set: bool | None


@dataclass(frozen=True)
class Setting:
    """A setting (ALTER ROLE, ALTER DATABASE). database, role: "" for all"""

    database: str
    role: str
    name: str
    value: str


@dataclass(frozen=True)
class Tablespace:
    """A tablespace. options: NAME=VALUE; acl: None for the default"""

    name: str
    owner: str
    location: str
    options: tuple[str, ...]
    acl: tuple[Privilege, ...] | None
    comment: str | None
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class DatabaseProperties:
    """A database, without its content. acl: None for the default"""

    name: str
    owner: str
    encoding: str
    collate: str
    ctype: str
    provider: str | None
    locale: str | None
    icu_rules: str | None
    tablespace: str
    connection_limit: int
    template: bool
    allow_connections: bool
    acl: tuple[Privilege, ...] | None
    comment: str | None
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Parameter:
    """Privileges on a configuration parameter (PostgreSQL 15 and later)."""

    name: str
    acl: tuple[Privilege, ...]


@dataclass(frozen=True)
class ServerFacts:
    """All of it. server: version of the server; system: its identifier, "" if unknown"""

    server: str
    roles: tuple[Role, ...] = ()
    memberships: tuple[Membership, ...] = ()
    settings: tuple[Setting, ...] = ()
    tablespaces: tuple[Tablespace, ...] = ()
    databases: tuple[DatabaseProperties, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    system: str = ""

    def database(self, name: str) -> DatabaseProperties | None:
        """Return the properties of a database; None if it has none here."""
        return next((one for one in self.databases if one.name == name), None)


def to_bytes(facts: ServerFacts) -> bytes:
    """Return the JSON of the item, in ASCII."""
    content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(facts)}
    return json.dumps(content, indent=1).encode("ascii") + b"\n"


def joined(chunks: Iterable[bytes]) -> bytes:
    """Return the content of an item of roles. Raises StoreError if it is too large."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > MAX_BYTES:
            raise StoreError(f"roles: larger than {MAX_BYTES} bytes", _HINT)
    return bytes(content)


def from_bytes(content: bytes) -> ServerFacts:
    """Return the facts of the JSON of an item. Raises StoreError if it is anything else."""
    try:
        value = foreign_json.load(content, MAX_BYTES)
        if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
            raise ValueError("another format")
        if (version := value.pop("version", None)) != VERSION:
            raise ValueError(f"version {version!r:.40} is not supported")
        return _object(ServerFacts, {"system": "", **value}, "item")  # the first ones had none
    except ValueError as error:
        raise StoreError(f"roles: invalid content: {error}", _HINT) from None


def of_row(kind: type[T], raw: str) -> T:
    """Return one object from a row of a server, as JSON. Raises ValueError."""
    return _object(kind, foreign_json.load(raw, MAX_BYTES), kind.__name__)


def _object(kind: type[T], value: Any, where: str) -> T:  # noqa: ANN401  (of a JSON text)
    """Return a dataclass from a JSON object with exactly its fields. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: not an object")
    wanted = typing.get_type_hints(kind)
    if different := sorted(wanted.keys() ^ value.keys()):
        raise ValueError(f"{where}: missing or unknown: {', '.join(different)[:200]}")
    return kind(**dict(_fields(wanted, value, where)))


def _fields(
    wanted: Mapping[str, Any], value: Mapping[str, Any], where: str
) -> Iterator[tuple[str, Any]]:
    for name, field_type in wanted.items():
        yield name, _value(field_type, value[name], f"{where}.{name}")


def _value(wanted: Any, value: Any, where: str) -> Any:  # noqa: ANN401  (of a JSON text)
    """Return a value of the type. Raises ValueError for any other."""
    if isinstance(wanted, types.UnionType):
        if value is None:
            return None
        (wanted,) = (one for one in typing.get_args(wanted) if one is not type(None))
    if typing.get_origin(wanted) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where}: not a list")
        return tuple(_value(typing.get_args(wanted)[0], one, where) for one in value)
    if dataclasses.is_dataclass(wanted):
        return _object(typing.cast("type[Any]", wanted), value, where)
    if type(value) is not wanted or (wanted is str and "\0" in value):
        raise ValueError(f"{where}: not a valid {wanted.__name__}")
    return value
