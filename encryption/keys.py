"""What a KEY_FILE holds: an age identity, recipients, or the password of the old format."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path

from encryption import age, hybrid, keytext, provider, x25519
from tools import filesystem_handling
from tools.base import masking, permissions
from tools.base.errors import ConfigError

_LEAST = 128  # bits that a password's length must be able to hold, to be a key
_MOST_BYTES = 1 << 20
_SALT = b"nc-backup-py/keyfile/v1"
_INFO = b"age-x25519-identity"
_PROGRAM = "python3 encryption/encryption.py"
_NEW_KEY = f"Create an age key: {_PROGRAM} --KEYGEN --KEY_FILE NEW"
_COPY = "Name the key file of the backup, or a copy of it. A new key decrypts no existing backup."


class Use(Enum):
    """What a key file is read for: hints and what is accepted differ."""

    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"


@dataclass(frozen=True)
class Keys:
    """The content of a key file.

    recipients:  those that stand in the file
    identities:  those that stand in the file, or the one derived from a password
    password:    the whole text without newlines, for the old format (b"" beside age keys)
    derived:     whether the identity comes from that password
    no_password: why the text must not be taken for a password of new files; "" if it may
    refusal:     why no new age file must be encrypted with it; "" if it may
    unsupported: the keys of kinds that are not supported
    """

    recipients: tuple[age.Recipient, ...] = ()
    identities: tuple[age.Identity, ...] = field(default=(), repr=False)
    password: bytes = field(default=b"", repr=False)
    derived: bool = False
    no_password: str = ""
    refusal: str = ""
    unsupported: tuple[keytext.Unsupported, ...] = ()


def read(path: Path, use: Use = Use.ENCRYPT) -> Keys:
    """Read a key file. Raises ConfigError where it is missing, open to others, or no key."""
    try:
        problem = permissions.exposed(path) if use is Use.DECRYPT else permissions.of_secret(path)
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES)
    except OSError as error:
        raise _unreadable(path, error, use) from None
    if problem is not None:
        hint = f"{problem.fix} (or --insecure-permissions, if you must)."
        raise ConfigError(f"KEY_FILE: {problem}", hint)
    try:
        text = keytext.decoded(raw)
    except ConfigError as error:
        raise ConfigError(f"KEY_FILE: {path} {error}", error.hint) from None
    if not text.strip():
        hint = f"Copy your key file there. Only on a new system: {_NEW_KEY}"
        raise ConfigError(f"KEY_FILE: {path}: empty file", _COPY if use is Use.DECRYPT else hint)
    if keytext.holds_key(text) or (use is Use.ENCRYPT and keytext.is_age(text)):
        return _of_age(path, text)
    return _of_password(raw, text)


def _unreadable(path: Path, error: OSError, use: Use) -> ConfigError:
    """A key file that cannot be read; a new one would not help a restore."""
    trouble = (error.strerror or "cannot be read").lower()
    hint = ""
    if isinstance(error, FileNotFoundError):
        hint = (
            f"Copy your key file to {path}. Only on a new system: "
            f"{_PROGRAM} --KEYGEN --KEY_FILE {path}"
        )
        if use is Use.DECRYPT:
            hint = _COPY
    elif isinstance(error, PermissionError):
        hint = f"Let the user of the backup read it: chown root:GROUP {path}; chmod 0640 {path}"
    return ConfigError(f"KEY_FILE: {path}: {trouble}", hint)


def _of_age(path: Path, text: str) -> Keys:
    """Identities and recipients, one a line, and # comments, as age-keygen writes them."""
    try:
        found = keytext.lines(text)
    except ConfigError as error:
        raise ConfigError(f"KEY_FILE: {path}:{error}", error.hint) from None
    identities = [key for key in found if isinstance(key, x25519.Identity | hybrid.Identity)]
    recipients = [key for key in found if isinstance(key, x25519.Recipient | hybrid.Recipient)]
    unsupported = [key for key in found if isinstance(key, keytext.Unsupported)]
    if not found:
        raise ConfigError(
            f"KEY_FILE: {path} contains only comments",
            "Write the recipient (age1...) on a line of its own, without # before it.",
        )
    if not recipients and not identities:
        raise ConfigError(
            f"KEY_FILE: {path}:{unsupported[0].line}: {unsupported[0].kind}: not supported",
            "Use an age identity (AGE-SECRET-KEY-...) or recipient (age1...).",
        )
    refusal = ""
    if unsupported:  # leaving one out would encrypt for fewer, or weaker, keys than were named
        refusal = f"line {unsupported[0].line}: {unsupported[0].kind}: not supported"
    return Keys(
        tuple(recipients), tuple(identities), refusal=refusal, unsupported=tuple(unsupported)
    )


def _of_password(raw: bytes, text: str) -> Keys:
    """The old kind: it reads old files, and gives an age identity where it is long enough.

    The password is the text without newlines, as `openssl -pass file:` reads it; a carriage
    return belongs to it there. The identity is of the text alone. What may be something else
    than a password opens files, and encrypts none.
    """
    password = raw.replace(b"\n", b"")
    stripped = password.strip()
    masking.add(password.decode("utf-8", "surrogateescape"))
    shape = _shape(text)
    if bits(stripped) < _LEAST:
        weak = f"passphrase too weak for new backups: at most {bits(stripped)} bits of {_LEAST}"
        return Keys(password=password, no_password=shape, refusal=shape or weak)
    identity = x25519.Identity(provider.hkdf(stripped, _SALT, _INFO))
    masking.add(identity.reveal())
    return Keys(
        identities=(identity,), password=password, derived=True, no_password=shape, refusal=shape
    )


def _shape(text: str) -> str:
    """Why a text is no password to encrypt with; "" for one word on one line."""
    if len(text.strip().splitlines()) > 1:
        return "contains neither an age key nor a password: more than one line"
    if len(text.split()) > 1:
        return "contains neither an age key nor a password: more than one word"
    return ""


def bits(password: bytes) -> int:
    """How many bits of chance a password of this length and kind can hold at the most.

    A hexadecimal digit holds 4, a printable sign 6 (as in base64), any other byte 8.
    """
    if re.fullmatch(rb"[0-9A-Fa-f]+", password):
        return 4 * len(password)
    return (6 if re.fullmatch(rb"[\x20-\x7e]+", password) else 8) * len(password)


def recipients(keys: Keys, path: Path, more: Sequence[str]) -> list[age.Recipient]:
    """Return the recipients of new files. Raises ConfigError where they cannot be encrypted for."""
    if keys.refusal:
        hint = f"{_NEW_KEY}. Keep {path}: existing backups need it."
        if keys.unsupported:
            hint = "Remove the line, or use a KEY_FILE with age keys alone."
        raise ConfigError(f"KEY_FILE: {path}: {keys.refusal}", hint)
    own = [*keys.recipients, *(identity.recipient() for identity in keys.identities)]
    _check(f"KEY_FILE: {path}", own)
    everyone = [*own, *(keytext.recipient(text) for text in more)]
    _check("RECIPIENTS", everyone)
    return everyone


def _check(origin: str, recipients: Sequence[age.Recipient]) -> None:
    try:
        age.check_recipients(recipients)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}", error.hint) from None


def identities(keys: Keys, path: Path) -> list[age.Identity]:
    """What opens age files. Raises ConfigError where the file holds only recipients."""
    if not keys.identities:
        content = "only recipients" if keys.recipients else "only a password of the old format"
        if kinds := [key.kind for key in keys.unsupported if not key.recipient]:
            content = f"recipients, and a {kinds[0]}, not supported"
        raise ConfigError(
            f"KEY_FILE: {path} contains {content}, which cannot decrypt age files",
            "Use the key file with the identity (AGE-SECRET-KEY-...).",
        )
    return list(keys.identities)


def password(keys: Keys, path: Path, use: Use = Use.DECRYPT) -> bytes:
    """The password of the old format.

    Raises ConfigError where the file holds age keys, or what is not fit for new files.
    """
    if not keys.password:
        raise ConfigError(
            f"KEY_FILE: {path} contains age keys, but the old OpenSSL format needs a password",
            "Use the key file that was in use when the backup was made."
            if use is Use.DECRYPT
            else "Set FORMAT to age.",
        )
    if use is Use.ENCRYPT and keys.no_password:
        raise ConfigError(f"KEY_FILE: {path} {keys.no_password}", "Use a password of one word.")
    return keys.password


def generate(path: Path, *, post_quantum: bool = False) -> age.Recipient:
    """Write a new identity (0600), never over a file. Raises ConfigError."""
    kind = hybrid.Identity if post_quantum else x25519.Identity
    return save(kind.generate(), path)


def save(identity: age.Identity, path: Path) -> age.Recipient:
    """Write an identity as age-keygen does, 0600. Raises ConfigError where the name is taken."""
    public = identity.recipient()
    made = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = f"# created: {made}\n# public key: {public}\n{identity.reveal()}\n"
    if os.path.lexists(path):
        raise ConfigError(
            f"{path}: file exists",
            "Choose another file name. Do not replace a key file: existing backups need it.",
        )
    filesystem_handling.make_folder(path.absolute().parent)
    with filesystem_handling.create(path) as write:
        write(text.encode())
    return public
