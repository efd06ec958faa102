"""The commands that create key files."""

from __future__ import annotations

from pathlib import Path

from encryption import hybrid, key_file, x25519
from tools import filesystem_handling
from tools.base.errors import ConfigError
from tools.base.result import Result, Status
from tools.catalog import writer_key
from tools.modules import registry

_KEEP = (
    "Keep the signer line with the key file on another machine: restore.py trusts only runs of "
    "signers that it knows (key file, --signer, SIGNERS)."
)
_ROTATED = (
    "It is signed with the old key, and the next run puts that signature into each store. A "
    "restore that knows the old signer then trusts the new one.",
    f"If the old key may have been stolen, also set valid-before for it. {_KEEP}",
)


def create(path: Path, *, post_quantum: bool) -> Result:
    """Write a new identity, never over a file."""
    identity = (hybrid if post_quantum else x25519).Identity.generate()
    recipient = key_file.write_identity(identity, path)
    return Result(
        Status.OK,
        f"created {path}",
        files=(str(path),),
        details=(
            f"recipient (public key): {recipient}",
            "Store a copy of the key file on another machine: "
            "without it no backup can be decrypted.",
            "Better: keep only the recipient on this server and the key file elsewhere.",
        ),
    )


def create_writer(path: Path, host: str, recipients: Path, *, rotate: bool = False) -> Result:
    """Write the key that signs the manifests of a host, never over a file.

    recipients: the key file; it and its identity beside it get the signer as a comment, where they
                can be written
    rotate: replace the key with a new one, signed with the old one
    """
    if not host:
        raise ConfigError(
            "--HOSTNAME is required", "Set --HOSTNAME to HOSTNAME of conf.json on this server."
        )
    line = (writer_key.rotate if rotate else writer_key.create)(path, host)
    identity = recipients.with_name(recipients.name + registry.IDENTITY)
    noted = [one for one in (recipients, identity) if _noted(one, line)]
    also = [f"It was added to {' and '.join(map(str, noted))} as a comment."] if noted else []
    if identity in noted:
        also.append(f"Copy {identity} to the machine that restores again: its copy lacks the line.")
    return Result(
        Status.OK,
        f"{'replaced' if rotate else 'created'} {path}",
        files=() if rotate else (str(path),),
        details=(f"signer: {line}", *(_ROTATED if rotate else (_KEEP,)), *also),
    )


def _noted(path: Path, line: str) -> bool:
    """Add the signer to a key file as a comment; return whether that was possible."""
    try:
        keys = key_file.read(path, key_file.Use.DECRYPT)
        if keys.password:
            return False  # a comment would be part of the password
        _append(path, f"{writer_key.SIGNER}{line}\n".encode())
    except (OSError, ConfigError):
        return False
    return True


def _append(path: Path, line: bytes) -> None:
    """Add a whole line to a file, or nothing. Raises OSError."""
    with path.open("r+b", buffering=0) as file:
        before = file.read()
        try:
            start = b"" if before.endswith(b"\n") else b"\n"
            filesystem_handling.write_all(file.fileno(), start + line)
        except OSError:
            file.truncate(len(before))  # part of a line would make the key file unusable
            raise


def export(path: Path, destination: Path | None) -> Result:
    """Write an identity to a file, never to the terminal, whose output ends in logs."""
    identity, *_ = key_file.identities(key_file.read(path, key_file.Use.DECRYPT), path)
    if destination is None:
        raise ConfigError(
            "--DESTINATION is required",
            "Set --DESTINATION to the file that the identity is written to.",
        )
    recipient = key_file.write_identity(identity, destination)
    return Result(Status.OK, f"wrote the identity for {recipient} to {destination}")
