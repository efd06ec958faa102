"""Import the modules of this project by name, and name the packages that are missing."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shlex
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from tools.base.environments import PACKAGES
from tools.base.errors import ConfigError
from tools.base.project import INSTALLED, ROOT

FOLDER = ROOT / ".venv"
_MAKE = f"python3 {shlex.quote(str(ROOT / 'setup.py'))} env"


class PackageError(ConfigError):
    """A package that this project needs is missing, or cannot be loaded."""


def module(name: str) -> ModuleType:
    """Return a module of this project by its dotted name.

    compression/ is no package: since Python 3.14 that name belongs to the standard library.
    Raises PackageError where a package that it needs is not installed.
    """
    if name in sys.modules:
        return sys.modules[name]
    with packages():
        if not name.startswith("compression."):
            return importlib.import_module(name)
        return executed(name, ROOT.joinpath(*name.split(".")).with_suffix(".py"))


def executed(name: str, file: Path) -> ModuleType:
    """Load a Python file as the module `name`. Raises ConfigError, and whatever the file raises."""
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file}: cannot be loaded as Python")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[name]
        raise
    return loaded


@contextlib.contextmanager
def packages() -> Iterator[None]:
    """Name the missing packages if an import in the block fails because of one.

    Raises PackageError, also for one that cannot be loaded.
    """
    try:
        yield
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and _top(error.name) in PACKAGES:
            raise _missing() from None
        if package := _broken(error):
            raise PackageError(
                f"the Python package {package} cannot be loaded: {error}",
                f"Remove {FOLDER}, then run {_MAKE}.",
            ) from None
        raise


def _top(name: str | None) -> str:
    return (name or "").partition(".")[0]


def _missing() -> PackageError:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    verb = "package {} is" if len(missing) == 1 else "packages {} are"
    unreachable = os.path.lexists(FOLDER) and not os.access(FOLDER / "bin/python", os.X_OK)
    why = f" ({FOLDER}/bin/python cannot be started by this user)" if unreachable else ""
    again = f"Remove {FOLDER} first: it was made with a Python of another user. "
    elsewhere = INSTALLED.exists() and INSTALLED.resolve() != ROOT
    there = f"Start the command of the installation, in {INSTALLED}. Or here: " if elsewhere else ""
    return PackageError(
        f"the Python {verb.format(', '.join(missing))} missing{why}",
        f"{there}{again if unreachable else ''}{_MAKE} makes .venv with all of them. "
        "Without a network, restore by the RUN.RECOVERY.txt in the store: it needs age, zstd "
        "and tar.",
    )


def _broken(error: ImportError) -> str:
    """Return the installed package in which an import failed; "" where it failed elsewhere."""
    frames = traceback.extract_tb(error.__traceback__)
    _, installed, below = frames[-1].filename.rpartition("/site-packages/")
    return below.partition("/")[0] if installed else ""
