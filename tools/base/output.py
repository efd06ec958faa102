"""Standard input, output and error of an executable: an output that cannot be written is noted."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import TextIO, cast

_write_errors: list[str] = []  # why standard output could not be written


class _Output(io.FileIO):
    """Standard output or error. What cannot be written is dropped, so that no print raises.

    Of standard output it is noted, unless nobody reads any more: `| head` has seen enough.
    """

    def write(self, data: bytes) -> int:  # type: ignore[override]
        try:
            return super().write(data) or 0
        except OSError as error:
            if self.fileno() == 1 and error.errno != errno.EPIPE:
                _write_errors.append((error.strerror or str(error)).lower())
            return len(data)


def open_standard() -> None:
    """Open the standard streams anew, those too that the caller closed.

    A file that is opened later would otherwise take the number of a closed stream, and get
    what programs print. Names that are not UTF-8 are printed with escapes.
    """
    for number in (0, 1, 2):
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        # what is closed stays an error: it is open for the opposite of what it is for
        os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)


def _stream(number: int, before: TextIO | None) -> io.TextIOWrapper:
    raw = _Output(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(cast("io.RawIOBase", raw)),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=number == 2 or raw.isatty(),  # noqa: PLR2004  (standard error)
    )


def close_standard(code: int) -> int:
    """Return the exit code; 0 becomes 1, with an error, if standard output was lost."""
    sys.stdout.flush()
    if _write_errors:
        sys.stderr.write(f"error: standard output: {_write_errors[0]}\n")
    sys.stderr.flush()
    return code or int(bool(_write_errors))
