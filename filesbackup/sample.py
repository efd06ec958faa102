"""A look at the files below the configured paths before a run: which of them cannot be read?"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from filesbackup import archive
from tools.flow import process, stream, tar

_MOST, _LEAST = 5000, 100  # names that are looked at: in all, and at least of each path
_SECONDS, _MOMENT = 5.0, 0.5  # how long that may take: in all, and at least for each path


@dataclass
class Sample:
    """What was looked at.

    looked_at: how many names; whole: whether these were all; unreadable: shown names
    """

    looked_at: int = 0
    whole: bool = True
    unreadable: list[str] = field(default_factory=list)


def unreadable(fileset: archive.Fileset) -> Sample:
    """Look at the names that tar would store, bounded in number and time.

    tar names the folders that it cannot open; whether it could open a file is asked of the
    system, unless tar is the copy with more rights than we have.
    """
    sample = Sample()
    names = archive.members(fileset)
    for name in names:
        _look(fileset, name, sample, len(names))
    return sample


def _look(fileset: archive.Fileset, name: bytes, sample: Sample, shares: int) -> None:
    """Look at one configured path."""
    most = sample.looked_at + max(_MOST // shares, _LEAST)
    findings = archive.Findings()
    names = _names(fileset, name, findings, max(_SECONDS / shares, _MOMENT))
    privileged = tar.program() == str(tar.PRIVILEGED)
    with stream.closed(names) as listed:
        for found in listed:
            sample.looked_at += 1
            if not privileged and not _readable(found):
                sample.unreadable.append(archive.shown(found))
            if sample.looked_at >= most:
                sample.whole = False
                break
    denied = ": permission denied"
    said = [line.removesuffix(denied) for line in findings.lost if line.endswith(denied)]
    sample.unreadable += [line for line in said if line not in sample.unreadable]


def _names(
    fileset: archive.Fileset, name: bytes, findings: archive.Findings, seconds: float
) -> Iterator[bytes]:
    """The absolute names that tar would store, for so long; its archive goes nowhere."""
    argv = [tar.program(), "--create", "--file=/dev/null", "--directory=/", *archive.SPOKEN]
    argv += ["--one-file-system"] if fileset.one_file_system else []
    argv += [*archive.excludes(fileset), "--verbose", *archive.FROM_LIST]
    with _ended_after(seconds):
        chunks = process.output(
            argv,
            given=name + b"\0",
            allowed=lambda _code: True,
            notice=findings.take,
            env=tar.environment(),
        )
        rest = b""
        with stream.closed(chunks) as read:
            for chunk in read:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    quoted = line.decode("ascii", "surrogateescape")
                    yield b"/" + archive.unquoted(quoted).rstrip(b"/")


@contextlib.contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """End the programs of this block after so many seconds."""
    name = f"sample-{uuid.uuid4()}"
    token = process.owner.set(name)
    timer = threading.Timer(seconds, process.end_all, (name,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        process.owner.reset(token)


def _readable(name: bytes) -> bool:
    """Whether this user may read a file or a folder; what else there is needs no reading."""
    try:
        mode = os.lstat(name).st_mode
    except FileNotFoundError:
        return True
    except OSError:
        return False
    if stat.S_ISDIR(mode):
        return os.access(name, os.R_OK | os.X_OK, effective_ids=True)
    return not stat.S_ISREG(mode) or os.access(name, os.R_OK, effective_ids=True)
