"""Notes of what clean-up has removed: believed only where a newer run replaces the item."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tools.base.errors import StoreError
from tools.catalog import cleaned, leftovers, manifest, manifest_items, readback
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.catalog.runs import list_runs
from tools.catalog.trust import Trust
from tools.flow import store
from tools.flow.item_record import Part
from tools.flow.item_record import StoredItem as Item
from tools.flow.memory_store import MemoryStore

HOST = "srv-1"
OLD, NEW, NEWEST = "20260101_030000", "20260102_030000", "20260103_030000"
DIGEST = hashlib.sha256(b"data").hexdigest()


def item(run_id: str, section: str) -> Item:
    part = Part(f"{run_id}.{section}.tar.000", 4, DIGEST)
    return Item(section, "", "fileset", ".tar", (), (part,), 4, DIGEST)


def stored(run_id: str, *sections: str, **fields: object) -> Manifest:
    items = tuple(item(run_id, section) for section in sections)
    complete = Manifest(HOST, run_id, "", "", "streamed", "ok", items, config_id="a")
    return Manifest(**{**vars(complete), **fields})


def put(memory: MemoryStore, run: Manifest, *, without: str = "") -> None:
    for one in run.items:
        if one.section != without:
            store.store_object(memory, f"{HOST}/{one.parts[0].name}", [b"data"])
    store.store_object(memory, f"{HOST}/{manifest.name_of(run.run_id)}", [run.to_json()])


def catalog(memory: MemoryStore, *, trusted: bool = True) -> Catalog:
    return Catalog(memory, HOST, Trust(everybody=trusted))


def note(memory: MemoryStore, run_id: str, *labels: str) -> str:
    return cleaned.note(memory, HOST, run_id, catalog(memory).notes.get(run_id, ()), labels)


def test_an_item_that_was_cleaned_away_is_not_missing() -> None:
    memory = MemoryStore()
    put(memory, stored(OLD, "A", "B"), without="B")
    put(memory, stored(NEW, "A", "B"))
    assert note(memory, OLD, "B") == f"{OLD}.cleaned-1.json"
    assert note(memory, OLD, "C") == f"{OLD}.cleaned-2.json"
    claimed = catalog(memory).claim(OLD).manifest
    assert [one.label for one in claimed.items] == ["A"]
    assert [one.label for one in claimed.cleaned] == ["B"]
    run = readback.StoredRun(catalog(memory), claimed)
    assert readback.missing_parts(run, claimed.items) == []
    assert b"cleaned" not in claimed.to_json()
    first = next(iter(list_runs(catalog(memory))))
    assert first.result == "ok, 1 item cleaned away"
    assert catalog(memory, trusted=False).claim(OLD).manifest.cleaned  # older than signing


@pytest.mark.parametrize(
    ("newer", "believed"),
    [
        ((), False),
        ((stored(NEW, "A", "B", config_id="another"),), False),
        ((stored(NEW, "A", status="failed"),), False),  # it should have B, and has not
        ((stored(NEW, "A", missing=("B",)),), False),
        ((stored("20990101_030000", "A", "B"),), False),  # the clock was wrong
        ((stored(NEW, "A"),), True),  # B is no longer in the config
        ((stored(NEW, "A", "B"), stored(NEWEST, "A", status="failed")), True),
    ],
)
def test_a_note_is_believed_where_a_newer_run_replaces_the_item(
    newer: tuple[Manifest, ...], believed: bool
) -> None:
    memory = MemoryStore()
    put(memory, stored(OLD, "A", "B"), without="B")
    for run in newer:
        put(memory, run)
    note(memory, OLD, "B")
    claimed = catalog(memory).claim(OLD).manifest
    assert [one.label for one in claimed.cleaned] == ["B"] * believed
    missing = readback.missing_parts(readback.StoredRun(catalog(memory), claimed), claimed.items)
    assert bool(missing) is not believed


def test_a_note_hides_nothing_that_is_there() -> None:
    memory = MemoryStore()
    put(memory, stored(OLD, "A", "B"))
    put(memory, stored(NEW, "A", "B"))
    note(memory, OLD, "A", "B")
    assert not catalog(memory).claim(OLD).manifest.cleaned


def test_a_run_that_lacks_parts_itself_replaces_nothing() -> None:
    memory = MemoryStore()
    put(memory, stored(OLD, "A", "B"), without="B")
    put(memory, stored(NEW, "A", "B"), without="B")
    note(memory, OLD, "B")
    note(memory, NEW, "B")
    assert not catalog(memory).claim(OLD).manifest.cleaned
    assert not catalog(memory).claim(NEW).manifest.cleaned


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 2, "items": ["B"]}'])
def test_an_invalid_note_says_nothing(content: bytes) -> None:
    memory = MemoryStore()
    put(memory, stored(OLD, "A", "B"), without="B")
    put(memory, stored(NEW, "A", "B"))
    store.store_object(memory, f"{HOST}/{cleaned.name_of(OLD, 1)}", [content])
    assert not catalog(memory).claim(OLD).manifest.cleaned


def test_a_pin_is_listed_and_removed() -> None:
    memory = MemoryStore()
    put(memory, stored(OLD, "A"))
    cleaned.pin(memory, HOST, OLD, "for the audit")
    assert catalog(memory).pinned == {OLD}
    assert [one.result for one in list_runs(catalog(memory))] == ["ok, pinned"]
    cleaned.unpin(memory, HOST, OLD)
    assert catalog(memory).pinned == frozenset()


def test_a_pin_that_stays_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryStore()
    cleaned.pin(memory, HOST, OLD, "")
    monkeypatch.setattr(memory, "remove", lambda _names: None)
    with pytest.raises(StoreError, match="could not be removed"):
        cleaned.unpin(memory, HOST, OLD)


def test_notes_and_pins_without_a_manifest_are_garbage_and_others_stay(tmp_path: Path) -> None:
    memory = MemoryStore()
    put(memory, stored(NEW, "A"))
    for run_id in (OLD, NEW):
        cleaned.pin(memory, HOST, run_id, "")
        note(memory, run_id, "A")
    removed = leftovers.remove_crashed_runs(catalog(memory), NEWEST, 0, ["A"])
    assert sorted(removed) == [f"{HOST}/{OLD}.PINNED", f"{HOST}/{OLD}.cleaned-1.json"]


@pytest.mark.parametrize("name", [f"{OLD}.PINNED", f"{OLD}.cleaned-1.json"])
def test_no_part_is_called_like_a_note_or_a_pin(name: str) -> None:
    entries = json.loads(stored(NEW, "A", mode="staged").to_json())["items"]
    entries[0]["parts"][0]["name"] = name
    assert "not the name of a part" in manifest_items.read(entries, NEW, "staged")[0].problem
