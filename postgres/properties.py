"""What belongs to a database itself: its owner, settings, rights, comment; and whether it opens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from postgres import cluster
from tools.base.errors import BackupError, StoreError
from tools.flow import process

# Headers of what a dump says of the database itself, and the name in such a statement.
_OF_DATABASE = re.compile(
    r"-- Name: (?:.*; Type: DATABASE PROPERTIES;|"
    r"DATABASE .*; Type: (?:ACL|COMMENT|SECURITY LABEL);)"
)
_NAMED = re.compile(
    r"^((?:ALTER|COMMENT ON|(?:ALTER ROLE|GRANT|REVOKE|SECURITY LABEL) .+? (?:ON|IN)) DATABASE) "
    r'(?:"(?:[^"]|"")+"|\w+) '
)
_MARK = "nc-backup-py left out: "
# Settings that name a library which the server cannot load: nobody could log in with them.
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


def unloadable(condition: str) -> bytes:
    """SQL for psql: settings with libraries that this server lacks are reset, and reported."""
    return _LIBRARIES.replace("{0}", condition).encode()


def left_out(lines: list[str]) -> tuple[str, ...]:
    """What that SQL has reset, from what psql reports."""
    return tuple(line.partition(_MARK)[2] for line in lines if _MARK in line)


def owned(target: cluster.Cluster, name: str, facts: Mapping[str, str]) -> tuple[str, ...]:
    """Give the database to its owner; a warning where there is no such role."""
    if not facts.get("owner"):
        return ()
    words = (cluster.identifier(name), cluster.identifier(facts["owner"]))
    try:
        target.sql("ALTER DATABASE {} OWNER TO {}".format(*words))
    except BackupError as error:
        return (f"owner {facts['owner']} not set: {error.hint or error}",)
    return ()


def applied(target: cluster.Cluster, name: str, head: Path) -> tuple[str, ...]:
    """Settings, rights and comment of the database itself; a warning for each that fails.

    They stand in the list of a dump (`head`: its beginning), and pg_restore gives them only
    with --create. A setting with which nobody could connect is left out and named.
    Raises StoreError where the database opens with none of its settings.
    """
    return (*_statements(target, name, head), *_opens(target, name))


def _statements(target: cluster.Cluster, name: str, head: Path) -> tuple[str, ...]:
    words = [target.programs.beside("pg_restore"), "--create", "--schema-only", "--file=-"]
    try:
        out = b"".join(process.output([*words, str(head)], env=target.environment()))
    except BackupError as error:  # a name with a line break, which it takes elsewhere
        return (f"database settings and privileges not restored: {error.hint or error}",)
    found = _of_database(out.decode("utf-8", "surrogateescape"), cluster.identifier(name))
    if not found:
        return ()
    script = [found.encode("utf-8", "surrogateescape"), b"\n", unloadable(_is(name))]
    said = target.script(script)
    warnings = [f"database property: {line}" for line in said if "ERROR:" in line]
    return (*warnings, *left_out(said))


def _is(name: str) -> str:
    """The condition for a database of this name."""
    return f"datname = {cluster.literal(name)}"


def _of_database(text: str, identifier: str) -> str:
    """The statements of a script of pg_restore that say something of the database itself."""
    kept, wanted = [], False
    for line in text.splitlines(keepends=True):
        if line.startswith(("-- Name: ", "\\")):
            wanted = bool(_OF_DATABASE.match(line))
        elif wanted and not line.startswith("--"):
            kept.append(_NAMED.sub(lambda found: f"{found[1]} {identifier} ", line))
    return "".join(kept)


def _opens(target: cluster.Cluster, name: str) -> Iterator[str]:
    """Leave out one setting after the other until somebody can connect; a line for each.

    Raises StoreError where nobody can, with none of them.
    """
    why = _refusal(target, name)
    for role, setting in _settings(target, name) if why else ():
        what = f"DATABASE {cluster.identifier(name)}"
        whose = f"ROLE {cluster.identifier(role)} IN {what}" if role else what
        target.sql(f"ALTER {whose} RESET {cluster.identifier(setting)}")
        yield f"setting {setting}{f' of role {role}' if role else ''} left out: {why}"
        if not (why := _refusal(target, name)):
            return
    if why:
        raise StoreError(f"cannot connect to the restored database {name}", why)


def _refusal(target: cluster.Cluster, name: str) -> str:
    """What the server says to a connection that it rejects; "" where it takes one."""
    try:
        target.sql("SELECT 1", database=name)
    except BackupError as error:
        return error.hint or str(error)
    return ""


def _settings(target: cluster.Cluster, name: str) -> list[tuple[str, str]]:
    """The settings of a database that count for this login: role ("" for all), name."""
    rows = target.sql(
        f"SELECT {cluster.hexed('coalesce(rolname, $$$$)')}, "
        f"{cluster.hexed('split_part(setting, $$=$$, 1)')} FROM pg_db_role_setting s "
        "JOIN pg_database d ON d.oid = setdatabase LEFT JOIN pg_roles r ON r.oid = setrole, "
        "unnest(setconfig) AS setting "
        f"WHERE {_is(name)} AND (setrole = 0 OR rolname = current_user) "
        "ORDER BY setting NOT LIKE '%libraries%'",
        columns=2,
    )
    return [(cluster.text(role), cluster.text(setting)) for role, setting in rows]
