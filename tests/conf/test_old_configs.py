"""Issue 11 D: historic configs of the predecessor, where they lie beside the checkout."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tools.base import project
from tools.base.errors import ConfigError
from tools.config import loading, migrate

FOLDER = project.ROOT.parent / "shared" / "old-configs"
CONFIGS = sorted(FOLDER.glob("*.json"))
_PLACES = re.compile(r'"(HOME_FOLDER|MESSAGE_CONFIG_COMMAND)"\s*:\s*"[^"]*"')
# What may keep a historic config from loading: what is not built, files of the predecessor that
# are gone, and what the predecessor could not run either.
_NAMED = (
    r"not built yet|not implemented yet|no such module|Windows path|section GENERAL is missing"
    r"|ACTION is missing|duplicate key|FILENAME: is missing|lies in DESTINATION"
)


def placed(path: Path, tmp_path: Path) -> Path:
    """A copy with this HOME_FOLDER, and without the address of a report server."""
    text = _PLACES.sub(r'"\1": ""', path.read_text(encoding="utf-8"))
    target = tmp_path / "conf.json"
    target.write_text(text)
    target.chmod(0o600)
    return target


def refusal(path: Path) -> ConfigError | None:
    """Why a config does not load; None where it does."""
    try:
        loading.load(path)
    except ConfigError as error:
        return error
    return None


@pytest.mark.skipif(not CONFIGS, reason="no ../shared/old-configs beside the checkout")
def test_every_historic_config_loads_or_names_what_is_not_built(tmp_path: Path) -> None:
    good = 0
    for path in CONFIGS:
        copy = placed(path, tmp_path)
        try:
            json.loads(copy.read_text())
        except ValueError:
            with pytest.raises(ConfigError):
                loading.load(copy)
            with pytest.raises(ConfigError):
                migrate.migrated(copy)
            continue
        error = refusal(copy)
        good += error is None
        assert error is None or (re.search(_NAMED, str(error)) and error.hint), path.name
    assert good >= 13


@pytest.mark.skipif(not CONFIGS, reason="no ../shared/old-configs beside the checkout")
def test_a_migrated_historic_config_loads_without_those_warnings(tmp_path: Path) -> None:
    for path in CONFIGS:
        copy = placed(path, tmp_path)
        if refusal(copy) is not None:
            continue
        before = loading.load(copy)
        copy.write_text(migrate.migrated(copy).text)
        after = loading.load(copy)
        assert after.warnings == (), path.name
        assert [s.parameters for s in after.sections] == [s.parameters for s in before.sections]
        assert after.handed == before.handed
