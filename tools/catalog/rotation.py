"""Planned rotation of a writer key: the key before signs the line of the next one (CHUNKS.md 2a).

A link is such a statement, in JSON, and its SSHSIG. writer.key keeps the links in comments, and
each run puts those that a store lacks into it: `<time>.signer.json` and `.sig`. So whoever knows
an earlier signer finds the newest one.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from tools.base import foreign_json

ENDING = ".signer.json"  # of a statement in a store
MAX_BYTES = 1 << 16  # of a statement
_FORMAT = "nc-backup-signer"
_VERSION = 1
_COMMENT = "# rotation: "
_TIME = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z\.signer\.json")


@dataclass(frozen=True)
class Link:
    """A statement of one key about the next. name: of its object in a store"""

    name: str
    statement: bytes
    signature: bytes


def is_name(name: str) -> bool:
    """Return whether an object of a store has the name of a statement."""
    return bool(_NAME.fullmatch(name))


def next_name(links: Sequence[Link]) -> str:
    """Return the name of a link that is made now: later than all before."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    for link in links:
        created = datetime.strptime(link.name.removesuffix(ENDING), _TIME).replace(
            tzinfo=timezone.utc
        )
        now = max(now, created + timedelta(seconds=1))
    return now.strftime(_TIME) + ENDING


def verify_time(name: str) -> str:
    """Return the time in the name of a link as `ssh-keygen -O verify-time` takes it, UTC."""
    return name.removesuffix(ENDING).replace("T", "")


def statement(host: str, line: str) -> bytes:
    """Return what is signed. line: of allowed_signers, for the new key"""
    text = {"format": _FORMAT, "version": _VERSION, "host": host, "signer": line}
    return json.dumps(text, indent=1, ensure_ascii=True).encode("ascii") + b"\n"


def line_of(content: bytes, host: str) -> str:
    """Return the line of allowed_signers in a statement. Raises ValueError."""
    try:
        statement = foreign_json.load(content)
    except RecursionError:
        raise ValueError("too deep") from None
    match statement:
        case {"format": "nc-backup-signer", "version": 1, "host": str(of), "signer": str(line)}:
            if of == host and "\n" not in line:
                return line
    raise ValueError(f"not a statement of {host} about its next signer")


def comment(link: Link) -> str:
    """Return a link as a comment line of writer.key."""
    encoded = (base64.b64encode(one) for one in (link.statement, link.signature))
    return " ".join([f"{_COMMENT}{link.name}", *(one.decode("ascii", "strict") for one in encoded)])


def in_comments(lines: Sequence[str]) -> tuple[Link, ...]:
    """Return the links in the lines of a writer.key, in their order. Raises ValueError."""
    return tuple(_parsed(line) for line in lines if line.startswith(_COMMENT))


def _parsed(line: str) -> Link:
    match line.removeprefix(_COMMENT).split():
        case [name, said, signed] if is_name(name):
            try:
                decoded = [base64.b64decode(one, validate=True) for one in (said, signed)]
            except binascii.Error:
                raise ValueError("damaged rotation comment: not Base64") from None
            return Link(name, *decoded)
    raise ValueError("damaged rotation comment")
