"""The right store, the right machine, a run id of one's own, enough space."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import local_store
from tests.system import System, execute, next_second
from tools import filesystem_handling
from tools.base import run_ids
from tools.base.errors import StoreError, TransientError
from tools.catalog import manifest, store_identity
from tools.catalog.memory import Memory
from tools.flow.memory_store import MemoryStore
from tools.flow.store import StoreEntry, explained, store_object

BOTH = pytest.mark.parametrize("stream", ["True", "False"])


@pytest.fixture
def system(tmp_path: Path) -> System:
    new = System(tmp_path)
    (new.source / "a").write_text("a")
    new.configure(new.short(), STREAM="True")
    return new


def result(system: System, *arguments: str) -> dict[str, Any]:
    next_second()
    return system.result(*arguments)


def clone(system: System, name: str, **general: Any) -> System:
    """Another config of the same host and store, with a work folder and a source of its own."""
    folder = system.folder / name
    folder.mkdir()
    other = System(folder)
    other.key = system.key
    other.general["WRITER_KEY"] = str(system.writer_key)
    other.store = system.store
    other.general["LOCAL_BACKUP"] = str(system.store)
    (other.source / "a").write_text(name)
    other.configure(other.short(), **general)
    return other


# --- the store


@pytest.mark.fault("a known store whose disk is not mounted", "exit 1, nothing is created")
def test_a_known_store_that_is_not_mounted(system: System) -> None:
    """Issue 11 A4: the marker is missing; -t says it too; --accept-store confirms."""
    assert result(system)["exit_code"] == 0
    assert (system.store / store_identity.MARKER).is_file()
    mounted = system.folder / "mounted"
    system.store.rename(mounted)
    outcome = result(system)
    assert outcome["exit_code"] == 1
    assert "Check that its disk is mounted." in outcome["stderr"]
    assert "--accept-store" in outcome["stderr"]
    assert not system.store.exists()
    test = system.run("-t")
    assert test.returncode == 1
    assert "store marker nc-backup-py.store/id.json: no such file" in test.stderr
    assert not system.store.exists()
    mounted.rename(system.store)
    assert result(system)["exit_code"] == 0
    system.store.rename(mounted)
    assert system.run("-t", "--accept-store").returncode == 0
    assert result(system, "--accept-store")["exit_code"] == 0
    assert result(system)["exit_code"] == 0


@pytest.mark.fault("another disk in the place of a known store", "exit 1, nothing is stored")
def test_another_store_in_its_place(system: System) -> None:
    """Issue 11 A4: disks that take turns are accepted once each."""
    assert result(system)["exit_code"] == 0
    first, second = system.folder / "first", system.folder / "second"
    system.store.rename(first)
    shutil.rmtree(system.work)  # another machine's store
    assert result(system)["exit_code"] == 0
    shutil.copytree(system.store, second)
    shutil.rmtree(system.store)
    shutil.copytree(first, system.store)
    outcome = result(system)
    assert outcome["exit_code"] == 1
    assert ": another store (id" in outcome["stderr"]
    assert result(system, "--accept-store")["exit_code"] == 0
    for disk in (second, first):
        shutil.rmtree(system.store)
        shutil.copytree(disk, system.store)  # as it was before the last runs
        assert result(system, "--accept-rollback")["exit_code"] == 0


def test_a_lost_memory_adopts_the_store(system: System) -> None:
    """Issue 11 A4: and a spoiled one; the store keeps its id."""
    assert result(system)["exit_code"] == 0
    marker = (system.store / store_identity.MARKER).read_bytes()
    shutil.rmtree(system.work)
    assert result(system, "-l", "warning")["exit_code"] == 0
    assert "did not know it yet" in system.log.read_text()
    memory = system.work / ".nc-backup-py" / "stores.json"
    for text in ("{", "[1]", '{"x": 1}', "[" * 100_000):
        memory.write_text(text)
        assert result(system)["exit_code"] == 0
    assert (system.store / store_identity.MARKER).read_bytes() == marker


def test_the_marker_is_neither_a_host_nor_a_run(system: System) -> None:
    """Issue 11 A4: lists, verification and clean-up pass over it."""
    assert result(system)["exit_code"] == 0
    options = ("--local-backup", str(system.store), "--key-file", str(system.key))
    assert "can be restored" in system.restore_bare(*options, "--verify", "all")
    assert len(json.loads(system.restore_bare(*options, "--list", "--json"))["runs"]) == 1


def test_a_spoiled_marker_is_named(system: System) -> None:
    """Issue 11 A4."""
    assert result(system)["exit_code"] == 0
    for text in ("", "{", "[]", '{"store": 1}', '{"store": "../x"}', "[" * 100_000):
        (system.store / store_identity.MARKER).write_text(text)
        outcome = result(system)
        assert outcome["exit_code"] == 1
        assert "marker" in outcome["stderr"]
        assert "Traceback" not in outcome["stderr"]


@pytest.mark.needs("root")
def test_a_new_store_below_mnt_needs_confirmation(system: System) -> None:
    """Issue 11 A4: a store whose disk is not mounted is not created on the root disk."""
    folder = Path("/mnt") / f"nc-test-{os.getpid()}" / "store"
    if not filesystem_handling.unmounted(folder):
        pytest.skip("/mnt is a mounted disk here")
    system.configure(system.short(), STREAM="True", LOCAL_BACKUP=str(folder))
    try:
        test = system.run("-t")
        assert test.returncode == 1
        assert "a new store would be created on the root file system" in test.stderr
        assert "Check that its disk is mounted." in test.stderr
        outcome = result(system)
        assert outcome["exit_code"] == 1
        assert "Check that its disk is mounted." in outcome["stderr"]
        assert not folder.parent.exists()
        assert system.run("-t", "--accept-store").returncode == 0
        assert not folder.parent.exists()
        assert result(system, "--accept-store")["exit_code"] == 0
        assert result(system)["exit_code"] == 0
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)


def test_lost_and_found_of_a_new_disk_is_no_obstacle(tmp_path: Path) -> None:
    """A disk that was just formatted has a folder that only root can list: the first run failed."""

    class Disk(local_store.LocalStore):
        def entries(self, folder: str) -> Iterator[StoreEntry]:
            if folder == "lost+found":
                raise PermissionError(errno.EACCES, "Permission denied", f"{self.folder}/{folder}")
            return super().entries(folder)

    (tmp_path / "lost+found").mkdir()
    inspected = store_identity.inspect(Disk(tmp_path), "srv", "")
    assert inspected.settle(Memory(None), accept=False)


@pytest.mark.parametrize("spelling", ["{0}", "{0}/../store", "{1}"])
def test_two_stores_in_one_place(system: System, spelling: str) -> None:
    """Issue 11 A11: found before anything runs."""
    link = system.folder / "link"
    link.symlink_to(system.store)
    folder = spelling.format(system.store, link)
    second = execute("storage", DESTINATION="local", LOCAL_BACKUP=folder)
    system.configure(system.short(SECOND=second), STREAM="True")
    for arguments in (("-t",), ("-n",), ("-r",)):
        done = system.run(*arguments)
        assert done.returncode == 2
        assert "STORAGE_LOCAL and SECOND store in one folder" in done.stderr
    assert system.run("-t", "--skip", "SECOND").returncode == 0


def test_a_host_folder_alone_is_writable(tmp_path: Path) -> None:
    """Issue 11 A4: the marker lies in the host's folder where the store's is not writable."""
    (tmp_path / "store" / "srv").mkdir(parents=True)

    class HostOnly(local_store.LocalStore):
        def put(self, name: str, chunks: Any) -> Any:
            if not name.startswith("srv/"):
                raise PermissionError(13, "Permission denied", name)
            return super().put(name, chunks)

    target = HostOnly(tmp_path / "store")
    memory = Memory(tmp_path)
    identity = store_identity.inspect(target, "srv", "x").settle(memory, accept=False)
    assert (tmp_path / "store/srv/nc-backup-py.store.id.json").is_file()
    assert store_identity.inspect(target, "srv", "x").settle(memory, accept=False) == identity


# --- the machine


@pytest.mark.fault("two machines write under one HOSTNAME", "the first time exit 3, then exit 1")
def test_two_machines_with_one_host_name(system: System) -> None:
    """Issue 11 A4: the run warns and names both; from the second time on it fails."""
    system.configure(system.short(), STREAM="True", MACHINE_ID="machine-1")
    second = clone(system, "second", STREAM="True", MACHINE_ID="machine-2")
    assert result(system)["exit_code"] == 0
    outcome = result(second)
    assert outcome["exit_code"] == 3
    assert "machine-1" in outcome["stderr"]
    assert "machine-2" in outcome["stderr"]
    assert "HOSTNAME" in outcome["stderr"]
    assert result(second)["exit_code"] == 0  # it was the last to write
    assert "WARN" in system.run("-t").stderr
    assert result(system)["exit_code"] == 3
    before = sorted(path.name for path in (system.store / "srv-test").iterdir())
    outcome = result(second)
    assert outcome["exit_code"] == 1
    assert "--adopt-host" in outcome["stderr"]
    assert "BAD" in second.run("-t").stderr
    assert before == sorted(path.name for path in (system.store / "srv-test").iterdir())
    assert result(system)["exit_code"] == 0
    assert result(second, "--adopt-host")["exit_code"] == 0
    assert result(second)["exit_code"] == 0


def test_two_configs_of_one_machine_share_a_store_and_a_work_folder(system: System) -> None:
    """Issue 11 A4: that is no trouble at all."""
    second = clone(system, "second", STREAM="True", WORK_FOLDER=str(system.work))
    for one in (system, second, system, second):
        assert result(one)["exit_code"] == 0


@pytest.mark.parametrize("value", ["a b", "x/y", "a" * 65])
def test_a_machine_id_is_checked(system: System, value: str) -> None:
    """Issue 11 A4: MACHINE_ID in GENERAL."""
    system.configure(system.short(), MACHINE_ID=value)
    done = system.run("-t")
    assert done.returncode == 2
    assert "MACHINE_ID" in done.stderr


# --- time and run ids


@pytest.mark.needs("faketime")
@pytest.mark.fault("two configs start in one second", "each has its own run id")
@BOTH
def test_two_starts_in_one_second(system: System, stream: str) -> None:
    """Issue 11 A5 (W32): the loser takes the next id before anything runs."""
    system.configure(system.short(), STREAM=stream)
    second = clone(system, "second", STREAM=stream)
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    ids = []
    for one in (system, second, second, system):
        command = ["faketime", "-f", now, *one.command("-r", "--json")]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd="/", timeout=120
        )
        assert done.returncode == 0, done.stderr
        ids.append(json.loads(done.stdout)["run_id"])
    assert len(set(ids)) == 4
    assert not list((second.work / "encrypted").glob("*"))
    assert len(json.loads(system.restore("--list", "--json"))["runs"]) == 4


def test_an_id_that_one_store_of_two_has_is_not_taken(system: System) -> None:
    """Issue 11 A5: an id is taken only if all stores took it."""
    other = system.folder / "second"
    second = execute("storage", DESTINATION="local", LOCAL_BACKUP=str(other))
    sections = system.short(SECOND=second)
    taken = system.script("taken", "true")
    system.configure({"T": taken, **sections}, STREAM="True")
    (other / "srv-test").mkdir(parents=True)
    now = time.time()
    for ahead in range(40):
        name = time.strftime("%Y%m%d_%H%M%S", time.gmtime(now + ahead))
        (other / "srv-test" / manifest.name_of(name)).write_text("{")
    outcome = system.result()
    assert outcome["exit_code"] == 0, outcome["stderr"]
    assert outcome["run_id"] == time.strftime("%Y%m%d_%H%M%S", time.gmtime(now + 40))
    for store in (system.store, other):
        marks = list((store / "srv-test").glob("*.UNFINISHED"))
        assert not marks
        assert (store / "srv-test" / manifest.name_of(outcome["run_id"])).exists()


@pytest.mark.parametrize("text", [b"\xff\xfe", b"", b"20380101_000000", b"99999999_999999"])
def test_a_spoiled_last_run_id_stops_nothing(system: System, text: bytes) -> None:
    """Issue 11 A5: nor does one that was claimed while the clock was wrong."""
    assert result(system)["exit_code"] == 0
    (system.work / ".nc-backup-py" / "last_run_id").write_bytes(text)
    outcome = result(system)
    assert outcome["exit_code"] == 0
    assert not run_ids.in_future(outcome["run_id"])


def test_last_run_id_is_not_written_through_a_link(system: System) -> None:
    """Issue 11 C: a planted link must not overwrite another file."""
    assert result(system)["exit_code"] == 0
    victim = system.folder / "victim"
    victim.write_text("mine")
    last = system.work / ".nc-backup-py" / "last_run_id"
    last.unlink()
    last.symlink_to(victim)
    assert result(system)["exit_code"] == 0
    assert victim.read_text() == "mine"


# --- space


@pytest.mark.needs("root")
def test_little_space_in_the_store_is_said(system: System) -> None:
    """Issue 11 A11: less than twice the last run's size is left."""
    system.store.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(system.store)], check=True
    )
    try:
        (system.source / "big").write_bytes(os.urandom(2 << 20))
        assert result(system)["exit_code"] == 0
        test = system.run("-t")
        assert test.returncode == 0
        assert "WARN" in test.stderr
        assert "are free, and run" in test.stderr
        outcome = result(system)
        assert outcome["exit_code"] == 3
        assert "are free, and run" in outcome["stderr"]
        outcome = result(system)
        assert outcome["exit_code"] == 1
        assert outcome["stderr"].count("No space left on device") == 1
        assert "hint: Remove old runs there" in outcome["stderr"]
    finally:
        subprocess.run(["umount", str(system.store)], check=True)


@pytest.mark.needs("root")
@pytest.mark.parametrize("stream", ["True", "False"])
def test_a_store_that_takes_not_even_the_mark_is_named_with_a_hint(
    system: System, stream: str
) -> None:
    """Issue 11 A4: a full or read-only disk was a bare errno with the name of a temporary file."""
    system.configure(system.short(), STREAM=stream)
    system.store.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(system.store)]
    subprocess.run(mount, check=True)
    try:
        assert result(system)["exit_code"] == 0
        filled = system.store / "filled"
        with contextlib.suppress(OSError):
            filled.write_bytes(bytes(2 << 20))
        outcome = result(system)
        assert outcome["exit_code"] == 1
        assert f"{system.store}: No space left on device" in outcome["stderr"]
        assert "hint: Remove old runs there" in outcome["stderr"]
        filled.unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(system.store)], check=True)
        outcome = result(system)
        assert outcome["exit_code"] == 1
        assert f"{system.store}: Read-only file system" in outcome["stderr"]
        assert "hint: Look at the kernel log" in outcome["stderr"]
        assert "read-only file system" in system.run("-t").stderr
    finally:
        subprocess.run(["umount", str(system.store)], check=True)


def test_a_store_on_the_disk_of_the_work_folder_is_noted_when_streamed(system: System) -> None:
    """Issue 11 A11."""
    sections = {entry["name"]: entry for entry in result(system)["sections"]}
    assert "same disk as WORK_FOLDER" in sections["STORAGE_LOCAL"]["message"]


# --- what is written to a store


def test_everything_that_is_stored_is_masked(system: System) -> None:
    """Issue 11 C (B6): warnings that a module of the user's own gives."""
    text = 'echo data; echo \'{"status": "incomplete", "message": "m", "warnings": '
    text += '["login with hunter2secret failed"]}\' > "$NC_BACKUP_RESULT"'
    section = system.script("own", text, "source")
    section["PARAMETERS"] = {"PASSWORD": "hunter2secret"}
    system.configure({"OWN": section, **system.short()}, STREAM="True")
    assert result(system)["exit_code"] == 3
    texts = [
        path.read_text() for path in (system.store / "srv-test").iterdir()
        if path.suffix in (".json", ".txt")
    ]  # fmt: skip
    assert len(texts) == 2
    assert all("login with ***" in text and "hunter2secret" not in text for text in texts)


class _Closed(MemoryStore):
    """A store that this user may not read."""

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        raise PermissionError(13, "Permission denied", f"/store/{name}")


def test_a_marker_that_cannot_be_read() -> None:
    """Issue 13 A6: the file and the system's words, and not "[Errno 13]"."""
    with pytest.raises(StoreError) as caught:
        store_identity.inspect(_Closed(), "srv", "key")
    assert str(caught.value) == f"/store/{store_identity.MARKER}: permission denied"
    assert "read and write the store" in caught.value.hint
    error = PermissionError(13, "Permission denied", "/store/a")
    assert explained(error, _Closed())[0] == "/store/a: permission denied"


def test_a_further_host_of_a_store_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Many machines share one bucket; a machine that has forgotten its store is another matter."""
    target = MemoryStore()
    store_identity.inspect(target, "srv", "key").settle(Memory(None), accept=False)
    store_object(target, "srv/x", [b"content"])
    store_identity.inspect(target, "other", "key").settle(Memory(None), accept=False)
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
    store_identity.inspect(target, "srv", "key").settle(Memory(None), accept=False)
    assert "did not know it yet" in caplog.text


@pytest.mark.parametrize("fails", [{"get"}, {"get", "entries"}])
def test_a_store_that_fails_for_a_moment_has_not_lost_its_marker(fails: set[str]) -> None:
    """A second marker would be a second store; "is its disk mounted?" would be untrue."""
    target = MemoryStore()
    memory = Memory(None)
    store_identity.inspect(target, "srv", "key").settle(memory, accept=False)

    def fault(call: str, name: str) -> None:
        if call in fails:
            raise TransientError(f"{name}: connection reset")

    target.fault = fault
    with pytest.raises(TransientError, match="connection reset"):
        store_identity.inspect(target, "srv", "key")
