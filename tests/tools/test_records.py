"""What runs leave in a store: marks of living ones, leftovers of dead ones, who removes what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from storage import local_store
from tests.copy_runs import signed_store
from tools.base.errors import ManifestError, StoreError
from tools.catalog import leftovers, liveness, manifest, markers
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.catalog.trust import Trust
from tools.flow import store
from tools.flow.item_record import Part
from tools.flow.item_record import StoredItem as Item
from tools.flow.memory_store import MemoryStore

EVERYBODY = Trust(everybody=True)
HOST = "srv-1"
DEAD, NOW = "20200101_000000", "20260101_000000"
DAY = 86400.0


@pytest.fixture
def place(tmp_path: Path) -> store.Store:
    made: store.Store = local_store.LocalStore(tmp_path / "store")
    return made


def names(place: store.Store) -> set[str]:
    visible = [*place.entries(HOST), *place.unfinished(HOST)]
    return {entry.name.rpartition("/")[2] for entry in visible}


def age(place: store.Store, seconds: float = 3 * DAY) -> None:
    """All that is in the store is three days old."""
    old = time.time() - seconds
    for path in (place.folder / HOST).iterdir():  # type: ignore[attr-defined]
        os.utime(path, (old, old))


def mark(place: store.Store, run_id: str, **who: object) -> None:
    """The mark of a run whose process has ended, or of another machine."""
    markers.create_marker(place, HOST, run_id)
    name = f"{HOST}/{run_id}{markers.MARKER_SUFFIX}"
    given = json.loads(b"".join(place.get(name)))
    place.remove([name])
    store.store_object(place, name, [json.dumps({**given, "process": 2**22, **who}).encode()])


def crashed_run(place: store.Store, run_id: str = DEAD, **who: object) -> None:
    mark(place, run_id, **who)
    store.store_object(place, f"{HOST}/{run_id}.FILESET.tar.000", [b"whole part"])
    place.put(f"{HOST}/{run_id}.FILESET.tar.001", [b"never published"])
    age(place)


def sweep(place: store.Store) -> list[str]:
    return leftovers.remove_crashed_runs(Catalog(place, HOST, EVERYBODY), NOW, DAY)


@pytest.mark.fault("files of a crashed run, older than LEFTOVERS_AGE", "removed by the next run")
def test_what_a_dead_run_left_is_removed(place: store.Store) -> None:
    crashed_run(place)
    store.store_object(
        place, f"{HOST}/20190101_000000.tar.zst.age.000", [b"documented, no manifest"]
    )
    age(place)
    assert len(sweep(place)) == 3
    assert names(place) == {"20190101_000000.tar.zst.age.000"}


def test_the_marker_of_a_complete_run_is_not_read(tmp_path: Path) -> None:
    """Where nothing may be removed, one of every run stays."""
    read: list[str] = []
    place = MemoryStore(lambda call, name: read.append(name) if call == "get" else None)
    runs = signed_store.Runs(tmp_path)
    runs.add(place, signed_store.FIRST)
    marker = f"{signed_store.HOST}/{signed_store.FIRST}{markers.MARKER_SUFFIX}"
    store.store_object(place, marker, [b"{}"])
    catalog = runs.catalog(place)
    assert leftovers.remove_crashed_runs(catalog, "", 0.0) == [marker]
    assert marker not in read


def test_where_the_listing_may_lack_a_manifest_only_temporary_files_go(
    place: store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed_run(place)
    monkeypatch.setattr(local_store.LocalStore, "consistent", False)
    (removed,) = sweep(place)
    assert "/.20" in removed
    assert len(names(place)) == 2


@pytest.mark.fault("leftovers that are young, or of a living run", "kept")
def test_what_is_young_or_alive_is_kept(place: store.Store) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        crashed_run(place, process=process.pid, started=liveness.start_time(process.pid))
        assert sweep(place) == []
    finally:
        process.kill()
        process.wait()
    assert len(sweep(place)) == 3
    crashed_run(place)
    assert leftovers.remove_crashed_runs(Catalog(place, HOST, EVERYBODY), NOW, 10 * DAY) == []


@pytest.mark.fault(
    "files of a run on another machine or in another container", "kept for seven days"
)
@pytest.mark.parametrize(
    "who", [("machine", "another"), ("node", "another"), ("pids", "pid:[1]"), ("process", None)]
)
def test_a_process_that_cannot_be_seen_from_here_counts_by_age(
    place: store.Store, who: tuple[str, object]
) -> None:
    """Issue 13 A2: a process id means nothing elsewhere; nor does a marker without one."""
    crashed_run(place, DEAD, **dict([who]))
    before = names(place)
    assert sweep(place) == []
    assert names(place) == before
    age(place, liveness.FOREIGN_AGE + DAY)
    assert len(sweep(place)) == 3
    assert names(place) == set()


def test_an_earlier_boot_ended_and_one_of_a_copy_of_this_machine_may_not_have(
    place: store.Store,
) -> None:
    """Issue 13 A2: a marker that is younger than this boot, and of another one."""
    crashed_run(place, boot="another")
    age(place, 0.0)
    assert leftovers.remove_crashed_runs(Catalog(place, HOST, EVERYBODY), NOW, 0.0) == []
    age(place, 365 * DAY)
    assert len(sweep(place)) == 3


def test_a_process_that_only_has_the_number_is_not_it(place: store.Store) -> None:
    crashed_run(place, process=os.getpid(), started="1")
    assert len(sweep(place)) == 3


@pytest.mark.fault("parts of a crashed run that the manifest of a later one names", "kept")
def test_what_a_manifest_names_is_kept(place: store.Store) -> None:
    """A staged run stores what the run before it left."""
    crashed_run(place)
    part = Part(f"{DEAD}.FILESET.tar.000", 10, "0" * 64)
    later = Manifest(
        HOST, "20200102_000000", "", "", "staged", "ok",
        (Item("EARLIER", "x", "file", "", (), (part,)),),
    )  # fmt: skip
    markers.publish_manifest(
        Catalog(place, HOST, EVERYBODY), later, None
    )  # which looks that the part is there
    age(place)
    sweep(place)
    assert f"{DEAD}.FILESET.tar.000" in names(place)
    assert f"{DEAD}{markers.MARKER_SUFFIX}" not in names(place)
    assert not list(place.unfinished(HOST))


@pytest.mark.fault("a manifest that cannot be read, and leftovers", "nothing is removed")
def test_where_a_manifest_cannot_be_read_nothing_is_removed(place: store.Store) -> None:
    crashed_run(place)
    store.store_object(place, f"{HOST}/{manifest.name_of('20200105_000000')}", [b"{"])
    before = names(place)
    with pytest.raises(ManifestError):
        sweep(place)
    assert names(place) == before


UNMARKED = "20200102_000000"


@pytest.mark.fault("parts of a run without marker and manifest", "removed once they are old")
def test_parts_without_marker_and_manifest_are_removed_by_age(place: store.Store) -> None:
    """Issue 13 A3: never younger ones, never what has a name that no run gives."""
    kept = {
        f"{UNMARKED}.tar.zst.age.000",  # of the documented old system
        f"{UNMARKED}.NOTES.txt",
        f"{UNMARKED}.OTHER.tar.000",
        "20260101_000000.FILESET.tar.000",  # of the run in progress
    }
    garbage = {f"{UNMARKED}.FILESET.a%2Eb.tar.zst.age.1000", f"{UNMARKED}.FILESET.tar.000"}
    for name in (*kept, *garbage, f"{UNMARKED}.RECOVERY.txt"):
        store.store_object(place, f"{HOST}/{name}", [b"x"])
    age(place)
    catalog = Catalog(place, HOST, EVERYBODY)
    assert leftovers.remove_crashed_runs(catalog, NOW, 5 * DAY, ["FILESET"]) == []
    os.utime(place.folder / HOST / f"{UNMARKED}.NOTES.txt")  # type: ignore[attr-defined]
    assert leftovers.remove_crashed_runs(catalog, NOW, DAY, ["FILESET"]) == []
    age(place)
    assert len(leftovers.remove_crashed_runs(catalog, NOW, DAY, ["FILESET"])) == 3
    assert names(place) == kept


def test_sections_of_manifests_are_known(place: store.Store) -> None:
    """Issue 13 A3: a section that the config has no more."""
    part = Part(f"{NOW}.GONE.tar.000", 1, "0" * 64)
    item = Item("GONE", "", "file", "", (), (part,))
    for name in (part.name, f"{UNMARKED}.GONE.tar.000"):
        store.store_object(place, f"{HOST}/{name}", [b"x"])
    complete = Manifest(HOST, NOW, "", "", "staged", "ok", (item,))
    markers.publish_manifest(Catalog(place, HOST, EVERYBODY), complete, None)
    age(place)
    assert (
        len(leftovers.remove_crashed_runs(Catalog(place, HOST, EVERYBODY), "20270101_000000", DAY))
        == 1
    )
    assert part.name in names(place)


# --- a store that reports an error


class Failing(local_store.LocalStore):
    """A local store whose publish fails, before or after the object has its name."""

    after = True

    def publish(self, names: Sequence[str]) -> None:
        if self.after:
            super().publish(names)
        raise OSError(5, "Input/output error")


@pytest.mark.fault("an error after the manifest got its name", "exit 3, the run is there")
def test_a_manifest_that_is_there_counts_as_stored(tmp_path: Path) -> None:
    """Issue 13 A3: the report says what --list says."""
    place = Failing(tmp_path)
    catalog = Catalog(place, HOST, EVERYBODY)
    empty = Manifest(HOST, NOW, "", "", "streamed", "ok", ())
    sheet = f"{HOST}/{NOW}{manifest.RECOVERY}"
    with pytest.raises(OSError, match="Input/output error"):
        markers.publish_manifest(catalog, empty, None)  # fails at the sheet
    place.after = False
    with pytest.raises(OSError, match="Input/output error"):
        markers._publish(place, f"{HOST}/{manifest.name_of(NOW)}", b"text")
    assert names(place) == {Path(sheet).name}
    place.after = True
    assert "Input/output error" in markers._publish(
        place, f"{HOST}/{manifest.name_of(NOW)}", empty.to_json()
    )
    assert Catalog(place, HOST, EVERYBODY).manifest(NOW) == empty


def test_a_marker_that_could_not_be_confirmed_is_taken_away(tmp_path: Path) -> None:
    """Issue 13 A3: the store takes no part, and is not left marked."""
    place = Failing(tmp_path)
    with pytest.raises(OSError, match="Input/output error"):
        markers.create_marker(place, HOST, NOW)
    assert names(place) == set()


@pytest.mark.fault("a stored part vanishes or is cut before the manifest", "exit 1, no manifest")
@pytest.mark.parametrize("size", [None, 3])
def test_parts_are_looked_up_before_the_manifest(place: store.Store, size: int | None) -> None:
    """Issue 13 A2: it does not matter which program removed them."""
    part = Part(f"{NOW}.FILESET.tar.000", 4, "0" * 64)
    if size is not None:
        store.store_object(place, f"{HOST}/{part.name}", [b"x" * size])
    stored = Manifest(
        HOST, NOW, "", "", "streamed", "ok", (Item("FILESET", "", "file", "", (), (part,)),)
    )
    with pytest.raises(StoreError, match=r"FILESET\.tar\.000: (no such part|3 bytes, expected 4)"):
        markers.publish_manifest(Catalog(place, HOST, EVERYBODY), stored, None)
    assert not any(name.endswith(".json") for name in names(place))


def test_a_run_without_leftovers_takes_its_mark_away(place: store.Store) -> None:
    markers.create_marker(place, HOST, NOW)
    assert names(place) == {NOW + markers.MARKER_SUFFIX}
    leftovers.remove_marker(Catalog(place, HOST, EVERYBODY), NOW)
    assert names(place) == set()
    markers.create_marker(place, HOST, NOW)
    store.store_object(place, f"{HOST}/{NOW}.FILESET.tar.000", [b"no manifest names it"])
    leftovers.remove_marker(Catalog(place, HOST, EVERYBODY), NOW)
    assert NOW + markers.MARKER_SUFFIX in names(place)


def test_a_manifest_that_was_moved_is_refused(place: store.Store) -> None:
    made = Manifest(HOST, DEAD, "", "", "staged", "ok", ())
    store.store_object(place, f"other/{manifest.name_of(DEAD)}", [made.to_json()])
    with pytest.raises(ManifestError, match="manifest of srv-1"):
        Catalog(place, "other", EVERYBODY).manifest(DEAD)
