"""Settings that hold for all roles in all databases: pg_dumpall does not dump them."""

from __future__ import annotations

import re

from postgres import cluster

# Their values are lists (GUC_LIST_QUOTE, guc_tables.c): each entry is a text of its own.
_LISTS = (
    *("local_preload_libraries", "search_path", "session_preload_libraries"),
    *("shared_preload_libraries", "temp_tablespaces", "unix_socket_directories"),
)
_ENTRY = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,"]*))\s*(?:,|$)')


def of_all_roles(server: cluster.Cluster) -> bytes:
    """ALTER ROLE ALL for each such setting, in the encoding that the server sent; may be empty."""
    rows = server.sql(
        f"SELECT {cluster.hexed('setting')} FROM pg_db_role_setting, unnest(setconfig) AS setting "
        "WHERE setdatabase = 0 AND setrole = 0 ORDER BY 1",
        columns=1,
    )
    lines = "".join(statement(*cluster.text(row[0]).split("=", 1)) for row in rows)
    return f"\n{lines}".encode("utf-8", "surrogateescape") if lines else b""


def statement(name: str, value: str) -> str:
    """One ALTER ROLE ALL, for a session with standard_conforming_strings."""
    quoted = ".".join(map(cluster.identifier, name.split(".")))
    values = entries(value) if name.lower() in _LISTS else [value]
    texts = ", ".join("'" + one.replace("'", "''") + "'" for one in values) or "''"
    return f"ALTER ROLE ALL SET {quoted} TO {texts};\n"


def entries(value: str) -> list[str]:
    """The entries of a list as pg_db_role_setting has it: names, quoted where they need it."""
    found, position = [], 0
    while position < len(value) and (entry := _ENTRY.match(value, position)):
        quoted, plain = entry[1], entry[2]
        found.append(quoted.replace('""', '"') if quoted is not None else plain.strip())
        position = entry.end()
    return found
