"""ASCII armor of age files (C2SP age.md): strict PEM (RFC 7468, figure 3), read as a stream.

Canonical base64 with padding in lines of 64 characters, of which the last may be shorter, with
LF or CRLF. Only white space may come before and after. Anything else is rejected, because lax
armor would let a file change without anybody noticing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from itertools import islice

from tools.base.errors import DamagedError, TruncatedError
from tools.flow.stream import Chunks

BEGIN = b"-----BEGIN AGE ENCRYPTED FILE-----"
_END = b"-----END AGE ENCRYPTED FILE-----"
_COLUMNS = 64
_MOST_SPACE = 1024  # bytes of white space before the first line, and of any line
_SPACE = b" \t\r\n"
_BATCH_LINES = 4096  # lines that are decoded at once
_HINT = "Fetch the file from the store again."


def is_armored(beginning: bytes) -> bool:
    """Return whether a file is meant to be armored. A binary age file begins with a letter."""
    return beginning.lstrip(_SPACE).startswith(b"-")


def remove_armor(chunks: Chunks) -> Iterator[bytes]:
    """Return the chunks of a binary age file, whether the file is armored or not."""
    source = iter(chunks)
    beginning = b""
    for chunk in source:
        beginning += chunk
        if beginning.strip(_SPACE) or len(beginning) > _MOST_SPACE:
            break
    file = _joined(beginning, source)
    return decode(file) if is_armored(beginning) else file


def decode(chunks: Chunks) -> Iterator[bytes]:
    """Return the bytes in the armor. Raises DamagedError or TruncatedError.

    Bytes are returned before the lines after them are checked: a consumer commits nothing before
    the end.
    """
    body = _body(_lines(chunks))
    ended = False
    while lines := list(islice(body, _BATCH_LINES)):
        full = all(len(line) == _COLUMNS for line in lines[:-1])
        if ended or not full or not 0 < len(lines[-1]) <= _COLUMNS:
            raise _corrupt("length of a line")
        text = b"".join(lines)
        ended = len(lines[-1]) < _COLUMNS or text.endswith(b"=")
        yield _decode_base64(text)


def _joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _corrupt(problem: str) -> DamagedError:
    return DamagedError(f"corrupt age armor ({problem})", _HINT)


def _decode_base64(text: bytes) -> bytes:
    """Decode canonical base64 with padding; raises DamagedError for anything else."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise _corrupt("base64") from None
    if base64.b64encode(data) != text:
        raise _corrupt("base64")
    return data


def _lines(chunks: Chunks) -> Iterator[bytes]:
    """Return the lines without their ends; the last one may have none."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _MOST_SPACE or any(len(line) > _MOST_SPACE for line in lines):
            raise _corrupt("length of a line")
        yield from (line.removesuffix(b"\r") for line in lines)
    yield rest.removesuffix(b"\r")


def _body(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Return the lines between the first and the last one. Raises the errors of `decode`."""
    if next(filter(_visible, lines), None) != BEGIN:
        raise _corrupt("first line")
    for line in lines:
        if line == _END:
            break
        yield line
    else:
        raise TruncatedError("unexpected end of file in the age armor", _HINT)
    if any(map(_visible, lines)):
        raise _corrupt("data after the last line")


def _visible(line: bytes) -> bool:
    return bool(line.strip(_SPACE))
