from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.base import log, masking


def test_the_documented_line_by_level_and_masked(tmp_path: Path) -> None:
    masking.add("hunter2-log")
    run_log = log.begin(tmp_path / "x.log", "WARNING", 1, 2)
    log.logger.info("Section 8: %s.", "STORAGE_OSS")
    log.logger.warning("password hunter2-log")
    line = (tmp_path / "x.log").read_text()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - ncbackup - WARNING - password \*\*\*\n", line
    )
    assert "INFO - Section 8: STORAGE_OSS." in run_log.tail()


def test_a_folder_gets_the_documented_name(tmp_path: Path) -> None:
    log.begin(tmp_path, "INFO", 1, 2)
    log.logger.info("x")
    assert (tmp_path / "nc-backup-py.log").exists()


def test_rotation_keeps_the_number_of_old_ones_that_was_asked_for(tmp_path: Path) -> None:
    log.begin(tmp_path / "x.log", "INFO", 1, 3)
    for _ in range(45):
        log.logger.info("%s", "x" * 100_000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2", "x.log.3"]


def test_the_runs_own_log_is_bounded_and_says_so(tmp_path: Path) -> None:
    run_log = log.begin(tmp_path / "x.log", "INFO", 1, 1)
    for number in range(5000):
        log.logger.info("line %d %s", number, "ü" * 50)
    tail = run_log.tail()
    assert len(tail.encode()) < log.REPORTED + 100
    assert tail.startswith("[older lines omitted]")
    assert "line 4999" in tail


@pytest.mark.fault("LOG_FOLDER cannot be opened", "the run logs to standard error")
def test_a_log_that_cannot_be_opened_goes_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 13 A6: the run goes on, and so does its log."""
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    for folder in (tmp_path / "file", tmp_path / "loop", tmp_path / ("n" * 300)):
        run_log = log.begin(folder / "x.log", "WARNING", 1, 1)
        log.logger.warning("goes on")
        log.logger.info("is left out at this level")
        assert "goes on" in run_log.tail()
        assert f"cannot open log file {folder}/x.log: " in run_log.tail()
        stderr = capsys.readouterr().err
        assert "WARNING - goes on\n" in stderr
        assert stderr.count("cannot open log file") == 1
        assert "left out" not in stderr


def test_an_error_of_the_system_is_logged_in_words(tmp_path: Path) -> None:
    """Issue 13 A6: "[Errno 13] Permission denied: '/a'" is Python's notation."""
    log.begin(tmp_path, "WARNING", 1, 1)
    log.logger.warning("not read: %s", PermissionError(13, "Permission denied", "/a"))
    assert "not read: /a: permission denied" in (tmp_path / log.FILE).read_text()
