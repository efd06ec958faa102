"""Decisions of the operator for clean-up, kept in the state folder of this machine."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cleanup.moved_config import Adopted
from tools.base import lock
from tools.catalog.memory import Memory

_FILE = "cleanup.json"
_UNFINISHED = "cleanup-unfinished.json"
_MOST = 4_000  # names that are remembered: a file of the state folder has at most one MiB


@dataclass(frozen=True)
class Remembered:
    """The decisions of the operator about one host in one store.

    memory: of the state folder, which may be lost; without one nothing is remembered
    store:  as messages name it
    """

    memory: Memory
    store: str
    host: str

    @property
    def discarded(self) -> frozenset[str]:
        """Return the ids of runs whose unusable manifest does not stop clean-up."""
        return frozenset(self._texts("discarded"))

    @property
    def forgotten(self) -> Mapping[str, str]:
        """Return the newest runs with items that are no longer wanted, by label.

        An item that a later run has is wanted again.
        """
        return self._runs("forgotten")

    @property
    def accepted(self) -> Mapping[str, Sequence[str]]:
        """Return the runs from which on an item may be smaller than before, by its label."""
        return self.memory.accepted(self.host)

    @property
    def adopted(self) -> Mapping[str, Adopted]:
        """Return which configs were others before they were moved, by the id that they had."""
        values = self.memory.read(_FILE).get(self._key("adopted"), {})
        pairs = values.items() if isinstance(values, dict) else ()
        return {
            old: Adopted(*map(str, one))
            for old, one in pairs
            if isinstance(one, list) and len(one) == 2  # noqa: PLR2004  (the fields of Adopted)
        }

    @property
    def condemned(self) -> tuple[str, ...]:
        """Return the names of parts whose removal has begun and was not finished."""
        return self._texts("condemned", _UNFINISHED)

    def discard(self, run_id: str) -> None:
        """Keep that a run does not stop clean-up. Raises OSError."""
        self._keep("discarded", sorted({*self.discarded, run_id}))

    def forget(self, label: str, run_id: str) -> None:
        """Keep that an item is no longer wanted. run_id: of its newest run. Raises OSError."""
        self._keep("forgotten", {**self.forgotten, label: run_id})

    def accept(self, label: str, run_id: str) -> None:
        """Keep that an item may be smaller from a run on. Raises OSError."""
        self.memory.accept(self.host, {label: run_id})

    def adopt(self, config_id: str, adopted: Adopted) -> None:
        """Keep which config an earlier one is now. Raises OSError."""
        adoptions = {**self.adopted, config_id: adopted}
        pairs = {old: [one.config_id, one.until] for old, one in adoptions.items()}
        self._keep("adopted", pairs)

    def condemn(self, names: Iterable[str]) -> None:
        """Keep which files are about to be removed; none when all are gone. Raises OSError.

        The first names count: those of a streamed run are found again without this.
        """
        condemned = list(itertools.islice(names, _MOST))
        if condemned or self.condemned:
            self.memory.keep(_UNFINISHED, self._key("condemned"), condemned)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock of the clean-ups of this host and store on this machine for the block.

        Two at once would each report the bytes that both have freed. Raises LockedError, OSError.
        """
        folder = self.memory.state
        if folder is None or lock.on_network(folder):
            yield
            return
        digest = hashlib.sha256(self._key("").encode("utf-8", "surrogateescape")).hexdigest()
        with lock.hold(folder / f"cleanup-{digest[:16]}.lock"):
            yield

    def _key(self, subject: str) -> str:
        return f"{subject} {self.store} {self.host}"

    def _runs(self, subject: str) -> Mapping[str, str]:
        values = self.memory.read(_FILE).get(self._key(subject), {})
        pairs = values.items() if isinstance(values, dict) else ()
        return {name: run for name, run in pairs if isinstance(run, str)}

    def _texts(self, subject: str, file: str = _FILE) -> tuple[str, ...]:
        values = self.memory.read(file).get(self._key(subject), [])
        texts = values if isinstance(values, list) else []
        return tuple(text for text in texts if isinstance(text, str))

    def _keep(self, subject: str, value: object) -> None:
        self.memory.keep(_FILE, self._key(subject), value)
