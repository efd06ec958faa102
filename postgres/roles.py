"""Roles and tablespaces back into a server, as far as it lacks them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator

from postgres import cluster, properties
from tools.base.errors import StoreError
from tools.base.result import Result, Status
from tools.flow import stream

# What a server says of a tablespace whose folder is not there, or not its own.
_NO_FOLDER = re.compile(r'ERROR:\s+(?:directory "|could not .* directory "|tablespace ")')
_HEADER = re.compile(r"-- (?:Roles|Role .*|User Config.*|Tablespaces|PostgreSQL .* complete)\n")


def restore(
    target: cluster.Cluster, again: Callable[[], Iterator[bytes]], *, tablespaces: bool
) -> Result:
    """Roles, and tablespaces where they are wanted; a role that is there stays as it is.

    Its memberships are made all the same. A tablespace whose folder is missing is a warning.
    Raises StoreError where anything else is refused; what can be made is made.
    """
    with stream.closed(again()) as chunks:
        script = b"".join(chunks).decode("utf-8", "surrogateescape")
    there = cluster.roles(target)
    wanted = "".join(_wanted(script.splitlines(keepends=True), there, tablespaces=tablespaces))
    check = properties.unloadable("setdatabase = 0")
    said = target.script([wanted.encode("utf-8", "surrogateescape"), b"\n", check])
    errors = [line for line in said if "ERROR:" in line and "already exists" not in line]
    warnings = tuple(line for line in errors if _NO_FOLDER.search(line))
    if len(warnings) < len(errors):
        first, *rest = [line for line in errors if line not in warnings]
        raise StoreError(f"roles: {first}", "\n".join(rest))
    warnings += properties.left_out(said)
    number = target.number("SELECT count(*) FROM pg_roles WHERE rolname !~ '^pg_'")
    status = Status.INCOMPLETE if warnings else Status.OK
    return Result(status, f"{number} roles on the server", items=1, warnings=warnings)


def _wanted(lines: Iterable[str], there: Collection[str], *, tablespaces: bool) -> Iterator[str]:
    """The lines of pg_dumpall --globals-only that are carried out."""
    header = ""
    kept = tuple(f"ALTER ROLE {name} WITH " for name in there)
    made = {f"CREATE ROLE {name};\n" for name in there}
    for line in lines:
        if _HEADER.fullmatch(line):
            header = line
        if line in made or line.startswith(kept):
            continue  # the restore itself may have logged in by that password
        if tablespaces or "Tablespaces" not in header or line.startswith(("--", "\\")):
            yield line
