"""The other door: load code of the house by its path, under a name no one else has."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from tools.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]


def load(path: str | Path) -> ModuleType:
    """Load a Python file, named from the root of the house or absolutely.

    Raises ConfigError where there is no such file; what the file itself raises passes.
    """
    file = ROOT / path
    name = "house." + str(path).removesuffix(".py").replace("/", ".")
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"{file} is no Python file")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[name]
        raise
    return loaded
