"""writer.key: the secret of one host, from which its manifests are signed (CHUNKS.md 2).

The file holds an age identity, as age-keygen writes it; its 32 bytes are never used as such:
each purpose has a key of its own, derived by HKDF-SHA256.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from tools import filesystem_handling, os_works
from tools.base import bech32, fixes, foreign, kdf, masking, permissions, project
from tools.base.errors import ConfigError
from tools.catalog import ed25519, rotation, sshsig
from tools.catalog.rotation import Link
from tools.config.model import Config

NAMESPACE = "nc-backup-manifest"
SIGNER = "# signer: "  # before the allowed_signers line in a key file, and in writer.key
_PREFIX = "age-secret-key-"
_SIZE = 32
_SIGN = b"nc-backup sign 1"
_MAX_BYTES = 1 << 16
COMMAND = fixes.command(
    "python3", project.ROOT / "encryption/encryption.py", "--KEYGEN", "--WRITER"
)

_ABSENT = (
    "If this host has signed runs, put the file back from a copy. Otherwise, or without a copy, "
    "create a key"
)
_LOST = (
    "Put the file back from a copy. Only if there is none, create a new key: a restore trusts its "
    "runs once its signer is listed where you restore. The command is"
)


@dataclass(frozen=True)
class WriterKey:
    """The key that signs. `seed` and `public` have 32 bytes.

    links: how earlier keys of the host led to this one, oldest first
    """

    public: bytes
    seed: bytes = field(repr=False)
    links: tuple[Link, ...] = ()

    @property
    def all_public(self) -> list[bytes]:
        """Return the public keys of the host: this one, and those that led to it."""
        signed = (sshsig.signer(one.signature, one.statement, NAMESPACE) for one in self.links)
        return [self.public, *filter(None, signed)]

    def sign(self, message: bytes) -> bytes:
        """Return the signature file of a manifest."""
        return sshsig.sign(self.seed, message, NAMESPACE)


def read(path: Path) -> WriterKey:
    """Return the key in a file. Raises ConfigError, naming the file."""
    try:
        permissions.check_secret("WRITER_KEY", path)
        raw = foreign.beginning(path, _MAX_BYTES)
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise ConfigError(f"WRITER_KEY: {path}: {reason}", _hint(error, path)) from None
    lines = raw.decode("utf-8", "surrogateescape").split("\n")
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    for key in keys:
        masking.add(key)
    if len(keys) != 1:
        raise ConfigError(
            f"WRITER_KEY: {path}: {len(keys)} keys, expected 1",
            f"Move the file to another place. {': '.join(missing(path, 'HOST'))}",
        )
    try:
        secret = bech32.key(keys[0], _PREFIX, _SIZE, "identity")
        return _derived(secret, rotation.in_comments(lines))
    except (ConfigError, ValueError) as error:
        hint = getattr(error, "hint", "") or "Copy the file from a backup of it."
        raise ConfigError(f"WRITER_KEY: {path}: {error}", hint) from None


def of_config(config: Config) -> WriterKey | None:
    """Return the key that a config signs with; None where there is none. Raises ConfigError."""
    path = config.general.writer_key
    return None if is_missing(path) else read(path)


def is_missing(path: Path) -> bool:
    """Return whether there is no key; False where that cannot be checked: reading it fails."""
    try:
        return not filesystem_handling.exists(path)
    except OSError:
        return False


def _hint(error: OSError, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return ": ".join(missing(path, "HOST"))
    if isinstance(error, PermissionError):
        return "Let it belong to the user of the backup, with mode 0600."
    return ""


def missing(
    path: Path, host: str, key_file: Path | None = None, *, signed: bool = False
) -> tuple[str, str]:
    """Return the hint for a key that is missing, without a full stop, and the command in it.

    signed: whether this host is known to have signed runs. A copy of the file comes first, if there
    ever was a key. The user of the backup owns the new one; its line is added to the key file.
    """
    arguments: list[str | Path] = ["--WRITER_KEY", path, "--HOSTNAME", host]
    arguments += ["--KEY_FILE", key_file] if key_file else []
    command = f"{COMMAND} {fixes.command(*arguments)}"
    if not os.access(filesystem_handling.nearest(path), os.W_OK):
        command = fixes.as_root(command, fixes.command("chown", f"{os_works.user()}:", path))
    return _LOST if signed else _ABSENT, command


def _derived(secret: bytes, links: tuple[Link, ...] = ()) -> WriterKey:
    seed = kdf.hkdf(secret, b"", _SIGN)
    return WriterKey(ed25519.library().public(seed), seed, links)


def allowed_signer(host: str, public: bytes) -> str:
    """Return the line of allowed_signers that accepts manifests of a host.

    A character of the name that means something in such a line is written as `?`, which stands
    for any one character (PATTERNS of ssh_config(5)).
    """
    return f'{_pattern(host)} namespaces="{NAMESPACE}" {sshsig.public_line(public)}'


def _pattern(host: str) -> str:
    return re.sub(r'[\s"#,*!?]', "?", host)


def create(path: Path, host: str) -> str:
    """Write a new key, 0600. Return its line of allowed_signers. Raises ConfigError, OSError."""
    if filesystem_handling.exists(path):
        raise ConfigError(
            f"{path}: file exists",
            "Keep it: the runs that it has signed are known by it. To replace it with a new key "
            "that is signed with it, add --ROTATE.",
        )
    secret = os.urandom(_SIZE)
    line = _line(host, secret)
    filesystem_handling.make_folder(path.absolute().parent)
    with filesystem_handling.create(path) as write:
        write(_text(line, secret))
    return line


def rotate(path: Path, host: str) -> str:
    """Replace a key by a new one, whose line the old one signs. Return that line.

    The file keeps its owner. Raises ConfigError, OSError; also where the file names another host:
    no restore would follow from a key of one host to a key of another.
    """
    path = path.resolve()  # a symbolic link stays one
    old = read(path)
    _check_host(path, host)
    secret = os.urandom(_SIZE)
    line = _line(host, secret)
    statement = rotation.statement(host, line)
    link = Link(rotation.next_name(old.links), statement, old.sign(statement))
    owner = path.stat()
    with filesystem_handling.staged(path) as temporary:
        with filesystem_handling.create(temporary) as write:
            write(_text(line, secret, (*old.links, link)))
        os.chown(temporary, owner.st_uid, owner.st_gid)
        temporary.replace(path)
    filesystem_handling.sync_folder(path.absolute().parent)
    return line


def _check_host(path: Path, host: str) -> None:
    """Raise ConfigError where the signer that a key file names is not this host."""
    names = _names(path)
    name = _pattern(host)
    if names and name not in names:
        raise ConfigError(
            f"{path}: it is the key of the host {foreign.printable(names[-1])}, not of {name}",
            "Set --HOSTNAME to HOSTNAME of conf.json. If that was changed, first write it into the "
            f"line that begins with '{SIGNER.strip()}'.",
        )


def host_of(path: Path) -> str:
    """Return the host that a key file names, as a pattern; "" where none can be read there."""
    try:
        return next(iter(_names(path)[-1:]), "")
    except OSError:
        return ""


def _names(path: Path) -> list[str]:
    text = foreign.decoded(foreign.beginning(path, _MAX_BYTES))
    lines = [line for line in text.split("\n") if line.startswith(SIGNER)]
    return [line.removeprefix(SIGNER).split(" ")[0] for line in lines]


def _line(host: str, secret: bytes) -> str:
    return allowed_signer(host, _derived(secret).public)


def _text(line: str, secret: bytes, links: tuple[Link, ...] = ()) -> bytes:
    """Return what a key file holds."""
    key = bech32.encode(_PREFIX, secret).upper()
    masking.add(key)
    created = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [f"# created: {created}", f"{SIGNER}{line}", *map(rotation.comment, links), key, ""]
    return "\n".join(lines).encode()
