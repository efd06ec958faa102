"""The entries of a dump, by when a guarded load restores them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from postgres import dump_loading, pg_server
from postgres.dump_loading import Dump

_ENTRY = re.compile(r"(\d+); (\d+) \d+ (.*)")  # of the list of a dump: number, catalog, label
ROWS = ("TABLE DATA ", "SEQUENCE SET ", "BLOBS ")
FIRST = ("INDEX ", "CONSTRAINT ")  # of the section post-data
FOREIGN, CHECK = "FK CONSTRAINT ", "CHECK CONSTRAINT "
_ATTACH, _ATTACH_INDEX = "TABLE ATTACH ", "INDEX ATTACH "
_VIEWS = "MATERIALIZED VIEW DATA "
# At the beginning of a label only: the rest are names, which may contain these words.
_LAST = re.compile(r"(?:(?:COMMENT|SECURITY LABEL) - )?EVENT TRIGGER ")
_DEPENDS = ";\tdepends on: "


@dataclass(frozen=True)
class Entries:
    """The entries of a dump, number and label, by when they are restored.

    before: tables and the like; attach: partitions; acl: privileges; rows; first: indexes;
    indexes: of partitions, to be attached; checks, keys: constraints; after: the rest; views: rows
    of materialized views; last: event triggers
    """

    before: dict[str, str]
    attach: dict[str, str]
    acl: dict[str, str]
    rows: dict[str, str]
    first: dict[str, str]
    indexes: dict[str, str]
    checks: dict[str, str]
    keys: dict[str, str]
    after: dict[str, str]
    views: dict[str, str]
    last: dict[str, str]


def read(target: pg_server.PostgresConnection, dump: Dump) -> Entries:
    """Return the entries of a dump in its order."""
    groups: dict[str, dict[str, str]] = {
        key: {}
        for key in Entries.__dataclass_fields__  # one for each field
    }
    for section in ("pre-data", "data", "post-data"):
        lines = dump_loading.list_entries(target, dump.head, f"--section={section}")
        for match in filter(None, map(_ENTRY.match, lines)):
            groups[_group(section, match[2], match[3])][match[1]] = match[3]
    return Entries(**groups)


def dependencies(target: pg_server.PostgresConnection, dump: Dump) -> dict[str, list[str]]:
    """Return the numbers of the entries that each entry depends on."""
    by_entry: dict[str, list[str]] = {}
    entry = ""
    for line in dump_loading.list_entries(target, dump.head, "--verbose"):
        if match := _ENTRY.match(line):
            entry = match[1]
        elif line.startswith(_DEPENDS):
            by_entry[entry] = line.removeprefix(_DEPENDS).split()
    return by_entry


def _group(section: str, catalog: str, label: str) -> str:
    """Return when an entry is restored: the name of a field of Entries."""
    if catalog == "0" and label.startswith("ACL "):
        return "acl"
    if section == "pre-data":
        return "attach" if catalog == "0" and label.startswith(_ATTACH) else "before"
    if section == "data" and label.startswith(ROWS):
        return "rows"
    if _LAST.match(label):
        return "last"
    if catalog == "0" and label.startswith(_ATTACH_INDEX):
        return "indexes"
    kinds = {CHECK: "checks", FOREIGN: "keys", _VIEWS: "views"} | dict.fromkeys(FIRST, "first")
    return next((group for kind, group in kinds.items() if label.startswith(kind)), "after")
