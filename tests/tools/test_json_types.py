"""Values of another type than their key takes: rejected by name, never shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.system import System
from tools.base import project
from tools.base.errors import ConfigError
from tools.config import loading, notify
from tools.config.declarations import General, SectionKeys
from tools.config.include import Files
from tools.config.notify_keys import TYPES
from tools.config.validation import filled
from tools.modules import json_types, options, registry

MODULES = [registry.declaration(project.ROOT / path) for path in registry.MODULES]
DECLARATIONS = [*MODULES, *TYPES.values(), General, SectionKeys]
WRONG: tuple[Any, ...] = ({"q9": "q9"}, ["q9", {"q9": 1}], [["q9"]], True, 987, 98.7)


def problem(kind: Any, value: Any) -> str:
    try:
        json_types.check(kind, value, "here")
    except ConfigError as error:
        return f"{error}\n{error.hint}"
    return ""


@pytest.mark.parametrize("declaration", DECLARATIONS, ids=lambda one: one.__module__)
def test_each_key_of_each_module_takes_its_own_types_alone(declaration: Any) -> None:
    for key, field in options.keys(declaration).items():
        kind = options.kinds(declaration)[field.name]
        accepted = json_types.accepted(kind)
        assert "string" in accepted, key
        assert not problem(kind, "x"), key
        assert not problem(kind, None), key
        for value in WRONG:
            message = problem(kind, value)
            json_type = json_types.type_of(value)
            if json_type not in accepted and not (json_type == "integer" and "number" in accepted):
                assert message.startswith("here: must be "), (key, value)
            assert "q9" not in message
            assert "98" not in message
        if accepted == ("string",):
            with pytest.raises(ConfigError, match="here: must be a string, not an object"):
                filled(declaration, {key: {"q9": "q9"}}, {key: "here"}, "section")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("PASSWORD", {"x": "hunter2"}, "must be a string, not an object |"),
        ("PASSWORD", ["hunter2"], "must be a string, not a list |"),
        ("PASSWORD", 4711, "must be a string, not a number | Put the value into double quotes."),
        ("PORT", True, "must be a number or a list, not a boolean |"),
        ("TLS", ["True"], "must be a boolean, not a list |"),
    ],
)
def test_a_section_names_file_line_and_key(system: System, key: str, value: Any, says: str) -> None:
    load = {"ACTION": "load", "FROM": "redis", "FILENAME": "redis", "CLASS": "RedisBackup"}
    sections = system.full_sections()
    sections["DB"] = {**load, "PARAMETERS": {"UNIX_SOCKET": "/x", key: value}}
    system.configure(sections)
    with pytest.raises(ConfigError) as caught:
        loading.load(system.conf)
    lines = system.conf.read_text().splitlines()
    line = 1 + next(n for n, text in enumerate(lines) if f'"{key}"' in text)
    error = f"{caught.value} | {caught.value.hint}".strip()
    assert error == f"{system.conf}:{line}: DB.PARAMETERS.{key}: {says}"


def test_a_channel_names_file_line_and_key(tmp_path: Path) -> None:
    hook = {"TYPE": "webhook", "URL": ["https://h.example/hunter2"]}
    (tmp_path / "c.json").write_text(json.dumps({"NOTIFY": {"it": hook}}))
    _, errors = notify.take(Files(insecure=True).merged(tmp_path / "c.json"), [])
    position = f"{tmp_path}/c.json:1: NOTIFY.it.URL"
    assert [str(error) for error in errors] == [f"{position}: must be a string, not a list"]


def test_documented_spellings_still_load(system: System) -> None:
    """Booleans and numbers with or without quotes; a list as a string."""
    sections = system.full_sections()
    sections["FILESET"]["TIMEOUT"] = 30.5
    sections["COMPRESSION"]["NEEDS"] = "FILESET"
    for stream in (True, "False", "auto"):
        system.configure(sections, STREAM=stream, PARALLEL=2, DISK_SPACE_THRESHOLD="90%")
        assert loading.load(system.conf).general.parallel == 2
