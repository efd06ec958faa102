from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from storage import local_store, storage
from storage.keys import Address
from tests.system import System, module_output, spawning
from tools import filesystem_handling
from tools.base.errors import ConfigError, StoreError, TransientError
from tools.base.result import Status
from tools.flow import store
from tools.flow.store import StoredObject
from tools.modules import work_folder
from tools.modules.options import Duration


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    (folder / "encrypted").mkdir(parents=True)
    for number in range(3):
        (folder / f"encrypted/x.tar.zst.age.{number:03}").write_bytes(bytes([number]) * 1000)
    return folder


def arguments(work: Path, *more: object) -> list[object]:
    store = work.parent / "store"
    return ["--WORK_FOLDER", work, "--HOSTNAME", "srv-1", "--LOCAL_BACKUP", store, *more]


def command(work: Path, *more: object) -> list[str]:
    return spawning("storage", *arguments(work, *more))


def run(work: Path, *more: object, code: int = 0, **environment: str) -> str:
    return module_output("storage", *arguments(work, *more), code=code, **environment)


def stored(work: Path) -> list[str]:
    folder = work.parent / "store/srv-1"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_parts_are_stored_and_alone_the_sources_go(work: Path) -> None:
    run(work)
    assert stored(work) == [f"x.tar.zst.age.{n:03}" for n in range(3)]
    assert list((work / "encrypted").iterdir()) == []
    assert (work.parent / "store/srv-1").stat().st_mode & 0o077 == 0


def test_in_a_run_the_sources_stay_for_the_runner(work: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    run(work, NC_BACKUP_RUN_ID="20261123_030000", NC_BACKUP_RESULT=str(result))
    assert len(list((work / "encrypted").iterdir())) == 3
    assert str(work / "encrypted/x.tar.zst.age.000") in result.read_text()


def test_a_set_with_a_gap_is_not_stored_and_the_others_are(work: Path) -> None:
    (work / "encrypted/y.tar.gz.crypt.000").write_bytes(b"y")
    (work / "encrypted/x.tar.zst.age.000").unlink()
    assert "x.tar.zst.age.000 is missing" in run(work, code=1)
    assert stored(work) == ["y.tar.gz.crypt.000"]
    assert len(list((work / "encrypted").iterdir())) == 3


def test_sets_are_whole_or_named_and_in_numeric_order() -> None:
    sets, troubles = work_folder.complete_sets([Path(f"x.age.{n:03}") for n in (1000, 0, 999, 1)])
    assert sets == []
    assert troubles == ["x.age.002 is missing; the other parts of this backup were not stored"]
    sets, _ = work_folder.complete_sets([Path(f"x.age.{n:03}") for n in reversed(range(1002))])
    assert [path.name for path in sets[0][998:1002]] == [
        "x.age.998", "x.age.999", "x.age.1000", "x.age.1001",
    ]  # fmt: skip


def test_another_content_under_a_name_that_is_taken(work: Path) -> None:
    folder = work.parent / "store/srv-1"
    folder.mkdir(parents=True)
    (folder / "x.tar.zst.age.001").write_bytes(b"older")
    assert "file exists with different content" in run(work, code=1)
    assert (folder / "x.tar.zst.age.001").read_bytes() == b"older"
    assert "x.tar.zst.age.000" not in stored(work)
    assert len(list((work / "encrypted").iterdir())) == 3


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (("--DESTINATION", "gcs"), 2, "DESTINATION: gcs: unknown type of store"),
        (("--DESTINATION", "ssh"), 2, "HOST is required with DESTINATION ssh"),
        (("--DESTINATION", "s3"), 2, "BUCKET_NAME is required with DESTINATION s3"),
        (("--LOCAL_BACKUP", ""), 2, "LOCAL_BACKUP"),
        (("--HOSTNAME", "a/b"), 2, "HOSTNAME"),
        (("--HOSTNAME", "x" * 201), 2, "HOSTNAME: too long for a folder name"),
        (("--TARGETS", "/not/there"), 1, "TARGETS: /not/there: no such file or directory"),
        (("--MARKER", "mounted"), 1, "mounted: no such file (MARKER)"),
        (("--REQUIRE_MOUNT", "True", "--LOCAL_BACKUP", "/opt/x"), 1, "is not mounted"),
    ],
)
def test_bad_input_is_named(work: Path, more: tuple[str, ...], code: int, says: str) -> None:
    assert says in run(work, *more, code=code)
    assert stored(work) == []
    assert len(list((work / "encrypted").iterdir())) == 3


def test_nothing_to_store_is_a_failure(work: Path) -> None:
    for path in (work / "encrypted").iterdir():
        path.unlink()
    assert "no files to store" in run(work, code=1)


@pytest.mark.needs("root")
@pytest.mark.parametrize("options", ["size=64k", "size=1m,nr_inodes=4", "ro"])
def test_a_full_or_read_only_disk_harms_nothing_that_is_stored(work: Path, options: str) -> None:
    folder = work.parent / "store"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    try:
        (folder / "srv-1").mkdir()
        (folder / "srv-1/older").write_bytes(b"older")
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
        (work / "encrypted/x.tar.zst.age.001").write_bytes(bytes(200_000))
        output = run(work, code=1)
        assert str(folder) in output
        assert (folder / "srv-1/older").read_bytes() == b"older"
        assert "x.tar.zst.age.000" not in stored(work)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert len(list((work / "encrypted").iterdir())) == 3


def local(work: Path) -> local_store.Options:
    return local_store.Options(
        hostname="srv-1",
        local_backup=work.parent / "store",
        work_folder=work,
        retry_wait=Duration(0.0),
    )


def test_a_failed_sync_is_never_synced_again_but_written_anew(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = os.fsync
    failed: list[Path] = []

    def fsync(descriptor: int) -> None:
        if not failed:
            failed.append(Path(f"/proc/self/fd/{descriptor}").resolve())
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        assert Path(f"/proc/self/fd/{descriptor}").resolve() != failed[0]
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert storage.work(local(work)).status is Status.OK
    output = capsys.readouterr().err
    assert "attempt 1 of 5 failed" in output
    assert "input/output error" in output
    assert stored(work) == [f"x.tar.zst.age.{n:03}" for n in range(3)]


@pytest.mark.parametrize("step", range(9))
def test_killed_while_storing_leaves_no_half_part_and_the_next_run_stores_all(
    work: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    child = os.fork()
    if child == 0:
        steps = itertools.count()

        def deadly(function: Callable[..., None]) -> Callable[..., None]:
            def counted(*parameters: Any) -> None:
                if next(steps) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                function(*parameters)

            return counted

        monkeypatch.setattr(os, "fsync", deadly(os.fsync))
        for name in ("write_all", "publish"):
            real = getattr(filesystem_handling, name)
            monkeypatch.setattr(filesystem_handling, name, deadly(real))
        storage.work(local(work))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    for name in stored(work):
        assert name.startswith(".") or (work.parent / "store/srv-1" / name).stat().st_size == 1000
    assert storage.work(local(work)).status is Status.OK
    assert [name for name in stored(work) if not name.startswith(".")] == [
        f"x.tar.zst.age.{n:03}" for n in range(3)
    ]


def test_terminated_while_storing_leaves_no_temporary_file(work: Path) -> None:
    with (work / "encrypted/x.tar.zst.age.001").open("wb") as file:
        file.truncate(4 << 30)
    process = subprocess.Popen(command(work), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while not stored(work) and time.monotonic() < until:
        time.sleep(0.01)
    process.terminate()
    assert process.wait(30) in (143, 0)
    assert not [name for name in stored(work) if name.startswith(".")]


def inject(work: Path, how: str, *more: str, only: str = "") -> subprocess.CompletedProcess[str]:
    """Run the program under strace, which makes one of its system calls fail or lie."""
    call = how.split(":", 1)[0]
    trace = ["strace", "-f", "-o", str(work.parent / "trace"), "-e", f"trace={call}"]
    path = ["-P", only] if only else []
    return subprocess.run(
        [*trace, *path, "-e", f"inject={how}", *command(work, *more)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_write_that_lies_is_found_before_the_part_has_its_name(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem_handling, "write_all", lambda _descriptor, _block: None)
    result = storage.work(local(work))
    assert result.status is Status.FAILED
    assert re.search(r"x\.tar\.zst\.age\.00\d: read-back mismatch", result.message)
    assert stored(work) == []
    assert len(list((work / "encrypted").iterdir())) == 3


@pytest.mark.needs("strace")
def test_a_source_that_cannot_be_read_is_named_and_not_the_store(work: Path) -> None:
    source = work / "encrypted/x.tar.zst.age.001"
    done = inject(work, "read:error=EIO:when=1+", "--RETRY_WAIT", "0.01", only=str(source))
    assert done.returncode == 1
    assert f"{source}: input/output error" in done.stderr
    assert str(work.parent / "store/srv-1/x") not in done.stderr
    assert stored(work) == []


def test_a_set_that_fails_does_not_hide_the_others(work: Path) -> None:
    (work / "encrypted/a").write_bytes(b"a")
    (work / "encrypted/y.crypt.001").write_bytes(b"no first part")
    (work / "encrypted/z").write_bytes(b"z")
    folder = work.parent / "store/srv-1"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(b"older")
    output = run(work, code=1)
    assert "a: file exists with different content" in output
    assert "y.crypt.000 is missing" in output
    assert stored(work) == ["a", *(f"x.tar.zst.age.{n:03}" for n in range(3)), "z"]
    assert len(list((work / "encrypted").iterdir())) == 6


def test_a_file_that_is_called_like_a_set_is_stored_too(work: Path) -> None:
    for name in ("x.tar.zst.age", "x.tar.zst.age.0001"):
        (work / "encrypted" / name).write_bytes(b"alone")
    run(work)
    names = [*(f"x.tar.zst.age.{n:03}" for n in range(3)), "x.tar.zst.age", "x.tar.zst.age.0001"]
    assert stored(work) == sorted(names)
    assert list((work / "encrypted").iterdir()) == []


def test_odd_names_are_stored_and_hidden_ones_are_not(work: Path) -> None:
    names = [b"a b", b"new\nline", b"-rf", b"quo'te\"", b"\xff\xfe", b"$(id)"]
    for name in [*names, b".hidden", b".x.part-12345678"]:
        (work / "encrypted" / os.fsdecode(name)).write_bytes(name)
    run(work)
    folder = work.parent / "store/srv-1"
    for name in names:
        assert (folder / os.fsdecode(name)).read_bytes() == name
    assert sorted(path.name for path in (work / "encrypted").iterdir()) == [
        ".hidden",
        ".x.part-12345678",
    ]
    assert not [name for name in stored(work) if name.startswith(".")]


def test_a_trouble_with_an_odd_name_is_said(work: Path) -> None:
    (work / "encrypted" / os.fsdecode(b"\xff.age.001")).write_bytes(b"x")
    assert ".age.000 is missing" in run(work, code=1)


def test_the_first_part_comes_last(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[str] = []
    inner = local_store.LocalStore(work.parent / "store")

    def watched(names: list[str]) -> None:
        published.extend(names)
        type(inner).publish(inner, names)

    monkeypatch.setattr(inner, "publish", watched)
    monkeypatch.setattr(local_store, "open_store", lambda _options: inner)
    options = local_store.Options(
        hostname="h", local_backup=work.parent / "store", work_folder=work, remove_targets=False
    )
    assert storage.work(options).items == 3
    assert published == [f"h/x.tar.zst.age.{n:03}" for n in (1, 2, 0)]


@pytest.mark.needs("root")
def test_a_mounted_disk_with_its_marker_is_taken_and_named_as_another_disk(work: Path) -> None:
    folder = work.parent / "store"
    folder.mkdir()
    proof = ("--REQUIRE_MOUNT", "True", "--MARKER", "this-disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    try:
        assert "this-disk: no such file" in run(work, *proof, code=1)
        (folder / "this-disk").touch()
        assert "same disk as WORK_FOLDER" not in run(work, *proof)
        assert stored(work) == [f"x.tar.zst.age.{n:03}" for n in range(3)]
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_store_on_the_disk_of_its_sources_is_noted(work: Path) -> None:
    assert "same disk as WORK_FOLDER" in run(work)


def test_what_is_tried_before_a_run_changes_nothing(work: Path) -> None:
    options = local_store.Options(hostname="h", local_backup=work / "new/store", work_folder=work)
    assert "is writable" in str(storage.test(options)[0])
    assert not (work / "new").exists()
    nowhere = local_store.Options(hostname="h", local_backup=Path("/proc/self/status/x"))
    with pytest.raises(StoreError, match="is not writable"):
        storage.test(nowhere)


@pytest.mark.fault("a store fails four times for a moment, in both modes", "five attempts in all")
@pytest.mark.parametrize("mode", ["staged", "streamed"])
@pytest.mark.parametrize(("failures", "good"), [(4, True), (5, False)])
def test_every_store_has_five_attempts(
    work: Path, monkeypatch: pytest.MonkeyPatch, mode: str, failures: int, good: bool
) -> None:
    """Issue 13 A4: one retrying store around every store, in both modes."""
    failures_left = failures

    class Busy(local_store.LocalStore):
        def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
            nonlocal failures_left
            failures_left -= 1
            if failures_left >= 0:
                raise TransientError("busy")
            return super().put(name, chunks)

    options = local_store.Options(
        hostname="h", local_backup=work / "store", work_folder=work, retry_wait=Duration(0.0)
    )
    monkeypatch.setattr(local_store, "open_store", lambda opened: Busy(opened.folder))
    monkeypatch.setenv("NC_BACKUP_RUN_ID", "20261123_030000")
    if mode == "staged":
        assert storage.work(options).status is (Status.OK if good else Status.FAILED)
        return
    with contextlib.nullcontext() if good else pytest.raises(TransientError, match="busy"):
        storage.open_store(options).put("h/a", iter([b"a", b"b"]))


@pytest.mark.fault("a disk fails for a moment in a streamed run", "tried again; exit 0")
@pytest.mark.needs("strace")
def test_a_streamed_run_tries_again(system: System) -> None:
    """Issue 12, 5: the documented five attempts were made in staged runs only."""
    (system.source / "file").write_bytes(os.urandom(3000))
    sections = system.full_sections()
    sections["STORAGE_LOCAL"]["PARAMETERS"] = {"DESTINATION": "local", "RETRY_WAIT": "0.01"}
    system.configure(sections, STREAM="True")
    command = ["strace", "-f", "-o", str(system.folder / "trace"), "-e", "trace=fdatasync"]
    command += ["-e", "inject=fdatasync:error=EIO:when=1..9+2"]  # every other of the first ten
    done = subprocess.run(
        [*command, *system.command("-r")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    log = system.log.read_text()
    assert re.search(r"WARNING - .*FILESET.*000: attempt 1 of 5 failed: .*input/output", log), log
    out = system.restored()
    assert (out / "FILESET" / system.source.relative_to("/") / "file").stat().st_size == 3000


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("bucket", ("bucket", "", "", None)),
        ("bucket/a b/50%/", ("bucket", "a b/50%", "", None)),
        ("me@host:22/srv/x", ("host", "srv/x", "me", 22)),
        ("[::1]:2222/x", ("::1", "x", "", 2222)),
        ("/srv/backup", ("", "srv/backup", "", None)),
    ],
)
def test_the_address_of_a_store(text: str, parts: tuple[object, ...]) -> None:
    address = Address.parse(text)
    assert (address.host, address.path, address.user, address.port) == parts


@pytest.mark.parametrize("text", ["me:secret@host/x", "a@b@c/x", "host:port/x", "[zz]/x"])
def test_an_address_with_a_password_is_rejected_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Address.parse(text)
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_an_object_that_goes_during_a_listing_is_left_out(tmp_path: Path) -> None:
    """Clean-up works while runs and restores list the store."""
    target = local_store.LocalStore(tmp_path)
    for name in ("a", "b", "c"):
        store.store_object(target, f"h/{name}", [b"x"])
    listing = target.entries("h")
    assert next(listing).name == "h/a"
    target.remove(["h/b"])
    assert [entry.name for entry in listing] == ["h/c"]
