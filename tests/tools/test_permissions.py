"""Folders and files that another user owns, can write or has planted (issue 11 C)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import System, execute
from tools.base import permissions
from tools.engine import state

NOBODY = 65534  # a user with a group of its own, on every system
pytestmark = pytest.mark.needs("root")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that an ordinary user can reach."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def as_user(number: int, path: Path) -> str:
    """What `of_secret` says to a user of this number; "" where it finds no problem."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(number)
        os.setuid(number)
        os.write(writing, str(permissions.of_secret(path) or "").encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as file:
        return file.read()


@pytest.mark.parametrize(
    ("owner", "group", "mode"),
    [(0, NOBODY, 0o640), (NOBODY, NOBODY, 0o600), (NOBODY, 0, 0o600)],
)
def test_one_layout_serves_the_run_and_roots_restore(
    folder: Path, owner: int, group: int, mode: int
) -> None:
    """Issue 11 E: /etc/nc-backup-py root:ncbackup 0750, key files root:ncbackup or ncbackup."""
    os.chown(folder, 0, NOBODY)
    folder.chmod(0o750)
    key = folder / "key"
    key.write_text("x")
    os.chown(key, owner, group)
    key.chmod(mode)
    assert permissions.of_secret(key) is None
    assert as_user(NOBODY, key) == ""


def test_a_private_folder_that_root_made_is_named(folder: Path) -> None:
    """The check was clean, and each run failed with "permission denied"."""
    private = state.folder(folder)
    assert state.problem(folder) is None
    try:
        os.seteuid(54321)
        closed = state.problem(folder)
        hint = closed.hint_or_accept if closed else ""
    finally:
        os.seteuid(0)
    assert closed is not None
    assert str(closed) == f"{private} belongs to root"
    assert closed.commands == (f"chown -R 54321 {private}",)
    assert hint == closed.commands[0]  # --insecure-permissions would not help


def test_the_fix_leaves_the_file_to_the_user_of_the_backup(folder: Path) -> None:
    """Issue 11 E: what a hint says, followed to the letter, serves both users."""
    os.chown(folder, 0, NOBODY)
    folder.chmod(0o750)
    for owner, group, mode in ((0, 0, 0o644), (0, NOBODY, 0o644), (12345, 0, 0o600)):
        key = folder / f"key{owner}{group}"
        key.write_text("x")
        os.chown(key, owner, group)
        key.chmod(mode)
        for _ in range(2):
            problem = permissions.of_secret(key)
            if problem is not None:
                command = problem.fix
                subprocess.run(["sh", "-c", command], check=True)
        assert permissions.of_secret(key) is None
        assert owner or as_user(0 if group == 0 else NOBODY, key) == ""


def test_closing_a_file_to_others_takes_nothing_from_its_group(folder: Path) -> None:
    """Issue 12, 9: chmod 0600 would stop a nightly run that reads the file by its group."""
    key = folder / "key"
    key.write_text("x")
    os.chown(key, 0, 12345)
    key.chmod(0o644)
    problem = permissions.exposed(key)
    assert problem is not None
    assert problem.fix == f"chmod o-rwx {key}"
    subprocess.run(["sh", "-c", problem.fix], check=True)
    assert key.stat().st_mode & 0o777 == 0o640
    assert permissions.exposed(key) is None


def test_a_config_of_the_backups_user_is_kept_readable_for_it(folder: Path) -> None:
    """Issue 11 E: the hint for root never takes the config from the nightly run."""
    os.chown(folder, NOBODY, NOBODY)
    folder.chmod(0o700)
    conf = folder / "conf.json"
    conf.write_text("{}")
    os.chown(conf, NOBODY, NOBODY)
    conf.chmod(0o600)
    for _ in range(2):
        problem = permissions.of_code(conf)
        assert problem is not None
        assert "root:nogroup" in problem.fix or "root:nobody" in problem.fix
        subprocess.run(["sh", "-c", problem.fix], check=True)
    assert permissions.of_code(conf) is None
    assert subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "cat", str(conf)],
        check=True, capture_output=True,
    ).stdout == b"{}"  # fmt: skip


def test_a_folder_above_is_given_away_by_no_hint(folder: Path) -> None:
    """Issue 11 E: another user's home directory stays that user's."""
    subfolder = folder / "a/b"
    subfolder.mkdir(parents=True)
    key = subfolder / "key"
    key.write_text("x")
    key.chmod(0o600)
    os.chown(folder, 12345, 12345)
    problem = permissions.of_secret(key)
    assert problem is not None
    assert problem.path == folder
    assert problem.hint.startswith(f"Move {key}")


@pytest.mark.parametrize("change", ["owner", "mode", "state", "link"])
def test_a_work_folder_of_another_user_is_refused(system: System, change: str) -> None:
    """Issue 11 C: in -r (exit code 2, nothing touched) and in -t."""
    system.module("good", "print('fine')")
    system.configure({"A": execute("good")})
    state = system.work / ".nc-backup-py"
    precious = system.folder / "precious"
    precious.mkdir()
    state.mkdir(parents=True) if change != "link" else system.work.mkdir()
    if change == "owner":
        os.chown(system.work, 12345, 12345)
    elif change == "mode":
        system.work.chmod(0o777)
    elif change == "state":
        os.chown(state, 12345, 12345)
    else:
        state.symlink_to(precious)
    named = system.work if change in ("owner", "mode") else state
    done = system.run("-r")
    assert done.returncode == 2
    assert f"WORK_FOLDER: {named} " in done.stderr
    assert "hint: " in done.stderr
    assert list(precious.iterdir()) == []
    tested = system.run("-t")
    assert tested.returncode == 1
    assert f"BAD  GENERAL: WORK_FOLDER: {named} " in tested.stdout + tested.stderr
    if change != "link":
        assert system.run("-r", "--insecure-permissions").returncode == 0


def test_a_log_folder_of_another_user_is_refused(system: System) -> None:
    """Issue 11 C."""
    system.module("good", "print('fine')")
    system.configure({"A": execute("good")})
    os.chown(system.log.parent, 12345, 12345)
    done = system.run("-r")
    assert done.returncode == 2
    assert f"LOG_FOLDER: {system.log.parent} belongs to 12345" in done.stderr


@pytest.mark.parametrize("name", ["last_run_id", "lock", "last_run_id.lock"])
def test_no_file_of_the_run_is_opened_through_a_link(system: System, name: str) -> None:
    """Issue 11 C: a planted link overwrites nothing."""
    system.module("good", "print('fine')")
    system.configure({"A": execute("good")})
    precious = system.folder / "precious"
    precious.write_text("dear diary")
    state = system.work / ".nc-backup-py"
    state.mkdir(parents=True)
    (state / name).symlink_to(precious)
    done = system.run("-r")
    if name == "last_run_id":  # replaced, not followed
        assert done.returncode == 0
    else:
        assert done.returncode == 1
        assert f"{state / name}: is a symbolic link: remove it" in done.stderr
    assert "Traceback" not in done.stderr
    assert precious.read_text() == "dear diary"


def test_the_log_is_not_written_through_a_link(system: System) -> None:
    """Issue 11 C: said, and the run goes on."""
    system.module("good", "print('fine')")
    system.configure({"A": execute("good")})
    precious = system.folder / "precious"
    precious.write_text("dear diary")
    system.log.symlink_to(precious)
    done = system.run("-r")
    assert done.returncode == 0
    assert "is a symbolic link" in done.stderr
    assert precious.read_text() == "dear diary"


def test_a_file_that_a_secret_refers_to(system: System) -> None:
    """Issue 11 C: who could replace a passphrase could read the backups after that."""
    (system.source / "a").write_text("a")
    passphrase = system.folder / "passphrase"
    passphrase.write_text("a good one")
    sections = system.full_sections()
    sections["ENCRYPTION"]["PARAMETERS"] = {"PASSPHRASE": f"file:{passphrase}"}
    system.configure(sections)
    assert system.run("-r").returncode == 0
    os.chown(passphrase, 12345, 12345)
    done = system.run("-r")
    assert done.returncode != 0
    assert f"secret file:{passphrase}: {passphrase} belongs to 12345" in done.stderr


def test_running_as_root_is_said_each_time(system: System) -> None:
    """Issue 11 C: ALLOW_ROOT is no silent switch."""
    system.module("good", "print('fine')")
    system.configure({"A": execute("good")})
    assert system.run("-r").returncode == 0
    assert "WARNING - running as root, as ALLOW_ROOT says" in system.log.read_text()
    tested = system.run("-t")
    assert tested.returncode == 0
    assert "WARN GENERAL: running as root" in tested.stdout + tested.stderr
