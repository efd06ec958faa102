"""What a run decides: disk space, what is removed, what a run is called."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.system import System, execute
from tools import filesystem_handling
from tools.base import log, run_result
from tools.base.errors import ConfigError
from tools.base.result import Result, Status
from tools.config import loading, selection
from tools.engine import run


@pytest.fixture
def system(tmp_path: Path) -> System:
    new_system = System(tmp_path)
    new_system.module("good", "print('fine')")
    return new_system


class RecordingHandler(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.mark.parametrize(
    ("free", "level", "status"),
    [
        (50.0, "", Status.OK),
        (19.0, "WARNING", Status.OK),
        (9.0, "ERROR", Status.OK),
        (1.9, "CRITICAL", Status.FAILED),
    ],
)
def test_the_documented_levels_of_disk_space(
    system: System, monkeypatch: pytest.MonkeyPatch, free: float, level: str, status: Status
) -> None:
    monkeypatch.setattr(filesystem_handling, "free_percent", lambda _path: free)
    handler = RecordingHandler()
    log.logger.addHandler(handler)
    path = system.configure({"A": execute("good"), "B": execute("good")}, DISK_SPACE_CHECK="True")
    outcome = run.perform(loading.load(path), loading.load(path).sections, None)
    log.logger.removeHandler(handler)
    assert outcome.status is status
    lines = [record for record in handler.records if "of the partition" in record.getMessage()]
    assert {record.levelname for record in lines} - {"INFO"} <= {level, "ERROR"}
    assert bool(lines) is bool(level)
    if status is Status.FAILED:
        assert all("DISK_SPACE_THRESHOLD" in step.result.message for step in outcome.sections)
        assert [step.result.message[:7] for step in outcome.sections] == ["not run", "not run"]


def test_two_runs_in_one_second_have_two_names(system: System) -> None:
    path = system.configure({"A": execute("good")})
    loaded = loading.load(path)
    names = {run.perform(loaded, loaded.sections, None).run_id for _ in range(3)}
    assert len(names) == 3


def test_a_source_that_cannot_be_removed_makes_the_run_unclean(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    (system.source / "a").write_text("a")
    loaded = loading.load(system.configure(system.full_sections()))
    real = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if ".age." in path.name and path.parent == system.work / "encrypted":
            raise PermissionError(13, "Permission denied", str(path))
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    outcome = run.perform(loaded, loaded.sections, None)
    assert outcome.status is Status.UNCLEAN
    assert outcome.status.exit_code == 5
    assert "could not be removed" in outcome.problem_lines()[0]
    assert len(system.stored()) == 1


def test_what_no_source_may_back_up(system: System) -> None:
    loaded = loading.load(system.configure(system.full_sections()))
    private = run.private_paths(loaded)
    assert {str(system.work), str(system.store), str(system.key)} <= set(private)


def test_a_section_that_is_not_there_cannot_be_chosen(system: System) -> None:
    loaded = loading.load(system.configure({"A": execute("good")}))
    with pytest.raises(ConfigError, match="no section X"):
        selection.select(loaded, ["X"], [])


def test_the_size_is_measured_or_stored_or_unknown(system: System) -> None:
    loaded = loading.load(system.configure({"A": execute("good")}))
    done = run.perform(loaded, loaded.sections, None)
    assert done.size == "N/A"
    stored = run_result.SectionResult("S", "store", Result(Status.OK, "", bytes=2048))
    measured = run_result.SectionResult("M", "check", Result(Status.OK, "", size="1.00 GB"))
    assert run_result.RunResult("", "", done.begin, 0, Status.OK, (stored,)).size == "2.00 KB"
    assert (
        run_result.RunResult("", "", done.begin, 0, Status.OK, (measured, stored)).size == "1.00 GB"
    )


@pytest.mark.fault("the private folder of a section cannot be created", "that section alone fails")
@pytest.mark.parametrize("stream", ["False", "True"])
def test_a_section_without_a_private_folder_fails_alone(
    system: System, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    """Issue 13 B1: it ended the run in one line that named no section."""
    (system.source / "a").write_text("a")
    sections = {"BROKEN": system.full_sections()["FILESET"], **system.full_sections()}
    loaded = loading.load(system.configure(sections, STREAM=stream))
    real = filesystem_handling.make_folder

    def make_folder(folder: Path) -> Path:
        if folder.name == "BROKEN":
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(filesystem_handling, "make_folder", make_folder)
    outcome = run.perform(loaded, loaded.sections, None)
    statuses = {step.name: step.result.status for step in outcome.sections}
    assert statuses.pop("BROKEN") is Status.FAILED
    assert set(statuses.values()) == {Status.OK}
    assert outcome.status.exit_code == 1
    assert system.stored()
