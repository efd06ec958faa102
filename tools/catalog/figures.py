"""The figures of items as manifests hold them, for the anomaly guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from tools.flow import anomaly
from tools.flow.anomaly import Counted, Figures, Thresholds, Verdict
from tools.flow.item_record import StoredItem
from tools.modules import registry

_MAX_RATIO = 1 << 17  # plaintext bytes of a stored byte: zstd makes 128 KiB of zeros four bytes
_MIN_SIZE = 1 << 20  # bytes of plaintext that are plausible whatever is stored


def of_item(item: StoredItem, moment: datetime) -> Figures:
    """Return the figures of an item. moment: of its run"""
    count = item.facts.get(registry.kind(item.kind).counted)
    count = count if type(count) is int else None
    return Figures(moment, item.size, item.stored, count, item.seconds, item.stages)


def is_plausible(item: StoredItem) -> bool:
    """Return whether the stored bytes can hold the size of an item.

    A manifest that was altered must not make later backups suspicious.
    """
    return item.size is not None and item.size <= item.stored * _MAX_RATIO + _MIN_SIZE


def judge(
    item: StoredItem, now: Figures, good: Sequence[Figures], thresholds: Thresholds | None
) -> Verdict:
    """Return what is unusual about an item. good: of its good copies before, oldest first."""
    kind = registry.kind(item.kind)
    if thresholds is None or not kind.steady:
        return Verdict()
    counted = Counted(kind.counted) if kind.counted else None
    return anomaly.judge(now, good, thresholds, counted)


class Acceptance:
    """Which runs of items the operator has accepted, while runs pass from the oldest on.

    accepted: by label: the runs from which on an item may differ from what it was before
    """

    def __init__(self, accepted: Mapping[str, Sequence[str]]) -> None:
        self._remaining = {label: sorted(runs) for label, runs in accepted.items()}
        self._overruled: set[str] = set()

    def begins(self, label: str, run_id: str) -> bool:
        """Return whether what was before this run no longer counts for an item."""
        passed = [one for one in self._remaining.get(label, ()) if one <= run_id]
        if not passed:
            return False
        del self._remaining[label][: len(passed)]
        self._overruled.add(label)
        return True

    def refuses(self, item: StoredItem) -> bool:
        """Return whether a run's own verdict makes a copy suspicious.

        Not after the operator has accepted the item, until a run takes it for good itself: the
        machine that makes the runs may not know of that.
        """
        if not item.suspicious:
            self._overruled.discard(item.label)
        return bool(item.suspicious) and item.label not in self._overruled
