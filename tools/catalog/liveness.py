"""Whether the run that wrote a marker is still in progress.

Process ids mean nothing in another container or on another machine. What is known of a marker
from there is its age alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.base import foreign_json
from tools.base.errors import BackupError
from tools.flow import store
from tools.flow.store import Store, StoreEntry

FOREIGN_AGE = 7 * 86400.0  # seconds after which a marker of another machine counts as ended
_MAX_BYTES = 1 << 16  # of a marker that is read


def this_process() -> dict[str, Any]:
    """Return this machine, its boot, its namespace of process ids, and this process."""
    return {
        "machine": _text("/etc/machine-id") or os.uname().nodename,
        "node": os.uname().nodename,  # copies of one image have one machine id
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "pids": _link("/proc/self/ns/pid"),
        "process": os.getpid(),
        "started": start_time(os.getpid()),
    }


def has_ended(backup_store: Store, marker: StoreEntry) -> bool:
    """Return whether the run of a marker has ended; one that may be in progress has not.

    Raises OSError where the marker cannot be read.
    """
    try:
        marked = foreign_json.load(store.content(backup_store, marker.name, _MAX_BYTES))
        is_over = ended(marked, this_process(), marker.age)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        is_over = None  # the marker lacks it
    except BackupError:
        return False
    return marker.age >= FOREIGN_AGE if is_over is None else is_over


def may_continue(backup_store: Store, marker: StoreEntry) -> bool:
    """Return whether a copy may go on with the run of a marker.

    The run that wrote it has ended; or it was a copy by this process, or one that is not known
    to go on: two copies of one run do each other no harm. Raises OSError where the marker
    cannot be read.
    """
    if has_ended(backup_store, marker):
        return True
    try:
        marked = foreign_json.load(store.content(backup_store, marker.name, _MAX_BYTES))
        process = this_process()
        is_own = all(marked.get(key) == value for key, value in process.items())
        unknown = ended(marked, process, marker.age) is None
        return marked["copy"] is True and (is_own or unknown)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return False
    except BackupError:
        return False


def ended(marked: Mapping[str, Any], process: Mapping[str, Any], age: float) -> bool | None:
    """Return whether a marked process has ended; None where this process cannot know it.

    Another boot of this machine can only lie before the current one. A marker that is younger
    was written by a copy of this machine.
    """
    if (marked["machine"], marked.get("node", process["node"])) != (
        process["machine"],
        process["node"],
    ):
        return None
    if marked["boot"] != process["boot"]:
        return True if age >= time.clock_gettime(time.CLOCK_BOOTTIME) else None
    if marked.get("pids", process["pids"]) != process["pids"]:
        return None
    return start_time(int(marked["process"])) != str(marked["started"])


def start_time(process: int) -> str:
    """Return when a process started, in ticks since the boot (proc(5), field 22); "": none."""
    status = _text(f"/proc/{process}/stat")
    return status.rpartition(")")[2].split()[19] if status else ""


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
