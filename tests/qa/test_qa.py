from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tools import os_works, plugin

qa = plugin.load("qa/qa.py")


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
    assert plug.output()[0] == 0
    return [str(finding) for finding in plug._found]


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
    texts = found(house, USER="ncbackup", LOCAL_BACKUP=house / "store")
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
    found(house)
    assert "chmod 0600" in caplog.text
