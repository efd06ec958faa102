"""Back from the store: an item's parts, checked, and every stage undone; what is wrong is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tools.base.errors import DamagedError, StageError, StoreError, TruncatedError
from tools.catalog.manifest import Manifest
from tools.flow import stream
from tools.flow.item_record import Part
from tools.flow.item_record import StoredItem as Item
from tools.flow.store import Store
from tools.flow.stream import Chunks

Undo = Callable[[str], Callable[[Chunks], Iterator[bytes]]]  # by a stage's name: its inverse
_AGAIN = "Use another store that holds the run, or another run."


@dataclass(frozen=True)
class Run:
    """One run in one store."""

    store: Store
    manifest: Manifest

    def name(self, part: Part) -> str:
        """A part's name in the store."""
        return f"{self.manifest.host}/{part.name}"


def absent(run: Run, items: Sequence[Item]) -> list[str]:
    """What is missing or of another size, a line each, without reading a part (level 1)."""
    sizes = {entry.name: entry.size for entry in run.store.entries(run.manifest.host)}
    troubles = []
    for part in (part for item in items for part in item.parts):
        name = run.name(part)
        if name not in sizes:
            troubles.append(f"{name} is missing")
        elif sizes[name] != part.size:
            troubles.append(f"{name} has {sizes[name]} bytes instead of {part.size}")
    return troubles


def part(run: Run, wanted: Part) -> Iterator[bytes]:
    """The chunks of one part; raises at its end where it is not what was stored (level 2).

    Raises DamagedError, TruncatedError or StoreError naming it.
    """
    name = run.name(wanted)
    tally = stream.Tally()
    for chunk in tally(run.store.get(name)):
        if tally.size > wanted.size:
            raise DamagedError(f"{name} is longer than {wanted.size} bytes", _AGAIN)
        yield chunk
    if tally.size < wanted.size:
        raise TruncatedError(f"{name} has {tally.size} bytes instead of {wanted.size}", _AGAIN)
    if tally.sha256 != wanted.sha256:
        raise DamagedError(f"{name} is not what was stored (SHA-256)", _AGAIN)


def sealed(run: Run, item: Item) -> Iterator[bytes]:
    """The parts of an item, one after the other in the order of the manifest."""
    for wanted in item.parts:
        yield from part(run, wanted)


def plain(run: Run, item: Item, undo: Undo, advance: Callable[[int], None]) -> Iterator[bytes]:
    """The data of an item as its source gave it (level 3); raises at its end if it is not.

    What came before is a true prefix, so nothing may be committed before the end. Each stage
    runs in a thread of its own. advance: gets the stored bytes that have passed.
    """
    chunks: Iterator[bytes] = counted(sealed(run, item), advance)
    for stage in reversed(item.stages):
        chunks = undo(stage)(stream.ahead(chunks))
    tally = stream.Tally()
    try:
        for chunk in tally(stream.ahead(chunks) if item.stages else chunks):
            if item.size is not None and tally.size > item.size:
                raise DamagedError(f"{item.called} is longer than {item.size} bytes", _AGAIN)
            yield chunk
    except StageError:
        stream.drained(sealed(run, item))  # which part it is says more than what is in it
        raise
    if item.size is not None and tally.size != item.size:
        raise TruncatedError(f"{item.called} has {tally.size} bytes instead of {item.size}", _AGAIN)
    if item.sha256 is not None and tally.sha256 != item.sha256:
        raise DamagedError(f"{item.called} is not what was backed up (SHA-256)", _AGAIN)


def counted(chunks: Iterator[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    """A stage that changes nothing: `advance` gets how many bytes have passed in all."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        advance(size)
        yield chunk


def refuse_absent(run: Run, items: Sequence[Item]) -> None:
    """Raises StoreError where a part is missing or cut: before anything is written."""
    troubles = absent(run, items)
    if troubles:
        more = f" ({len(troubles)} parts in all)" if len(troubles) > 1 else ""
        raise StoreError(f"{troubles[0]}{more}", _AGAIN)
