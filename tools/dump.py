"""Items of databases: judged by the end mark of their dump, left in files by staged runs."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import itertools
import logging
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tools import date_str_utils, filesystem_handling, manifest, options, removal, stream
from tools.errors import BackupError, ConfigError, RetryError, SourceError
from tools.item import Item, Told, about
from tools.result import Made, Result, Status
from tools.stream import Chunks

T = TypeVar("T")

Again = Callable[[], Iterator[bytes]]  # the data of a stored item, once more from its beginning
# A restore into a server: yields what came of a step where the other items go first; returns
# what came of the last. Closed early, it drops a database that it made.
Steps = Generator[Result, None, Result]
_SCRATCH = ".dump-"  # begins the name of a private folder; the number of its process follows
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
    tablespaces: tables into those that they were in (PostgreSQL)
    following:   where these logs are found, oldest first
    options:     Options of the section that made the dump; None where the config has none
    """

    host: str
    port: int | None = None
    user: str = ""
    credentials: Path | None = None
    database: str = ""
    overwrite: bool = False
    until: str = ""
    tablespaces: bool = True
    following: Callable[[], Iterator[Following]] = lambda: iter(())
    options: object = None


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

    named: the file's name for an item's name. What failed is put aside by the run.
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
            say(about(item.name, note))
        warnings += [about(item.name, line) for line in ended.warnings]
        errors += [(item.name, SourceError(line)) for line in ended.failures]
        files.append(str(target))
        size += target.stat().st_size
        trail.append(
            Made(
                (),
                (str(target),),
                item.kind,
                facts=ended.facts,
                name=item.name,
                ending=item.called(b""),
                warnings=ended.warnings,
                notes=ended.notes,
            )
        )
    told = f"{date_str_utils.count(len(files), 'item')}, {date_str_utils.human_size(size)}"
    common = {"files": tuple(files), "items": len(files), "bytes": size}
    if errors:
        lines = [about(name, error) for name, error in errors]
        hint = getattr(errors[0][1], "hint", "")
        what = f"{lines[0]} ({len(lines)} failed; {told})" if files else lines[0]
        told_of = (*lines[1:], *warnings)
        return Result(Status.FAILED, what, hint, warnings=told_of, trail=tuple(trail), **common)  # type: ignore[arg-type]
    status = Status.INCOMPLETE if warnings else Status.OK
    return Result(status, told, warnings=tuple(warnings), trail=tuple(trail), **common)  # type: ignore[arg-type]


class Plugin:
    """A plugin class (MANUAL) that leaves its items in PREFIX_FOLDER, for a staged run.

    declared: its Options, with hostname, destination, prefix_folder and work_folder
    section:  what its section is usually called
    """

    declared: type[Any]
    section = ""

    def __init__(self, parameters: Mapping[str, Any], logger: logging.Logger) -> None:
        self._parameters = parameters
        self._logger = logger
        self._given: Any = None
        self._result: Result | None = None

    def items(self, given: Any, told: Told) -> Sequence[Item]:  # noqa: ANN401  (its Options)
        """What a streamed run would get."""
        raise NotImplementedError

    def config_plugin(self) -> None:
        """Read the parameters."""
        texts = {key: options.to_text(value) for key, value in self._parameters.items()}
        self._given = options.fill(self.declared, texts)

    def works_execution(self) -> None:
        """Dump."""
        given = self._given
        section = os.environ.get("NC_BACKUP_SECTION", self.section)
        found = self.items(given, Told(run_id(), section))
        ending = {item.name: item.called(b"") for item in found}
        prefix = f"{run_id()}_{given.hostname}_{given.prefix_folder}"

        def named(item: str) -> str:
            return f"{prefix}_{manifest.quoted(item.replace('/', '_', 1))}{ending[item]}"

        top = given.destination or given.work_folder
        self._result = staged(found, top / given.prefix_folder, named, self._logger.info)

    def output(self) -> Result | None:
        """What came of it."""
        return self._result


@contextlib.contextmanager
def scratch(work_folder: Path) -> Iterator[Path]:
    """A private folder in the work folder, for what a program can write only to a file.

    What a killed run left of that kind is removed.
    """
    filesystem_handling.make_folder(work_folder)
    for left in work_folder.glob(f"{_SCRATCH}*"):
        if not Path("/proc", left.name[len(_SCRATCH) :].partition("-")[0]).exists():
            with contextlib.suppress(OSError):  # another user's: it is his to remove
                removal.tree(left)
    with removal.private(work_folder, f"{_SCRATCH}{os.getpid()}-") as folder:
        yield folder


def run_id() -> str:
    """The run's id, or one of our own where a module is started by hand."""
    return os.environ.get("NC_BACKUP_RUN_ID") or date_str_utils.run_id()


def is_named(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is among them: as it is, or as one with * and ? says."""
    return name in patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def program(wanted: str, *others: str) -> str:
    """The program of the config, or the same by its other names on the path.

    Raises ConfigError where there is none.
    """
    for name in (wanted, *others):
        if found := shutil.which(name):
            return found
    raise ConfigError(
        f"there is no {wanted}", "Install the client programs of the server, or name its path."
    )
