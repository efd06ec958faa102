"""The private folder of this machine's runs in WORK_FOLDER, and the run ids that they claim."""

from __future__ import annotations

import os
import shlex
import stat
from datetime import timedelta
from pathlib import Path

from tools import date_str_utils, filesystem_handling
from tools.base import account_names, hung_mount, lock, permissions, run_ids
from tools.base.permissions import Problem

NAME = ".nc-backup-py"  # lock, undelivered reports, results of a running run, known stores
_LAST = "last_run_id"
_CROWD = 60.0  # seconds of ids that starts of one second may claim


def folder(work_folder: Path) -> Path:
    """Return the private folder of the run's own files, made where it is missing."""
    return filesystem_handling.make_folder(work_folder / NAME)


def owned_folder(work_folder: Path) -> Path | None:
    """Return the same where the work folder exists and is this user's; None elsewhere.

    For whoever may not run: what root made here would lock out the user of the backup.
    """
    try:
        status = hung_mount.answer(work_folder, work_folder.stat)
    except OSError:  # missing, closed, or on a mount that does not answer
        return None
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not ours or permissions.of_folder(work_folder) or problem(work_folder):
        return None
    return folder(work_folder)


def readable_folder(work_folder: Path) -> Path | None:
    """Return the private folder where this user can read it, to look up what runs remember."""
    private = work_folder / NAME
    try:
        is_readable = hung_mount.answer(private, lambda: os.access(private, os.R_OK | os.X_OK))
    except OSError:
        return None
    return private if is_readable else None


def problem(work_folder: Path) -> Problem | None:
    """Return why the private folder is another user's, or a link that may have been planted."""
    private = work_folder / NAME
    if not os.path.lexists(private):
        return None
    if private.is_symlink():
        return Problem(private, "is a symbolic link", (f"rm {shlex.quote(str(private))}",))
    return permissions.of_folder(private) or _closed(private)


def _closed(private: Path) -> Problem | None:
    """Return the problem where root made the folder, so that this user cannot write there."""
    owner, user = private.stat().st_uid, os.geteuid()
    if user in (0, owner) or os.access(private, os.W_OK | os.X_OK, effective_ids=True):
        return None
    command = f"chown -R {account_names.user(user)} {shlex.quote(str(private))}"
    return Problem(private, f"belongs to {account_names.user(owner)}", (command,))


def claimed_run_id(private: Path, after: str = "") -> str:
    """Claim a run ID that no other start has got, though several start in one second.

    after: an id that is taken in a store; the next one is claimed then.
    The one that finds another run going on, and the one that is refused, report too, and the
    report server drops what comes twice under one run id.
    """
    last = private / _LAST
    with lock.waiting(private / f"{_LAST}.lock"):
        run_id = date_str_utils.run_id()
        used = _last_id(last)
        if _soon(run_id, used):
            run_id = _next(used)
        if _soon(run_id, after):
            run_id = _next(after)
        with filesystem_handling.staged(last) as temporary:
            with filesystem_handling.create(temporary, durable=False) as write:
                write(run_id.encode())
            temporary.replace(last)
        return run_id


def _last_id(file: Path) -> str:
    """Return the ID that was claimed last; "" where the file is missing, damaged or a link."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        text = os.read(descriptor, 100).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)
    return text if run_ids.run_in(text) == text else ""


def _soon(run_id: str, used: str) -> bool:
    """Return whether `used` is this ID, or one of the next minute: claimed in this second.

    What lies further ahead was claimed while the clock was wrong, and does not count.
    """
    try:
        ahead = (run_ids.time_of(used) - run_ids.time_of(run_id)).total_seconds()
    except ValueError:
        return False
    return 0 <= ahead <= _CROWD


def _next(run_id: str) -> str:
    return date_str_utils.run_id(run_ids.time_of(run_id) + timedelta(seconds=1))
