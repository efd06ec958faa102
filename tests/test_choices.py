"""Issue 11 A2: one module object for each file, and every option with choices has its effect.

The options are read from the modules themselves: a new one without a check here fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, execute
from tools.base import project
from tools.modules import loader, options, registry

CHOICES = sorted(
    (name, key, member.value)
    for name in registry.MODULES
    # a bucket's: test_s3.py, test_s3_faults.py; oplog: tests/mongo
    if name not in ("storage/storage.py", "mongo/mongo.py")
    for key, declared in options.kinds(registry.declaration(project.ROOT / name)).items()
    for kind in (typing.get_args(declared) or (declared,))
    if isinstance(kind, type) and issubclass(kind, Enum)
    for member in kind
)
ENDS = {"zstd": b"\x28\xb5\x2f\xfd", "gzip": b"\x1f\x8b", "xz": b"\xfd7zXZ", "none": b""}
WHOLE_RUN = """\
import json, sys
sys.path[0:0] = [{root!r}]
from tools.commands import backup
code = backup.main(sys.argv[1:])
files = [str(m.__file__) for m in list(sys.modules.values()) if getattr(m, "__file__", None)]
ours = [file for file in files if file.startswith({root!r}) and "/.venv" not in file]
from pathlib import Path
real = sorted(str(Path(file).resolve()) for file in ours)
print(json.dumps({{"code": code, "twice": [f for f in set(real) if real.count(f) > 1],
    "files": real}}))
"""


@contextlib.contextmanager
def changing(path: Path) -> Iterator[None]:
    """A large file whose time changes all the while."""
    path.write_bytes(os.urandom(1 << 20) * 24)
    stop = threading.Event()

    def touch() -> None:
        while not stop.wait(0.002):
            path.touch()

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def manifest(system: System) -> dict[str, Any]:
    """The manifest of the only run."""
    (file,) = system.store.rglob("*.manifest.json")
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def first_part(system: System, run: dict[str, Any]) -> bytes:
    """The bytes of the first part of the first item."""
    name: str = run["items"][0]["parts"][0]["name"]
    return (system.store / "srv-test" / name).read_bytes()


def check_algorithm(system: System, value: str) -> None:
    """The stored bytes, the manifest and the way back agree on the algorithm."""
    sections = system.full_sections(COMPRESSION=execute("compression", ALGORITHM=value))
    del sections["ENCRYPTION"], sections["SIZE"]  # which measures what ENCRYPTION wrote
    sections["STORAGE_LOCAL"]["PARAMETERS"]["TARGETS"] = str(system.work / "compressed")
    system.configure(sections, STREAM=system.general["STREAM"])
    assert system.result()["exit_code"] == 0
    run = manifest(system)
    assert run["items"][0]["stages"] == ([] if value == "none" else [value])
    head = first_part(system, run)
    assert head.startswith(ENDS[value])
    assert value != "none" or head[257:262] == b"ustar"
    assert (system.restored() / "FILESET").is_dir()


def check_format(system: System, value: str) -> None:
    """The stored bytes and the manifest name the same format, and it can be verified."""
    encryption = execute("encryption", KEY_FILE=str(system.key), FORMAT=value)
    if value == "openssl":
        system.key.write_text("0123456789abcdef0123456789abcdef\n")
        system.key.chmod(0o600)
    system.configure(system.full_sections(ENCRYPTION=encryption), STREAM=system.general["STREAM"])
    assert system.result()["exit_code"] == 0
    run = manifest(system)
    assert run["items"][0]["stages"][-1] == value
    starts = {"age": b"age-encryption.org/v1\n", "openssl": b"Salted__"}
    assert first_part(system, run).startswith(starts[value])
    system.restore("--verify", "latest")


def check_changed_files(system: System, value: str) -> None:
    """A file that changes while it is read: a note, a warning or a failure."""
    fileset = execute("filesbackup", FILESET_INCLUDE=str(system.source), CHANGED_FILES=value)
    system.configure(system.full_sections(FILESET=fileset), STREAM=system.general["STREAM"])
    with changing(system.source / "busy"):
        result = system.result()
    assert result["exit_code"] == {"log": 0, "warn": 3, "fail": 1}[value], result
    if value == "fail":
        assert not list(system.store.rglob("*.manifest.json"))
        return
    item = manifest(system)["items"][0]
    lines = item["notes" if value == "log" else "warnings"]
    assert any("busy: file changed while it was read" in line for line in lines)


CHECKS: dict[tuple[str, str], Callable[[System, str], None]] = {
    ("compression/compression.py", "algorithm"): check_algorithm,
    ("encryption/encryption.py", "format"): check_format,
    ("filesbackup/filesbackup.py", "changed_files"): check_changed_files,
}


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["True", "False"], ids=["streamed", "staged"])
@pytest.mark.parametrize(("module", "key", "value"), CHOICES)
def test_every_choice_has_its_effect_in_both_modes(
    system: System, module: str, key: str, value: str, stream: str
) -> None:
    """Issue 11 A2: `value is Enum.MEMBER` was false in streamed runs."""
    (system.source / "file").write_text("content")
    system.general["STREAM"] = stream
    CHECKS[module, key](system, value)


@pytest.mark.parametrize("stream", ["True", "False"], ids=["streamed", "staged"])
def test_no_file_is_two_modules_after_a_run_of_every_built_in_module(
    system: System, stream: str
) -> None:
    """Issue 11 A2: after a run that loads every built-in module, no `__file__` occurs twice."""
    (system.source / "file").write_text("content")
    sections = {
        "FILES2": execute("filesbackup", FILESET_INCLUDE=str(system.source)),
        "MYSQL": execute("mysql_backup", EXECUTABLE="mysql_dump.py"),
        "PHYSICAL": {
            "ACTION": "execute",
            "NAME": "mysql_backup",
            "EXECUTABLE": "mysql_xtrabackup.py",
        },
        **{
            name.upper(): {
                "ACTION": "load",
                "FROM": folder,
                "FILENAME": name,
                "CLASS": of_class,
            }
            for folder, name, of_class in (
                ("postgres", "postgres", "PostgresBackup"),
                ("postgres", "base", "PostgresBaseBackup"),
                ("mongo", "mongo", "MongoBackup"),
                ("sqlite", "sqlite", "SQLiteBackup"),
                ("redis", "redis", "RedisBackup"),
                ("openldap", "openldap", "OpenLDAPBackup"),
            )
        },
        **system.full_sections(),
        "QA": {"ACTION": "load", "FROM": "qa", "FILENAME": "qa", "CLASS": "QA"},
        "DRILL": execute("restore", EXECUTABLE="drill.py"),
    }
    sections["SQLITE"]["PARAMETERS"] = {"DATABASES": str(system.source / "none.db")}
    system.configure(sections, STREAM=stream)
    command = [sys.executable, "-c", WHOLE_RUN.format(root=str(project.ROOT))]
    done = subprocess.run(
        [*command, "-c", str(system.conf), "-r", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["twice"] == []
    assert any(file.endswith("/filesbackup/filesbackup.py") for file in result["files"])


@pytest.mark.parametrize("name", sorted(registry.MODULES))
def test_one_module_object_however_the_path_is_spelled(name: str, tmp_path: Path) -> None:
    """Issue 11 A2: by a relative, an absolute and a linked path."""
    link = tmp_path / "link"
    link.symlink_to(project.ROOT / Path(name).parent)
    first = loader.module(name)
    assert loader.module(project.ROOT / name) is first
    assert loader.module(link / Path(name).name) is first
    assert loader.module(str(project.ROOT / "tools" / ".." / name)) is first
