"""The commands that create key files."""

from __future__ import annotations

from pathlib import Path

from encryption import hybrid, key_file, x25519
from tools.base.errors import ConfigError
from tools.base.result import Result, Status


def create(path: Path, *, post_quantum: bool) -> Result:
    """Write a new identity, never over a file."""
    identity = (hybrid if post_quantum else x25519).Identity.generate()
    recipient = key_file.write_identity(identity, path)
    return Result(
        Status.OK,
        f"created {path}\nrecipient (public key): {recipient}\n"
        "Store a copy of the key file on another machine: without it no backup can be decrypted.\n"
        "Better: keep only the recipient on this server and the key file elsewhere.",
        files=(str(path),),
    )


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
