"""What `latest` means: which run each section is restored from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, next_second


@pytest.fixture
def system(tmp_path: Path) -> System:
    new_system = System(tmp_path)
    (new_system.source / "a").write_text("old")
    new_system.configure(new_system.full_sections(), STREAM="True")
    return new_system


def other_config(system: System, section: str, text: str, **general: Any) -> System:
    """A second config of the same host and store: its own file, work folder and source."""
    folder = system.folder / f"other-{section}"
    folder.mkdir()
    other = System(folder)
    other.store, other.key = system.store, system.key
    other.general["LOCAL_BACKUP"] = str(system.store)
    (other.source / "x").write_text(text)
    sections = other.full_sections()
    sections = {section: sections.pop("FILESET"), **sections}
    other.configure(sections, STREAM="True", **general)
    return other


def run(system: System, *arguments: str, code: int = 0) -> str:
    """A run in a second of its own; its id."""
    next_second()
    result = system.result(*arguments)
    assert result["exit_code"] == code, result["stderr"]
    return str(result["run_id"])


def renamed(system: System, old: str, new: str, **fields: Any) -> None:
    """Give a run another id, as if the clock had been wrong, and other fields."""
    folder = system.store / "srv-test"
    for path in [*folder.glob(f"{old}.*.json")]:
        document = json.loads(path.read_text().replace(old, new))
        path.unlink()
        path.with_name(f"{path.name}.sig").unlink()
        system.sign(folder / f"{new}.manifest.json", json.dumps({**document, **fields}))
    for path in [*folder.glob(f"{old}.*")]:
        path.rename(folder / path.name.replace(old, new))


def content(out: Path, system: System, name: str, section: str = "FILESET") -> str:
    return (out / section / system.source.relative_to("/") / name).read_text()


def test_latest_is_of_the_sections_of_the_config(system: System) -> None:
    """Issue 11 A4: two configs of one host and one store (files nightly, databases hourly)."""
    run(system)
    other = other_config(system, "OTHER", "db")
    run(other)
    assert content(system.restored(), system, "a") == "old"
    out = other.restored()
    assert content(out, other, "x", "OTHER") == "db"
    assert sorted(path.name for path in out.iterdir()) == ["OTHER"]


def test_latest_is_of_the_config_though_sections_have_one_name(system: System) -> None:
    """Issue 11 A4: a copied config; an edit of the config does not make it another one."""
    first = run(system)
    other = other_config(system, "FILESET", "other machine's")
    run(other)
    system.configure(system.full_sections(), STREAM="True", PARALLEL="2")
    assert content(system.restored(), system, "a") == "old"
    assert first in system.restore("--show", "latest")
    assert content(other.restored(), other, "x") == "other machine's"


def test_a_run_of_some_sections_does_not_hide_the_others(system: System) -> None:
    """Issue 11 A4: a run is chosen for each section, and the choice is shown."""
    sections = system.full_sections()
    user_defined = system.script("own", "echo data", "source")
    system.configure({"OWN": user_defined, **sections}, STREAM="True")
    first = run(system)
    (system.source / "a").write_text("new")
    second = run(system, "--skip", "OWN")
    out = system.folder / "out"
    output = system.restore("--restore", "latest", "--destination", str(out))
    assert f"OWN comes from run {first}" in output
    assert f"FILESET comes from run {second}" in output
    assert (out / "OWN").read_text() == "data\n"
    assert content(out, system, "a") == "new"
    output = system.restore("--verify", "latest", "--section", "FILESET")
    assert "comes from" not in output
    bare = system.folder / "bare"
    arguments = ("--key-file", str(system.key), "--local-backup", str(system.store))
    system.conf.rename(system.folder / "gone.json")
    system.restore_bare(*arguments, "--restore", "latest", "--destination", str(bare))
    assert (bare / "OWN").read_text() == "data\n"
    assert content(bare, system, "a") == "new"


@pytest.mark.fault("a run of the future (the clock was wrong)", "never `latest`; `--list` warns")
def test_a_run_of_the_future_is_never_latest(system: System) -> None:
    """Issue 11 A5 [18]: and it can be restored by its id."""
    renamed(system, run(system), "20380120_000000")
    text = system.restore("--restore", "latest", "--destination", str(system.folder / "o"), code=2)
    assert "no complete run" in text
    assert "20380120_000000" in text
    (system.source / "a").write_text("new")
    run(system, code=3)
    assert content(system.restored(), system, "a") == "new"
    assert content(system.restored(run="20380120_000000"), system, "a") == "old"
    text = system.restore("--list")
    assert "warning: run 20380120_000000 of srv-test is dated in the future" in text
    future = json.loads(system.restore("--list", "--json").splitlines()[0])["runs"]
    assert [entry["future"] for entry in future] == [False, True]


def test_the_list_has_what_a_monitor_needs(system: System) -> None:
    """Issue 11 E: UTC begin and end, bytes, missing, warnings, machine and config."""
    run(system)
    (entry,) = json.loads(system.restore("--list", "--json"))["runs"]
    manifest = system.manifest()
    assert entry["begin"] == manifest["begin"]
    assert entry["end"] == manifest["end"]
    assert entry["end"].endswith("Z")
    assert entry["size"] == manifest["items"][0]["parts"][0]["size"]
    assert entry["plain_size"] == manifest["items"][0]["size"]
    assert entry["missing"] == []
    assert entry["warnings"] == []
    assert entry["config_file"] == str(system.conf)
    assert entry["machine"] == manifest["machine"]
    assert entry["machine_name"]


def test_another_host_or_the_folder_of_a_host_is_hinted_at(system: System) -> None:
    """Issue 11 E: `--hostname other`, and a host's folder in place of the store."""
    run(system)
    hint = "Choose a host of the store with --hostname: srv-test."
    assert hint in system.restore("--list", "--hostname", "other")
    arguments = (
        "--hostname",
        "other",
        "--restore",
        "latest",
        "--destination",
        str(system.folder / "o"),
    )
    assert hint in system.restore(*arguments, code=2)
    text = system.restore("--local-backup", str(system.store / "srv-test"), "--list")
    assert f"Use the folder of the store, {system.store}" in text


def test_the_newest_run_is_named_where_none_is_good(system: System) -> None:
    """Issue 11 E (A15): `no complete run` when failed ones exist."""
    run_id = run(system)
    renamed(system, run_id, run_id, status="failed")
    text = system.restore("--restore", "latest", "--destination", str(system.folder / "o"), code=2)
    assert f"--show {run_id} (failed)" in text
    assert content(system.restored(run=run_id), system, "a") == "old"


def test_a_manifest_without_the_new_fields_is_read(system: System) -> None:
    """Issue 11 A4: manifests of earlier versions name neither machine nor config."""
    run(system)
    (path,) = (system.store / "srv-test").glob("*.manifest.json")
    document = json.loads(path.read_text())
    new = ("machine", "machine_name", "config_id", "config_file", "sequence", "previous")
    for key in new:
        del document[key]
    (system.work / ".nc-backup-py/sequence.json").unlink()  # that version numbered no runs
    system.sign(path, json.dumps(document))
    assert content(system.restored(), system, "a") == "old"


def test_a_config_that_was_moved_finds_its_runs(system: System) -> None:
    """Issue 11 A4: on another machine, or elsewhere, the section alone decides."""
    run(system)
    moved = system.folder / "moved.json"
    shutil.move(system.conf, moved)
    system.conf = moved
    assert content(system.restored(), system, "a") == "old"


def test_a_disk_that_is_not_mounted_is_an_error_and_not_an_empty_list(system: System) -> None:
    system.configure(system.full_sections())
    text = system.restore("--list", code=1)
    assert f"error: {system.store}: no such file or directory" in text
    assert "hint: Mount the disk of the backups, or correct LOCAL_BACKUP." in text
    system.store.mkdir()
    assert f"{system.store}: no runs of host srv-test" in system.restore("--list")
