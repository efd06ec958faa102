"""Load Python code by its path, under a name no one else has: one module for each real file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from tools import venv
from tools.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
_MAIN = "__main__"


def load(path: str | Path) -> ModuleType:
    """Return the module of a Python file, named from the root of the project or absolutely.

    However the path is spelled, one file gives one module object: a second one would have
    classes of its own, and `value is Enum.MEMBER` would be false between the two. The file that
    is being executed is `__main__`, and files of tools/ are those that `import` gives.
    Raises ConfigError where there is no such file; what the file itself raises passes.
    """
    file = (ROOT / path).resolve()
    main = sys.modules[_MAIN]
    if getattr(main, "__file__", None) and Path(str(main.__file__)).resolve() == file:
        return main
    name = _name(file)
    if name in sys.modules:
        return sys.modules[name]
    if not file.is_file() or file.suffix != ".py":
        raise ConfigError(f"{ROOT / path}: no such Python file")
    if not name.startswith("house."):
        return importlib.import_module(name)
    return _executed(name, file)


def _name(file: Path) -> str:
    """The name of a file's module; that of a file elsewhere holds a digest of its path."""
    if not file.is_relative_to(ROOT):
        digest = hashlib.sha256(str(file).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return f"house.{file.stem}_{digest}"
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    return name if name.startswith("tools.") else f"house.{name}"


def _executed(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file}: cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with venv.packages():
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
