"""Signals that end a run: they become Cancelled, so that temporary files are removed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from tools.base.errors import Cancelled
from tools.base.result import Status

_CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def catch() -> None:
    """Turn SIGTERM, SIGINT and SIGHUP into Cancelled, so that temporary files are removed."""
    for number in _CAUGHT:
        signal.signal(number, _cancel)


def _cancel(number: int, _frame: FrameType | None) -> None:
    for caught in _CAUGHT:
        signal.signal(caught, signal.SIG_IGN)
    _deferral.caught = number
    if _deferral.depth:
        _deferral.pending = number
    else:
        raise Cancelled(number)


class _Deferral:
    """Return whether Cancelled must wait, the signal that waits, and the one that came."""

    depth = 0
    pending = 0
    caught = 0


_deferral = _Deferral()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Delay Cancelled until the end of the block, which registers what it starts.

    (Blocking the signals themselves would be inherited by the programs that are started.)
    Only the main thread gets Cancelled, so elsewhere there is nothing to defer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _deferral.depth += 1
    try:
        yield
    finally:
        _deferral.depth -= 1
    if _deferral.pending and not _deferral.depth:
        number, _deferral.pending = _deferral.pending, 0
        raise Cancelled(number)


@contextlib.contextmanager
def set_aside() -> Iterator[None]:
    """Let what must follow a run go on to its end, whatever signals come; Cancelled comes after it.

    Programs that the block starts are ended by signals as ever: what is ignored would be inherited.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: came.append(number))
        for number in _CAUGHT
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came and _cancel in before.values():
        _cancel(came[0], None)


def raise_lost() -> None:
    """Raise Cancelled, once, if a signal came and nobody has seen it.

    Python prints and drops what is raised while a destructor runs, and no second signal is let
    through: the loops of the main thread that wait ask this.
    """
    if _deferral.caught and threading.current_thread() is threading.main_thread():
        number, _deferral.caught = _deferral.caught, 0
        raise Cancelled(number)


def status(number: int) -> Status:
    """Return the status for a signal: exit code 130 for SIGINT, else 143."""
    return Status.INTERRUPTED if number == signal.SIGINT else Status.TERMINATED
