"""Remotes of rclone for tests, all of one rclone: each store in a folder of its own."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage import rclone_daemon, rclone_store
from storage.rclone_daemon import Program, Shared
from storage.rclone_objects import RcloneStore
from storage.rclone_store import Options
from tests import servers


@functools.cache
def folder() -> Path:
    """Return where the config lies, and the files of the remotes crypt and disk."""
    path = Path(tempfile.mkdtemp(prefix="nc-test-rclone-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def config() -> Path:
    """Write the config file: remotes with hashes, without, and some that cannot be reached."""
    obscured = subprocess.run(
        [servers.program("rclone"), "obscure", "password of the tests"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    file = folder() / "rclone.conf"
    file.write_text(
        f"[crypt]\ntype = crypt\nremote = {folder()}/crypted\npassword = {obscured}\n\n"
        f"[disk]\ntype = alias\nremote = {folder()}/disk\n\n"
        "[mem]\ntype = memory\n\n"
        "[dead]\ntype = webdav\nurl = http://user@127.0.0.1:1/\n\n"
        "[drive]\ntype = drive\n\n"
        f"[hidden]\ntype = crypt\nremote = drive:backups\npassword = {obscured}\n"
    )
    return file


def options(remote: str, **keys: Any) -> Options:
    """Return the options of a section."""
    defaults = {"hostname": "srv", "remote": remote, "program": servers.program("rclone")}
    return Options(**{**defaults, "config": config(), "work_folder": folder(), **keys})


@functools.cache
def _kept(program: Program) -> Shared:
    """Return the rclone that all stores share; it goes on between tests."""
    return rclone_daemon.shared(program)


def opened(remote: str, **keys: Any) -> RcloneStore:
    """Return a store."""
    chosen = options(remote, **keys)
    _kept(chosen.rclone)
    target = rclone_store.open_store(chosen)
    assert isinstance(target, RcloneStore)
    return target


def local(folder: Path) -> Callable[[], RcloneStore]:
    """Return what opens one more process of a store in a folder of this machine."""
    return lambda: opened(f":local:{folder}/store")


def crypt(_folder: Path) -> Callable[[], RcloneStore]:
    """The same of a remote that has no hashes; one remote for all, since its key takes long."""
    shutil.rmtree(folder() / "crypted", ignore_errors=True)
    return lambda: opened("crypt:contract")


def memory(_folder: Path) -> Callable[[], RcloneStore]:
    """The same of a bucket, which copies and cannot move."""
    name = uuid.uuid4().hex
    return lambda: opened(f"mem:{name}")
