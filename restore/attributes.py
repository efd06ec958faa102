"""Attributes, ACLs and sizes of an entry that ext4 rejects, though other file systems may not.

Limits: xattr(7), acl(5); of ext4 all attributes of a file must fit into one block of 4 KiB.
"""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Callable, Iterator

from restore import archive_errors, tar_reader
from tools.base import foreign

_XATTR = b"SCHILY.xattr."
_ACL = (b"SCHILY.acl.access", b"SCHILY.acl.default")
_NAMESPACES = (b"user.", b"trusted.", b"security.", b"system.posix_acl_")
_LONGEST = 255  # bytes of an attribute's name
_ROOM = 4000  # bytes of all attributes together, each with a head of 16
_LARGEST = (16 << 40) - 4096  # bytes of a file, with blocks of 4 KiB
_ENTRY = re.compile(
    r"(?P<kind>u|user|g|group|m|mask|o|other):(?P<name>[^:]*):(?P<bits>[-rwx]{3})(?::\d+)?"
)


def refused(member: tar_reader.Member) -> Iterator[str]:
    """Yield why ext4 would not hold all of a member, a text for each reason."""
    if member.size > _LARGEST:
        yield f"too large for ext4: {member.size} bytes"
    room = 0
    for key, value in member.attributes:
        name = archive_errors.printable_name(key.removeprefix(_XATTR)[:80])
        room += 16 + len(key) + len(value)
        if key in _ACL:
            if (why := _acl(value)) and member.kind != "symlink":
                yield f"ACL cannot be set: {why}"
        elif key.startswith(_XATTR) and (why := _attribute(key.removeprefix(_XATTR), member)):
            yield f"attribute {name} cannot be set: {why}"
    if room > _ROOM:
        yield f"attributes of {room} bytes, limit of ext4 {_ROOM}"


def unreportable(member: tar_reader.Member) -> tuple[bytes, ...]:
    """Return the keys of the attributes that GNU tar must not set: it prints names as they are.

    If one cannot be set, tar writes its name and that of the file without quoting. With a line
    feed in one of them, an archive could forge messages about other files.
    """
    keys = [key for key, _value in member.attributes if key.startswith(_XATTR)]
    return tuple(key for key in keys if b"\n" in member.written or b"\n" in key)


def _attribute(name: bytes, member: tar_reader.Member) -> str:
    if len(name) > _LONGEST:
        return "name too long"
    if not name.startswith(_NAMESPACES) or name in _NAMESPACES:
        return "unknown namespace"
    if name.startswith(b"user.") and member.kind not in ("file", "folder", "link"):
        return f"user attributes are not possible on a {member.kind}"
    return ""


def _acl(raw: bytes) -> str:
    """Return why an ACL in its text form cannot be set on this machine; "" if it can."""
    kinds: list[str] = []
    named = False
    for entry in filter(None, re.split(r"[,\n]", raw.decode("utf-8", "replace"))):
        match = _ENTRY.fullmatch(entry.partition("#")[0].strip())
        if match is None:
            return "invalid ACL"
        kind, name = match["kind"][0], match["name"]
        if name and not _is_known(kind, name):
            return f"no such {'user' if kind == 'u' else 'group'}: {name[:80]}"
        named = named or bool(name)
        kinds += [] if name else [kind]
    needed = ["g", "m", "o", "u"] if named else ["g", "o", "u"]
    if sorted(kinds) not in (needed, ["g", "m", "o", "u"]):
        return "incomplete ACL"
    return ""


def _is_known(kind: str, name: str) -> bool:
    """Return whether the machine has a user (u) or group (g) of this name, or it is a number."""
    look_up: Callable[[str], object] | None = {"u": pwd.getpwnam, "g": grp.getgrnam}.get(kind)
    if look_up is None:
        return False
    if (number := foreign.number(name)) is not None:
        return number < (1 << 32) - 1
    try:
        look_up(name)
    except KeyError:
        return False
    return True
