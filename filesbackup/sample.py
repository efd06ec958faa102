"""Check before a run which files below the configured paths cannot be read (a sample of them)."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from filesbackup import tar_archive, tar_privilege
from tools.base import fixed_tar
from tools.flow import process, stream, tar, task

_MOST, _LEAST = 5000, 100  # names that are checked: in total, and at least for each path
_SECONDS, _MOMENT = 5.0, 0.5  # time limit: in total, and at least for each path


@dataclass
class Sample:
    """The result of a check.

    checked: number of names; whole: whether these were all; unreadable: printable names
    """

    checked: int = 0
    whole: bool = True
    unreadable: list[str] = field(default_factory=list)


def find_unreadable(fileset: tar_archive.Fileset) -> Sample:
    """Check the names that tar would store, limited in number and time.

    tar reports the folders that it cannot open. Whether it could open a file is determined with
    access(2), unless tar may read everything.
    """
    sample = Sample()
    if tar_privilege.reader().way is tar_privilege.Way.SUDO:
        return sample  # sudo allows no other command line: tar reads everything in the run
    names = tar_archive.tar_members(fileset)
    for name in names:
        _sample_path(fileset, name, sample, len(names))
    return sample


def _sample_path(fileset: tar_archive.Fileset, name: bytes, sample: Sample, shares: int) -> None:
    """Add the names below one configured path to the sample."""
    most = sample.checked + max(_MOST // shares, _LEAST)
    messages = tar_archive.TarMessages()
    names = _member_names(fileset, name, messages, max(_SECONDS / shares, _MOMENT))
    privileged = tar_privilege.reader().reads_everything
    with stream.closed(names) as listed:
        for member in listed:
            sample.checked += 1
            if not privileged and not _readable(member):
                sample.unreadable.append(tar_archive.printable_name(member))
            if sample.checked >= most:
                sample.whole = False
                break
    denied = ": permission denied"
    names_denied = [
        line.removesuffix(denied) for line in messages.unreadable if line.endswith(denied)
    ]
    sample.unreadable += [line for line in names_denied if line not in sample.unreadable]


def _member_names(
    fileset: tar_archive.Fileset, name: bytes, messages: tar_archive.TarMessages, seconds: float
) -> Iterator[bytes]:
    """Yield the absolute names that tar would store, until the time limit; nothing is stored."""
    reader = tar_privilege.reader()
    argv = [reader.program, "--create", "--file=/dev/null", "--directory=/"]
    argv += [*fixed_tar.MESSAGE_OPTIONS, *([fixed_tar.SINGLE] if fileset.one_file_system else [])]
    argv += [*tar_archive.excludes(fileset), "--verbose", *fixed_tar.FROM_LIST]
    with _stop_after(seconds):
        chunks = process.output(
            argv,
            stdin_data=name + b"\0",
            allowed=lambda _code: True,
            notice=messages.add_line,
            env=tar.environment(),
            capable=reader.raised,
        )
        rest = b""
        with stream.closed(chunks) as read:
            for chunk in read:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    quoted = line.decode("ascii", "surrogateescape")
                    yield b"/" + tar_archive.unquote_name(quoted).rstrip(b"/")


@contextlib.contextmanager
def _stop_after(seconds: float) -> Iterator[None]:
    """Stop the programs of this block after a number of seconds."""
    looking = task.Task(task.current())
    timer = threading.Timer(seconds, looking.end_programs)
    timer.daemon = True
    timer.start()
    try:
        with task.entered(looking):
            yield
    finally:
        timer.cancel()


def _readable(name: bytes) -> bool:
    """Return whether this user can read a file or folder; True for other types of files."""
    try:
        mode = os.lstat(name).st_mode
    except FileNotFoundError:
        return True
    except OSError:
        return False
    if stat.S_ISDIR(mode):
        return os.access(name, os.R_OK | os.X_OK, effective_ids=True)
    return not stat.S_ISREG(mode) or os.access(name, os.R_OK, effective_ids=True)
