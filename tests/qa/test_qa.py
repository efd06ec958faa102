from __future__ import annotations

import logging
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from qa import qa
from tools import os_works
from tools.base import account_names


def warnings(tmp_path: Path, **more: object) -> list[str]:
    parameters = {
        "USER": os_works.user(),
        "GROUP": account_names.group(os.getegid()),
        "WORK_FOLDER": tmp_path / "work",
        "HOME_FOLDER": tmp_path / "home",
        "KEY_FILE": tmp_path / "key",
        "LOG_FOLDER": tmp_path / "log",
        **more,
    }
    plug = qa.QA({key: str(value) for key, value in parameters.items()}, logging.getLogger("qa"))
    plug.config_plugin()
    plug.works_execution()
    code, text, error = plug.output()
    assert (code, error) == (0, "")
    return [] if text == "no findings" else text.splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir(mode=0o700)
    (tmp_path / "home/mod").mkdir(parents=True, mode=0o755)
    (tmp_path / "home/mod/mod.py").write_text("")
    (tmp_path / "key").write_text("key")
    (tmp_path / "key").chmod(0o600)
    return tmp_path


def test_no_findings(folder: Path) -> None:
    assert warnings(folder) == []


def test_each_finding_has_the_command_that_fixes_it(folder: Path) -> None:
    (folder / "work").chmod(0o755)
    (folder / "key").chmod(0o644)
    (folder / "home/mod/mod.py").chmod(0o666)
    texts = warnings(folder, USER="ncbackup", GROUP="ncbackup", LOCAL_BACKUP=folder / "store")
    assert f"{folder}/work: accessible by others (mode 0755): chmod 0700 {folder}/work" in texts
    assert f"{folder}/key: accessible by others (mode 0644): chmod 0600 {folder}/key" in texts
    assert any(text.endswith(f"chmod o-w {folder}/home/mod/mod.py") for text in texts)
    assert any("not as ncbackup" in text for text in texts)
    create = f"install -d -o ncbackup -m 0700 {folder}/store"
    mounted = "check that its file system is mounted, then"
    assert f"{folder}/store: no such file or directory: {mounted}: {create}" in texts


def test_a_missing_key_is_copied_back_before_a_new_one_is_made(folder: Path) -> None:
    (folder / "key").unlink()
    (text,) = warnings(folder)
    assert 0 < text.index("copy your key file back") < text.index("--KEYGEN")


def test_it_warns_in_the_log(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "key").chmod(0o644)
    warnings(folder, GROUP="ncbackup")
    assert "chmod 0600" in caplog.text


def test_old_temporary_files_are_counted_and_left_to_the_next_run(folder: Path) -> None:
    leftover = folder / "work/files/.x.tar.part-12345678"
    leftover.parent.mkdir()
    leftover.write_text("half")
    assert warnings(folder) == [], "it may belong to a run that is under way"
    os.utime(leftover, (1, 1))
    (text,) = warnings(folder)
    assert f"{folder}/work: 1 temporary file older than one day" in text
    assert "delete" not in text, "a run may take longer than a day"


def test_the_commands_fix_the_problems(folder: Path) -> None:
    work = folder / "my work"
    (folder / "work").rename(work)
    work.chmod(0o775)
    (folder / "key").chmod(0o666)
    (folder / "log").write_text("")
    (folder / "log").chmod(0o646)
    (folder / "home/backup.py").write_text("")
    (folder / "home/backup.py").chmod(0o646)
    texts = warnings(folder, WORK_FOLDER=work)
    assert len(texts) == 4
    for text in texts:
        subprocess.run(shlex.split(text.rpartition(": ")[2]), check=True)
    assert warnings(folder, WORK_FOLDER=work) == []


@pytest.mark.needs("root")
def test_group_of_the_user_may_read_a_key_of_root(folder: Path) -> None:
    (folder / "key").chmod(0o640)
    assert warnings(folder) == []
    (folder / "key").chmod(0o660)
    assert "chmod 0640" in warnings(folder)[0]
    os.chown(folder / "key", 12345, 0)
    (folder / "key").chmod(0o600)
    (text,) = warnings(folder)
    assert text == f"{folder}/key: owned by 12345: chown {os_works.user()} {folder}/key"


def test_a_path_that_cannot_be_checked_is_a_finding(folder: Path) -> None:
    (folder / "key").unlink()
    (folder / "key").symlink_to("key")
    assert any(str(folder / "key") in text for text in warnings(folder))
