"""Runs as cron starts them: hardly any environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.system import System, execute
from tools.base import project


def test_names_that_are_no_utf_8_without_lang(system: System) -> None:
    """C38: LANG is unset, and a name is in Latin-1: it is stored, listed and restored."""
    name = b"caf\xe9 \xfc.txt"
    (Path(os.fsdecode(bytes(system.source) + b"/" + name))).write_text("x")
    sections = {
        "FILESET": execute("filesbackup", FILESET_INCLUDE=str(system.source)),
        "STORAGE_LOCAL": execute("storage", DESTINATION="local"),
    }
    system.configure(sections, STREAM="True")
    bare = {"PATH": os.environ["PATH"]}

    def started(*command: str) -> bytes:
        done = subprocess.run(command, cwd="/", env=bare, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    started(*system.command("-r"))
    restore = [*system.command()[:1], str(project.ROOT / "restore/restore.py"), "-c"]
    restore.append(str(system.conf))
    assert b"ok" in started(*restore, "--list")
    started(*restore, "--restore", "latest", "--destination", str(system.folder / "out"))
    (path_restored,) = (path for path in (system.folder / "out").rglob("*") if path.is_file())
    assert os.fsencode(path_restored.name) == name
