"""The framework of steps, and the command line that performs them below a prefix."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from benchmarks import fault_installer
from tools.base.errors import BackupError, ConfigError
from tools.base.finding import Level
from tools.setup import (
    arguments,
    configuration,
    folders,
    installing,
    keys,
    plans,
    releases,
    steps,
)
from tools.setup.installation import Installation
from tools.setup.steps import Step

UNDER = ("etc/nc-backup-py", "opt/backup", "var/log/nc-backup-py", "var/lib/nc-backup-py-releases")


def an_installation(prefix: Path, **more: object) -> Installation:
    return Installation(source=Path("/"), python=Path("/"), prefix=prefix, **more)  # type: ignore[arg-type]


def file_step(path: Path) -> Step:
    return Step(
        subject=path.name,
        action="write it",
        reason=lambda: "" if path.exists() else "it is missing",
        perform=path.touch,
    )


def test_a_second_run_does_nothing_and_finishes_a_half(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = [file_step(tmp_path / name) for name in "abc"]
    table[1].perform()  # as a killed run may leave it
    assert steps.perform(table, dry_run=True) == 2
    assert capsys.readouterr().out == "a: write it (it is missing)\nc: write it (it is missing)\n"
    findings = steps.findings(table, "Run setup.py.")
    assert [one.level for one in findings] == [Level.BAD, Level.OK, Level.BAD]
    assert (findings[0].text, findings[0].hint) == ("a: it is missing", "Run setup.py.")
    assert steps.perform(table) == 2
    assert capsys.readouterr().out == "a: write it\nc: write it\n"
    assert steps.perform(table) == 0


def test_after_a_failed_step_no_other_is_performed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the operator must read is printed all the same."""

    def planner(installation: Installation) -> list[Step]:
        def fail() -> None:
            installation.notice("read this")
            raise BackupError("no disk")

        return [Step("a", "fail", lambda: "why", fail), file_step(tmp_path / "later")]

    monkeypatch.setattr(plans, "UNINSTALL", (planner,))
    with pytest.raises(BackupError, match="no disk") as caught:
        installing.uninstall(arguments.Arguments("uninstall", prefix=str(tmp_path)))
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "a: fail"
    assert others[-1] == "read this"
    assert "run the same command again" in caught.value.hint
    assert not (tmp_path / "later").exists()


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_folders_have_exact_modes_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    os.umask(umask)
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/elsewhere").mkdir(mode=0o777)
    (tmp_path / "opt/backup").symlink_to("elsewhere")  # on a larger disk
    table = list(folders.steps(an_installation(tmp_path)))
    os.umask(0o022)  # as installing does
    assert steps.perform(table) == (4 if umask == 0 else 3)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in UNDER]
    assert modes == [0o750, 0o700, 0o750, 0o755]
    assert stat.S_IMODE((tmp_path / "var/lib").stat().st_mode) == 0o755
    (tmp_path / UNDER[0]).chmod(0o777)
    assert [step.reason() for step in table] == ["its mode is 0777", "", "", ""]
    assert steps.perform(table) == 1


def test_a_file_in_the_place_of_a_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/backup").write_text("of somebody")
    with pytest.raises(ConfigError, match=r"opt/backup: is not a directory"):
        steps.perform(folders.steps(an_installation(tmp_path)))
    assert (tmp_path / "opt/backup").read_text() == "of somebody"


def test_a_link_that_another_user_may_have_made_is_not_followed(tmp_path: Path) -> None:
    """As in /var/log of Ubuntu: /etc would belong to the user of the backup."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    link = tmp_path / "shared/log"
    link.symlink_to(elsewhere)
    step = folders.step(str(link), folders.Access(0o750), an_installation(Path("/")))
    with pytest.raises(ConfigError, match="is a symbolic link that others"):
        step.perform()
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755


@pytest.mark.fault(
    "config or keys cannot be read while setup.py runs", "an error; none of them is written anew"
)
@pytest.mark.parametrize(
    "planner", [configuration.steps, folders.steps, fault_installer.owned(keys.steps)]
)
def test_what_cannot_be_read_does_not_count_as_missing(
    tmp_path: Path, planner: plans.Planner
) -> None:
    """A link to itself fails for root too. A sweep of faults found it for EIO and ENOMEM."""
    (tmp_path / "etc").symlink_to("etc")
    with pytest.raises(OSError, match="symbolic links"):
        steps.perform(planner(an_installation(tmp_path)))


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with (
        installing._alone(an_installation(tmp_path)),
        pytest.raises(BackupError, match="another one is running") as caught,
        installing._alone(an_installation(tmp_path)),
    ):
        pass
    assert caught.value.exit_code == 11


def test_another_user_than_root_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="only root can change the system") as caught:
        installing.uninstall(arguments.Arguments("uninstall"))
    assert "sudo python3 setup.py" in caught.value.hint


def test_an_unknown_folder_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no nc-backup-py"):
        releases.version_of(tmp_path)
    (tmp_path / "pyproject.toml").write_text('version = "../../etc"\n')
    (tmp_path / "backup.py").touch()
    with pytest.raises(ConfigError, match="holds no nc-backup-py"):
        releases.version_of(tmp_path)


def test_a_file_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    """A file of a folder that the backup may write is looked at first, and changed later."""
    other, link = tmp_path / "other", tmp_path / "link"
    other.touch(0o600)
    link.symlink_to(other)
    with pytest.raises(OSError, match="link"):
        folders.Access(0o644).apply(link, an_installation(tmp_path))
    assert other.stat().st_mode & 0o777 == 0o600
