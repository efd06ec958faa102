"""Roles and properties of databases in items of earlier versions, which are SQL.

No statement of such an item is ever sent to a server: each is read into facts, or into a statement
that the server builds from data. One that pg_dumpall and pg_dump do not write is rejected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from postgres import settings, sql_tokens
from postgres.server_facts import (
    Label,
    Membership,
    Parameter,
    Privilege,
    Role,
    ServerFacts,
    Setting,
    Tablespace,
)
from postgres.sql_tokens import Kind, SqlError, Token
from postgres.statements import Statement, descriptions
from tools.base.errors import StoreError

_HINT = (
    "No statement was run. Restore the item to a file (--destination), read it, and run what you "
    "need by hand."
)
_FLAGS = ("superuser", "inherit", "createrole", "createdb", "login", "replication", "bypassrls")
_KINDS = {"connect": "CONNECT", "create": "CREATE", "temporary": "TEMPORARY", "temp": "TEMPORARY"}
_KINDS |= {"set": "SET", "alter system": "ALTER SYSTEM", "all": "ALL"}
_NO_ROLE = Role("", False, True, False, False, False, False, False, -1, None, None, None, ())


class _Cursor:
    """The tokens of one statement, read from left to right. Raises SqlError."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._next = 0

    def accept(self, *expected: str) -> bool:
        """Read these words or symbols if they come next."""
        end = self._next + len(expected)
        following = self._tokens[self._next : end]
        plain = all(token.kind in (Kind.WORD, Kind.SYMBOL) for token in following)
        if not plain or tuple(token.value for token in following) != expected:
            return False
        self._next = end
        return True

    def expect(self, *expected: str) -> None:
        """Read these words."""
        if not self.accept(*expected):
            raise SqlError(f"no {' '.join(expected).upper()}")

    def _read(self, *kinds: Kind) -> str:
        if self.ended() or self._tokens[self._next].kind not in kinds:
            raise SqlError(f"no {kinds[-1].name.lower()}")
        self._next += 1
        return self._tokens[self._next - 1].value

    def name(self) -> str:
        """Read a name."""
        return self._read(Kind.WORD, Kind.IDENTIFIER)

    def dotted(self) -> str:
        """Read the name of a parameter, which may have parts."""
        name = self.name()
        while self.accept("."):
            name += f".{self.name()}"
        return name

    def word(self) -> str:
        """Read a keyword."""
        return self._read(Kind.WORD)

    def text(self) -> str:
        """Read a string."""
        return self._read(Kind.STRING)

    def value(self) -> str:
        """Read a string, or a value without quotes."""
        return self._read(Kind.WORD, Kind.NUMBER, Kind.STRING)

    def number(self) -> int:
        """Read a whole number."""
        sign = -1 if self.accept("-") else 1
        return sign * int(self._read(Kind.NUMBER)[:10])

    def ended(self) -> bool:
        """Return whether no token is left."""
        return self._next >= len(self._tokens)


@dataclass
class SqlItem:
    """What was read. database: the name of the database of its statements ("" for roles)"""

    database: str = ""
    roles: dict[str, Role] = field(default_factory=dict)
    memberships: list[Membership] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    tablespaces: dict[str, Tablespace] = field(default_factory=dict)
    parameters: list[Parameter] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    session: str = ""  # role of SET SESSION AUTHORIZATION

    def facts(self) -> ServerFacts:
        """Return the facts. Their server has no version: grantors are not relied on."""
        return ServerFacts(
            "",
            tuple(self.roles.values()),
            tuple(self.memberships),
            tuple(self.settings),
            tuple(self.tablespaces.values()),
            parameters=tuple(self.parameters),
        )


def parse(content: bytes, database: str = "") -> SqlItem:
    """Return what the SQL of an item says. Raises StoreError for any other statement."""
    item = SqlItem(database)
    text = content.decode("utf-8", "surrogateescape")
    try:
        for tokens in sql_tokens.statements(text, connects=bool(database)):
            try:
                _statement(item, _Cursor(tokens), tokens)
            except SqlError as error:
                raise SqlError(f"{sql_tokens.beginning(tokens)}: {error}") from None
    except SqlError as error:
        raise StoreError(f"rejected statement: {error}", _HINT) from None
    return item


def _statement(item: SqlItem, cursor: _Cursor, tokens: Sequence[Token]) -> None:
    for beginning, read in _READERS.items():
        if cursor.accept(*beginning.split()):
            read(item, cursor)
            if not cursor.ended():
                raise SqlError("more than pg_dumpall writes")
            return
    if not _is_ignored(item, tokens):
        raise SqlError("not allowed")


def _is_ignored(item: SqlItem, tokens: Sequence[Token]) -> bool:
    """Return whether a statement only prepares the session of psql. It is not run."""
    values = [token.value for token in tokens[:4]]
    if values == ["set", "standard_conforming_strings", "=", "off"]:
        return False
    prepares = values[:1] == ["set"] or values[:4] == ["select", "pg_catalog", ".", "set_config"]
    return prepares or (bool(item.database) and values[:2] == ["create", "database"])


def _create_role(item: SqlItem, cursor: _Cursor) -> None:
    name = cursor.name()
    item.roles.setdefault(name, dataclasses.replace(_NO_ROLE, name=name))


def _alter_role(item: SqlItem, cursor: _Cursor) -> None:
    everyone = cursor.accept("all")
    name = "" if everyone else cursor.name()
    if cursor.accept("set"):
        item.settings.append(_setting(cursor, "", name))
    elif item.database and cursor.accept("in", "database"):
        cursor.name()
        cursor.expect("set")
        item.settings.append(_setting(cursor, item.database, name))
    else:
        cursor.expect("with")
        role = item.roles.get(name, dataclasses.replace(_NO_ROLE, name=name))
        while not cursor.ended():
            role = _attribute(role, cursor)
        item.roles[name] = role


def _attribute(role: Role, cursor: _Cursor) -> Role:
    if cursor.accept("connection", "limit"):
        return dataclasses.replace(role, connection_limit=cursor.number())
    if cursor.accept("password"):
        return dataclasses.replace(role, password=cursor.text())
    if cursor.accept("valid", "until"):
        return dataclasses.replace(role, valid_until=cursor.text())
    word = cursor.word()
    flag = word if word in _FLAGS else word.removeprefix("no")
    if flag not in _FLAGS:
        raise SqlError("unknown attribute")
    return dataclasses.replace(role, **{flag: flag == word})  # type: ignore[arg-type]


def _setting(cursor: _Cursor, database: str, role: str) -> Setting:
    name = cursor.dotted()
    if not cursor.accept("to"):
        cursor.expect("=")
    values = [cursor.text()]
    while cursor.accept(","):
        values.append(cursor.text())
    return Setting(database, role, name, settings.joined(name, values))


def _alter_database(item: SqlItem, cursor: _Cursor) -> None:
    cursor.name()
    names = (item.database,)
    if not item.database:
        raise SqlError("not allowed")
    if cursor.accept("set"):
        item.settings.append(_setting(cursor, item.database, ""))
    elif cursor.accept("connection", "limit"):
        cursor.accept("=")
        limit = f"{cursor.number():d}"
        item.statements.append(Statement(f"ALTER DATABASE %I CONNECTION LIMIT {limit}", names))
    elif cursor.accept("owner", "to"):
        cursor.name()  # it is in the manifest
    else:
        cursor.expect("is_template", "=", "true")
        item.statements.append(Statement("ALTER DATABASE %I IS_TEMPLATE true", names))


def _grant(item: SqlItem, cursor: _Cursor) -> None:
    _grant_or_revoke(item, cursor, "GRANT", "to")


def _revoke(item: SqlItem, cursor: _Cursor) -> None:
    _grant_or_revoke(item, cursor, "REVOKE", "from")


def _grant_or_revoke(item: SqlItem, cursor: _Cursor, verb: str, preposition: str) -> None:
    first = cursor.name()
    if verb == "GRANT" and cursor.accept("to"):
        item.memberships.append(_membership(first, cursor))
        return
    privileges = [_privilege(first, cursor)]
    while cursor.accept(","):
        privileges.append(_privilege(cursor.word(), cursor))
    cursor.expect("on")
    kind = cursor.word().upper()
    if kind not in (("DATABASE",) if item.database else ("TABLESPACE", "PARAMETER")):
        raise SqlError(f"not allowed on {kind}")
    name = cursor.dotted()
    cursor.expect(preposition)
    grantee = "" if cursor.accept("public") else cursor.name()
    grantable = verb == "GRANT" and cursor.accept("with", "grant", "option")
    if kind == "PARAMETER":
        if verb == "GRANT":
            acl = (Privilege(one, grantee, "", grantable) for one in privileges)
            item.parameters.append(Parameter(name, tuple(acl)))
        return
    template = f"{verb} {', '.join(privileges)} ON {kind} %I {preposition.upper()} "
    names = (item.database or name, *([grantee] if grantee else []))
    template += "%I" if grantee else "PUBLIC"
    template += " WITH GRANT OPTION" if grantable else ""
    item.statements.append(Statement(template, names, item.session))


def _privilege(word: str, cursor: _Cursor) -> str:
    if word == "alter":
        cursor.expect("system")
        word = "alter system"
    if word == "all":
        cursor.accept("privileges")
    if word not in _KINDS:
        raise SqlError("unknown privilege")
    return _KINDS[word]


def _membership(role: str, cursor: _Cursor) -> Membership:
    member = cursor.name()
    options: dict[str, bool] = {}
    if cursor.accept("with"):
        while True:
            option = cursor.word()
            if option not in ("admin", "inherit", "set"):
                raise SqlError("unknown option")
            options[option] = cursor.accept("option") or cursor.accept("true")
            if not options[option]:
                cursor.expect("false")
            if not cursor.accept(","):
                break
    grantor = cursor.name() if cursor.accept("granted", "by") else None
    admin = options.get("admin", False)
    return Membership(role, member, grantor, admin, options.get("inherit"), options.get("set"))


def _comment(item: SqlItem, cursor: _Cursor) -> None:
    kind, name = _object(item, cursor)
    cursor.expect("is")
    item.statements += descriptions(kind, name, cursor.text(), ())


def _label(item: SqlItem, cursor: _Cursor) -> None:
    cursor.expect("for")
    provider = cursor.name()
    cursor.expect("on")
    kind, name = _object(item, cursor)
    cursor.expect("is")
    item.statements += descriptions(kind, name, None, [Label(provider, cursor.text())])


def _object(item: SqlItem, cursor: _Cursor) -> tuple[str, str]:
    """Read the kind and name of an object with a comment or label."""
    kind = cursor.word().upper()
    if kind not in (("DATABASE",) if item.database else ("ROLE", "TABLESPACE")):
        raise SqlError(f"not allowed on {kind}")
    name = cursor.name()
    return kind, item.database or name


def _create_tablespace(item: SqlItem, cursor: _Cursor) -> None:
    name = cursor.name()
    cursor.expect("owner")
    owner = cursor.name()
    cursor.expect("location")
    item.tablespaces[name] = Tablespace(name, owner, cursor.text(), (), None, None, ())


def _alter_tablespace(item: SqlItem, cursor: _Cursor) -> None:
    name = cursor.name()
    cursor.expect("set", "(")
    while True:
        option = cursor.name()
        cursor.expect("=")
        value = cursor.value()
        template = "ALTER TABLESPACE %I SET (%I = %L)"
        item.statements.append(Statement(template, (name, option, value)))
        if not cursor.accept(","):
            break
    cursor.expect(")")


def _authorization(item: SqlItem, cursor: _Cursor) -> None:
    item.session = "" if cursor.accept("default") else cursor.name()


def _no_authorization(item: SqlItem, _cursor: _Cursor) -> None:
    item.session = ""


_READERS: dict[str, Callable[[SqlItem, _Cursor], None]] = {
    "create role": _create_role,
    "alter role": _alter_role,
    "grant": _grant,
    "revoke": _revoke,
    "comment on": _comment,
    "security label": _label,
    "create tablespace": _create_tablespace,
    "alter tablespace": _alter_tablespace,
    "alter database": _alter_database,
    "set session authorization": _authorization,
    "reset session authorization": _no_authorization,
}
