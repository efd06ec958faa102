"""Settings of a MySQL or MariaDB server that decide what it takes back: facts of its items."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

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


def arguments(variables: Iterable[Mapping[str, str]], *, install: bool) -> list[str]:
    """Return the arguments that give a server the settings of other ones.

    install: only those that count when its data folder is created. A value of a manifest that
    is no value of a setting is skipped. A server of another version ignores what it does not
    know (--loose).
    """
    values = {
        name: value
        for one in variables
        for name, value in one.items()
        if isinstance(value, str) and _VALUE.fullmatch(value)
    }
    names = _AT_INSTALLATION if install else NAMES
    return [f"--loose-{name.replace('_', '-')}={values[name]}" for name in names if name in values]
