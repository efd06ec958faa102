"""METRICS_FILE: read by the parser of Prometheus; the time of the last success never moves back."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.system import System, execute
from tools import os_works
from tools.base import project
from tools.base.result import Result, Status
from tools.base.run_result import RunResult, SectionResult, StoreResult
from tools.reporting import metrics
from tools.reporting.document import run_document

pytestmark = pytest.mark.needs("prometheus_client")
BEGIN = datetime(2026, 11, 23, 3, tzinfo=timezone.utc)
CONFIG = "/etc/nc-backup-py/conf.json"
PAGE = (project.ROOT / "docs/metrics.md").read_text(encoding="utf-8")
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(file: Path) -> Samples:
    """Every sample by its name and further labels."""
    from prometheus_client.parser import text_string_to_metric_families

    samples: Samples = {}
    for family in text_string_to_metric_families(file.read_text(encoding="utf-8")):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in ("hostname", "config")}
            key = (sample.name.removeprefix("nc_backup_"), tuple(sorted(labels.items())))
            assert key not in samples
            samples[key] = sample.value
    return samples


def metrics_of_run(
    folder: Path,
    status: Status = Status.OK,
    day: int = 0,
    *,
    bad_store: str = "",
    name: str = "DISK",
    state: bool = True,
) -> Samples:
    """What the file holds after the run of a day."""
    sections = [
        SectionResult("FILESET", "source", Result(status, "m", items=2, bytes=500), 1.5),
        SectionResult(name, "store", Result(status, "m", items=2, bytes=100), 1.5),
    ]
    stores = tuple(
        StoreResult(one, "local", Status.FAILED if one == bad_store else status, status.stored, 2)
        for one in (name, "BUCKET")
    )
    ran = status not in (Status.LOCKED, Status.REFUSED)
    result = RunResult("1", "srv-1", BEGIN + timedelta(days=day), 60.0, status)
    if ran:
        result = replace(result, sections=tuple(sections), stores=stores)
    file = folder / "nc-backup.prom"
    private = folder if state else None
    metrics.write(file, run_document(result), CONFIG, private, {"brt": "kept", "mail": "delivered"})
    return read(file)


def end_of_run(day: int) -> float:
    return (BEGIN + timedelta(days=day, seconds=60)).timestamp()


SUCCESS = ("last_success_timestamp_seconds", ())


def of_store(name: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    labels = (("kind", "local"), ("store", name))
    return ("store_last_success_timestamp_seconds", labels)


def test_the_figures_of_a_run(tmp_path: Path) -> None:
    samples = metrics_of_run(tmp_path)
    source = (("kind", "source"), ("section", "FILESET"))
    expected = {
        ("last_run_start_timestamp_seconds", ()): BEGIN.timestamp(),
        ("last_run_end_timestamp_seconds", ()): end_of_run(0),
        ("last_run_duration_seconds", ()): 60.0,
        ("last_run_exit_code", ()): 0.0,
        ("last_run_status", (("status", "ok"),)): 1.0,
        ("last_run_status", (("status", "failed"),)): 0.0,
        ("last_run_bytes", ()): 100.0,
        ("section_items", source): 2.0,
        ("section_bytes", source): 500.0,
        ("section_duration_seconds", source): 1.5,
        ("store_items", (("kind", "local"), ("store", "DISK"))): 2.0,
        ("report_delivered", (("channel", "brt"),)): 0.0,
        ("report_delivered", (("channel", "mail"),)): 1.0,
        SUCCESS: end_of_run(0),
        of_store("DISK"): end_of_run(0),
    }
    assert expected.items() <= samples.items()
    names = {name for name, _ in samples}
    assert names == {metric.removeprefix("nc_backup_") for metric in metrics.METRICS}


def test_the_page_has_every_metric() -> None:
    rows = [f"| `{name}` | {meaning} |" for name, meaning in metrics.METRICS.items()]
    assert "\n".join(rows) in PAGE


@pytest.mark.parametrize(
    "status", [status for status in Status if status.exit_code not in (0, 4, 5)]
)
@pytest.mark.parametrize("state", [True, False])
def test_the_success_does_not_move_with_a_run_that_failed(
    tmp_path: Path, status: Status, state: bool
) -> None:
    """With the private folder, and with nothing but the file itself."""
    metrics_of_run(tmp_path, state=state)
    samples = metrics_of_run(tmp_path, status, 1, state=state)
    assert (
        samples[SUCCESS]
        == samples[of_store("DISK")]
        == samples[of_store("BUCKET")]
        == end_of_run(0)
    )
    assert samples["last_run_end_timestamp_seconds", ()] == end_of_run(1)
    assert metrics_of_run(tmp_path, Status.UNCLEAN, 2, state=state)[SUCCESS] == end_of_run(2)


def test_each_store_has_its_success(tmp_path: Path) -> None:
    metrics_of_run(tmp_path)
    samples = metrics_of_run(tmp_path, day=1, bad_store="BUCKET")
    assert (samples[of_store("DISK")], samples[of_store("BUCKET")]) == (
        end_of_run(1),
        end_of_run(0),
    )


@pytest.mark.parametrize(
    "spoiled", ["", "nc_backup_last_success_timestamp_seconds{ NaN\n\x00", "-"]
)
def test_a_broken_file_does_not_lose_the_success(tmp_path: Path, spoiled: str) -> None:
    metrics_of_run(tmp_path)
    file = tmp_path / "nc-backup.prom"
    file.unlink() if spoiled == "-" else file.write_text(spoiled)
    assert metrics_of_run(tmp_path, Status.FAILED, 1)[SUCCESS] == end_of_run(0)


@pytest.mark.parametrize("spoiled", ["{", "[1]", '{"a": "x", "b": 1e999, "c": -1}'])
def test_a_broken_state_does_not_lose_it_either(tmp_path: Path, spoiled: str) -> None:
    metrics_of_run(tmp_path)
    (tmp_path / metrics.STATE).write_text(spoiled)
    assert metrics_of_run(tmp_path, Status.FAILED, 1)[SUCCESS] == end_of_run(0)


def test_without_a_success_there_is_no_time_of_one(tmp_path: Path) -> None:
    assert SUCCESS not in metrics_of_run(tmp_path, Status.FAILED)


def test_names_are_escaped(tmp_path: Path) -> None:
    name = 'a"b\\c\u20ac} 1'
    samples = metrics_of_run(tmp_path, name=name)
    assert samples[of_store(name)] == end_of_run(0)
    assert metrics_of_run(tmp_path, Status.FAILED, 1, name=name)[of_store(name)] == end_of_run(0)


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_the_file_is_readable_and_replaced_at_once(tmp_path: Path, umask: int) -> None:
    """A reader that opened it before still has the whole old one."""
    metrics_of_run(tmp_path)
    file = tmp_path / "nc-backup.prom"
    before = file.read_text()
    os.umask(umask)
    with file.open() as reader:
        metrics_of_run(tmp_path, day=1)
        assert reader.read() == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / metrics.STATE).stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [metrics.STATE, file.name]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("x")
    (tmp_path / "nc-backup.prom").symlink_to(victim)
    metrics_of_run(tmp_path)
    assert victim.read_text() == "x"


def test_what_cannot_be_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = RunResult("1", "srv-1", BEGIN, 1.0, Status.OK)
    file = tmp_path / "missing" / "x.prom"
    metrics.write(file, run_document(result), CONFIG, None, {})
    assert f"METRICS_FILE {file} not written: no such file or directory" in caplog.text
    (line,) = metrics.tested(file)
    assert (line.level.value, line.text) == ("BAD", f"METRICS_FILE: {file.parent} is not writable")
    assert f"install -d -o {os_works.user()} -m 0755 {file.parent}" in line.fix


@pytest.mark.needs("promtool")
def test_promtool_finds_nothing(tmp_path: Path) -> None:
    metrics_of_run(tmp_path)
    promtool = shutil.which("promtool")
    assert promtool
    text = (tmp_path / "nc-backup.prom").read_bytes()
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_runs_write_it(system: System) -> None:
    """A good run, then one whose config is wrong: the same series."""
    (system.source / "a").write_text("a")
    sections = {
        "FILESET": execute("filesbackup", FILESET_INCLUDE=str(system.source)),
        "STORAGE_LOCAL": execute("storage", DESTINATION="local"),
    }
    file = system.folder / "x.prom"
    system.configure(sections, STREAM="True", METRICS_FILE=str(file))
    done = system.run("-r")
    assert done.returncode == 0, done.stderr
    first = read(file)
    assert first["last_run_exit_code", ()] == 0
    sections["STORAGE_LOCAL"]["ACTION"] = "fly"
    system.configure(sections, METRICS_FILE=str(file))
    assert system.run("-r").returncode == 2
    second = read(file)
    assert second["last_run_exit_code", ()] == 2
    assert second[SUCCESS] == first[SUCCESS]
    assert second[of_store("STORAGE_LOCAL")] == first[of_store("STORAGE_LOCAL")]
    system.configure(sections, METRICS_FILE="figures.txt")
    assert "METRICS_FILE: " in system.run("-n").stderr
