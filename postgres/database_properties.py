"""Properties of a database: owner, settings, privileges, comment; and whether it can be used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from postgres import pg_server
from tools.base import foreign
from tools.base.errors import BackupError, StoreError
from tools.flow import process
from tools.flow.facts import PostgresFacts

# Headers of statements about the database in a dump, and its name in such a statement.
_DATABASE_HEADER = re.compile(
    r"-- Name: (?:.*; Type: DATABASE PROPERTIES;|"
    r"DATABASE .*; Type: (?:ACL|COMMENT|SECURITY LABEL);)"
)
_NAME_IN_STATEMENT = re.compile(
    r"^((?:ALTER|COMMENT ON|(?:ALTER ROLE|GRANT|REVOKE|SECURITY LABEL) .+? (?:ON|IN)) DATABASE) "
    r'(?:"(?:[^"]|"")+"|\w+) '
)
_MARK = "nc-backup-py left out: "
# Resets settings with a library that the server cannot load: they would prevent connections.
# {0}: a condition on pg_db_role_setting.
_LIBRARIES = """
DO $$ DECLARE one record; library text; BEGIN
  FOR one IN SELECT setdatabase, setrole, datname, rolname, pair.setting,
      split_part(pair.setting, '=', 1) AS name,
      substr(pair.setting, strpos(pair.setting, '=') + 1) AS libraries
      FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_database d ON d.oid = setdatabase
      LEFT JOIN pg_catalog.pg_roles r ON r.oid = setrole, unnest(setconfig) AS pair(setting)
      WHERE pair.setting ~ '^(session|local)_preload_libraries=' AND {0} LOOP
    FOREACH library IN ARRAY string_to_array(one.libraries, ',') LOOP
      library := btrim(library, ' "');
      CONTINUE WHEN library = '';
      IF one.name = 'local_preload_libraries' AND strpos(library, '/') = 0 THEN
        library := '$libdir/plugins/' || library;
      END IF;
      BEGIN
        EXECUTE format('LOAD %L', library);
      EXCEPTION WHEN insufficient_privilege THEN
        CONTINUE;
      WHEN OTHERS THEN
        EXECUTE CASE WHEN one.setrole = 0 AND one.setdatabase <> 0
            THEN format('ALTER DATABASE %I RESET %I', one.datname, one.name)
          WHEN one.setrole = 0 THEN format('ALTER ROLE ALL RESET %I', one.name)
          WHEN one.setdatabase = 0 THEN format('ALTER ROLE %I RESET %I', one.rolname, one.name)
          ELSE format('ALTER ROLE %I IN DATABASE %I RESET %I', one.rolname, one.datname, one.name)
          END;
        RAISE WARNING 'nc-backup-py left out: setting % of %: %', one.setting,
          coalesce('role ' || quote_ident(one.rolname), 'the database'), SQLERRM;
        EXIT;
      END;
    END LOOP;
  END LOOP;
END $$;
"""


def reset_unloadable(condition: str) -> bytes:
    """Return SQL for psql that resets and reports settings with libraries that are missing."""
    return _LIBRARIES.replace("{0}", condition).encode()


def reset_settings(lines: list[str]) -> tuple[str, ...]:
    """Return the settings that this SQL has reset, from the messages of psql."""
    return tuple(line.partition(_MARK)[2] for line in lines if _MARK in line)


def set_owner(
    target: pg_server.PostgresConnection, name: str, facts: PostgresFacts
) -> tuple[str, ...]:
    """Set the owner of the database; return a warning if that fails."""
    if not facts.owner:
        return ()
    names = (pg_server.quote_identifier(name), pg_server.quote_identifier(facts.owner))
    try:
        target.sql("ALTER DATABASE {} OWNER TO {}".format(*names))
    except BackupError as error:
        return (f"owner {facts.owner} not set: {error.hint or error}",)
    return ()


def apply(target: pg_server.PostgresConnection, name: str, head: Path) -> tuple[str, ...]:
    """Restore settings, privileges and comment of the database; return a warning for each failure.

    pg_restore prints them only with --create, from the beginning of a dump (`head`). A setting
    that prevents connections is left out and named. Raises StoreError if the database accepts no
    connections even without its settings.
    """
    return (*_apply_statements(target, name, head), *_make_connectable(target, name))


def _apply_statements(
    target: pg_server.PostgresConnection, name: str, head: Path
) -> tuple[str, ...]:
    command = [target.programs.sibling("pg_restore"), "--create", "--schema-only", "--file=-"]
    try:
        out = b"".join(process.output([*command, str(head)], env=target.environment()))
    except BackupError as error:  # a name with a line break
        return (f"database settings and privileges not restored: {error.hint or error}",)
    statements = _database_statements(
        out.decode("utf-8", "surrogateescape"), pg_server.quote_identifier(name)
    )
    if not statements:
        return ()
    script = [statements.encode("utf-8", "surrogateescape"), b"\n", reset_unloadable(_is(name))]
    messages = target.script(script)
    warnings = [f"database property: {line}" for line in messages if "ERROR:" in line]
    return (*warnings, *reset_settings(messages))


def _is(name: str) -> str:
    """Return the SQL condition for a database of this name."""
    return f"datname = {pg_server.text_expression(name)}"


def _database_statements(text: str, identifier: str) -> str:
    """Return the statements of a script of pg_restore that are about the database itself."""
    statements, selected = [], False
    for line in foreign.lines_with_ends(text):
        if line.startswith(("-- Name: ", "\\")):
            selected = bool(_DATABASE_HEADER.match(line))
        elif selected and not line.startswith("--"):
            statements.append(
                _NAME_IN_STATEMENT.sub(lambda found: f"{found[1]} {identifier} ", line)
            )
    return "".join(statements)


def _make_connectable(target: pg_server.PostgresConnection, name: str) -> Iterator[str]:
    """Reset settings one by one until the database accepts connections; yield a line for each.

    Raises StoreError if it accepts none without any of them.
    """
    error = _connection_error(target, name)
    for role, setting in _settings(target, name) if error else ():
        target_database = f"DATABASE {pg_server.quote_identifier(name)}"
        owner = (
            f"ROLE {pg_server.quote_identifier(role)} IN {target_database}"
            if role
            else target_database
        )
        target.sql(f"ALTER {owner} RESET {pg_server.quote_identifier(setting)}")
        yield f"setting {setting}{f' of role {role}' if role else ''} left out: {error}"
        if not (error := _connection_error(target, name)):
            return
    if error:
        raise StoreError(f"cannot connect to the restored database {name}", error)


def _connection_error(target: pg_server.PostgresConnection, name: str) -> str:
    """Return the error of a connection to the database; "" if it succeeds."""
    try:
        target.sql("SELECT 1", database=name)
    except BackupError as error:
        return error.hint or str(error)
    return ""


def _settings(target: pg_server.PostgresConnection, name: str) -> list[tuple[str, str]]:
    """Return the settings of a database for this role: role ("" for all), name."""
    rows = target.sql(
        f"SELECT {pg_server.hex_expression('coalesce(rolname, $$$$)')}, "
        f"{pg_server.hex_expression('split_part(setting, $$=$$, 1)')} FROM pg_db_role_setting s "
        "JOIN pg_database d ON d.oid = setdatabase LEFT JOIN pg_roles r ON r.oid = setrole, "
        "unnest(setconfig) AS setting "
        f"WHERE {_is(name)} AND (setrole = 0 OR rolname = current_user) "
        "ORDER BY setting NOT LIKE '%libraries%'",
        columns=2,
    )
    return [(pg_server.decode_hex(role), pg_server.decode_hex(setting)) for role, setting in rows]
