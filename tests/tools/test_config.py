from __future__ import annotations

import json
import os
import random
import string
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, execute
from tools.base import project
from tools.base.errors import ConfigError
from tools.config import loading


@pytest.fixture
def system(tmp_path: Path) -> System:
    new_system = System(tmp_path)
    new_system.module("own", "")
    return new_system


def refused(
    system: System, says: str, sections: dict[str, Any] | None = None, **general: Any
) -> ConfigError:
    path = system.configure({"A": execute("own")} if sections is None else sections, **general)
    with pytest.raises(ConfigError, match=says) as caught:
        loading.load(path)
    assert str(path) in str(caught.value)
    return caught.value


def test_sections_in_the_files_order_wherever_general_stands(system: System) -> None:
    text = {"B": execute("own"), "GENERAL": system.general, "A": execute("own")}
    system.conf.write_text(json.dumps(text))
    loaded = loading.load(system.conf)
    assert [section.name for section in loaded.sections] == ["B", "A"]
    assert loaded.general.hostname == "srv-test"
    assert loaded.handed["HOSTNAME"] == "srv-test"


def test_lists_texts_aliases_booleans_slashes_and_relative_paths(system: System) -> None:
    system.configure(
        {
            "A": execute("compression", OBJECTIVES="in/a/ /b", REMOVE_OBJECTIVES=False),
            "B": execute("compression", TARGETS=["in/a", "/b c/"], REMOVE_TARGETS="false"),
        },
        LOCAL_BACKUP="store/",
        WORK_FOLDER="./work/",
    )
    first, second = loading.load(system.conf).sections
    here = str(system.folder)
    assert first.parameters["TARGETS"] == [f"{here}/in/a", "/b"]
    assert second.parameters["TARGETS"] == [f"{here}/in/a", "/b c"]
    assert "REMOVE_TARGETS" in first.parameters
    loaded = loading.load(system.conf)
    assert loaded.handed["LOCAL_BACKUP"] == f"{here}/store"
    assert loaded.general.work_folder == system.folder / "work"


@pytest.mark.parametrize(
    ("section", "says", "hint"),
    [
        ({}, r"conf.json:\d+: A.ACTION is missing", '"execute" or "load"'),
        ({"ACTION": ""}, r"conf.json:\d+: A.ACTION is missing", '"execute" or "load"'),
        ({"ACTION": "fly"}, r"A.ACTION: 'fly': invalid value", "execute, load"),
        ({"ACTION": "execute"}, r"A.NAME: is missing", ""),
        ({"ACTION": "execute", "NAME": "../own"}, r"A.NAME: '../own': invalid name", ""),
        ({"ACTION": "execute", "NAME": "nothing"}, r"no such module", "HOME_FOLDER"),
        ({"ACTION": "execute", "NAME": "own", "EXECUTABLE": "a/b"}, r"EXECUTABLE", ""),
        ({"ACTION": "load", "FROM": "own", "FILENAME": "own"}, r"A.CLASS: is missing", ""),
        (
            {"ACTION": "execute", "NAME": "own", "NAMED": 1},
            r"A.NAMED: unknown key",
            "Did you mean NAME",
        ),
        (
            {"ACTION": "execute", "NAME": "own", "NEEDS": "B"},
            r"A.NEEDS: no section B before",
            "Move A after",
        ),
        (
            {"ACTION": "execute", "NAME": "own", "NEEDS": ["A"]},
            r"A.NEEDS: no section A before",
            "",
        ),
        ({"ACTION": "execute", "NAME": "own", "ON_ERROR": "weep"}, r"A.ON_ERROR: 'weep'", "stop"),
        (
            {"ACTION": "execute", "NAME": "own", "TIMEOUT": "soon"},
            r"A.TIMEOUT: 'soon' is not a dur",
            "",
        ),
        (
            {"ACTION": "execute", "NAME": "own", "PARAMETERS_MODE": "x"},
            r"A.PARAMETERS_MODE",
            "flat",
        ),
        (
            {"ACTION": "execute", "NAME": "own", "PARAMETERS": []},
            r"A.PARAMETERS: must be an object",
            "",
        ),
        ({"ACTION": "execute", "NAME": "own", "PARAMETERS": {"a b": 1}}, r"'a b'", ""),
        (
            {"ACTION": "execute", "NAME": "own", "STREAM": "source"},
            r"A.STREAM: STREAM of GENERAL is False",
            "GENERAL",
        ),
        (execute("compression", LEVL=3), r"A.PARAMETERS.LEVL: unknown key", "Did you mean LEVEL"),
        (execute("compression", LEVEL="x"), r"A.PARAMETERS.LEVEL: 'x' is not a whole number", ""),
        (
            execute("compression", LEVEL=99),
            r"A.PARAMETERS.LEVEL: 99 is not a level of zstd",
            "1 to 19",
        ),
        (
            execute("storage", DESTINATION="gcs"),
            r"A.PARAMETERS.DESTINATION: gcs: unknown type of store",
            "local",
        ),
        (
            execute("filesbackup", FILESET_INCLUDE="/"),
            r"A.PARAMETERS.FILESET_INCLUDE: / (cannot|is not)",
            "",
        ),
        (
            {**execute("compression"), "PARAMETERS_MODE": "flat"},
            r"flat is only for user-defined modules",
            "",
        ),
    ],
)
def test_a_bad_section_is_named_with_file_line_and_key(
    system: System, section: dict[str, Any], says: str, hint: str
) -> None:
    assert hint in refused(system, says, {"A": section}).hint


@pytest.mark.parametrize(
    ("general", "says"),
    [
        ({"HOSTNAME": ""}, "HOSTNAME"),
        ({"HOSTNAME": "a/b"}, "GENERAL.HOSTNAME: must not"),
        ({"HOSTNAME": ".."}, "GENERAL.HOSTNAME"),
        ({"HOSTNAM": "x"}, "GENERAL.HOSTNAM: unknown key"),
        ({"DISK_SPACE_CHECK": "perhaps"}, "GENERAL.DISK_SPACE_CHECK: 'perhaps' is not"),
        ({"DISK_SPACE_THRESHOLD": "120"}, "DISK_SPACE_THRESHOLD"),
        ({"MESSAGE_CONFIG_METHOD": "get"}, "MESSAGE_CONFIG_METHOD: 'get': must be post"),
        ({"HOME_FOLDER": "/not/there"}, "GENERAL.HOME_FOLDER: /not/there: not a directory"),
        ({"MESSAGE_CONFIG_COMMAND": "ftp://x/y"}, "GENERAL.MESSAGE_CONFIG_COMMAND: must be"),
        (
            {"MESSAGE_CONFIG_COMMAND": "https://u:hunter2@x/"},
            "GENERAL.MESSAGE_CONFIG_COMMAND: URL contains",
        ),
        ({"MAX_RUNTIME": "-1"}, "GENERAL.MAX_RUNTIME"),
        ({"LOG_SIZE": 0}, "GENERAL.LOG_SIZE: 0 is less than 1"),
        ({"STREAM": "perhaps"}, r"GENERAL.STREAM: 'perhaps' is not"),
        ({"PARALLEL": "0"}, r"GENERAL.PARALLEL: 0 is less than 1"),
        ({"STALL_TIMEOUT": "0"}, r"STALL_TIMEOUT"),
    ],
)
def test_a_bad_general_is_named(system: System, general: dict[str, Any], says: str) -> None:
    refused(system, says, **general)


def test_the_line_is_that_of_the_key(system: System) -> None:
    system.configure({"A": execute("compression", LEVL=3)})
    line = 1 + next(
        n for n, text in enumerate(system.conf.read_text().splitlines()) if "LEVL" in text
    )
    with pytest.raises(ConfigError, match=f"conf.json:{line}: A.PARAMETERS.LEVL"):
        loading.load(system.conf)


def test_an_unknown_key_of_general_is_handed_on_with_a_warning(system: System) -> None:
    loaded = loading.load(system.configure({"A": execute("own")}, OUR_OWN_THING="x"))
    assert loaded.handed["OUR_OWN_THING"] == "x"
    assert any("OUR_OWN_THING" in warning for warning in loaded.warnings)


def test_a_literal_secret_works_with_a_warning_that_does_not_show_it(system: System) -> None:
    loaded = loading.load(
        system.configure({"A": execute("own", DB_PASSWORD="hunter2", KEY_FILE="/k")})
    )
    (warning,) = loaded.warnings
    assert "A.PARAMETERS.DB_PASSWORD" in warning
    assert "hunter2" not in warning
    assert not loading.load(system.configure({"A": execute("own", DB_PASSWORD="env:X")})).warnings


def test_percent_and_numbers_are_read(system: System) -> None:
    loaded = loading.load(
        system.configure({"A": execute("own")}, DISK_SPACE_THRESHOLD="15%", MAX_RUNTIME="2h")
    )
    assert loaded.general.disk_space_threshold == 15
    assert float(loaded.general.max_runtime or 0) == 7200


def test_include_merges_key_by_key_and_the_including_file_wins(system: System) -> None:
    parts = system.folder / "parts"
    parts.mkdir()
    (parts / "base.json").write_text(
        json.dumps(
            {
                "GENERAL": {**system.general, "HOSTNAME": "base", "LOCAL_BACKUP": "store"},
                "A": execute("own", X="base", Y="base"),
                "B": execute("own"),
            }
        )
    )
    system.conf.write_text(
        json.dumps(
            {
                "INCLUDE": ["parts/base.json"],
                "C": execute("own"),
                "A": {"PARAMETERS": {"X": "mine"}},
                "GENERAL": {"HOSTNAME": "mine"},
            }
        )
    )
    loaded = loading.load(system.conf)
    assert [section.name for section in loaded.sections] == ["A", "B", "C"]
    assert loaded.sections[0].parameters == {"X": "mine", "Y": "base"}
    assert loaded.general.hostname == "mine"
    assert loaded.handed["LOCAL_BACKUP"] == str(parts / "store")


def test_an_include_that_goes_in_circles_or_is_missing(system: System) -> None:
    other = system.folder / "other.json"
    other.write_text('{"INCLUDE": ["conf.json"]}')
    system.conf.write_text('{"INCLUDE": "other.json"}')
    with pytest.raises(ConfigError, match="circular INCLUDE") as caught:
        loading.load(system.conf)
    assert " -> " in caught.value.hint
    other.unlink()
    with pytest.raises(ConfigError, match=r"other.json: no such file"):
        loading.load(system.conf)
    system.conf.write_text('{"INCLUDE": [3]}')
    with pytest.raises(ConfigError, match="INCLUDE: must be a list of files"):
        loading.load(system.conf)


def test_an_error_in_an_included_file_bears_its_name(system: System) -> None:
    (system.folder / "part.json").write_text('{\n"A": {\n"ACTON": "execute"}}')
    system.conf.write_text(json.dumps({"INCLUDE": "part.json", "GENERAL": system.general}))
    with pytest.raises(ConfigError, match=r"part.json:3: A.ACTON: unknown key"):
        loading.load(system.conf)


def test_missing_unreadable_and_strange_files(system: System) -> None:
    with pytest.raises(ConfigError, match="no such file") as caught:
        loading.load(system.conf)
    assert "-c" in caught.value.hint
    for strange in (system.folder, Path("/dev/null")):
        with pytest.raises(ConfigError, match="not a regular file"):
            loading.load(strange)
    os.mkfifo(system.folder / "fifo")
    with pytest.raises(ConfigError, match="not a regular file"):
        loading.load(system.folder / "fifo")


def test_what_others_can_write_is_refused_with_the_mend(system: System) -> None:
    path = system.configure({"A": execute("own")})
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="writable by everybody") as caught:
        loading.load(path)
    assert f"chmod o-w {path}" in caught.value.hint
    loading.load(path, insecure=True)
    path.chmod(0o600)
    (system.home / "own/own.py").chmod(0o646)
    with pytest.raises(ConfigError, match=r"own.py is writable by everybody"):
        loading.load(path)


def test_without_general_and_without_sections(system: System) -> None:
    system.conf.write_text('{"A": {"ACTION": "execute", "NAME": "own"}}')
    with pytest.raises(ConfigError, match="GENERAL is missing"):
        loading.load(system.conf)
    system.configure({})
    with pytest.raises(ConfigError, match="no section besides GENERAL"):
        loading.load(system.conf)
    system.conf.write_text('{"GENERAL": [], "A": 3}')
    with pytest.raises(ConfigError, match="must be an object"):
        loading.load(system.conf)


def test_the_report_address_is_found_in_a_broken_config(system: System) -> None:
    path = system.configure({"A": {"ACTION": "fly"}}, MESSAGE_CONFIG_COMMAND="http://x/y")
    read = loading.report_settings(path)
    assert read is not None
    assert read.general.hostname == "srv-test"
    assert (read.general.message_config_command, read.work_folder) == ("http://x/y", system.work)
    path.write_text("{")
    assert loading.report_settings(path) is None
    assert loading.report_settings(system.folder / "none") is None


@pytest.mark.slow
def test_mutated_configs_are_loaded_or_refused_with_one_clear_line(system: System) -> None:
    """Whatever is typed wrongly: loaded, or refused naming the file; never a traceback."""
    dice = random.Random(20261123)
    document = json.loads((project.ROOT / "conf/conf.json").read_text())
    document["GENERAL"] |= {
        "HOME_FOLDER": str(system.home),
        "HOSTNAME": "srv",
        "LOCAL_BACKUP": "/a",
    }
    text = json.dumps(document, indent=1)
    refusals: list[str] = []
    for _ in range(600):
        at = dice.randrange(len(text))
        length = dice.choice([0, 1, 1, 5, 40])
        more = "".join(dice.choices(string.printable + '\0é{}[]",:', k=dice.choice([0, 1, 1, 3])))
        system.conf.write_bytes((text[:at] + more + text[at + length :]).encode())
        try:
            loading.load(system.conf, insecure=True)
        except ConfigError as error:
            refusals.append(str(error))
    assert len(refusals) > 180
    assert all(str(system.conf) in line and "\n" not in line for line in refusals)
