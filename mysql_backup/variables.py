"""Settings of a server that decide what it takes back: facts of its items, and of a drill."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tools import plugin

if TYPE_CHECKING:
    from mysql_backup import instance
else:
    instance = plugin.load("mysql_backup/instance.py")

VARIABLE = "variable."  # begins the name of the fact of a variable
_AT_INSTALLATION = ("innodb_page_size", "lower_case_table_names")
_NAMES = (
    *_AT_INSTALLATION,
    "character_set_server",
    "collation_server",
    "explicit_defaults_for_timestamp",
    "innodb_default_row_format",
    "innodb_file_per_table",
    "innodb_strict_mode",
    "max_allowed_packet",
    "sql_mode",
    "system_versioning_insert_history",
)
_ON = {"ON": "1", "OFF": "0"}
_VALUE = re.compile(r"[\w,.-]*")


def facts(source: instance.Instance) -> dict[str, str]:
    """Ask a server for them. Raises SourceError."""
    wanted = ", ".join(f"'{name}'" for name in _NAMES)
    rows = source.rows(f"SHOW GLOBAL VARIABLES WHERE variable_name IN ({wanted})")
    return {VARIABLE + name: _ON.get(value, value) for name, value in sorted(rows)}


def words(facts: Iterable[Mapping[str, str]], *, install: bool) -> list[str]:
    """The words of the command line that give a server the settings of another one.

    install: only those that count when its data is made. A value of the manifest that can be
    none is passed over. What a server of another version does not know, it ignores (--loose).
    """
    known = {
        key.removeprefix(VARIABLE): value
        for one in facts
        for key, value in one.items()
        if key.startswith(VARIABLE) and _VALUE.fullmatch(value)
    }
    names = _AT_INSTALLATION if install else _NAMES
    return [f"--loose-{name.replace('_', '-')}={known[name]}" for name in names if name in known]
