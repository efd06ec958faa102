"""A dump back into a server: first read to its end, then loaded into a database of its own."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from tools import plugin, process, stream
from tools.date_str_utils import count
from tools.errors import BackupError, StoreError
from tools.result import Result, Status

if TYPE_CHECKING:
    from mysql_backup import accounts, instance, renamed, replay
else:
    accounts = plugin.load("mysql_backup/accounts.py")
    instance = plugin.load("mysql_backup/instance.py")
    renamed = plugin.load("mysql_backup/renamed.py")
    replay = plugin.load("mysql_backup/replay.py")

# Errors of MySQL and MariaDB that name a missing database, table, column or routine.
_ABSENT = re.compile(r"ERROR (?:1049|1054|1146|1305) ")
# Errors at a view whose definer is missing, or has no right to what it shows.
_LACKING = re.compile(r"ERROR (?:1142|1143|1356|1370|1449) ")


def database(  # noqa: PLR0913  (by name)
    target: instance.Instance,
    name: str,
    old: str,
    facts: Mapping[str, str],
    again: Callable[[], Iterator[bytes]],
    *,
    overwrite: bool,
    played: replay.Replay | None = None,
    settle: Callable[[], bool] = lambda: False,
) -> Result:
    """Load a dump of `old` into the database `name`, which is made where it is missing.

    All of the data is read and checked before the server hears of it; where the server then
    refuses something, a database that was made for it is dropped again. played: the binary
    logs that follow the dump. settle: makes grants on its tables, which a view may need,
    and says whether there are any.
    Raises StoreError, RefusedError.
    """
    there = name in instance.about(target).databases
    if there and not overwrite and not instance.is_empty(target, name):
        raise instance.RefusedError(
            f"the database {name} is not empty, and nothing is overwritten",
            "Name another one with --to-database, or say --overwrite.",
        )
    warnings: tuple[str, ...] = ()
    with stream.closed(again()) as chunks:
        if old != name:
            warnings = renamed.of_dump(chunks, old)
        else:
            stream.drained(chunks)
    if played is not None:
        played.refuse_name(name)
        played.refuse_damaged()
    if not there:
        target.rows(f"CREATE DATABASE {instance.quoted(name)}{_charset(facts)}")
    try:
        try:
            _loaded(target, again, name)
        except StoreError as error:
            if not _LACKING.search(error.hint):
                raise
            if not settle():  # the tables are there by now
                hint = "Restore users and grants too: --item users@PORT beside this one."
                raise StoreError(str(error), f"{error.hint}\n{hint}") from None
            _loaded(target, again, name)
        more = f", {played.play(target, name)} played after it" if played else ""
    except BaseException:
        if not there:
            with contextlib.suppress(BackupError):
                target.rows(f"DROP DATABASE {instance.quoted(name)}")
        raise
    number, rows = instance.counts(target, name)
    warnings += played.warnings() if played else ()
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


def users(
    target: instance.Instance, again: Callable[[], Iterator[bytes]], *, settled: bool
) -> Result:
    """Users and grants; those that are there keep their passwords.

    A grant on a table or routine that is not there is refused by the server: it is made once
    more when the databases are there (settled), and is a warning then. Raises StoreError where
    anything else is refused; what can be made is made all the same.
    """
    instance.about(target)
    with stream.closed(again()) as chunks:
        stream.drained(chunks)
    said: list[str] = []
    with stream.closed(again()) as chunks:
        _load(target, accounts.kept(chunks), "mysql", "--force", notice=said.append)
    refused = [line for line in said if line.startswith("ERROR")]
    absent = [line for line in refused if _ABSENT.match(line)]
    if len(absent) < len(refused):
        first, *rest = [line for line in refused if line not in absent]
        raise StoreError(f"users and grants: {first}", "\n".join(rest))
    ((number,),) = target.rows("SELECT COUNT(*) FROM mysql.user")
    told = f"{number} users and roles on the server now"
    if not settled:
        return Result(Status.OK, told, items=1)
    warnings = tuple(f"a grant was refused: {line}" for line in absent)
    missing = f", but for {count(len(absent), 'grant')}" if absent else ""
    status = Status.INCOMPLETE if absent else Status.OK
    return Result(status, f"{told}, with their grants{missing}", warnings=warnings)


def _loaded(target: instance.Instance, again: Callable[[], Iterator[bytes]], name: str) -> None:
    with stream.closed(again()) as chunks:
        _load(target, chunks, name)


def _load(
    target: instance.Instance,
    chunks: Iterator[bytes],
    name: str,
    *more: str,
    notice: Callable[[str], None] | None = None,
) -> None:
    words = ["--default-character-set=utf8mb4", "--binary-mode", f"--database={name}"]
    env = instance.environment()
    stream.drained(
        process.output(
            target.command(*words, *instance.ROOM, *more),
            given=chunks,
            env=env,
            failure=StoreError,
            notice=notice,
        )
    )
