"""The marker of an unfinished run, and the publishing of a run.

The marker comes first (`<run id>.UNFINISHED`), the manifest last; then the marker is removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import secrets
from collections.abc import Iterable

from tools.base import log, masking
from tools.base.errors import (
    BackupError,
    ForbiddenError,
    StoreError,
    TakenError,
    UnsupportedError,
)
from tools.base.log import logger
from tools.catalog import liveness, manifest, recovery_sheet, sshsig, trust, writer_key
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.catalog.rotation import Link
from tools.catalog.writer_key import WriterKey
from tools.flow import copies, form, forms, store
from tools.flow.facts import Json
from tools.flow.item_record import StoredItem
from tools.flow.store import Store

MARKER_SUFFIX = ".UNFINISHED"
_LIST_HINT = (
    "Let its program print a line SIZE NAME for each file of the folder NAME with "
    "--DIRECTION list (docs/adding-a-module.md): nothing can be restored without the list."
)
_REMOVED_HINT = (
    "Check whether another program removes files of this store during runs, and check its disk."
)
_NUMERIC = re.compile(r"[0-9.,:-]*")  # facts that a restore computes with: no secrets


def create_marker(backup_store: Store, host: str, run_id: str, *, copy: bool = False) -> None:
    """Mark in a store that a run is in progress, and which process runs it.

    copy: the run was made already, and is copied into this store
    Raises TakenError where another run has this id already, BackupError or OSError. A
    user-defined store may replace what it holds, so the marker is read back: the last one counts.
    A store that does not list it is not used: a restore could find nothing there.
    """
    token = secrets.token_hex(8)  # without it two containers could write the same marker
    identity: dict[str, Json] = {"run_id": run_id, "token": token, **liveness.this_process()}
    if copy:
        identity["copy"] = True
    text = (json.dumps(identity, sort_keys=True) + "\n").encode()
    name = f"{host}/{run_id}{MARKER_SUFFIX}"
    try:
        store.store_object(backup_store, name, [text])
    except (BackupError, OSError):
        if _holds(backup_store, name, text):
            remove(backup_store, name)
        raise
    if not is_same(backup_store, name, text):
        raise TakenError(f"{name} was replaced in {backup_store} by another run")
    require_listed(backup_store, name, len(text))


def remove(backup_store: Store, marker: str) -> None:
    """Remove a marker; where that fails, beside a manifest it means nothing."""
    try:
        backup_store.remove([marker])
    except UnsupportedError as error:  # as expected of this store
        logger.debug("%s: run marker not removed: %s", backup_store, error)
    except ForbiddenError as error:  # as append-only credentials are meant to be
        log.always("run marker not removed: %s", error)
    except (BackupError, OSError) as error:
        logger.warning("%s: run marker not removed: %s", backup_store, error)


def publish_manifest(catalog: Catalog, run: Manifest, key: WriterKey | None) -> str:
    """Store the recovery sheet, the signature and last the manifest, every known secret masked.

    key: what it is signed with; None where this host signs nothing.

    Return the error of the store where the manifest is there all the same; "" for none.
    Raises BackupError or OSError, also where a part of the manifest is missing: another program
    removed it, or the store lists less than it took.
    """
    run = masked(run)
    backup_store, folder = catalog.store, run.host
    require_parts(backup_store, run)
    signer = "" if key is None else writer_key.allowed_signer(run.host, key.public)
    links = () if key is None else tuple(link.name for link in key.links)
    sheet = recovery_sheet.sheet(run, signer, links).encode("utf-8", "backslashreplace")
    run = dataclasses.replace(run, recovery=hashlib.sha256(sheet).hexdigest())
    store.store_object(backup_store, f"{folder}/{run.run_id}{manifest.RECOVERY}", [sheet])
    name = f"{folder}/{manifest.name_of(run.run_id)}"
    content = run.to_json()
    if key is not None:
        for link in key.links:
            _store_link(catalog, link)
        store.store_object(backup_store, name + trust.ENDING, [key.sign(content)])
    problem = _publish(backup_store, name, content)
    require_listed(backup_store, name, len(content))
    catalog.add(run, content, "" if key is None else sshsig.fingerprint(key.public))
    return problem


def _store_link(catalog: Catalog, link: Link) -> None:
    """Store the statement of an earlier key about the next one, where the store lacks it."""
    for name, content in ((link.name, link.statement), (link.name + trust.ENDING, link.signature)):
        if name not in catalog.sizes:
            with contextlib.suppress(TakenError):  # a run of another config was faster
                store.store_object(catalog.store, f"{catalog.host}/{name}", [content])


def _publish(backup_store: Store, name: str, text: bytes) -> str:
    """Store a manifest and read it back; return the error of the store if it is there."""
    problem = ""
    try:
        store.store_object(backup_store, name, [text])
    except (BackupError, OSError) as error:
        if not _holds(backup_store, name, text):
            raise
        problem = store.explained(error, backup_store)[0]
    if not is_same(backup_store, name, text):
        run_id = manifest.run_of(name.rpartition("/")[2])
        raise BackupError(
            f"{name}: read-back mismatch",
            f"Check the disk or share of this store, then run restore.py --verify {run_id}.",
        )
    return problem


def _holds(backup_store: Store, name: str, content: bytes) -> bool:
    """Return whether a store holds an object of this name and content; False if unknown."""
    try:
        return is_same(backup_store, name, content)
    except (BackupError, OSError):
        return False


def is_same(backup_store: Store, name: str, content: bytes) -> bool:
    """Return whether an object has this content. Raises BackupError or OSError."""
    return store.beginning(backup_store, name, len(content)) == content


def require_listed(backup_store: Store, name: str, size: int) -> None:
    """Raise StoreError where a store of which nothing is known does not list an object."""
    if backup_store.consistent:
        return
    if (name, size) not in {
        (entry.name, entry.size) for entry in backup_store.entries(_folder(name))
    }:
        raise StoreError(f"{backup_store}: its list lacks {name} ({size} bytes)", _LIST_HINT)


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def require_parts(backup_store: Store, run: Manifest) -> None:
    """Raise StoreError where the list of a store lacks a part. One list serves all parts."""
    sizes = {entry.name.rpartition("/")[2]: entry.size for entry in backup_store.entries(run.host)}
    needed = (part for item in run.items for part in forms.needed(backup_store, run.host, item))
    for part in needed:
        size = sizes.get(part.name)
        if not copies.holds(backup_store, form.object_of(run.host, part), size):
            problem = "no such part" if size is None else f"{size} bytes, expected {part.size}"
            hint = _REMOVED_HINT if backup_store.consistent else _LIST_HINT
            raise StoreError(f"{backup_store}: {part.name}: {problem}", hint)


def masked(run: Manifest) -> Manifest:
    """Return the manifest with every known secret masked in all texts that sources gave.

    Names of items stay: they are in the names of their parts, and a restore looks for them.
    """
    return dataclasses.replace(
        run,
        items=tuple(_masked(item) for item in run.items),
        missing=_all_masked(run.missing),
        warnings=_all_masked(run.warnings),
        config_file=masking.text(run.config_file),
    )


def _masked(item: StoredItem) -> StoredItem:
    facts = {key: _masked_fact(value) for key, value in item.facts.items()}
    return dataclasses.replace(
        item, facts=facts, warnings=_all_masked(item.warnings), notes=_all_masked(item.notes)
    )


def _masked_fact(value: Json) -> Json:
    if isinstance(value, list):
        return [_masked_fact(one) for one in value]
    if not isinstance(value, str) or _NUMERIC.fullmatch(value):
        return value
    return masking.text(value)


def _all_masked(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(masking.text(line) for line in lines)
