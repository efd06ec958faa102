"""Start an executable in the private environment; stands on the standard library alone."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from tools.base.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv"
PACKAGES = ("cryptography", "requests", "rich", "zstandard")


def start(executable: str) -> NoReturn:
    """Run the `main` of an executable under .venv and exit with the exit code that it returns.

    executable: the path of the file that is `__main__`. It is imported once more by its own
    name, and that one runs: each class of a file exists once, in every module that imports it.
    """
    enter()
    name = ".".join(Path(executable).resolve().relative_to(ROOT).with_suffix("").parts)
    sys.exit(module(name).main(sys.argv[1:]))


def module(name: str) -> ModuleType:
    """Return a module of this project by its dotted name.

    compression/ is no package: since Python 3.14 that name belongs to the standard library.
    Raises ConfigError where a package that it needs is not installed.
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


def enter() -> None:
    """Replace this process by the same command under .venv, if that exists.

    So the documented commands work word for word with the system's own python3. A Python
    that is in an environment already stays there, and so does one that may not start the
    environment's: root may have made it with a Python that only root can reach.
    """
    python = FOLDER / "bin/python"
    whole = os.access(FOLDER / "pyvenv.cfg", os.R_OK) and os.access(python, os.X_OK)
    # a broken environment must not make this process replace itself for ever
    if whole and sys.prefix == sys.base_prefix and Path(sys.executable) != python:
        os.execv(python, [str(python), *sys.orig_argv[1:]])  # noqa: S606  (no shell is wanted)


@contextlib.contextmanager
def packages() -> Iterator[None]:
    """Name the missing packages if an import in the block fails because of one.

    Raises ConfigError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in PACKAGES:
            raise
        missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        verb = "package {} is" if len(missing) == 1 else "packages {} are"
        unreachable = FOLDER.exists() and not os.access(FOLDER / "bin/python", os.X_OK)
        why = f" ({FOLDER}/bin/python cannot be started by this user)" if unreachable else ""
        again = f"Remove {FOLDER} first: it was made with a Python of another user. "
        raise ConfigError(
            f"the Python {verb.format(', '.join(missing))} missing{why}",
            f"{again if unreachable else ''}python3 setup.py env makes .venv with all of them. "
            "Without a network, restore by the RUN.RECOVERY.txt in the store: it needs age, zstd "
            "and tar.",
        ) from None
