"""One item: from its source through its stages and its form into every store at once.

Memory is bounded: bounded queues join the threads of source, stages and stores. Nothing is
visible before the whole item has ended well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tools.base.errors import SourceError, StoreError
from tools.flow import forms, item_record, stream
from tools.flow.fan_out import FanOut, StoreProgress
from tools.flow.form import Layout, Plaintext, numbered
from tools.flow.item import Item, ItemReport, Stage
from tools.flow.item_record import StoredItem
from tools.flow.store import Receiver, StoredObject
from tools.flow.stream import Chunks

PART = 1024 << 20  # bytes of a part where no stage says


@dataclass(frozen=True)
class FlowResult:
    """An item that is stored, which stores hold it, and what its source said of it."""

    item: StoredItem
    store_sections: tuple[str, ...]
    report: ItemReport

    @property
    def failures(self) -> tuple[SourceError, ...]:
        """Return why the section of the item has failed although the item is stored."""
        return tuple(map(SourceError, self.report.failures))


@dataclass(frozen=True)
class ItemContext:
    """What the run knows of an item.

    object_prefix:  what its names begin with, `<HOSTNAME>/<run id>`
    on_bytes:       gets the number of each chunk's plain bytes; what it raises ends the item
    form:           how it is stored (see forms)
    layout:         how its parts are called and cut
    before_publish: called when every store has confirmed it; what it raises ends the item
    """

    object_prefix: str
    on_bytes: Callable[[int], None]
    form: str = "parts"
    layout: Layout = numbered
    before_publish: Callable[[StoredItem], None] = lambda _stored: None


def store_item(
    item: Item,
    section: str,
    stages: Sequence[Stage],
    targets: Sequence[StoreProgress],
    where: ItemContext,
) -> FlowResult:
    """Store one item in every store.

    Raises BackupError or OSError where the source or a stage fails, StoreError where no store
    took it: nothing is visible then.
    """
    began = time.monotonic()
    form = forms.of(where.form)
    with contextlib.ExitStack() as stack:
        chunks = stack.enter_context(stream.closed(item.read()))
        head = next(chunks, b"")
        applied = tuple(stage for stage in stages if not stage.skips(head))
        plain = _plain_tally(applied)
        names = [
            where.object_prefix,
            *map(item_record.quoted, filter(None, (section, item.name))),
        ]
        chunks = itertools.chain([head] if head else [], chunks)
        data = Plaintext(
            _report_progress(
                chunks if _is_measured(item.origin) else plain(chunks), where.on_bytes
            ),
            stem=".".join(names),
            ending=item.suffix_for(head),
            stages=applied,
            part_size=next((stage.size for stage in reversed(stages) if stage.size), PART),
            layout=where.layout,
        )
        fan_out = stack.enter_context(FanOut(targets))
        objects = form.store(data, fan_out)
        seconds = time.monotonic() - began
        fan_out.confirm()
        report = item.report()
        before = item.origin or described(item, section, data.ending, report, seconds)
        stored = dataclasses.replace(
            after_stages(before, applied, plain),
            parts=tuple(_manifest_part(stored) for stored in objects.parts),
            form=form.name,
            references=objects.references,
        )
        where.on_bytes(0)  # an item that was given up must not appear
        where.before_publish(stored)
        holders = fan_out.publish()
    return FlowResult(stored, holders, report)


def store_item_in(
    item: Item, section: str, stages: Sequence[Stage], store: Receiver, where: ItemContext
) -> FlowResult:
    """Store one item in one store. Raises what this store failed with."""
    try:
        return store_item(item, section, stages, [StoreProgress(section, store)], where)
    except StoreError as error:
        raise (error.__cause__ or error) from None


def described(
    item: Item, section: str, ending: str, report: ItemReport, seconds: float
) -> StoredItem:
    """Return what a source has given, before any stage. seconds: how long its stream was read"""
    return StoredItem(
        section=section,
        name=item.name,
        kind=item.kind,
        ending=ending,
        stages=(),
        parts=(),
        facts=report.facts.to_json(),
        warnings=report.warnings,
        notes=report.notes,
        base=report.base,
        seconds=round(seconds, 3),
    )


def _plain_tally(stages: Sequence[Stage]) -> stream.Count:
    """Return what measures the plaintext: it is hashed unless the first stage does so itself.

    A SHA-256 takes a tenth of the time of zstd, and a third on a processor without instructions
    for it.
    """
    return stream.Count() if stages and stages[0].checksum else stream.Tally()


def _is_measured(item: StoredItem | None) -> bool:
    """Return whether the plain size and SHA-256 are known, or can no longer be taken."""
    return item is not None and (item.sha256 is not None or bool(item.stages))


def after_stages(item: StoredItem, stages: Iterable[Stage], plain: stream.Count) -> StoredItem:
    """Return an item after further stages. plain: what went into them."""
    if not _is_measured(item):
        item = dataclasses.replace(item, size=plain.size, sha256=plain.sha256)
    names = (stage.name for stage in stages if stage.ending or stage.name != "none")
    return dataclasses.replace(item, stages=(*item.stages, *names))


def _report_progress(chunks: Chunks, advance: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        advance(len(chunk))
        yield chunk


def _manifest_part(part: StoredObject) -> item_record.Part:
    """Return an object as the manifest in the same folder names it."""
    return item_record.Part(part.name.rpartition("/")[2], part.size, part.sha256)
