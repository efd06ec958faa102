"""The user of the backup: created, or looked at closely where there is one of that name."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path

import pytest

from tools.base.errors import ConfigError
from tools.setup import account, plans, purging, steps
from tools.setup.installation import Installation

OK = {"uid": 999, "gid": 995, "home": "/opt/backup", "shell": "/usr/sbin/nologin"}


def existing(monkeypatch: pytest.MonkeyPatch, members: list[str], **other: object) -> None:
    """A user ncbackup with a group of that name."""
    about = {**OK, **other}
    fields = ("ncbackup", "x", about["uid"], about["gid"], "", about["home"], about["shell"])
    group = grp.struct_group(("ncbackup", "x", 995, members))
    monkeypatch.setattr(account, "_user", lambda: pwd.struct_passwd(fields))
    monkeypatch.setattr(account, "_group", lambda: group)


def planned(**more: object) -> tuple[int, list[str]]:
    """How many steps are needed, and the notices."""
    installation = Installation(Path("/"), Path("/"), **more)  # type: ignore[arg-type]
    return steps.perform(account.steps(installation)), installation.notices


def test_a_good_user_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    existing(monkeypatch, ["ncbackup"])
    assert planned() == (0, [])


@pytest.mark.parametrize(
    ("other", "problem", "hint"),
    [
        ({"uid": 0}, "is root by its number (uid 0, gid 995)", "usermod --login OTHER ncbackup"),
        ({"gid": 0}, "is root by its number (uid 999, gid 0)", "usermod --login OTHER ncbackup"),
        ({"gid": 100}, "its primary group is not ncbackup", "usermod --gid ncbackup ncbackup"),
        ({"shell": "/bin/bash"}, "with the login shell /bin/bash", "usermod --shell "),
        ({"shell": ""}, "with the login shell /bin/sh", "To do it anyway: --yes"),
    ],
)
def test_a_foreign_user_is_named_and_refused(
    monkeypatch: pytest.MonkeyPatch, other: dict[str, object], problem: str, hint: str
) -> None:
    existing(monkeypatch, [], **other)
    with pytest.raises(ConfigError) as caught:
        planned()
    assert str(caught.value).startswith("user ncbackup: ")
    assert problem in str(caught.value)
    assert hint in caught.value.hint


def test_a_user_with_a_shell_is_kept_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bash = {"shell": "/bin/bash", "home": "/home/ncbackup"}
    existing(monkeypatch, ["eve", "ncbackup"], **bash)
    count, notices = planned(yes=True)
    assert count == 0
    assert "the login shell /bin/bash (--yes)" in notices[0]
    assert "its home is /home/ncbackup" in notices[1]
    assert notices[2].endswith("these users can read config and keys: eve")


def test_a_group_with_members_is_not_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    existing(monkeypatch, ["eve"])
    monkeypatch.setattr(account, "_user", lambda: None)
    with pytest.raises(ConfigError, match="group ncbackup: exists, with members: eve"):
        planned()


def test_purge_never_removes_a_store(tmp_path: Path) -> None:
    for name in ("opt/backup/local/srv", "etc/nc-backup-py", "var/log/nc-backup-py"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "opt/backup/local/srv/20260101_030000.manifest.json").touch()
    identity = tmp_path / "etc/nc-backup-py/key_file.identity"
    identity.touch()
    installation = Installation(Path("/"), Path("/"), tmp_path, purge=True)
    with pytest.raises(ConfigError, match="without a copy no backup can be restored"):
        steps.perform(purging.question(installation))
    assert plans.UNINSTALL[0] is purging.question  # before anything is removed
    assert identity.exists()
    sure = Installation(Path("/"), Path("/"), tmp_path, purge=True, yes=True)
    assert steps.perform(purging.steps(sure)) == 2
    assert (tmp_path / "opt/backup/local/srv/20260101_030000.manifest.json").exists()
    assert any("opt/backup is kept: it holds a store" in line for line in sure.notices)
    assert not identity.parent.exists()
    assert steps.perform(purging.steps(Installation(Path("/"), Path("/"), tmp_path))) == 0
