"""What a store lacks of a run that another one has. Nothing is written here."""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from tools.base import run_ids
from tools.base.errors import BackupError, ManifestError, in_words
from tools.base.result import Result, Status
from tools.catalog import manifest, sequence, trust
from tools.catalog.catalog import Catalog, Claim
from tools.catalog.manifest import Manifest
from tools.catalog.runs import IN_FUTURE
from tools.flow import forms
from tools.flow.item_record import Part

_NEVER_REPLACED = "Manifests are never replaced. Restore what is missing from the other store."


_MANY = 0.5  # of all runs of a store; otherwise reading the others would take longer


class LeftOutError(BackupError):
    """A run that is not copied on purpose."""


@dataclass(frozen=True)
class Lack:
    """What a store lacks of one run.

    claim:    the manifest in the source
    absent:   parts that it has not
    present:  parts that are there without a manifest that proves them: a copy was killed
    records:  names of notes of removed items, of the recovery sheet, signature and manifest, as
              far as it has them not
    warnings: what it lacks and cannot be given
    """

    claim: Claim
    absent: tuple[Part, ...] = ()
    present: tuple[Part, ...] = ()
    records: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def manifest(self) -> Manifest:
        """Return the manifest in the source."""
        return self.claim.manifest

    @property
    def run_id(self) -> str:
        """Return the id of the run."""
        return self.claim.manifest.run_id

    @property
    def is_new(self) -> bool:
        """Return whether the store has no manifest of the run."""
        return manifest.name_of(self.run_id) in self.records

    @property
    def objects(self) -> int:
        """Return how many objects are to be copied."""
        return len(self.absent) + len(self.records)

    @property
    def size(self) -> int:
        """Return the bytes of all parts that are to be copied."""
        return sum(part.size for part in self.absent)


def left_out(error: BackupError | OSError) -> Result:
    """Return the result of a run that is not copied.

    One that is not trusted, or cannot be, leaves the copy incomplete; any other error fails it.
    """
    incomplete = isinstance(error, LeftOutError | ManifestError)
    line, hint = in_words(error)
    hint = hint.replace("--store", "--from")  # it was written for restore.py
    return Result(Status.INCOMPLETE if incomplete else Status.FAILED, line, hint)


class Comparison:
    """The runs of one host in two stores, each listed once."""

    def __init__(self, source: Catalog, target: Catalog, named: Collection[str] = ()) -> None:
        """Read nothing yet. named: ids of runs that were selected by id"""
        self.source = source
        self.target = target
        self._named = named
        self._added: deque[Claim] = deque(maxlen=sequence.MAX_SEARCHED)  # the newest are enough
        self._copied: set[str] = set()

    @functools.cached_property
    def _numbered(self) -> list[Claim]:
        """Return the newest runs of the target, as they were before the copy."""
        return sequence.numbered(self.target)

    def read_ahead(self, run_ids: Collection[str]) -> None:
        """Read the manifests of many runs, several at once where that saves time."""
        for catalog in (self.source, self.target):
            requested = set(run_ids).intersection(catalog.run_ids)
            if len(requested) < len(catalog.run_ids) * _MANY:
                continue
            for run_id in catalog.in_turn():  # all of them: they are read ahead
                with contextlib.suppress(BackupError, OSError):  # kept, and raised again
                    catalog.claim(run_id)

    def holds(self, run_id: str) -> bool:
        """Return whether the target has a manifest of a run, trusted or not."""
        return run_id in self._copied or manifest.name_of(run_id) in self.target.sizes

    def add(self, claim: Claim, content: bytes) -> None:
        """Take over a run that was copied."""
        self._copied.add(claim.manifest.run_id)
        self._added.append(claim)
        self.target.add(claim.manifest, content, claim.signer)

    def claim(self, run_id: str) -> Claim:
        """Return a run of the source that may be copied. Raises LeftOutError, ManifestError.

        Raises StoreError, OSError where the source cannot be read.
        """
        if run_ids.in_future(run_id) and run_id not in self._named:
            raise LeftOutError(f"run {run_id} {IN_FUTURE}", "Name it with --runs to copy it.")
        claim = self.source.claim(run_id)
        if claim.untrusted is not None:
            raise claim.untrusted
        for item in claim.manifest.refused:
            raise LeftOutError(f"{item.label}: {item.problem}", "Copy it from another store.")
        return claim

    def lack(self, run_id: str) -> Lack:
        """Return what the target lacks of a run. Raises as `claim` does."""
        claim = self.claim(run_id)
        return self._held(claim) if self.holds(run_id) else self._new(claim)

    def require_bases(self, lack: Lack, planned: Collection[str]) -> None:
        """Raise LeftOutError for a run whose base is not in the target.

        planned: ids of runs that were or will be copied
        """
        for base in bases(lack.manifest) if lack.is_new else ():
            if base in planned and not self.holds(base):
                continue  # in a preview
            try:
                if self.holds(base) and self.target.manifest(base):
                    continue
                problem = "is not there"
            except (BackupError, OSError) as error:
                problem = f"cannot be used: {error}"
            raise LeftOutError(
                f"its base {base} in {self.target.store} {problem}",
                "Copy its base first, from a store that has it.",
            )

    def _new(self, claim: Claim) -> Lack:
        """Return all of a run that the target does not have."""
        numbered = [*self._numbered, *self._added]
        wrong = sequence.contradiction(self.target, numbered, claim)
        if wrong is not None:
            raise LeftOutError(
                f"a restore from {self.target.store} would fail with: {wrong}",
                "The stores hold different versions of a run. Keep this run where it is.",
            )
        parts = self._parts(claim.manifest)
        notes = self.source.notes.get(claim.manifest.run_id, ()) if claim.manifest.cleaned else ()
        sizes = self.target.sizes
        present = tuple(part for part in parts if sizes.get(part.name) == part.size)
        absent = tuple(part for part in parts if part not in present)
        return Lack(claim, absent, present, (*notes, *self._records(claim)))

    def _held(self, claim: Claim) -> Lack:
        """Return what is missing of a run of which the target has a manifest."""
        run_id = claim.manifest.run_id
        target_claim = self._target_claim(run_id, claim.sha256)
        sizes = self.target.sizes
        offered = set(self._parts(claim.manifest))
        lacking = [
            part for part in self._parts(target_claim.manifest) if sizes.get(part.name) != part.size
        ]
        absent = tuple(part for part in lacking if part in offered)
        records = self._records(claim) if target_claim.sha256 == claim.sha256 else ()
        missing = tuple(name for name in records if name not in sizes)
        return Lack(
            claim, absent, (), missing, tuple(self._beyond(claim, target_claim, lacking, offered))
        )

    def _target_claim(self, run_id: str, sha256: str) -> Claim:
        """Return the manifest in the target. Raises LeftOutError where it is not trusted."""
        try:
            claim = self.target.claim(run_id)
        except ManifestError as error:
            raise LeftOutError(str(error), _NEVER_REPLACED) from None
        if claim.untrusted is not None and claim.sha256 != sha256:
            raise LeftOutError(
                f"{self.target.store} has another manifest of it: {claim.untrusted}",
                _NEVER_REPLACED,
            )
        return claim

    def _beyond(
        self,
        claim: Claim,
        target_claim: Claim,
        lacking_parts: Sequence[Part],
        offered: Collection[Part],
    ) -> Iterator[str]:
        """Yield what the target lacks of a run and cannot be given."""
        has = {
            item.label for item in (*target_claim.manifest.items, *target_claim.manifest.cleaned)
        }
        lacking = [item.label for item in claim.manifest.items if item.label not in has]
        if lacking:
            yield (
                f"{self.target.store} has another manifest of it, without {', '.join(lacking)}: "
                "manifests are never replaced, so these cannot be added"
            )
        for part in lacking_parts:
            if part not in offered:
                yield f"{part.name} is missing in {self.target.store}, and not in the source"

    def _records(self, claim: Claim) -> Iterator[str]:
        """Yield the names of the records of a run in the order in which they are stored."""
        name = manifest.name_of(claim.manifest.run_id)
        if (
            claim.manifest.recovery
            or claim.manifest.run_id + manifest.RECOVERY in self.source.sizes
        ):
            yield claim.manifest.run_id + manifest.RECOVERY
        if self.source.has_signature(claim.manifest.run_id):
            yield name + trust.ENDING
        yield name

    def _parts(self, run: Manifest) -> list[Part]:
        """Return every object that reading the items of a run needs, each once."""
        source_store = self.source.store
        needed = (part for item in run.items for part in forms.needed(source_store, run.host, item))
        return list({part.name: part for part in needed}.values())


def bases(run: Manifest) -> list[str]:
    """Return the runs that items of a run were added to, oldest first."""
    return sorted({item.base for item in run.items if item.base})
