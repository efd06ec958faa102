"""Items into several stores by their form, and back; a second form is a second row."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest

from tools.base.errors import DamagedError, SourceError, StoreError, TruncatedError
from tools.catalog import manifest, markers, readback, recovery_sheet
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.catalog.trust import Trust
from tools.flow import form, forms, pipeline, stream
from tools.flow.block_store import BlockStore
from tools.flow.fan_out import StoreProgress
from tools.flow.form import Form, InverseStages, Objects, Outlet, Plaintext, ReadObject
from tools.flow.item import Item, Stage
from tools.flow.item_record import Part, StoredItem
from tools.flow.memory_store import MemoryBlocks, MemoryStore
from tools.flow.retries import Retries
from tools.flow.retrying_store import Retrying
from tools.flow.store import Store, StoredObject

EVERYBODY = Trust(everybody=True)
NO_WAIT = Retries(0, say=lambda _line: None)
CONTENT = bytes(range(256)) * 20
FOLDER = "srv"


def flipped(chunks: stream.Chunks) -> Iterator[bytes]:
    """A stage that is its own inverse."""
    for chunk in chunks:
        yield bytes(byte ^ 255 for byte in chunk)


FLIP = Stage("flip", ".flip", flipped, size=1000)
UNDO: InverseStages = {"flip": flipped}.__getitem__


def stored(
    stores: Sequence[Store],
    read: Callable[[], Iterator[bytes]] = lambda: iter([CONTENT[:700], CONTENT[700:]]),
    name: str = "parts",
) -> tuple[pipeline.FlowResult, list[StoreProgress]]:
    targets = [StoreProgress(f"STORE{n}", one) for n, one in enumerate(stores)]
    where = pipeline.ItemContext(f"{FOLDER}/20260101_000000", lambda _size: None, form=name)
    item = Item("", "file", lambda _head: ".bin", read)
    return pipeline.store_item(item, "SECTION", [FLIP], targets, where), targets


def names(store: Store) -> list[str]:
    return [entry.name for entry in store.entries(FOLDER)]


def back(item: StoredItem, store: Store) -> bytes:
    kind = forms.of(item.form)
    kind.check(item)
    return b"".join(kind.read(item, lambda part: form.read_object(store, FOLDER, part), UNDO))


def test_an_item_is_cut_into_parts_and_comes_back() -> None:
    stores = [MemoryStore(), MemoryStore()]
    done, targets = stored(stores)
    expected = [f"20260101_000000.SECTION.bin.flip.{n:03}" for n in range(6)]
    assert [part.name for part in done.item.parts] == expected
    for store in stores:
        assert names(store) == [f"{FOLDER}/{name}" for name in expected]
        assert back(done.item, store) == CONTENT
    parts = forms.of("parts")
    assert list(parts.needed(done.item, no_object)) == list(done.item.parts)
    assert parts.size(done.item) == len(CONTENT)
    assert done.store_sections == ("STORE0", "STORE1")
    assert [(target.parts, target.size) for target in targets] == [(6, len(CONTENT))] * 2


def no_object(part: Part) -> Iterator[bytes]:
    raise AssertionError(part)


def test_the_smallest_store_bounds_the_parts() -> None:
    blocks = BlockStore(MemoryBlocks(100, max_blocks=4), NO_WAIT)
    done, _ = stored([MemoryStore(), blocks])
    assert {part.size for part in done.item.parts[:-1]} == {400}
    assert back(done.item, blocks) == CONTENT


def test_one_store_that_fails_does_not_stop_the_other() -> None:
    def fault(call: str, name: str) -> None:
        if call == "put end" and name.endswith(".003"):
            raise OSError(28, "No space left on device")

    bad, good = MemoryStore(fault), MemoryStore()
    done, targets = stored([bad, good])
    assert done.store_sections == ("STORE1",)
    assert (names(bad), list(bad.unfinished(FOLDER))) == ([], [])
    assert back(done.item, good) == CONTENT
    assert targets[0].failed_items == 1


@pytest.mark.fault("a store confirms another checksum", "it does not get the item, others do")
def test_a_store_that_confirms_other_bytes_does_not_get_the_item() -> None:
    class Lying(MemoryStore):
        def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
            return dataclasses.replace(super().put(name, chunks), sha256="0" * 64)

    lying, good = Lying(), MemoryStore()
    done, targets = stored([lying, good])
    assert done.store_sections == ("STORE1",)
    assert names(lying) == []
    assert targets[0].errors == ["memory: confirmed other bytes than were sent"]


@pytest.mark.fault("a store fails for a moment in a streamed run", "the part is sent again")
@pytest.mark.parametrize("number", [1, 5])
def test_a_part_is_sent_again_while_the_stream_goes_on(number: int) -> None:
    """Issue 12, 5: retries work in streamed runs; the other store notices nothing."""
    failures = [OSError(5, "Input/output error")] * 4

    def fault(call: str, name: str) -> None:
        if call == "put end" and name.endswith(f".00{number}") and failures:
            raise failures.pop()

    bad, good = MemoryStore(fault), MemoryStore()
    done, targets = stored([Retrying(bad, NO_WAIT), good])
    assert done.store_sections == ("STORE0", "STORE1")
    assert not failures
    assert back(done.item, bad) == back(done.item, good) == CONTENT
    assert targets[0].errors == []


def test_a_source_that_fails_does_not_wait_for_a_store_that_is_retried() -> None:
    def fault(call: str, _name: str) -> None:
        if call == "put end":
            raise OSError(5, "Input/output error")

    waiting = threading.Event()
    woken: list[bool] = []

    def wait(abandoned: threading.Event, _seconds: float) -> None:
        waiting.set()
        woken.append(abandoned.wait(600))

    def read() -> Iterator[bytes]:
        yield CONTENT[:1500]  # one part, and the begin of another
        assert waiting.wait(60)
        raise SourceError("the dump failed")

    bad, good = MemoryStore(fault), MemoryStore()
    with pytest.raises(SourceError, match="the dump failed"):
        stored([Retrying(bad, Retries(1, lambda _line: None, wait)), good], read)
    assert woken == [True]
    assert (names(good), list(good.unfinished(FOLDER))) == ([], [])


def test_no_store_is_left() -> None:
    def fault(call: str, _name: str) -> None:
        if call == "put":
            raise OSError(13, "Permission denied")

    with pytest.raises(StoreError, match="not stored: STORE0 failed"):
        stored([MemoryStore(fault)])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda content: b"x" + content[1:], DamagedError),
        (lambda content: content[:-1], TruncatedError),
        (lambda content: content + b"x", DamagedError),
    ],
)
def test_an_object_that_is_not_what_was_stored(
    change: Callable[[bytes], bytes], error: type[Exception]
) -> None:
    store = MemoryStore()
    done, _ = stored([store])
    name = f"{FOLDER}/{done.item.parts[2].name}"
    content = store.objects.read(name)
    store.remove([name])
    store.objects.create(name, change(content))
    with pytest.raises(error, match=r"flip\.002"):
        back(done.item, store)


def test_an_item_without_parts_is_no_item() -> None:
    done, _ = stored([MemoryStore()])
    with pytest.raises(ValueError, match="item without parts"):
        forms.of("parts").check(dataclasses.replace(done.item, parts=()))
    with pytest.raises(ValueError, match="unknown form 'chunks'"):
        forms.of("chunks")


class Listed:
    """A second form: pieces of 100 bytes, and a list of them that the manifest names."""

    name = "listed"

    def store(self, data: Plaintext, outlet: Outlet) -> Objects:
        pieces = tuple(
            outlet.put(f"{data.stem}.{number:05}.piece", flipped(piece))
            for number, piece in enumerate(stream.split(data.chunks, 100))
        )
        lines = [f"{one.name.rpartition('/')[2]} {one.size} {one.sha256}\n" for one in pieces]
        list_ = outlet.put(f"{data.stem}.list", ["".join(lines).encode()])
        part = Part(list_.name.rpartition("/")[2], list_.size, list_.sha256)
        return Objects((*pieces, list_), {"list": (part,)})

    def check(self, item: StoredItem) -> None:
        if len(item.references.get("list", ())) != 1:
            raise ValueError("list")

    def needed(self, item: StoredItem, read_object: ReadObject) -> list[Part]:
        (list_,) = item.references["list"]
        lines = b"".join(read_object(list_)).decode().splitlines()
        return [*(Part(n, int(size), sha) for n, size, sha in map(str.split, lines)), list_]

    def size(self, item: StoredItem) -> int:
        return item.size or 0

    def read(
        self, item: StoredItem, read_object: ReadObject, inverse: InverseStages
    ) -> Iterator[bytes]:
        pieces = self.needed(item, read_object)[:-1]
        return inverse("flip")(itertools.chain.from_iterable(map(read_object, pieces)))

    def commands(self, item: StoredItem, inverse: Sequence[str]) -> Sequence[str]:
        (list_,) = item.references["list"]
        return [f"xargs -a {list_.name} cat", *inverse]


_: type[Form] = Listed


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(forms.FORMS, "listed", Listed())
    return "listed"


@pytest.mark.parametrize(
    ("name", "stage", "expected"),
    [
        ("5432/shop", "age", ("createdb -T template0 -- shop && pg_restore", "--EXPORT")),
        ("5432/postgres", "age", ("Load into a server: pg_restore", "# age identity")),
        ("5432/shop", "openssl", ("# the old password file\n",)),
    ],
)
def test_the_sheet_can_be_followed(name: str, stage: str, expected: Sequence[str]) -> None:
    """Every server has a database postgres, and age reads no password file."""
    item = StoredItem("P", name, "postgres", ".pgdump", (stage,), (Part("p.000", 1, ""),))
    times = ("2026-01-02T00:00:00Z", "2026-01-02T00:00:01Z")
    sheet = recovery_sheet.sheet(Manifest(FOLDER, "20260102_000000", *times, "s", "ok", (item,)))
    assert all(text in sheet for text in expected)
    assert ("--EXPORT" in sheet) is (stage == "age")


def test_a_second_form_is_a_second_row(listed: str) -> None:
    stores = [MemoryStore(), MemoryStore()]
    done, _ = stored(stores, name=listed)
    assert done.item.form == "listed"
    assert len(done.item.parts) == 53
    for store in stores:
        assert back(done.item, store) == CONTENT


def test_a_run_may_need_objects_of_an_earlier_run(listed: str) -> None:
    """As chunks will: its manifest names a list, and the list names the rest."""
    store = MemoryStore()
    earlier, _ = stored([store], name=listed)
    item = dataclasses.replace(earlier.item, parts=())
    times = ("2026-01-02T00:00:00Z", "2026-01-02T00:00:01Z")
    run = Manifest(FOLDER, "20260102_000000", *times, "streamed", "ok", (item,))
    markers.publish_manifest(Catalog(store, FOLDER, EVERYBODY), run, None)
    catalog = Catalog(store, FOLDER, EVERYBODY)
    sheet = b"".join(store.get(f"{FOLDER}/{run.run_id}{manifest.RECOVERY}")).decode()
    assert "xargs -a 20260101_000000.SECTION.list cat" in sheet
    stored_run = readback.StoredRun(catalog, catalog.manifest(run.run_id))
    (item,) = stored_run.manifest.items
    assert b"".join(readback.read_item(stored_run, item, UNDO, lambda _size: None)) == CONTENT
    assert sum(len(chunk) for chunk in readback.read_parts(stored_run, item)) > len(CONTENT)
    assert readback.missing_parts(stored_run, [item]) == []
    store.remove([f"{FOLDER}/{earlier.item.parts[7].name}"])
    stored_run = dataclasses.replace(stored_run, catalog=Catalog(store, FOLDER, EVERYBODY))
    (line,) = readback.missing_parts(stored_run, [item])
    assert line.endswith("00007.piece: no such part")
    with pytest.raises(StoreError, match=r"00007\.piece: no such part"):
        markers.publish_manifest(Catalog(store, FOLDER, EVERYBODY), run, None)
