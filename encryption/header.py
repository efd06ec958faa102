"""The header of an age file (C2SP age.md): its lines, stanzas and MAC, without cryptography."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass

from tools.base.errors import DamagedError, TruncatedError

MAGIC = b"age-encryption.org/v1\n"
FILE_KEY = 16  # bytes
WRAPPED = FILE_KEY + 16  # bytes of a file key with the tag of its cipher
MOST_STANZAS = 64
_MAC = 32  # bytes
_MOST_BYTES = 128 * 1024  # 64 post-quantum stanzas take 105 KiB
_MOST_LINE = 8 * 1024
_COLUMNS = 64
_FETCH = "Fetch the file from the store again."


def corrupt(where: str) -> DamagedError:
    """Return the error for a header that is not what was written."""
    return DamagedError(f"corrupt age header ({where})", _FETCH)


def b64(raw: bytes) -> str:
    """Return base64 without padding."""
    return base64.b64encode(raw).decode().rstrip("=")


def unb64(text: str) -> bytes:
    """Decode canonical base64 without padding; raises DamagedError for anything else."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise corrupt("base64") from None
    if b64(raw) != text:
        raise corrupt("base64")
    return raw


@dataclass(frozen=True)
class Stanza:
    """What one recipient needs: arguments, of which the first is the kind, and the body."""

    arguments: tuple[str, ...]
    body: bytes

    def encode(self) -> str:
        """Return the lines of the stanza."""
        text = b64(self.body)
        lines = [text[at : at + _COLUMNS] for at in range(0, len(text), _COLUMNS)]
        if len(text) % _COLUMNS == 0:
            lines.append("")  # the last line is always shorter than the others
        return f"-> {' '.join(self.arguments)}\n" + "\n".join(lines) + "\n"


def share(stanza: Stanza, size: int) -> bytes:
    """Return the only argument of a stanza after its kind: a key of so many bytes.

    Raises DamagedError where it is not that, or the body is no wrapped file key.
    """
    kind, *others = stanza.arguments
    if len(others) != 1 or len(stanza.body) != WRAPPED:
        raise corrupt(kind)
    key = unb64(others[0])
    if len(key) != size:
        raise corrupt(kind)
    return key


class Source:
    """Chunks as a stream that the header is taken from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""

    def _more(self) -> bool:
        """Read on; False at the end."""
        for chunk in self._chunks:
            if chunk:
                self._buffer += chunk
                return True
        return False

    def take(self, size: int) -> bytes:
        """Return so many bytes; fewer only at the end."""
        while len(self._buffer) < size and self._more():
            pass
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def line(self) -> bytes:
        """Return a line without its newline. Raises DamagedError or TruncatedError."""
        while (at := self._buffer.find(b"\n", 0, _MOST_LINE)) < 0:
            if len(self._buffer) >= _MOST_LINE:
                raise corrupt("unterminated line")
            if not self._more():
                raise TruncatedError("unexpected end of file in the age header", _FETCH)
        line, self._buffer = self._buffer[:at], self._buffer[at + 1 :]
        return line

    def rest(self) -> Iterator[bytes]:
        """Return all that has not been taken."""
        yield self._buffer
        yield from self._chunks


def parse(source: Source) -> tuple[bytes, list[Stanza], bytes]:
    """Return the bytes that the MAC is over, the stanzas, and the MAC."""
    first = source.line() + b"\n"
    if first != MAGIC:
        raise DamagedError(
            "not an age file (version 1)",
            "Check that it is an encrypted file, and of several parts the first one (.age.000).",
        )
    raw = bytearray(first)
    stanzas: list[Stanza] = []
    while True:
        line = _text(source.line())
        if line.startswith("--- "):
            mac = unb64(line[4:])
            if not stanzas or len(mac) != _MAC:
                raise corrupt("malformed end")
            return bytes(raw) + b"---", stanzas, mac
        arguments = tuple(line.split(" "))
        if arguments[0] != "->" or len(arguments) < 2 or not all(arguments):  # noqa: PLR2004  (the format)
            raise corrupt("malformed stanza")
        if len(stanzas) == MOST_STANZAS:
            raise corrupt("too many stanzas")
        raw += line.encode() + b"\n"
        stanzas.append(Stanza(arguments[1:], unb64(_body(source, raw))))


def _body(source: Source, raw: bytearray) -> str:
    """Return a stanza's body, up to its first line that is shorter than the others."""
    body = ""
    while True:
        line = _text(source.line())
        raw += line.encode() + b"\n"
        body += line
        if len(line) > _COLUMNS or len(raw) > _MOST_BYTES:
            raise corrupt("malformed stanza body")
        if len(line) < _COLUMNS:
            return body


def _text(line: bytes) -> str:
    if not line.isascii() or any(byte < 0x20 or byte == 0x7F for byte in line):  # noqa: PLR2004  (ASCII)
        raise corrupt("non-printable character")
    return line.decode("ascii")
