"""A dump back into a server: first read to its end, then loaded into a database of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from tools import dump, plugin, process, stream
from tools.date_str_utils import count
from tools.errors import BackupError, StoreError
from tools.result import Result, Status

if TYPE_CHECKING:
    from mysql_backup import accounts, definers, instance, renamed, replay, views
else:
    accounts = plugin.load("mysql_backup/accounts.py")
    definers = plugin.load("mysql_backup/definers.py")
    instance = plugin.load("mysql_backup/instance.py")
    renamed = plugin.load("mysql_backup/renamed.py")
    replay = plugin.load("mysql_backup/replay.py")
    views = plugin.load("mysql_backup/views.py")

# Errors of MySQL and MariaDB that name a missing database, table, column or routine.
_ABSENT = re.compile(r"ERROR (?:1049|1054|1146|1305) ")
_NEEDS = "What views name, and definers, must be there: restore other databases and users too."
_OWN = "triggers, routines, events and views are the restoring user's own: it may name no definers"


def database(  # noqa: PLR0913  (by name)
    target: instance.Instance,
    name: str,
    old: str,
    facts: Mapping[str, str],
    again: dump.Again,
    *,
    overwrite: bool,
    played: replay.Replay | None = None,
) -> dump.Steps:
    """Load a dump of `old` into the database `name`, which is made where it is missing.

    All of the data is read and checked before the server hears of it; where the server then
    refuses something, a database that was made for it is dropped again. A second step, where
    there is something for it, makes the views, which may need other databases and grants, and
    plays the binary logs that follow the dump. Raises StoreError, RefusedError.
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
        last, own = _filled(target, name, again)
        loaded = _loaded(target, name, int(facts.get("size", "0")), (*warnings, *own))
        if last.text or played:
            yield loaded
            loaded = _completed(target, name, last, played)
    except BaseException:
        if not there:
            with contextlib.suppress(BackupError):
                target.rows(f"DROP DATABASE {instance.quoted(name)}")
        raise
    lost = tuple(f"its definer {one} does not exist" for one in definers.missing(target, name))
    if not lost:
        return loaded
    return dataclasses.replace(
        loaded, status=Status.INCOMPLETE, hint=_NEEDS, warnings=(*loaded.warnings, *lost)
    )


def _filled(
    target: instance.Instance, name: str, again: dump.Again
) -> tuple[views.Views, tuple[str, ...]]:
    """Load all but the views; gives these, and a warning where definers could not be kept."""
    last = views.Views()
    try:
        with stream.closed(again()) as chunks:
            _load(target, last.withheld(chunks), name)
    except StoreError as error:
        if definers.DENIED not in error.hint:
            raise
        last = views.Views()
        with stream.closed(again()) as chunks:
            _load(target, last.withheld(definers.stripped(chunks)), name)
        return last, (_OWN,)
    return last, ()


def _loaded(target: instance.Instance, name: str, size: int, warnings: tuple[str, ...]) -> Result:
    number, rows = instance.counts(target, name)
    return Result(
        Status.INCOMPLETE if warnings else Status.OK,
        f"{count(number, 'table')}, {count(rows, 'row')} in the database {name}",
        items=1,
        bytes=size,
        warnings=warnings,
    )


def _completed(
    target: instance.Instance, name: str, last: views.Views, played: replay.Replay | None
) -> Result:
    """Make the views and play the binary logs. Raises StoreError, RefusedError."""
    told: list[str] = []
    warnings: tuple[str, ...] = ()
    hint = ""
    if last.text:
        refused = _made(target, name, last, [last.text])
        if any(why.startswith(definers.DENIED) for why in refused.values()):
            refused = _made(target, name, last, definers.stripped([last.text]))
            warnings = (_OWN,)
        warnings += tuple(f"the view {view} was refused: {why}" for view, why in refused.items())
        made = len(last.names) - len(refused)
        told.append(f"{made} of {count(len(last.names), 'view')}")
        hint = _NEEDS if refused else ""
    if played:
        logs = played.play(target, name)
        number, rows = instance.counts(target, name)
        told.append(f"{logs} played: {count(number, 'table')}, {count(rows, 'row')} now")
        warnings += played.warnings()
    status = Status.INCOMPLETE if warnings else Status.OK
    return Result(status, ", ".join(told), hint, warnings=warnings)


def _made(
    target: instance.Instance, name: str, last: views.Views, chunks: Iterable[bytes]
) -> dict[str, str]:
    """Make views; those that were refused, and why."""
    said: list[str] = []
    _load(target, iter(chunks), name, "--force", notice=said.append)
    refused: dict[str, str] = last.refused(said)
    return refused


def _charset(facts: Mapping[str, str]) -> str:
    """How the database was made; words of the manifest, so only what can be a name."""
    found = ""
    for key, word in (("charset", " CHARACTER SET "), ("collation", " COLLATE ")):
        if facts.get(key, "").isidentifier():
            found += word + facts[key]
    return found


def users(target: instance.Instance, again: dump.Again) -> dump.Steps:
    """Users and grants; those that are there keep their passwords.

    A grant on a table or routine that is not there is refused by the server: it is made once
    more when the databases are there, and is a warning then. Raises StoreError where anything
    else is refused; what can be made is made all the same.
    """
    instance.about(target)
    with stream.closed(again()) as chunks:
        stream.drained(chunks)
    _granted(target, again)
    ((number,),) = target.rows("SELECT COUNT(*) FROM mysql.user")
    yield Result(Status.OK, f"{number} users and roles on the server now", items=1)
    absent = _granted(target, again)
    warnings = tuple(f"a grant was refused: {line}" for line in absent)
    status = Status.INCOMPLETE if absent else Status.OK
    told = f"all grants but {len(absent)}" if absent else "all grants"
    return Result(status, told, warnings=warnings)


def _granted(target: instance.Instance, again: dump.Again) -> list[str]:
    """Make users and grants; what the server said of grants on what is not there."""
    said: list[str] = []
    with stream.closed(again()) as chunks:
        _load(target, accounts.kept(chunks), "mysql", "--force", notice=said.append)
    refused = [line for line in said if line.startswith("ERROR")]
    absent = [line for line in refused if _ABSENT.match(line)]
    if len(absent) < len(refused):
        first, *rest = [line for line in refused if line not in absent]
        raise StoreError(f"users and grants: {first}", "\n".join(rest))
    return absent


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
