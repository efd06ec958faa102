"""Which sections run, and runs that could store nothing (issue 11 A1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.system import System, execute
from tools.base.errors import ConfigError
from tools.config import loading, selection

MODES = ("False", "True")


@pytest.fixture
def system(tmp_path: Path) -> System:
    new_system = System(tmp_path)
    (new_system.source / "a").write_text("a")
    return new_system


def chosen(system: System, *only: str, skip: tuple[str, ...] = ()) -> list[str]:
    loaded = loading.load(system.conf)
    return [section.name for section in selection.select(loaded, only, skip)]


def rejected(system: System, says: str, *only: str, skip: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError, match=says) as caught:
        chosen(system, *only, skip=skip)
    return caught.value.hint


@pytest.mark.parametrize("stream", MODES)
@pytest.mark.parametrize("mode", ["-r", "-n", "-t"])
@pytest.mark.parametrize(
    ("missing", "says"),
    [("FILESET", "no source section"), ("STORAGE_LOCAL", "no store section")],
)
def test_a_config_without_a_source_or_a_store_is_exit_2(
    system: System, stream: str, mode: str, missing: str, says: str
) -> None:
    """Issue 11 A1: rejected in -r, -n and -t, streamed and staged; commented out or absent."""
    sections = system.full_sections()
    sections[f"__{missing}"] = sections.pop(missing)
    system.configure(sections, STREAM=stream)
    done = system.run(mode)
    assert done.returncode == 2
    assert says in done.stderr
    assert str(system.conf) in done.stderr
    assert "hint: Add a" in done.stderr
    assert done.stdout == ""
    assert not system.store.exists()


@pytest.mark.parametrize("stream", MODES)
def test_only_and_skip_that_leave_no_source_or_store_are_exit_2(
    system: System, stream: str
) -> None:
    """Issue 11 A1: also `--only STORE`: what an earlier run left is stored by the next full run."""
    system.configure(system.full_sections(), STREAM=stream)
    assert "FILESET" in rejected(system, "no source section", skip=("FILESET",))
    assert "full run" in rejected(system, "no source section", "STORAGE_LOCAL")
    rejected(system, "no source section", "COMPRESSION")
    rejected(system, "no source section", "SIZE")
    assert "STORAGE_LOCAL" in rejected(system, "no store section", skip=("STORAGE_LOCAL",))
    rejected(system, "no source section", "FILESET", skip=("FILESET",))
    rejected(system, "no section is left", "SIZE", skip=("SIZE",))
    done = system.run("-r", "--only", "STORAGE_LOCAL")
    assert done.returncode == 2
    assert not system.work.exists()


@pytest.mark.parametrize("stream", MODES)
def test_only_a_source_keeps_the_stages_and_stores_that_it_needs(
    system: System, stream: str
) -> None:
    """Issue 11 E: `--only FILESET` is a whole backup of FILESET, encrypted."""
    second = execute("storage", LOCAL_BACKUP=str(system.folder / "second"))
    other = execute("filesbackup", FILESET_INCLUDE=str(system.home))
    sections = {"OTHER": other, **system.full_sections(), "SECOND": second}
    system.configure(sections, STREAM=stream)
    flow = ["FILESET", "COMPRESSION", "ENCRYPTION"]
    assert chosen(system, "FILESET") == [*flow, "STORAGE_LOCAL", "SECOND"]
    assert chosen(system, "FILESET", "SECOND") == [*flow, "SECOND"]
    assert chosen(system, "FILESET", skip=("COMPRESSION", "SECOND")) == [
        *("FILESET", "ENCRYPTION", "STORAGE_LOCAL")
    ]
    assert system.result("--only", "FILESET")["status"] == "ok"
    assert system.stored()[0].endswith(".tar.zst.age.000")


def test_checks_alone_have_nothing_to_store(system: System) -> None:
    qa = {"ACTION": "load", "FROM": "qa", "FILENAME": "qa", "CLASS": "QA"}
    system.configure(system.full_sections(QA=qa))
    assert chosen(system, "QA") == ["QA"]
    system.configure({"QA": qa})
    assert chosen(system) == ["QA"]


def test_a_user_defined_module_of_a_staged_run_may_be_a_source_or_a_store(system: System) -> None:
    """Issue 11 A1: such a config cannot be judged; a streamed one says what its modules are."""
    full = system.full_sections()
    store, source = full["STORAGE_LOCAL"], full["FILESET"]
    user_defined = system.script("own", "true")
    for sections in (
        {"OWN": user_defined, "STORE": store},
        {"FILES": source, "OWN": user_defined},
        {"OWN": user_defined},
    ):
        system.configure(sections)
        assert chosen(system) == list(sections)
    system.configure({"OWN": user_defined, "STORE": store}, STREAM="True")
    rejected(system, "no source section")
    system.configure({"FILES": source, "OWN": user_defined}, STREAM="True")
    rejected(system, "no store section")
    as_source = {**user_defined, "STREAM": "source"}
    system.configure({"OWN": as_source, "STORE": store}, STREAM="True")
    assert chosen(system) == ["OWN", "STORE"]


@pytest.mark.parametrize("stream", MODES)
def test_a_backup_that_is_not_encrypted_is_a_warning(system: System, stream: str) -> None:
    """Issue 11 E: no encryption at all: WARN in -t and -n, and in the log of the run."""
    sections: dict[str, Any] = system.full_sections()
    system.configure(sections, STREAM=stream)
    assert "not encrypted" not in system.run("-t").stderr
    left_out = system.run("-t", "--skip", "ENCRYPTION")
    assert left_out.returncode == 0
    assert "WARN GENERAL: the backup is not encrypted" in left_out.stderr
    del sections["ENCRYPTION"]
    system.configure(sections, STREAM=stream)
    for mode in ("-t", "-n"):
        assert "WARN GENERAL: the backup is not encrypted" in system.run(mode).stderr
    system.run("-r")
    assert "WARNING - the backup is not encrypted" in system.log.read_text()


def test_a_filter_of_the_users_own_may_encrypt(system: System) -> None:
    sections = system.full_sections()
    del sections["ENCRYPTION"]
    sections["SEAL"] = system.script("seal", "cat", stream="filter")
    system.configure(sections, STREAM="True")
    loaded = loading.load(system.conf)
    assert selection.cautions(loaded, loaded.sections) == []
