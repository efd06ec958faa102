"""STREAM auto: streamed where nothing is lost by it, staged otherwise, and the reason is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.system import System, execute
from tools.base.errors import ConfigError
from tools.config import loading
from tools.config.model import RunMode


@pytest.fixture
def system(tmp_path: Path) -> System:
    new_system = System(tmp_path)
    (new_system.source / "a").write_text("a")
    return new_system


def mode(system: System, sections: dict[str, Any], **general: Any) -> RunMode:
    return loading.load(system.configure(sections, **{"STREAM": "auto", **general})).mode


def changed(system: System, name: str, **parameters: Any) -> dict[str, Any]:
    """The sections of a whole run, one of them with other parameters."""
    sections = system.full_sections()
    sections[name]["PARAMETERS"] = {**sections[name].get("PARAMETERS", {}), **parameters}
    return sections


def test_built_in_sections_are_streamed(system: System) -> None:
    assert mode(system, system.full_sections()).streamed
    del system.general["STREAM"]
    assert loading.load(system.configure(system.full_sections())).mode.streamed
    without = system.full_sections()
    del without["COMPRESSION"]
    assert mode(system, without).streamed


def test_targets_that_earlier_sections_fill_are_streamed(system: System) -> None:
    sections = changed(system, "COMPRESSION", OBJECTIVES=f"{system.work}/files")
    sections["ENCRYPTION"]["PARAMETERS"]["TARGETS"] = f"{system.work}/compressed"
    sections["STORAGE_LOCAL"]["PARAMETERS"]["TARGETS"] = f"{system.work}/encrypted/"
    assert mode(system, sections).streamed


@pytest.mark.parametrize(
    ("name", "parameters", "reason"),
    [
        (
            "COMPRESSION",
            {"TARGETS": "{work}/files /srv/more"},
            "no earlier section writes /srv/more",
        ),
        ("STORAGE_LOCAL", {"TARGETS": "{work}/encrypted {work}/x"}, "no earlier section writes"),
        ("COMPRESSION", {"TARGETS": "{work}"}, "no earlier section writes"),
        ("COMPRESSION", {"REMOVE_TARGETS": "False"}, "COMPRESSION keeps the files"),
        ("STORAGE_LOCAL", {"REMOVE_TARGETS": "False"}, "the last store keeps the files"),
        ("ENCRYPTION", {"FORMAT": "openssl"}, "FORMAT openssl"),
    ],
)
def test_a_config_that_does_more_stays_staged(
    system: System, name: str, parameters: dict[str, str], reason: str
) -> None:
    formatted = {key: value.format(work=system.work) for key, value in parameters.items()}
    chosen_mode = mode(system, changed(system, name, **formatted))
    assert not chosen_mode.streamed
    assert reason in chosen_mode.reason


def test_what_has_no_part_in_a_stream_keeps_the_run_staged(system: System) -> None:
    section = system.script("own", "true")
    assert (
        "OWN has no STREAM key" in mode(system, {"OWN": section, **system.full_sections()}).reason
    )
    section["STREAM"] = "source"
    assert mode(system, {"OWN": section, **system.full_sections()}).streamed
    other = system.script("other", "true")
    with pytest.raises(ConfigError, match=r"OWN\.STREAM: the run is staged: OTHER has no STREAM"):
        mode(system, {"OWN": section, "OTHER": other, **system.full_sections()})


def test_order_and_needs_that_a_stream_does_not_keep(system: System) -> None:
    sections = system.full_sections()
    sections["STORAGE_LOCAL"]["NEEDS"] = "FILESET"
    assert mode(system, sections).reason == "STORAGE_LOCAL needs FILESET"
    sections = system.full_sections()
    sections["AGAIN"] = execute("compression", TARGETS=str(system.work / "encrypted"))
    assert "AGAIN" in mode(system, sections).reason
    sections = system.full_sections()
    elsewhere = system.folder / "elsewhere"
    databases = str(system.source / "a.db")
    sections["FILESET"] = {
        "ACTION": "load",
        "FROM": "sqlite",
        "FILENAME": "sqlite",
        "CLASS": "SQLiteBackup",
        "PARAMETERS": {"DATABASES": databases, "DESTINATION": str(elsewhere)},
    }
    assert f"no section stores {elsewhere}/sqlite" in mode(system, sections).reason


def test_the_log_and_the_dry_run_say_which_way_and_why(system: System) -> None:
    system.configure(system.full_sections(), STREAM="auto")
    assert "streamed run: FILESET -> COMPRESSION" in system.run("-n").stdout
    assert "every section takes part in the stream" in system.run("-n").stdout
    assert system.run("-r", "-l", "info").returncode == 0
    assert "This is a streamed run: every section takes part" in system.log.read_text()
    system.configure(system.full_sections(), STREAM="False")
    assert "(STREAM is False)" in system.run("-n").stdout
    system.configure(system.full_sections(), STREAM=True)
    assert "(STREAM is True)" in system.run("-n").stdout


def test_files_of_a_staged_run_are_stored_by_a_staged_run(system: System) -> None:
    system.configure(system.full_sections(LOST=system.script("lost", "exit 1")))
    system.configure(system.full_sections(), STREAM="False")
    assert system.run("-r", "--skip", "COMPRESSION").returncode == 1
    assert list((system.work / "files").iterdir())
    system.configure(system.full_sections(), STREAM="auto")
    assert "is not stored yet" in system.run("-n").stdout
    assert system.result()["exit_code"] == 0
    assert "staged" in system.restore("--show", "latest")
    assert len(system.stored()) == 2
    assert system.result()["exit_code"] == 0
    assert "streamed" in system.restore("--show", "latest")


def test_a_local_store_in_the_work_folder_is_not_waiting(system: System) -> None:
    store = system.work / "local"
    system.configure(system.full_sections(), STREAM="auto", LOCAL_BACKUP=str(store))
    for _ in range(2):
        assert system.result()["exit_code"] == 0
    assert "streamed run" in system.run("-n").stdout
