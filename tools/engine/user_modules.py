"""Modules of the user's own in a stream: any program as source, filter or store (DESIGN 5).

A source's standard output is the item. A filter reads standard input and writes standard
output; in a restore it is called with `--DIRECTION backward`. A store reads standard input and
gets `--NAME`; with `--DIRECTION backward` it writes what it holds under that name, with
`--DIRECTION list` a line `SIZE NAME` for each name in the folder NAME.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tools.base import foreign, removal
from tools.base.errors import BackupError, SourceError, StageError, StoreError, UnsupportedError
from tools.base.log import logger
from tools.base.result import Result, Status, worst
from tools.config.model import Config, Section
from tools.engine import section_runner
from tools.engine.section_runner import Context
from tools.flow import item_record, process, rate_limit, stream
from tools.flow.item import USER_STAGE, Item, ItemReport, Stage
from tools.flow.store import CreateOnly, Store, StoredObject, StoreEntry, check_name, cut
from tools.flow.stream import Chunks

KIND = "file"  # of what a source of the user's own gives


_BACKWARD = ("--DIRECTION", "backward")
_LIST = ("--DIRECTION", "list")


def _run(
    module: Section,
    context: Context,
    failure: type[BackupError],
    more: Sequence[str] = (),
    stdin_data: Chunks | bytes = b"",
    allowed: Callable[[int], bool] = lambda code: code == 0,
) -> Iterator[bytes]:
    """Yield the standard output of the module's program; its standard error is logged."""
    order = section_runner.command(module, context.config)
    return process.output(
        [*order.argv, *more],
        stdin_data=stdin_data,
        allowed=allowed,
        notice=section_runner.Output().take,
        env=section_runner.environment(module, order, context),
        folder=context.config.path.parent,
        failure=failure,
        name=section_runner.program_name(module),
    )


def _checked(
    module: Section,
    context: Context,
    failure: type[BackupError],
    more: Sequence[str],
    stdin_data: Chunks | bytes,
) -> Iterator[bytes]:
    """Yield the output of a filter or store; its result counts as well, and is its own per call."""
    with removal.private(context.folder, "call-") as folder:
        own_context = dataclasses.replace(context, folder=folder)
        yield from _run(module, own_context, failure, more, stdin_data)
        result = Result.from_file(folder / "result.json")
    if result is None:
        return
    if result.status not in (Status.OK, Status.UNCLEAN):
        name = section_runner.program_name(module)
        raise failure(f"{name}: {result.message or result.status.value}", result.hint)
    context.calls.add(result)
    level = logging.INFO if result.status is Status.OK else logging.WARNING
    for line in filter(None, (result.message, *result.warnings)):
        logger.log(level, "%s: %s", module.name, line)


def item(module: Section, context: Context) -> Item:
    """Return what a source gives: nothing at all is no backup."""
    result_file = context.folder / "result.json"
    codes: list[int] = []

    def allowed(code: int) -> bool:
        codes.append(code)
        return Status.of_exit_code(code) in (Status.OK, Status.INCOMPLETE, Status.UNCLEAN)

    def read() -> Iterator[bytes]:
        is_any = False
        for chunk in _run(module, context, SourceError, allowed=allowed):
            is_any = True
            yield chunk
        if not is_any:
            raise SourceError(
                f"{module.name} gave nothing", "Its standard output is what is backed up."
            )

    def ended() -> ItemReport:
        by_code = Status.of_exit_code(codes[-1])
        result = Result.from_file(result_file) or Result(by_code, "")
        status = worst((by_code, result.status))
        if status not in section_runner.ENDINGS:
            raise SourceError(f"{module.name}: {result.message or status.value}", result.hint)
        return _item_report(status, result)

    return Item("", KIND, lambda _head: "", read, ended)


def _item_report(status: Status, result: Result) -> ItemReport:
    """Return what the result of a source says about its item; its message is never dropped."""
    message = (result.message,) if result.message else ()
    if status is Status.INCOMPLETE:
        missing = (*message, *result.warnings)
        return ItemReport(missing or ("is incomplete, and its module gives no reason",))
    if status is Status.UNCLEAN:
        return ItemReport(result.warnings, unclean=message or ("clean-up failed",))
    return ItemReport(result.warnings, notes=message)


def stage(module: Section, context: Context) -> Stage:
    """Return a filter for the way forward."""
    return Stage(
        USER_STAGE + module.name,
        f".{item_record.quoted(module.name)}",
        lambda chunks: _checked(module, context, StageError, (), chunks),
    )


class ForRestore:
    """User-defined stores and filters for reading backups (tools.catalog.location.UserModules)."""

    def __init__(self, folder: Path) -> None:
        """Use a private folder for the files of their programs."""
        self._folder = folder

    def open_store(self, section: Section, config: Config) -> Store:
        """Return the store of a user-defined section."""
        limits = config.general.limit_upload, config.general.limit_download
        return rate_limit.limited(ProgramStore(section, self._context(section, config)), *limits)

    def inverse_stage(
        self, section: Section, config: Config
    ) -> Callable[[Chunks], Iterator[bytes]]:
        """Return the inverse of the filter of a user-defined section."""
        context = self._context(section, config)
        return lambda chunks: _checked(section, context, StageError, _BACKWARD, chunks)

    def _context(self, section: Section, config: Config) -> Context:
        folder = self._folder / section.name
        folder.mkdir(exist_ok=True)
        return Context(config, "restore", folder)


class ProgramStore:
    """A store of the user's own: a call of its program for each part.

    The program sees the end of its input only when all before it succeeded, and is ended by
    SIGTERM otherwise. A part in the middle of an item is complete before the item is: what
    an ended run leaves there, no manifest names.
    """

    consistent = False  # nothing is known of it
    create_only = CreateOnly.LISTED

    def __init__(self, module: Section, context: Context) -> None:
        self._module = module
        self._context = context

    def __str__(self) -> str:
        return self._module.name

    def _call(self, more: Sequence[str], stdin_data: Chunks | bytes = b"") -> Iterator[bytes]:
        return _checked(self._module, self._context, StoreError, more, stdin_data)

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """See Store; its exit code alone confirms. What it prints goes into the log."""
        content = stream.content(chunks)
        log = section_runner.Output()
        lines = process.Lines(log.take)
        for chunk in self._call(("--NAME", check_name(name)), content):
            lines.add(chunk)
        lines.end()
        return StoredObject(name, content.size, content.sha256)

    def publish(self, names: Sequence[str]) -> None:
        """See Store: a program that ended well has published already."""

    def discard(self, names: Sequence[str]) -> None:
        """See Store: there is no call for it."""

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store: the program writes the whole object, of which the range is used."""
        chunks = self._call((*_BACKWARD, "--NAME", check_name(name)))
        return chunks if (start, end) == (0, None) else cut(chunks, start, end)

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store. Raises StoreError where a line is not `SIZE NAME`."""
        listed = b"".join(self._call((*_LIST, "--NAME", check_name(folder))))
        for line in sorted(foreign.lines(listed.decode("utf-8", "surrogateescape"))):
            digits, _, name = line.strip(" ").partition(" ")
            size = foreign.number(digits)
            if size is None or not name:
                program = section_runner.program_name(self._module)
                raise StoreError(
                    f"{program}: {line!r} is not a line of a list",
                    "Print a line SIZE NAME for each name with --DIRECTION list.",
                )
            yield StoreEntry(f"{folder}/{name.strip(' ').rpartition('/')[2]}", size)

    def folders(self) -> Iterator[str]:
        """See Store: this host's alone."""
        yield self._context.config.general.hostname

    def unfinished(self, folder: str) -> Iterator[StoreEntry]:
        """See Store: nothing is known of it."""
        return iter(())

    def remove(self, names: Sequence[str]) -> None:
        """See Store: a program is never asked to remove anything."""
        raise UnsupportedError(f"{self._module.name}: cannot remove {', '.join(names)}")
