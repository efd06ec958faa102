"""`backup.py --migrate`: an old config in today's form, whose plan is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, execute
from tools.config import migrate


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def old(system: System, **general: Any) -> None:
    """A config with one of each shape that is read otherwise than it is written."""
    sections = system.full_sections()
    sections["FILESET"] |= {"EXECUTABLE": "", "EXECUTE_WITH": "", "COMPRESSION_PROGRAM": "tar.gz"}
    sections["FILESET"]["PARAMETERS"] |= {"PPP": "AAA", "__READTHIS": "a comment"}
    sections["COMPRESSION"] = execute(
        "compression", OBJECTIVES=str(system.work / "files"), REMOVE_OBJECTIVES="True"
    )
    sections["ENCRYPTION"] = execute("encryption", KEY_FILE="key_file", FILE_SIZE="5M")
    sections["STORAGE_LOCAL"] = execute(
        "storage", DESTINATION="local", ACTION="upload", ARGS_DICT="{'LOCAL_BACKUP': 'relative'}"
    )
    cleanup = {"BUCKET": "b", "KEEP": {"DAILY": {"NUMBER": "7"}}}
    system.configure({**sections, "CLEANUP": cleanup, "__comment": "stays"}, **general)


def migrated(system: System) -> Path:
    done = system.run("--migrate", str(system.conf))
    assert done.returncode == 0, done.stderr
    new = system.folder / "elsewhere" / "new.json"
    new.parent.mkdir(mode=0o755, exist_ok=True)
    new.write_text(done.stdout)
    new.chmod(0o600)
    return new


def plan(system: System, path: Path) -> tuple[list[str], list[str]]:
    """The lines of -n, and its warnings."""
    done = system.run("-n", "-c", str(path))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_the_new_config_has_the_same_plan_and_no_warnings(system: System) -> None:
    """Issue 11 D: from another folder, too, relative paths notwithstanding."""
    old(system, SCHEDULE={"RUN1": "mon-sat"})
    before, warnings = plan(system, system.conf)
    assert len(warnings) == 9
    after, none = plan(system, migrated(system))
    assert (after, none) == (before, [])
    assert any(str(system.folder / "relative") in line for line in after)


def test_each_change_has_a_comment_and_comments_stay(system: System) -> None:
    """Issue 11 D: a `__` key beside every key that changed; a skipped section stays as one."""
    old(system, SCHEDULE={"RUN1": "mon-sat"})
    new = json.loads(migrated(system).read_text())
    assert new["__comment"] == "stays"
    assert new["__CLEANUP"]["KEEP"] == {"DAILY": {"NUMBER": "7"}}
    assert new["CLEANUP"]["NAME"] == "cleanup"
    assert new["CLEANUP"]["PARAMETERS"] == {"BUCKET": "b", "KEEP": {"DAILY": {"NUMBER": "7"}}}
    assert new["GENERAL"]["__SCHEDULE"]["RUN1"] == "mon-sat"
    assert set(new["FILESET"]) == {
        *("ACTION", "NAME", "__EXECUTABLE", "__EXECUTE_WITH", "__COMPRESSION_PROGRAM"),
        "PARAMETERS",
    }
    assert new["FILESET"]["PARAMETERS"]["__PPP"][1] == "AAA"
    assert new["FILESET"]["PARAMETERS"]["__READTHIS"] == "a comment"
    compression = new["COMPRESSION"]["PARAMETERS"]
    assert compression["TARGETS"] == compression["__OBJECTIVES"][1] == str(system.work / "files")
    assert new["ENCRYPTION"]["PARAMETERS"]["FILE_SIZE"] == "5"
    assert new["ENCRYPTION"]["PARAMETERS"]["KEY_FILE"] == str(system.key)
    store = new["STORAGE_LOCAL"]["PARAMETERS"]
    assert {"__ACTION", "__ARGS_DICT", "LOCAL_BACKUP"} < set(store)


def test_a_migrated_config_is_left_as_it_is(system: System) -> None:
    old(system)
    first = migrated(system)
    done = system.run("--migrate", str(first))
    assert done.stdout == first.read_text()
    assert done.stderr == ""


def test_secrets_stand_in_the_output_alone(system: System) -> None:
    """Issue 11 D: what is said of the changes holds no value."""
    store = execute("storage", DESTINATION="local", ARGS_DICT="{'LOCAL_BACKUP': '/hidden-4711'}")
    old(system, UNUSED_PASSWORD="hidden-4711")
    text = json.loads(system.conf.read_text())
    text["STORAGE_LOCAL"] = store
    text["MONGODB"] = {"ACTION": "load", "FROM": "mongo", "FILENAME": "mongo"}
    text["MONGODB"] |= {"CLASS": "MongoBackup", "PARAMETERS": {"MONGO_PWD": "hidden-4711"}}
    text["OLD"] = {"PASSWORD": "hidden-4711"}
    system.conf.write_text(json.dumps(text))
    before = sorted(system.folder.rglob("*"))
    done = system.run("--migrate", str(system.conf))
    assert done.returncode == 0
    assert done.stdout.count("hidden-4711") == 5
    assert "hidden" not in done.stderr
    assert sorted(system.folder.rglob("*")) == before


@pytest.mark.parametrize(
    "text", ["", "not JSON", '{"A": 1,}', "[1]", '{"A": {}, "A": {}}', "{}", "\xff"]
)
def test_what_is_no_config_is_one_line_and_nothing_else(system: System, text: str) -> None:
    """Issue 11 D: exit 2, nothing on standard output."""
    system.conf.write_bytes(text.encode("latin-1"))
    done = system.run("--migrate", str(system.conf))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]
    missing = system.run("--migrate", str(system.folder / "missing.json"))
    assert (missing.returncode, missing.stdout) == (2, "")


def test_what_keeps_the_new_config_from_running_is_said(system: System) -> None:
    """Issue 11 D: what is not built yet is named; the text is written all the same."""
    old(system)
    text = json.loads(system.conf.read_text())
    text["STORAGE"] = execute("storage", DESTINATION="gcs", BUCKET_NAME="b")
    text["GENERAL"]["MESSAGE_CONFIG_COMMAND"] = "https://reporter.<Change this>.com/"
    system.conf.write_text(json.dumps(text))
    done = system.run("--migrate", str(system.conf))
    assert done.returncode == 0
    assert json.loads(done.stdout)["STORAGE"]["PARAMETERS"]["DESTINATION"] == "gcs"
    assert "MESSAGE_CONFIG_COMMAND" not in json.loads(done.stdout)["GENERAL"]
    assert "cannot run yet" in done.stderr
    assert "gcs: unknown type of store" in done.stderr


def test_the_modules_of_another_copy_are_ours(system: System) -> None:
    """Every documented config names the folder of the code, where setup.py installs this one."""
    old(system)
    copy = system.folder / "copy"
    (copy / "tools").mkdir(parents=True)
    (copy / "storage").mkdir()
    for name in ("backup.py", "storage/storage.py"):
        (copy / name).write_text("")
    before = migrate.migrated(system.conf)
    text = json.loads(system.conf.read_text())
    text["GENERAL"]["HOME_FOLDER"] = str(copy)
    system.conf.write_text(json.dumps(text))
    after = migrate.migrated(system.conf)
    assert after.remaining is None
    assert len(after.changes) == len(before.changes) + 1  # none is lost
    migrated = json.loads(after.text)
    assert migrated["GENERAL"].pop("__HOME_FOLDER")[1] == str(copy)
    first = json.loads(before.text)
    del first["GENERAL"]["HOME_FOLDER"]  # that of this test
    assert migrated == first


def test_what_a_config_includes_is_merged_into_the_new_one(system: System) -> None:
    old(system)
    parts = system.folder / "parts"
    parts.mkdir(mode=0o755)
    document = json.loads(system.conf.read_text())
    (parts / "general.json").write_text(json.dumps({"GENERAL": document.pop("GENERAL")}))
    system.conf.write_text(json.dumps({"INCLUDE": ["parts/general.json"], **document}))
    new = migrated(system)
    assert "INCLUDE" not in json.loads(new.read_text())
    assert plan(system, new)[0] == plan(system, system.conf)[0]
