"""Settings of roles and databases (ALTER ROLE ... SET, ALTER DATABASE ... SET)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from postgres.server_facts import Setting
from postgres.statements import Statement

# Their values are lists (GUC_LIST_QUOTE, guc_tables.c): each entry is a separate literal.
_LISTS = (
    *("local_preload_libraries", "search_path", "session_preload_libraries"),
    *("shared_preload_libraries", "temp_tablespaces", "unix_socket_directories"),
)
_ENTRY = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,"]*))\s*(?:,|$)')


def statement(setting: Setting, database: str = "") -> Statement:
    """Return the statement for a setting. database: another name for that of the setting"""
    database = database or setting.database
    values = list_entries(setting.value) if setting.name.lower() in _LISTS else [setting.value]
    values = values or [""]
    places = ", ".join(["%L"] * len(values))
    subject, names = "ROLE ALL", []
    if setting.role:
        subject, names = "ROLE %I", [setting.role]
        if database:
            subject, names = "ROLE %I IN DATABASE %I", [setting.role, database]
    elif database:
        subject, names = "DATABASE %I", [database]
    return Statement(f"ALTER {subject} SET %I TO {places}", (*names, setting.name, *values))


def list_entries(value: str) -> list[str]:
    """Return the entries of a list in pg_db_role_setting, whose names may be quoted."""
    values, position = [], 0
    while position < len(value) and (entry := _ENTRY.match(value, position)):
        quoted, plain = entry[1], entry[2]
        values.append(quoted.replace('""', '"') if quoted is not None else plain.strip())
        position = entry.end()
    return values


def joined(name: str, values: Sequence[str]) -> str:
    """Return the value of a setting as pg_db_role_setting has it, from its literals."""
    if name.lower() not in _LISTS:
        return ", ".join(values)
    return ", ".join('"' + value.replace('"', '""') + '"' for value in values)
