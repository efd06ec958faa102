"""One item of a streamed run: source, stages, split, and every store at once, in bounded memory.

The source and all stages but the last run in a thread of their own, each store in another,
with bounded queues between them. No part can be seen before the whole item has ended well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tools.base.errors import BackupError, SourceError, StoreError
from tools.date_str_utils import human_size
from tools.flow import item_record, stream
from tools.flow.item import Ended, Item, Stage
from tools.flow.store import Store, StoredObject, atomic_publish, explained, max_object_size
from tools.flow.stream import Channel, Chunks

PART = 1024 << 20  # bytes of a part where no stage says
_WORTH = 1 << 20  # bytes: smaller items go up and down without any meaning
_HALF, _TENTH = 0.5, 0.1  # of what an item was
_SHRUNK = (
    "Is a disk not mounted? If it is meant to be so small, run backup.py once with "
    '--accept-shrink, or set "SHRINK_CHECK": "False" in GENERAL for one run.'
)
_SETTLING = 2  # parts of one store that may still be syncing while the next one comes


@dataclass
class Target:
    """A store of the run, what it has taken, and what went wrong with it.

    troubles: why it does not hold items, each reason once; lost: how many it does not hold
    hint:     what to do about it
    watch:    how long it has worked
    """

    section: str
    store: Store
    parts: int = 0
    size: int = 0
    troubles: list[str] = field(default_factory=list)
    lost: int = 0
    hint: str = ""
    watch: stream.Stopwatch = field(default_factory=stream.Stopwatch)


@dataclass(frozen=True)
class Flowed:
    """An item that is stored, which stores hold it, and what its source said of it.

    failures: why its section has failed all the same
    """

    item: item_record.StoredItem
    holders: tuple[str, ...]
    ended: Ended
    failures: tuple[SourceError, ...] = ()


@dataclass(frozen=True)
class Where:
    """What the run knows of an item.

    place:    what its names begin with, `<HOSTNAME>/<run id>`
    advance:  gets the number of each chunk's plain bytes; what it raises ends the item
    previous: its plain bytes in the last good run; None where there was none to compare with
    """

    place: str
    advance: Callable[[int], None]
    previous: int | None = None


@dataclass(frozen=True)
class Shrunk:
    """An item that is much smaller than its last good copy. `fatal`: so small that it fails."""

    text: str
    hint: str
    fatal: bool


def shrunk(size: int, previous: int | None) -> Shrunk | None:
    """Return how an item has shrunk: below half of what it was, and fatally below a tenth.

    A disk that is not mounted makes no good backup. The item is stored all the same.
    """
    if previous is None or previous < _WORTH or size >= previous * _HALF:
        return None
    text = f"only {human_size(size)}, and its last good copy had {human_size(previous)}"
    return Shrunk(text, _SHRUNK, size < previous * _TENTH)


def _judged(ended: Ended, change: Shrunk | None) -> Ended:
    """What a source said of its item, and how that has shrunk."""
    if change is None:
        return ended
    if change.fatal:
        return dataclasses.replace(ended, notes=(*ended.notes, change.text))
    return dataclasses.replace(ended, warnings=(*ended.warnings, change.text))


def _failures(ended: Ended, change: Shrunk | None) -> tuple[SourceError, ...]:
    """What fails the section, though the item is stored."""
    found = tuple(SourceError(line) for line in ended.failures)
    if change is None or not change.fatal:
        return found
    return (SourceError(f"{change.text} (stored)", change.hint), *found)


def store_item(
    item: Item,
    section: str,
    stages: Sequence[Stage],
    targets: Sequence[Target],
    where: Where,
) -> Flowed:
    """Let one item flow into every store.

    Raises BackupError or OSError where the source or a stage fails, StoreError where no store
    took it: nothing is visible then.
    """
    plain = stream.Tally()
    with contextlib.ExitStack() as stack:
        chunks = stack.enter_context(stream.closed(item.read()))
        head = next(chunks, b"")
        applied = [stage for stage in stages if not stage.skips(head)]
        ending = item.called(head)
        words = [where.place, *map(item_record.quoted, filter(None, (section, item.name)))]
        stem = ".".join(words) + ending + "".join(stage.ending for stage in applied)
        size = next((stage.size for stage in reversed(stages) if stage.size), PART)
        whole = _counted(plain(itertools.chain([head] if head else [], chunks)), where.advance)
        *first, last = [stage.forward for stage in applied] or [iter]
        # closed in this order: the threads end before what they read
        fed = stack.enter_context(stream.closed(stream.ahead(stream.flow(whole, *first))))
        fan = stack.enter_context(_Fan(targets, stem))
        parts = fan.take(last(fed), size)
        change = shrunk(plain.size, where.previous)
        ended = _judged(item.ended(), change)
        holders = fan.publish(parts)
    return Flowed(
        item_record.StoredItem(
            section=section,
            name=item.name,
            kind=item.kind,
            ending=ending,
            stages=tuple(stage.name for stage in applied if stage.ending or stage.name != "none"),
            parts=tuple(_named(part) for part in parts),
            size=plain.size,
            sha256=plain.sha256,
            facts=ended.facts,
            warnings=ended.warnings,
            notes=ended.notes,
        ),
        holders,
        ended,
        _failures(ended, change),
    )


def _counted(chunks: Chunks, advance: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        advance(len(chunk))
        yield chunk


def _named(part: StoredObject) -> item_record.Part:
    """A part as the manifest beside it names it."""
    return item_record.Part(part.name.rpartition("/")[2], part.size, part.sha256)


class _Fan:
    """Hands one stream to several stores; one that fails does not stop the others."""

    def __init__(self, targets: Sequence[Target], stem: str) -> None:
        self._stem = stem
        self._sinks = [_Sink(target) for target in targets]

    def __enter__(self) -> _Fan:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """What a store did not get whole goes; on an exception all of it."""
        for sink in self._sinks:
            if error is not None or sink.error is not None:
                sink.drop(error or sink.error)

    def take(self, chunks: Chunks, size: int) -> list[StoredObject]:
        """Put every part into every store; return the parts, which every store has confirmed.

        A part is hashed once, here. Raises StoreError where no store has taken all of it.
        """
        size = min(size, *(max_object_size(sink.target.store) for sink in self._sinks))
        parts = [
            self._part(part, f"{self._stem}.{number:03}")
            for number, part in enumerate(stream.split(chunks, size))
        ]
        for sink in self._living():
            sink.finish(parts)
        self._living()
        return parts

    def _part(self, chunks: Chunks, name: str) -> StoredObject:
        """Put one part into every store; return what each of them must confirm."""
        tally = stream.Tally()
        for sink in self._living():
            sink.begin(name, tally)
        for chunk in tally(chunks):
            for sink in self._living():
                sink.put(chunk)
        for sink in self._living():
            sink.end()
        return StoredObject(name, tally.size, tally.sha256)

    def _living(self) -> list[_Sink]:
        """The stores that have not failed. Raises StoreError where there is none left."""
        living = [sink for sink in self._sinks if sink.error is None]
        if not living:
            names = ", ".join(sink.target.section for sink in self._sinks)
            raise StoreError(f"not stored: {names} failed")  # which says why itself
        return living

    def publish(self, parts: Sequence[StoredObject]) -> tuple[str, ...]:
        """Make the item visible; gives the sections of the stores that hold it now."""
        for sink in self._living():
            sink.publish()
        holders = tuple(sink.target.section for sink in self._living())
        for sink in self._living():
            sink.target.parts += len(parts)
            sink.target.size += sum(part.size for part in parts)
        return holders


class _Sink:
    """The way of one item into one store: a thread a part, of which few wait at a time."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.error: BaseException | None = None
        self._names: list[str] = []
        self._channel = Channel()
        self._settling: deque[tuple[threading.Thread, Channel]] = deque()
        self._stored: dict[str, StoredObject] = {}
        self._abandoned = threading.Event()

    def begin(self, name: str, tally: stream.Tally) -> None:
        """Begin the next part. tally: counts and hashes it before it comes here."""
        while len(self._settling) >= _SETTLING:
            self._settling.popleft()[0].join()
        channel = self._channel = Channel()
        self._names.append(name)

        def work() -> None:
            try:
                with self.target.watch.reading(channel) as chunks:
                    content = stream.Content(chunks, tally, self._abandoned)
                    self._stored[name] = self.target.store.put(name, content)
            except BaseException as error:  # noqa: BLE001  (kept, and shown as the store's)
                channel.leave(error)
                self._fail(error)

        self._settling.append((stream.thread(work), channel))

    def put(self, chunk: bytes) -> None:
        """A chunk of the part; a store that has failed takes no more."""
        try:
            self._channel.put(chunk)
        except BaseException as error:  # noqa: BLE001  (what the thread left with)
            self._fail(error)

    def end(self) -> None:
        """The part has ended."""
        self._channel.end()

    def finish(self, parts: Sequence[StoredObject]) -> None:
        """Wait until the store has confirmed every part as it was given."""
        self._join()
        if self.error is None and [self._stored[name] for name in self._names] != list(parts):
            self._fail(
                StoreError(
                    f"{self.target.store}: confirmed other bytes than were sent",
                    "Run restore.py --verify on the last runs of this store.",
                )
            )

    def publish(self) -> None:
        """Make the parts visible."""
        try:
            with atomic_publish(self.target.store, self._names):
                pass
        except (BackupError, OSError) as error:
            self._fail(error)

    def drop(self, error: BaseException | None) -> None:
        """The item has failed, here or elsewhere: nothing of it stays."""
        self.error = self.error or error  # what the chunks raise is no fault of the store
        self._abandoned.set()
        for _thread, channel in self._settling:
            channel.end(error)
        self._join()
        self.target.store.discard(self._names)

    def _join(self) -> None:
        while self._settling:
            self._settling.popleft()[0].join()

    def _fail(self, error: BaseException) -> None:
        """This store does not get the item; the first reason counts."""
        if self.error is None:
            self.error = error
            text, hint = explained(error, self.target.store)
            self.target.lost += 1
            if text not in self.target.troubles:
                self.target.troubles.append(text)
            self.target.hint = self.target.hint or hint
