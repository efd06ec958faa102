"""The manifest: the record that makes a run exist (docs/manifest.md, docs/manifest.schema.json).

Written last, once, never over another. It says what restore, verify and clean-up need,
without any key; nothing private stands in it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.base import foreign_json, run_ids
from tools.base.errors import ManifestError
from tools.base.foreign_json import IncompleteJsonError, InvalidJsonError
from tools.catalog import manifest_items
from tools.flow.item_record import (
    StoredItem,
    is_file_name,
    list_of,
    number_of,
    optional,
    text_of,
)

VERSION = 2  # in version 1 the facts of items are texts, and `base` is one of them
ENDING = ".manifest.json"
RECOVERY = ".RECOVERY.txt"
_NAME = re.compile(rf"(?P<run_id>[0-9]{{8}}_[0-9]{{6}}){re.escape(ENDING)}")
_MODES = ("staged", manifest_items.STREAMED)
_STATUS = re.compile(r"[a-z]{1,20}")
MAX_BYTES = 256 << 20  # of a manifest that is read
_ALTERED = "The manifest was altered or truncated. Use the copy in another store (--store)."


@dataclass(frozen=True)
class Manifest:
    """One run in one store.

    begin, end: UTC, to the second, ISO 8601
    mode:   "staged" or "streamed"
    status: of all that this store should hold, when the manifest was written (DESIGN 8)
    config: SHA-256 of the config, without its secrets
    machine, machine_name: which machine made it: its id (tools.identity) and its node name
    config_id, config_file: which config made it, whatever was changed in it since; and its path
    items:  `problem` of an invalid one says why it must not be used
    missing: items of this run that this store does not hold, SECTION/name
    sequence: rises by one with each run of a host and config; 0: made before runs were counted
    previous_run, previous: the run before this one, and the SHA-256 of its manifests: several
        where its stores hold different items
    recovery: SHA-256 of the recovery sheet
    accepted_rollback: whether earlier runs were rolled back on purpose, as the operator said
    cleaned: items that clean-up has removed since; never a part of the file (Catalog.claim)
    """

    host: str
    run_id: str
    begin: str
    end: str
    mode: str
    status: str
    items: tuple[StoredItem, ...]
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    config: str = ""
    program: str = ""
    machine: str = ""
    machine_name: str = ""
    config_id: str = ""
    config_file: str = ""
    sequence: int = 0
    previous_run: str = ""
    previous: tuple[str, ...] = ()
    recovery: str = ""
    accepted_rollback: bool = False
    cleaned: tuple[StoredItem, ...] = ()
    version: int = VERSION

    @property
    def size(self) -> int:
        """Return the bytes of all parts."""
        return sum(item.stored for item in self.items)

    @property
    def plain_size(self) -> int | None:
        """Return the plaintext bytes of all items; None where that of one is unknown."""
        sizes = [item.size for item in self.items]
        known_sizes = [size for size in sizes if size is not None]
        return sum(known_sizes) if len(known_sizes) == len(sizes) else None

    @property
    def base(self) -> str | None:
        """Return the newest run that an item of this one was added to; None where all are full."""
        return max((item.base for item in self.items if item.base), default=None)

    @property
    def refused(self) -> tuple[StoredItem, ...]:
        """Return the items that are invalid."""
        return tuple(item for item in self.items if item.problem)

    @property
    def is_complete(self) -> bool:
        """Return whether the run stored everything, as large as usual; files may be unreadable."""
        stored = self.status in ("ok", "incomplete", "unclean", "unreported") and not self.missing
        return stored and not any(item.grave for item in self.items)

    def to_json(self) -> bytes:
        """Return the file's bytes: sorted, indented, so that two of them can be compared by eye."""
        fields = dataclasses.asdict(self)
        del fields["cleaned"]
        for item in fields["items"]:
            for name in ("problem", "suspicious", "grave"):
                if not item[name]:
                    del item[name]
            if item["seconds"] is None:
                del item["seconds"]
        return json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def name_of(run_id: str) -> str:
    """Return the manifest's name beside its parts."""
    return run_id + ENDING


def run_of(name: str) -> str:
    """Return the run id in the name of a manifest; "" for another name."""
    match = _NAME.fullmatch(name)
    return match["run_id"] if match else ""


def read(raw: bytes, name: str) -> Manifest:
    """Return a manifest from its bytes, every field checked. name: of the object, for errors

    An invalid item costs only itself: see StoredItem.problem.

    Keys that are not known are skipped: a later version may add some. A later VERSION means
    that skipping would be wrong. Raises ManifestError.
    """
    if len(raw) > MAX_BYTES:
        raise ManifestError(f"{name}: too large for a manifest", "Check that this is a manifest.")
    try:
        fields, checked = foreign_json.load_structure(raw, MAX_BYTES)
    except InvalidJsonError as error:
        state = "incomplete" if isinstance(error, IncompleteJsonError) else "invalid"
        raise ManifestError(f"{name}: {state} manifest ({error})", _ALTERED) from None
    if not isinstance(fields, dict):
        raise ManifestError(f"{name}: not a manifest", _ALTERED)
    version = fields.get("version")
    if type(version) is int and version > VERSION:
        raise ManifestError(
            f"{name}: manifest version {version}; this program supports up to {VERSION}",
            "Use the version of nc-backup-py that wrote it, or a later one.",
        )
    try:
        return _manifest(fields, checked=checked)
    except (KeyError, TypeError, ValueError) as error:  # InvalidJsonError is a ValueError
        problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ManifestError(f"{name}: invalid manifest ({problem})", _ALTERED) from None


def _count(fields: Mapping[str, Any], key: str) -> int:
    """Return a number that manifests of earlier versions do not have. Raises ValueError."""
    return number_of(fields, key) if key in fields else 0


def _manifest(fields: Mapping[str, Any], *, checked: bool) -> Manifest:
    """Return a manifest. checked: whether texts and numbers need no further check"""
    if fields["version"] not in range(1, VERSION + 1) or type(fields["version"]) is not int:
        raise ValueError("version")
    items = list_of(fields, "items", object)
    if not checked:
        foreign_json.check({key: value for key, value in fields.items() if key != "items"})
    run_id = text_of(fields, "run_id", run_ids.is_run_id)
    mode = text_of(fields, "mode", _MODES.__contains__)
    return Manifest(
        host=text_of(fields, "host", is_file_name),
        run_id=run_id,
        begin=text_of(fields, "begin", run_ids.is_stamp),
        end=text_of(fields, "end", run_ids.is_stamp),
        mode=mode,
        status=text_of(fields, "status", _STATUS.fullmatch),
        items=manifest_items.read(items, run_id, mode, checked=checked),
        missing=tuple(list_of(fields, "missing", str)),
        warnings=tuple(list_of(fields, "warnings", str)),
        config=text_of(fields, "config"),
        program=text_of(fields, "program"),
        machine=optional(fields, "machine"),
        machine_name=optional(fields, "machine_name"),
        config_id=optional(fields, "config_id"),
        config_file=optional(fields, "config_file"),
        sequence=_count(fields, "sequence"),
        previous_run=optional(fields, "previous_run"),
        previous=tuple(list_of(fields, "previous", str)) if "previous" in fields else (),
        recovery=optional(fields, "recovery"),
        accepted_rollback=fields.get("accepted_rollback") is True,
    )
