"""A path on a mount that does not answer: a real one, of a FUSE daemon that is silent."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from filesbackup import tar_archive
from storage.local_store import LocalStore
from tests.system import System, execute
from tools.base import hung_mount, log
from tools.base.errors import ConfigError, in_words
from tools.catalog import markers
from tools.commands import backup
from tools.config.paths import check_folder
from tools.engine import state
from tools.flow import task
from tools.flow.store import StoredObject
from tools.modules import loader

_MNT_DETACH = 2  # umount2(2)


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Path]:
    """A folder in which every look-up waits for ever; it needs root and /dev/fuse."""
    folder = tmp_path / "hung"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        daemon = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"/dev/fuse: {error.strerror}")
    options = f"fd={daemon},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if libc.mount(b"hung", os.fsencode(folder), b"fuse", 0, options):
            pytest.skip(f"mount: {os.strerror(ctypes.get_errno())}")
        yield folder
        libc.umount2(os.fsencode(folder), _MNT_DETACH)
    finally:
        os.close(daemon)


@pytest.mark.fault(
    "a path of a source on a mount that does not answer (run and -t)",
    "its section fails after TIMEOUT, the others are stored",
)
def test_a_path_on_a_hung_mount(tmp_path: Path, hung: Path) -> None:
    (tmp_path / "system").mkdir()
    system = System(tmp_path / "system")
    (system.source / "file").write_text("content")
    source = {**execute("filesbackup", FILESET_INCLUDE=str(hung / "data")), "TIMEOUT": "1s"}
    system.configure({"HUNG": source, **system.full_sections()}, STREAM="True")
    tested = system.run("-t")
    assert tested.returncode == 1
    assert "took longer than its TIMEOUT of 1 s" in tested.stderr
    assert "STORAGE_LOCAL" in tested.stdout
    result = system.result()
    assert result["exit_code"] == 1
    assert "its TIMEOUT of 1 s" in result["sections"][0]["message"]
    assert [item["section"] for item in system.manifest()["items"]] == ["FILESET"]


@pytest.mark.fault(
    "a key or a store on a mount that does not answer (run and -t)",
    "its section fails after TIMEOUT, every other store gets its run, the run reports",
)
@pytest.mark.parametrize("key", ["KEY_FILE", "LOCAL_BACKUP"])
def test_a_section_on_a_hung_mount(tmp_path: Path, hung: Path, key: str) -> None:
    (tmp_path / "system").mkdir()
    system = System(tmp_path / "system")
    (system.source / "file").write_text("content")
    sections = system.full_sections()
    if key == "KEY_FILE":
        name = "ENCRYPTION"
        sections[name] = execute("encryption", KEY_FILE=str(hung / "key"))
    else:
        name = "SECOND"
        sections[name] = execute("storage", DESTINATION="local", LOCAL_BACKUP=str(hung / "store"))
    sections[name]["TIMEOUT"] = "1s"
    system.configure(sections, STREAM="True")
    result = system.result()
    assert result["exit_code"] == 1
    messages = {one["name"]: one["message"] for one in result["sections"]}
    assert messages[name] == "took longer than its TIMEOUT of 1 s and was ended"
    if name == "ENCRYPTION":
        assert messages["FILESET"] == "not run: it needs ENCRYPTION, which failed"
    else:
        assert [item["section"] for item in system.manifest()["items"]] == ["FILESET"]
        tested = system.run("-t", "--only", "FILESET", "--only", name)
        assert tested.returncode == 1
        assert "took longer than its TIMEOUT of 1 s" in tested.stderr


@pytest.mark.fault(
    "a restore from a store on a mount that does not answer", "it ends after STALL_TIMEOUT"
)
def test_a_restore_from_a_hung_mount(tmp_path: Path, hung: Path) -> None:
    (tmp_path / "system").mkdir()
    system = System(tmp_path / "system")
    sections = system.full_sections()
    parameters = {"DESTINATION": "local", "LOCAL_BACKUP": str(hung / "store")}
    sections["STORAGE_LOCAL"] = execute("storage", **parameters)
    system.configure(sections, STALL_TIMEOUT="2s")
    out = str(tmp_path / "out")
    output = system.restore("--restore", "latest", "--destination", out, code=1)
    assert "the store has not answered for 2 s (STALL_TIMEOUT)" in output


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A look that waits until the test ends; every look is given up at once."""
    answered = threading.Event()
    monkeypatch.setattr(hung_mount, "LONGEST", 0.05)
    monkeypatch.setattr(hung_mount, "_silent", {})
    yield lambda *_arguments, **_keywords: answered.wait()
    answered.set()


def test_a_look_that_waits_is_not_repeated(
    tmp_path: Path, silent: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B2: what hangs is left behind, said in words, and not looked at a second time."""
    with pytest.raises(TimeoutError) as caught:
        hung_mount.answer(tmp_path, silent)
    problem, hint = in_words(caught.value)
    assert problem == f"{tmp_path}: connection timed out"
    assert "mount" in hint
    with pytest.raises(TimeoutError):
        hung_mount.answer(tmp_path, lambda: pytest.fail("looked again"))
    assert hung_mount.real_path(tmp_path) == tmp_path
    assert hung_mount.answer("elsewhere", lambda: 5) == 5
    assert tar_archive.private_path(tmp_path) == tmp_path
    monkeypatch.setenv("NC_BACKUP_PRIVATE", f'["{tmp_path}"]')
    compression: Any = loader.module("compression/compression.py")
    options = compression.Options(work_folder=tmp_path / "work")
    assert tmp_path in compression.reserved_paths(options)


def test_folders_of_the_run_that_do_not_answer(
    tmp_path: Path, silent: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A6: WORK_FOLDER on such a mount is one line, and LOG_FOLDER costs only the log file."""
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", silent)
        patched.setattr(os.path, "exists", silent)
        with pytest.raises(ConfigError, match=r"conf:1: .*work: connection timed out"):
            check_folder(tmp_path / "work", "conf:1")
        assert state.owned_folder(tmp_path / "work") is None
        patched.setattr(log, "_opened", silent)
        log.begin(tmp_path / "log", "WARNING", 1, 1)


def _run(system: System) -> int:
    return backup.main(["-r", "-c", str(system.conf), "--insecure-permissions"])


def test_free_space_that_is_never_told(
    tmp_path: Path, silent: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B2: a work folder that stops answering ends the run with its report."""
    system = System(tmp_path)
    system.configure(system.full_sections(), STREAM="True", DISK_SPACE_CHECK="True")
    monkeypatch.setattr(hung_mount, "LONGEST", 1.0)
    monkeypatch.setattr(os, "statvfs", silent)
    assert _run(system) == 1
    assert "WORK_FOLDER" in system.log.read_text()


def test_a_store_that_stops_answering(
    tmp_path: Path, silent: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B2: the manifest and the run marker are written under the limits of their section."""
    system = System(tmp_path)
    (system.source / "file").write_text("content")
    sections = system.full_sections()
    sections["STORAGE_LOCAL"]["TIMEOUT"] = "1s"
    system.configure(sections, STREAM="True")
    monkeypatch.setattr(markers, "publish_manifest", silent)
    monkeypatch.setattr(hung_mount, "LONGEST", 5.0)
    began = time.monotonic()
    assert _run(system) == 1
    assert time.monotonic() - began < 30  # far from the hour of STALL_TIMEOUT
    text = system.log.read_text()
    assert "the manifest could not be stored: took longer than its TIMEOUT of 1 s" in text
    assert "run marker not removed" in text


@pytest.mark.fault(
    "one of several stores takes or confirms nothing any more",
    "after STALL_TIMEOUT it fails alone, the other stores get every item",
)
@pytest.mark.parametrize("size", [100, 12 << 20], ids=["confirms nothing", "takes nothing"])
def test_one_of_two_stores_stalls(
    tmp_path: Path, silent: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    system = System(tmp_path)
    (system.source / "file").write_bytes(os.urandom(size))
    stalls = execute("storage", DESTINATION="local", LOCAL_BACKUP=str(tmp_path / "second"))
    more = execute("filesbackup", FILESET_INCLUDE=str(system.source))
    sections = system.short(STALLS=stalls)
    system.configure({"MORE": more, **sections}, STREAM="True", STALL_TIMEOUT="1")
    put = LocalStore.put

    def stalled(store: LocalStore, name: str, chunks: Iterable[bytes]) -> StoredObject:
        if name.endswith(".000") and "second" in str(store):
            next(iter(chunks))
            silent()
        return put(store, name, chunks)

    monkeypatch.setattr(LocalStore, "put", stalled)
    monkeypatch.setattr(hung_mount, "LONGEST", 5.0)
    monkeypatch.setattr(task, "GRACE", 0.5)
    assert _run(system) == 1
    assert [item["section"] for item in system.manifest()["items"]] == ["MORE", "FILESET"]
    text = system.log.read_text()
    assert text.count("no data for 1 s (STALL_TIMEOUT)") == 1
    assert not list((tmp_path / "second").rglob("*.manifest.json"))
