"""Become a command, or fork the sections of a run, without the 0.2 s in which Python imports all.

A run that the tests start (starter.py) forks a helper before it does anything. Where the run
starts a Python file of this project, that helper forks instead, with CLONE_PARENT: the new process
is a child of the run like any other. It has its own session, arguments, environment, folder and
standard streams, and of the state of the run nothing. What cannot be made the same this way is
started really, and so is each section of a run whose environment has REALLY.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

REALLY = "TESTS_START_REALLY"
_ROOT = Path(__file__).resolve().parents[1]
_CLONE_PARENT = 0x8000
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine)
_ABLE = _SYS_CLONE is not None and hasattr(subprocess, "_fork_exec")  # from Python 3.11 on
_OPEN = 256  # what the tests and the helper keep open has this number or more
_LONGEST = 60_000  # bytes of an order; with longer ones the kernel itself shall decide
# What subprocess hands to _fork_exec for a section: restore_signals, start_new_session,
# process_group, gid, groups, uid, umask, preexec_fn.
_OPTIONS = (True, True, -1, None, None, None, -1, None)
# Python and the dynamic linker read these before any program.
_EARLY = ("PYTHON", "LC_", "LANG", "LD_")


def be(arguments: list[str], environment: dict[str, str], streams: Sequence[int]) -> NoReturn:
    """Be the command, as Python would be after its own start.

    streams: the last ones of standard input, output and error
    """
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    for target, stream in enumerate(streams, 3 - len(streams)):
        os.dup2(stream, target)
    os.closerange(3, _OPEN)
    sys.argv = arguments
    code = _exit_code(arguments[0])
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _exit_code(program: str) -> int:
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        sys.stderr.write(f"{end.code}\n")
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001  (as Python itself ends)
        traceback.print_exc()
        return 1
    return 0


def fork_sections(environment: Mapping[str, str]) -> None:
    """Fork the helper of this process, and let subprocess ask it.

    environment: that of the run
    """
    if not _ABLE or REALLY in environment:
        return
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    serve_sections(theirs, os.fork)
    ask(_far(ours), environment)


def _far(orders: socket.socket) -> socket.socket:
    """Return the same socket where `be` closes nothing."""
    with orders:
        return socket.socket(fileno=fcntl.fcntl(orders, fcntl.F_DUPFD_CLOEXEC, _OPEN))


def serve_sections(orders: socket.socket, fork: Callable[[], int] | None = None) -> None:
    """Start a helper that serves these orders.

    fork: what makes it; default: what makes it a child of the parent of this process
    """
    if _ABLE and (fork or _sibling)() == 0:
        _serve(_far(orders))
    orders.close()


def ask(orders: socket.socket, environment: Mapping[str, str]) -> None:
    """Let subprocess ask the helper from now on. environment: what this process began with."""
    if not _ABLE:
        return
    start = subprocess._fork_exec  # type: ignore[attr-defined]
    same, priority = early(environment), os.getpriority(os.PRIO_PROCESS, 0)

    def fork_exec(*arguments: Any) -> int:
        order = _order(arguments, same)
        if order is None or os.getpriority(os.PRIO_PROCESS, 0) != priority:
            return int(start(*arguments))
        pid = _request(orders, order, (arguments[6], arguments[9], arguments[11]))
        return pid or int(start(*arguments))

    subprocess._fork_exec = fork_exec  # type: ignore[attr-defined]


def early(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are read before any program: with others, Python starts anew."""
    return {name: value for name, value in environment.items() if name.startswith(_EARLY)}


def _order(arguments: Sequence[Any], same: dict[str, str]) -> bytes | None:
    """The order for the helper; None for what must be started really."""
    command, _executables, closed, kept, folder, variables = arguments[:6]
    command = [os.fsdecode(word) for word in command]
    usual = closed and len(kept) == 1 and arguments[14:22] == _OPTIONS
    if not usual or min(arguments[6], arguments[9], arguments[11]) < 0:
        return None
    if command[0] != sys.executable or not _ours(command[1]):
        return None
    if folder is None or variables is None or not os.access(folder, os.X_OK):
        return None
    pairs = [os.fsdecode(variable).partition("=") for variable in variables]
    environment = {name: value for name, _equals, value in pairs}
    umask = os.umask(0)
    os.umask(umask)
    order = pickle.dumps((command[1:], environment, os.fspath(folder), umask))
    return order if early(environment) == same and len(order) <= _LONGEST else None


def _ours(file: str) -> bool:
    return file.endswith(".py") and Path(file).resolve().is_relative_to(_ROOT)


def _request(orders: socket.socket, order: bytes, streams: Sequence[int]) -> int:
    """Return the PID of a new child of this process; 0 where the helper is gone."""
    try:
        socket.send_fds(orders, [order], streams)
        return int(orders.recv(100) or 0)
    except OSError:
        return 0


def _serve(orders: socket.socket) -> NoReturn:
    """Fork for every order, until the run ends."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.closerange(3, _OPEN)  # the pipes of the run end with the run
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        order, streams, _flags, _address = socket.recv_fds(orders, 2 * _LONGEST, 3)
        if not order:
            os._exit(0)
        pid = _sibling()
        if pid == 0:
            _be(order, streams)
        orders.send(str(pid).encode())
        for stream in streams:
            os.close(stream)


def _sibling() -> int:
    """Fork a child of this process's parent; as os.fork otherwise."""
    python = ctypes.PyDLL(None)  # which keeps the lock of the interpreter, as os.fork does
    python.PyOS_BeforeFork()
    pid = int(python.syscall(_SYS_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    return pid


def _be(order: bytes, streams: Sequence[int]) -> NoReturn:
    arguments, environment, folder, umask = pickle.loads(order)  # noqa: S301  (our own)
    os.setsid()
    os.chdir(folder)
    os.umask(umask)
    if arguments[0].endswith("plugin_host.py"):
        _forget_project()
    be(arguments, environment, streams)


def _forget_project() -> None:
    """Import nothing of this project's folders for a plugin that has a module of the same name."""
    for name, module in list(sys.modules.items()):
        paths = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
        ours = any(path.startswith(f"{_ROOT}/") and "/.venv" not in path for path in paths)
        if ours and not name.startswith(("tests", "__main__")):
            del sys.modules[name]
