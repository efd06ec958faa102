"""The client programs of PostgreSQL: psql, pg_dump and those beside it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tools.base import fixes
from tools.base.errors import ConfigError

_VERSIONS = Path("/usr/lib/postgresql")  # where Debian installs them, one folder each
_VERSION = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4})?")


@dataclass(frozen=True)
class ClientPrograms:
    """psql, pg_dump, and the programs in the folder of pg_dump."""

    psql: str
    dump: str

    def sibling(self, name: str) -> str:
        """Return another program of the same version. Raises ConfigError if there is none."""
        program = Path(self.dump)
        for near in (program.with_name(name), program.resolve().with_name(name)):
            if program.is_absolute() and near.is_file():
                return str(near)
        path = shutil.which(name)
        if not path:
            raise ConfigError(
                f"{name}: command not found",
                "Install the PostgreSQL client programs (Debian: postgresql-client).",
                fixes.install(name),
            )
        return path


def for_host(psql: str, dump: str, host: str) -> ClientPrograms:
    """Return the programs for a server; host: "" for the default of libpq.

    For a host that is named, pg_wrapper of Debian starts the newest version and asks nothing of
    its clusters (pg_wrapper(1)). It is a Perl script that takes ten times as long as psql itself.
    """
    return ClientPrograms(_direct(psql), _direct(dump)) if host else ClientPrograms(psql, dump)


def _direct(program: str) -> str:
    """Return the newest installed version of a program that is pg_wrapper; any other as it is."""
    if Path(program).resolve().name != "pg_wrapper":
        return program
    installed = list(_VERSIONS.glob(f"*/bin/{Path(program).name}"))
    numbered = [file for file in installed if _VERSION.fullmatch(file.parents[1].name)]
    newest = max(numbered, key=lambda file: _numbers(file.parents[1].name), default=None)
    return program if newest is None else str(newest)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
