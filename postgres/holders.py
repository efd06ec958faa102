"""Tables and domains of a database, and how entries in the list of a dump name them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from postgres import pg_server
from tools.base.errors import StoreError

_LINE_BREAK = re.compile("[\r\n]")  # a space in a list
_HOLDERS = """SELECT 'TABLE' AS kind, nspname || ' ' || relname AS label,
    r.oid::regclass::text AS name, pg_get_userbyid(relowner) AS owner
  FROM pg_class r JOIN pg_namespace n ON n.oid = relnamespace
  WHERE relkind IN ('r', 'p', 'm', 'f')
  UNION ALL SELECT 'DOMAIN', nspname || ' ' || typname, t.oid::regtype::text,
    pg_get_userbyid(typowner)
  FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace WHERE typtype = 'd'"""


@dataclass(frozen=True)
class Holder:
    """A table or domain. kind: TABLE or DOMAIN; label: schema and name; name: as it is in SQL

    orphan: whether its owner in the dump does not exist: it belongs to the role of the restore
    """

    kind: str
    label: str
    name: str
    owner: str
    orphan: bool = False

    @property
    def dump_label(self) -> str:
        """Return the label of its entry in a dump: with its owner."""
        return f"{one_line(self.label)} {one_line(self.owner)}"

    def may_own(self, label: str) -> bool:
        """Return whether the object of an entry may belong to the same owner."""
        return self.orphan or label.endswith(f" {one_line(self.owner)}")

    def begins(self, label: str) -> bool:
        """Return whether this is at the beginning of the label of an entry in a dump."""
        return f"{label} ".startswith(f"{one_line(self.label)} ")


def longest(holders: Sequence[Holder]) -> list[Holder]:
    """Return those with the longest label: it is the whole name, not a part of it."""
    length = max((len(one.label) for one in holders), default=0)
    return [one for one in holders if len(one.label) == length]


def one_line(name: str) -> str:
    """Return a name as the list of a dump has it."""
    return _LINE_BREAK.sub(" ", name)


def of_database(target: pg_server.PostgresConnection, database: str) -> list[Holder]:
    """Return all tables and domains."""
    columns = ", ".join(map(pg_server.hex_expression, ("kind", "label", "name", "owner")))
    rows = target.sql(f"SELECT {columns} FROM ({_HOLDERS}) AS h", database=database, columns=4)
    decoded = (map(pg_server.decode_hex, row) for row in rows)
    return [Holder(kind, label, name, owner) for kind, label, name, owner in decoded]


def find(
    target: pg_server.PostgresConnection, database: str, labels: Iterable[str], restorer: str
) -> list[Holder]:
    """Return the tables and domains of labels in a dump: one each. restorer: owner of orphans

    A label is ambiguous if names contain spaces, so its owner must be the right one as well.
    """
    everything = of_database(target, database)
    exact: dict[str, list[Holder]] = {}
    for one in everything:
        exact.setdefault(one.dump_label, []).append(one)
    holders: list[Holder] = []
    for label in dict.fromkeys(labels):
        holders += exact.get(label) or [
            dataclasses.replace(one, orphan=True)
            for one in longest([one for one in everything if one.begins(label)])
            if one.owner == restorer
        ]
    return list(dict.fromkeys(holders))


def find_named(target: pg_server.PostgresConnection, database: str, kind: str, name: str) -> Holder:
    """Return a table or domain by its name in SQL. Raises StoreError."""
    for one in of_database(target, database):
        if (one.kind, one.name) == (kind, name):
            return one
    raise StoreError(f"{kind} not found: {name}")
