"""The log: the documented line format, rotation, and the lines of one run for its report."""

from __future__ import annotations

import errno
import functools
import logging
import os
import sys
from collections import deque
from collections.abc import Collection
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from tools.base import foreign, hung_mount, masking, system_log
from tools.base.errors import in_words

NAME = "ncbackup"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
FILE = "nc-backup-py.log"
REPORTED = 64 * 1024  # bytes of a run's log that go into its report
_LINE = "%(asctime)s - ncbackup - %(levelname)s - %(message)s"
_MIB = 1 << 20
_ALWAYS = "always"  # attribute of records that no level of the file keeps out

logger = logging.getLogger(NAME)


class _Masked(logging.Formatter):
    """The documented line format: secrets masked, control characters escaped.

    Further lines of a message are indented: no message can look like two entries.
    """

    def format(self, record: logging.LogRecord) -> str:
        record = logging.makeLogRecord(record.__dict__)  # a record has other formatters
        if isinstance(record.args, tuple):
            record.args = tuple(map(_in_words, record.args))
        text = foreign.printable(masking.text(super().format(record)), keep="\t\n")
        return text.rstrip("\n").replace("\n", "\n    ")


def _in_words(value: object) -> object:
    """Return an error of the system as a line of words: not as Python prints it."""
    return in_words(value)[0] if isinstance(value, OSError) else value


class _File(RotatingFileHandler):
    """A rotating log file; its own errors are printed once and never stop a backup."""

    error_shown = False

    def _open(self) -> TextIOWrapper:
        """Open the file for its owner, never through a link, which another user may have made."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        flags |= os.O_NONBLOCK  # a FIFO that nobody reads is an error, and not waited for
        try:
            descriptor = os.open(self.baseFilename, flags, 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(error.errno, "is a symbolic link") from None
            raise
        return open(  # noqa: PTH123  (a descriptor)
            descriptor, "a", encoding=self.encoding, errors=self.errors
        )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        if not self.error_shown:
            self.error_shown = True
            sys.stderr.write(f"warning: cannot write to the log: {_in_words(sys.exc_info()[1])}\n")


class RunLog(logging.Handler):
    """The newest lines of one run for its report, at most REPORTED bytes."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[str] = deque()
        self._size = 0
        self._cut = False
        self.setFormatter(_Masked(_LINE))

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)[-REPORTED:]
        self._lines.append(line)
        self._size += len(line.encode("utf-8", "replace")) + 1
        while self._size > REPORTED:
            self._size -= len(self._lines.popleft().encode("utf-8", "replace")) + 1
            self._cut = True

    def tail(self) -> str:
        """Return the lines, oldest first; the first line says if older ones were omitted."""
        return "\n".join((["[older lines omitted]"] if self._cut else []) + list(self._lines))


def file_of(path: Path) -> Path:
    """Return the log file that LOG_FOLDER names: the file, or nc-backup-py.log in the folder."""
    try:
        is_folder = hung_mount.answer(path, functools.partial(os.path.isdir, path))
    except TimeoutError:
        is_folder = False  # opening the log tells
    return path / FILE if is_folder or not path.suffix else path


def always(message: str, *values: object) -> None:
    """Log a line at INFO that is written to the log file whatever its level is."""
    logger.info(message, *values, extra={_ALWAYS: True})


def of_run(run_id: str, hostname: str) -> None:
    """Name the run in the fields of the journal from now on."""
    system_log.describe(logger, {"NC_BACKUP_RUN_ID": run_id, "NC_BACKUP_HOSTNAME": hostname})


class _AtLeast(logging.Filter):
    """Pass records from a level on, and those of `always`."""

    def __init__(self, level: str) -> None:
        super().__init__()
        self._level = logging.getLevelName(level)

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self._level or hasattr(record, _ALWAYS)


def _on_terminal(level: str) -> logging.Handler:
    """Return a handler that prints the log to standard error: INFO, or DEBUG where asked for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel("DEBUG" if level == "DEBUG" else "INFO")
    handler.setFormatter(_Masked(_LINE))
    return handler


def _add(handler: logging.Handler, level: str, line: str = _LINE) -> None:
    """Add a handler that gets what the log file gets."""
    handler.addFilter(_AtLeast(level))
    handler.setFormatter(_Masked(line))
    logger.addHandler(handler)


def _opened(file: Path, size: int, count: int) -> logging.Handler:
    """Return a handler that writes to the log file. Raises OSError."""
    file.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    return _File(
        file,
        maxBytes=size * _MIB,
        backupCount=count,
        encoding="utf-8",
        errors="backslashreplace",
    )


def begin(
    path: Path,
    level: str,
    size: int,
    count: int,
    *,
    verbose: bool = False,
    targets: Collection[str] = ("file",),
) -> RunLog:
    """Open the log of a run, and return the handler that collects the lines of this run alone.

    size: MiB at which the file is rotated; count: rotated files that are kept; verbose: print
    the log to standard error as well; targets: of system_log.TARGETS.
    If the log cannot be opened, the run continues, and logs to standard error.
    """
    run_log = RunLog()
    logger.handlers.clear()
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(run_log)
    if verbose:
        logger.addHandler(_on_terminal(level))
    for system in system_log.handlers(targets):
        _add(system, level, system.LINE)
    if "file" not in targets:
        return run_log
    file = file_of(path)
    try:
        _add(hung_mount.answer(path, lambda: _opened(file, size, count)), level)
    except OSError as error:
        if not verbose:
            _add(logging.StreamHandler(sys.stderr), level)
        logger.warning("cannot open log file %s: %s", file, (error.strerror or "").lower())
    return run_log
