"""BEFORE, AFTER, ON_FAILURE and FINALLY of runs and sections; NICE and IONICE."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, execute, wait_for
from tools.base.errors import BackupError, Cancelled, ConfigError
from tools.base.result import Result, Status
from tools.config.declarations import Hooks
from tools.config.model import Config, Section
from tools.engine import hooks, priority
from tools.engine.hooks import Outcome, RunHooks
from tools.modules import options
from tools.modules.options import Commands

KEYS = ("BEFORE", "AFTER", "ON_FAILURE", "FINALLY")
TELL = """#!/bin/sh
echo "$NC_BACKUP_EVENT $NC_BACKUP_SECTION $NC_BACKUP_STATUS $NC_BACKUP_EXIT_CODE" >> {told}
test "$NC_BACKUP_SECTION$NC_BACKUP_EVENT" != "$1"
"""


@pytest.fixture
def teller(system: System) -> Path:
    """A program that writes down when it was called; it fails for one section and event."""
    program = system.folder / "tell"
    program.write_text(TELL.format(told=system.folder / "told"))
    program.chmod(0o755)
    return program


def events(system: System) -> list[str]:
    return [line.strip() for line in (system.folder / "told").read_text().splitlines()]


def hooked(teller: Path, fails: str = "") -> dict[str, Any]:
    """All keys, each with the program; fails: section and event for which it fails."""
    return {key: [[str(teller), fails]] for key in KEYS}


def sections(system: System, teller: Path, fails: str = "") -> dict[str, Any]:
    hooks = hooked(teller, fails)
    config = {
        "FILESET": execute("filesbackup", FILESET_INCLUDE=str(system.source)),
        "STORAGE_LOCAL": execute(
            "storage", DESTINATION="local", TARGETS=str(system.work / "files")
        ),
    }
    return {name: {**section, **hooks} for name, section in config.items()}


ORDER = [
    "before",
    "before STORAGE_LOCAL",
    "before FILESET",
    "after FILESET ok 0",
    "finally FILESET ok 0",
    "after STORAGE_LOCAL ok 0",
    "finally STORAGE_LOCAL ok 0",
    "after  ok 0",
    "finally  ok 0",
]


@pytest.mark.parametrize("stream", ["True", "False"])
def test_in_this_order(system: System, teller: Path, stream: str) -> None:
    (system.source / "a").write_text("a")
    system.configure(sections(system, teller), STREAM=stream, **hooked(teller))
    result = system.result()
    assert result["exit_code"] == 0, result
    assert events(system) == ORDER
    output = system.run("-n").stdout
    assert output.count(f"BEFORE: {teller}") == 3


@pytest.mark.parametrize("stream", ["True", "False"])
@pytest.mark.fault("a command before a store fails", "this store takes no part, FINALLY runs")
def test_a_failing_before_of_a_store(system: System, teller: Path, stream: str) -> None:
    (system.source / "a").write_text("a")
    fails = "STORAGE_LOCALbefore"
    system.configure(sections(system, teller, fails), STREAM=stream, **hooked(teller))
    result = system.result()
    assert result["exit_code"] == 1
    assert f"BEFORE {teller} ended with exit code 1" in json.dumps(result)
    lines = events(system)
    assert "on_failure STORAGE_LOCAL failed 1" in lines
    assert "finally STORAGE_LOCAL failed 1" in lines
    assert lines[-2:] == ["on_failure  failed 1", "finally  failed 1"]
    assert not system.names()


def test_a_failing_before_of_a_stage_stores_nothing(system: System, teller: Path) -> None:
    (system.source / "a").write_text("a")
    config = sections(system, teller)
    stage = {**execute("compression"), **hooked(teller, "COMPRESSIONbefore")}
    system.configure({**config, "COMPRESSION": stage}, STREAM="True")
    result = system.result()
    assert result["exit_code"] == 1
    statuses = {one["name"]: one["status"] for one in result["sections"]}
    assert statuses["COMPRESSION"] == statuses["FILESET"] == "failed"
    assert not system.stored()
    lines = events(system)
    assert "before FILESET" not in lines or "on_failure FILESET failed 1" in lines
    assert "finally COMPRESSION failed 1" in lines


@pytest.mark.fault("a command before the run fails", "nothing runs, exit 1, FINALLY runs")
def test_a_failing_before_of_the_run(system: System, teller: Path) -> None:
    system.configure(sections(system, teller), **hooked(teller, "before"))
    result = system.result()
    assert result["exit_code"] == 1
    assert result["message"] == f"BEFORE {teller} ended with exit code 1"
    assert events(system) == ["before", "on_failure  failed 1", "finally  failed 1"]
    assert not system.store.exists()


def test_a_failing_finally_is_a_warning(system: System, teller: Path) -> None:
    (system.source / "a").write_text("a")
    system.configure(
        sections(system, teller, "FILESETfinally"), STREAM="True", **hooked(teller, "after")
    )
    result = system.result()
    assert result["exit_code"] == 3
    texts = [problem["text"] for problem in result["problems"]]
    assert texts == [
        f"FINALLY {teller} ended with exit code 1",
        f"AFTER {teller} ended with exit code 1",
    ]
    assert [problem["section"] for problem in result["problems"]] == ["FILESET", "GENERAL"]
    assert events(system)[-1] == "finally  incomplete 3"  # FINALLY of FILESET has failed before
    assert system.stored()


@pytest.mark.fault("SIGTERM while a section runs", "ON_FAILURE and FINALLY run, exit 143")
def test_finally_runs_after_a_signal(system: System, teller: Path) -> None:
    slow = system.script("slow", "sleep 60\n")
    system.configure({"SLOW": {**slow, **hooked(teller)}}, **hooked(teller))
    with subprocess.Popen(system.command("-r"), stderr=subprocess.DEVNULL) as run:
        wait_for(system.folder / "told")
        while len(events(system)) < 2:
            time.sleep(0.05)
        time.sleep(0.3)
        run.send_signal(signal.SIGTERM)
        assert run.wait(30) == 143
    assert events(system) == [
        "before",
        "before SLOW",
        "on_failure SLOW terminated 143",
        "finally SLOW terminated 143",
        "on_failure  terminated 143",
        "finally  terminated 143",
    ]


def test_another_run_holds_the_lock(system: System, teller: Path) -> None:
    (system.work / ".nc-backup-py").mkdir(parents=True, mode=0o700)
    holder = (
        "import sys, time; from pathlib import Path; from tools.base import lock\n"
        f"with lock.hold(Path({str(system.work)!r}) / '.nc-backup-py/lock'):\n"
        "    print('held', flush=True); time.sleep(30)"
    )
    system.configure(sections(system, teller), **hooked(teller))
    root = str(Path(hooks.__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", holder], cwd=root, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert system.run("-r").returncode == 11
        process.kill()
    assert not (system.folder / "told").exists()


def test_a_missing_program_is_found_by_t(system: System, teller: Path) -> None:
    (system.source / "a").write_text("a")
    system.configure(
        sections(system, teller),
        BEFORE=["/no/such/program"],
        FINALLY=[["true"], ["no-such-command", "-x"]],
    )
    done = system.run("-t")
    assert done.returncode == 1
    text = done.stdout + done.stderr
    for key, name in (("BEFORE", "/no/such/program"), ("FINALLY", "no-such-command")):
        assert f"{key}: {name}: command not found, or it cannot be executed" in text


def test_a_program_that_others_can_change_is_rejected(system: System, teller: Path) -> None:
    system.configure(sections(system, teller), **hooked(teller))
    teller.chmod(0o777)
    done = system.run("-r")
    assert done.returncode == 2
    assert "GENERAL.BEFORE: " in done.stderr
    assert "is writable by everybody" in done.stderr
    assert not (system.folder / "told").exists()


# --- without a whole run


def runner(tmp_path: Path, timeout: float = 20.0, **commands: Any) -> RunHooks:
    (tmp_path / "conf.json").touch()
    general = options.fill(
        hooks_general(),
        {"HOSTNAME": "srv-x1", "HOOK_TIMEOUT": str(timeout)},
    )
    general = dataclasses.replace(general, **commands)
    return RunHooks(Config(tmp_path / "conf.json", general, {}, ()), lambda: "20260101_030000")


def hooks_general() -> Any:
    from tools.config.declarations import General

    return General


def shell(*scripts: str) -> Commands:
    return tuple(("sh", "-c", script) for script in scripts)


@pytest.mark.fault("a command before or after hangs", "it is ended with all that it started")
def test_a_command_that_hangs_is_ended_as_a_whole(tmp_path: Path) -> None:
    script = f"sleep 61 & echo $! > {tmp_path}/pid; wait"
    run_hooks = runner(tmp_path, 0.5, before=shell(script))
    with pytest.raises(BackupError, match="took longer than HOOK_TIMEOUT"):
        run_hooks.begin()
    child = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 5
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < until or "Z" in Path(f"/proc/{child}/stat").read_text()
        time.sleep(0.02)


def test_the_environment_holds_facts_and_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "s3cret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    run_hooks = runner(tmp_path, finally_=shell(f"env > {tmp_path}/env"))
    run_hooks.begin()
    assert run_hooks.end(Outcome(Status.FAILED, "a\nmessage \x1b[31m")) == []
    text = (tmp_path / "env").read_text()
    assert "s3cret" not in text
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    facts = {key: value for key, value in lines.items() if key.startswith("NC_BACKUP_")}
    assert facts == {
        "NC_BACKUP_EVENT": "finally",
        "NC_BACKUP_RUN_ID": "20260101_030000",
        "NC_BACKUP_HOSTNAME": "srv-x1",
        "NC_BACKUP_SECTION": "",
        "NC_BACKUP_STATUS": "failed",
        "NC_BACKUP_EXIT_CODE": "1",
        "NC_BACKUP_MESSAGE": "a\\nmessage \\x1b[31m",
    }


def test_the_next_command_runs_although_one_failed(tmp_path: Path) -> None:
    run_hooks = runner(
        tmp_path,
        after=shell("echo why >&2; exit 7", f"touch {tmp_path}/second"),
        finally_=(("/no/such/program",),),
    )
    run_hooks.begin()
    failures = run_hooks.end(Outcome(Status.OK))
    assert (tmp_path / "second").exists()
    assert failures[0] == "AFTER sh ended with exit code 7: why"
    assert "/no/such/program" in failures[1]
    assert run_hooks.end(Outcome(Status.OK)) == []


def test_a_section_that_was_entered_is_left_at_the_end(tmp_path: Path) -> None:
    run_hooks = runner(tmp_path)
    of_it = Hooks(
        before=shell("true"), finally_=shell(f"echo $NC_BACKUP_SECTION > {tmp_path}/left")
    )
    section = Section("DB", "conf.json:1", "execute", Path("x"), hooks=of_it)
    run_hooks.begin()
    assert run_hooks.enter(section) is None
    assert run_hooks.end(Outcome(Status.TERMINATED)) == []
    assert (tmp_path / "left").read_text() == "DB\n"
    assert run_hooks.leave(section, Result(Status.OK, "")) == Result(Status.OK, "")


def test_a_signal_during_a_last_command_comes_after_it(tmp_path: Path) -> None:
    """A command after the run can be ended by signals: what is ignored would be inherited."""
    from tools.base import signals

    before = {number: signal.getsignal(number) for number in signals._CAUGHT}
    script = f"kill -TERM {os.getpid()}; sleep 0.2; touch {tmp_path}/done; kill -TERM $$; sleep 9"
    run_hooks = runner(tmp_path, after=shell(script))
    try:
        signals.catch()
        run_hooks.begin()
        with pytest.raises(Cancelled):
            run_hooks.end(Outcome(Status.OK))
        assert (tmp_path / "done").exists()
    finally:
        signals._deferral.caught = signals._deferral.pending = 0
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_failure_makes_a_success_incomplete(tmp_path: Path) -> None:
    assert hooks.noted(Result(Status.OK, ""), []).status is Status.OK
    assert hooks.noted(Result(Status.OK, ""), ["x"]).status is Status.INCOMPLETE
    assert hooks.noted(Result(Status.FAILED, ""), ["x"]).status is Status.FAILED
    assert hooks.noted(Result(Status.UNCLEAN, ""), ["x"]).status is Status.INCOMPLETE


@pytest.mark.parametrize(
    ("value", "commands"),
    [
        ([["systemctl", "stop", "a b"], ["x"]], (("systemctl", "stop", "a b"), ("x",))),
        (["systemctl", "stop"], (("systemctl", "stop"),)),
        ([], ()),
        ("systemctl stop", None),
        ([["x"], "y"], None),
        ([[]], None),
        ([[" "]], None),
        ([["x", 5]], None),
        ([["x\0"]], None),
        ({"x": 1}, None),
    ],
)
def test_argument_lists(value: object, commands: object) -> None:
    from tools.config.declarations import SectionKeys

    texts = options.texts(SectionKeys, {"ACTION": "execute", "FINALLY": value})
    if commands is not None:
        assert options.fill(SectionKeys, texts).finally_ == commands
        return
    with pytest.raises(ConfigError, match=r"FINALLY: not a list of argument lists") as caught:
        options.fill(SectionKeys, texts)
    assert "No shell" in caught.value.hint


# --- priority


@pytest.mark.parametrize(
    ("key", "value"),
    [("NICE", "20"), ("NICE", "-5"), ("NICE", "low"), ("IONICE", "realtime"), ("IONICE", "idle:3")],
)
def test_an_invalid_priority_is_rejected(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key):
        options.fill(hooks_general(), {"HOSTNAME": "x", key: value})


@pytest.mark.needs("ionice")
def test_the_priority_of_a_run_is_inherited(system: System) -> None:
    (system.source / "a").write_text("a")
    script = f"nice > {system.folder}/nice; ionice -p $$ > {system.folder}/ionice"
    plain = {"FILESET": execute("filesbackup", FILESET_INCLUDE=str(system.source))}
    plain["STORAGE_LOCAL"] = execute("storage", DESTINATION="local")
    system.configure(
        plain, STREAM="True", NICE="7", IONICE="best-effort:6", BEFORE=["sh", "-c", script]
    )
    assert system.result()["exit_code"] == 0
    assert (system.folder / "nice").read_text() == "7\n"
    assert (system.folder / "ionice").read_text() == "best-effort: prio 6\n"


def test_a_refused_priority_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "setpriority", refused)
    monkeypatch.setenv("PATH", "/nonexistent")
    general = options.fill(hooks_general(), {"HOSTNAME": "x", "NICE": "5", "IONICE": "idle"})
    with caplog.at_level("WARNING"):
        priority.lower(general)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "NICE: 5: permission denied"
    assert lines[1].startswith("IONICE: idle: ionice: command not found")
    assert len(lines) == 2
