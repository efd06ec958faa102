"""System calls of a command that strace(1) makes fail, and signals that end it.

A fault is found by its system call and its path, where that is the same in each run; else by
its number among the calls of the same name. strace counts them for each process and thread.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT = 60.0  # seconds after which a command counts as hanging

_OPEN = ("EIO", "EACCES", "ENOSPC", "EMFILE", "ENOMEM", "EROFS", "EINTR")
_WRITE = ("ENOSPC", "EIO", "EDQUOT", "EFBIG", "EINTR")
_NAME = ("EIO", "ENOSPC", "EACCES", "EROFS", "EDQUOT", "EXDEV")
_REMOVE = ("EIO", "EACCES", "EBUSY", "EROFS", "EPERM")
_LOOK = ("EIO", "EACCES", "ESTALE", "ENOMEM")
ERRORS = {  # what each call can fail with (its manual page)
    "openat": _OPEN,
    **dict.fromkeys(("read", "pread64", "preadv"), ("EIO", "ESTALE", "ENOMEM", "EINTR")),
    **dict.fromkeys(("write", "pwrite64", "writev"), _WRITE),
    **dict.fromkeys(("fsync", "fdatasync"), ("EIO", "ENOSPC", "EDQUOT", "EINTR")),
    **dict.fromkeys(("rename", "renameat", "renameat2", "link", "linkat", "symlink"), _NAME),
    **dict.fromkeys(("unlink", "unlinkat", "rmdir"), _REMOVE),
    **dict.fromkeys(("mkdir", "mkdirat"), ("ENOSPC", "EACCES", "EIO", "EDQUOT", "EROFS")),
    **dict.fromkeys(("stat", "lstat", "newfstatat", "fstat", "statx", "statfs"), _LOOK),
    **dict.fromkeys(("access", "faccessat2", "readlink", "readlinkat", "getdents64"), _LOOK),
    **dict.fromkeys(("chmod", "fchmod", "fchmodat", "fchown", "utimensat"), ("EPERM", "EIO")),
    **dict.fromkeys(("ftruncate", "fallocate", "lseek"), ("EIO", "ENOSPC", "EINVAL")),
    **dict.fromkeys(("flock", "fcntl"), ("ENOLCK", "EINTR", "EIO", "ENOMEM")),
    "close": ("EIO", "ENOSPC", "EDQUOT", "EINTR"),
    "pipe2": ("EMFILE", "ENFILE", "ENOMEM"),
    **dict.fromkeys(("clone", "clone3", "vfork"), ("EAGAIN", "ENOMEM")),
    "execve": ("ENOMEM", "EACCES", "EIO"),
}
_PATHLESS = ("pipe2", "clone", "clone3", "vfork", "execve")
_LASTING = 0.3  # share of the faults that stay: every later call fails as well
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")
_PATH = re.compile(r'"(/[^"]*)"|<(/[^>]*)>')
_VARIABLE = re.compile(r"\d{4}|\.part-")  # run ids, process ids, random names


@dataclass(frozen=True)
class Call:
    """A system call that a command made. path: "" where it is found by its number alone."""

    name: str
    number: int
    path: str = ""


@dataclass(frozen=True)
class Fault:
    """A call that fails with an error; every later one as well where it is lasting."""

    call: Call
    error: str
    lasting: bool = False

    def __str__(self) -> str:
        number = f"{self.call.number}{'+' if self.lasting else ''}"
        return f"{self.call.name} {number} {self.error} {self.call.path}".rstrip()

    def arguments(self) -> list[str]:
        """Return the arguments of strace."""
        when = f"{self.call.number}{'+' if self.lasting else ''}"
        arguments = ["-e", f"trace={self.call.name}"]
        arguments += ["-e", f"inject={self.call.name}:error={self.error}:when={when}"]
        return [*arguments, "-P", self.call.path] if self.call.path else arguments


@dataclass(frozen=True)
class Outcome:
    """How a command ended. code: None where it had to be killed; hits: calls that were hit."""

    code: int | None
    text: str
    seconds: float
    hits: tuple[str, ...]

    def outside(self, folder: Path) -> bool:
        """Return whether a fault hit other files too: those of Python, say."""
        return any(str(folder) not in hit and "pipe:[" not in hit for hit in self.hits)


def calls(command: Sequence[str], folder: Path) -> list[Call]:
    """Return the calls of a command that concern files below a folder, pipes and processes."""
    trace = folder.with_name("trace")
    _run(["-e", f"trace={','.join(f'?{name}' for name in ERRORS)}"], command, trace)
    counts: Counter[tuple[str, ...]] = Counter()
    traced: dict[Call, None] = {}
    for line in trace.read_text("utf-8", "surrogateescape").splitlines():
        if parsed := _LINE.match(line):
            traced.setdefault(_call(counts, parsed, str(folder)) or Call("", 0))
    traced.pop(Call("", 0), None)
    return list(traced)


def _call(counts: Counter[tuple[str, ...]], line: re.Match[str], folder: str) -> Call | None:
    process, name, text = line.groups()
    counts[process, name] += 1
    path = next((a or b for a, b in _PATH.findall(text) if (a or b).startswith(folder)), "")
    if not path and name not in _PATHLESS and "pipe:[" not in text:
        return None
    if not path or _VARIABLE.search(path.removeprefix(folder)) or '"' in path:
        return Call(name, counts[process, name])
    counts[process, name, path] += 1
    return Call(name, counts[process, name, path], path)


def choose(chance: random.Random, traced: Sequence[Call]) -> Fault:
    """Return a fault: each name of a call is as likely as any other."""
    name = chance.choice(sorted({call.name for call in traced}))
    call = chance.choice([call for call in traced if call.name == name])
    error = chance.choice(ERRORS[name])
    lasting = bool(call.path) and error != "EINTR" and chance.random() < _LASTING
    return Fault(call, error, lasting)


def injected(command: Sequence[str], fault: Fault, folder: Path) -> Outcome:
    """Run a command with a fault. folder: beside it lie the trace and the output."""
    trace = folder.with_name("trace")
    began = time.monotonic()
    code, text = _run(fault.arguments(), command, trace)
    lines = trace.read_text("utf-8", "surrogateescape").splitlines()
    hits = tuple(line for line in lines if "(INJECTED" in line)
    return Outcome(code, text, time.monotonic() - began, hits)


def signalled(command: Sequence[str], number: int, after: float, folder: Path) -> Outcome:
    """Run a command, and send it a signal after so many seconds; a hit if it still ran."""
    began = time.monotonic()
    process = _started(command, folder.with_name("output"))
    try:
        process.wait(after)
        hits: tuple[str, ...] = ()
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        hits = (f"{folder}: signal {number}",)
    code, text = _outcome_of(process, folder.with_name("output"))
    return Outcome(code, text, time.monotonic() - began, hits)


def _run(arguments: Sequence[str], command: Sequence[str], trace: Path) -> tuple[int | None, str]:
    output = trace.with_name("output")
    strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-y", "-e", "signal=none", "-o", str(trace)]
    return _outcome_of(_started([*strace, *arguments, *command], output), output)


def _started(command: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        return subprocess.Popen(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _outcome_of(process: subprocess.Popen[bytes], output: Path) -> tuple[int | None, str]:
    """Return exit code and output; None for a process that does not end."""
    try:
        code: int | None = process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        code = None
        for number in [*_descendants(process.pid), process.pid]:
            os.kill(number, 9)
        process.wait()
    return code, output.read_text("utf-8", "surrogateescape")


def wait_for_orphans(folder: Path) -> None:
    """Wait until no process works on a folder: what a killed command has started ends later."""
    until = time.monotonic() + LIMIT
    while any(_works_on(process, folder) for process in Path("/proc").glob("[0-9]*")):
        if time.monotonic() > until:
            raise TimeoutError(f"a process still works on {folder}")
        time.sleep(0.05)


def _works_on(process: Path, folder: Path) -> bool:
    try:
        text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    except OSError:
        return False  # it has ended
    return process.name != str(os.getpid()) and os.fsencode(folder) in text


def _descendants(process: int) -> Iterator[int]:
    """Yield the processes that a process has started, and theirs, the youngest first."""
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            yield from _descendants(child)
            yield child
