"""Every example loads, and the schema for editors agrees with the program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.system import BUILT_IN
from tools.base import project
from tools.base.errors import ConfigError
from tools.config import loading, schema

CONF = project.ROOT / "conf"
EXAMPLES = sorted((CONF / "examples").glob("*.json"))
USER_MODULES = {
    *("dump/dump.sh", "count/count.pl", "export/export.py", "sync/sync.sh", "check/check.py"),
    *("ledger/ledger.bash", "label/label.pl", "vault/vault.bash"),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A HOME_FOLDER with the built-in modules and those that the examples name."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in BUILT_IN:
        (folder / name).symlink_to(project.ROOT / name)
    for name in USER_MODULES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    return folder


def placed(path: Path, tmp_path: Path, home: Path) -> Path:
    """A copy of an example (and of what it includes) that uses this home."""
    for file in [path, *(path.parent / "parts").glob("*.json")]:
        text = json.loads(file.read_text())
        if file == path:
            text["GENERAL"] |= edited(file) | {"HOME_FOLDER": str(home)}
        target = tmp_path / file.relative_to(path.parent)
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(text))
    return tmp_path / path.name


def edited(file: Path) -> dict[str, str]:
    """What an operator writes into the template before it runs; nothing for an example."""
    template = file == CONF / "conf.json"
    return {"HOSTNAME": "srv-web-1", "LOCAL_BACKUP": "/mnt/backup-disk"} if template else {}


@pytest.mark.slow
@pytest.mark.parametrize("path", [CONF / "conf.json", *EXAMPLES], ids=lambda path: path.stem)
def test_it_loads_and_the_schema_agrees(path: Path, tmp_path: Path, home: Path) -> None:
    loaded = loading.load(placed(path, tmp_path, home))
    assert loaded.sections
    assert not loaded.warnings
    jsonschema.validate(json.loads(path.read_text()), schema.schema())


def test_the_schema_file_is_the_one_that_is_made() -> None:
    assert (CONF / "schema.json").read_text() == schema.text(), (
        "python3 tools/config/schema.py > conf/schema.json"
    )


def test_there_is_an_example_for_each_scenario() -> None:
    assert {path.stem for path in EXAMPLES} >= {
        "local",
        "minimal",
        "recipients",
        "old-openssl",
        "include",
    }


def slips() -> list[tuple[str, ...]]:
    return [
        ("GENERAL", "HOSTNAM"),
        ("FILESET", "ACTON"),
        ("FILESET", "PARAMETERS", "FILESET_INCLUD"),
        ("COMPRESSION", "PARAMETERS", "LEVL"),
        ("ENCRYPTION", "PARAMETERS", "KEYFILE"),
        ("SIZE", "PARAMETERS", "TARGET"),
        ("STORAGE_LOCAL", "PARAMETERS", "DESTINATON"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("slip", slips(), ids=".".join)
def test_a_slip_is_refused_by_program_and_schema(
    slip: tuple[str, ...], tmp_path: Path, home: Path
) -> None:
    config: dict[str, Any] = json.loads((CONF / "examples/local.json").read_text())
    config["GENERAL"]["HOME_FOLDER"] = str(home)
    section = config
    for key in slip[:-1]:
        section = section.setdefault(key, {})
    section[slip[-1]] = "x"
    file = tmp_path / "conf.json"
    file.write_text(json.dumps(config, indent=1))
    with pytest.raises(ConfigError, match=slip[-1]) as caught:
        loading.load(file)
    assert "Did you mean" in caught.value.hint
    if slip[0] != "GENERAL":  # an unknown key of GENERAL may be meant for a module of one's own
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(config, schema.schema())


@pytest.mark.parametrize(("channel", "slip"), [("mail", "SMTP_HOTS"), ("phone", "TEMPLATE")])
def test_a_slip_in_a_channel_is_refused_by_program_and_schema(
    channel: str, slip: str, tmp_path: Path, home: Path
) -> None:
    """A key of another type is one as well."""
    file = placed(CONF / "examples/notify.json", tmp_path, home)
    config = json.loads(file.read_text())
    config["NOTIFY"][channel][slip] = {}
    file.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=f"NOTIFY.{channel}.{slip}: unknown key"):
        loading.load(file)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, schema.schema())
