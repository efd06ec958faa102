"""Clean-up of a store: only what newer verified runs replace may go, and a crash leaves no lie."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from cleanup import candidates, cleaning, lines, policy, removing
from cleanup.cleaning import Cleaning, Order
from cleanup.policy import Rules
from cleanup.remembered import Remembered
from tests import stored_runs
from tests.stored_runs import HOST, Clock, daily, days_ago, item, put, run, run_id
from tools.base import run_ids
from tools.base.errors import ForbiddenError, StoreError
from tools.base.result import Result, Status
from tools.catalog import cleaned, manifest, markers, readback, signers, writer_key
from tools.catalog.catalog import Catalog
from tools.catalog.memory import Memory
from tools.catalog.runs import list_runs
from tools.catalog.trust import Trust
from tools.catalog.writer_key import WriterKey
from tools.flow import store
from tools.flow.memory_store import MemoryStore, Objects
from tools.flow.store import StoreEntry

RULES = Rules(daily=7, weekly=4, monthly=12, yearly=2)
BIG = 10 << 20  # bytes: sizes below one MiB are not compared


class Killed(BaseException):
    """The end of a process."""


@pytest.fixture
def key(tmp_path: Path) -> WriterKey:
    writer_key.create(tmp_path / "writer.key", HOST)
    return writer_key.read(tmp_path / "writer.key")


def trust_in(key: WriterKey) -> Trust:
    """The trust of a machine that knows a key."""
    line = writer_key.allowed_signer(HOST, key.public)
    return Trust(signers.Signers(tuple(signers.of_text(line, "test"))))


def remembered(folder: Path | None = None) -> Remembered:
    return Remembered(Memory(folder), "memory", HOST)


def clean(
    backup_store: store.Store,
    rules: Rules = RULES,
    trusted: Trust | None = None,
    memory: Remembered | None = None,
    **order: object,
) -> tuple[Result, Cleaning]:
    """Clean up a store as a section does."""
    catalog = Catalog(backup_store, HOST, trusted or Trust(everybody=True))
    base = Order(rules, acts=True)
    order_of = Order(**{**vars(base), **order})
    return cleaning.clean(catalog, order_of, memory or remembered())


def runs_of(backup_store: store.Store) -> list[str]:
    names = (entry.name.rpartition("/")[2] for entry in backup_store.entries(HOST))
    return list(filter(None, map(manifest.run_of, names)))


def assert_good(backup_store: store.Store, trusted: Trust | None = None) -> None:
    """Every run that is listed is whole, and its increments have their bases."""
    catalog = Catalog(backup_store, HOST, trusted or Trust(everybody=True))
    for summary in list_runs(catalog):
        assert summary.manifest is not None, summary.error
        stored_run = readback.StoredRun(catalog, summary.manifest)
        assert readback.missing_parts(stored_run, summary.manifest.items) == []
        for one in summary.manifest.items:
            if one.base:
                base = catalog.manifest(one.base)
                assert one.label in {other.label for other in base.items}, one.base


def weekly_chains(backup_store: MemoryStore, clock: Clock, days: int) -> list[str]:
    """Store daily runs whose item A is full on every seventh day, and B always; return ids."""
    created: list[str] = []
    for day in range(days, 0, -1):
        clock.now = days_ago(day)
        created.append(run_id(clock.now))
        base = None if (days - day) % 7 == 0 else created[-2]
        put(
            backup_store,
            run(created[-1], [item(created[-1], "A", base=base), item(created[-1], "B")]),
        )
    clock.now = stored_runs.NOW
    return created


def test_400_daily_runs_with_weekly_bases() -> None:
    """Issue 16, shows: 7/4/12/2, planned, acted, verified."""
    backup_store, clock = stored_runs.memory()
    created = weekly_chains(backup_store, clock, 400)
    preview, plan = clean(backup_store, acts=False)
    assert runs_of(backup_store) == created
    result, _plan = clean(backup_store)
    assert (preview.status, result.status) == (Status.OK, Status.OK)
    remaining = runs_of(backup_store)
    assert remaining == [one for one in created if one not in plan.whole_runs]
    assert 20 < len(remaining) < 80
    assert remaining[-7:] == created[-7:]
    assert_good(backup_store)
    assert clean(backup_store)[0].items == 0
    catalog = Catalog(backup_store, HOST, Trust(everybody=True))
    notes = [run_id for run_id in remaining if catalog.claim(run_id).manifest.cleaned]
    assert notes, "an increment keeps its base, and the base its other item no longer"


@pytest.mark.parametrize("numbers", [[999_999], range(2, 10), range(1, 12)])
def test_notes_of_others_hide_none(numbers: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are limited, and so is what is read: an item whose note nobody would read stays."""
    backup_store, clock = stored_runs.memory()
    monkeypatch.setattr(cleaned, "_MAX_NOTES", 10)
    for one in weekly_chains(backup_store, clock, 12):
        for number in numbers:
            store.store_object(backup_store, f"{HOST}/{cleaned.name_of(one, number)}", [b"x"])
    rules = Rules(daily=2, weekly=1, minimum=1)
    result, plan = clean(backup_store, rules)
    partly = [one for one in plan.removals if not one.is_whole]
    assert (result.status, bool(partly)) == (Status.OK, len(numbers) < 10)
    assert_good(backup_store)


@pytest.mark.slow
@pytest.mark.fault(
    "clean-up is killed at any of its deletions",
    "every run that is listed is whole, and the next clean-up finishes",
)
def test_killed_at_each_deletion(tmp_path: Path) -> None:
    def stored() -> tuple[MemoryStore, Clock]:
        backup_store, clock = stored_runs.memory()
        weekly_chains(backup_store, clock, 12)
        return backup_store, clock

    rules = Rules(daily=2, weekly=1, minimum=1)
    cleaned_store, _clock = stored()
    clean(cleaned_store, rules)
    expected = sorted(entry.name for entry in cleaned_store.entries(HOST))
    calls = 0
    while True:
        backup_store, _clock = stored()
        allowed_calls = calls

        def fault(call: str, name: str) -> None:
            nonlocal allowed_calls
            if call in ("remove", "publish"):
                allowed_calls -= 1
                if allowed_calls < 0:
                    raise Killed

        backup_store.fault = fault
        memory = remembered(tmp_path)
        try:
            clean(backup_store, rules, memory=memory)
            break
        except Killed:
            pass
        backup_store.fault = lambda _call, _name: None
        assert_good(backup_store)
        assert clean(backup_store, rules, memory=memory)[0].status is Status.OK
        assert sorted(entry.name for entry in backup_store.entries(HOST)) == expected, calls
        assert_good(backup_store)
        calls += 1
    assert calls > 15


@pytest.mark.fault(
    "the listing of a store may lack objects", "clean-up removes nothing there, and says so"
)
def test_a_store_whose_listing_may_lag_behind_is_not_cleaned_up() -> None:
    clock = Clock()
    backup_store = MemoryStore(objects=Objects(clock))
    daily(backup_store, clock, 30, "A")
    before = runs_of(backup_store)
    backup_store.consistent = False
    for by_hand, status in ((False, Status.OK), (True, Status.UNCLEAN)):
        result, _ = clean(backup_store, Rules(last=3), by_hand=by_hand)
        assert result.status is status
        assert "nothing is removed: its listing may lack" in result.message
    assert runs_of(backup_store) == before


def test_failed_runs_do_not_count() -> None:
    """C25: 5 good and 10 failed runs, KEEP_LAST 5: all 5 good ones stay."""
    backup_store, clock = stored_runs.memory()
    good = daily(backup_store, clock, 15, "A")[:5]
    for one in runs_of(backup_store)[5:]:
        backup_store.objects.remove(f"{HOST}/{one}.A.tar.000")
    result, _plan = clean(backup_store, Rules(last=5))
    assert result.status is Status.OK
    assert set(good) <= set(runs_of(backup_store))


def test_one_failing_item_does_not_stop_the_others() -> None:
    """C26: one of the items fails for 60 days: the others are cleaned, and reports say so."""
    backup_store, clock = stored_runs.memory()
    names = [f"I{number}" for number in range(5)]
    created = []
    for day in range(90, 0, -1):
        clock.now = days_ago(day)
        created.append(run_id(clock.now))
        bad = day <= 60
        items = [item(created[-1], one) for one in names if not (bad and one == "I4")]
        status = "failed" if bad else "ok"
        put(backup_store, run(created[-1], items, status=status, missing=("I4",) if bad else ()))
    clock.now = stored_runs.NOW
    result, plan = clean(backup_store, Rules(daily=7))
    assert result.status is Status.OK
    catalog = Catalog(backup_store, HOST, Trust(everybody=True))
    runs = [catalog.manifest(one) for one in catalog.run_ids]
    held = {one: [r.run_id for r in runs if one in {i.label for i in r.items}] for one in names}
    assert held["I0"] == created[-7:]
    assert set(created[27:30]) <= set(held["I4"])
    (line,) = plan.notices("")
    assert "I4 has no good copy since" in line
    assert "9 days)" in line or "60 days)" in line
    assert_good(backup_store)


@pytest.mark.parametrize("size", [0, BIG // 3])
def test_a_source_that_became_empty_does_not_push_out_good_copies(size: int) -> None:
    """C30: a source is empty for ten nights, KEEP_LAST 7: the good copies stay."""
    backup_store, clock = stored_runs.memory()
    created = []
    for day in range(20, 0, -1):
        clock.now = days_ago(day)
        created.append(run_id(clock.now))
        put(
            backup_store, run(created[-1], [item(created[-1], "A", size=BIG if day > 10 else size)])
        )
    clock.now = stored_runs.NOW
    _result, plan = clean(backup_store, Rules(last=7))
    assert set(created[3:]) <= set(runs_of(backup_store))
    assert plan.plan.frozen
    assert plan.suspicious() == ["A"]  # the plan names --accept-item
    memory = dataclasses.replace(remembered(), memory=Accepted(created[10]))
    _result, plan = clean(backup_store, Rules(last=7), memory=memory)
    assert not plan.suspicious()
    assert runs_of(backup_store) == created[-7:]


def test_what_a_run_calls_suspicious_freezes_its_item() -> None:
    """The run knows more than this store: figures of other stores, thresholds of its config."""
    backup_store, clock = stored_runs.memory()
    created = daily(backup_store, clock, 9, "A")
    clock.now = days_ago(0.2)
    created.append(run_id(clock.now))
    marked = dataclasses.replace(item(created[-1], "A"), suspicious=("2 files",), grave=True)
    put(backup_store, run(created[-1], [marked]))
    clock.now = stored_runs.NOW
    off = clean(
        backup_store, Rules(last=1, minimum=1), acts=False, thresholds=lambda _section: None
    )[1]
    assert (off.suspicious(), len(off.whole_runs)) == ([], 9)  # SHRINK_CHECK
    _result, plan = clean(backup_store, Rules(last=1, minimum=1))
    assert plan.suspicious() == ["A"]
    assert runs_of(backup_store) == created[-4:]
    memory = dataclasses.replace(remembered(), memory=Accepted(created[-1]))
    _result, plan = clean(backup_store, Rules(last=1, minimum=1), memory=memory)
    assert runs_of(backup_store) == created[-1:]


class Accepted(Memory):
    """The memory of a machine whose operator accepted the size of A from a run on."""

    def __init__(self, run: str) -> None:
        super().__init__(None)
        object.__setattr__(self, "run", run)

    def read(self, name: str) -> dict[str, object]:
        return {HOST: {"A": [vars(self)["run"]]}}


def test_a_second_acceptance_adds_to_the_first(tmp_path: Path) -> None:
    """The copies between the two are as good as those after both."""
    backup_store, clock = stored_runs.memory()
    created = []
    for day in range(30, 0, -1):
        clock.now = days_ago(day)
        created.append(run_id(clock.now))
        size = BIG * 64 if day > 20 else BIG * 8 if day > 10 else BIG
        put(backup_store, run(created[-1], [item(created[-1], "A", size=size)]))
    clock.now = stored_runs.NOW
    memory = remembered(tmp_path)
    memory.accept("A", created[10])
    memory.accept("B", created[5])
    memory.accept("A", created[20])
    memory.accept("A", created[20])
    assert memory.accepted == {"A": [created[10], created[20]], "B": [created[5]]}
    _result, plan = clean(backup_store, Rules(last=25), memory=memory)
    assert not plan.suspicious()
    assert runs_of(backup_store) == created[-25:]


def test_an_item_that_shrinks_slowly_is_not_frozen() -> None:
    """Only one copy of each month is left of a year in which it lost a fifth in each month."""
    backup_store, clock = stored_runs.memory()
    days = (*range(400, 40, -30), *range(40, 10, -7), *range(10, 0, -1))
    for day in days:
        clock.now = days_ago(day)
        one = run_id(clock.now)
        put(
            backup_store,
            run(one, [item(one, "A", size=int((1 << 34) * 0.8 ** ((400 - day) / 30)))]),
        )
    clock.now = stored_runs.NOW
    _result, plan = clean(backup_store)
    states = [c.state for one in plan.inventory.runs for c in one.copies.values()]
    assert (set(states), plan.plan.frozen) == ({policy.State.GOOD}, ())


def test_signed_runs_that_claim_to_be_old_push_nothing_out(key: WriterKey) -> None:
    """C27: ids of the last 8 weeks, all written today: no earlier run goes."""
    backup_store, clock = stored_runs.memory()
    daily(backup_store, clock, 100, "A", key=key)
    clean(backup_store, trusted=trust_in(key))
    before = runs_of(backup_store)
    for week in range(1, 9):
        one = run_id(days_ago(7 * week) + timedelta(hours=20))
        put(backup_store, run(one, [item(one, "A")]), key=key)
    result, plan = clean(backup_store, trusted=trust_in(key))
    assert result.status is Status.OK
    assert set(before) <= set(runs_of(backup_store))
    assert len(plan.plan.named) == 8


def test_a_hundred_signed_runs_push_nothing_out(key: WriterKey) -> None:
    """Issue 16, shows: a server that is taken over cannot make clean-up remove the last year."""
    backup_store, clock = stored_runs.memory()
    daily(backup_store, clock, 100, "A", "B", key=key)
    clean(backup_store, trusted=trust_in(key))
    before = runs_of(backup_store)
    for minute in range(100):
        one = run_id(stored_runs.NOW - timedelta(minutes=minute))
        put(backup_store, run(one, [item(one, "A")], missing=("B",), status="failed"), key=key)
    clean(backup_store, trusted=trust_in(key))
    assert set(before) <= set(runs_of(backup_store))
    notes = Catalog(backup_store, HOST, trust_in(key)).notes
    for one in before[:-1]:  # a note does not make clean-up remove what the rules keep
        cleaned.note(backup_store, HOST, one, notes.get(one, ()), ["A", "B"])
    clean(backup_store, trusted=trust_in(key))
    assert_good(backup_store, trust_in(key))


def test_runs_of_an_unknown_signer_count_for_nothing_and_stay(
    key: WriterKey, tmp_path: Path
) -> None:
    backup_store, clock = stored_runs.memory()
    unsigned = daily(backup_store, clock, 30, "A")[:10]
    backup_store, clock = stored_runs.memory()
    for day in range(30, 0, -1):
        clock.now = days_ago(day)
        one = run_id(clock.now)
        put(backup_store, run(one, [item(one, "A")]), key=key if day <= 20 else None)
    clock.now = stored_runs.NOW
    writer_key.create(tmp_path / "other.key", HOST)
    other = run_id(days_ago(0.1))
    put(backup_store, run(other, [item(other, "A")]), key=writer_key.read(tmp_path / "other.key"))
    bare = run_id(days_ago(0.2))
    put(backup_store, run(bare, [item(bare, "A")]))
    result, _plan = clean(backup_store, Rules(daily=3), trusted=trust_in(key))
    assert result.status is Status.OK
    remaining = runs_of(backup_store)
    assert {other, bare} <= set(remaining)
    assert not set(unsigned) & set(remaining), "older than the first signed run: as good as any"
    assert len(remaining) == 5


@pytest.mark.fault(
    "a manifest of a store is spoiled, or does not match its signature",
    "clean-up removes nothing of this host and names it, until cleanup.py --discard RUN",
)
@pytest.mark.parametrize("how", ["spoiled", "altered"])
def test_a_manifest_that_cannot_be_used_stops_clean_up(
    key: WriterKey, how: str, tmp_path: Path
) -> None:
    backup_store, clock = stored_runs.memory()
    created = daily(backup_store, clock, 20, "A", key=key)
    name = f"{HOST}/{manifest.name_of(created[3])}"
    content = (
        b"{" if how == "spoiled" else backup_store.objects.read(name).replace(b"test", b"tost")
    )
    backup_store.objects.remove(name)
    backup_store.objects.create(name, content)
    before = runs_of(backup_store)
    memory = remembered(tmp_path)
    result, _plan = clean(backup_store, Rules(daily=3), trust_in(key), memory)
    assert result.status is Status.UNCLEAN
    assert f"run {created[3]}: " in result.message
    assert f"--discard {created[3]}" in result.hint
    assert runs_of(backup_store) == before
    memory.discard(created[3])
    assert clean(backup_store, Rules(daily=3), trust_in(key), memory)[0].status is Status.OK
    assert runs_of(backup_store) == [created[3], *created[-3:]]
    assert backup_store.objects.has(f"{HOST}/{created[3]}.A.tar.000")


@pytest.mark.fault(
    "the second page of a listing fails", "clean-up removes nothing, and says so: exit code 5"
)
def test_a_listing_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    backup_store, clock = stored_runs.memory()
    daily(backup_store, clock, 20, "A")
    listing = list(backup_store.objects.entries(HOST))

    def entries(_folder: str) -> Iterator[StoreEntry]:
        yield from listing[:30]
        raise StoreError("memory: page 2: connection reset")

    before = runs_of(backup_store)
    monkeypatch.setattr(backup_store, "entries", entries)
    with pytest.raises(StoreError, match="page 2"):
        clean(backup_store)
    monkeypatch.undo()
    assert runs_of(backup_store) == before


@pytest.mark.fault(
    "the clock of the cleaning machine is wrong by more than a day",
    "nothing is removed, and clean-up says so",
)
@pytest.mark.parametrize("days", [40, -40])
def test_a_wrong_clock(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    backup_store, clock = stored_runs.memory()
    created = daily(backup_store, clock, 60, "A")
    from tools.catalog import catalog

    class Wrong(catalog.datetime):  # type: ignore[name-defined,misc]
        @classmethod
        def now(cls, zone: object = None) -> object:
            return stored_runs.NOW + timedelta(days=days)

    monkeypatch.setattr(catalog, "datetime", Wrong)
    monkeypatch.setattr(cleaning, "_now", Wrong.now)
    result, _plan = clean(backup_store)
    assert result.status is Status.UNCLEAN
    assert "clock" in result.message
    assert runs_of(backup_store) == created


def test_a_manifest_that_the_store_dates_in_the_future() -> None:
    backup_store, clock = stored_runs.memory()
    created = daily(backup_store, clock, 60, "A")
    clock.now = stored_runs.NOW + timedelta(days=2)
    one = run_id(stored_runs.NOW)
    put(backup_store, run(one, [item(one, "A")]))
    clock.now = stored_runs.NOW
    result, _plan = clean(backup_store)
    assert "stored in the future" in result.message
    assert runs_of(backup_store)[:-1] == created


def test_a_run_dated_2038_is_kept_and_named() -> None:
    backup_store, clock = stored_runs.memory()
    created = daily(backup_store, clock, 20, "A")
    clock.now = days_ago(5.5)
    put(backup_store, run("20380119_031407", [item("20380119_031407", "A")]))
    clock.now = stored_runs.NOW
    result, plan = clean(backup_store, Rules(daily=3))
    assert result.status is Status.OK
    assert runs_of(backup_store) == [*created[-3:], "20380119_031407"]
    assert plan.plan.named == ("20380119_031407",)


@pytest.mark.fault(
    "the credentials of a store may not delete",
    "a section says so in one line and the run is good; by hand it is exit code 5",
)
@pytest.mark.parametrize("by_hand", [False, True])
def test_credentials_that_may_not_delete(by_hand: bool) -> None:
    """C16."""
    backup_store, clock = stored_runs.memory()
    created = daily(backup_store, clock, 20, "A")

    def fault(call: str, name: str) -> None:
        if call == "remove":
            raise ForbiddenError(f"{name}: access denied")

    backup_store.fault = fault
    result, _plan = clean(backup_store, by_hand=by_hand, really=True)
    assert result.status is (Status.UNCLEAN if by_hand else Status.OK)
    assert "this store keeps everything: its credentials may not delete" in result.message
    assert runs_of(backup_store) == created


@pytest.mark.parametrize("by_hand", [False, True])
def test_credentials_that_may_delete_some_objects(by_hand: bool) -> None:
    """A store from which runs have gone does not keep everything."""
    backup_store, clock = stored_runs.memory()
    created = daily(backup_store, clock, 20, "A")

    def fault(call: str, name: str) -> None:
        if call == "remove" and name.endswith(".tar.000"):
            raise ForbiddenError(f"{name}: access denied")

    backup_store.fault = fault
    result, _plan = clean(backup_store, Rules(daily=3), by_hand=by_hand, really=True)
    assert result.status is (Status.UNCLEAN if by_hand else Status.OK)
    assert result.message.startswith("17 runs removed, 3 runs left; the rest of the plan may not")
    assert bool(result.warnings)
    assert runs_of(backup_store) == created[-3:]


class Bucket(MemoryStore):
    """A versioned bucket."""

    hidden = 0

    def versioning(self) -> bool:
        return True

    def remove_versions(self, names: Sequence[str]) -> int:
        freed = sum(e.size for e in self.objects.entries(HOST) if e.name in names)
        self.remove(names)
        return freed


@pytest.mark.parametrize("versions", [False, True])
def test_a_versioned_bucket(versions: bool) -> None:
    """C13: removing hides the objects, and frees nothing unless versions are removed too."""
    clock = Clock()
    backup_store = Bucket(objects=Objects(clock))
    daily(backup_store, clock, 20, "A")
    result, plan = clean(backup_store, Rules(daily=3), versions=versions)
    assert result.status is Status.OK
    assert ("freed 0 B now" in result.message) is not versions
    assert result.bytes == (plan.size if versions else 0)
    assert clean(backup_store, Rules(daily=3), versions=versions)[0].items == 0


def test_a_disk_that_goes_during_clean_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder lists nothing that was removed, and nothing of what stays either."""
    backup_store, clock = stored_runs.memory()
    daily(backup_store, clock, 20, "A")
    monkeypatch.setattr(
        backup_store, "remove", lambda _names: backup_store.objects._contents.clear()
    )
    result, _plan = clean(backup_store, Rules(daily=3))
    assert result.status is Status.UNCLEAN
    assert "no longer lists the runs that stay" in result.message


@pytest.mark.parametrize("listed", [True, False])
def test_an_error_midway_says_how_many_runs_went(
    monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    monkeypatch.setattr(removing, "_TOGETHER", 5)
    backup_store, clock = stored_runs.memory()
    created = daily(backup_store, clock, 20, "A")
    failed: list[str] = []

    def fault(call: str, name: str) -> None:
        if call == "remove" and name.endswith(f"{created[7]}.manifest.json"):
            failed.append(name)
        if failed and (call == "remove" or not listed):
            raise OSError(errno.EIO, "input/output error", name)

    backup_store.fault = fault
    result, _plan = clean(backup_store, Rules(daily=3))
    backup_store.fault = lambda *_arguments: None
    removed = 20 - len(runs_of(backup_store))
    assert result.status is Status.UNCLEAN
    assert "input/output error" in result.message
    assert 5 <= removed < 17
    if listed:
        assert f"; {removed} runs of 17 removed, {20 - removed} left" in result.message
        assert result.items == removed
    else:
        assert "how many runs were removed is not known" in result.message
    again = clean(backup_store, Rules(daily=3))[0]
    assert (again.status, again.items, runs_of(backup_store)) == (
        Status.OK,
        17 - removed,
        created[-3:],
    )


@pytest.mark.parametrize("by_hand", [False, True])
def test_files_of_crashed_runs_that_stay(by_hand: bool) -> None:
    """Asked for, that is no success: a sweep of faults found exit code 0."""
    backup_store, clock = stored_runs.memory()
    daily(backup_store, clock, 5, "A")

    def fault(call: str, name: str) -> None:
        if call == "unfinished":
            raise OSError(errno.EIO, "Input/output error", name)

    backup_store.fault = fault
    result, _plan = clean(backup_store, Rules(daily=3), by_hand=by_hand)
    assert result.status is (Status.UNCLEAN if by_hand else Status.OK)
    assert result.message.startswith("2 runs removed, 3 runs left")
    assert ("; files of crashed runs: " in result.message) is by_hand


def test_objects_that_stay_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    backup_store, clock = stored_runs.memory()
    created = daily(backup_store, clock, 20, "A")
    remove = backup_store.remove
    kept = f"{HOST}/{created[0]}.A.tar.000"
    monkeypatch.setattr(
        backup_store, "remove", lambda names: remove([n for n in names if n != kept])
    )
    result, _plan = clean(backup_store, Rules(daily=3))
    assert result.status is Status.UNCLEAN
    assert f"1 object still there, the first is {kept}" in result.message


@pytest.mark.parametrize("change", ["newest", "gone", "more"])
def test_a_store_that_changes_between_plan_and_removal(
    monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    backup_store, clock = stored_runs.memory()
    created = daily(backup_store, clock, 20, "A")
    planned = cleaning.planned
    calls = 0

    def changing(*arguments: object) -> Cleaning:
        nonlocal calls
        calls += 1
        planned_cleaning = planned(*arguments)  # type: ignore[arg-type]
        name = f"{HOST}/{manifest.name_of(created[-1])}"
        if calls > 1:
            return planned_cleaning
        if change == "more":
            one = run_id(stored_runs.NOW)
            put(backup_store, run(one, [item(one, "A")]))
        else:
            raw = backup_store.objects.read(name)
            backup_store.objects.remove(name)
            if change == "newest":
                backup_store.objects.create(name, raw.replace(b"test", b"tost"))
        return planned_cleaning

    monkeypatch.setattr(cleaning, "planned", changing)
    if change == "more":
        result, plan = clean(backup_store, Rules(daily=3))
        assert (result.status, calls) == (Status.OK, 2)
        assert len(plan.inventory.runs) == 21
        return
    with pytest.raises(StoreError, match="nothing was removed"):
        clean(backup_store, Rules(daily=3))
    assert len(runs_of(backup_store)) == 20 - (change == "gone")


def test_a_store_without_runs() -> None:
    """The folder of a disk that is not mounted, or another host."""
    backup_store, _clock = stored_runs.memory()
    result, _plan = clean(backup_store, by_hand=True)
    assert (result.status, result.message) == (
        Status.OK,
        f"no runs of host {HOST}: no run was removed",
    )
    assert "mounted" in result.hint


def test_two_clean_ups_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has listed runs which the other removes lists them again."""
    backup_store, clock = stored_runs.memory()
    created = daily(backup_store, clock, 20, "A")
    plan, listed = candidates.read, list[int]()

    def overtaken(catalog: Catalog, known: candidates.Known) -> candidates.Candidates:
        listed.append(len(catalog.run_ids))
        if len(listed) == 1:
            clean(backup_store, Rules(daily=3))
        return plan(catalog, known)

    monkeypatch.setattr(candidates, "read", overtaken)
    result, _plan = clean(backup_store, Rules(daily=3))
    assert (result.status, result.items, listed) == (Status.OK, 0, [20, 20, 3])
    assert runs_of(backup_store) == created[-3:]


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_clean_up_while_another_one_removes(tmp_path: Path, by_hand: bool) -> None:
    """Both would report the same bytes as freed."""
    backup_store, clock = stored_runs.memory()
    created = daily(backup_store, clock, 20, "A")
    memory = remembered(tmp_path)
    with memory.alone():
        result, _plan = clean(
            backup_store, Rules(daily=3), memory=memory, by_hand=by_hand, really=True
        )
    assert result.status is (Status.UNCLEAN if by_hand else Status.OK)
    assert "another clean-up of this store is in progress" in result.message
    assert (result.bytes, runs_of(backup_store)) == (0, created)
    assert clean(backup_store, Rules(daily=3), memory=memory)[0].items == 17


def test_pinned_runs_stay_and_no_rule_removes_nothing() -> None:
    backup_store, clock = stored_runs.memory()
    created = daily(backup_store, clock, 20, "A")
    assert clean(backup_store, Rules())[0].items == 0
    cleaned.pin(backup_store, HOST, created[2], "")
    clean(backup_store, Rules(daily=3))
    assert runs_of(backup_store) == [created[2], *created[-3:]]
    cleaned.unpin(backup_store, HOST, created[2])
    clean(backup_store, Rules(daily=3))
    assert runs_of(backup_store) == created[-3:]


def test_without_a_rule_the_operator_is_told_why_nothing_goes() -> None:
    backup_store, clock = stored_runs.memory()
    clock.now = days_ago(1)
    only_run = run_id(clock.now)
    put(backup_store, run(only_run, [item(only_run, "A")]))
    clock.now = stored_runs.NOW
    for acts in (False, True):
        result, _plan = clean(backup_store, Rules(), by_hand=True, acts=acts)
        assert result.hint.startswith("No rule is set: ")
    assert clean(backup_store, Rules())[0].hint == ""  # a section is no operator


def test_an_item_that_left_the_config_goes_when_it_is_forgotten(tmp_path: Path) -> None:
    backup_store, clock = stored_runs.memory()
    created = []
    for day in range(60, 0, -1):
        clock.now = days_ago(day)
        created.append(run_id(clock.now))
        items = ["A", "B"] if day > 40 else ["A"]
        put(backup_store, run(created[-1], [item(created[-1], one) for one in items]))
    clock.now = stored_runs.NOW
    memory = remembered(tmp_path)
    rules = Rules(daily=3, monthly=6)
    _result, plan = clean(backup_store, rules, memory=memory)
    (line,) = plan.notices("")
    assert "B has not been backed up for" in line
    assert "--forget-item B" in line
    assert any(".B." in entry.name for entry in backup_store.entries(HOST))
    memory.forget("B", created[19])
    result, plan = clean(backup_store, rules, memory=memory)
    assert (result.status, plan.notices("")) == (Status.OK, [])
    assert not [entry.name for entry in backup_store.entries(HOST) if ".B." in entry.name]
    assert_good(backup_store)
    assert policy.State.GOOD in {c.state for r in plan.inventory.runs for c in r.copies.values()}


def test_a_forgotten_item_that_came_back_is_kept_as_any_other(tmp_path: Path) -> None:
    """Else one run without it, of a broken-in server as well, would let all of its copies go."""
    backup_store, clock = stored_runs.memory()
    created = []
    for day in range(30, 0, -1):
        clock.now = days_ago(day)
        created.append(run_id(clock.now))
        without = 20 > day > 10 or day == 1
        put(
            backup_store,
            run(created[-1], [item(created[-1], one) for one in ("A" if without else "AB")]),
        )
    clock.now = stored_runs.NOW
    memory = remembered(tmp_path)
    memory.forget("B", created[10])
    _result, plan = clean(backup_store, memory=memory)
    kept = [one for one in plan.plan.decisions if one.keep and one.key[1] == "B"]
    assert len(kept) > len(plan.inventory.runs) // 3
    assert [one.key[1] for one in plan.plan.frozen] == ["B"]


def test_a_run_that_was_to_go_keeps_its_signature(key: WriterKey, tmp_path: Path) -> None:
    """A clean-up was killed, and the runs that are left have been pinned since."""
    backup_store, clock = stored_runs.memory()
    created = daily(backup_store, clock, 12, "A", key=key)

    def fault(call: str, name: str) -> None:
        if call == "remove" and created[2] in name:
            raise Killed

    backup_store.fault = fault
    memory = remembered(tmp_path)
    with pytest.raises(Killed):
        clean(backup_store, Rules(daily=3), trust_in(key), memory)
    backup_store.fault = lambda _call, _name: None
    remaining = runs_of(backup_store)
    for one in remaining:
        cleaned.pin(backup_store, HOST, one, "")
    assert clean(backup_store, Rules(daily=3), trust_in(key), memory)[0].status is Status.OK
    assert runs_of(backup_store) == remaining
    assert_good(backup_store, trust_in(key))


def test_a_run_that_is_copied_back_keeps_its_parts(tmp_path: Path) -> None:
    """A clean-up was killed, and a copy of one of its runs from another store has begun."""
    backup_store, clock = stored_runs.memory()
    created = daily(backup_store, clock, 12, "A")

    def fault(call: str, name: str) -> None:
        if call == "remove" and name.endswith(".tar.000"):
            raise Killed

    backup_store.fault = fault
    memory = remembered(tmp_path)
    with pytest.raises(Killed):
        clean(backup_store, Rules(daily=3), memory=memory)
    backup_store.fault = lambda _call, _name: None
    markers.create_marker(backup_store, HOST, created[8], copy=True)
    assert clean(backup_store, Rules(daily=3), memory=memory)[0].status is Status.OK
    parts = [e.name for e in backup_store.entries(HOST) if e.name.endswith(".tar.000")]
    assert [run_ids.run_in(name.rpartition("/")[2]) for name in parts] == created[8:]


class Locked(Bucket):
    """A versioned bucket whose newest objects are locked."""

    locked: Sequence[str] = ()

    def remove_versions(self, names: Sequence[str]) -> int:
        for name in names:
            if any(run in name for run in self.locked):
                raise ForbiddenError(f"{name}: locked until 2038-01-01")
        return super().remove_versions(names)


def test_runs_that_are_locked_stay_with_their_bases() -> None:
    backup_store = Locked(objects=Objects(clock := Clock()))
    created = weekly_chains(backup_store, clock, 21)
    backup_store.locked = created[10:]
    result, _plan = clean(backup_store, Rules(daily=1, minimum=1), versions=True)
    assert result.status is Status.OK
    assert "may not be removed yet" in result.message
    assert "locked until 2038-01-01" in result.warnings[0]
    assert_good(backup_store)
    assert runs_of(backup_store) == created[7:]


def test_runs_that_take_days_are_no_wrong_clock() -> None:
    backup_store, clock = stored_runs.memory()
    for day in range(20, 0, -2):
        clock.now = days_ago(day)
        one = run_id(clock.now - timedelta(hours=30))
        end = run_ids.stamp(clock.now)
        put(backup_store, run(one, [item(one, "A")], end=end))
    clock.now = stored_runs.NOW
    result, plan = clean(backup_store, Rules(daily=3))
    assert result.status is Status.OK
    assert len(plan.plan.named) == 10


def test_what_is_about_to_go_is_remembered_in_bounds(tmp_path: Path) -> None:
    memory = remembered(tmp_path)
    memory.discard("20260101_000000")
    memory.condemn(f"{number:0150}" for number in range(100_000))
    assert 0 < len(memory.condemned) < 100_000
    assert memory.discarded == {"20260101_000000"}
    memory.condemn(())
    assert memory.condemned == ()


def test_staged_parts_of_a_killed_clean_up_are_removed_by_the_next(tmp_path: Path) -> None:
    """Their names tell nothing: the state folder remembers them."""
    backup_store, clock = stored_runs.memory()
    for day in range(12, 0, -1):
        clock.now = days_ago(day)
        one = run_id(clock.now)
        staged = item(one, "A")
        parts = (dataclasses.replace(staged.parts[0], name=f"files-{day}.tar.gz.crypt.000"),)
        put(backup_store, run(one, [dataclasses.replace(staged, parts=parts)], mode="staged"))
    clock.now = stored_runs.NOW

    def fault(call: str, name: str) -> None:
        if call == "remove" and "files-8." in name:
            raise Killed

    backup_store.fault = fault
    memory = remembered(tmp_path)
    with pytest.raises(Killed):
        clean(backup_store, Rules(daily=3), memory=memory)
    backup_store.fault = lambda _call, _name: None
    assert clean(backup_store, Rules(daily=3), memory=memory)[0].status is Status.OK
    remaining = [entry.name for entry in backup_store.entries(HOST) if "files-" in entry.name]
    assert remaining == [f"{HOST}/files-{day}.tar.gz.crypt.000" for day in (1, 2, 3)]


@pytest.mark.fault(
    "thousands of objects that are no manifests, by anyone who can write to the store",
    "the plan and the report name the first, and count the others",
)
def test_thousands_of_junk_manifests(capsys: pytest.CaptureFixture[str]) -> None:
    backup_store, clock = stored_runs.memory()
    daily(backup_store, clock, 3, "FILESET")
    for number in range(300):
        junk = f"{HOST}/20200101_{number // 60:02}{number % 60:02}00.manifest.json"
        store.store_object(backup_store, junk, [b"junk"])
    result, plan = clean(backup_store, RULES, acts=False)
    lines.show(plan)
    output = capsys.readouterr()
    assert len(result.warnings) <= 2 * cleaning.FEW
    assert len(output.out) + len(output.err) < 5_000
    assert "note: 290 more runs that cannot be used: restore.py --list shows all" in output.err
    assert "note: 300 manifests that cannot be used: " in output.err
    assert "(291 more)" in output.err
