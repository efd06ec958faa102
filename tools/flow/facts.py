"""Facts of items: what a source knows of an item beside its bytes, typed for each kind.

In the manifest the facts of an item are one JSON object. Numbers are JSON numbers; manifests of
version 1 have them as texts, and lists as texts with spaces between, which are still read.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeVar, Union

from tools.base import run_ids
from tools.base.errors import ManifestError

Json = Union[None, bool, int, float, str, list["Json"], dict[str, "Json"]]  # noqa: UP007  (recursive)
_MAX_NUMBER = (1 << 64) - 1  # log sequence numbers of InnoDB have 64 bits
_NUMBER = re.compile(r"[0-9]{1,20}")
_PREFIX = "prefix"  # metadata of a mapping: its keys stand beside the other facts, with a prefix
_HINT = "Use another copy of the run, or the version of nc-backup-py that wrote it."
F = TypeVar("F", bound="Facts")


class HasFacts(Protocol):
    """A stored item (tools.flow.item_record.StoredItem)."""

    @property
    def facts(self) -> Mapping[str, Json]:
        """Return the JSON object of the manifest."""

    @property
    def label(self) -> str:
        """Return the name of the item in messages."""


class _FactError(ValueError):
    """A fact that is unknown, missing or ill-typed; the text names it."""


def _prefixed(prefix: str) -> Any:  # noqa: ANN401  (of a dataclass field)
    return field(default_factory=dict, metadata={_PREFIX: prefix})


@dataclass(frozen=True)
class Facts:
    """The facts of one kind of item: a frozen dataclass with a field for each."""

    def to_json(self) -> dict[str, Json]:
        """Return the JSON object of the manifest; facts that are empty are left out."""
        facts: dict[str, Json] = {}
        for fact in dataclasses.fields(self):
            value = getattr(self, fact.name)
            if _PREFIX in fact.metadata:
                facts |= {fact.metadata[_PREFIX] + key: text for key, text in value.items()}
            elif value is not None and value is not False and value not in ("", ()):
                facts[fact.name] = list(value) if isinstance(value, tuple) else value
        return facts

    is_open: ClassVar[bool] = False  # whether facts that have no field are allowed

    @classmethod
    def of(cls: type[F], item: HasFacts) -> F:
        """Return the facts of a stored item.

        Raises ManifestError, naming the fact, for one that is unknown, missing or ill-typed.
        """
        try:
            return cls.from_json(item.facts)
        except _FactError as error:
            text = f"{item.label}: invalid fact in the manifest: {error}"
            raise ManifestError(text, _HINT) from None

    @classmethod
    def from_json(cls: type[F], json_object: Mapping[str, Json]) -> F:
        """Return the facts of a JSON object. Raises ValueError, naming the fact."""
        rest = dict(json_object)
        values: dict[str, Any] = {}
        types = _types(cls)  # type: ignore[arg-type]
        for fact in dataclasses.fields(cls):
            if prefix := fact.metadata.get(_PREFIX, ""):
                keys = [key for key in rest if key.startswith(prefix)]
                values[fact.name] = {
                    key.removeprefix(prefix): _scalar(key, rest.pop(key)) for key in keys
                }
            elif fact.name in rest:
                values[fact.name] = _READERS[types[fact.name]](fact.name, rest.pop(fact.name))
            elif fact.default is dataclasses.MISSING:
                raise _FactError(f"{fact.name} is missing")
        if rest and not cls.is_open:
            raise _FactError(f"{min(rest)} is unknown")
        facts = cls(**values)
        facts.check()
        return facts

    def check(self) -> None:
        """Raise ValueError, naming the fact, where facts contradict each other."""


@functools.cache
def _types(facts: Any) -> Mapping[str, Any]:  # noqa: ANN401  (a class of facts)
    return typing.get_type_hints(facts)


def _text(name: str, value: Json) -> str:
    if not isinstance(value, str):
        raise _FactError(f"{name} is not a text: {_short(value)}")
    return value


def _number(name: str, value: Json) -> int:
    """Read a number; in version 1 of the manifest it is a text."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value)
    if type(value) is not int or not 0 <= value <= _MAX_NUMBER:
        raise _FactError(f"{name} is not a number: {_short(value)}")
    return value


def _texts(name: str, value: Json) -> tuple[str, ...]:
    values = value.split() if isinstance(value, str) else value
    if not isinstance(values, list):
        raise _FactError(f"{name} is not a list of texts: {_short(value)}")
    return tuple(_text(name, one) for one in values)


def _numbers(name: str, value: Json) -> tuple[int, ...]:
    values = value.split() if isinstance(value, str) else value
    if not isinstance(values, list):
        raise _FactError(f"{name} is not a list of numbers: {_short(value)}")
    return tuple(_number(name, one) for one in values)


def _truth(name: str, value: Json) -> bool:
    """Read a truth value; in version 1 of the manifest "yes" stands for true."""
    if value not in (True, False, "yes"):
        raise _FactError(f"{name} is not true or false: {_short(value)}")
    return bool(value)


def _scalar(name: str, value: Json) -> str | int:
    if type(value) is int:
        return _number(name, value)
    return _text(name, value)


def _short(value: Json) -> str:
    return repr(value)[:80]


_READERS: Mapping[Any, Callable[[str, Json], Any]] = {
    str: _text,
    int: _number,
    int | None: _number,
    tuple[str, ...]: _texts,
    tuple[int, ...]: _numbers,
    bool: _truth,
}


def _check_time(name: str, text: str) -> None:
    try:
        datetime.strptime(text, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007  (UTC, only checked)
    except ValueError:
        raise _FactError(f"{name} is not a time: {_short(text)}") from None


# --- one class for each kind


@dataclass(frozen=True)
class FileFacts(Facts):
    """kind file: what a user-defined source says of its item; anything."""

    is_open: ClassVar[bool] = True


@dataclass(frozen=True)
class FilesetFacts(Facts):
    """kind fileset. tar: the version of the program that made the archive; files: members of it"""

    tar: str = ""
    files: int | None = None


@dataclass(frozen=True)
class SqliteFacts(Facts):
    """kind sqlite. sqlite: version of the library"""

    sqlite: str = ""
    tables: int | None = None


@dataclass(frozen=True)
class RedisFacts(Facts):
    """kind redis. server: its version"""

    server: str = ""


@dataclass(frozen=True)
class OpenldapFacts(Facts):
    """kind openldap. suffix: of the database; several with "; " between"""

    entries: int | None = None
    suffix: str = ""


@dataclass(frozen=True)
class MongoFacts(Facts):
    """kind mongo. consistency: "oplog" for a dump of one moment"""

    tool: str = ""
    databases: tuple[str, ...] = ()
    collections: int | None = None
    documents: int | None = None
    consistency: str = ""


@dataclass(frozen=True)
class MysqlServerFacts(Facts):
    """kind mysql-users, and what kind mysql has as well.

    server, tool: versions of the server and of the dump program
    variables:    settings of the server that decide what it takes back
    primary:      where the primary of a replica stood: host, port, log_file, log_position
                  and position (how exact that is); of a named connection with [NAME]
    gtid_slave_pos, gtid_executed: GTIDs of a replica (MariaDB, MySQL)
    """

    server: str = ""
    tool: str = ""
    variables: Mapping[str, str] = _prefixed("variable.")
    primary: Mapping[str, str | int] = _prefixed("primary_")
    gtid_slave_pos: str = ""
    gtid_executed: str = ""


@dataclass(frozen=True)
class MysqlFacts(MysqlServerFacts):
    """kind mysql: the dump of one database.

    binlog_file, binlog_position, gtid: where the binary log stood; "" and None: it is off
    time:              when that was, UTC
    charset, collation: defaults of the database
    consistency:       "single transaction" or "locked"
    excluded, schema_only: tables that were left out, wholly or without their rows
    longest_statement: bytes that max_allowed_packet must allow
    """

    binlog_file: str = ""
    binlog_position: int | None = None
    time: str = ""
    gtid: str = ""
    charset: str = ""
    collation: str = ""
    consistency: str = ""
    excluded: tuple[str, ...] = ()
    schema_only: tuple[str, ...] = ()
    longest_statement: int | None = None

    def check(self) -> None:
        """See Facts."""
        if self.binlog_file and self.binlog_position is None:
            raise _FactError("binlog_position is missing")
        if self.binlog_file or self.time:
            _check_time("time", self.time)


@dataclass(frozen=True)
class BinlogFacts(Facts):
    """kind mysql-binlogs: closed binary logs of one server.

    first, last: names of the logs; last_size: bytes of the last one
    until:       all up to this time (UTC) is in them
    format:      binlog_format of the server
    gtid:        executed before they were closed
    created:     when the server began each log, in seconds, the one in use last
    encrypted:   names of the encrypted ones
    anew:        whether they are of another sequence than what was stored before
    """

    first: str
    last: str
    last_size: int
    until: str
    format: str
    server: str = ""
    gtid: str = ""
    created: tuple[int, ...] = ()
    encrypted: tuple[str, ...] = ()
    anew: bool = False

    def check(self) -> None:
        """See Facts."""
        _check_time("until", self.until)


@dataclass(frozen=True)
class PhysicalFacts(Facts):
    """kind mysql-physical: a backup by mariabackup or xtrabackup.

    backup_type, from_lsn, to_lsn: from xtrabackup_checkpoints
    tool:     name of the program
    identity: of the data folder; another one was made anew
    run:      id of its own run; full: of the run with the full backup that it builds on
    """

    to_lsn: int
    from_lsn: int | None = None
    backup_type: str = ""
    server: str = ""
    tool: str = ""
    identity: str = ""
    run: str = ""
    full: str = ""

    def check(self) -> None:
        """See Facts."""
        for name in ("run", "full"):
            text = getattr(self, name)
            if text and not (run_ids.is_run_id(text) and run_ids.is_time(text)):
                raise _FactError(f"{name} is not a run id: {_short(text)}")


@dataclass(frozen=True)
class PostgresServerFacts(Facts):
    """kind postgres-roles, and what kind postgres has as well: versions."""

    server: str = ""
    tool: str = ""


@dataclass(frozen=True)
class PostgresFacts(PostgresServerFacts):
    """kind postgres: the dump of one database, and how the database was made.

    provider:    of locales: c (libc), i (icu), b (builtin)
    search_path: of sessions whose role has none of its own
    """

    encoding: str = ""
    collate: str = ""
    ctype: str = ""
    owner: str = ""
    tablespace: str = ""
    provider: str = ""
    locale: str = ""
    icu_rules: str = ""
    search_path: str = ""


@dataclass(frozen=True)
class BaseBackupFacts(Facts):
    """kind postgres-base. wal_start, wal_end: positions in the write-ahead log"""

    server: str = ""
    wal_start: str = ""
    wal_end: str = ""
    timeline: int | None = None
