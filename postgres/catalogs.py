"""The catalogs of a server as facts: roles, memberships, settings, tablespaces, databases.

Each row comes as JSON in hexadecimal, so that any name is transferred. Columns of later versions
are read by their names in JSON: they are null in servers that do not have them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from postgres import pg_server, remains, server_facts
from postgres.server_facts import (
    DatabaseProperties,
    Membership,
    Parameter,
    Role,
    ServerFacts,
    Setting,
    Tablespace,
)
from tools.base.errors import SourceError

T = TypeVar("T")
# Names in UTF-8; a server in SQL_ASCII knows no encoding, and gives their bytes.
_SESSION = (
    "DO $$ BEGIN PERFORM set_config('client_encoding', CASE current_setting('server_encoding') "
    "WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END, false); END $$",
    "SET datestyle = 'ISO'",
    "SET timezone = 'UTC'",
)
# Of PostgreSQL, and those of restores that are in progress.
_OWN_ROLES = f"^(pg_|{remains.ROLE}_[0-9a-f]+$)"
_LABELS = """(SELECT coalesce(json_agg(json_build_object('provider', l.provider,
    'label', l.label) ORDER BY l.provider), '[]') FROM pg_shseclabel l
    WHERE l.classoid = 'pg_catalog.{0}'::regclass AND l.objoid = o.oid) AS labels"""
_ACL = """CASE WHEN {0} IS NOT NULL THEN (SELECT coalesce(json_agg(json_build_object(
    'privilege', a.privilege_type, 'grantee', coalesce(e.rolname, ''), 'grantor', r.rolname,
    'grantable', a.is_grantable)), '[]') FROM aclexplode({0}) a
    JOIN pg_roles r ON r.oid = a.grantor LEFT JOIN pg_roles e ON e.oid = a.grantee
    WHERE a.grantee = 0 OR e.oid IS NOT NULL) END AS acl"""
_ROLES = f"""SELECT rolname AS name, rolsuper AS superuser, rolinherit AS inherit,
    rolcreaterole AS createrole, rolcreatedb AS createdb, rolcanlogin AS login,
    rolreplication AS replication, rolbypassrls AS bypassrls, rolconnlimit AS connection_limit,
    {{password}} AS password, rolvaliduntil::text AS valid_until,
    shobj_description(o.oid, 'pg_authid') AS comment, {_LABELS.format("pg_authid")}
    FROM {{table}} o WHERE rolname !~ '{_OWN_ROLES}' ORDER BY rolname"""
_MEMBERSHIPS = """SELECT r.rolname AS role, m.rolname AS member, g.rolname AS grantor,
    a.admin_option AS admin, (to_jsonb(a)->>'inherit_option')::boolean AS inherit,
    (to_jsonb(a)->>'set_option')::boolean AS set
    FROM pg_auth_members a JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member
    LEFT JOIN pg_roles g ON g.oid = a.grantor
    WHERE r.rolname !~ '^pg_' OR m.rolname !~ '^pg_' ORDER BY 1, 2, 3"""
# 16384 is FirstNormalObjectId. Grantors of memberships (PostgreSQL 16) hold nothing by that.
_HOLDING = f"""SELECT DISTINCT {pg_server.hex_expression("rolname")} FROM pg_shdepend s
    JOIN pg_roles r ON r.oid = refobjid WHERE refclassid = 'pg_authid'::regclass
    AND classid <> 'pg_auth_members'::regclass AND refobjid >= 16384"""
_SETTINGS = f"""SELECT coalesce(datname, '') AS database, coalesce(rolname, '') AS role,
    split_part(u.setting, '=', 1) AS name,
    substr(u.setting, strpos(u.setting, '=') + 1) AS value
    FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = setdatabase
    LEFT JOIN pg_roles r ON r.oid = setrole, unnest(setconfig) WITH ORDINALITY AS u(setting, n)
    WHERE (setdatabase = 0 OR d.oid IS NOT NULL)
    AND (setrole = 0 OR (r.oid IS NOT NULL AND rolname !~ '{_OWN_ROLES}'))
    AND u.setting NOT LIKE '{remains.SETTING}=%'
    ORDER BY 1, 2, u.n"""
# A tablespace in the data directory itself (allow_in_place_tablespaces) has the location ''.
_TABLESPACES = f"""SELECT spcname AS name, pg_get_userbyid(spcowner) AS owner,
    CASE WHEN pg_tablespace_location(o.oid) ~ '^(/|[A-Za-z]:)'
      THEN pg_tablespace_location(o.oid) ELSE '' END AS location,
    coalesce(to_json(spcoptions), '[]') AS options, {_ACL.format("spcacl")},
    shobj_description(o.oid, 'pg_tablespace') AS comment, {_LABELS.format("pg_tablespace")}
    FROM pg_tablespace o WHERE spcname !~ '^pg_' ORDER BY spcname"""
_DATABASES = f"""SELECT datname AS name, pg_get_userbyid(datdba) AS owner,
    pg_encoding_to_char(encoding) AS encoding, datcollate AS collate, datctype AS ctype,
    to_jsonb(o)->>'datlocprovider' AS provider,
    coalesce(to_jsonb(o)->>'datlocale', to_jsonb(o)->>'daticulocale') AS locale,
    to_jsonb(o)->>'daticurules' AS icu_rules,
    (SELECT spcname FROM pg_tablespace t WHERE t.oid = dattablespace) AS tablespace,
    datconnlimit AS connection_limit, datistemplate AS template,
    datallowconn AS allow_connections, {_ACL.format("datacl")},
    shobj_description(o.oid, 'pg_database') AS comment, {_LABELS.format("pg_database")}
    FROM pg_database o WHERE datconnlimit <> -2 ORDER BY datname"""
_PARAMETERS = f"""SELECT parname AS name, {_ACL.format("paracl")}
    FROM pg_parameter_acl o ORDER BY parname"""


def server(target: pg_server.PostgresConnection, *, passwords: bool) -> ServerFacts:
    """Return the facts of a server. passwords: whether the session may read pg_authid."""
    version, has_parameters = target.row(
        "SELECT current_setting('server_version'), "
        "to_regclass('pg_catalog.pg_parameter_acl') IS NOT NULL",
        columns=2,
    )
    queries = {
        Role: _roles_query(passwords=passwords),
        Membership: _MEMBERSHIPS,
        Setting: _SETTINGS,
        Tablespace: _TABLESPACES,
        DatabaseProperties: _DATABASES,
    }
    if has_parameters == "t":
        queries[Parameter] = _PARAMETERS
    objects = _all_objects(target, queries)
    return ServerFacts(
        version,
        objects.of(Role),
        objects.of(Membership),
        objects.of(Setting),
        objects.of(Tablespace),
        objects.of(DatabaseProperties),
        objects.of(Parameter),
        system_identifier(target),
    )


def system_identifier(target: pg_server.PostgresConnection) -> str:
    """Return the number that initdb gave to the server; "" if the role may not read it."""
    with contextlib.suppress(SourceError):
        return target.row("SELECT system_identifier FROM pg_control_system()")[0]
    return ""


def roles(target: pg_server.PostgresConnection, *, passwords: bool) -> tuple[Role, ...]:
    """Return the roles of a server, without those that PostgreSQL predefines."""
    return tuple(_objects(target, Role, _roles_query(passwords=passwords)))


def _roles_query(*, passwords: bool) -> str:
    return _ROLES.format(
        password="rolpassword" if passwords else "NULL",
        table="pg_authid" if passwords else "pg_roles",
    )


def memberships(target: pg_server.PostgresConnection) -> tuple[Membership, ...]:
    """Return the memberships of a server, but for those of one predefined role in another."""
    return tuple(_objects(target, Membership, _MEMBERSHIPS))


def settings(target: pg_server.PostgresConnection) -> tuple[Setting, ...]:
    """Return the settings of roles and databases of a server."""
    return tuple(_objects(target, Setting, _SETTINGS))


def holding_roles(target: pg_server.PostgresConnection) -> frozenset[str]:
    """Return the roles that own objects of a server or have privileges on some."""
    return frozenset(pg_server.decode_hex(row[0]) for row in target.sql(_HOLDING, columns=1))


def tablespace_names(target: pg_server.PostgresConnection) -> set[str]:
    """Return the names of the tablespaces of a server."""
    return {one.name for one in _objects(target, Tablespace, _TABLESPACES)}


def _objects(target: pg_server.PostgresConnection, kind: type[T], query: str) -> tuple[T, ...]:
    """Return the rows of a query as objects. Raises SourceError for an unexpected row."""
    return _all_objects(target, {kind: query}).of(kind)


@dataclass(frozen=True)
class _Objects:
    rows: tuple[object, ...]

    def of(self, kind: type[T]) -> tuple[T, ...]:
        """Return the objects of a kind, in the order of its query."""
        return tuple(one for one in self.rows if isinstance(one, kind))


def _all_objects(
    target: pg_server.PostgresConnection, queries: Mapping[type[object], str]
) -> _Objects:
    """Return the rows of queries as objects, with one psql. Raises SourceError."""
    kinds = list(queries)
    each = (
        f"SELECT {number} AS kind, row_number() OVER () AS number, row_to_json(q)::text AS content "
        f"FROM ({queries[kind]}) AS q"
        for number, kind in enumerate(kinds)
    )
    query = f"SELECT * FROM ({' UNION ALL '.join(each)}) AS a ORDER BY kind, number"
    content = pg_server.hex_expression("content")
    rows = target.sql(*_SESSION, f"SELECT kind, {content} FROM ({query}) AS q", columns=2)
    try:
        return _Objects(
            tuple(
                server_facts.of_row(kinds[int(number)], pg_server.decode_hex(raw))
                for number, raw in rows
            )
        )
    except (ValueError, IndexError) as error:
        raise SourceError(f"unexpected row of a catalog: {error}") from None
