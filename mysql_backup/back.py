"""A dump back into a server: first read to its end, then loaded into a database of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Generator, Iterator, Mapping

from mysql_backup import (
    alterations,
    definers,
    dump_reader,
    instance,
    loading,
    renamed,
    replay,
    views,
)
from tools.base.errors import BackupError, StoreError
from tools.base.result import Result, Status
from tools.date_str_utils import count
from tools.flow import stream
from tools.modules import contracts

# Errors that name a missing database, table, column or routine, or a view that lacks one.
_ABSENT = re.compile(r"ERROR (?:1049|1054|1146|1305|1356) ")
_NEEDS = "Restore the databases, users and definers that these objects refer to as well."
_OWN = (
    "triggers, routines, events and views are now owned by the restoring user, who may not set "
    "another definer"
)


def database(  # noqa: PLR0913  (by name)
    target: instance.Instance,
    name: str,
    old: str,
    facts: Mapping[str, str],
    again: contracts.Again,
    *,
    overwrite: bool,
    played: replay.Replay | None = None,
) -> contracts.Steps:
    """Load a dump of `old` into the database `name`, which is made where it is missing.

    All of the data is read and checked before the server hears of it; where the server then
    refuses something, a database that was made for it is dropped again. A second step, where
    there is something for it, makes the views, which may need other databases and grants, and
    plays the binary logs that follow the dump. Raises StoreError, RefusedError.
    """
    there = name in instance.about(target).databases
    if there and not overwrite and not instance.is_empty(target, name):
        raise instance.RefusedError(
            f"database {name} is not empty",
            "Choose another name with --to-database, or use --overwrite to replace the tables "
            "that the dump contains and keep the others.",
        )
    measured = loading.Longest()
    warnings: tuple[str, ...] = ()
    with stream.closed(again()) as chunks:
        if old != name:
            warnings = renamed.of_dump(measured.read(chunks), old)
        else:
            stream.drained(measured.read(chunks))
    if played is not None:
        played.refuse_name(name)
        played.refuse_damaged()
    made = _Goal(target, name, facts, there, measured.needed)
    with _dropped_on_error(target, name, there=there):
        try:
            reader, own = made.fill(old, again)
        except StoreError as error:
            if not _ABSENT.search(error.hint):
                raise
            # a table's default may be a sequence of another database, which comes later
            yield Result(Status.OK, f"waiting for another database: {error.hint}")
            reader, own = made.fill(old, again)
        loaded = _loaded(target, name, int(facts.get("size", "0")), (*warnings, *own))
        if reader.views.every or played:
            yield loaded
            loaded = yield from _completed(target, reader, played)
    lost = tuple(f"definer {one} does not exist" for one in definers.missing(target, name))
    if not lost:
        return loaded
    return dataclasses.replace(
        loaded, status=Status.INCOMPLETE, hint=_NEEDS, warnings=(*loaded.warnings, *lost)
    )


@dataclasses.dataclass(frozen=True)
class _Goal:
    """A database that a dump is loaded into; needed: bytes of its longest statement."""

    target: instance.Instance
    name: str
    facts: Mapping[str, str]
    there: bool
    needed: int

    def fill(
        self, old: str, again: contracts.Again
    ) -> tuple[dump_reader.DumpReader, tuple[str, ...]]:
        """Make it where it is missing, and load all but the views. Raises StoreError."""
        with loading.room(self.target, self.needed):
            if not self.there:
                self.target.rows(f"DROP DATABASE IF EXISTS {instance.quoted(self.name)}")
                self.target.rows(
                    f"CREATE DATABASE {instance.quoted(self.name)}{_charset(self.facts)}"
                )
            reader = dump_reader.DumpReader(old, self.name, self.facts)
            return _filled(self.target, reader, again)


@contextlib.contextmanager
def _dropped_on_error(target: instance.Instance, name: str, *, there: bool) -> Iterator[None]:
    """Drop a database that was not there before where the block fails."""
    try:
        yield
    except BaseException:
        if not there:
            with contextlib.suppress(BackupError):
                target.rows(f"DROP DATABASE IF EXISTS {instance.quoted(name)}")
        raise


def _filled(
    target: instance.Instance, reader: dump_reader.DumpReader, again: contracts.Again
) -> tuple[dump_reader.DumpReader, tuple[str, ...]]:
    """Load all but the views; gives these, and warnings of what came back altered."""
    altered = alterations.Alterations()
    try:
        with stream.closed(again()) as chunks:
            loaded = reader.read(chunks)
            loading.load(target, loaded, reader.new, "--show-warnings", take=altered.take)
    except StoreError as error:
        if reader.own or definers.DENIED not in error.hint:
            raise
        own = dump_reader.DumpReader(reader.old, reader.new, reader.facts, own=True)
        reader, warnings = _filled(target, own, again)
        return reader, (_OWN, *warnings)
    return reader, altered.warnings()


def _loaded(target: instance.Instance, name: str, size: int, warnings: tuple[str, ...]) -> Result:
    number, rows = instance.counts(target, name)
    return Result(
        Status.INCOMPLETE if warnings else Status.OK,
        f"database {name}: {count(number, 'table')}, {count(rows, 'row')}",
        items=1,
        bytes=size,
        warnings=warnings,
    )


def _completed(
    target: instance.Instance, reader: dump_reader.DumpReader, played: replay.Replay | None
) -> contracts.Steps:
    """Make the views and play the binary logs. Raises StoreError, RefusedError."""
    told: list[str] = []
    warnings: tuple[str, ...] = ()
    hint = ""
    if every := reader.views.every:
        was_own = reader.own
        refused = yield from _views(target, reader)
        warnings = (_OWN,) if reader.own and not was_own else ()
        warnings += tuple(f"view {view} was not created: {why}" for view, why in refused.items())
        told.append(_of_views(every, refused))
        hint = _NEEDS if refused else ""
    if played:
        logs = played.play(target, reader.new)
        number, rows = instance.counts(target, reader.new)
        told.append(f"{logs} replayed: {count(number, 'table')}, {count(rows, 'row')}")
        warnings += played.warnings()
    status = Status.INCOMPLETE if warnings else Status.OK
    return Result(status, ", ".join(told), hint, warnings=warnings)


def _of_views(every: Mapping[str, views.View], refused: Mapping[str, str]) -> str:
    return f"{len(every) - len(refused)} of {count(len(every), 'view')}"


def _views(
    target: instance.Instance, reader: dump_reader.DumpReader
) -> Generator[Result, None, dict[str, str]]:
    """Make the views; gives those that were refused, and why.

    What a view of another database lacks may be a view of this one: as long as any database
    gets views, each is tried once more. Raises StoreError.
    """
    every = reader.views.every
    refused = dict.fromkeys(every, "")
    seen = -1
    while refused and seen != views.made.number:
        refused = _made(target, reader, refused)
        seen = views.made.number
        if not any(map(_ABSENT.match, refused.values())):
            break
        yield Result(Status.OK, f"{_of_views(every, refused)}; waiting for the others")
    return refused


def _made(
    target: instance.Instance, reader: dump_reader.DumpReader, wanted: Mapping[str, str]
) -> dict[str, str]:
    """Make views as long as some of them can be made; those that were refused, and why."""
    refused = dict(wanted)
    while refused:
        said: list[str] = []
        one_by_one = views.ordered(reader.views.every, refused)
        script = views.Script(reader.head, one_by_one, own=reader.own)
        loading.load(target, script.chunks(), reader.new, "--force", notice=said.append)
        still: dict[str, str] = script.refused(said)
        views.made.number += len(refused) - len(still)
        denied = any(why.startswith(definers.DENIED) for why in still.values())
        if len(still) == len(refused) and (reader.own or not denied):
            return still
        reader.own = reader.own or denied
        refused = still
    return {}


def _charset(facts: Mapping[str, str]) -> str:
    """How the database was made; words of the manifest, so only what can be a name."""
    found = ""
    for key, word in (("charset", " CHARACTER SET "), ("collation", " COLLATE ")):
        if facts.get(key, "").isidentifier():
            found += word + facts[key]
    return found
