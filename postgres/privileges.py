"""What a restore may give to whom: no role that exists on the target gains power by it.

The power of a role: its attributes, those of the roles that it is a member of, and the predefined
roles among these. If the target is another server than the source: also what any of these roles
owns there, or may do with objects.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from postgres import catalogs, pg_server
from postgres.server_facts import Membership, Privilege, Role, ServerFacts, Setting
from postgres.statements import Statement, shown_name

SUPERUSER = "SUPERUSER"
_ATTRIBUTES = {
    SUPERUSER: "superuser",
    "CREATEROLE": "createrole",
    "CREATEDB": "createdb",
    "REPLICATION": "replication",
    "BYPASSRLS": "bypassrls",
}
_OBJECTS = "objects and privileges of "
_PREDEFINED = "pg_"  # begins their names; no other role may have such a name
# The only words that privileges of a backup may put into a statement.
_KINDS = ("CONNECT", "CREATE", "TEMPORARY", "SET", "ALTER SYSTEM")


class Powers:
    """The powers of the roles of one server. holding: roles whose objects count as power"""

    def __init__(
        self,
        roles: Iterable[Role],
        memberships: Iterable[Membership],
        holding: Collection[str] = (),
    ) -> None:
        self._holding = holding
        self._memberships = frozenset(memberships)
        self._attributes = {
            role.name: frozenset(word for word, name in _ATTRIBUTES.items() if getattr(role, name))
            for role in roles
        }
        self._groups: dict[str, set[str]] = collections.defaultdict(set)
        for one in self._memberships:
            self._groups[one.member].add(one.role)
        self.of = functools.lru_cache(maxsize=None)(self._of)

    def _of(self, role: str) -> frozenset[str]:
        """Return the powers of a role, also of one that is unknown."""
        reached, waiting = {role}, [role]
        while waiting:
            new = self._groups.get(waiting.pop(), set()) - reached
            reached |= new
            waiting += new
        predefined = frozenset(name for name in reached if name.startswith(_PREDEFINED))
        objects = frozenset(_OBJECTS + shown_name(name) for name in reached & set(self._holding))
        attributes = (self._attributes.get(name, frozenset()) for name in reached)
        return predefined.union(objects, *attributes)

    def has(self, wanted: Membership) -> bool:
        """Return whether there is such a membership already, with these options or more."""
        return any(
            (one.role, one.member) == (wanted.role, wanted.member)
            and one.admin >= wanted.admin
            and (one.inherit is not False or wanted.inherit is False)
            and (one.set is not False or wanted.set is False)
            for one in self._memberships
        )


@dataclass(frozen=True)
class Comparison:
    """The powers of roles in the backup and on the target.

    existing: roles of the target. holding: those that own objects or have privileges on some.
    settings: of the target
    """

    source: Powers
    target: Powers
    existing: Collection[str]
    holding: Collection[str] = ()
    settings: Collection[Setting] = ()

    def excess(self, role: str) -> frozenset[str]:
        """Return the powers that a role has on the target, but not in the backup."""
        powers = self.source.of(role)
        return frozenset() if SUPERUSER in powers else self.target.of(role) - powers

    def gain(self, membership: Membership) -> frozenset[str]:
        """Return the powers that a role that exists would gain by a membership."""
        powers = self.target.of(membership.member)
        if membership.member not in self.existing or SUPERUSER in powers:
            return frozenset()
        role = membership.role
        return (self.source.of(role) | self.target.of(role)) - powers

    def objection(self, membership: Membership) -> str:
        """Return why a membership must not be restored; "" if it may be."""
        if self.target.has(membership):
            return ""
        role, member = shown_name(membership.role), shown_name(membership.member)
        if excess := self.excess(membership.role):
            reason = _excess_text(membership.role, excess)
        elif gain := self.gain(membership):
            reason = f"role {member} exists and would get {shown(gain)}"
        else:
            return ""
        return f"membership of {member} in {role} not restored: {reason}"

    def setting_objection(self, setting: Setting) -> str:
        """Return why a setting of a role ("": all) must not be restored; "" if it may be."""
        if not (role := setting.role):
            return ""
        attributes = [one for one in self.excess(role) if not one.startswith(_OBJECTS)]
        if attributes:
            return _excess_text(role, attributes)
        if not setting.database and role in self.holding and setting not in self.settings:
            return f"role {shown_name(role)} exists and has objects or privileges on this server"
        return ""


def _excess_text(role: str, excess: Iterable[str]) -> str:
    return f"role {shown_name(role)} has {shown(excess)} on this server, and not in the backup"


def compared(target: pg_server.PostgresConnection, facts: ServerFacts) -> Comparison:
    """Return the powers of roles in the backup and on the target, as it is now."""
    roles = catalogs.roles(target, passwords=False)
    holding = frozenset() if _is_source(target, facts) else catalogs.holding_roles(target)
    powers = Powers(roles, catalogs.memberships(target), holding)
    existing = frozenset(role.name for role in roles)
    source = Powers(facts.roles, facts.memberships)
    return Comparison(source, powers, existing, holding, catalogs.settings(target))


def _is_source(target: pg_server.PostgresConnection, facts: ServerFacts) -> bool:
    """Return whether the backup is of this server: then its roles are the same ones."""
    return bool(facts.system) and facts.system == catalogs.system_identifier(target)


def shown(powers: Iterable[str]) -> str:
    """Return powers for a message."""
    return ", ".join(sorted(powers))


def grants(kind: str, name: str, acl: Sequence[Privilege], owner: str) -> Iterator[Statement]:
    """Yield a GRANT for each privilege on an object. kind: DATABASE, TABLESPACE or PARAMETER"""
    for one in acl:
        if one.privilege not in _KINDS:
            continue
        grantee = ("PUBLIC", ()) if not one.grantee else ("%I", (one.grantee,))
        option = " WITH GRANT OPTION" if one.grantable else ""
        yield Statement(
            f"GRANT {one.privilege} ON {kind} %I TO {grantee[0]}{option}",
            (name, *grantee[1]),
            "" if one.grantor == owner else one.grantor,
        )
