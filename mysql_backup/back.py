"""A dump back into a server: first read to its end, then loaded into a database of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from tools import plugin, process, stream
from tools.date_str_utils import count
from tools.errors import BackupError, StoreError
from tools.result import Result, Status

if TYPE_CHECKING:
    from mysql_backup import instance, replay
else:
    instance = plugin.load("mysql_backup/instance.py")
    replay = plugin.load("mysql_backup/replay.py")


def database(
    target: instance.Instance,
    name: str,
    facts: Mapping[str, str],
    again: Callable[[], Iterator[bytes]],
    *,
    overwrite: bool,
    played: replay.Replay | None = None,
) -> Result:
    """Load a dump into the database `name`, which is made where it is missing.

    All of the data is read and checked before the server hears of it; where the server then
    refuses something, a database that was made for it is dropped again. played: the binary
    logs that follow the dump. Raises StoreError, RefusedError.
    """
    there = name in instance.about(target).databases
    if there and not overwrite and not instance.is_empty(target, name):
        raise instance.RefusedError(
            f"the database {name} is not empty, and nothing is overwritten",
            "Name another one with --to-database, or say --overwrite.",
        )
    with stream.closed(again()) as chunks:
        stream.drained(chunks)
    if played is not None:
        played.refuse_name(name)
        played.refuse_damaged()
    if not there:
        target.rows(f"CREATE DATABASE {instance.quoted(name)}{_charset(facts)}")
    try:
        with stream.closed(again()) as chunks:
            _load(target, chunks, name)
        more = f", {played.play(target, name)} played after it" if played else ""
    except BaseException:
        if not there:
            with contextlib.suppress(BackupError):
                target.rows(f"DROP DATABASE {instance.quoted(name)}")
        raise
    number, rows = instance.counts(target, name)
    warnings = played.warnings() if played else ()
    return Result(
        Status.INCOMPLETE if warnings else Status.OK,
        f"{count(number, 'table')}, {count(rows, 'row')} in the database {name}{more}",
        items=1,
        bytes=int(facts.get("size", "0")),
        warnings=warnings,
    )


def _charset(facts: Mapping[str, str]) -> str:
    """How the database was made; words of the manifest, so only what can be a name."""
    found = ""
    for key, word in (("charset", " CHARACTER SET "), ("collation", " COLLATE ")):
        if facts.get(key, "").isidentifier():
            found += word + facts[key]
    return found


def users(target: instance.Instance, again: Callable[[], Iterator[bytes]]) -> Result:
    """Users and grants; those that are there stay as they are."""
    instance.about(target)
    with stream.closed(again()) as chunks:
        stream.drained(chunks)
    with stream.closed(again()) as chunks:
        _load(target, chunks, "mysql")
    ((number,),) = target.rows("SELECT COUNT(*) FROM mysql.user")
    return Result(Status.OK, f"{number} users and roles on the server now", items=1)


def _load(target: instance.Instance, chunks: Iterator[bytes], name: str) -> None:
    words = target.command(
        "--default-character-set=utf8mb4", "--binary-mode", f"--database={name}", *instance.ROOM
    )
    stream.drained(
        process.output(words, given=chunks, env=instance.environment(), failure=StoreError)
    )
