"""No role that exists on the target gains power by a restore; statements are described safely."""

from __future__ import annotations

import dataclasses

import pytest

from postgres import privileges, server_facts, settings, sql_items
from postgres.server_facts import Membership, Role, ServerFacts, Setting
from postgres.statements import Statement
from tools.base.errors import StoreError

PLAIN = Role(
    name="", superuser=False, inherit=True, createrole=False, createdb=False, login=False,
    replication=False, bypassrls=False, connection_limit=-1, password=None, valid_until=None,
    comment=None, labels=(),
)  # fmt: skip


def roles(*names: str, superuser: str = "") -> list[Role]:
    return [dataclasses.replace(PLAIN, name=name, superuser=name == superuser) for name in names]


def member(role: str, of: str) -> Membership:
    return Membership(of, role, None, admin=False, inherit=None, set=None)


def test_a_role_that_is_stronger_here_gets_no_members() -> None:
    source = privileges.Powers(roles("boss", "lowly"), [member("lowly", "boss")])
    target = privileges.Powers(roles("boss", "group"), [member("boss", "pg_monitor")])
    compared = privileges.Comparison(source, target, {"boss", "group"})
    objection = compared.objection(member("lowly", "boss"))
    assert "role boss has pg_monitor on this server, and not in the backup" in objection
    assert "has pg_monitor" in compared.setting_objection(setting("boss"))
    for name in ("", "lowly"):
        assert compared.setting_objection(setting(name)) == ""
    assert compared.objection(member("lowly", "group")) == ""


def setting(role: str, value: str = "x", database: str = "") -> Setting:
    return Setting(database, role, "search_path", value)


@pytest.mark.fault(
    "a role of the backup that another application has on the target",
    "exit 3, nobody becomes a member of it, and it keeps its settings",
)
def test_a_role_with_objects_gets_no_members() -> None:
    source_roles = roles("app", "team", "lowly")
    source = privileges.Powers(source_roles, [member("lowly", "app"), member("lowly", "team")])
    there = [member("team", "app"), member("team", "other")]
    target = privileges.Powers(roles("app", "team", "other"), there, {"app"})
    known = [setting("app")]
    compared = privileges.Comparison(source, target, {"app", "team", "other"}, {"app"}, known)
    for role in ("app", "team"):
        text = f"role {role} has objects and privileges of app on this server"
        assert text in compared.objection(member("lowly", role))
    assert compared.objection(member("team", "app")) == ""  # it is one already
    more = dataclasses.replace(member("team", "app"), admin=True)
    assert compared.objection(more) != ""
    assert compared.objection(member("lowly", "new")) == ""
    assert compared.setting_objection(known[0]) == ""
    assert "role app exists and has objects" in compared.setting_objection(setting("app", "y"))
    assert compared.setting_objection(setting("app", "y", database="d")) == ""
    assert compared.setting_objection(setting("team", "y")) == ""


def test_a_role_that_exists_gains_nothing() -> None:
    memberships = [member("app", "middle"), member("middle", "dba"), member("new", "middle")]
    source_roles = roles("app", "middle", "dba", "new", superuser="dba")
    source = privileges.Powers(source_roles, memberships)
    target = privileges.Powers(roles("app"), [])
    compared = privileges.Comparison(source, target, {"app"})
    assert "role app exists and would get SUPERUSER" in compared.objection(memberships[0])
    assert [compared.objection(one) for one in memberships[1:]] == ["", ""]
    assert compared.objection(member("app", "plain")) == ""
    same = privileges.Comparison(source, source, {"app", "middle", "dba", "new"})
    assert [same.objection(one) for one in memberships] == ["", "", ""]


def test_no_value_is_shown() -> None:
    statement = Statement("CREATE ROLE %I LOGIN PASSWORD %L", ("a b", "secret"))
    assert statement.describe() == 'CREATE ROLE "a b" LOGIN PASSWORD'


def test_json_is_read_back_strictly() -> None:
    facts = ServerFacts("15.1", tuple(roles("a", "\udcff")), settings=(Setting("", "a", "x", "y"),))
    raw = server_facts.to_bytes(facts)
    assert server_facts.from_bytes(raw) == facts
    for old, new, why in [
        (b'"superuser": false', b'"superuser": "yes"', "superuser: not a valid bool"),
        (b'"connection_limit": -1', b'"connection_limit": true', "not a valid int"),
        (b'"version": 1', b'"version": 2', "version 2 is not supported"),
        (b'"login"', b'"logins"', "missing or unknown: login, logins"),
        (b'"value": "y"', b'"value": "\\u0000"', "not a valid str"),
        (b"nc-backup-py Post", b"another Post", "another format"),
        (b'"labels": []', b'"labels": {}', "not a list"),
    ]:
        with pytest.raises(StoreError, match=why):
            server_facts.from_bytes(raw.replace(old, new))


ROLES = r"""--
\restrict aB3
SET default_transaction_read_only = off;
SET standard_conforming_strings = on;
/* a /* nested ; */ comment */
CREATE ROLE "a;b";
ALTER ROLE "a;b" WITH NOSUPERUSER NOINHERIT LOGIN CONNECTION LIMIT 3 PASSWORD 'x''y';
ALTER ROLE "a;b" SET application_name TO E'c
ALTER ROLE postgres WITH \\';
ALTER ROLE "a;b" SET search_path TO '; create role x superuser login; --', 'b"c';
COMMENT ON ROLE "a;b" IS '-- \! id';
GRANT "a;b" TO c WITH ADMIN OPTION, INHERIT FALSE GRANTED BY d;
\unrestrict aB3
ALTER ROLE ALL SET "my"."text" TO 'x';
"""


def test_sql_of_earlier_versions_is_read_as_data() -> None:
    item = sql_items.parse(ROLES.encode())
    role = item.roles["a;b"]
    assert (role.login, role.inherit, role.connection_limit) == (True, False, 3)
    assert role.password == "x'y"
    name, path, everyone = item.settings
    assert name.value == "c\nALTER ROLE postgres WITH \\"
    assert settings.list_entries(path.value) == ["; create role x superuser login; --", 'b"c']
    assert everyone == Setting("", "", "my.text", "x")
    assert item.memberships == [Membership("a;b", "c", "d", admin=True, inherit=False, set=None)]
    comment = Statement("COMMENT ON ROLE %I IS %L", ("a;b", "-- \\! id"))
    assert item.statements == [comment]


@pytest.mark.fault("SQL in a backup of roles that pg_dumpall does not write", "exit 1, it is named")
@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("\\! id\n", "meta-command of psql"),
        ("CREATE ROLE a; \\! id\n", "meta-command of psql"),
        ("\\connect postgres\n", "meta-command of psql"),
        ("\\restrict a; b\n", "meta-command of psql"),
        ("DROP TABLE t;", "DROP TABLE: not allowed"),
        ("CREATE ROLE a SUPERUSER;", "CREATE ROLE: more than pg_dumpall writes"),
        ("ALTER ROLE a WITH LOGIN; DO $$ ; $$;", "DO: not allowed"),
        ("ALTER ROLE a RENAME TO b;", "ALTER ROLE: no WITH"),
        ("ALTER DATABASE d SET x TO 'y';", "ALTER DATABASE: not allowed"),
        ("COMMENT ON DATABASE d IS 'x';", "COMMENT ON: not allowed on DATABASE"),
        ("COMMENT ON ROLE a IS E'\\x41';", "COMMENT ON: no string"),
        ("COMMENT ON ROLE a IS U&'x';", "COMMENT ON: no string"),
        ("COMMENT ON ROLE a IS $x$y$x$;", "COMMENT ON: no string"),
        ("COMMENT ON ROLE a IS 'x' 'y';", "COMMENT ON: more than pg_dumpall"),
        ("GRANT SELECT ON t TO a;", "GRANT SELECT: unknown privilege"),
        ("SET standard_conforming_strings = off;", "SET STANDARD_CONFORMING_STRINGS: not allowed"),
        ("SELECT lo_export(1, 'x');", "SELECT LO_EXPORT: not allowed"),
        ("COMMENT ON ROLE a IS 'x", "quote without an end"),
        ("/* /* */ CREATE ROLE a;", "comment without an end"),
        ("CREATE ROLE a", "statement without an end: CREATE ROLE"),
        ("CREATE ROLE a\0;", "NUL character"),
    ],
)
def test_other_sql_is_rejected(sql: str, why: str) -> None:
    with pytest.raises(StoreError, match=why) as raised:
        sql_items.parse(sql.encode())
    assert "No statement was run" in raised.value.hint
