"""Dumps of databases on their way: end marks, a second try, programs and scratch folders."""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tools import date_str_utils, filesystem_handling
from tools.base import fixes, foreign, removal
from tools.base.errors import ConfigError, RetryError, SourceError
from tools.flow import reachability
from tools.flow.stream import Chunks

T = TypeVar("T")

_SCRATCH = ".dump-"  # begins the name of a private folder; the number of its process follows
_TAIL = 4096  # bytes in which the end mark of a dump must stand (RELIABILITY M2, P1)


def ended_by(chunks: Chunks, mark: bytes, subject: str) -> Iterator[bytes]:
    """Pass a dump on, and require the end mark in its last 4 KiB.

    Raises SourceError at the end where it does not: an exit code of 0 is not enough.
    """
    tail = b""
    for chunk in chunks:
        tail = (tail + chunk)[-_TAIL:] if len(chunk) < _TAIL else chunk[-_TAIL:]
        yield chunk
    if mark not in tail:
        raise SourceError(
            f"the dump of {subject} has no end: {foreign.decoded(mark)!r} is missing",
            "The dump program ended early, although its exit code was 0.",
        )


def beginning(chunks: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """Return the first bytes, and an iterator of all the chunks."""
    first: list[bytes] = []
    while sum(map(len, first)) < size and (chunk := next(chunks, b"")):
        first.append(chunk)
    return b"".join(first)[:size], itertools.chain(first, chunks)


def again(name: str, attempt: Callable[[], T], say: Callable[[str], None]) -> T:
    """Do it; where RetryError says that it is worth a whole new try, once more.

    A server that cannot be reached yet is waited for. name: of the item, for the log
    """
    try:
        return reachability.waited(name, attempt)
    except RetryError as error:
        say(f"{error}; it is dumped anew")
        return attempt()


@contextlib.contextmanager
def scratch(work_folder: Path) -> Iterator[Path]:
    """Yield a private folder in the work folder, for what a program can write only to a file.

    What a killed run left of that kind is removed.
    """
    filesystem_handling.make_folder(work_folder)
    for leftover in work_folder.glob(f"{_SCRATCH}*"):
        if not Path("/proc", leftover.name[len(_SCRATCH) :].partition("-")[0]).exists():
            with contextlib.suppress(OSError):  # another user's: it is his to remove
                removal.tree(leftover)
    with removal.private(work_folder, f"{_SCRATCH}{os.getpid()}-") as folder:
        yield folder


def run_id() -> str:
    """Return the ID of the run, or a new one where a module is started by hand."""
    return os.environ.get("NC_BACKUP_RUN_ID") or date_str_utils.run_id()


def is_named(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a name is in a list, or matches one of its patterns with * and ?."""
    return name in patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def program(command: str, *others: str) -> str:
    """Return the path of a program, or of the first of its other names in PATH.

    Raises ConfigError if there is none.
    """
    for name in (command, *others):
        if path := shutil.which(name):
            return path
    raise ConfigError(
        f"{command}: command not found",
        "Install the client programs of the server, or set the key to the path of the program.",
        fixes.install(command),
    )
