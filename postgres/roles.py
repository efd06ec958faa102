"""Restore roles, their memberships and settings, and tablespaces that a server does not have."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from postgres import libraries, pg_server, privileges, settings
from postgres import statements as run_statements
from postgres import tablespaces as server_tablespaces
from postgres.server_facts import Membership, Role, ServerFacts
from postgres.statements import Failure, Statement
from tools.base.errors import StoreError
from tools.base.result import Result, Status
from tools.date_str_utils import count

_OPTIONS = 160000  # version in which memberships have the options INHERIT and SET


def restore(
    target: pg_server.PostgresConnection,
    facts: ServerFacts,
    more: Sequence[Statement] = (),
    *,
    tablespaces: bool,
) -> Result:
    """Create missing roles, and tablespaces if `tablespaces`; add settings and memberships.

    more: statements of an item of an earlier version about roles and tablespaces.
    A role that exists keeps its attributes and password, and gains no power. What the server
    rejects is left out and named. Raises StoreError if it rejects every new role.
    """
    restoring = _Restoring(target, facts, privileges.compared(target, facts))
    restoring.create_roles()
    restoring.describe_roles()
    restoring.add_settings()
    restoring.add_memberships()
    if tablespaces:
        restoring.warnings += server_tablespaces.restore(target, facts.tablespaces)
    restoring.grant_parameters()
    restoring.run_more(more, tablespaces=tablespaces)
    restoring.warnings += libraries.reset_unloadable(target)
    number = target.number("SELECT count(*) FROM pg_roles WHERE rolname !~ '^pg_'")
    warnings = tuple(restoring.warnings)
    status = Status.INCOMPLETE if warnings else Status.OK
    return Result(status, f"{number} roles on the server", items=1, warnings=warnings)


@dataclass
class _Restoring:
    """A restore of roles. before: the powers of roles before it"""

    target: pg_server.PostgresConnection
    facts: ServerFacts
    before: privileges.Comparison
    warnings: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)  # roles that could not be created

    def _run(
        self,
        statements: list[Statement],
        run: Callable[
            [pg_server.PostgresConnection, list[Statement]], list[Failure]
        ] = run_statements.run,
    ) -> None:
        """Run the statements, and add a warning for each that failed."""
        self.warnings += [failure.line() for failure in run(self.target, statements)]

    def create_roles(self) -> None:
        """Create missing roles; without SUPERUSER and the like if those are not allowed."""
        new = [role for role in self.facts.roles if role.name not in self.before.existing]
        failures = run_statements.run(self.target, [_creation(role) for role in new])
        reasons = {one.statement.arguments[0]: one for one in failures}
        reduced = {
            role.name: less
            for role in new
            if role.name in reasons and (less := _reduced(role)) != role
        }
        again = run_statements.run(self.target, [_creation(role) for role in reduced.values()])
        self.missing = reasons.keys() - reduced.keys()
        self.missing |= {one.statement.arguments[0] for one in again}
        if new and len(self.missing) == len(new):
            text = f"roles: none of {count(len(new), 'new role')} could be created"
            raise StoreError(text, failures[0].line())
        for name, failure in reasons.items():
            note = " (created without these attributes)" if name not in self.missing else ""
            self.warnings.append(failure.line() + note)

    def describe_roles(self) -> None:
        """Add comments and security labels."""
        self._run(
            [
                one
                for role in self.facts.roles
                if role.name not in self.missing
                for one in run_statements.descriptions("ROLE", role.name, role.comment, role.labels)
            ]
        )

    def add_settings(self) -> None:
        """Add the settings that apply in all databases."""
        wanted = []
        for one in self.facts.settings:
            if one.database or one.role in self.missing:
                continue
            if objection := self.before.setting_objection(one):
                self.warnings.append(f"setting {one.name} not restored: {objection}")
            else:
                wanted.append(settings.statement(one))
        self._run(wanted)

    def add_memberships(self) -> None:
        """Add the memberships that give no power to a role that existed."""
        wanted = []
        for one in self.facts.memberships:
            if {one.role, one.member} & self.missing:
                continue
            if objection := self.before.objection(one):
                self.warnings.append(objection)
            else:
                wanted.append(one)
        version = self.target.number("SELECT current_setting('server_version_num')")
        if version < _OPTIONS:
            refused = [one for one in wanted if one.inherit is False or one.set is False]
            self.warnings += [
                f"membership of {one.member} in {one.role} not restored: PostgreSQL before 16 has "
                "no INHERIT FALSE and SET FALSE"
                for one in refused
            ]
            wanted = [one for one in wanted if one not in refused]
        grants = {_membership(one, version): one for one in wanted}
        failures = run_statements.run_in_any_order(self.target, list(grants))
        self._without_grantor([grants[one.statement] for one in failures], version)

    def _without_grantor(self, memberships: list[Membership], version: int) -> None:
        """Add memberships whose grantor the server rejects; name the grantors that mattered."""
        superusers = {role.name for role in self.facts.roles if role.superuser}
        plain = {
            _membership(dataclasses.replace(one, grantor=None), version): one for one in memberships
        }
        failures = run_statements.run(self.target, list(plain))
        failed = {one.statement for one in failures}
        self.warnings += [one.line() for one in failures]
        if pg_server.major_version(self.facts.server) < _OPTIONS // 10000:
            return  # grantors meant nothing before
        self.warnings += [
            f"membership of {one.member} in {one.role} restored without its grantor {one.grantor}"
            for statement, one in plain.items()
            if statement not in failed and one.grantor and one.grantor not in superusers
        ]

    def run_more(self, more: Sequence[Statement], *, tablespaces: bool) -> None:
        """Run statements of an item of an earlier version."""
        self._run([one for one in more if tablespaces or " TABLESPACE " not in one.template])

    def grant_parameters(self) -> None:
        """Grant privileges on configuration parameters to roles that did not exist."""
        wanted: list[Statement] = []
        superusers = {role.name for role in self.facts.roles if role.superuser}
        for parameter in self.facts.parameters:
            acl = [one for one in parameter.acl if one.grantee not in superusers]
            for one in acl:
                if one.grantee in self.before.existing:
                    self.warnings.append(
                        f"{one.privilege} ON PARAMETER {parameter.name} not granted: role "
                        f"{one.grantee} exists"
                    )
            new = [one for one in acl if one.grantee not in self.before.existing]
            as_owner = [one for one in new if one.grantor in superusers]
            owner = as_owner[0].grantor if as_owner else ""
            wanted += privileges.grants("PARAMETER", parameter.name, new, owner)
        self._run(wanted, run_statements.run_in_any_order)


def _reduced(role: Role) -> Role:
    """Return the role without what only a superuser may give."""
    return dataclasses.replace(role, superuser=False, replication=False, bypassrls=False)


def _creation(role: Role) -> Statement:
    """Return CREATE ROLE with everything that is not the default."""
    attributes = {
        "SUPERUSER": role.superuser,
        "NOINHERIT": not role.inherit,
        "CREATEROLE": role.createrole,
        "CREATEDB": role.createdb,
        "LOGIN": role.login,
        "REPLICATION": role.replication,
        "BYPASSRLS": role.bypassrls,
        f"CONNECTION LIMIT {role.connection_limit:d}": role.connection_limit != -1,
    }
    clauses = [word for word, wanted in attributes.items() if wanted]
    values = []
    for clause, value in (("PASSWORD", role.password), ("VALID UNTIL", role.valid_until)):
        if value is not None:
            clauses.append(f"{clause} %L")
            values.append(value)
    return Statement(" ".join(["CREATE ROLE %I", *clauses]), (role.name, *values))


def _membership(one: Membership, version: int) -> Statement:
    """Return GRANT for a membership, in the syntax of a server version."""
    options = []
    if version >= _OPTIONS:
        values = {"ADMIN": one.admin, "INHERIT": one.inherit, "SET": one.set}
        options = [
            f"{word} {'TRUE' if value else 'FALSE'}"
            for word, value in values.items()
            if value is not None
        ]
    elif one.admin:
        options = ["ADMIN OPTION"]
    template, names = "GRANT %I TO %I", (one.role, one.member)
    if options:
        template += f" WITH {', '.join(options)}"
    if one.grantor is not None:
        return Statement(f"{template} GRANTED BY %I", (*names, one.grantor))
    return Statement(template, names)
