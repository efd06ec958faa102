"""Text of other programs: decoded, split, read as numbers, and shown without trusting any of it.

Servers, user-defined modules, stores and names of files give texts with any bytes in them. What
people read of them goes through `line`, `paragraph` or `listing`: secrets masked, control
characters escaped, bounded. Whatever these return they return unchanged when it comes again.
"""

from __future__ import annotations

import errno
import io
import os
import shlex
import stat
from collections.abc import Iterable
from pathlib import Path

from tools.base import masking

MAX_LINE = 8192  # characters of a line that is shown
MAX_LINES = 1000  # lines of a list of warnings
_MAX_PARAGRAPH = 100  # lines of a hint
_MAX_MESSAGE = 2000  # characters of a message
_NOTE = 50  # characters that are kept free for a note of what was cut
_LARGEST = (1 << 63) - 1
_MAX_DIGITS = 19  # of the largest
_SURROGATES = range(0xDC80, 0xDD00)  # bytes that are not UTF-8 (PEP 383)


def decoded(raw: bytes) -> str:
    """Return bytes as text; those that are not UTF-8 are escaped."""
    return raw.decode("utf-8", "backslashreplace")


def lines(text: str) -> list[str]:
    r"""Return the lines of a text: only \n ends one (and \r before it goes).

    str.splitlines would split names at U+2028, U+0085, \v, \f and others as well.
    """
    rows = [line.removesuffix("\r") for line in text.split("\n")]
    return rows if rows[-1] else rows[:-1]


def lines_with_ends(text: str) -> list[str]:
    r"""Return the lines of a text, each with the \n that ends it."""
    return list(io.StringIO(text, newline="\n"))


def number(digits: str | bytes) -> int | None:
    """Return a whole number of ASCII digits, at most 2^63 - 1; None for anything else."""
    if not digits.isascii() or not digits.isdigit() or len(digits) > _MAX_DIGITS:
        return None
    value = int(digits)
    return value if value <= _LARGEST else None


def printable(text: str, keep: str = "") -> str:
    r"""Return a text with every character escaped that is not printable, as \x1b or \u202e.

    Those are control characters, line and paragraph separators, marks that change the direction
    of writing. The printable text is returned unchanged, also backslashes. keep: left as they are
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if code in _SURROGATES:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def line(text: str) -> str:
    """Return a text as one line that can be shown: masked, escaped, at most 8192 characters."""
    safe = printable(masking.text(text), keep="\t")
    if len(safe) <= MAX_LINE:
        return safe
    kept = masking.cut(safe, MAX_LINE - _NOTE)
    return f"{safe[:kept]} ... ({len(safe) - kept} more characters)"


def argument(text: str) -> str:
    """Return a text as one argument of a command that is shown: people paste it into a shell."""
    return shlex.quote(line(text))


def shortened(text: str, most: int = _MAX_MESSAGE) -> str:
    """Return a text of at most so many characters: its middle is left out, and counted.

    A message begins with a place and ends with what is wrong there; between them is what somebody
    wrote. A text that is cut is masked first.
    """
    if len(text) <= most:
        return text
    masked = masking.text(text)
    half = (most - _NOTE) // 2
    left_out = len(masked) - 2 * half
    if left_out <= 0:
        return masked
    return f"{masked[:half]}...({left_out} more characters)...{masked[-half:]}"


def paragraph(text: str) -> str:
    """Return a text of several lines that can be shown, each as `line` gives it; at most 100."""
    rows = lines(text)
    if len(rows) <= _MAX_PARAGRAPH:
        return "\n".join(map(line, rows))
    head = list(map(line, rows[: _MAX_PARAGRAPH - 1]))
    return "\n".join([*head, f"({len(rows) - len(head)} more lines)"])


def listing(texts: Iterable[str], most: int = MAX_LINES) -> tuple[str, ...]:
    """Return a list of lines that can be shown; at most `most`, the last says how many more."""
    rows = tuple(texts)
    if len(rows) <= most:
        return tuple(map(line, rows))
    head = tuple(map(line, rows[: most - 1]))
    return (*head, f"({len(rows) - len(head)} more)")


def beginning(path: Path, max_bytes: int, *, follow: bool = True) -> bytes:
    """Return the first bytes of a file that another program may have written.

    follow: whether it may be a symbolic link. Raises OSError, also where it is not a regular
    file: a FIFO would be waited for.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with os.fdopen(descriptor, "rb") as file:
        return file.read(max_bytes)


def content(path: Path, max_bytes: int, *, follow: bool = True) -> bytes:
    """Return the content of such a file. Raises OSError, also where it is larger."""
    read = beginning(path, max_bytes + 1, follow=follow)
    if len(read) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes} bytes", str(path))
    return read
