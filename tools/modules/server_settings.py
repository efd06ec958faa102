"""Settings of a MySQL or MariaDB server that decide what it takes back: facts of its items."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

VARIABLE = "variable."  # begins the name of the fact of a variable
_AT_INSTALLATION = ("innodb_page_size", "lower_case_table_names")
NAMES = (
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
_VALUE = re.compile(r"[\w,.-]*")


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
    names = _AT_INSTALLATION if install else NAMES
    return [f"--loose-{name.replace('_', '-')}={known[name]}" for name in names if name in known]
