"""What `backup.py -t` finds about GENERAL: user, folders, permissions, signing, reports."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from tools import filesystem_handling, os_works
from tools.base import fixes, hung_mount, log
from tools.base.errors import BackupError, in_words
from tools.base.finding import Finding, bad, warning
from tools.catalog import location, signers, trust, writer_key
from tools.catalog.memory import Memory
from tools.config.declarations import General
from tools.config.model import Config
from tools.config.paths import creating, unwritable
from tools.date_str_utils import human_size
from tools.engine import guard, hooks, state
from tools.filesystem_handling import nearest

T = TypeVar("T")
_LARGER = "Remove files there, or set WORK_FOLDER to a folder of a larger disk."
_LIMITS = "Correct its line in SIGNERS or the key file, or create a new key (docs/security.md)."
_STOPS = 10  # a run stops below this part of DISK_SPACE_THRESHOLD


def tested(config: Config) -> Iterator[Finding]:
    """Yield what is found; each is independent of the others."""
    general = config.general
    yield from _user(config)
    for key, problem in guard.problems(config):
        yield bad(f"{key}: {problem}", problem.advice, problem.fix)
    log_folder = log.file_of(general.log_folder).parent
    yield from _folder("WORK_FOLDER", general.work_folder, general.work_folder)
    yield from _folder("LOG_FOLDER", log_folder, general.log_folder)
    if general.disk_space_check:
        yield from _work_space(general)
    yield from _log_space(general, log_folder)
    yield from _signing(config)
    yield from _hooks(config)
    address = general.message_config_command
    if address or not config.notify:
        yield Finding(f"reports go to {address}" if address else "no report is sent")


def _user(config: Config) -> Iterator[Finding]:
    try:
        os_works.refuse_root(config.general.allow_root)
    except BackupError as error:
        yield bad(str(error), error.hint)
    if guard.root_allowed(config):
        yield warning(
            guard.ROOT_ALLOWED, "Run it as a separate user with only the rights that it needs."
        )


def _hooks(config: Config) -> Iterator[Finding]:
    """Yield the commands before and after the run and its sections that cannot be started."""
    for name, of_it in hooks.all_of(config, config.sections):
        for key, argv in hooks.listed(of_it):
            if hooks.program(argv, config.path.parent) is None:
                hint = f"Correct the path, or install it so that {os_works.user()} can run it."
                if " " in argv[0]:
                    apart = json.dumps(argv[0].split())
                    hint = f"Write each argument as a string of its own, as in {apart}."
                yield bad(
                    f"{name}.{key}: {argv[0]}: command not found, or it cannot be executed", hint
                )


def _answer(key: str, path: Path, look: Callable[[], T]) -> T | Finding:
    """Return what a look at a path returns, or why it could not be made."""
    try:
        return hung_mount.answer(path, look)
    except OSError as error:
        problem, hint = in_words(error)
        return bad(f"{key}: {problem}", hint)


def _folder(key: str, folder: Path, configured: Path) -> Iterator[Finding]:
    """Yield whether a folder of the run is writable. configured: the value of its key"""

    def look() -> bool:
        return os.access(nearest(folder), os.W_OK | os.X_OK, effective_ids=True)

    good = _answer(key, configured, look)
    if isinstance(good, Finding):
        yield good
    elif good:
        yield Finding(f"{key} {folder} is writable")
    else:
        yield bad(
            f"{key} {folder} is not writable", unwritable(key, folder), _creating(key, folder)
        )


def _creating(key: str, folder: Path) -> str:
    """Return the command that creates a folder for this user; "" where it exists."""
    if os.path.lexists(folder):
        return ""  # it may serve others as well
    return fixes.as_root(creating(key, folder))


def _work_space(general: General) -> Iterator[Finding]:
    """Yield a finding where a run would warn of little space, or stop."""
    folder, threshold = general.work_folder, general.disk_space_threshold
    free = _answer(
        "WORK_FOLDER", folder, functools.partial(filesystem_handling.free_percent, folder)
    )
    if isinstance(free, Finding):
        return  # of the folder itself, which has been told
    text = f"WORK_FOLDER {folder}: {free:.1f} % free"
    if free < threshold / _STOPS:
        yield bad(f"{text}: the run would stop (DISK_SPACE_THRESHOLD {threshold:g} %)", _LARGER)
    elif free < threshold:
        yield warning(f"{text}, less than DISK_SPACE_THRESHOLD ({threshold:g} %)", _LARGER)


def _log_space(general: General, folder: Path) -> Iterator[Finding]:
    """Yield a finding where not even one file of the log has space."""

    def look() -> int:
        usage = os.statvfs(nearest(folder))
        return usage.f_bavail * usage.f_frsize

    free = _answer("LOG_FOLDER", folder, look)
    if not isinstance(free, Finding) and free < general.log_size << 20:
        text = f"LOG_FOLDER {folder}: only {human_size(free)} are free"
        yield warning(text, "Remove files there, or set LOG_FOLDER to a folder of a larger disk.")


def _earlier_signer(general: General) -> str:
    """Return the fingerprint of the last known signer of this host; "" if none is remembered."""
    return Memory(state.readable_folder(general.work_folder)).signer(general.hostname)


def _signing(config: Config) -> Iterator[Finding]:
    """Yield whether the runs are signed, and whether a restore would trust them."""
    general = config.general
    path, key_file = general.writer_key, location.key_file_of(config)
    if writer_key.is_missing(path):
        signer = _earlier_signer(general)
        hint, command = writer_key.missing(path, general.hostname, key_file, signed=bool(signer))
        if signer:  # a new key is the second choice: its command is no fix
            text = f"WRITER_KEY {path} does not exist, but this host has signed runs ({signer})"
            yield warning(text, f"{hint}: {command}")
            return
        text = f"WRITER_KEY {path} does not exist: runs are not signed"
        yield warning(text, f"{hint}.", command)
        return
    try:
        key = writer_key.read(path)
        problem = trust.known_signers(general, key_file).problem(
            key.public, general.hostname, datetime.now(timezone.utc)
        )
        named = signers.Signers(tuple(signers.in_comments(key_file) if key_file else ()))
        listed = signers.of_file(general.signers, "SIGNERS") if general.signers else None
    except BackupError as error:
        yield bad(str(error), error.hint, error.fix)
        return
    signer = writer_key.allowed_signer(general.hostname, key.public)
    yield Finding(f"runs are signed; the signer is: {signer}")
    if problem:
        yield bad(f"WRITER_KEY {path}: a restore would not trust the next run: {problem}", _LIMITS)
    elif listed is not None and key.public not in {one.public for one in listed}:
        text = f"SIGNERS {general.signers}: does not list the signer of this host"
        yield warning(text, f"Add this line to it, where a restore needs it: {signer}")
    if named and not named.names(key.public, general.hostname):
        line = f"{writer_key.SIGNER}{signer}"
        yield warning(
            f"KEY_FILE {key_file}: does not name the signer of {general.hostname}: a restore by a "
            "copy of the key would not trust the runs",
            f"Add this line to it and to each copy of the key (setup.py does it here): {line}",
        )
