"""GNU tar: the program, and whether an archive that passes by is whole (POSIX.1-1988 ustar)."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from tools import os_works
from tools.base import fixes
from tools.base.errors import ConfigError, SourceError
from tools.flow.stream import Chunks

PRIVILEGED = Path("/usr/local/libexec/nc-backup/tar")  # a copy that may read everything
_CAP_DAC_READ_SEARCH = 1 << 2  # capabilities(7)
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
    """Return the copy of tar that may read everything if it can do so, else the tar on PATH.

    Raises ConfigError where there is none.
    """
    if os.path.exists(PRIVILEGED) and not unusable():  # noqa: PTH110  (it does not raise)
        return str(PRIVILEGED)
    found = shutil.which("tar")
    if found is None:
        raise ConfigError("tar: command not found", "Install GNU tar.", fixes.install("tar"))
    return found


def unusable() -> str:
    """Return why the copy that may read everything cannot do so; "" if it can, or if there is none.

    A process that may read everything itself needs the copy for nothing.
    """
    if not os.path.exists(PRIVILEGED):  # noqa: PTH110  (it does not raise)
        return ""
    status = Path("/proc/self/status").read_text("ascii", "replace")
    reason = _not_executable() or ("" if _reads_everything(status) else _powerless(status))
    return f"{PRIVILEGED}: {reason}" if reason else ""


def _not_executable() -> str:
    """Return why the copy cannot be started: the kernel starts no program without what it needs."""
    try:
        subprocess.run(
            [PRIVILEGED, "--version"], capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
    except PermissionError as error:
        if error.errno == errno.EPERM:
            return "its capability is outside the bounding set of this process"
        return "permission denied: this user is not in its group"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def _reads_everything(status: str) -> bool:
    """Return whether this process has CAP_DAC_READ_SEARCH itself (/proc/PID/status, proc(5))."""
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.M)
    return effective is not None and bool(int(effective[1], 16) & _CAP_DAC_READ_SEARCH)


def _powerless(status: str) -> str:
    """Return why the copy runs without its capability."""
    try:
        os.getxattr(PRIVILEGED, "security.capability")
    except OSError:
        return "it has lost its capability (cap_dac_read_search)"
    if re.search(r"^NoNewPrivs:\s*1$", status, re.M):
        return "NoNewPrivs is set for this process, so that the copy gets no capability"
    if os.statvfs(PRIVILEGED).f_flag & os.ST_NOSUID:
        return "its file system is mounted with nosuid, so that it gets no capability"
    return ""


def version(tar: str) -> str:
    """What the program calls itself; raises ConfigError where that is not GNU tar."""
    asked = [tar, "--version"]
    said = subprocess.run(asked, capture_output=True, stdin=subprocess.DEVNULL, check=False).stdout
    line = said.decode("utf-8", "replace").partition("\n")[0]
    if "GNU tar" not in line:
        raise ConfigError(f"{tar} is not GNU tar", "Install GNU tar, or name it with TAR_COMMAND.")
    return line


def environment() -> dict[str, str]:
    """For tar: messages in English, and no options from elsewhere."""
    return os_works.environment({"LC_ALL": "C"})


class Ends:
    """Looks at an archive as it passes: is it one, and is its end there?"""

    def __init__(self) -> None:
        self._head = self._tail = b""

    def take(self, chunk: bytes) -> None:
        """The next bytes of the archive."""
        if len(self._head) < _MAGIC.stop:
            self._head += chunk[: _MAGIC.stop]
        self._tail = (self._tail + chunk)[-_END:] if len(chunk) < _END else chunk[-_END:]

    def judge(self) -> None:
        """After the last bytes; raises SourceError where the archive is empty or has no end."""
        if len(self._tail) < _END or self._tail.strip(b"\0"):
            raise SourceError(
                "tar's archive stops before its end",
                "tar was ended, or ended itself, half-way through.",
            )
        if self._head[_MAGIC] != b"ustar":
            raise SourceError(
                "tar's archive holds nothing",
                "Is everything that it should hold excluded, or may none of it be read?",
            )


def whole(chunks: Chunks, look: Look = lambda _chunk: None) -> Iterator[bytes]:
    """A stage that changes nothing: raises SourceError where an archive is empty or has no end.

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
    """The same for an archive that tar's own option compressed; look: gets it unpacked."""
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
