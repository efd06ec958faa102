"""Settings that decide which data a server accepts in a restore: facts of its items."""

from __future__ import annotations

from mysql_backup import mysql_server
from tools.modules import server_settings

_ON = {"ON": "1", "OFF": "0"}


def facts(source: mysql_server.MySQLConnection) -> dict[str, str]:
    """Query them. Raises SourceError."""
    names = ", ".join(f"'{name}'" for name in server_settings.NAMES)
    rows = source.query(f"SHOW GLOBAL VARIABLES WHERE variable_name IN ({names})")
    return {name: _ON.get(value, value) for name, value in sorted(rows)}
