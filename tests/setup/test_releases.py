"""Releases: built whole or not at all, switched at once, the one before kept."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tools import filesystem_handling
from tools.base import project, release_lock
from tools.base.errors import BackupError, ConfigError
from tools.setup import environment, locked_packages, releases, steps
from tools.setup.installation import CODE, RELEASES, Installation


class Machine:
    """A prefix, and a clone whose version changes. An environment is a file here."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clone, self.prefix = folder / "clone", folder / "prefix"
        self.prefix.mkdir()
        (self.clone / "tools").mkdir(parents=True)
        (self.clone / ".git").mkdir()
        (self.clone / "tests").mkdir()
        (self.clone / ".git/secret").write_text("x")
        (self.clone / "tests/test_a.py").write_text("x")
        (self.clone / "backup.py").write_text("x")
        (self.clone / "backup.py").chmod(0o744)
        self.installed = Installation(self.clone, Path("/"), self.prefix)
        self.fail: BaseException | None = None
        self.clock = datetime(2026, 1, 1, tzinfo=timezone.utc)
        self.write("1.0")
        monkeypatch.setattr(locked_packages, "install", self._install)
        monkeypatch.setattr(locked_packages, "works", lambda one: (one / ".venv/good").exists())
        monkeypatch.setattr(releases, "_name", self._name)

    def _install(self, _installation: object, part: Path, *_more: object) -> None:
        (part / ".venv").mkdir()
        if self.fail is not None:
            raise self.fail
        (part / ".venv/good").touch()

    def _name(self, _folder: Path, version: str) -> tuple[str, str]:
        self.clock += timedelta(days=1)
        when = self.clock.strftime(releases._TIME)
        return f"{version}-{when}", when

    def write(self, version: str) -> None:
        """Another version of the code."""
        (self.clone / "pyproject.toml").write_text(f'version = "{version}"\n')

    def install(self, version: str = "") -> int:
        """Install; return the number of steps."""
        if version:
            self.write(version)
        self.at(RELEASES).mkdir(parents=True, exist_ok=True)
        return steps.perform(releases.steps(self.installed))

    def rollback(self) -> None:
        steps.perform(releases.rollback(self.installed))

    def at(self, path: str) -> Path:
        return self.installed.at(path)

    def versions(self) -> list[str]:
        return [one.version for one in releases.installed(self.installed)]

    def current(self) -> str:
        now = releases.current(self.installed)
        assert now is not None
        return now.version

    def in_var_lib(self) -> list[str]:
        return sorted(path.name for path in self.at("/var/lib").iterdir())

    def hidden(self) -> list[Path]:
        return list(self.at(RELEASES).glob(".*"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_upgrade_keeps_the_release_before_and_rollback_goes_back_to_it(machine: Machine) -> None:
    assert machine.install("1.0") == 2
    assert machine.install() == 0
    assert machine.install("1.1") == 2
    assert machine.install("1.2") == 3
    assert (machine.versions(), machine.current()) == (["1.1", "1.2"], "1.2")
    machine.rollback()
    assert machine.current() == "1.1"
    with pytest.raises(ConfigError, match=r"no earlier release than 1\.1"):
        machine.rollback()
    assert machine.install() == 1  # forward again: only the link is switched
    assert (machine.versions(), machine.current()) == (["1.1", "1.2"], "1.2")
    machine.rollback()
    machine.install("1.3")
    assert machine.versions() == ["1.1", "1.3"]  # not 1.2, which was taken back


@pytest.mark.fault(
    "setup.py cannot read the record of the current release for a moment",
    "an error; user-defined modules are not left out of the new release",
)
def test_a_record_that_cannot_be_read(machine: Machine) -> None:
    machine.install("1.0")
    record = next(machine.at(RELEASES).iterdir()) / "release.json"
    content = record.read_bytes()
    record.unlink()
    record.symlink_to(record.name)
    with pytest.raises(OSError, match="symbolic links"):
        machine.install("1.1")
    record.unlink()
    record.write_bytes(content)
    lock = record.with_name(release_lock.LOCK)
    lock.unlink()
    lock.symlink_to(lock.name)
    with pytest.raises(OSError, match="symbolic links"):
        release_lock.is_held(str(record.parent))
    assert (machine.versions(), machine.current()) == (["1.0"], "1.0")


def test_a_release_stays_while_a_process_runs_from_it(machine: Machine) -> None:
    machine.install("1.0")
    release = machine.at(CODE).parent / "nc-backup-py-releases/1.0-20260102T000000Z"
    code = (
        f"import sys; sys.path[0] = {str(project.ROOT)!r}; from tools.base import release_lock; "
        f"release_lock.hold({str(release)!r}); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"\n"
        machine.install("1.1")
        machine.install("1.2")
        assert machine.versions() == ["1.0", "1.1", "1.2"]
    machine.install("1.3")
    assert machine.versions() == ["1.2", "1.3"]


def test_a_release_holds_the_code_alone_and_nobody_can_change_it(machine: Machine) -> None:
    os.umask(0o022)
    (machine.clone / "tools/open.py").write_text("x")
    (machine.clone / "tools/open.py").chmod(0o666)
    (machine.clone / "tools/link.py").symlink_to("/etc/passwd")
    machine.install()
    link = machine.at(CODE)
    release = machine.at(str(link.readlink()))
    assert link.readlink().parent == Path(RELEASES)
    names = {str(path.relative_to(release)) for path in release.rglob("*") if path.is_file()}
    assert names == {"backup.py", "pyproject.toml", "tools/open.py", ".venv/good"} | {
        "release.json",
        "release.lock",
    }
    modes = {path.name: path.stat().st_mode & 0o777 for path in release.rglob("*")}
    assert modes.pop("backup.py") == modes.pop("tools") == modes.pop(".venv") == 0o755
    assert modes.pop("release.lock") == 0o640  # nobody else can hold it
    assert set(modes.values()) == {0o644}


def test_the_lock_of_a_release_is_not_for_every_user(machine: Machine) -> None:
    """A record, which everybody can read and so lock for ever, keeps a few releases alone."""
    machine.install("1.0")
    release = str(next(machine.at(RELEASES).iterdir()))
    for name, held in ((release_lock.RECORD, False), (release_lock.LOCK, True)):
        with Path(release, name).open() as opened:
            fcntl.flock(opened, fcntl.LOCK_SH)
            assert release_lock.is_held(release) == held, name
    with contextlib.ExitStack() as opened_records:
        for number in range(1, 7):
            machine.install(f"1.{number}")
            for one in releases.installed(machine.installed):
                record = opened_records.enter_context((one.path / release_lock.RECORD).open())
                fcntl.flock(record, fcntl.LOCK_SH)
        assert machine.versions() == ["1.3", "1.4", "1.5", "1.6"]
    release = str(machine.at(str(machine.at(CODE).readlink())))
    Path(release, release_lock.LOCK).unlink()
    with Path(release, release_lock.RECORD).open() as opened:
        fcntl.flock(opened, fcntl.LOCK_SH)
        assert release_lock.is_held(release)


@pytest.mark.fault("an installation that fails or is killed", "the release before stays current")
@pytest.mark.parametrize("error", [BackupError("no network"), OSError(28, "full"), SystemExit(1)])
def test_a_failed_build_leaves_nothing(machine: Machine, error: BaseException) -> None:
    machine.install("1.0")
    machine.fail = error
    with pytest.raises(type(error)):
        machine.install("1.1")
    assert (machine.versions(), machine.current(), machine.hidden()) == (["1.0"], "1.0", [])


def test_what_a_killed_build_left_goes_with_the_next(machine: Machine) -> None:
    leftover = machine.at(f"{RELEASES}/.part-12345/.venv")
    leftover.mkdir(parents=True)
    machine.at(f"{CODE}/").parent.joinpath(".nc-backup-py.new").symlink_to("/nowhere")
    assert machine.install() == 3
    assert machine.hidden() == []
    assert machine.in_var_lib() == ["nc-backup-py", "nc-backup-py-releases"]


def test_a_dead_environment_is_made_again(machine: Machine) -> None:
    machine.install("1.0")
    machine.at(f"{RELEASES}/1.0-20260102T000000Z/.venv/good").unlink()
    assert machine.install() == 2
    assert machine.at(CODE).readlink().name == "1.0-20260103T000000Z"


def test_a_folder_of_the_old_system_is_set_aside(machine: Machine) -> None:
    old = machine.at(CODE)
    (old / "custom").mkdir(parents=True)
    (old / "custom/custom.py").write_text("of the user")
    machine.install("1.0")
    (kept,) = machine.at("/var/lib").glob("nc-backup-py.before-*")
    assert (kept / "custom/custom.py").read_text() == "of the user"
    assert machine.current() == "1.0"
    assert str(kept) in machine.installed.notices[0]


def test_packages_that_were_added_are_named(machine: Machine) -> None:
    machine.write("1.0")
    (machine.clone / "requirements.lock").write_text("rich==1 --hash=sha256:0\n")
    machine.install()
    packages = machine.at(f"{RELEASES}/1.0-20260102T000000Z/.venv/lib/python3.12/site-packages")
    for name in ("rich-1", "oss2-2.19", "crcmod_plus-2"):
        (packages / f"{name}.dist-info").mkdir(parents=True)
        (packages / f"{name}.dist-info/REQUESTED").touch()
    machine.install("1.1")
    assert machine.installed.notices == [
        "the new release lacks the packages crcmod-plus, oss2, which were added by hand: "
        "sudo /var/lib/nc-backup-py/.venv/bin/python -m pip install crcmod-plus oss2"
    ]


def test_user_defined_modules_go_along(machine: Machine) -> None:
    machine.install("1.0")
    release = machine.at(str(machine.at(CODE).readlink()))
    (release / "custom").mkdir()
    (release / "custom/custom.sh").write_text("of the user")
    (release / "custom/custom.sh").chmod(0o755)
    (machine.clone / "tools").rename(machine.clone / "other")  # what was ours is not the user's
    (machine.clone / "other/file.py").touch()
    machine.install("1.1")
    copied = machine.at(str(machine.at(CODE).readlink()))
    assert (copied / "custom/custom.sh").read_text() == "of the user"
    assert os.access(copied / "custom/custom.sh", os.X_OK)
    assert not (copied / "tools").exists()
    # setup.py of the release itself has the same code
    assert releases.code_digest(copied) == releases.code_digest(machine.clone)


def test_uninstall_removes_releases_and_never_a_folder_of_others(machine: Machine) -> None:
    machine.install("1.0")
    assert steps.perform(releases.uninstall(machine.installed)) == 2
    assert machine.in_var_lib() == []
    machine.at(CODE).mkdir()
    assert steps.perform(releases.uninstall(machine.installed)) == 0


def test_a_full_disk_is_the_error_and_not_what_failed_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(hint: str) -> BackupError:
        with pytest.raises(BackupError) as caught, environment.naming_full_disk(tmp_path):
            raise BackupError("pip install failed", hint)
        return caught.value

    full = f"{tmp_path}: no space left on device"
    assert str(failed("ensurepip ended with 1")) == "pip install failed"
    assert str(failed("OSError: [Errno 28] No space left on device: 'a'")) == full
    monkeypatch.setattr(filesystem_handling, "is_full", lambda path: path == tmp_path)
    assert str(failed("ensurepip ended with 1")) == full

    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)  # as on one full disk
    assert str(failed("ensurepip ended with 1")) == full
