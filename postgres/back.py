"""A dump back into a server: under another name first, and renamed when all of it is there."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from tools import plugin, process, stream
from tools.date_str_utils import count
from tools.errors import BackupError, ConfigError, StoreError
from tools.result import Result, Status

if TYPE_CHECKING:
    from postgres import cluster
else:
    cluster = plugin.load("postgres/cluster.py")


def database(
    target: cluster.Cluster,
    name: str,
    facts: Mapping[str, str],
    again: Callable[[], Iterator[bytes]],
    *,
    overwrite: bool,
) -> Result:
    """Load a dump into the database `name`.

    It is loaded into a new one with a name of its own, and renamed at the end: on any failure
    nothing is left, and what was there is as it was. Raises StoreError, ConfigError.
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
    target.sql(f"CREATE DATABASE {cluster.identifier(new)} TEMPLATE template0{_made(facts)}")
    try:
        with stream.closed(again()) as chunks:
            _load(target, chunks, new)
        with _away(target, name, old if there else ""):
            target.sql(_renamed(new, name))
    except BaseException:
        with contextlib.suppress(BackupError):
            target.sql(f"DROP DATABASE IF EXISTS {cluster.identifier(new)}")
        raise
    warnings = _owned(target, name, facts)
    if there:
        target.sql(f"DROP DATABASE {cluster.identifier(old)}")
    number, rows = cluster.counts(target, name)
    return Result(
        Status.INCOMPLETE if warnings else Status.OK,
        f"{count(number, 'table')}, {count(rows, 'row')} in the database {name}",
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
    return "".join(
        f" {word} '{facts[key]}'"
        for key, word in words.items()
        if facts.get(key) and not set(facts[key]) & set("'\\")
    )


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


def _load(target: cluster.Cluster, chunks: Iterator[bytes], name: str) -> None:
    program = target.programs.beside("pg_restore")
    words = [program, "--exit-on-error", *target.words(), f"--dbname={cluster.conninfo(name)}"]
    stream.drained(
        process.output(words, given=chunks, env=target.environment(), failure=StoreError)
    )


def roles(target: cluster.Cluster, again: Callable[[], Iterator[bytes]]) -> Result:
    """Roles and tablespaces; those that are there stay as they are. Raises StoreError."""
    with stream.closed(again()) as chunks:
        stream.drained(chunks)
    said: list[str] = []
    where = cluster.conninfo(target.maintenance)
    words = [target.programs.psql, "-X", "-q", *target.words(), f"--dbname={where}"]
    with stream.closed(again()) as chunks:
        stream.drained(
            process.output(
                words,
                given=chunks,
                notice=said.append,
                env=target.environment(),
                failure=StoreError,
            )
        )
    errors = [line for line in said if "ERROR:" in line and "already exists" not in line]
    if errors:
        raise StoreError(f"roles: {errors[0]}", "\n".join(errors[1:]))
    ((number,),) = target.sql("SELECT count(*) FROM pg_roles WHERE rolname !~ '^pg_'")
    return Result(Status.OK, f"{number} roles on the server now", items=1)
