"""A temporary role without power, which loads rows.

CHECK constraints, domains, generated columns and partition keys are evaluated while rows are
loaded. In a session of a superuser their code can do everything, whatever role is set: RESET ROLE,
a cursor WITH HOLD or a deferred trigger ends each such limit. So rows are loaded in a session that
is authenticated as another role. It has privileges in the new database only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Iterable, Iterator

from postgres import holders, pg_server, remains, statements
from postgres.holders import Holder, one_line
from postgres.search_path import DISABLE_EVENT_TRIGGERS
from postgres.statements import Statement
from tools.base.errors import BackupError, StoreError

_LOOPBACK = "127.0.0.1"  # the same server, if only its socket has no logins with passwords
_OURS = "nspname ~ '^pg_' OR nspname ~ '^nc_backup_' OR nspname = 'information_schema'"
# Functions that may be powerful stay as private as they are: SECURITY DEFINER, those in languages
# that can do anything, and those of extensions (dblink_connect_u).
_POWERFUL = """(prosecdef OR NOT (SELECT lanpltrusted FROM pg_language l WHERE l.oid = prolang)
    OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
      AND d.deptype = 'e'))"""
# {0}: the role. No foreign tables: they may be read from other servers, with their passwords.
_GRANT = f"""DO $$ DECLARE one record; BEGIN
  FOR one IN SELECT nspname FROM pg_namespace WHERE NOT ({_OURS}) LOOP
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO {{0}}', one.nspname);
  END LOOP;
  FOR one IN SELECT nspname, relname, relkind, EXISTS (SELECT FROM pg_depend d
        WHERE classid = 'pg_class'::regclass AND d.objid = r.oid AND deptype = 'e') AS extension
      FROM pg_class r JOIN pg_namespace n ON n.oid = relnamespace
      WHERE relkind IN ('r', 'p', 'v', 'm', 'S') AND NOT ({_OURS}) LOOP
    CONTINUE WHEN one.extension AND one.relkind = 'S';
    EXECUTE format('GRANT %s ON %I.%I TO {{0}}',
      CASE WHEN one.relkind IN ('r', 'p') AND NOT one.extension
      THEN 'SELECT, INSERT, REFERENCES' WHEN one.relkind = 'S' THEN 'SELECT, UPDATE'
      ELSE 'SELECT' END, one.nspname, one.relname);
  END LOOP;
  FOR one IN SELECT p.oid::regprocedure AS name FROM pg_proc p JOIN pg_namespace n
      ON n.oid = pronamespace WHERE prokind = 'f' AND NOT {_POWERFUL} AND NOT ({_OURS})
      AND NOT has_function_privilege('{{0}}', p.oid, 'EXECUTE') LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {{0}}', one.name);
  END LOOP;
END $$"""
_GRANT_CREATE = f"""DO $$ DECLARE one record; BEGIN
  FOR one IN SELECT nspname FROM pg_namespace WHERE NOT ({_OURS}) LOOP
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO {{0}}', one.nspname);
  END LOOP;
  FOR one IN SELECT spcname FROM pg_tablespace WHERE spcname !~ '^pg_' LOOP
    EXECUTE format('GRANT CREATE ON TABLESPACE %I TO {{0}}', one.spcname);
  END LOOP;
END $$"""
# While it owns objects, code of the dump must not run DDL: what it creates would outlive the role.
# The context has one line for each caller; the statements of a restore have none. {1}: a schema
_NO_NESTED_DDL = (
    "CREATE SCHEMA {1}",
    """CREATE FUNCTION {1}.reject_nested() RETURNS event_trigger LANGUAGE plpgsql AS
  $reject$ DECLARE context text; BEGIN
    GET DIAGNOSTICS context = PG_CONTEXT;
    IF session_user = '{0}' AND strpos(context, chr(10)) > 0 THEN
      RAISE EXCEPTION 'nc-backup-py: % is not allowed while a dump is loaded', tg_tag;
    END IF;
  END $reject$""",
    "CREATE EVENT TRIGGER {1} ON ddl_command_start EXECUTE PROCEDURE {1}.reject_nested()",
)
_NESTED_DDL = ("DROP EVENT TRIGGER {1}", "DROP SCHEMA {1} CASCADE")
_FREE = 5  # connections: a server that has fewer counts as full
_FULL = f"""SELECT count(*) + {_FREE} > current_setting('max_connections')::integer
    - (SELECT sum(setting::integer) FROM pg_settings
      WHERE name IN ('superuser_reserved_connections', 'reserved_connections'))
  FROM pg_stat_activity WHERE backend_type = 'client backend'"""
# {1}: a table. Sequences change their owner with it.
_REVOKE = """DO $$ DECLARE one record; BEGIN
  FOR one IN SELECT objid::regclass AS name FROM pg_depend d JOIN pg_class r ON r.oid = objid
      WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass
      AND refobjid = {1} AND deptype IN ('a', 'i') AND relkind = 'S' LOOP
    EXECUTE format('REVOKE ALL ON SEQUENCE %s FROM {0}', one.name);
  END LOOP;
END $$"""
# What the owner of a table may execute and the role may not, as far as the rows of the table need
# it: for CHECK constraints, domains, generated columns, partition keys.
_NEEDED = f"""WITH used AS (
    SELECT conrelid AS relation, contypid AS type, refobjid AS function FROM pg_depend
      JOIN pg_constraint c ON c.oid = objid
      WHERE classid = 'pg_constraint'::regclass AND refclassid = 'pg_proc'::regclass
    UNION SELECT adrelid, 0, refobjid FROM pg_depend JOIN pg_attrdef a ON a.oid = objid
      JOIN pg_attribute c ON attrelid = adrelid AND attnum = adnum AND attgenerated <> ''
      WHERE classid = 'pg_attrdef'::regclass AND refclassid = 'pg_proc'::regclass
    UNION SELECT objid, 0, refobjid FROM pg_depend
      WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_proc'::regclass)
  SELECT r.oid::regclass::text AS relation, p.oid::regprocedure::text AS function
  FROM used JOIN pg_class r ON r.oid = relation
    OR type <> 0 AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = r.oid AND atttypid = type)
  JOIN pg_proc p ON p.oid = function
  WHERE p.oid >= 16384 AND prokind = 'f' AND {_POWERFUL}
  AND NOT has_function_privilege('{{0}}', p.oid, 'EXECUTE')
  AND has_function_privilege(relowner, p.oid, 'EXECUTE')"""

# Privileges that were granted and revoked leave the default ones in the catalog, where NULL was.
_RESET_DEFAULTS = (
    "UPDATE pg_class SET relacl = NULL WHERE oid >= 16384 AND relacl = "
    """acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)""",
    "UPDATE pg_namespace SET nspacl = NULL WHERE oid >= 16384 AND nspacl = "
    "acldefault('n', nspowner)",
    "UPDATE pg_foreign_server SET srvacl = NULL WHERE srvacl = acldefault('S', srvowner)",
    "UPDATE pg_tablespace SET spcacl = NULL WHERE oid >= 16384 AND spcacl = "
    "acldefault('t', spcowner)",
)


def _owned(wanted: Iterable[Holder], owner: str) -> list[Holder]:
    """Return tables and domains as they are when they belong to this owner."""
    return [dataclasses.replace(one, owner=owner, orphan=False) for one in wanted]


def _password() -> str:
    return f"a1{secrets.token_hex(20)}"  # letters and digits, as some servers demand


class LoginError(StoreError):
    """The server does not let the role in."""


class LoadingRole:
    """The role. login: its connection; target: that of the restore, of a superuser"""

    def __init__(self, target: pg_server.PostgresConnection) -> None:
        """Create the role. Raises StoreError."""
        self._target = target
        self._name = f"{remains.ROLE}_{secrets.token_hex(6)}"
        self._present = False
        self._database = ""
        password = _password()
        variables = {**target.variables, "PGPASSWORD": password}
        variables["PGOPTIONS"] = pg_server.WRITABLE
        self.login = dataclasses.replace(target, user=self._name, variables=variables)
        created = Statement("CREATE ROLE %I LOGIN PASSWORD %L", (self._name, password))
        failures = statements.run(target, [created, *self._settings()])
        if failures:
            raise LoginError("no role for the rows could be created", failures[0].reason)
        self._present = True
        user = target.row(f"SELECT {pg_server.hex_expression('current_user')}")[0]
        self.restorer = pg_server.decode_hex(user)

    def _settings(self) -> list[Statement]:
        # Otherwise only the owner of a large object could write it.
        setting = Statement("ALTER ROLE %I SET lo_compat_privileges = on", (self._name,))
        mark = Statement(f"ALTER ROLE %I SET {remains.SETTING} TO %L", (self._name, remains.mark()))
        return [mark, setting]

    def connect(self, database: str) -> None:
        """Find out how the role connects to the database. Raises LoginError, StoreError.

        Only the first time LoginError: later, code of the dump may be the reason. Nor if the server
        has no connection left for a role without privileges: anyone may have taken them.
        """
        if self._database:
            self._change_password()
        first, self._database = not self._database, database
        self._let_in(database)
        hosts = [self.login.host]
        if not hosts[0] or hosts[0].startswith("/"):
            hosts.append(_LOOPBACK)
        for host in hosts:
            candidate = dataclasses.replace(self.login, host=host)
            try:
                candidate.sql("SELECT 1", database=database)
            except BackupError as error:
                reason = error.hint or str(error)
            else:
                self.login = candidate
                return
        kind = LoginError if first and self._target.row(_FULL) == ["f"] else StoreError
        raise kind("a role that was created for the rows cannot connect", reason)

    def _run(self, database: str, *wanted: str) -> None:
        self._alter(database, *(one.replace("{0}", self._name) for one in wanted))

    def grant(self, database: str) -> None:
        """Let it read all tables and add rows to them, and set sequences."""
        self._run(database, _GRANT)

    @contextlib.contextmanager
    def creating(
        self, database: str, label: str, *parents: Holder, servers: Iterable[str] = ()
    ) -> Iterator[None]:
        """Let it create one table in the block, which then gets its owner.

        label: of the table in the dump. parents: what it inherits from. servers: labels of the
        foreign servers that it needs. A foreign table may be left out.
        """
        foreign = label.startswith("FOREIGN ")
        label = label.removeprefix("FOREIGN ").removeprefix("TABLE ")
        with self.owning(database, *parents, create=True):
            self._grant_servers(database, servers)
            yield
            created = [
                one
                for one in holders.of_database(self._target, database)
                if one.owner == self._name and one not in _owned(parents, self._name)
            ]
            tables = [one for one in created if one.begins(label)]
            if foreign and not tables:
                return
            if len(tables) != 1:
                raise StoreError(f"{len(tables)} tables instead of one: {label}")
            self._alter(database, f"ALTER TABLE {tables[0].name} OWNER TO CURRENT_USER")
        owner = pg_server.quote_identifier(label[len(tables[0].label) + 1 :])
        with contextlib.suppress(BackupError):  # it has none here: then it is that of the restore
            self._alter(database, f"ALTER TABLE {tables[0].name} OWNER TO {owner}")

    def find(self, database: str, *labels: str) -> list[Holder]:
        """Return the tables and domains of labels in a dump."""
        return holders.find(self._target, database, labels, self.restorer) if labels else []

    def _grant_servers(self, database: str, labels: Iterable[str]) -> None:
        """Let it use foreign servers, found by their labels in a dump."""
        for label in labels:
            columns = ", ".join(
                map(pg_server.hex_expression, ("srvname", "pg_get_userbyid(srvowner)"))
            )
            rows = self._target.sql(
                f"SELECT {columns} FROM pg_foreign_server", database=database, columns=2
            )
            for name, owner in (map(pg_server.decode_hex, row) for row in rows):
                if label == f"{one_line(name)} {one_line(owner)}":
                    quoted = pg_server.quote_identifier(name)
                    self._run(database, f"GRANT USAGE ON FOREIGN SERVER {quoted} TO {{0}}")

    @contextlib.contextmanager
    def owning(self, database: str, *owned: Holder, create: bool = False) -> Iterator[None]:
        """Make it the owner of tables or domains in the block.

        create: whether it may also create objects; those that it still owns are dropped
        """
        self._change_password()
        wanted = (_GRANT, _GRANT_CREATE) if create else (_GRANT,)
        schema = f"nc_backup_{secrets.token_hex(6)}"
        allowed, rejected = (
            [one.replace("{0}", self._name).replace("{1}", schema) for one in group]
            for group in (_NESTED_DDL, _NO_NESTED_DDL)
        )
        self._alter(
            database,
            self._terminate(),
            *rejected,
            *(one.replace("{0}", self._name) for one in wanted),
            *(line for one in owned for line in self._revoke(one)),
            *(f"ALTER {one.kind} {one.name} OWNER TO {self._name}" for one in owned),
        )
        yield
        self._alter(
            database,
            *allowed,
            *(
                f"ALTER {one.kind} {one.name} OWNER TO {pg_server.quote_identifier(one.owner)}"
                for one in owned
            ),
        )
        if create:
            self.forget(database)
            self._let_in(database)

    def _revoke(self, holder: Holder) -> tuple[str, ...]:
        """Return the statements that revoke its privileges on a table before it is the owner."""
        if holder.kind != "TABLE":
            return ()
        table = f"{pg_server.text_expression(holder.name)}::regclass"
        return (
            f"REVOKE ALL ON TABLE {holder.name} FROM {self._name}",
            _REVOKE.replace("{0}", self._name).replace("{1}", table),
        )

    # --- private functions

    def needed(self, database: str) -> dict[str, frozenset[str]]:
        """Return the private functions that rows need: for each table, by its name in SQL."""
        columns = ", ".join(map(pg_server.hex_expression, ("relation", "function")))
        query = f"SELECT {columns} FROM ({_NEEDED.replace('{0}', self._name)}) AS n"
        functions: dict[str, frozenset[str]] = {}
        for row in self._target.sql(query, database=database, columns=2):
            table, function = map(pg_server.decode_hex, row)
            functions[table] = functions.get(table, frozenset()) | {function}
        return functions

    @contextlib.contextmanager
    def executing(self, database: str, functions: frozenset[str]) -> Iterator[None]:
        """Let it execute these functions in the block."""
        if not functions:
            yield
            return
        for word, relation in (("GRANT", "TO"), ("REVOKE", "FROM")):
            self._alter(
                database,
                *(
                    f"{word} EXECUTE ON FUNCTION {one} {relation} {self._name}"
                    for one in sorted(functions)
                ),
            )
            if word == "GRANT":
                yield

    def _alter(self, database: str, *wanted: str) -> None:
        self._target.sql(DISABLE_EVENT_TRIGGERS, *wanted, database=database)

    def _terminate(self) -> str:
        where = f"usename = '{self._name}'"
        return f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {where}"

    def _change_password(self) -> None:
        """Exclude code that has changed the password or settings; its sessions must be ended."""
        password = _password()
        variables = {**self.login.variables, "PGPASSWORD": password}
        changed = Statement("ALTER ROLE %I PASSWORD %L", (self._name, password))
        reset = Statement("ALTER ROLE %I RESET ALL", (self._name,))
        failures = statements.run(self._target, [changed, reset, *self._settings()])
        if failures:
            raise StoreError("the role for the rows cannot be changed", failures[0].reason)
        self.login = dataclasses.replace(self.login, variables=variables)

    def _let_in(self, database: str) -> None:
        """Let the role connect; nobody else may before the database is complete."""
        quoted = pg_server.quote_identifier(database)
        self._target.sql(f"GRANT CONNECT ON DATABASE {quoted} TO {self._name}")

    def forget(self, database: str) -> None:
        """Drop what it owns in the database, and its privileges."""
        silent = "SET client_min_messages = warning"
        self._run(database, silent, "DROP OWNED BY {0} CASCADE", *_RESET_DEFAULTS)

    def remove(self) -> tuple[str, ...]:
        """Drop the role, once; return a warning if that fails."""
        if not self._present:
            return ()
        self._present = False
        try:
            self._run("", "ALTER ROLE {0} NOLOGIN", self._terminate())
            if pg_server.exists(self._target, self._database):
                self.forget(self._database)
            self._run("", "DROP ROLE {0}")
        except BackupError as error:
            return (f"role {self._name} was not dropped: {error.hint or error}",)
        return ()


@contextlib.contextmanager
def created(target: pg_server.PostgresConnection) -> Iterator[LoadingRole | None]:
    """Create the role for the block; None if the restore is not made by a superuser.

    Raises LoginError.
    """
    able = (
        "SELECT rolsuper AND current_setting('server_version_num')::integer >= 110000 "
        "FROM pg_roles WHERE rolname = current_user"
    )
    if target.row(able) != ["t"]:
        yield None
        return
    role = LoadingRole(target)
    try:
        yield role
    finally:
        role.remove()


def code_note(target: pg_server.PostgresConnection, database: str) -> str:
    """Return a note on code that ran with the privileges of the restore; "" if there is none."""
    columns = ("p.oid::regprocedure", "r.rolname", "current_user")
    rows = target.sql(
        f"SELECT {', '.join(map(pg_server.hex_expression, columns))} FROM pg_proc p "
        "JOIN pg_roles r ON r.oid = proowner WHERE p.oid >= 16384 AND NOT rolsuper "
        "AND rolname <> current_user AND NOT EXISTS (SELECT FROM pg_depend d "
        "WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e') "
        "ORDER BY p.oid LIMIT 1",
        database=database,
        columns=len(columns),
    )
    if not rows:
        return ""
    function, owner, user = map(pg_server.decode_hex, rows[0])
    return (
        f"; code of other owners may have run with the privileges of {user}: "
        f"function {function} of {owner}"
    )
