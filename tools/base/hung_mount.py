"""Looks at paths whose file system may not answer: a network mount whose server is gone.

Such a look waits inside the kernel, where no signal and no time limit reaches it. It is therefore
made in a thread, which is left behind when its time is over.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
LONGEST = 60.0  # seconds for one look: a disk that must spin up, an automounter
OTHERS = 2.0  # seconds for a path of another section, which the run has looked at before
_silent: dict[str, Future[object]] = {}  # looks that have not returned in time, by path


def answer(path: Path | str, look: Callable[[], T], seconds: float | None = None) -> T:
    """Return what `look` returns; it looks at `path`. Raises what it raises.

    Raises TimeoutError (ETIMEDOUT) that names the path if there is no answer in time, and at once
    as long as an earlier look at the path still waits.
    seconds: at most LONGEST; default: LONGEST
    """
    name = os.fspath(path)
    earlier = _silent.get(name)
    if earlier is not None and not earlier.done():
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), name)
    done = _started(look)
    if not wait([done], min(LONGEST, seconds or LONGEST)).done:
        _silent[name] = done  # type: ignore[assignment]
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), name)
    return done.result()


def _started(look: Callable[[], T]) -> Future[T]:
    """Return the future of a look, in a thread that does not keep the process.

    Where the system allows no further thread, the look is made here, without a limit.
    """
    done: Future[T] = Future()

    def work() -> None:
        try:
            done.set_result(look())
        except BaseException as error:  # noqa: BLE001  (raised again by the caller)
            done.set_exception(error)

    try:
        threading.Thread(target=work, daemon=True).start()
    except RuntimeError:
        work()
    return done


def real_path(path: Path | str, seconds: float | None = None) -> Path:
    """Return the real path; the path as it is where its file system does not answer in time."""
    try:
        return answer(path, lambda: Path(os.path.realpath(path)), seconds)
    except TimeoutError:
        return Path(os.path.abspath(path))  # noqa: PTH100  (Path.absolute keeps "..")
