"""Items of databases: judged by the end mark of their dump, left in files by staged runs."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tools import date_str_utils, filesystem_handling, manifest, stream
from tools.errors import BackupError, RetryError, SourceError
from tools.item import Item
from tools.result import Made, Result, Status
from tools.stream import Chunks

T = TypeVar("T")

Again = Callable[[], Iterator[bytes]]  # the data of a stored item, once more from its beginning
_TAIL = 4096  # bytes in which the end mark of a dump must stand (RELIABILITY M2, P1)


@dataclasses.dataclass(frozen=True)
class Following:
    """An item of the same section, of the run that is restored or of a later one."""

    run_id: str
    item: manifest.Item
    again: Again


@dataclasses.dataclass(frozen=True)
class Server:
    """The server that a dump is restored into.

    credentials: the client's own file of logins; None for its usual one
    database:    another name for what is restored; "" for the old one
    overwrite:   into a database that is not empty
    until:       how far logs are played after the dump; "" for not at all
    following:   where these logs are found, oldest first
    """

    host: str
    port: int | None = None
    user: str = ""
    credentials: Path | None = None
    database: str = ""
    overwrite: bool = False
    until: str = ""
    following: Callable[[], Iterator[Following]] = lambda: iter(())


def ended_by(chunks: Chunks, mark: bytes, what: str) -> Iterator[bytes]:
    """A stage that changes nothing: the end mark must stand in the last 4 KiB.

    Raises SourceError at the end where it does not: an exit code of 0 is not enough.
    """
    tail = b""
    for chunk in chunks:
        tail = (tail + chunk)[-_TAIL:] if len(chunk) < _TAIL else chunk[-_TAIL:]
        yield chunk
    if mark not in tail:
        raise SourceError(
            f"the dump of {what} has no end: {mark.decode()!r} is missing",
            "The dump program ended early, though it said that all is well.",
        )


def beginning(chunks: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, and all of the chunks."""
    first: list[bytes] = []
    while sum(map(len, first)) < size and (chunk := next(chunks, b"")):
        first.append(chunk)
    return b"".join(first)[:size], itertools.chain(first, chunks)


def again(attempt: Callable[[], T], say: Callable[[str], None]) -> T:
    """Do it; where RetryError says that it is worth a whole new try, once more."""
    try:
        return attempt()
    except RetryError as error:
        say(f"{error}; it is dumped anew")
        return attempt()


def staged(
    items: Sequence[Item], folder: Path, named: Callable[[str], str], say: Callable[[str], None]
) -> Result:
    """Write each item into a file of its own; one that fails does not stop the others.

    named: the file's name for an item's name. What a failed section leaves, the run puts aside.
    """
    filesystem_handling.make_folder(folder)
    progress = stream.Progress()
    files: list[str] = []
    warnings: list[str] = []
    errors: list[tuple[str, BackupError | OSError]] = []
    trail: list[Made] = []
    size = 0
    for item in items:
        target = folder / named(item.name)

        def attempt(item: Item = item, target: Path = target) -> None:
            with filesystem_handling.create(target, durable=False) as write:
                for chunk in progress(item.read()):
                    write(chunk)

        try:
            again(attempt, say)
        except (BackupError, OSError) as error:
            errors.append((item.name, error))
            continue
        ended = item.ended()
        for note in ended.notes:
            say(f"{item.name}: {note}")
        warnings += [f"{item.name}: {line}" for line in ended.warnings]
        errors += [(item.name, SourceError(line)) for line in ended.failures]
        files.append(str(target))
        size += target.stat().st_size
        trail.append(Made((), (str(target),), item.kind, facts=ended.facts, name=item.name))
    told = f"{date_str_utils.count(len(files), 'item')}, {date_str_utils.human_size(size)}"
    common = {"files": tuple(files), "items": len(files), "bytes": size}
    if errors:
        lines = [f"{name}: {error}" for name, error in errors]
        hint = getattr(errors[0][1], "hint", "")
        what = f"{lines[0]} ({len(lines)} failed; {told})" if files else lines[0]
        return Result(Status.FAILED, what, hint, warnings=(*lines[1:], *warnings), **common)  # type: ignore[arg-type]
    status = Status.INCOMPLETE if warnings else Status.OK
    return Result(status, told, warnings=tuple(warnings), trail=tuple(trail), **common)  # type: ignore[arg-type]


def run_id() -> str:
    """The run's id, or one of our own where a module is started by hand."""
    return os.environ.get("NC_BACKUP_RUN_ID") or date_str_utils.run_id()


def file_name(text: str) -> str:
    """A database's name as part of a file's name."""
    return manifest.quoted(text)
