"""What stands in a config is any JSON that somebody typed: each value and key is tried as one."""

from __future__ import annotations

import copy
import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, execute
from tools.base.errors import ConfigError
from tools.config import loading

STRANGE: list[Any] = [
    *(None, True, 0, -1, 10**30, 1.5, "", "x", " ", "[", "[1]", "[" * 5000, "\udcff", "a\nb"),
    *("/", "..", ".", "~", "nan", "inf", "-5", "9" * 400, "9" * 5000, "x" * 10000, "\u2028"),
    *([], [None], ["a", 1], [[]], [""], {}, {"a": 1}, {"__c": 1}, "env:", "é", "//opt//x/", "٣"),
]

_STRIDE = 7  # every seventh variant: each place meets other values than the one before


@pytest.fixture
def system(tmp_path: Path) -> System:
    new_system = System(tmp_path)
    new_system.module("own", "")
    return new_system


def refusal(system: System, sections: dict[str, Any], **general: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        loading.load(system.configure(sections, **general))
    return caught.value


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value of a JSON text."""
    entries = value.items() if isinstance(value, dict) else ()
    for key, inner in entries:
        yield (*path, key)
        yield from places(inner, (*path, key))


def variants(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The config with one value, or one key, replaced by each strange one."""
    for path in list(places(config)):
        for strange in STRANGE:
            for as_key in (False, True) if isinstance(strange, str) else (False,):
                variant = copy.deepcopy(config)
                node = variant
                for key in path[:-1]:
                    node = node[key]
                if as_key:
                    node[strange] = node.pop(path[-1])
                else:
                    node[path[-1]] = strange
                yield variant


@pytest.mark.slow
def test_every_strange_value_and_key_is_taken_or_refused_in_one_line(system: System) -> None:
    size = {
        "ACTION": "load",
        "FROM": "tools",
        "FILENAME": "size_calculation",
        "CLASS": "SizeCalculation",
    }
    config = {
        "GENERAL": {**system.general, "MAX_RUNTIME": "2h", "MESSAGE_CONFIG_COMMAND": "http://x/y"},
        "FILES": execute("filesbackup", FILESET_INCLUDE="/etc", FILESET_EXCLUDE="a"),
        "COMPRESSION": execute("compression", LEVEL=3, OBJECTIVES="a b", DESTINATION="x"),
        "ENCRYPTION": {
            **execute("encryption", KEY_FILE="/k", FILE_SIZE="5", FORMAT="age"),
            "NEEDS": ["COMPRESSION"],
            "TIMEOUT": "5m",
            "ENVIRONMENT": "A",
        },
        "SIZE": size,
        "OWN": {
            **execute("own", A="b", PASSWORD="env:X"),
            "PARAMETERS_MODE": "flat",
            "EXECUTE_WITH": "bash",
            "ON_ERROR": "stop",
        },
    }
    assert loading.load(system.configure({k: v for k, v in config.items() if k != "GENERAL"}))
    refused = 0
    for variant in itertools.islice(variants(config), 0, None, _STRIDE):
        system.conf.write_text(json.dumps(variant))
        try:
            loading.load(system.conf)
        except ConfigError as error:
            refused += 1
            message = f"{error} {error.hint}"
            assert message.isprintable(), message
            assert str(system.conf) in message
            assert len(message) < 2000
            message.encode()
    assert refused > 170


@pytest.mark.parametrize("paths", ["[", "[1]", [""], ["/a", 1], {"a": 1}, 5])
def test_paths_that_are_none_are_refused_by_key(system: System, paths: Any) -> None:
    """An empty entry would stand for the folder of the config, and be emptied by a stage."""
    message = str(refusal(system, {"A": execute("compression", TARGETS=paths)}))
    assert message.endswith("A.PARAMETERS.TARGETS: must be one or more paths")


@pytest.mark.parametrize(
    ("general", "says"),
    [
        ({"WORK_FOLDER": "/"}, "GENERAL.WORK_FOLDER: / is not allowed"),
        ({"LOCAL_BACKUP": "//"}, "GENERAL.LOCAL_BACKUP: / is not allowed"),
        ({"WORK_FOLDER": ["w"]}, "GENERAL.WORK_FOLDER: must be a path"),
        ({"DISK_SPACE_THRESHOLD": "nan"}, "GENERAL.DISK_SPACE_THRESHOLD: 'nan' is not a number"),
        ({"MAX_RUNTIME": 0}, "GENERAL.MAX_RUNTIME: must be greater than 0"),
        ({"HOSTNAME": "x" * 201}, "GENERAL.HOSTNAME: too long"),
        ({"LEVEL": "x"}, "GENERAL.LEVEL: 'x' is not a whole number"),
    ],
)
def test_a_value_of_general_is_blamed_where_it_stands(
    system: System, general: dict[str, Any], says: str
) -> None:
    error = refusal(system, {"A": execute("compression")}, **general)
    lines = system.conf.read_text().splitlines()
    line = 1 + next(n for n, text in enumerate(lines) if f'"{next(iter(general))}"' in text)
    assert str(error).startswith(f"{system.conf}:{line}: {says}")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("EXECUTE_WITH", '"', "invalid interpreter"),
        ("EXECUTE_WITH", " ", "invalid interpreter"),
        ("ENVIRONMENT", "A=B", "'A=***': invalid variable name"),
        ("TIMEOUT", 0, "must be greater than 0"),
        ("NAME", "n" * 5000, "file name too long"),
    ],
)
def test_a_section_that_could_not_be_started_is_refused(
    system: System, key: str, value: Any, says: str
) -> None:
    assert says in str(refusal(system, {"A": {**execute("own"), key: value}}))


def test_a_percent_sign_belongs_to_the_threshold_alone(system: System) -> None:
    loaded = loading.load(system.configure({"A": execute("own")}, HOSTNAME="srv%"))
    assert loaded.general.hostname == loaded.handed["HOSTNAME"] == "srv%"


def test_of_two_names_of_one_key_the_preferred_one_counts(system: System) -> None:
    for order in (("TARGETS", "OBJECTIVES"), ("OBJECTIVES", "TARGETS")):
        parameters = {key: f"/{key.lower()}" for key in order}
        loaded = loading.load(system.configure({"A": execute("compression", **parameters)}))
        assert loaded.sections[0].parameters == {"TARGETS": ["/targets"]}
        assert "A.PARAMETERS.OBJECTIVES is ignored" in loaded.warnings[0]


def test_a_literal_secret_in_general_is_warned_of(system: System) -> None:
    loaded = loading.load(system.configure({"A": execute("own")}, DB_PASSWORD="hunter2"))
    assert any(
        "GENERAL.DB_PASSWORD: secret in the config" in warning for warning in loaded.warnings
    )


def test_a_section_may_bear_any_name(system: System) -> None:
    (system.source / "a").write_text("a")
    sections = system.full_sections()
    files = {"Größe & (my files)": sections.pop("FILESET")}
    system.configure({**files, **sections})
    assert system.result()["exit_code"] == 0
    assert system.stored()
    for name in ("", ".x", "a/b", "a\nb", "ö" * 51):
        assert "invalid section name" in str(refusal(system, {name: execute("own")}))


def test_rights_given_by_an_acl_are_seen(system: System) -> None:
    """The group bits are then a mask: `root:root 0660` says nothing of who may write."""
    path = system.configure({"A": execute("own")})
    subprocess.run(["setfacl", "-m", "u:nobody:r", str(path)], check=True)
    loading.load(path)
    subprocess.run(["setfacl", "-m", "u:nobody:rw", str(path)], check=True)
    with pytest.raises(ConfigError, match="writable by others through its ACL") as caught:
        loading.load(path)
    assert f"setfacl -x u:nobody {path}" in caught.value.hint


def test_a_link_that_others_can_turn_round_is_refused(system: System) -> None:
    path = system.configure({"A": execute("own")})
    shared = system.folder / "shared"
    shared.mkdir()
    link = shared / "conf.json"
    link.symlink_to(path)
    assert loading.load(link).path == path
    shared.chmod(0o777)
    with pytest.raises(ConfigError, match=r"shared is writable by everybody"):
        loading.load(link)


def test_a_file_that_is_replaced_while_it_is_read_is_refused(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = system.configure({"A": execute("own")})
    there = os.open

    def opening(name: Any, *others: Any, **more: Any) -> int:
        descriptor = there(name, *others, **more)
        if name == path:
            path.rename(system.folder / "old")
            path.write_text("{}")
        return descriptor

    monkeypatch.setattr(os, "open", opening)
    with pytest.raises(ConfigError, match="was replaced while it was read"):
        loading.load(path)


def test_links_and_includes_without_an_end(system: System) -> None:
    system.conf.symlink_to(system.conf)
    with pytest.raises(ConfigError, match="too many levels of symbolic links"):
        loading.load(system.conf)
    system.conf.unlink()
    for number in range(12):
        twice = [f"{number + 1}.json"] * 2 if number < 11 else []
        (system.folder / f"{number}.json").write_text(json.dumps({"INCLUDE": twice}))
    with pytest.raises(ConfigError, match="more than 100 files"):
        loading.load(system.folder / "0.json")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_cannot_be_read_is_named(system: System) -> None:
    path = system.configure({"A": execute("own")})
    system.folder.chmod(0o711)
    uid = os.geteuid()
    for hidden, says in ((path, r"conf.json: permission denied"),):
        os.seteuid(65534)
        try:
            with pytest.raises(ConfigError, match=says):
                loading.load(hidden)
        finally:
            os.seteuid(uid)


def test_the_report_address_is_found_though_the_rest_is_broken(system: System) -> None:
    path = system.configure(
        {"A": {"ACTION": "fly"}},
        MESSAGE_CONFIG_COMMAND="http://x/y",
        DISK_SPACE_CHECK="perhaps",
        WORK_FOLDER="work/",
    )
    settings = loading.report_settings(path)
    assert settings is not None
    assert (settings.general.hostname, settings.work_folder) == ("srv-test", system.work)
    assert settings.general.message_config_command == "http://x/y"
    path.write_text(json.dumps({**json.loads(path.read_text()), "INCLUDE": "missing.json"}))
    assert loading.report_settings(path) == settings


def test_an_address_that_others_could_have_written_is_not_used(system: System) -> None:
    """Reports that wait, with their logs, would be sent to it."""
    path = system.configure({"A": execute("own")}, MESSAGE_CONFIG_COMMAND="http://x/y")
    path.chmod(0o666)
    assert loading.report_settings(path) is None
    assert loading.report_settings(path, insecure=True)
