"""Configs of the documented system: read as they were meant, with a warning for each difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, execute
from tools.base.errors import ConfigError
from tools.config import loading, selection
from tools.config.model import Config, Section


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def loaded(system: System, **sections: Any) -> Config:
    system.configure({**system.full_sections(), **sections})
    return loading.load(system.conf)


def section(config: Config, name: str) -> Section:
    return next(section for section in config.sections if section.name == name)


CLEANUP = {"BUCKET": "b", "PREFIX": "srv/", "KEEP": {"DAILY": {"NUMBER": "7"}}}


@pytest.mark.parametrize(
    ("name", "old", "why"),
    [
        ("SCHEDULE", {"RUN1": "mon-sat", "RUN2": "2nd-5th sun"}, "it has no ACTION"),
        ("STORAGE", {"ACTION": "", "NAME": "storage"}, "its ACTION is empty"),
        ("DATABASES", {"DB_BACKUP_METHOD": "None"}, "it has no ACTION"),
        ("CRYPT", {"ENCRYPTION_PROGRAM": "GPG2", "_options": "gpg none"}, "it has no ACTION"),
        ("CLEANUP", {"BUCKET": "", "REMOTE": {}}, "it has no KEEP, so nothing is removed"),
        ("CLEANUP", {}, "it has no KEEP, so nothing is removed"),
    ],
)
def test_a_section_without_action_is_skipped_with_one_warning(
    system: System, name: str, old: dict[str, Any], why: str
) -> None:
    """Issue 11 D: as the predecessor did; clean-up is named."""
    config = loaded(system, **{name: old})
    assert name not in [section.name for section in config.sections]
    (warning,) = config.warnings
    assert f": {name}: the section is skipped: " in warning
    assert why in warning
    assert warning.startswith(f"{system.conf}:")
    assert selection.select(config, [], [])


def test_a_source_that_is_skipped_for_its_action_leaves_no_source(system: System) -> None:
    """Issue 11 A1 and D: what is skipped is no source."""
    sections = system.full_sections()
    del sections["FILESET"]["ACTION"]
    system.configure(sections)
    done = system.run("-r")
    assert done.returncode == 2
    assert "no source section" in done.stderr


def test_a_typo_of_action_is_an_error(system: System) -> None:
    """Issue 11 D: an unknown key close to a known one is still an error."""
    for key in ("ACTON", "action", "ACTIONS"):
        system.configure({"A": {key: "execute", "NAME": "filesbackup"}, **system.full_sections()})
        with pytest.raises(ConfigError, match=rf"A.{key}: unknown key") as caught:
            loading.load(system.conf)
        assert caught.value.hint == "Did you mean ACTION?"


@pytest.mark.parametrize("text", ["{'LOCAL_BACKUP': '%s'}", '{"LOCAL_BACKUP": "%s"}'])
def test_args_dict_of_a_local_store_is_its_folder(system: System, text: str) -> None:
    """Issue 11 D: all examples of the predecessor set the local folder in this way."""
    folder = system.folder / "elsewhere"
    store = execute("storage", DESTINATION="local", ACTION="upload", ARGS_DICT=text % folder)
    config = loaded(system, STORAGE_LOCAL=store)
    parameters = section(config, "STORAGE_LOCAL").parameters
    assert parameters == {"DESTINATION": "local", "LOCAL_BACKUP": str(folder)}
    assert ["ARGS_DICT" in text or "ACTION" in text for text in config.warnings] == [True, True]


def test_args_dict_that_holds_nothing_or_less_than_what_is_set(system: System) -> None:
    for text, more in (("{}", {}), ("{'LOCAL_BACKUP': '/x'}", {"LOCAL_BACKUP": "/y"})):
        store = execute("storage", ARGS_DICT=text, **more)
        config = loaded(system, STORAGE_LOCAL=store)
        assert section(config, "STORAGE_LOCAL").parameters == more
        (warning,) = config.warnings
        assert "ARGS_DICT: is " in warning
        assert "/x" not in warning


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        (
            {"DESTINATION": "s3", "ARGS_DICT": "{'LOCAL_BACKUP': 'b'}"},
            "ARGS_DICT: invalid value",
        ),
        ({"DESTINATION": "rsync"}, "DESTINATION: rsync: unknown type of store"),
        ({"ARGS_DICT": "{'BUCKET': 'b'}"}, "ARGS_DICT: invalid value"),
        ({"ARGS_DICT": "__import__('os').system('id')"}, "ARGS_DICT: invalid value"),
        ({"ARGS_DICT": "[" * 9000}, "ARGS_DICT: invalid value"),
        ({"ACTION": "download"}, "ACTION: 'download': invalid value"),
    ],
)
def test_what_is_not_built_is_refused_by_name(
    system: System, parameters: dict[str, Any], says: str
) -> None:
    """Issue 11 D: what no store is, and dictionaries that are none."""
    system.configure({**system.full_sections(), "STORAGE": execute("storage", **parameters)})
    with pytest.raises(ConfigError, match=r"STORAGE.PARAMETERS") as caught:
        loading.load(system.conf)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("old", "now", "warned"),
    [
        (
            {"ACTION": "upload", "ARGS_DICT": "{}", "REMOVE_TARGETS": "False"},
            {"REMOVE_TARGETS": "False"},
            ["ACTION", "ARGS_DICT"],
        ),
        ({"ARGS_DICT": "{'BUCKET': 'bucket'}"}, {"BUCKET_NAME": "bucket"}, ["ARGS_DICT"]),
        (
            {"BUCKET_NAME": "bucket", "ALIYUN_CREDENTIALS": "/none/.alioss.conf"},
            {"BUCKET_NAME": "bucket", "ALIYUN_CREDENTIALS": "/none/.alioss.conf"},
            [],
        ),
        (
            {"BUCKET_NAME": "bucket", "UPLOAD_COMMAND": "/usr/bin/aws s3 cp"},
            {"BUCKET_NAME": "bucket"},
            ["UPLOAD_COMMAND"],
        ),
    ],
)
def test_old_configs_of_aliyun_oss(
    system: System, old: dict[str, str], now: dict[str, str], warned: list[str]
) -> None:
    """The bucket may be set in the credentials file alone, which is not there yet."""
    config = loaded(system, STORAGE_OSS=execute("storage", DESTINATION="oss", **old))
    assert section(config, "STORAGE_OSS").parameters == {"DESTINATION": "oss", **now}
    keys = [line.split(": ")[1].rpartition(".")[2] for line in config.warnings]
    assert keys == warned


@pytest.mark.parametrize(
    ("size", "number"), [("5M", 5), ("100 MB", 100), ("4m", 4), ("12MiB", 12), ("7", 7), (9, 9)]
)
def test_file_size_with_its_unit(system: System, size: object, number: int) -> None:
    """Issue 11 D: FILE_SIZE is a number of MB (MANUAL)."""
    keyed = execute("encryption", KEY_FILE=str(system.key), FILE_SIZE=size)
    config = loaded(system, ENCRYPTION=keyed)
    assert int(section(config, "ENCRYPTION").parameters["FILE_SIZE"]) == number
    assert len(config.warnings) == (isinstance(size, str) and not size.isdigit())


@pytest.mark.parametrize(
    ("size", "example"), [("1G", "1024"), ("2 TB", "2097152"), ("many", "1024")]
)
def test_file_size_in_another_unit_says_how_it_is_written(
    system: System, size: str, example: str
) -> None:
    """Issue 11 E: the hint names the unit."""
    system.configure(
        {**system.full_sections(), "ENCRYPTION": execute("encryption", FILE_SIZE=size)}
    )
    with pytest.raises(ConfigError, match="FILE_SIZE") as caught:
        loading.load(system.conf)
    assert caught.value.hint.endswith(f"of MiB, without a unit, for example {example}.")


def test_empty_programs_are_the_default_with_one_warning_each(system: System) -> None:
    """Issue 11 D: EXECUTABLE and EXECUTE_WITH "" mean the default (MANUAL)."""
    fileset = execute("filesbackup", FILESET_INCLUDE="/etc")
    old = {**fileset, "EXECUTABLE": "", "EXECUTE_WITH": ""}
    config = loaded(system, FILESET=old)
    assert section(config, "FILESET").file.name == "filesbackup.py"
    assert section(config, "FILESET").interpreter == "python"
    assert [text.split(": ")[1] for text in config.warnings] == [
        *("FILESET.EXECUTABLE", "FILESET.EXECUTE_WITH")
    ]


def test_unknown_keys_are_ignored_with_one_warning_each(system: System) -> None:
    """Issue 11 D: unless they are close to a known one."""
    fileset = execute("filesbackup", FILESET_INCLUDE="/etc", SUDO_COMMAND="sudo", PPP="A")
    old = {**fileset, "COMPRESSION_PROGRAM": "tar.gz", "_options": "tar.gz none"}
    config = loaded(system, FILESET=old)
    assert set(section(config, "FILESET").parameters) == {"FILESET_INCLUDE"}
    assert [text.split(": ")[1].rpartition(".")[2] for text in config.warnings] == [
        *("SUDO_COMMAND", "PPP", "COMPRESSION_PROGRAM", "_options")
    ]


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("FILESET_INCLUD", "FILESET_INCLUDE"),
        ("INCLUDE", "FILESET_INCLUDE"),
        ("fileset_include", "FILESET_INCLUDE"),
        ("EXCLUDE", "FILESET_EXCLUDE"),
        ("FILESET_EXCLUDES", "FILESET_EXCLUDE"),
        ("FILE_SET_INCLUDE", "FILESET_INCLUDE"),
    ],
)
def test_an_unknown_key_close_to_a_known_one_is_an_error(
    system: System, key: str, near: str
) -> None:
    """Issue 11 D: otherwise the default would be backed up instead of what was meant."""
    system.configure({**system.full_sections(), "FILESET": execute("filesbackup", **{key: "/srv"})})
    with pytest.raises(ConfigError, match=rf"FILESET.PARAMETERS.{key}: unknown key") as caught:
        loading.load(system.conf)
    assert caught.value.hint == f"Did you mean {near}?"


def text_with(system: System, fileset: str, general: str = "", more: str = "") -> None:
    sections = system.full_sections()
    del sections["FILESET"]
    text = json.dumps({"GENERAL": system.general, **sections}, indent=1)
    text = text.replace('"GENERAL": {', f'"GENERAL": {{{general}', 1)
    system.conf.write_text(f'{{"FILESET": {{{fileset}}},{more}\n' + text[1:])
    system.conf.chmod(0o600)


def test_of_a_key_that_repeats_in_a_section_the_last_value_counts(system: System) -> None:
    """Issue 11 D: with a warning; a section that repeats is an error; comments may repeat."""
    text_with(
        system,
        '"ACTION": "execute",\n"NAME": "sqlite",\n"NAME": "filesbackup",\n"__x": 1, "__x": 2,'
        '"PARAMETERS": {"FILESET_INCLUDE": "/a",\n"FILESET_INCLUDE": "/b"}',
        general='"PARALLEL": "2",\n"PARALLEL": "3",',
        more='"__y": 1, "__y": {"A": 1, "A": 2},',
    )
    config = loading.load(system.conf)
    assert section(config, "FILESET").parameters == {"FILESET_INCLUDE": ["/b"]}
    assert section(config, "FILESET").file.name == "filesbackup.py"
    assert config.general.parallel == 3
    warnings = [text.removeprefix(str(system.conf)) for text in config.warnings]
    assert warnings[:2] == [
        ":3: FILESET.NAME: occurs twice: the value of line 3 is used, not 2",
        ":5: FILESET.PARAMETERS.FILESET_INCLUDE: occurs twice: the value of line 5 is used, not 4",
    ]
    assert [text.partition(": ")[2].split(":")[0] for text in warnings] == [
        *("FILESET.NAME", "FILESET.PARAMETERS.FILESET_INCLUDE", "GENERAL.PARALLEL")
    ]
    text_with(system, '"ACTION": ""', more='\n"FILESET": {"ACTION": ""},')
    with pytest.raises(ConfigError, match=r":2: duplicate key FILESET") as caught:
        loading.load(system.conf)
    assert "line 1" in caught.value.hint


def test_keys_of_general_that_nobody_knows(system: System) -> None:
    """Issue 11 D: SCHEDULE is ignored where no module of the user's own gets it."""
    system.configure(system.full_sections(), SCHEDULE={"RUN1": "mon"}, CONFIG_COMMAND="x")
    config = loading.load(system.conf)
    assert not {"SCHEDULE", "CONFIG_COMMAND"} & set(config.handed)
    assert [text.split(": ")[1] for text in config.warnings] == [
        *("GENERAL.SCHEDULE", "GENERAL.CONFIG_COMMAND")
    ]
    system.configure(
        {**system.full_sections(), "OWN": system.script("own", "true")}, CONFIG_COMMAND="x"
    )
    config = loading.load(system.conf)
    assert config.handed["CONFIG_COMMAND"] == "x"
    (warning,) = config.warnings
    assert "passed to the modules" in warning


def test_a_placeholder_of_the_template_is_refused_with_the_hint_to_remove_it(
    system: System,
) -> None:
    """Issue 11 D: the examples of the predecessor hold it."""
    address = "https://backupreporter.<Change this to your domain>.com/backup_service.php"
    system.configure(system.full_sections(), MESSAGE_CONFIG_COMMAND=address)
    with pytest.raises(ConfigError, match=r"GENERAL.MESSAGE_CONFIG_COMMAND.*placeholder") as caught:
        loading.load(system.conf)
    assert "remove the key" in caught.value.hint


def test_a_whole_old_config_runs(system: System) -> None:
    """Issue 11 D: the local example of the predecessor, unaltered, makes a backup."""
    (system.source / "a").write_text("a")
    sections = system.full_sections()
    include = {"FILESET_INCLUDE": str(system.source), "FILESET_EXCLUDE": "", "SUDO_COMMAND": "sudo"}
    files = {"EXECUTABLE": "", "EXECUTE_WITH": "python", "PARAMETERS": include}
    folder = system.folder / "old-store"
    stored = {"DESTINATION": "local", "ACTION": "upload", "REMOVE_OBJECTIVES": "True"}
    stored |= {"ARGS_DICT": f"{{'LOCAL_BACKUP': '{folder}'}}", "__READTHIS": "The folder."}
    sections["FILESET"] |= files
    sections["ENCRYPTION"]["PARAMETERS"]["FILE_SIZE"] = "5M"
    sections["STORAGE_LOCAL"]["PARAMETERS"] = stored
    system.configure({**sections, "CLEANUP": CLEANUP, "SCHEDULE": {"RUN1": "mon-sat"}})
    for mode in ("-n", "-t"):
        assert system.run(mode).returncode == 0
    assert system.result()["exit_code"] == 0
    assert list((folder / "srv-test").glob("*.age.000"))
    text = "nothing is removed: no store of this config has the bucket b"
    assert text in system.log.read_text()


@pytest.mark.parametrize("named", [{}, {"ACTION": "execute", "NAME": "cleanup"}])
def test_a_documented_clean_up_section_runs(system: System, named: dict[str, str]) -> None:
    """Issue 16: as it is, with its keys beside ACTION or without one."""
    config = loaded(system, CLEANUP={**named, **CLEANUP})
    (warning,) = config.warnings
    assert "is read as a section of the module cleanup" in warning
    cleanup = section(config, "CLEANUP")
    assert cleanup.kind == "cleanup"
    assert cleanup.parameters == CLEANUP
    assert selection.select(config, [], [])


def test_a_home_folder_without_clean_up(system: System) -> None:
    (system.home / "cleanup").unlink()
    config = loaded(system, CLEANUP=CLEANUP)
    (warning,) = config.warnings
    assert "the section is skipped: HOME_FOLDER has no cleanup/cleanup.py" in warning
