"""Modules by the file that conf.json or the registry names: one module object per real file."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import cast

from tools.base import imports
from tools.base.errors import ConfigError
from tools.base.project import ROOT
from tools.base.real_path import resolved
from tools.modules.contracts import (
    Declared,
    FolderRestorer,
    Module,
    Restorer,
    SourceModule,
    StageModule,
    StoreModule,
)
from tools.modules.options import Declaration


def module(path: str | Path) -> ModuleType:
    """Return the module of a Python file, named from the root of the project or absolutely.

    However the path is spelled, one file gives one module object: a second one would have
    classes of its own, and `value is Enum.MEMBER` would be false between the two.
    Raises ConfigError where there is no such file; what the file itself raises passes.
    """
    file = resolved(ROOT / path)
    name = _name(file)
    if name in sys.modules:
        return sys.modules[name]
    if not file.is_file() or file.suffix != ".py":
        raise ConfigError(f"{ROOT / path}: no such Python file")
    if file.is_relative_to(ROOT):
        return imports.module(name)
    with imports.packages():
        return imports.executed(name, file)


def _name(file: Path) -> str:
    """Return the name of a file's module; that of a file elsewhere has a digest of its path."""
    if file.is_relative_to(ROOT):
        return ".".join(file.relative_to(ROOT).with_suffix("").parts)
    digest = hashlib.sha256(str(file).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"user_defined.{file.stem}_{digest}"


# The registry says which contract a file keeps, and tests/test_contracts.py that it does.


def declared(path: str | Path) -> Declared[Declaration]:
    """Return a built-in module, for its Options."""
    return cast("Declared[Declaration]", module(path))


def tested(path: str | Path) -> Module[Declaration] | None:
    """Return a built-in module that has a test for `backup.py -t`; None where it has none."""
    loaded = module(path)
    return cast("Module[Declaration]", loaded) if hasattr(loaded, "test") else None


def source(path: str | Path) -> SourceModule[Declaration]:
    """Return a built-in source."""
    return cast("SourceModule[Declaration]", module(path))


def stage(path: str | Path) -> StageModule[Declaration]:
    """Return a built-in stage."""
    return cast("StageModule[Declaration]", module(path))


def store(path: str | Path) -> StoreModule[Declaration]:
    """Return a built-in store."""
    return cast("StoreModule[Declaration]", module(path))


def restorer(path: str | Path) -> Restorer:
    """Return a built-in module that restores items into a server."""
    return cast("Restorer", module(path))


def folder_restorer(path: str | Path) -> FolderRestorer:
    """Return a built-in module that restores items as a folder."""
    return cast("FolderRestorer", module(path))
