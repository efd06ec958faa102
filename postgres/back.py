"""A dump back into a server: under another name first, and renamed when all of it is there."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tools import dump, plugin, process, stream
from tools.date_str_utils import count
from tools.errors import BackupError, ConfigError, StoreError
from tools.result import Result, Status

if TYPE_CHECKING:
    from postgres import cluster, refused
else:
    cluster = plugin.load("postgres/cluster.py")
    refused = plugin.load("postgres/refused.py")

_PROVIDERS = {"i": "ICU", "b": "BUILTIN"}  # pg_database.datlocprovider; "c" is the old way
_NO_TABLESPACE = re.compile(r'(?:tablespace|"default_tablespace":) "(.*?)"')
_HEAD = 64 << 20  # bytes of a dump in which its list stands
# Headers of what a dump says of the database itself, and the name in such a statement.
_OF_DATABASE = re.compile(
    r"-- Name: (?:.*; Type: DATABASE PROPERTIES;|"
    r"DATABASE .*; Type: (?:ACL|COMMENT|SECURITY LABEL);)"
)
_NAMED = re.compile(
    r"^((?:ALTER|COMMENT ON|(?:ALTER ROLE|GRANT|REVOKE|SECURITY LABEL) .+? (?:ON|IN)) DATABASE) "
    r'(?:"(?:[^"]|"")+"|\w+) '
)


def database(
    target: cluster.Cluster,
    name: str,
    facts: Mapping[str, str],
    again: Callable[[], Iterator[bytes]],
    *,
    overwrite: bool,
    tablespaces: bool,
) -> Result:
    """Load a dump into the database `name`, its tables into their tablespaces where wanted.

    It is loaded into a new one with a name of its own, and renamed at the end: on any failure
    nothing is left, and what was there is as it was. What needs a role or an extension that this
    server lacks is left out and said; rows never are. Raises StoreError, ConfigError.
    """
    if name == target.maintenance:  # nobody may be in it when it is renamed
        target = dataclasses.replace(target, maintenance="template1")
    there = name in {found.name for found in cluster.databases(target)}
    if there and not overwrite and not cluster.is_empty(target, name):
        raise ConfigError(
            f"the database {name} is not empty, and nothing is overwritten",
            "Name another one with --to-database, or say --overwrite.",
        )
    new, old = (f"nc_{word}_{uuid.uuid4().hex[:12]}" for word in ("new", "old"))
    try:
        said, warnings = _loaded(target, new, facts, again, tablespaces=tablespaces)
        with _away(target, name, old if there else ""):
            target.sql(_renamed(new, name))
    except BaseException:
        with contextlib.suppress(BackupError):
            target.sql(f"DROP DATABASE IF EXISTS {cluster.identifier(new)}")
        raise
    warnings += said.warnings()
    warnings += (*_owned(target, name, facts), *_properties(target, name, again))
    if there:
        target.sql(f"DROP DATABASE {cluster.identifier(old)}")
    number, rows = cluster.counts(target, name)
    return Result(
        Status.INCOMPLETE if warnings else Status.OK,
        f"{count(number, 'table')}, {count(rows, 'row')} in the database {name}",
        said.hint(),
        items=1,
        bytes=int(facts.get("size", "0")),
        warnings=warnings,
    )


@contextlib.contextmanager
def _away(target: cluster.Cluster, name: str, old: str) -> Iterator[None]:
    """What has the name gets another one; on an exception it gets its own back."""
    if old:
        target.sql(_renamed(name, old))
    try:
        yield
    except BaseException:
        if old:
            target.sql(_renamed(old, name))
        raise


def _renamed(name: str, to: str) -> str:
    return f"ALTER DATABASE {cluster.identifier(name)} RENAME TO {cluster.identifier(to)}"


def _made(facts: Mapping[str, str]) -> str:
    """How the database was made."""
    words = {"encoding": "ENCODING", "collate": "LC_COLLATE", "ctype": "LC_CTYPE"}
    if facts.get("provider") in _PROVIDERS:
        provider = _PROVIDERS[facts["provider"]]
        words |= {"locale": f"LOCALE_PROVIDER {provider} {provider}_LOCALE"}
        words |= {"icu_rules": "ICU_RULES"}
    texts = ((word, facts.get(key, "").replace("'", "''")) for key, word in words.items())
    return "".join(f" {word} '{text}'" for word, text in texts if text)


def _owned(target: cluster.Cluster, name: str, facts: Mapping[str, str]) -> tuple[str, ...]:
    """Give the database to its owner; a warning where there is no such role."""
    if not facts.get("owner"):
        return ()
    words = (cluster.identifier(name), cluster.identifier(facts["owner"]))
    try:
        target.sql("ALTER DATABASE {} OWNER TO {}".format(*words))
    except BackupError as error:
        return (f"its owner was {facts['owner']}: {error.hint or error}",)
    return ()


def _properties(
    target: cluster.Cluster, name: str, again: Callable[[], Iterator[bytes]]
) -> tuple[str, ...]:
    """Settings, rights and comment of the database itself; a warning for each that fails.

    They stand at the beginning of a dump, and pg_restore tells them only with --create.
    """
    with tempfile.TemporaryDirectory(prefix="nc-dump-") as folder:
        head = Path(folder, "head")
        with stream.closed(again()) as chunks:
            head.write_bytes(dump.beginning(chunks, _HEAD)[0])
        words = [target.programs.beside("pg_restore"), "--create", "--schema-only", "--file=-"]
        try:
            out = b"".join(process.output([*words, str(head)], env=target.environment()))
        except BackupError as error:  # a name with a line break, which it takes elsewhere
            return (f"settings and rights of the database itself: {error.hint or error}",)
    found = _of_database(out.decode("utf-8", "surrogateescape"), cluster.identifier(name))
    if not found:
        return ()
    said = target.script([found.encode("utf-8", "surrogateescape")])
    return tuple(f"of the database itself: {line}" for line in said if "ERROR:" in line)


def _of_database(text: str, identifier: str) -> str:
    """The statements of a script of pg_restore that say something of the database itself."""
    kept, wanted = [], False
    for line in text.splitlines(keepends=True):
        if line.startswith(("-- Name: ", "\\")):
            wanted = bool(_OF_DATABASE.match(line))
        elif wanted and not line.startswith("--"):
            kept.append(_NAMED.sub(lambda found: f"{found[1]} {identifier} ", line))
    return "".join(kept)


def _loaded(
    target: cluster.Cluster,
    name: str,
    facts: Mapping[str, str],
    again: Callable[[], Iterator[bytes]],
    *,
    tablespaces: bool,
) -> tuple[refused.Refused, tuple[str, ...]]:
    """Make the database `name` and load the dump into it; where a tablespace is missing, without.

    Gives what was left out, and a warning of the tablespace. Raises StoreError.
    """
    made = f"CREATE DATABASE {cluster.identifier(name)} TEMPLATE template0{_made(facts)}"
    warnings: tuple[str, ...] = ()
    while True:
        own = cluster.identifier(facts["tablespace"]) if facts.get("tablespace") else ""
        try:
            target.sql(made + (f" TABLESPACE {own}" if own and tablespaces else ""))
            with stream.closed(again()) as chunks:
                said = _load(target, chunks, name, *([] if tablespaces else ["--no-tablespaces"]))
        except BackupError as error:
            missing = _NO_TABLESPACE.search(error.hint)
            if not (tablespaces and missing):
                raise
            warnings = (f"there is no tablespace {missing[1]}: all is in the server's usual one",)
            tablespaces = False
            target.sql(f"DROP DATABASE IF EXISTS {cluster.identifier(name)}")
        else:
            return said, warnings


def _load(
    target: cluster.Cluster, chunks: Iterator[bytes], name: str, *more: str
) -> refused.Refused:
    program = target.programs.beside("pg_restore")
    where = [*target.words(), f"--dbname={cluster.conninfo(name)}"]
    said = refused.Refused()
    stream.drained(
        process.output(
            [program, *more, *where],
            given=said.watched(chunks),
            allowed=said.went_on,
            notice=said.take,
            env=target.environment(),
            failure=StoreError,
        )
    )
    said.judge()
    return said
