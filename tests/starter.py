"""Start commands of this project without the 0.2 s in which Python imports it.

A server of one thread, which has imported the project and done nothing else, forks for each
command. What is forked is a process like any other: it runs the file as `__main__`, with its own
arguments, environment, standard streams and exit code.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # started by its path
    sys.path[0] = str(ROOT)

from tests import forking  # noqa: E402  (as above)

# What the tests start is compiled once, and prints as it does for users, whatever the caller's
# shell says.
for _name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
    os.environ.pop(_name, None)
sys.dont_write_bytecode = False
_ENVIRONMENT = dict(os.environ)
_COMMANDS = (
    "tools.commands.backup",
    "restore.command",
    "copy_runs.command",
    "encryption.provider_cryptography",
)
_LATE = (
    "storage",
    "tools.catalog",
    "tools.commands",
    "tools.engine",
    "tools.flow",
    "tools.reporting",
)  # packages of which a run imports a part late
_PACKAGES = ("requests", "rich.console", "rich.table", "zstandard", "sqlite3")
_OPTIONAL = ("boto3", "oss2")


def run(
    arguments: Sequence[str], environment: Mapping[str, str], timeout: float | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a Python file of this project to its end, from /, without an input."""
    if forking.early(environment) == forking.early(_ENVIRONMENT):
        return start(arguments, environment).end(timeout)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


def start(arguments: Sequence[str], environment: Mapping[str, str]) -> Command:
    """Start a Python file of this project."""
    return Command(_server().orders, arguments, environment)


class _Server:
    """The process that forks, seen from the tests."""

    def __init__(self) -> None:
        self.orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sections, served = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, served:
            numbers = [theirs.fileno(), served.fileno()]
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), *map(str, numbers)],
                cwd="/",
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=numbers,
            )
        forking.ask(sections, _ENVIRONMENT)  # of runs in this process
        atexit.register(self.close)

    def close(self) -> None:
        """End it."""
        self.orders.close()
        self._process.wait()


_server = functools.cache(_Server)


class Command:
    """A command that was started."""

    def __init__(
        self, orders: socket.socket, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self._arguments = list(arguments)
        (output, output_end), (errors, errors_end) = os.pipe(), os.pipe()
        self._reply, reply_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = json.dumps([self._arguments, dict(environment), _umask()]).encode()
        with reply_end:
            socket.send_fds(orders, [order], [output_end, errors_end, reply_end.fileno()])
        os.close(output_end)
        os.close(errors_end)
        self._readers = [_Reader(output), _Reader(errors)]
        self.pid = int(self._reply.recv(100))

    def end(self, timeout: float | None = None) -> subprocess.CompletedProcess[bytes]:
        """Wait for its end, and for that of all that write to its output."""
        for reader in self._readers:
            reader.join(timeout)
        if any(reader.is_alive() for reader in self._readers):
            os.kill(self.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(self._arguments, timeout or 0)
        output, errors = (reader.data for reader in self._readers)
        return subprocess.CompletedProcess(self._arguments, self.code(), output, errors)

    def code(self) -> int:
        """Wait for its own end; its exit code."""
        with self._reply:
            return int(self._reply.recv(100))


class _Reader(threading.Thread):
    """Reads a pipe to its end."""

    def __init__(self, pipe: int) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self.data = b""
        self.start()

    def run(self) -> None:
        """See Thread."""
        with open(self._pipe, "rb") as file:  # noqa: PTH123  (a descriptor)
            self.data = file.read()


def _umask() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("\nUmask:")[2].split()[0], 8)


def _serve(orders: socket.socket) -> None:
    """Fork for every order, until the tests end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tests end it
    while True:
        order, descriptors, _flags, _address = socket.recv_fds(orders, 1 << 20, 3)
        if not order:
            return
        if os.fork() == 0:
            orders.close()
            _waited(order, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _waited(order: bytes, descriptors: Sequence[int]) -> None:
    """Start the command, and reply with its PID and its exit code."""
    *streams, reply = descriptors
    pid = os.fork()
    if pid == 0:
        os.close(reply)
        arguments, environment, umask = json.loads(order)
        _command(arguments, environment, umask, streams)
    for stream in streams:
        os.close(stream)
    os.write(reply, str(pid).encode())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(reply, str(code).encode())
    os._exit(0)


def _command(
    arguments: list[str], environment: dict[str, str], umask: int, streams: Sequence[int]
) -> NoReturn:
    """Be the command, as Python would be after its own start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.umask(umask)
    if arguments[0].endswith("backup.py"):
        forking.fork_sections(environment)
    forking.be(arguments, environment, streams)


def _import() -> None:
    """Import what commands import, also what they import late."""
    from tools.base import imports
    from tools.modules import registry

    for name in (*_COMMANDS, *registry.MODULES):
        imports.module(name.removesuffix(".py").replace("/", "."))
    for name in _LATE:
        for module in pkgutil.iter_modules(imports.module(name).__path__, f"{name}."):
            imports.module(module.name)
    for name in _PACKAGES:
        importlib.import_module(name)
    for name in _OPTIONAL:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _import()
    _orders, _sections = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    forking.serve_sections(_sections)
    _serve(_orders)
