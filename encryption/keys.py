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

_LEAST = 32  # hexadecimal digits: 128 bits; a shorter password is no key
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
    """The old kind: it reads old files, and gives an age identity where it is long enough."""
    password = raw.replace(b"\n", b"").replace(b"\r", b"")
    if not password:
        raise ConfigError(f"KEY_FILE: {path} is empty", "It holds an age key.")
    mask.add(password.decode("utf-8", "surrogateescape"))
    if not re.fullmatch(rb"[0-9A-Fa-f]{%d,}" % _LEAST, password):
        return Keys(password=password)
    kdf = HKDF(algorithm=hashes.SHA256(), length=32, salt=_SALT, info=_INFO)
    identity = age.Identity(kdf.derive(password))
    return Keys((identity.recipient(),), (identity,), password, derived=True)


def recipients(keys: Keys, path: Path, more: Sequence[str]) -> list[age.Recipient]:
    """Whom new files are encrypted for. Raises ConfigError where the key is too weak for that."""
    if not keys.recipients:
        raise ConfigError(
            f"KEY_FILE: {path} holds a password that is no key of 128 bits",
            f"It reads old files. For new ones make a key: {_PROGRAM} --KEYGEN --KEY_FILE NEW",
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
    """Write a new identity (0600), never over a file. Raises FileExistsError."""
    return save(age.Identity.generate(), path)


def save(identity: age.Identity, path: Path) -> age.Recipient:
    """Write an identity as age-keygen does."""
    public = identity.recipient()
    made = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = f"# created: {made}\n# public key: {public}\n{identity.reveal()}\n"
    if os.path.lexists(path):
        raise FileExistsError(17, "exists already, and nothing is overwritten", str(path))
    filesystem_handling.make_folder(path.absolute().parent)
    with filesystem_handling.create(path) as write:
        write(text.encode())
    return public
