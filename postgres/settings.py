"""Settings of all roles in all databases (ALTER ROLE ALL), which pg_dumpall does not dump."""

from __future__ import annotations

import re

from postgres import pg_server

# Their values are lists (GUC_LIST_QUOTE, guc_tables.c): each entry is a separate literal.
_LISTS = (
    *("local_preload_libraries", "search_path", "session_preload_libraries"),
    *("shared_preload_libraries", "temp_tablespaces", "unix_socket_directories"),
)
_ENTRY = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,"]*))\s*(?:,|$)')


def all_roles_settings(server: pg_server.PostgresConnection) -> bytes:
    """Return ALTER ROLE ALL for each such setting, in the encoding of the server; may be empty."""
    rows = server.sql(
        f"SELECT {pg_server.hex_expression('setting')} FROM pg_db_role_setting, "
        "unnest(setconfig) AS setting WHERE setdatabase = 0 AND setrole = 0 ORDER BY 1",
        columns=1,
    )
    lines = "".join(statement(*pg_server.decode_hex(row[0]).split("=", 1)) for row in rows)
    return f"\n{lines}".encode("utf-8", "surrogateescape") if lines else b""


def statement(name: str, value: str) -> str:
    """Return one ALTER ROLE ALL, for a session with standard_conforming_strings."""
    quoted = ".".join(map(pg_server.quote_identifier, name.split(".")))
    values = list_entries(value) if name.lower() in _LISTS else [value]
    texts = ", ".join("'" + one.replace("'", "''") + "'" for one in values) or "''"
    return f"ALTER ROLE ALL SET {quoted} TO {texts};\n"


def list_entries(value: str) -> list[str]:
    """Return the entries of a list in pg_db_role_setting, whose names may be quoted."""
    values, position = [], 0
    while position < len(value) and (entry := _ENTRY.match(value, position)):
        quoted, plain = entry[1], entry[2]
        values.append(quoted.replace('""', '"') if quoted is not None else plain.strip())
        position = entry.end()
    return values
