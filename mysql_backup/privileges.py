"""Missing privileges of the user of the backup, and views that the user cannot read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from mysql_backup import mysql_server
from tools.base import finding, fixes
from tools.base.finding import Finding
from tools.date_str_utils import count
from tools.flow import dump_stream, process, stream

_USUAL_PORT = 3306
_VIEWS = 1000  # views that are checked at most
_ERROR = re.compile(r"ERROR (?P<number>\d+) \(\w+\) at line (?P<line>\d+)(?: in file: '.*?')?: ")
_ROUTINE = re.compile(r"for routine '(?P<name>.+)'")
# Privileges for the position of the binary log, by server.
_POSITION = ("BINLOG MONITOR", "REPLICATION CLIENT", "SUPER")
_EFFECTS = {
    "TRIGGER": "triggers are missing from dumps",
    "EVENT": "dumps of events fail",
    "SHOW VIEW": "dumps of views fail",
    "SELECT": "tables without it are missing from dumps, or dumps fail",
}


def findings(
    source: mysql_server.MySQLConnection,
    info: mysql_server.ServerInfo,
    databases: Sequence[str],
    exclude_table: Sequence[str],
    *,
    logs: bool,
) -> Iterator[Finding]:
    """Yield the findings on privileges for `-t`; logs: whether binary logs are backed up.

    Raises SourceError if a query fails.
    """
    everywhere = global_privileges(source, info)
    if everywhere is not None:
        yield from _missing_privileges(source, info, databases, everywhere, logs=logs)
    yield from _view_findings(source, databases, exclude_table)


def global_privileges(
    source: mysql_server.MySQLConnection, info: mysql_server.ServerInfo
) -> set[str] | None:
    """Return the global privileges; None if a role is active, whose privileges are not listed."""
    if info.is_mariadb or mysql_server.major_version(info.version) >= (8, 0):
        ((role,),) = source.query("SELECT IFNULL(CURRENT_ROLE(), 'NONE')")
        if role != "NONE":
            return None
    rows = source.query(
        "SELECT privilege_type FROM information_schema.user_privileges "
        "WHERE REPLACE(grantee, CHAR(39), '') = CURRENT_USER()"
    )
    return {row[0] for row in rows}


def trigger_warnings(
    source: mysql_server.MySQLConnection, database: str, everywhere: Collection[str] | None
) -> tuple[str, ...]:
    """Return a warning if the user cannot see triggers: they are missing without an error."""
    if (
        everywhere is None
        or "TRIGGER" in everywhere
        or "TRIGGER" in database_privileges(source, database)
    ):
        return ()
    return (f"triggers not in the dump: the user lacks TRIGGER on {database}",)


def _missing_privileges(
    source: mysql_server.MySQLConnection,
    info: mysql_server.ServerInfo,
    databases: Sequence[str],
    everywhere: Collection[str],
    *,
    logs: bool,
) -> Iterator[Finding]:
    account = _account(source)
    if info.binlog and not any(one in everywhere for one in _POSITION):
        right = "BINLOG MONITOR" if info.is_mariadb else "REPLICATION CLIENT"
        yield finding.bad(
            f"the user lacks {right}: dumps and binary logs fail", *_grant(right, account, info)
        )
    if info.binlog and logs and "RELOAD" not in everywhere:
        yield finding.bad(
            "the user lacks RELOAD: backups of binary logs fail", *_grant("RELOAD", account, info)
        )
    for right, effect in _EFFECTS.items():
        lacking = [
            name for name in databases
            if right not in everywhere and right not in database_privileges(source, name)
        ]  # fmt: skip
        if lacking and (right != "EVENT" or info.events):
            some = ", ".join(lacking[:3]) + (" and more" if len(lacking) > 3 else "")  # noqa: PLR2004
            text = f"the user lacks {right} on {some}: {effect}"
            yield finding.warning(text, *_grant(right, account, info))


def database_privileges(source: mysql_server.MySQLConnection, database: str) -> set[str]:
    """Return the privileges on one database, without the global ones."""
    rows = source.query(
        "SELECT privilege_type FROM information_schema.schema_privileges "  # noqa: S608  (our own)
        "WHERE REPLACE(grantee, CHAR(39), '') = CURRENT_USER() "
        f"AND {mysql_server.hex_literal(database)} LIKE table_schema"
    )
    return {row[0] for row in rows}


def _account(source: mysql_server.MySQLConnection) -> str:
    """Return the account of the session as SQL: `user`@`host`."""
    ((account,),) = source.names("SELECT HEX(CURRENT_USER())")
    user, _, host = account.rpartition("@")
    return f"{mysql_server.quote_identifier(user)}@{mysql_server.quote_identifier(host)}"


def _grant(right: str, account: str, info: mysql_server.ServerInfo) -> tuple[str, str]:
    """Return the hint for a missing privilege, and the command where root may log in.

    Packages let root log in by the socket of the server with the usual port.
    """
    statement = f"GRANT {right} ON *.* TO {account};"
    fix = fixes.command("mysql", "-e", statement) if info.port == _USUAL_PORT else ""
    return f"Run as an administrator: {statement}", fix and fixes.as_root(fix)


def _view_findings(
    source: mysql_server.MySQLConnection, databases: Sequence[str], exclude_table: Sequence[str]
) -> Iterator[Finding]:
    """Yield a finding for each view that the dump program could not read."""
    selected = set(databases)
    views = [
        (database, name)
        for database, name in source.names(
            "SELECT HEX(table_schema), HEX(table_name) FROM information_schema.tables "
            "WHERE table_type = 'VIEW' ORDER BY table_schema, table_name"
        )
        if database in selected and not dump_stream.is_named(f"{database}.{name}", exclude_table)
    ]
    by_line: dict[int, str] = {}
    script = ""
    for database, name in views[:_VIEWS]:
        where = f"{mysql_server.quote_identifier(database)}.{mysql_server.quote_identifier(name)}"
        by_line[script.count("\n") + 1] = _on_one_line(f"{database}.{name}")
        script += f"SHOW CREATE VIEW {where}; SHOW FIELDS FROM {where};\n"
    yield from _failed_views(source, script, by_line)
    if len(views) > _VIEWS:
        yield finding.warning(f"{count(len(views) - _VIEWS, 'more view')} not checked")


def _failed_views(
    source: mysql_server.MySQLConnection, script: str, by_line: dict[int, str]
) -> Iterator[Finding]:
    lines: list[str] = []
    command = source.command("--force", "--batch", "--default-character-set=utf8mb4")
    stream.drained(
        process.output(
            command, stdin_data=script.encode("utf-8", "surrogateescape"), notice=lines.append,
            allowed=(0, 1), env=mysql_server.environment(),
        )
    )  # fmt: skip
    reported: set[str] = set()
    for text in lines:
        match = _ERROR.match(text)
        if match is None:
            continue
        at = max((one for one in by_line if one <= int(match["line"])), default=0)
        view = by_line.get(at, "?")
        if view not in reported:
            reported.add(view)
            hint = _view_hint(text, view, _account(source))
            yield finding.bad(f"view {view} cannot be dumped: {text}", hint)


def _on_one_line(name: str) -> str:
    """Return a name on one line."""
    return name if name.isprintable() else repr(name)


def _view_hint(text: str, view: str, account: str) -> str:
    exclude = f"or add {view} to EXCLUDE_TABLE."
    if match := _ROUTINE.search(text):
        grant = f"GRANT EXECUTE ON FUNCTION {match['name']} TO {account};"
        return f"Run as an administrator: {grant} {exclude}"
    return f"Correct the definition of the view or the privileges of its definer, {exclude}"
