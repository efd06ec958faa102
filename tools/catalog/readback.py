"""Read an item back from a store: check its objects, then apply the inverse of every stage."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tools.base import run_ids
from tools.base.errors import (
    BackupError,
    DamagedError,
    ManifestError,
    StageError,
    StoreError,
    TruncatedError,
)
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import RECOVERY, Manifest
from tools.flow import copies, form, forms, store, stream
from tools.flow.form import InverseStages
from tools.flow.item import USER_STAGE
from tools.flow.item_record import EARLIER, Part
from tools.flow.item_record import StoredItem as Item
from tools.modules import registry

_ENCRYPTED = re.compile(r"\.(?:age|crypt)\.[0-9]{3,}$")  # in the name of a part of staged runs
_MAX_SHEET = 256 << 20  # bytes of a recovery sheet that are compared
_HINT = "Use another store that holds the run (--store), or another run."
_FILTERS = "If each copy fails in this way, look for an error in the filter"
_ALTERED = "The manifest was altered. Use the copy in another store (--store), or another run."
_NOT_ENCRYPTED = (
    "The config encrypts, or a key was given, so anyone who can write to the store may have made "
    "this item. If it was stored before encryption was turned on, use --allow-unencrypted."
)
OTHER_COPY = "Use another copy of the run, or the version of nc-backup-py that wrote it."
Advance = Callable[[int], None]  # called with the stored bytes that have been read


@dataclass(frozen=True)
class StoredRun:
    """One run in one store."""

    catalog: Catalog
    manifest: Manifest

    @property
    def run_id(self) -> str:
        """Return the id of the run."""
        return self.manifest.run_id

    @property
    def signed(self) -> bool:
        """Return whether a known signer signed it; True in runs of a host that does not sign."""
        return self.catalog.trust.everybody or bool(self.catalog.claim(self.run_id).signer)

    def part_name(self, part: Part) -> str:
        """Return the name of a part in the store."""
        return f"{self.manifest.host}/{part.name}"

    def read_object(self, part: Part) -> Iterator[bytes]:
        """Return the chunks of a part; at its end they are compared with size and SHA-256."""
        return form.read_object(self.catalog.store, self.manifest.host, part)

    def needed(self, item: Item) -> Sequence[Part]:
        """Return every object that reading the item needs."""
        return tuple(forms.of(item.form).needed(item, self.read_object))


def check(run: StoredRun, item: Item) -> None:
    """Raise ManifestError for an item that must not be restored, whoever signed its run."""
    _raise_first(run, item, (*_problems(run, item), *_unknown(item)))


def _raise_first(run: StoredRun, item: Item, problems: Iterable[tuple[str, str]]) -> None:
    for problem, hint in problems:
        raise ManifestError(f"run {run.run_id}: {item.label}: {problem}", hint)


def _unknown(item: Item) -> Iterator[tuple[str, str]]:
    if item.kind not in registry.KINDS:
        yield f"unknown kind {item.kind!r}", OTHER_COPY
    for stage in item.stages:
        if stage not in registry.STAGES and not stage.startswith(USER_STAGE):
            yield f"unknown stage {stage!r}", OTHER_COPY


def _problems(run: StoredRun, item: Item) -> Iterator[tuple[str, str]]:
    """Yield why an item must not even be read, each with a hint."""
    if item.problem:
        yield item.problem, _ALTERED
    if run.catalog.encrypted_only and not _is_encrypted(item):
        yield "not encrypted", _NOT_ENCRYPTED
    for part in item.parts:
        owner = run_ids.run_in(part.name)
        others = owner not in ("", run.run_id) and owner in run.catalog.run_ids
        if others and item.section != EARLIER:
            yield f"{part.name} is a part of run {owner}", _ALTERED


def _is_encrypted(item: Item) -> bool:
    """Return whether an item is encrypted; of a part of a killed run only the name shows it."""
    is_leftover = item.kind == registry.PLAIN and not item.stages and _ENCRYPTED.search(item.name)
    return bool(is_leftover) or any(map(registry.stage_encrypts, item.stages))


def sheet_problem(run: StoredRun) -> str:
    """Return why the recovery sheet of a run must not be followed; "" for nothing.

    A manifest of an earlier version does not know its digest. Raises StoreError or OSError.
    """
    name = f"{run.manifest.host}/{run.run_id}{RECOVERY}"
    if not run.manifest.recovery:
        return ""
    if name.rpartition("/")[2] not in run.catalog.sizes:
        return f"{name}: no such file"
    digest = hashlib.sha256()
    for chunk in store.bounded(run.catalog.store, name, _MAX_SHEET):
        digest.update(chunk)
    if digest.hexdigest() != run.manifest.recovery:
        return f"{name}: was altered; do not run the commands in it"
    return ""


def missing_parts(run: StoredRun, items: Sequence[Item]) -> list[str]:
    """Return a line for each part that is missing or has another size; no part is read.

    Invalid items are left out: `check` refuses each.
    """
    sizes = run.catalog.sizes
    problems = []
    good = (item for item in items if not item.problem)
    for part in (part for item in good for part in run.needed(item)):
        size = sizes.get(part.name)
        if size is None:
            problems.append(f"{run.part_name(part)}: no such part")
        elif not copies.holds(run.catalog.store, form.object_of(run.manifest.host, part), size):
            problems.append(f"{run.part_name(part)}: {_other_size(size, part.size)}")
    return problems


def require_parts(run: StoredRun, items: Sequence[Item]) -> None:
    """Raise StoreError where a part is missing or truncated, before anything is written."""
    problems = missing_parts(run, items)
    if problems:
        total = f" ({len(problems)} parts in total)" if len(problems) > 1 else ""
        raise StoreError(f"{problems[0]}{total}", _HINT)


def read_parts(run: StoredRun, item: Item, advance: Advance | None = None) -> Iterator[bytes]:
    """Return the stored bytes of an item, part by part.

    Raises DamagedError, TruncatedError or StoreError, naming the part; ManifestError
    for an item that must not be restored.
    """
    _raise_first(run, item, _problems(run, item))
    read_object = _counting(run, advance)
    for part in run.needed(item):
        yield from read_object(part)


@contextlib.contextmanager
def naming_filters(item: Item, *more: type[BackupError]) -> Iterator[None]:
    """Name the user-defined filters of an item in the hint of an error in its data.

    more: such errors besides StageError
    """
    try:
        yield
    except BackupError as error:
        if not isinstance(error, (StageError, *more)):
            raise
        names = [one.removeprefix(USER_STAGE) for one in item.stages if one.startswith(USER_STAGE)]
        suspects = [name for name in names if f"{name} (" not in f"{error} {error.hint}"]
        if suspects:
            error.hint = f"{error.hint}\n{_FILTERS} {', '.join(suspects)} (--DIRECTION backward)"
            error.hint = error.hint.strip()
        raise


def read_item(
    run: StoredRun, item: Item, inverse: InverseStages, advance: Advance
) -> Iterator[bytes]:
    """Return the plaintext of an item; at its end it is compared with its size and SHA-256.

    An item without SHA-256 was compressed by zstd, whose decoder compares its checksum.

    What has been returned before an error is a true prefix, so the caller must not commit
    anything before the end. advance: called with the stored bytes that have been read.
    Raises ManifestError for an item that must not be restored.
    """
    _raise_first(run, item, _problems(run, item))
    with naming_filters(item):
        yield from _plaintext(run, item, inverse, advance)


def _plaintext(
    run: StoredRun, item: Item, inverse: InverseStages, advance: Advance
) -> Iterator[bytes]:
    chunks = forms.of(item.form).read(item, _counting(run, advance), inverse)
    tally = stream.Count() if item.sha256 is None else stream.Tally()
    try:
        for chunk in tally(chunks):
            if item.size is not None and tally.size > item.size:
                raise DamagedError(f"{item.label}: longer than {item.size} bytes", _HINT)
            yield chunk
    except StageError:
        stream.drained(read_parts(run, item))  # naming the damaged part helps more
        raise
    if item.size is not None and tally.size != item.size:
        raise TruncatedError(f"{item.label}: {_other_size(tally.size, item.size)}", _HINT)
    if tally.sha256 != item.sha256:
        raise DamagedError(
            f"{item.label}: SHA-256 mismatch: differs from what was backed up", _HINT
        )


def _counting(run: StoredRun, advance: Advance | None) -> Callable[[Part], Iterator[bytes]]:
    """Return a reader of objects that reports how many bytes it has read in all."""
    size = 0

    def read_object(part: Part) -> Iterator[bytes]:
        nonlocal size
        for chunk in run.read_object(part):
            size += len(chunk)
            if advance is not None:
                advance(size)
            yield chunk

    return read_object


def _other_size(size: int, expected: int) -> str:
    return f"{size} bytes, expected {expected}"
