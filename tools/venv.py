"""Go on in the project's private environment; stands on nothing but the standard library."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.errors import ConfigError

FOLDER = Path(__file__).resolve().parents[1] / ".venv"
PACKAGES = ("cryptography", "requests", "rich", "zstandard")


def enter() -> None:
    """Replace this process by the same command under .venv, where there is one.

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
    """Name the required packages that are missing where an import in the block fails for one.

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
