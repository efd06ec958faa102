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
def local(tmp_path: Path) -> store.Store:
    local: store.Store = local_store.LocalStore(tmp_path / "store")
    return local


def names(local: store.Store) -> set[str]:
    visible = [*local.entries(HOST), *local.unfinished(HOST)]
    return {entry.name.rpartition("/")[2] for entry in visible}


def age(local: store.Store, seconds: float = 3 * DAY) -> None:
    """All that is in the store is three days old."""
    old = time.time() - seconds
    for path in (local.folder / HOST).iterdir():  # type: ignore[attr-defined]
        os.utime(path, (old, old))


def mark(local: store.Store, run_id: str, **who: object) -> None:
    """The mark of a run whose process has ended, or of another machine."""
    markers.create_marker(local, HOST, run_id)
    name = f"{HOST}/{run_id}{markers.MARKER_SUFFIX}"
    content = json.loads(b"".join(local.get(name)))
    local.remove([name])
    store.store_object(local, name, [json.dumps({**content, "process": 2**22, **who}).encode()])


def crashed_run(local: store.Store, run_id: str = DEAD, **who: object) -> None:
    mark(local, run_id, **who)
    store.store_object(local, f"{HOST}/{run_id}.FILESET.tar.000", [b"whole part"])
    local.put(f"{HOST}/{run_id}.FILESET.tar.001", [b"never published"])
    age(local)


def sweep(local: store.Store) -> list[str]:
    return leftovers.remove_crashed_runs(Catalog(local, HOST, EVERYBODY), NOW, DAY)


@pytest.mark.fault("files of a crashed run, older than LEFTOVERS_AGE", "removed by the next run")
def test_what_a_dead_run_left_is_removed(local: store.Store) -> None:
    crashed_run(local)
    store.store_object(
        local, f"{HOST}/20190101_000000.tar.zst.age.000", [b"documented, no manifest"]
    )
    age(local)
    assert len(sweep(local)) == 3
    assert names(local) == {"20190101_000000.tar.zst.age.000"}


def test_the_marker_of_a_complete_run_is_not_read(tmp_path: Path) -> None:
    """Where nothing may be removed, one of every run stays."""
    read: list[str] = []
    memory = MemoryStore(lambda call, name: read.append(name) if call == "get" else None)
    runs = signed_store.Runs(tmp_path)
    runs.add(memory, signed_store.FIRST)
    marker = f"{signed_store.HOST}/{signed_store.FIRST}{markers.MARKER_SUFFIX}"
    store.store_object(memory, marker, [b"{}"])
    catalog = runs.catalog(memory)
    assert leftovers.remove_crashed_runs(catalog, "", 0.0) == [marker]
    assert marker not in read


def test_where_the_listing_may_lack_a_manifest_only_temporary_files_go(
    local: store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed_run(local)
    monkeypatch.setattr(local_store.LocalStore, "consistent", False)
    (removed,) = sweep(local)
    assert "/.20" in removed
    assert len(names(local)) == 2


@pytest.mark.fault("leftovers that are young, or of a living run", "kept")
def test_what_is_young_or_alive_is_kept(local: store.Store) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        crashed_run(local, process=process.pid, started=liveness.start_time(process.pid))
        assert sweep(local) == []
    finally:
        process.kill()
        process.wait()
    assert len(sweep(local)) == 3
    crashed_run(local)
    assert leftovers.remove_crashed_runs(Catalog(local, HOST, EVERYBODY), NOW, 10 * DAY) == []


@pytest.mark.fault(
    "files of a run on another machine or in another container", "kept for seven days"
)
@pytest.mark.parametrize(
    "who", [("machine", "another"), ("node", "another"), ("pids", "pid:[1]"), ("process", None)]
)
def test_a_process_that_cannot_be_seen_from_here_counts_by_age(
    local: store.Store, who: tuple[str, object]
) -> None:
    """Issue 13 A2: a process id means nothing elsewhere; nor does a marker without one."""
    crashed_run(local, DEAD, **dict([who]))
    before = names(local)
    assert sweep(local) == []
    assert names(local) == before
    age(local, liveness.FOREIGN_AGE + DAY)
    assert len(sweep(local)) == 3
    assert names(local) == set()


def test_an_earlier_boot_ended_and_one_of_a_copy_of_this_machine_may_not_have(
    local: store.Store,
) -> None:
    """Issue 13 A2: a marker that is younger than this boot, and of another one."""
    crashed_run(local, boot="another")
    age(local, 0.0)
    assert leftovers.remove_crashed_runs(Catalog(local, HOST, EVERYBODY), NOW, 0.0) == []
    age(local, 365 * DAY)
    assert len(sweep(local)) == 3


def test_a_process_that_only_has_the_number_is_not_it(local: store.Store) -> None:
    crashed_run(local, process=os.getpid(), started="1")
    assert len(sweep(local)) == 3


@pytest.mark.fault("parts of a crashed run that the manifest of a later one names", "kept")
def test_what_a_manifest_names_is_kept(local: store.Store) -> None:
    """A staged run stores what the run before it left."""
    crashed_run(local)
    part = Part(f"{DEAD}.FILESET.tar.000", 10, "0" * 64)
    later = Manifest(
        HOST, "20200102_000000", "", "", "staged", "ok",
        (Item("EARLIER", "x", "file", "", (), (part,)),),
    )  # fmt: skip
    markers.publish_manifest(
        Catalog(local, HOST, EVERYBODY), later, None
    )  # which looks that the part is there
    age(local)
    sweep(local)
    assert f"{DEAD}.FILESET.tar.000" in names(local)
    assert f"{DEAD}{markers.MARKER_SUFFIX}" not in names(local)
    assert not list(local.unfinished(HOST))


@pytest.mark.fault("a manifest that cannot be read, and leftovers", "nothing is removed")
def test_where_a_manifest_cannot_be_read_nothing_is_removed(local: store.Store) -> None:
    crashed_run(local)
    store.store_object(local, f"{HOST}/{manifest.name_of('20200105_000000')}", [b"{"])
    before = names(local)
    with pytest.raises(ManifestError):
        sweep(local)
    assert names(local) == before


UNMARKED = "20200102_000000"


@pytest.mark.fault("parts of a run without marker and manifest", "removed once they are old")
def test_parts_without_marker_and_manifest_are_removed_by_age(local: store.Store) -> None:
    """Issue 13 A3: never younger ones, never what has a name that no run gives."""
    kept = {
        f"{UNMARKED}.tar.zst.age.000",  # of the documented old system
        f"{UNMARKED}.NOTES.txt",
        f"{UNMARKED}.OTHER.tar.000",
        "20260101_000000.FILESET.tar.000",  # of the run in progress
    }
    garbage = {f"{UNMARKED}.FILESET.a%2Eb.tar.zst.age.1000", f"{UNMARKED}.FILESET.tar.000"}
    for name in (*kept, *garbage, f"{UNMARKED}.RECOVERY.txt"):
        store.store_object(local, f"{HOST}/{name}", [b"x"])
    age(local)
    catalog = Catalog(local, HOST, EVERYBODY)
    assert leftovers.remove_crashed_runs(catalog, NOW, 5 * DAY, ["FILESET"]) == []
    os.utime(local.folder / HOST / f"{UNMARKED}.NOTES.txt")  # type: ignore[attr-defined]
    assert leftovers.remove_crashed_runs(catalog, NOW, DAY, ["FILESET"]) == []
    age(local)
    assert len(leftovers.remove_crashed_runs(catalog, NOW, DAY, ["FILESET"])) == 3
    assert names(local) == kept


def test_sections_of_manifests_are_known(local: store.Store) -> None:
    """Issue 13 A3: a section that the config has no more."""
    part = Part(f"{NOW}.GONE.tar.000", 1, "0" * 64)
    item = Item("GONE", "", "file", "", (), (part,))
    for name in (part.name, f"{UNMARKED}.GONE.tar.000"):
        store.store_object(local, f"{HOST}/{name}", [b"x"])
    complete = Manifest(HOST, NOW, "", "", "staged", "ok", (item,))
    markers.publish_manifest(Catalog(local, HOST, EVERYBODY), complete, None)
    age(local)
    assert (
        len(leftovers.remove_crashed_runs(Catalog(local, HOST, EVERYBODY), "20270101_000000", DAY))
        == 1
    )
    assert part.name in names(local)


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
    failing = Failing(tmp_path)
    catalog = Catalog(failing, HOST, EVERYBODY)
    empty = Manifest(HOST, NOW, "", "", "streamed", "ok", ())
    sheet = f"{HOST}/{NOW}{manifest.RECOVERY}"
    with pytest.raises(OSError, match="Input/output error"):
        markers.publish_manifest(catalog, empty, None)  # fails at the sheet
    failing.after = False
    with pytest.raises(OSError, match="Input/output error"):
        markers._publish(failing, f"{HOST}/{manifest.name_of(NOW)}", b"text")
    assert names(failing) == {Path(sheet).name}
    failing.after = True
    assert "Input/output error" in markers._publish(
        failing, f"{HOST}/{manifest.name_of(NOW)}", empty.to_json()
    )
    assert Catalog(failing, HOST, EVERYBODY).manifest(NOW) == empty


def test_a_marker_that_could_not_be_confirmed_is_taken_away(tmp_path: Path) -> None:
    """Issue 13 A3: the store takes no part, and is not left marked."""
    failing = Failing(tmp_path)
    with pytest.raises(OSError, match="Input/output error"):
        markers.create_marker(failing, HOST, NOW)
    assert names(failing) == set()


@pytest.mark.fault("a stored part vanishes or is cut before the manifest", "exit 1, no manifest")
@pytest.mark.parametrize("size", [None, 3])
def test_parts_are_looked_up_before_the_manifest(local: store.Store, size: int | None) -> None:
    """Issue 13 A2: it does not matter which program removed them."""
    part = Part(f"{NOW}.FILESET.tar.000", 4, "0" * 64)
    if size is not None:
        store.store_object(local, f"{HOST}/{part.name}", [b"x" * size])
    stored = Manifest(
        HOST, NOW, "", "", "streamed", "ok", (Item("FILESET", "", "file", "", (), (part,)),)
    )
    with pytest.raises(StoreError, match=r"FILESET\.tar\.000: (no such part|3 bytes, expected 4)"):
        markers.publish_manifest(Catalog(local, HOST, EVERYBODY), stored, None)
    assert not any(name.endswith(".json") for name in names(local))


def test_a_run_without_leftovers_takes_its_mark_away(local: store.Store) -> None:
    markers.create_marker(local, HOST, NOW)
    assert names(local) == {NOW + markers.MARKER_SUFFIX}
    leftovers.remove_marker(Catalog(local, HOST, EVERYBODY), NOW)
    assert names(local) == set()
    markers.create_marker(local, HOST, NOW)
    store.store_object(local, f"{HOST}/{NOW}.FILESET.tar.000", [b"no manifest names it"])
    leftovers.remove_marker(Catalog(local, HOST, EVERYBODY), NOW)
    assert NOW + markers.MARKER_SUFFIX in names(local)


def test_a_manifest_that_was_moved_is_refused(local: store.Store) -> None:
    moved = Manifest(HOST, DEAD, "", "", "staged", "ok", ())
    store.store_object(local, f"other/{manifest.name_of(DEAD)}", [moved.to_json()])
    with pytest.raises(ManifestError, match="manifest of srv-1"):
        Catalog(local, "other", EVERYBODY).manifest(DEAD)
