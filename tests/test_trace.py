"""Issue 11 A12 and E: what a run leaves in the log, on the terminal and in its JSON."""

from __future__ import annotations

import re
from datetime import datetime

import pytest

from tests.system import System, execute
from tools.reporting import terminal

STREAMS = pytest.mark.parametrize("stream", ["True", "False"], ids=["streamed", "staged"])


@pytest.mark.parametrize(
    ("level", "stream"),
    [("debug", "False"), ("info", "True"), ("warning", "False"), ("critical", "True")],
)
def test_one_summary_line_at_every_level(system: System, level: str, stream: str) -> None:
    """A12: run ID, outcome, bytes and seconds."""
    (system.source / "file").write_text("content")
    system.configure(system.full_sections(), STREAM=stream)
    result = system.result("-l", level)
    lines = [line for line in system.log.read_text().splitlines() if " - run " in line]
    (line,) = lines
    pattern = rf"run {result['run_id']}: ok, {result['bytes']} bytes, \d+\.\d s, exit 0$"
    assert re.search(pattern, line), line
    assert result["bytes"] > 0


@STREAMS
def test_a_failed_run_is_summarised_too(system: System, stream: str) -> None:
    """A12: the sections that failed are named."""
    fileset = execute("filesbackup", FILESET_INCLUDE="/nowhere/at")
    system.configure(system.full_sections(FILESET=fileset), STREAM=stream)
    result = system.result("-l", "critical")
    (line,) = [line for line in system.log.read_text().splitlines() if " - run " in line]
    assert f"run {result['run_id']}: failed, 0 bytes" in line
    assert "exit 1, failed: FILESET" in line


def test_sections_and_masked_arguments_of_a_streamed_run(system: System) -> None:
    """A12: at INFO the log shows each section's number, name and arguments."""
    (system.source / "file").write_text("content")
    sections = system.full_sections(ENCRYPTION=execute("encryption", PASSPHRASE="hunter2-secret"))
    system.configure(sections, STREAM="True")
    assert system.run("-r", "-l", "info").returncode == 0
    text = system.log.read_text()
    assert "hunter2" not in text
    for number, name in enumerate(sections, 1):
        assert f"Section {number}: {name}." in text
    assert re.search(r"FILESET is a source of the stream: .*--FILESET_INCLUDE", text)
    assert re.search(r"COMPRESSION is a stage of the stream: .*compression\.py", text)
    assert re.search(r"STORAGE_LOCAL is a store of the stream: .*--DESTINATION local", text)


def test_verbose_prints_the_log(system: System) -> None:
    """A12: -v prints the log to the terminal, whatever the level of the file is."""
    (system.source / "file").write_text("content")
    system.configure(system.full_sections(), STREAM="True")
    done = system.run("-r", "-v")
    assert "INFO - Section 1: FILESET." in done.stderr
    assert re.search(r"INFO - run \d{8}_\d{6}: ok", done.stderr)
    assert "Section 1" not in system.log.read_text()
    assert system.run("-r").stderr == ""


def test_times_and_bytes_in_json(system: System) -> None:
    """E: UTC times and bytes; stages and stores show their own share of the time."""
    (system.source / "file").write_bytes(b"0123456789" * 1_000_000)
    system.configure(system.full_sections(), STREAM="True")
    result = system.result()
    begin, end = (datetime.fromisoformat(result[key]) for key in ("begin", "end"))
    assert begin.utcoffset() == end.utcoffset()
    assert begin.utcoffset() is not None
    assert begin <= end
    seconds = {step["name"]: step["seconds"] for step in result["sections"]}
    assert all(seconds[name] > 0 for name in ("COMPRESSION", "ENCRYPTION", "STORAGE_LOCAL"))
    assert seconds["COMPRESSION"] <= seconds["FILESET"] + 0.1


def test_hints_stand_below_their_error_and_warnings_have_one_prefix(system: System) -> None:
    """E: each hint follows its own error; a warning does not repeat the section's name."""
    (system.source / "empty").mkdir()
    (system.source / "file").write_text("content")
    system.module("bad", "import sys; print('no disk', file=sys.stderr); sys.exit(9)")
    fileset = execute("filesbackup", FILESET_INCLUDE=f"{system.source} {system.source}/empty")
    system.configure(
        {"OTHER": execute("bad"), **system.full_sections(FILESET=fileset)}, STREAM="True"
    )
    lines = system.run().stderr.splitlines()
    assert lines[0].startswith("error: OTHER: ")
    assert lines[1] == "hint: no disk"
    assert lines[2] == f"warning: FILESET: {system.source}/empty: empty folder"
    assert len(lines) == 3, lines


def test_dry_run_says_how_the_data_flow(system: System) -> None:
    """E: -n of a streamed run names its way from the sources into the stores."""
    (system.source / "file").write_text("content")
    system.configure(system.full_sections(), STREAM="True")
    text = system.run("-n").stdout
    assert "streamed run: FILESET -> COMPRESSION + ENCRYPTION -> STORAGE_LOCAL" in text
    system.configure(system.full_sections(), STREAM="False")
    assert "staged run" in system.run("-n").stdout


@pytest.mark.parametrize(
    ("done", "total", "speed", "text"),
    [
        (0, None, None, "elapsed 2.0 s"),
        (1 << 20, 4 << 20, 1 << 19, "1.00 MB of about 4.00 MB, 512.00 KB/s, elapsed 2.0 s, "),
        (5 << 20, 4 << 20, 1 << 19, "5.00 MB, 512.00 KB/s, elapsed 2.0 s"),
    ],
)
def test_progress_in_one_unit_system(
    done: int, total: int | None, speed: int | None, text: str
) -> None:
    """E: a total from the last run, the same units everywhere, the time labelled."""
    line = terminal.progress_text(done, total, speed, 2.0)
    assert line.startswith(text)
    assert ("left" in line) is (total is not None and total > done)
