"""Connection and TLS settings of libpq: keys of a section, and environment variables.

The variables are those of the PostgreSQL manual, "libpq: Environment Variables".
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tools.base.errors import ConfigError
from tools.modules.options import Ports, option

_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SYSTEM = Path("system")  # the CA certificates of the system (libpq 16 and later)
# Variables that a restore takes from its shell. Only arguments select the server, so PGHOST,
# PGHOSTADDR, PGPORT, PGDATABASE and PGSERVICE are not among them.
_SHELL_VARIABLES = (
    *("PGUSER", "PGPASSWORD", "PGPASSFILE", "PGREQUIREAUTH", "PGCHANNELBINDING", "PGOPTIONS"),
    *("PGSSLMODE", "PGREQUIRESSL", "PGSSLNEGOTIATION", "PGSSLCOMPRESSION", "PGSSLCERT"),
    *("PGSSLKEY", "PGSSLCERTMODE", "PGSSLROOTCERT", "PGSSLCRL", "PGSSLCRLDIR", "PGSSLSNI"),
    *("PGSSLMINPROTOCOLVERSION", "PGSSLMAXPROTOCOLVERSION", "PGREQUIREPEER", "PGGSSENCMODE"),
    *("PGKRBSRVNAME", "PGGSSLIB", "PGGSSDELEGATION", "PGCONNECT_TIMEOUT", "PGTARGETSESSIONATTRS"),
    *("PGSYSCONFDIR", "KRB5CCNAME", "KRB5_CONFIG"),
)


@dataclass(frozen=True)
class Login:
    """The keys of both dumps and base backups."""

    host: str = option("host name, or directory of the Unix socket", default="")
    port: Ports = option("ports of the servers; default: the default of libpq", default=())
    user: str = option("role to connect as", default="")
    passfile: Path | None = option("password file; default ~/.pgpass", default=None)
    sslmode: str = option(
        f"TLS mode: {', '.join(_MODES)}; default: that of libpq (prefer)", default=""
    )
    sslrootcert: Path | None = option(
        "file of the CA certificates for verify-ca and verify-full", default=None
    )
    sslcert: Path | None = option("client certificate", default=None)
    sslkey: Path | None = option("private key of the client certificate", default=None)


def variables(login: Login) -> dict[str, str]:
    """Return the variables of libpq for the keys that are set. Raises ConfigError."""
    if login.sslmode and login.sslmode not in _MODES:
        raise ConfigError(
            f"SSLMODE: {login.sslmode!r}: not a mode of libpq",
            f"Set it to one of {', '.join(_MODES)}.",
        )
    values = {"PGSSLMODE": login.sslmode} if login.sslmode else {}
    for key in ("sslrootcert", "sslcert", "sslkey"):
        path: Path | None = getattr(login, key)
        if path is None:
            continue
        if path != _SYSTEM and not path.is_file():
            raise ConfigError(
                f"{key.upper()}: {path}: no such file",
                "Set it to the absolute path of a file in PEM format.",
            )
        values[f"PG{key.upper()}"] = str(path if path == _SYSTEM else path.absolute())
    return values


def shell_variables() -> dict[str, str]:
    """Return the variables of libpq in the environment of a restore."""
    return {name: os.environ[name] for name in _SHELL_VARIABLES if name in os.environ}
