"""What runs leave in a store: marks of living ones, leftovers of dead ones, who removes what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage import local_store
from tools.base.errors import ManifestError
from tools.catalog import manifest, markers
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.flow import store
from tools.flow.item_record import Part
from tools.flow.item_record import StoredItem as Item

HOST = "srv-1"
DEAD, NOW = "20200101_000000", "20260101_000000"
OLD = time.time() - 3 * 86400
DAY = 86400.0


@pytest.fixture
def place(tmp_path: Path) -> store.Store:
    made: store.Store = local_store.LocalStore(tmp_path / "store")
    return made


def names(place: store.Store) -> set[str]:
    visible = [*place.entries(HOST), *place.unfinished(HOST)]
    return {entry.name.rpartition("/")[2] for entry in visible}


def age(place: store.Store) -> None:
    """All that is in the store is three days old."""
    for path in (place.folder / HOST).iterdir():  # type: ignore[attr-defined]
        os.utime(path, (OLD, OLD))


def mark(place: store.Store, run_id: str, **who: object) -> None:
    """The mark of a run whose process has ended, or of another machine."""
    markers.create_marker(place, HOST, run_id)
    name = f"{HOST}/{run_id}{markers.MARKER_SUFFIX}"
    given = json.loads(b"".join(place.get(name)))
    place.remove([name])
    store.store_object(place, name, [json.dumps({**given, "process": 2**22, **who}).encode()])


def leftovers(place: store.Store, run_id: str = DEAD, **who: object) -> None:
    mark(place, run_id, **who)
    store.store_object(place, f"{HOST}/{run_id}.FILESET.tar.000", [b"whole part"])
    place.put(f"{HOST}/{run_id}.FILESET.tar.001", [b"never published"])
    age(place)


def sweep(place: store.Store) -> list[str]:
    return markers.remove_crashed_runs(Catalog(place, HOST), NOW, DAY)


@pytest.mark.fault("files of a crashed run, older than LEFTOVERS_AGE", "removed by the next run")
def test_what_a_dead_run_left_is_removed(place: store.Store) -> None:
    leftovers(place)
    store.store_object(
        place, f"{HOST}/20190101_000000.tar.zst.age.000", [b"documented, no manifest"]
    )
    age(place)
    assert len(sweep(place)) == 3
    assert names(place) == {"20190101_000000.tar.zst.age.000"}


@pytest.mark.fault("leftovers that are young, of a living run, of another machine", "kept")
def test_what_is_young_alive_or_of_another_machine_is_kept(place: store.Store) -> None:
    leftovers(place, machine="another")
    before = names(place)
    assert sweep(place) == []
    assert names(place) == before
    for entry in [*place.entries(HOST), *place.unfinished(HOST)]:
        place.remove([entry.name])
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        leftovers(place, process=process.pid, started=markers._process_start_time(process.pid))
        assert sweep(place) == []
    finally:
        process.kill()
        process.wait()
    assert len(sweep(place)) == 3
    leftovers(place)
    assert markers.remove_crashed_runs(Catalog(place, HOST), NOW, 10 * DAY) == []


def test_a_process_that_only_has_the_number_is_not_it(place: store.Store) -> None:
    leftovers(place, process=os.getpid(), started="1")
    assert len(sweep(place)) == 3


@pytest.mark.fault("parts of a crashed run that the manifest of a later one names", "kept")
def test_what_a_manifest_names_is_kept(place: store.Store) -> None:
    """A staged run stores what the run before it left."""
    leftovers(place)
    part = Part(f"{DEAD}.FILESET.tar.000", 10, "0" * 64)
    later = Manifest(
        HOST, "20200102_000000", "", "", "staged", "ok",
        (Item("EARLIER", "x", "file", "", (), (part,)),),
    )  # fmt: skip
    markers.publish_manifest(Catalog(place, HOST), later)  # which looks that the part is there
    age(place)
    sweep(place)
    assert f"{DEAD}.FILESET.tar.000" in names(place)
    assert f"{DEAD}{markers.MARKER_SUFFIX}" not in names(place)
    assert not list(place.unfinished(HOST))


@pytest.mark.fault("a manifest that cannot be read, and leftovers", "nothing is removed")
def test_where_a_manifest_cannot_be_read_nothing_is_removed(place: store.Store) -> None:
    leftovers(place)
    store.store_object(place, f"{HOST}/{manifest.name_of('20200105_000000')}", [b"{"])
    before = names(place)
    with pytest.raises(ManifestError):
        sweep(place)
    assert names(place) == before


def test_a_run_without_leftovers_takes_its_mark_away(place: store.Store) -> None:
    markers.create_marker(place, HOST, NOW)
    assert names(place) == {NOW + markers.MARKER_SUFFIX}
    markers.remove_marker(Catalog(place, HOST), NOW)
    assert names(place) == set()
    markers.create_marker(place, HOST, NOW)
    store.store_object(place, f"{HOST}/{NOW}.FILESET.tar.000", [b"no manifest names it"])
    markers.remove_marker(Catalog(place, HOST), NOW)
    assert NOW + markers.MARKER_SUFFIX in names(place)


def test_a_manifest_that_was_moved_is_refused(place: store.Store) -> None:
    made = Manifest(HOST, DEAD, "", "", "staged", "ok", ())
    store.store_object(place, f"other/{manifest.name_of(DEAD)}", [made.to_json()])
    with pytest.raises(ManifestError, match="manifest of srv-1"):
        Catalog(place, "other").manifest(DEAD)
