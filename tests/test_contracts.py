"""The built-in modules keep their contracts: mypy judges these assignments."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tools.base import project

if TYPE_CHECKING:
    from compression import compression
    from encryption import encryption
    from filesbackup import filesbackup
    from mongo import mongo
    from mysql_backup import mysql_dump, mysql_xtrabackup
    from openldap import openldap
    from postgres import base, postgres
    from qa import qa
    from redis import redis
    from restore import drill
    from sqlite import sqlite
    from storage import storage
    from tools import size_calculation
    from tools.modules.contracts import (
        CheckModule,
        FolderRestorer,
        Restorer,
        SourceModule,
        StageModule,
        StoreModule,
    )

    files: SourceModule[filesbackup.Options] = filesbackup
    mysql: SourceModule[mysql_dump.Options] = mysql_dump
    physical: SourceModule[mysql_xtrabackup.Options] = mysql_xtrabackup
    dumps: SourceModule[postgres.Options] = postgres
    cluster: SourceModule[base.Options] = base
    documents: SourceModule[mongo.Options] = mongo
    small: SourceModule[sqlite.Options] = sqlite
    keys: SourceModule[redis.Options] = redis
    directory: SourceModule[openldap.Options] = openldap
    packed: StageModule[compression.Options] = compression
    sealed: StageModule[encryption.Options] = encryption
    stored: StoreModule[storage.Options] = storage
    tried: CheckModule[drill.Options] = drill
    measured: CheckModule[size_calculation.Options] = size_calculation
    looked: CheckModule[qa.Options] = qa
    restorers: tuple[Restorer, ...] = (mysql_dump, postgres, mongo)
    folders: tuple[FolderRestorer, ...] = (mysql_xtrabackup, base)

EDITS = (  # file, what is taken out, what is put in
    ("encryption/stage.py", "def backward(name: str, options: Options)", "def backward(name: str)"),
    ("compression/compression.py", "(name: str, _options: Options)", "(name: str)"),
    (
        "filesbackup/filesbackup.py",
        "items(options: Options, context: SourceContext)",
        "items(options: Options)",
    ),
)


@pytest.mark.slow
def test_mypy_sees_a_broken_contract(tmp_path: Path) -> None:
    """Issue 12, 1: a renamed function or a dropped parameter of a module is an error of mypy.

    All three edits are made in one copy: one run of mypy names each of them. What mypy knows of the
    project, if it was checked before, saves it from reading all of it again.
    """
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "benchmarks", "docs")
    copy = tmp_path / "copy"
    shutil.copytree(project.ROOT, copy, ignore=unwanted)
    for name, old, new in EDITS:
        text = (copy / name).read_text(encoding="utf-8")
        assert old in text, f"{name} has no {old}"
        (copy / name).write_text(text.replace(old, new), encoding="utf-8")
    with contextlib.suppress(FileNotFoundError):
        shutil.copytree(project.ROOT / ".mypy_cache", tmp_path / "cache")
    command = [sys.executable, "-m", "mypy", "tests/test_contracts.py"]
    command += ["--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    for variable in ("sealed", "packed", "files"):
        line = next(
            number
            for number, text in enumerate(Path(__file__).read_text().splitlines(), 1)
            if text.startswith(f"    {variable}: ")
        )
        assert f"tests/test_contracts.py:{line}: error: Incompatible types" in done.stdout
