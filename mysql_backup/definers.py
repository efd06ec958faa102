"""Definers: whom triggers, routines, events and views of a restored database run as."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tools import plugin
from tools.errors import SourceError

if TYPE_CHECKING:
    from mysql_backup import instance, renamed
else:
    instance = plugin.load("mysql_backup/instance.py")
    renamed = plugin.load("mysql_backup/renamed.py")

# What a server says to a user who may not name another definer than itself.
DENIED = "ERROR 1227 "
_ACCOUNT = rb"`(?:[^`]|``)*`(?:@`(?:[^`]|``)*`)?"
# As mysqldump writes it: before TRIGGER and EVENT, before PROCEDURE, on a view's own line.
_DEFINER = re.compile(
    rb"^((?:/\*!\d+ )?CREATE(?:\*/)? )?"
    rb"(?:/\*!\d+ DEFINER=" + _ACCOUNT + rb" ?\*/ |(/\*!\d+ )?DEFINER=" + _ACCOUNT + rb" )"
)
_KINDS = {"views": "table", "routines": "routine", "triggers": "trigger", "events": "event"}


def stripped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A dump without definers: all in it belongs to whoever loads it."""
    for line in renamed.lines(chunks):
        yield _DEFINER.sub(rb"\1\2", line)
        yield b"\n"


def missing(target: instance.Instance, name: str) -> tuple[str, ...]:
    """The definers in a database that the server does not know; () where we may not look."""
    where = f"= {instance.hexed(name)}"
    asked = " UNION ".join(
        f"SELECT HEX(definer) FROM information_schema.{kind} WHERE {column}_schema {where}"  # noqa: S608  (our own)
        for kind, column in _KINDS.items()
        if kind != "events" or instance.about(target).events
    )
    wanted = {row[0] for row in target.names(asked)}
    try:
        rows = target.names("SELECT HEX(RTRIM(user)), HEX(RTRIM(host)) FROM mysql.user")
    except SourceError:
        return ()
    there = {f"{user}@{host}" for user, host in rows} | {user for user, host in rows if not host}
    return tuple(sorted(wanted - there))
