"""What a KEY_FILE holds: an age identity, recipients, or the password of the old format."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tools import filesystem_handling, mask, plugin
from tools.errors import ConfigError

if TYPE_CHECKING:
    from encryption import age
else:
    age = plugin.load("encryption/age.py")

_LEAST = 128  # bits that a password's length must be able to hold, to be a key
_MOST_BYTES = 1 << 20
_SALT = b"nc-backup-py/keyfile/v1"
_INFO = b"age-x25519-identity"
_PROGRAM = "python3 encryption/encryption.py"


@dataclass(frozen=True)
class Keys:
    """What was found in a key file.

    password: the whole text without newlines, for the old format (b"" beside age keys)
    derived:  whether the identity comes from that password
    """

    recipients: tuple[age.Recipient, ...] = ()
    identities: tuple[age.Identity, ...] = field(default=(), repr=False)
    password: bytes = field(default=b"", repr=False)
    derived: bool = False


def read(path: Path) -> Keys:
    """Read a key file. Raises ConfigError where it is missing, open to others, or no key."""
    try:
        why = filesystem_handling.exposed(path)
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES)
    except OSError as error:
        hint = f"Make one: {_PROGRAM} --KEYGEN --KEY_FILE {path}"
        trouble = (error.strerror or "cannot be read").lower()
        raise ConfigError(
            f"KEY_FILE: {path}: {trouble}", hint if isinstance(error, FileNotFoundError) else ""
        ) from None
    if why:
        trouble, _, mend = why.partition(": ")
        raise ConfigError(f"KEY_FILE: {trouble}", f"Mend it: {mend}")
    text = raw.decode("utf-8", "surrogateescape")
    if "AGE-SECRET-KEY-" in text.upper() or re.search(r"^age1", text, re.M):
        return _of_age(path, text)
    if found := re.search(r"^\s*(AGE-|ssh-|-----BEGIN)", text, re.M):
        raise ConfigError(
            f"KEY_FILE: {path} holds a kind of key that is not known here ({found[1]}...)",
            f"Known are AGE-SECRET-KEY-1... and age1... Make one: {_PROGRAM} --KEYGEN",
        )
    return _of_password(path, raw)


def _of_age(path: Path, text: str) -> Keys:
    """Identities and recipients, one a line, and # comments, as age-keygen writes them."""
    recipients, identities = [], []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        try:
            if word.upper().startswith("AGE-SECRET-KEY-"):
                mask.add(word)
                identities.append(age.Identity.parse(word))
                recipients.append(identities[-1].recipient())
            else:
                recipients.append(age.Recipient.parse(word))
        except ConfigError as error:
            raise ConfigError(f"KEY_FILE: {path}:{number}: {error}", error.hint) from None
    return Keys(tuple(recipients), tuple(identities))


def _of_password(path: Path, raw: bytes) -> Keys:
    """The old kind: it reads old files, and gives an age identity where it is long enough.

    The password is the text without newlines, as `openssl -pass file:` reads it; a carriage
    return belongs to it there. The identity is of the text alone.
    """
    password = raw.replace(b"\n", b"")
    text = password.strip()
    if not text:
        raise ConfigError(
            f"KEY_FILE: {path} is empty", f"Make a key: {_PROGRAM} --KEYGEN --KEY_FILE NEW"
        )
    mask.add(password.decode("utf-8", "surrogateescape"))
    if bits(text) < _LEAST:
        return Keys(password=password)
    kdf = HKDF(algorithm=hashes.SHA256(), length=32, salt=_SALT, info=_INFO)
    identity = age.Identity(kdf.derive(text))
    mask.add(identity.reveal())
    return Keys((identity.recipient(),), (identity,), password, derived=True)


def bits(password: bytes) -> int:
    """How many bits of chance a password of this length and kind can hold at the most.

    A hexadecimal digit holds 4, a printable sign 6 (as in base64), any other byte 8.
    """
    if re.fullmatch(rb"[0-9A-Fa-f]+", password):
        return 4 * len(password)
    return (6 if re.fullmatch(rb"[\x20-\x7e]+", password) else 8) * len(password)


def recipients(keys: Keys, path: Path, more: Sequence[str]) -> list[age.Recipient]:
    """Whom new files are encrypted for. Raises ConfigError where the key is too weak for that."""
    if not keys.recipients:
        raise ConfigError(
            f"KEY_FILE: {path} holds a password too short for a key: at most "
            f"{bits(keys.password.strip())} bits of {_LEAST}",
            "It reads old files, but who copies a new one could guess it. "
            f"Make a key: {_PROGRAM} --KEYGEN --KEY_FILE NEW",
        )
    return [*keys.recipients, *(age.Recipient.parse(text) for text in more)]


def identities(keys: Keys, path: Path) -> list[age.Identity]:
    """What opens age files. Raises ConfigError where the file holds only recipients."""
    if not keys.identities:
        what = "only recipients" if keys.recipients else "only a password of the old format"
        raise ConfigError(
            f"KEY_FILE: {path} holds {what}, which opens no age file",
            "Use the key file with the identity (AGE-SECRET-KEY-1...), kept elsewhere.",
        )
    return list(keys.identities)


def password(keys: Keys, path: Path) -> bytes:
    """The password of the old format. Raises ConfigError where the file holds age keys."""
    if not keys.password:
        raise ConfigError(
            f"KEY_FILE: {path} holds age keys, and the old OpenSSL format needs a password",
            "Use the key file of that time, or FORMAT age.",
        )
    return keys.password


def generate(path: Path) -> age.Recipient:
    """Write a new identity (0600), never over a file. Raises ConfigError."""
    return save(age.Identity.generate(), path)


def save(identity: age.Identity, path: Path) -> age.Recipient:
    """Write an identity as age-keygen does, 0600. Raises ConfigError where the name is taken."""
    public = identity.recipient()
    made = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = f"# created: {made}\n# public key: {public}\n{identity.reveal()}\n"
    if os.path.lexists(path):
        raise ConfigError(
            f"{path} exists already, and nothing is overwritten",
            "Name another file; whoever needs the old key must keep it.",
        )
    filesystem_handling.make_folder(path.absolute().parent)
    with filesystem_handling.create(path) as write:
        write(text.encode())
    return public
