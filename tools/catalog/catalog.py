"""The catalog: all runs of one host in one store, and whether they are trusted."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from tools.base import foreign, run_ids
from tools.base.errors import BackupError, ManifestError
from tools.base.log import logger
from tools.catalog import cleaned, manifest, rotation, sshsig, trust
from tools.catalog.manifest import Manifest
from tools.catalog.trust import Signature, Trust, UntrustedError
from tools.flow import forms, store
from tools.flow.item_record import StoredItem
from tools.flow.store import Store, StoreEntry

_MAX_LINKS = 10_000  # statements about signers that are looked at; each is a key of one host
_MAX_KEPT = 1 << 16  # bytes of such a manifest that is kept when it was read
_AHEAD = 256  # runs whose manifests are on their way before they are asked for
_LONGEST_AGE = 50 * 366 * 86_400.0  # seconds; no run is older
_LARGE = 1 << 20  # bytes of a manifest that is not read ahead
_MAX_UNTRUSTED = 4 << 20  # bytes of a manifest that no known signer has signed, and that is parsed


@dataclass(frozen=True)
class Claim:
    """A manifest as it is in the store, trusted or not.

    sha256:    of its bytes, in hexadecimal
    signer:    the fingerprint of the known signer that has signed it; "" if none has
    untrusted: why it is not trusted; None if it is
    """

    manifest: Manifest
    sha256: str
    signer: str
    untrusted: UntrustedError | None = None


def hosts(backup_store: Store) -> list[str]:
    """Return the hosts that a store has runs of: a disk has other folders (lost+found)."""
    return [host for host in backup_store.folders() if _has_runs(backup_store, host)]


def _has_runs(backup_store: Store, host: str) -> bool:
    try:
        names = (entry.name.rpartition("/")[2] for entry in backup_store.entries(host))
        return any(manifest.run_of(name) for name in names)
    except PermissionError:
        return False


def named(names: Iterable[str]) -> str:
    """Return the names of hosts as messages list them, each as an argument of a command."""
    return ", ".join(map(foreign.argument, names))


def _age(entry: StoreEntry) -> float:
    """Return the age of an object in seconds, limited to what a date can hold."""
    return min(max(entry.age, -_LONGEST_AGE), _LONGEST_AGE)


class Catalog:
    """The runs of one host in one store, as they were listed at the first question.

    One catalog serves a whole run or restore: the store is listed once, and each manifest is
    read when it is asked for, and only once. It may be asked from several threads.
    All that acts on a manifest asks for `manifest`; `claim` is for what shows runs, or keeps
    the files that any of them names.
    """

    def __init__(
        self, backup_store: Store, host: str, trusted: Trust, *, encrypted_only: bool = False
    ) -> None:
        """Read nothing yet. encrypted_only: whether only encrypted items may be restored"""
        self.store = backup_store
        self.host = host
        self.trust = trusted
        self.encrypted_only = encrypted_only
        self._claims: dict[str, Claim | BackupError | OSError] = {}
        self._untrusted: dict[str, UntrustedError] = {}
        self._prefetched: set[str] = set()
        self._newer: dict[tuple[str, str, bool], str] = {}  # see _is_replaced
        self._lock = threading.RLock()

    @functools.cached_property
    def _entries(self) -> Mapping[str, tuple[StoreEntry, datetime]]:
        """Return the objects of the host, and when they were stored, by name without folder."""
        now = datetime.now(timezone.utc)
        return {
            entry.name.rpartition("/")[2]: (entry, now - timedelta(seconds=_age(entry)))
            for entry in self.store.entries(self.host)
        }

    @functools.cached_property
    def sizes(self) -> Mapping[str, int]:
        """Return the bytes of every object of the host by its name, without the folder."""
        return {name: entry.size for name, (entry, _when) in self._entries.items()}

    @functools.cached_property
    def run_ids(self) -> Sequence[str]:
        """Return the ids of all runs that have a manifest, oldest first."""
        ids = filter(None, map(manifest.run_of, self.sizes))
        return sorted(run_id for run_id in ids if run_ids.is_time(run_id))

    def in_turn(self) -> Iterator[str]:
        """Yield the ids of all runs, oldest first; their manifests are read ahead."""
        for first in range(0, len(self.run_ids), _AHEAD):
            ids = self.run_ids[first : first + 2 * _AHEAD]
            names = map(manifest.name_of, ids)
            both = itertools.chain.from_iterable((name, name + trust.ENDING) for name in names)
            notes = itertools.chain.from_iterable(self.notes.get(run_id, ()) for run_id in ids)
            small = [name for name in (*both, *notes) if self.sizes.get(name, _LARGE) < _LARGE]
            fresh = [name for name in small if name not in self._prefetched]
            self._prefetched.update(fresh)
            store.prefetch(self.store, [f"{self.host}/{name}" for name in fresh])
            yield from self.run_ids[first : first + _AHEAD]

    @property
    def future(self) -> Sequence[str]:
        """Return the ids of runs that were made while the clock was wrong."""
        return [run_id for run_id in self.run_ids if run_ids.in_future(run_id)]

    @functools.cached_property
    def notes(self) -> Mapping[str, list[str]]:
        """Return the names of the notes of removed items, by the id of their run."""
        return cleaned.by_run(self._entries)

    @functools.cached_property
    def pinned(self) -> frozenset[str]:
        """Return the ids of the runs that clean-up must not touch."""
        return frozenset(filter(None, map(cleaned.pinned_run, self._entries)))

    def stored_at(self, run_id: str) -> datetime:
        """Return when a manifest was stored, UTC: its age by the clock of the store."""
        return self._entries[manifest.name_of(run_id)][1]

    def holds(self, item: StoredItem) -> bool:
        """Return whether every object of an item is listed with its size."""
        parts = forms.needed(self.store, self.host, item)
        return all(self.sizes.get(part.name) == part.size for part in parts)

    def has_objects_of(self, run_id: str) -> bool:
        """Return whether anything in the store has this run id."""
        return run_id in self._named

    @functools.cached_property
    def _named(self) -> frozenset[str]:
        """Return the run ids in the names of all objects."""
        return frozenset(map(run_ids.run_in, self.sizes))

    def manifest(self, run_id: str) -> Manifest:
        """Return the manifest of a run that is trusted.

        Raises UntrustedError where it is not, ManifestError, StoreError or OSError.
        """
        if (error := self._untrusted.get(run_id)) is not None:
            raise error
        claim = self.claim(run_id)
        if claim.untrusted is not None:
            raise claim.untrusted
        return claim.manifest

    def claim(self, run_id: str) -> Claim:
        """Return a manifest, trusted or not. Raises ManifestError, StoreError or OSError.

        Items that clean-up has removed stand in `cleaned` of the manifest. A note of that is
        believed where a newer run replaces the item, and where objects of it are missing: then
        it says no more than the removal of the whole run would. Otherwise they are an error.
        """
        with self._lock:
            outcome = self._claims.get(run_id)
            if outcome is None:
                outcome = self._read(run_id)
                if self._is_kept(run_id, outcome):
                    self._claims[run_id] = outcome
        if isinstance(outcome, Claim):
            return outcome
        raise outcome

    def _is_kept(self, run_id: str, outcome: Claim | BackupError | OSError) -> bool:
        """Return whether to keep what was read; of a large untrusted manifest the reason alone.

        Anyone who can write to the store may have put hundreds of them there.
        """
        if not isinstance(outcome, Claim) or outcome.untrusted is None:
            return True
        self._untrusted[run_id] = outcome.untrusted
        return self.sizes.get(manifest.name_of(run_id), 0) <= _MAX_KEPT

    def time_of(self, name: str) -> datetime:
        """Return when an object was stored, UTC, by its name without the folder."""
        return self._entries[name][1]

    def signature(self, name: str) -> Signature | None:
        """Return the signature of an object; None where the store has none."""
        return self._signature(name)

    @property
    def followed(self) -> Trust:
        """Return who is trusted: the known signers, and their successors that the store names."""
        return self._followed

    def may_be_trusted(self, run_id: str) -> bool:
        """Return whether a run could be trusted, as far as its names show."""
        unsigned = self.trust.allow_unsigned or self.trust.everybody
        return unsigned or self.has_signature(run_id)

    def is_unsigned(self, run_id: str) -> bool:
        """Return whether a run is not trusted only because it was made before signing began."""
        try:
            problem = self.claim(run_id).untrusted
        except (BackupError, OSError):
            return False
        return problem is not None and problem.unsigned and self._is_older(run_id)

    def knows(self, signer: str) -> bool:
        """Return whether runs of a signer are trusted; its fingerprint, "" for unsigned runs."""
        return self._followed.knows(signer)

    def has_signature(self, run_id: str) -> bool:
        """Return whether the store holds a signature of a run, whosever it is."""
        return manifest.name_of(run_id) + trust.ENDING in self._entries

    def add(self, published: Manifest, content: bytes, signer: str) -> None:
        """Take over a manifest that this run has published and read back."""
        digest = hashlib.sha256(content).hexdigest()
        with self._lock:
            self._claims[published.run_id] = Claim(published, digest, signer)

    def _read(self, run_id: str) -> Claim | BackupError | OSError:
        try:
            claim = self._claim(run_id)
            return self._without_cleaned(claim) if run_id in self.notes else claim
        except (BackupError, OSError) as error:
            return error

    def _without_cleaned(self, claim: Claim) -> Claim:
        """Return a claim without the items that clean-up has removed."""
        run = claim.manifest
        noted = cleaned.labels(self.store, self.host, self.notes[run.run_id])
        removed = [
            item
            for item in run.items
            if item.label in noted
            and not item.problem
            and not self.holds(item)
            and self._is_replaced(run, item.label, trusted=claim.untrusted is None)
        ]
        if not removed:
            return claim
        items = tuple(item for item in run.items if item not in removed)
        run = dataclasses.replace(run, items=items, cleaned=tuple(removed))
        return dataclasses.replace(claim, manifest=run)

    def is_replaced(self, run_id: str, label: str) -> bool:
        """Return whether a note that an item of this run was removed would be believed."""
        claim = self.claim(run_id)
        return self._is_replaced(claim.manifest, label, trusted=claim.untrusted is None)

    def _is_replaced(self, run: Manifest, label: str, *, trusted: bool) -> bool:
        """Return whether a newer run of this config holds an item, or is complete without it."""
        key = (run.config_id, label, trusted)
        if key not in self._newer:
            for newer in reversed(self.run_ids):
                if newer <= run.run_id:
                    return False
                if self._replaces(newer, *key):
                    self._newer[key] = newer
                    break
        return run.run_id < self._newer.get(key, "")

    def _replaces(self, run_id: str, config_id: str, label: str, trusted: bool) -> bool:
        try:
            claim = self.claim(run_id)
        except (BackupError, OSError):
            return False
        if claim.untrusted is not None and (trusted or not self.is_unsigned(run_id)):
            return False
        newer = claim.manifest
        if newer.config_id != config_id or run_ids.in_future(run_id):
            return False
        item = next((one for one in newer.items if one.label == label), None)
        if item is None:
            return newer.is_complete and label not in {one.label for one in newer.cleaned}
        return not item.problem and self.holds(item)

    def _claim(self, run_id: str) -> Claim:
        name = f"{self.host}/{manifest.name_of(run_id)}"
        content = self._content(run_id)
        run = manifest.read(content, name)
        if (run.host, run.run_id) != (self.host, run_id):
            raise ManifestError(
                f"{name}: is the manifest of {run.host}/{run.run_id}",
                "It was moved or renamed. Use the copy in another store.",
            )
        digest = hashlib.sha256(content).hexdigest()
        try:
            return Claim(run, digest, self._signer(run_id, hashlib.sha512(content).digest()))
        except UntrustedError as error:
            problem = self.trust.judged(error, lambda: self._is_older(run_id))
            return Claim(run, digest, "", problem)

    def _content(self, run_id: str) -> bytes:
        """Return the bytes of a manifest. Raises ManifestError where they are too many.

        Parsed they need many times their size in memory, so a large one must be trusted first.
        """
        name = f"{self.host}/{manifest.name_of(run_id)}"
        content = store.beginning(self.store, name, _MAX_UNTRUSTED)
        if len(content) <= _MAX_UNTRUSTED:
            return content
        self._require_trusted(run_id)
        return store.beginning(self.store, name, manifest.MAX_BYTES)

    def _require_trusted(self, run_id: str) -> None:
        """Raise ManifestError for a large manifest that is not trusted; little of it is kept."""
        try:
            self._signer(run_id, self._digest(run_id))
        except UntrustedError as error:
            if self.trust.judged(error, lambda: self._is_older(run_id)) is not None:
                raise ManifestError(
                    f"{error}; it is larger than {_MAX_UNTRUSTED} bytes, and not read",
                    "Check who can write to this store.",
                ) from None

    def _digest(self, run_id: str) -> bytes:
        """Return the SHA-512 of a manifest. Raises StoreError or OSError."""
        digest = hashlib.sha512()
        name = f"{self.host}/{manifest.name_of(run_id)}"
        for chunk in store.bounded(self.store, name, manifest.MAX_BYTES):
            digest.update(chunk)
        return digest.digest()

    def _signer(self, run_id: str, digest: bytes) -> str:
        """Return the fingerprint of a manifest's known signer. Raises UntrustedError.

        digest: SHA-512 of the manifest
        """
        name = manifest.name_of(run_id)
        path = f"{self.host}/{name}"
        return self._followed.signer_of_digest(path, self.host, digest, self._signature(name))

    @functools.cached_property
    def _followed(self) -> Trust:
        """Return who is trusted: the known signers, and their successors that the store names."""
        return self.trust.following(self.host, self._links())

    def _links(self) -> Iterator[tuple[str, Callable[[], bytes], Signature]]:
        """Yield the statements about successors with their signatures, oldest first."""
        names = sorted(filter(rotation.is_name, self._entries))
        if len(names) > _MAX_LINKS:
            text = "%s: %d statements about signers of %s; only the oldest %d are read"
            logger.warning(text, self.store, len(names), self.host, _MAX_LINKS)
        for name in names[:_MAX_LINKS]:
            path = f"{self.host}/{name}"
            try:
                signature = self._signature(name)
            except (BackupError, OSError) as error:
                logger.warning("%s: not read, its signer is not known: %s", path, error)
                continue
            if signature is not None:
                yield path, functools.partial(self._start, path, rotation.MAX_BYTES), signature

    def _signature(self, name: str) -> Signature | None:
        """Return the signature of an object; None where the store has none."""
        name += trust.ENDING
        if name not in self._entries:
            return None
        content = self._start(f"{self.host}/{name}", sshsig.MAX_BYTES)
        return Signature(content, self._entries[name][1])

    def _start(self, name: str, size: int) -> bytes:
        """Return the content of an object, or a little more than `size` bytes of it."""
        return store.beginning(self.store, name, size)

    def _is_older(self, run_id: str) -> bool:
        """Return whether a run claims to be older than the first that a known signer signed."""
        return not self._first_signed or run_id < self._first_signed

    @functools.cached_property
    def _first_signed(self) -> str:
        """Return the id of the oldest run that a known signer has signed; "" if there is none."""
        for run_id in self.run_ids:
            if not self.has_signature(run_id):
                continue
            try:
                self._signer(run_id, self._digest(run_id))
                return run_id
            except (BackupError, OSError):
                continue  # what cannot be read proves nothing
        return ""
