"""The records of a run as they are in a store, byte for byte, checked before they are copied."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from tools.base.errors import BackupError, ManifestError
from tools.base.log import logger
from tools.catalog import cleaned, manifest, rotation, sshsig, trust
from tools.catalog.catalog import Catalog, Claim
from tools.catalog.trust import Signature
from tools.flow import store

_MAX_SHEET = 256 << 20  # bytes of a recovery sheet that is copied
_MOST_STATEMENTS = 10_000  # about signers; each is a key of one host


@dataclass(frozen=True)
class Record:
    """An object beside the parts. when: it was stored"""

    name: str
    content: bytes
    when: datetime


def of_manifest(catalog: Catalog, claim: Claim, when: datetime | None) -> list[Record]:
    """Return the signature of a trusted manifest, where it has one, and the manifest, read again.

    when: the time that the copy will have; None for that of the source. Raises ManifestError
    where they are not what was trusted, or the signer is not trusted at that time.
    """
    name = manifest.name_of(claim.manifest.run_id)
    path = f"{catalog.host}/{name}"
    content = store.content(catalog.store, path, manifest.MAX_BYTES)
    if hashlib.sha256(content).hexdigest() != claim.sha256:
        raise ManifestError(f"{path}: changed while it was read", "Check the store.")
    signature = catalog.signature(name)
    if signature is None:
        return [Record(name, content, catalog.time_of(name))]
    if claim.signer:
        judged = Signature(signature.content, when or signature.when)
        catalog.followed.signer(path, catalog.host, content, judged)
    if len(signature.content) > sshsig.MAX_BYTES:
        raise ManifestError(f"{path}{trust.ENDING}: not a signature", "Check the store.")
    return [
        Record(name + trust.ENDING, signature.content, signature.when),
        Record(name, content, catalog.time_of(name)),
    ]


def sheet(catalog: Catalog, claim: Claim) -> Record | str:
    """Return the recovery sheet of a run; or why it must not be copied."""
    name = claim.manifest.run_id + manifest.RECOVERY
    path = f"{catalog.host}/{name}"
    if name not in catalog.sizes:
        return f"{path}: no such file"
    content = store.content(catalog.store, path, _MAX_SHEET)
    expected = claim.manifest.recovery
    if expected and hashlib.sha256(content).hexdigest() != expected:
        return f"{path}: was altered"
    return Record(name, content, catalog.time_of(name))


def notes(catalog: Catalog, run_id: str) -> list[Record]:
    """Return the notes of the items of a run that clean-up has removed."""
    names = sorted(catalog.notes.get(run_id, ()))
    return [
        Record(name, cleaned.read(catalog.store, catalog.host, name), catalog.time_of(name))
        for name in names
    ]


def statements(catalog: Catalog) -> Iterator[list[Record]]:
    """Yield the statements about signers that count, each with its signature, oldest first."""
    names = sorted(filter(rotation.is_name, catalog.sizes))[:_MOST_STATEMENTS]
    for name in names:
        path = f"{catalog.host}/{name}"
        try:
            signature = catalog.signature(name)
            if signature is None:
                continue
            content = store.content(catalog.store, path, rotation.MAX_BYTES)
            rotation.line_of(content, catalog.host)
            if catalog.followed.signers:
                catalog.followed.signer(path, catalog.host, content, signature)
        except (BackupError, OSError, ValueError) as error:
            logger.info("%s: not copied: %s", path, error)
            continue
        yield [
            Record(name, content, catalog.time_of(name)),
            Record(name + trust.ENDING, signature.content, signature.when),
        ]
