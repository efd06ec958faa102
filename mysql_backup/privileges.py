"""What a login may not do that a backup needs: rights that are missing, views it cannot read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from mysql_backup import instance
from tools.base import finding
from tools.base.finding import Finding
from tools.date_str_utils import count
from tools.flow import dump_stream, process, stream

_VIEWS = 1000  # views that are tried at most
_ERROR = re.compile(r"ERROR (?P<number>\d+) \(\w+\) at line (?P<line>\d+)(?: in file: '.*?')?: ")
_ROUTINE = re.compile(r"for routine '(?P<name>.+)'")
# The binary log's position: the name of the right by server.
_POSITION = ("BINLOG MONITOR", "REPLICATION CLIENT", "SUPER")
_EFFECTS = {
    "TRIGGER": "triggers are missing from dumps",
    "EVENT": "dumps of events fail",
    "SHOW VIEW": "dumps of views fail",
    "SELECT": "tables without it are missing from dumps, or dumps fail",
}


def findings(
    source: instance.Instance,
    about: instance.About,
    databases: Sequence[str],
    exclude_table: Sequence[str],
    *,
    logs: bool,
) -> Iterator[Finding]:
    """What `-t` says of the rights of a login; logs: whether binary logs are backed up.

    Raises SourceError where the server cannot be asked.
    """
    everywhere = granted(source, about)
    if everywhere is not None:
        yield from _missing(source, about, databases, everywhere, logs=logs)
    yield from _views(source, databases, exclude_table)


def granted(source: instance.Instance, about: instance.About) -> set[str] | None:
    """The rights on all databases; None where a role is active, whose rights are not listed."""
    if about.is_mariadb or instance.major(about.version) >= (8, 0):
        ((role,),) = source.rows("SELECT IFNULL(CURRENT_ROLE(), 'NONE')")
        if role != "NONE":
            return None
    rows = source.rows(
        "SELECT privilege_type FROM information_schema.user_privileges "
        "WHERE REPLACE(grantee, CHAR(39), '') = CURRENT_USER()"
    )
    return {row[0] for row in rows}


def unseen(
    source: instance.Instance, database: str, everywhere: Collection[str] | None
) -> tuple[str, ...]:
    """A warning where the login sees no triggers: the dump program leaves them out silently."""
    if everywhere is None or "TRIGGER" in everywhere or "TRIGGER" in of_database(source, database):
        return ()
    return (f"triggers not in the dump: the user lacks TRIGGER on {database}",)


def _missing(
    source: instance.Instance,
    about: instance.About,
    databases: Sequence[str],
    everywhere: Collection[str],
    *,
    logs: bool,
) -> Iterator[Finding]:
    if about.binlog and not any(one in everywhere for one in _POSITION):
        right = "BINLOG MONITOR" if about.is_mariadb else "REPLICATION CLIENT"
        yield finding.bad(f"the user lacks {right}: dumps and binary logs fail", _grant(right))
    if about.binlog and logs and "RELOAD" not in everywhere:
        yield finding.bad("the user lacks RELOAD: backups of binary logs fail", _grant("RELOAD"))
    for right, effect in _EFFECTS.items():
        lacking = [
            name for name in databases
            if right not in everywhere and right not in of_database(source, name)
        ]  # fmt: skip
        if lacking and (right != "EVENT" or about.events):
            some = ", ".join(lacking[:3]) + (" and more" if len(lacking) > 3 else "")  # noqa: PLR2004
            yield finding.warning(f"the user lacks {right} on {some}: {effect}", _grant(right))


def of_database(source: instance.Instance, database: str) -> set[str]:
    """The rights of the login on one database, beside those on all of them."""
    rows = source.rows(
        "SELECT privilege_type FROM information_schema.schema_privileges "  # noqa: S608  (our own)
        "WHERE REPLACE(grantee, CHAR(39), '') = CURRENT_USER() "
        f"AND {instance.hexed(database)} LIKE table_schema"
    )
    return {row[0] for row in rows}


def _grant(right: str) -> str:
    return f"Run as an administrator: GRANT {right} ON *.* TO the user of the backup."


def _views(
    source: instance.Instance, databases: Sequence[str], exclude_table: Sequence[str]
) -> Iterator[Finding]:
    """Each view that the dump program could not read: tried as it does it."""
    wanted = set(databases)
    views = [
        (database, name)
        for database, name in source.names(
            "SELECT HEX(table_schema), HEX(table_name) FROM information_schema.tables "
            "WHERE table_type = 'VIEW' ORDER BY table_schema, table_name"
        )
        if database in wanted and not dump_stream.is_named(f"{database}.{name}", exclude_table)
    ]
    by_line: dict[int, str] = {}
    script = ""
    for database, name in views[:_VIEWS]:
        where = f"{instance.quoted(database)}.{instance.quoted(name)}"
        by_line[script.count("\n") + 1] = _shown(f"{database}.{name}")
        script += f"SHOW CREATE VIEW {where}; SHOW FIELDS FROM {where};\n"
    yield from _refused(source, script, by_line)
    if len(views) > _VIEWS:
        yield finding.warning(f"{count(len(views) - _VIEWS, 'more view')} not checked")


def _refused(source: instance.Instance, script: str, by_line: dict[int, str]) -> Iterator[Finding]:
    lines: list[str] = []
    words = source.command("--force", "--batch", "--default-character-set=utf8mb4")
    stream.drained(
        process.output(
            words, given=script.encode("utf-8", "surrogateescape"), notice=lines.append,
            allowed=(0, 1), env=instance.environment(),
        )
    )  # fmt: skip
    told: set[str] = set()
    for text in lines:
        found = _ERROR.match(text)
        if found is None:
            continue
        at = max((one for one in by_line if one <= int(found["line"])), default=0)
        view = by_line.get(at, "?")
        if view not in told:
            told.add(view)
            yield finding.bad(f"view {view} cannot be dumped: {text}", _remedy(text, view))


def _shown(name: str) -> str:
    """A name on one line."""
    return name if name.isprintable() else repr(name)


def _remedy(text: str, view: str) -> str:
    leave = f"or add {view} to EXCLUDE_TABLE."
    if found := _ROUTINE.search(text):
        return f"GRANT EXECUTE ON FUNCTION {found['name']} TO the user of the backup, {leave}"
    return f"Correct the definition of the view or the privileges of its definer, {leave}"
