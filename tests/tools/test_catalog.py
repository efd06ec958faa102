"""The catalog: each store is listed once and each manifest read once, whatever is asked of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import local_store
from tools.base.errors import ManifestError
from tools.catalog import leftovers, manifest, markers, readback, selection
from tools.catalog.catalog import Catalog
from tools.catalog.history import History, Past
from tools.catalog.manifest import Manifest
from tools.catalog.trust import Trust
from tools.flow import store
from tools.flow.item_record import Part
from tools.flow.item_record import StoredItem as Item
from tools.flow.store import StoreEntry

EVERYBODY = Trust(everybody=True)
HOST = "srv-1"
RUNS = [f"202001{day:02d}_030000" for day in range(1, 31)]
DIGEST = "0" * 64


class CountingStore(local_store.LocalStore):
    """A local store that counts how often it is listed and how often each object is read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.listings = 0
        self.reads: Counter[str] = Counter()

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        self.reads[name] += 1
        return super().get(name, start, end)

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        self.listings += 1
        return super().entries(folder)


def run(run_id: str, **fields: object) -> Manifest:
    part = Part(f"{run_id}.FILESET.tar.000", 4, DIGEST)
    item = Item("FILESET", "", "fileset", ".tar", (), (part,), 4, DIGEST)
    complete = Manifest(HOST, run_id, "", "", "streamed", "ok", (item,), config_id="a")
    return Manifest(**{**vars(complete), **fields})


@pytest.fixture
def local(tmp_path: Path) -> CountingStore:
    local = CountingStore(tmp_path)
    for run_id in RUNS:
        store.store_object(local, f"{HOST}/{run_id}.FILESET.tar.000", [b"data"])
        store.store_object(local, f"{HOST}/{manifest.name_of(run_id)}", [run(run_id).to_json()])
    local.listings = 0
    local.reads.clear()
    return local


def test_look_ups_of_absent_items_read_each_manifest_once(local: CountingStore) -> None:
    """Issue 12, 4: five of them read every manifest five times."""
    history = History(Catalog(local, HOST, EVERYBODY))
    for number in range(5):
        assert history.newest_item("MYSQL", f"3306/absent{number}") is None
        assert history.section_size(f"MYSQL{number}") is None
    assert local.listings == 1
    assert set(local.reads.values()) == {1}
    assert len(local.reads) == len(RUNS)


def test_the_newest_run_costs_one_read(local: CountingStore) -> None:
    history = History(Catalog(local, HOST, EVERYBODY))
    newest = history.newest_complete("a")
    assert newest is not None
    assert newest.run_id == RUNS[-1]
    assert Past([history]).section_size("FILESET") == 4
    assert sum(local.reads.values()) == 1


def test_runs_that_are_not_known_are_read_once(local: CountingStore) -> None:
    """The database of figures asks for them: those of a bad manifest are named as well."""
    bad = f"{HOST}/{manifest.name_of(RUNS[3])}"
    (local.folder / bad).write_bytes(b"{")
    history = History(Catalog(local, HOST, EVERYBODY))
    unread = dict(history.unread(set(RUNS[5:])))
    assert sorted(unread) == RUNS[:5]
    assert [run_id for run_id, one in unread.items() if one is None] == [RUNS[3]]
    assert len(local.reads) == 5


def test_everything_of_a_run_shares_one_catalog(local: CountingStore) -> None:
    """History, selection, the check of all parts, clean-up and the marker of the run itself."""
    catalog = Catalog(local, HOST, EVERYBODY)
    History(catalog).newest_complete("b")
    selected = selection.select_run(catalog, selection.Preference(), "latest")
    for summary in catalog.run_ids:
        stored_run = readback.StoredRun(catalog, catalog.manifest(summary))
        assert readback.missing_parts(stored_run, stored_run.manifest.items) == []
    assert selected.newest.run_id == RUNS[-1]
    assert local.listings == 1
    run_id = "20200201_030000"
    markers.create_marker(local, HOST, run_id)
    markers.publish_manifest(catalog, run(run_id, items=()), None)
    leftovers.remove_crashed_runs(catalog, run_id, 0.0)
    leftovers.remove_marker(catalog, run_id)
    manifests = {name: number for name, number in local.reads.items() if "manifest" in name}
    assert set(manifests.values()) == {1}
    assert not any(path.name.endswith(markers.MARKER_SUFFIX) for path in local.folder.rglob("*"))


def test_an_unreadable_manifest_is_read_once_too(local: CountingStore) -> None:
    name = f"{HOST}/{manifest.name_of(RUNS[-1])}"
    local.remove([name])
    store.store_object(local, name, [b"{"])
    local.reads.clear()
    catalog = Catalog(local, HOST, EVERYBODY)
    for _ in range(2):
        with pytest.raises(ManifestError):
            catalog.manifest(RUNS[-1])
        newest = next(History(catalog).manifests(), None)
        assert newest is not None
        assert newest.run_id == RUNS[-2]
    assert local.reads[name] == 1
