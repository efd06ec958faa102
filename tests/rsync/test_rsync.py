from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rsync.rsync import Options
from tests.system import System
from tools.base import project
from tools.base.errors import ConfigError
from tools.config import loading
from tools.modules import options


def section(**commands: Any) -> dict[str, Any]:
    """The documented section."""
    return {
        "ACTION": "load",
        "FROM": "rsync",
        "FILENAME": "rsync",
        "CLASS": "RsyncBackup",
        "PARAMETERS": {"LOG_INTERNAL": "yes", "ORIGIN_AND_TARGETS_PARAMS": commands},
    }


def arguments(command: object) -> list[str]:
    parameters = {"ORIGIN_AND_TARGETS_PARAMS": json.dumps({"ONE": command})}
    return options.fill(Options, parameters).commands["ONE"]


@pytest.mark.needs("rsync")
def test_commands_run_in_order_and_are_logged(system: System) -> None:
    """A config with no other section, as the historic ones: rsync alone copies."""
    (system.source / "a b").write_text("content")
    copy = system.folder / "copy"
    system.configure(
        {
            "RSYNC": section(
                FIRST=f"rsync -a --itemize-changes '{system.source}/' {copy}/",
                SECOND=["sh", "-c", 'echo "$0"; cp "$1" "$2"', "$HOME *", *two(copy)],
            )
        }
    )
    result = system.result("-l", "INFO")
    assert result["exit_code"] == 0
    assert result["sections"][0]["message"] == "2 commands"
    assert (copy / "again").read_text() == "content"
    log = system.log.read_text()
    assert "FIRST: >f+++++++++ a b" in log
    assert "SECOND: $HOME *" in log


def two(copy: Path) -> tuple[str, str]:
    return str(copy / "a b"), str(copy / "again")


@pytest.mark.fault("command of the rsync plugin fails", "the rest is not run, the section fails")
def test_the_first_failure_ends_the_section(system: System) -> None:
    (system.source / "file").write_text("content")
    mark = system.folder / "mark"
    sections = {
        "SNAPSHOT": section(GOOD=f"touch {mark}-1", BAD="ls /not/there", NEVER=f"touch {mark}-2"),
        **system.short(),
    }
    system.configure(sections)
    result = system.result()
    assert result["exit_code"] == 1
    failed = result["sections"][0]
    assert failed["message"] == "BAD: ls ended with exit code 2"
    assert "No such file or directory" in failed["hint"]
    assert system.manifest()["run_id"]  # the sources are stored
    assert [path.name for path in system.folder.glob("mark*")] == ["mark-1"]


def test_vanished_files_are_a_warning(system: System) -> None:
    fake = system.folder / "bin/rsync"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho file has vanished >&2\nexit 24\n")
    fake.chmod(0o755)
    system.configure({"RSYNC": section(ONE=f"{fake} -a x y", TWO="true")})
    result = system.result()
    assert result["exit_code"] == 3
    assert "ONE: rsync: source files vanished" in str(result["sections"][0]["warnings"])


@pytest.mark.parametrize("stream", ["True", "False"])
def test_a_snapshot_is_there_while_the_source_is_read(system: System, stream: str) -> None:
    """As the historic config with LVM: made before the fileset, and removed after it is stored."""
    mounted = system.folder / "mounted"
    sections = system.short()
    sections["FILESET"]["PARAMETERS"]["FILESET_INCLUDE"] = str(mounted)
    (system.source / "file").write_text("content")
    sections = {
        "LVMSNAPSHOT": section(MOUNT=f"cp -r {system.source} {mounted}"),
        **sections,
        "CLEANUPLVM": section(UMOUNT=f"rm -r {mounted}"),
    }
    system.configure(sections, STREAM=stream)
    assert system.result()["exit_code"] == 0
    assert not mounted.exists()
    (restored,) = system.restored().rglob("file")
    assert restored.read_text() == "content"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("a 'b c' --rsh 'ssh -p 22' \"d\"", ["a", "b c", "--rsh", "ssh -p 22", "d"]),
        ("echo 'a | b' '$(id)' $HOME *", ["echo", "a | b", "$(id)", "$HOME", "*"]),
        (["sh", "-c", "a | b"], ["sh", "-c", "a | b"]),
        (["one word"], ["one", "word"]),
    ],
)
def test_a_command_line_is_split_without_a_shell(command: object, expected: list[str]) -> None:
    assert arguments(command) == expected


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("a | b", r"ONE: \|: commands are run without a shell"),
        ("a && b", "ONE: &&: commands"),
        ("a > b", "ONE: >: commands"),
        ("a 'b", "no closing quotation"),
        ("", "ONE: is empty"),
        ([], "ONE: is empty"),
        (5, "ORIGIN_AND_TARGETS_PARAMS"),
    ],
)
def test_what_only_a_shell_could_run(command: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        arguments(command)


def test_no_commands_and_a_missing_program_are_named(system: System) -> None:
    system.configure({"RSYNC": section()})
    with pytest.raises(ConfigError, match="no commands"):
        loading.load(system.conf)
    system.configure({"RSYNC": section(ONE="no-such-program -a")})
    done = system.run("-t")
    assert done.returncode == 1
    assert "ONE: no-such-program: command not found" in done.stdout + done.stderr
    assert project.ROOT.exists()
