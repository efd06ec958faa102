"""What `-t` says of accounts and clocks: by servers that enforce their policies."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from storage import account_checks, local_checks, s3_checks
from storage.s3_blocks import S3Blocks
from tests import s3_servers
from tests.s3_servers import GUARDED
from tests.sshd import sshd
from tests.storage import s3_stores
from tools import os_works
from tools.base.errors import StoreError
from tools.base.finding import Finding, Level

NAME = account_checks.name_in("srv-test")


def blocks(policy: str) -> S3Blocks:
    client = s3_stores.client(s3_servers.guarded(policy), prefix=GUARDED, hostname="srv-test")
    return S3Blocks(client, s3_stores.PART)


def levels(backend: S3Blocks) -> list[Level]:
    return [one.level for one in account_checks.of_bucket(backend, "srv-test")]


def test_who_may_only_add_is_append_only_and_leaves_nothing() -> None:
    adding = blocks("add-only")
    texts = [one.text for one in account_checks.of_bucket(adding, "srv-test")]
    assert texts[0].endswith(": objects can be written")
    assert ": append-only: this account cannot remove objects" in texts[1]
    assert NAME not in {one.name for one in adding.entries("srv-test")}
    assert NAME not in {one.upload.name for one in adding.uploads("srv-test")}


def test_who_cleans_up_may_remove_and_not_write() -> None:
    assert levels(blocks("clean-up")) == [Level.BAD, Level.OK]
    assert blocks("clean-up").removal.allowed(NAME)
    assert not blocks("add-only").removal.allowed(NAME)


def test_the_clock_of_a_server_is_its_date() -> None:
    backend = blocks("add-only")
    assert backend.client.ahead is None
    next(iter(backend.entries("srv-test")), None)
    assert backend.client.ahead is not None
    assert abs(backend.client.ahead) < 30


@pytest.mark.parametrize(
    ("ahead", "level", "says"),
    [
        (None, None, ""),
        (-170.0, Level.OK, "agree"),
        (240.0, Level.BAD, "its clock is 4 min 00 s ahead of that of this machine"),
        (-90_000.0, Level.BAD, "behind that of this machine"),
    ],
)
def test_clocks_that_differ(ahead: float | None, level: Level | None, says: str) -> None:
    findings = list(account_checks.clock("s3://b", ahead))
    assert [one.level for one in findings] == ([level] if level else [])
    assert all(says in one.text for one in findings)
    assert all(one.hint for one in findings if one.level is Level.BAD)


def test_the_date_of_an_answer_is_compared(bad_date: S3Blocks) -> None:
    clock = [one for one in s3_checks.tested(bad_date) if "clock" in one.text]
    assert [one.level for one in clock] == [Level.BAD]


@pytest.fixture
def bad_date(monkeypatch: pytest.MonkeyPatch) -> S3Blocks:
    """A bucket of a server, seen by a machine whose clock is ten minutes slow."""
    backend = blocks("add-only")
    now = time.time
    monkeypatch.setattr("storage.s3_client.time.time", lambda: now() - 600)
    return backend


def test_a_local_store(tmp_path: Path) -> None:
    (tmp_path / "srv").mkdir()
    before = tmp_path.stat().st_mtime_ns
    first, rights, clock = local_checks.tested(tmp_path, "srv")
    assert isinstance(first, str)
    assert "is writable, " in first
    assert isinstance(rights, Finding)
    assert "objects can be removed" in rights.text
    assert isinstance(clock, Finding)
    assert clock.level is Level.OK
    assert list((tmp_path / "srv").iterdir()) == []
    assert tmp_path.stat().st_mtime_ns == before


@pytest.mark.needs("root", "chattr")
def test_an_append_only_folder_gets_one_file_at_most(tmp_path: Path) -> None:
    folder = tmp_path / "srv"
    folder.mkdir()
    if subprocess.run(["chattr", "+a", folder], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no attributes")
    try:
        for _ in range(2):
            rights = list(local_checks.tested(tmp_path, "srv"))[1]
            assert isinstance(rights, Finding)
            assert "append-only" in rights.text
            assert len(list(folder.iterdir())) == 1
    finally:
        subprocess.run(["chattr", "-a", folder], check=True)


@pytest.mark.needs("sshd")
def test_an_append_only_server(tmp_path: Path) -> None:
    """It denies every name that is no temporary one; another server says that it is not there."""
    server = sshd()
    (server.folder / "kept").mkdir(exist_ok=True)
    assert not server.store(server.folder / "kept", "append only").may_remove("srv")
    assert server.store(tmp_path).may_remove("srv")


def test_a_disk_that_was_just_mounted_is_given_to_the_user_of_the_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount point and its owner, root, are played; a folder that is no disk gets no command."""
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    monkeypatch.setattr(os_works, "user", lambda: "ncbackup")
    monkeypatch.setattr(os.path, "ismount", lambda path: path == Path("/"))
    for folder, command in ((Path("/"), "chown ncbackup: /"), (tmp_path, "")):
        with pytest.raises(StoreError, match="not writable") as error:
            list(local_checks.tested(folder, "srv-test"))
        assert error.value.fix.removeprefix("sudo ") == command
        assert error.value.hint.endswith(command or "write to it.")
