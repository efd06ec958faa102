"""The operating system: user, limits, environment."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import os
import resource
import signal
from collections.abc import Iterable, Iterator, Mapping

from tools.base import account_names, capability
from tools.base.errors import ConfigError

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_DUMPABLE = 4  # prctl(2)
_M_ARENA_MAX = -8  # mallopt(3)
_ARENAS = 2
# What a program needs to find its way, and ssh its agent; all else is kept from it.
_KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM"),
    "SSH_AUTH_SOCK",
)
_KEPT_BEGINNINGS = ("LC_", "XDG_")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


def harden() -> None:
    """Set umask and core limit, and end with the parent process; every executable calls it.

    An ambient capability is lowered, so that no program inherits it (`capability`). Also bound
    what the C library keeps for itself: it would give each thread memory of its own, 45 MB more
    in a run of four items at a time.
    """
    capability.lower()
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if os.environ.get("NC_BACKUP_RUN_ID"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if hasattr(libc, "mallopt"):  # of glibc
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def user() -> str:
    """Return the name of the current user; its number if it has no name."""
    return account_names.user(os.geteuid())


def is_root() -> bool:
    """Return whether this process runs as root."""
    return os.geteuid() == 0


def refuse_root(allowed: bool) -> None:
    """Raise ConfigError if this process runs as root and the config does not allow it."""
    if is_root() and not allowed:
        raise ConfigError(
            "backup.py must not run as root",
            hint="Run it as the user ncbackup (runuser -u ncbackup -- python3 backup.py ...). In a "
            'container set "ALLOW_ROOT": "True" in GENERAL.',
        )


# The variables that the section at work has named (ENVIRONMENT): its programs get them too.
_passed: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("passed", default=())
PASSED = "NC_BACKUP_ENVIRONMENT"  # the same for a module that is a process of its own


@contextlib.contextmanager
def passing(names: Iterable[str]) -> Iterator[None]:
    """Pass these variables to the programs that are started in the block."""
    token = _passed.set(tuple(names))
    try:
        yield
    finally:
        _passed.reset(token)


def environment(
    extra: Mapping[str, str], named: Iterable[str] = (), *, proxies: bool = False
) -> dict[str, str]:
    """Return the environment for a program: an allow-list, the named variables, and `extra`.

    proxies: those of the network too, which may hold a password.
    """
    names = {*_KEPT, *named, *_passed.get(), *os.environ.get(PASSED, "").split()}
    if proxies:
        names |= {*_PROXIES, *(name.upper() for name in _PROXIES)}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in names or name.startswith(_KEPT_BEGINNINGS)
    }
    kept.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    return {**kept, **extra}
