"""GNU tar: the program, and whether an archive that passes by is whole (POSIX.1-1988 ustar)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Protocol

from tools import os_works
from tools.base import fixes
from tools.base.errors import ConfigError, SourceError
from tools.flow.stream import Chunks

_END = 1024  # bytes: an archive ends with two blocks of zeros (POSIX.1-1988 ustar)
_BITE = 1024  # bytes of a compressed archive that are unpacked at a time: they may be many more
_MAGIC = slice(257, 262)  # where the first block says "ustar"

Look = Callable[[bytes], None]


class Decoder(Protocol):
    """A decompressor of the standard library, or of zstandard."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def program() -> str:
    """Return the path of the tar on PATH. Raises ConfigError if there is none."""
    path = shutil.which("tar")
    if path is None:
        raise ConfigError("tar: command not found", "Install GNU tar.", fixes.install("tar"))
    return path


def version(tar: str) -> str:
    """Return what the program calls itself. Raises ConfigError where that is not GNU tar."""
    command = [tar, "--version"]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    line = done.stdout.decode("utf-8", "replace").partition("\n")[0]
    if "GNU tar" not in line:
        raise ConfigError(f"{tar} is not GNU tar", "Install GNU tar, or name it with TAR_COMMAND.")
    return line


def environment() -> dict[str, str]:
    """Return all that tar gets: PATH, and messages in English.

    No variable of the caller or of the config can add options, another device or a library
    (TAR_OPTIONS, TAPE, LD_PRELOAD).
    """
    return {"PATH": os_works.environment({})["PATH"], "LC_ALL": "C"}


class Ends:
    """Looks at an archive as it passes: is it one, and is its end there?"""

    def __init__(self) -> None:
        self._head = self._tail = b""

    def take(self, chunk: bytes) -> None:
        """Look at the next bytes of the archive."""
        if len(self._head) < _MAGIC.stop:
            self._head += chunk[: _MAGIC.stop]
        self._tail = (self._tail + chunk)[-_END:] if len(chunk) < _END else chunk[-_END:]

    def judge(self) -> None:
        """Raise SourceError, after the last bytes, where the archive is empty or has no end."""
        if len(self._tail) < _END or self._tail.strip(b"\0"):
            raise SourceError(
                "tar's archive stops before its end",
                "tar was ended, or ended itself, half-way through.",
            )
        if self._head[_MAGIC] != b"ustar":
            raise SourceError(
                "tar's archive holds nothing",
                "Check whether everything is excluded, and whether this user may read the files.",
            )


def whole(chunks: Chunks, look: Look = lambda _chunk: None) -> Iterator[bytes]:
    """Pass an archive on. Raises SourceError at its end where it is empty or has no end.

    look: gets the archive as it passes
    """
    ends = Ends()
    for chunk in chunks:
        ends.take(chunk)
        look(chunk)
        yield chunk
    ends.judge()


def whole_packed(
    chunks: Chunks, decoder: Decoder, look: Look = lambda _chunk: None
) -> Iterator[bytes]:
    """Pass on an archive that tar's own option compressed; otherwise as `whole`.

    look: gets it unpacked
    """
    ends = Ends()
    for chunk in chunks:
        for at in range(0, len(chunk), _BITE):
            unpacked = decoder.decompress(chunk[at : at + _BITE])
            ends.take(unpacked)
            look(unpacked)
        yield chunk
    if not decoder.eof or decoder.unused_data:
        raise SourceError("tar's compressed archive has no end", "Its compressor was ended.")
    ends.judge()
