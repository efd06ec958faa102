from __future__ import annotations

import logging
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from qa import qa
from tools import os_works


def found(tmp_path: Path, **more: object) -> list[str]:
    given = {
        "USER": os_works.user(),
        "GROUP": qa._group_name(os.getegid()),
        "WORK_FOLDER": tmp_path / "work",
        "HOME_FOLDER": tmp_path / "home",
        "KEY_FILE": tmp_path / "key",
        "LOG_FOLDER": tmp_path / "log",
        **more,
    }
    plug = qa.QA({key: str(value) for key, value in given.items()}, logging.getLogger("qa"))
    plug.config_plugin()
    plug.works_execution()
    code, text, error = plug.output()
    assert (code, error) == (0, "")
    return [] if text == "everything is in order" else text.splitlines()


@pytest.fixture
def house(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir(mode=0o700)
    (tmp_path / "home/mod").mkdir(parents=True, mode=0o755)
    (tmp_path / "home/mod/mod.py").write_text("")
    (tmp_path / "key").write_text("key")
    (tmp_path / "key").chmod(0o600)
    return tmp_path


def test_a_house_in_order_gives_nothing(house: Path) -> None:
    assert found(house) == []


def test_each_finding_comes_with_the_command_that_mends_it(house: Path) -> None:
    (house / "work").chmod(0o755)
    (house / "key").chmod(0o644)
    (house / "home/mod/mod.py").chmod(0o666)
    texts = found(house, USER="ncbackup", GROUP="ncbackup", LOCAL_BACKUP=house / "store")
    assert f"{house}/work is open to others (mode 0755): chmod 0700 {house}/work" in texts
    assert f"{house}/key is open to others (mode 0644): chmod 0600 {house}/key" in texts
    assert any(text.endswith(f"chmod o-w {house}/home/mod/mod.py") for text in texts)
    assert any("not as ncbackup" in text for text in texts)
    assert f"{house}/store does not exist: install -d -o ncbackup -m 0700 {house}/store" in texts


def test_a_missing_key_names_keygen(house: Path) -> None:
    (house / "key").unlink()
    (text,) = found(house)
    assert "--KEYGEN" in text


def test_it_warns_in_the_log(house: Path, caplog: pytest.LogCaptureFixture) -> None:
    (house / "key").chmod(0o644)
    found(house, GROUP="ncbackup")
    assert "chmod 0600" in caplog.text


def test_leftovers_are_counted_and_the_command_removes_them(house: Path) -> None:
    left = house / "work/files/.x.tar.part-12345678"
    left.parent.mkdir()
    left.write_text("half")
    assert found(house) == [], "it may belong to a run that is under way"
    os.utime(left, (1, 1))
    (text,) = found(house)
    what, _, mend = text.partition(": ")
    assert "1 leftovers" in what
    subprocess.run(shlex.split(mend), check=True)
    assert not left.exists()
    assert found(house) == []


def test_the_commands_mend_what_they_stand_for(house: Path) -> None:
    work = house / "my work"
    (house / "work").rename(work)
    work.chmod(0o775)
    (house / "key").chmod(0o666)
    (house / "log").write_text("")
    (house / "log").chmod(0o646)
    (house / "home/backup.py").write_text("")
    (house / "home/backup.py").chmod(0o646)
    texts = found(house, WORK_FOLDER=work)
    assert len(texts) == 4
    for text in texts:
        subprocess.run(shlex.split(text.rpartition(": ")[2]), check=True)
    assert found(house, WORK_FOLDER=work) == []


@pytest.mark.needs("root")
def test_roots_key_may_be_read_by_the_group_of_the_user(house: Path) -> None:
    (house / "key").chmod(0o640)
    assert found(house) == []
    (house / "key").chmod(0o660)
    assert "chmod 0640" in found(house)[0]
    os.chown(house / "key", 12345, 0)
    (house / "key").chmod(0o600)
    (text,) = found(house)
    assert text == f"{house}/key belongs to somebody else: chown {os_works.user()} {house}/key"


def test_what_may_not_be_looked_at_is_a_finding(house: Path) -> None:
    (house / "key").unlink()
    (house / "key").symlink_to("key")
    assert any(str(house / "key") in text for text in found(house))
