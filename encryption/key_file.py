"""KEY_FILE: age identities, age recipients, or a password of the old format."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path

from encryption import age, header, hybrid, key_lines, x25519
from tools import filesystem_handling
from tools.base import fixes, foreign, kdf, masking, permissions, project
from tools.base.errors import ConfigError
from tools.modules import registry

_LEAST_BITS = 128  # bits that a password's length must be able to hold, to be a key
_MOST_BYTES = 1 << 20
_SALT = b"nc-backup-py/keyfile/v1"
_INFO = b"age-x25519-identity"
_PROGRAM = fixes.command("python3", project.ROOT / "encryption/encryption.py")
_NEW_KEY = f"Create an age key: {_PROGRAM} --KEYGEN --KEY_FILE NEW"
_COPY = "Name the key file of the backup, or a copy of it. A new key decrypts no existing backup."


class Use(Enum):
    """What a key file is read for; the hints and the accepted contents differ."""

    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"


@dataclass(frozen=True)
class Keys:
    """The content of a key file.

    recipients:   the recipients in the file
    identities:   the identities in the file, or the one that is derived from a password
    password:     the whole text without newlines, for the old format; b"" if it has age keys
    is_derived:   whether the identity is derived from that password
    not_password: why the text cannot be a password for new files; "" if it can
    rejection:    why no new age file can be encrypted with it; "" if one can
    unsupported:  the keys of unsupported kinds
    """

    recipients: tuple[age.Recipient, ...] = ()
    identities: tuple[age.Identity, ...] = field(default=(), repr=False)
    password: bytes = field(default=b"", repr=False)
    is_derived: bool = False
    not_password: str = ""
    rejection: str = ""
    unsupported: tuple[key_lines.Unsupported, ...] = ()


def read(path: Path, use: Use = Use.ENCRYPT) -> Keys:
    """Read a key file. Raises ConfigError if it is missing, open to others, or has no key."""
    try:
        problem = permissions.exposed(path) if use is Use.DECRYPT else permissions.of_secret(path)
        raw = foreign.beginning(path, _MOST_BYTES)
    except OSError as error:
        raise _unreadable(path, error, use) from None
    if problem is not None:
        raise ConfigError(f"KEY_FILE: {problem}", problem.hint_or_accept, problem.fix)
    try:
        text = key_lines.decoded(raw)
    except ConfigError as error:
        raise ConfigError(f"KEY_FILE: {path} {error}", error.hint) from None
    if not text.strip():
        hint = f"Copy your key file there. Only on a new system: {_NEW_KEY}"
        raise ConfigError(f"KEY_FILE: {path}: empty file", _COPY if use is Use.DECRYPT else hint)
    if key_lines.holds_key(text) or (use is Use.ENCRYPT and key_lines.is_age(text)):
        return _of_age(path, text)
    return _of_password(raw, text)


def read_private(path: Path) -> Keys:
    """Read the key file that decrypts. Raises ConfigError.

    Where a key file holds only recipients, as setup.py makes it, that is PATH.identity beside it,
    if it is there and this user can read it.
    """
    keys = read(path, Use.DECRYPT)
    beside = path.with_name(path.name + registry.IDENTITY)
    if keys.identities or keys.password or not os.access(beside, os.R_OK):
        return keys
    return read(beside, Use.DECRYPT)


def _unreadable(path: Path, error: OSError, use: Use) -> ConfigError:
    """Return the error for a key file that cannot be read; a new key would not help a restore."""
    problem = (error.strerror or "cannot be read").lower()
    hint = ""
    if isinstance(error, FileNotFoundError):
        hint = (
            f"Copy the key file of this host to {path}. Only on a host without backups, create "
            f"one: {_creating(path)}"
        )
        if use is Use.DECRYPT:
            hint = _COPY
    elif isinstance(error, PermissionError):
        hint = f"Let the user of the backup read it: chown root:GROUP {path}; chmod 0640 {path}"
    fix = fixes.let_read(path) if isinstance(error, PermissionError) else ""
    return ConfigError(f"KEY_FILE: {path}: {problem}", hint, fix)


def _creating(path: Path) -> str:
    """Return the commands that create a key file that this user can read."""
    create = f"{_PROGRAM} --KEYGEN --KEY_FILE {shlex.quote(str(path))}"
    if os.access(filesystem_handling.nearest(path), os.W_OK):
        return create
    readable = (("chgrp", str(os.getegid()), path), ("chmod", "0640", path))
    return fixes.as_root(create, *(fixes.command(*arguments) for arguments in readable))


def _of_age(path: Path, text: str) -> Keys:
    """Return the identities and recipients, one a line beside # comments (as age-keygen writes)."""
    try:
        keys = key_lines.parse(text)
    except ConfigError as error:
        raise ConfigError(f"KEY_FILE: {path}:{error}", error.hint) from None
    identities = [key for key in keys if isinstance(key, x25519.Identity | hybrid.Identity)]
    recipients = [key for key in keys if isinstance(key, x25519.Recipient | hybrid.Recipient)]
    unsupported = [key for key in keys if isinstance(key, key_lines.Unsupported)]
    if not keys:
        raise ConfigError(
            f"KEY_FILE: {path} contains only comments",
            "Write the recipient (age1...) on a separate line, without # before it.",
        )
    if not recipients and not identities:
        raise ConfigError(
            f"KEY_FILE: {path}:{unsupported[0].line}: {unsupported[0].kind}: not supported",
            "Use an age identity (AGE-SECRET-KEY-...) or recipient (age1...).",
        )
    rejection = ""
    if unsupported:  # leaving one out would change who can decrypt, or how safe the file is
        rejection = f"line {unsupported[0].line}: {unsupported[0].kind}: not supported"
    return Keys(
        tuple(recipients), tuple(identities), rejection=rejection, unsupported=tuple(unsupported)
    )


def _of_password(raw: bytes, text: str) -> Keys:
    """Return the keys of an old key file: a password, and its age identity if it is long enough.

    The password is the text without newlines, as `openssl -pass file:` reads it, which keeps
    carriage returns. The identity is derived from the text without white space around it. A
    text that may not be a password can decrypt files and does not encrypt new ones.
    """
    password = raw.replace(b"\n", b"")
    stripped = password.strip()
    masking.add(password.decode("utf-8", "surrogateescape"))
    problem = _password_problem(text)
    if entropy_bits(stripped) < _LEAST_BITS:
        most = entropy_bits(stripped)
        weak = f"passphrase too weak for new backups: at most {most} bits of {_LEAST_BITS}"
        return Keys(password=password, not_password=problem, rejection=problem or weak)
    identity = x25519.Identity(kdf.hkdf(stripped, _SALT, _INFO))
    masking.add(identity.reveal())
    return Keys(
        identities=(identity,),
        password=password,
        is_derived=True,
        not_password=problem,
        rejection=problem,
    )


def _password_problem(text: str) -> str:
    """Return why a text cannot be a password for new files; "" for one word on one line."""
    if len(foreign.lines(text.strip())) > 1:
        return "contains neither an age key nor a password: more than one line"
    if len(text.split()) > 1:
        return "contains neither an age key nor a password: more than one word"
    return ""


def entropy_bits(password: bytes) -> int:
    """Return the most bits of entropy that a password of this length and alphabet can have.

    4 for a hexadecimal digit, 6 for another printable character (as in base64), else 8.
    """
    if re.fullmatch(rb"[0-9A-Fa-f]+", password):
        return 4 * len(password)
    return (6 if re.fullmatch(rb"[\x20-\x7e]+", password) else 8) * len(password)


def recipients(keys: Keys, path: Path, more: Sequence[str]) -> list[age.Recipient]:
    """Return the recipients of new files. Raises ConfigError where they cannot be encrypted for."""
    if keys.rejection:
        hint = f"{_NEW_KEY}. Keep {path}: existing backups need it."
        if keys.unsupported:
            hint = "Remove the line, or use a KEY_FILE with age keys alone."
        raise ConfigError(f"KEY_FILE: {path}: {keys.rejection}", hint)
    of_file = [*keys.recipients, *(identity.recipient() for identity in keys.identities)]
    _check(f"KEY_FILE: {path}", of_file)
    everyone = [*of_file, *(key_lines.recipient(text) for text in more)]
    _check("RECIPIENTS", everyone)
    return everyone


def _check(origin: str, recipients: Sequence[age.Recipient]) -> None:
    """Raise ConfigError, naming the origin, for recipients that no file can be encrypted for."""
    try:
        age.check_recipients(recipients)
        for recipient in recipients:
            recipient.wrap(bytes(header.FILE_KEY))
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}", error.hint) from None


def identities(keys: Keys, path: Path) -> list[age.Identity]:
    """Return what decrypts age files. Raises ConfigError if there are no identities."""
    if not keys.identities:
        content = "only recipients" if keys.recipients else "only a password of the old format"
        if kinds := [key.kind for key in keys.unsupported if not key.recipient]:
            content = f"recipients, and a {kinds[0]}, not supported"
        raise ConfigError(
            f"KEY_FILE: {path} contains {content}, which cannot decrypt age files",
            "Use the key file with the identity (AGE-SECRET-KEY-...): --key-file, or as "
            f"{path}{registry.IDENTITY}.",
        )
    return list(keys.identities)


def password(keys: Keys, path: Path, use: Use = Use.DECRYPT) -> bytes:
    """Return the password of the old format.

    Raises ConfigError if the file has age keys, or is not suitable for new files.
    """
    if not keys.password:
        raise ConfigError(
            f"KEY_FILE: {path} contains age keys, but the old OpenSSL format needs a password",
            "Use the key file that was in use when the backup was made."
            if use is Use.DECRYPT
            else "Set FORMAT to age.",
        )
    if use is Use.ENCRYPT and keys.not_password:
        raise ConfigError(f"KEY_FILE: {path} {keys.not_password}", "Use a password of one word.")
    return keys.password


def write_identity(identity: age.Identity, path: Path) -> age.Recipient:
    """Write an identity as age-keygen does, 0600. Raises ConfigError if the file exists."""
    public = identity.recipient()
    created = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = f"# created: {created}\n# public key: {public}\n{identity.reveal()}\n"
    if os.path.lexists(path):
        raise ConfigError(
            f"{path}: file exists",
            "Choose another file name. Do not replace a key file: existing backups need it.",
        )
    filesystem_handling.make_folder(path.absolute().parent)
    with filesystem_handling.create(path) as write:
        write(text.encode())
    return public
