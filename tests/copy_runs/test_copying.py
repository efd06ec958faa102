"""The rules of a copy, between stores in memory."""

from __future__ import annotations

import errno
import json
import os
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from copy_runs import selecting
from copy_runs.comparison import Comparison
from copy_runs.copying import Copier
from copy_runs.transfer import RunCopy
from tests.copy_runs.signed_store import (
    DAY,
    FIRST,
    HOST,
    SECOND,
    THIRD,
    FailingAt,
    Runs,
    contents,
    manifest_names,
)
from tools.base.errors import Cancelled, ConfigError, StoreError
from tools.base.result import Status, worst
from tools.catalog import cleaned, leftovers, manifest, sequence, signers, sshsig, trust, writer_key
from tools.catalog.rotation import Link, next_name, statement
from tools.catalog.trust import Trust
from tools.flow import store
from tools.flow.block_store import BlockStore
from tools.flow.memory_store import MemoryBlocks, MemoryStore, Objects
from tools.flow.retries import Retries

MARKER = f"{HOST}/{FIRST}.UNFINISHED"
PART = f"{HOST}/{FIRST}.DB.one.tar.000"


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


@pytest.fixture
def source(runs: Runs) -> MemoryStore:
    """A store with two runs."""
    memory_store = MemoryStore()
    runs.add(memory_store, FIRST, sequence=1)
    runs.add(memory_store, SECOND, sequence=2)
    return memory_store


def status(steps: list[RunCopy]) -> Status:
    return worst(step.result.status for step in steps)


def replaced(memory_store: MemoryStore, name: str, content: bytes) -> None:
    """Write an object as bit rot, or somebody who can write there, would."""
    memory_store.objects.remove(name)
    memory_store.objects.create(name, content)


# --- what is copied


def test_every_object_is_the_same(runs: Runs, source: MemoryStore) -> None:
    target = MemoryStore()
    planned = runs.copy(source, target, dry_run=True)
    assert not contents(target)
    steps = runs.copy(source, target)
    assert [step.run_id for step in steps] == [FIRST, SECOND]
    assert contents(target) == contents(source)
    assert [step.objects for step in planned] == [step.objects for step in steps] == [7, 7]
    assert [step.size for step in planned] == [step.size for step in steps]
    assert all(step.is_there for step in runs.copy(source, target))


def test_which_runs_are_chosen(runs: Runs, source: MemoryStore) -> None:
    runs.add(source, THIRD, sequence=3, status="failed")
    target = MemoryStore()
    assert [step.run_id for step in runs.copy(source, target, "newest")] == [SECOND]
    assert [step.run_id for step in runs.copy(source, target, FIRST)] == [FIRST]
    assert [step.run_id for step in runs.copy(source, target, "missing")] == [THIRD]
    with pytest.raises(ConfigError, match="no run 20200101_000000"):
        runs.copy(source, target, "20200101_000000")


def test_a_newer_run_that_cannot_be_used_is_named(runs: Runs, source: MemoryStore) -> None:
    """Otherwise an older one would be taken for the newest."""
    source.objects.remove(f"{HOST}/{manifest.name_of(SECOND)}{trust.ENDING}")
    statuses = [
        (one.run_id, one.result.status) for one in runs.copy(source, MemoryStore(), "newest")
    ]
    assert statuses == [(FIRST, Status.OK), (SECOND, Status.INCOMPLETE)]


def test_a_base_comes_first_and_is_added(runs: Runs, source: MemoryStore) -> None:
    """Also where it has the later id: a clock was set back."""
    runs.add(source, "20251231_030000", base=SECOND)
    steps = runs.copy(source, MemoryStore(), "20251231_030000")
    assert [step.run_id for step in steps] == [SECOND, "20251231_030000"]
    assert status(steps) is Status.OK


def test_a_run_whose_base_cannot_be_copied_is_left_out(runs: Runs, source: MemoryStore) -> None:
    runs.add(source, THIRD, base=SECOND)
    source.objects.remove(f"{HOST}/{SECOND}.DB.two.tar.001")
    target = MemoryStore()
    first, second, third = runs.copy(source, target)
    assert [one.result.status.value for one in (first, second, third)] == [
        "ok", "failed", "incomplete",
    ]  # fmt: skip
    assert f"its base {SECOND} in memory is not there" in third.result.message
    assert manifest_names(target) == [FIRST]


@pytest.mark.fault("clean-up removes the base of a run during its copy", "it is not published")
def test_a_base_that_is_removed_during_a_copy(runs: Runs, source: MemoryStore) -> None:
    runs.add(source, THIRD, base=FIRST)

    def removed(call: str, name: str) -> None:
        if call == "publish" and name == f"{HOST}/{THIRD}.DB.two.tar.001":
            target.objects.remove(f"{HOST}/{FIRST}.manifest.json")

    target = MemoryStore(removed)
    *_, third = runs.copy(source, target)
    assert third.result.status is Status.INCOMPLETE
    assert f"removed from memory meanwhile: {HOST}/{FIRST}" in third.result.message
    assert manifest_names(target) == [SECOND]


@pytest.mark.fault("a part is removed from the target during a copy", "it is named, exit 3")
@pytest.mark.parametrize("seconds", [1, 100])
def test_a_part_that_is_removed_during_a_copy(
    runs: Runs, source: MemoryStore, seconds: int
) -> None:
    """Of a copy that takes its time before the manifest, otherwise when all runs are copied."""
    now = [0]

    def removed(call: str, name: str) -> None:
        if call == "publish" and name == f"{HOST}/{FIRST}.DB.two.tar.001":
            target.objects.remove(PART)
            now[0] += seconds

    target = MemoryStore(removed)
    transfer = runs.transfer(source, target, clock=lambda: now[0])
    first, _second = transfer.steps(None)
    there = first.result.status is Status.OK
    assert there == (seconds == 1)
    assert (FIRST in manifest_names(target)) == there
    if there:
        (warning,) = transfer.warnings
        assert f"run {FIRST}: {PART} was removed from memory meanwhile (1 part)" in warning
    target.fault = lambda _call, _name: None
    assert status(runs.copy(source, target)) is Status.OK
    assert contents(target) == contents(source)


def test_statements_about_signers_are_copied_before(runs: Runs, tmp_path: Path) -> None:
    """A reader who knows the first key alone trusts the runs of the second one in the copy."""
    new = writer_key.create(tmp_path / "new.key", HOST)
    text = statement(HOST, new)
    link = Link(next_name(()), text, runs.key.sign(text))
    second = writer_key.read(tmp_path / "new.key")
    runs.key = second.__class__(**{**vars(second), "links": (link,)})
    source, target = MemoryStore(), MemoryStore()
    runs.add(source, FIRST, sequence=1)
    forged = f"{HOST}/20200101T000000Z.signer.json"
    source.objects.create(forged, text)
    source.objects.create(forged + trust.ENDING, b"nothing")
    assert status(runs.copy(source, target)) is Status.OK
    assert runs.catalog(target).claim(FIRST).signer == sshsig.fingerprint(second.public)
    assert set(contents(source)) - set(contents(target)) == {forged, forged + trust.ENDING}


# --- which runs are trusted


@pytest.mark.parametrize("change", ["unsigned", "altered", "unreadable"])
@pytest.mark.fault("a run in the source is not trusted", "named and left out, exit 3")
def test_a_run_that_is_not_trusted(runs: Runs, source: MemoryStore, change: str) -> None:
    name = f"{HOST}/{manifest.name_of(SECOND)}"
    if change == "unsigned":
        source.objects.remove(name + trust.ENDING)
    else:
        text = source.objects.read(name)
        new = text.replace(b'"ok"', b'"no"') if change == "altered" else text[:100]
        replaced(source, name, new)
    target = MemoryStore()
    first, second = runs.copy(source, target)
    assert (first.result.status, second.result.status) == (Status.OK, Status.INCOMPLETE)
    assert SECOND in second.result.message
    assert manifest_names(target) == [FIRST]


def test_unsigned_runs_on_request(runs: Runs) -> None:
    source, target = MemoryStore(), MemoryStore()
    runs.add(source, FIRST, signed=False)
    assert status(runs.copy(source, target)) is Status.INCOMPLETE
    assert status(runs.copy(source, target, trust=Trust(allow_unsigned=True))) is Status.OK
    assert contents(source) == contents(target)


def test_a_run_of_the_future_is_copied_by_its_id_alone(runs: Runs) -> None:
    source, target = MemoryStore(), MemoryStore()
    runs.add(source, "20990101_030000")
    (step,) = runs.copy(source, target)
    assert step.result.status is Status.INCOMPLETE
    assert "dated in the future" in step.result.message
    assert status(runs.copy(source, target, "20990101_030000")) is Status.OK


# --- damage and failures


@pytest.mark.parametrize("change", ["altered", "truncated", "missing", "sheet"])
@pytest.mark.fault("an object of a run is damaged in the source", "named; it is never published")
def test_damage_in_the_source(runs: Runs, source: MemoryStore, change: str) -> None:
    name = f"{HOST}/{FIRST}{manifest.RECOVERY}" if change == "sheet" else PART
    text = source.objects.read(name)
    source.objects.remove(name)
    if change != "missing":
        source.objects.create(name, b"x" * len(text) if change != "truncated" else text[:9])
    target = MemoryStore()
    first, second = runs.copy(source, target)
    assert second.result.status is Status.OK
    assert name not in contents(target)
    if change == "sheet":
        assert first.result.status is Status.INCOMPLETE
        assert "RECOVERY.txt: was altered; the run was copied without it" in str(first.result)
    else:
        assert first.result.status is Status.FAILED
        assert PART in first.result.message
    assert manifest_names(target) == ([FIRST, SECOND] if change == "sheet" else [SECOND])


@pytest.mark.parametrize("call", ["put", "put end", "publish", "get", "entries", "remove"])
@pytest.mark.fault("a store fails at any call of a copy", "the next copy completes it")
def test_a_target_that_fails_at_any_call(runs: Runs, call: str) -> None:
    source = MemoryStore()
    runs.add(source, FIRST, sequence=1, names=("one",))
    for number in range(1, 50):
        objects = Objects()
        fault = FailingAt(number, [call])
        try:
            runs.copy(source, MemoryStore(fault, objects))
        except OSError:
            assert call == "entries", "the target could not be listed: nothing was begun"
        good = MemoryStore(objects=objects)
        for run_id in manifest_names(good):
            lack = Comparison(runs.catalog(source), runs.catalog(good)).lack(run_id)
            assert not lack.objects, "where a manifest is, all of its run is"
        assert status(runs.copy(source, good)) is Status.OK
        names = {name for name in contents(good) if name != MARKER}
        assert names == set(contents(source))
        if not fault.was_reached:
            return
    raise AssertionError(call)


@pytest.mark.fault("the target of a copy is full", "one error, runs before it are complete, exit 1")
def test_a_full_target(runs: Runs, source: MemoryStore) -> None:
    runs.add(source, THIRD, sequence=3)

    def full(call: str, name: str) -> None:
        if call == "put" and f"{SECOND}.DB.two" in name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    target = MemoryStore(full)
    transfer = runs.transfer(source, target)
    first, second = transfer.steps(None)
    assert first.result.status is Status.OK
    assert second.result.message == "memory: No space left on device"
    assert transfer.warnings == ["1 more run not tried"]
    assert manifest_names(target) == [FIRST]


def test_a_source_that_does_not_answer(runs: Runs, source: MemoryStore) -> None:
    """It is given up after three runs: each would take minutes."""
    for day in range(3, 9):
        runs.add(source, f"2026010{day}_030000", sequence=day)

    def down(call: str, name: str) -> None:
        if call == "get" and ".tar." in name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)

    source.fault = down
    transfer = runs.transfer(source, MemoryStore())
    assert [step.result.status.value for step in transfer.steps(None)] == ["failed"] * 3
    assert transfer.warnings == ["5 more runs not tried"]


MANY = 20  # parts: from some number on several are copied at once


def test_many_small_parts(runs: Runs) -> None:
    source, target = MemoryStore(), MemoryStore()
    runs.add(source, FIRST, names=("one",), parts=MANY)
    seen: list[int] = []
    pair = Comparison(runs.catalog(source), runs.catalog(target))
    lack = pair.lack(FIRST)
    Copier(pair, all_times=False).copy(lack, seen.append)
    assert contents(target) == contents(source)
    assert seen == sorted(seen)
    assert (len(seen), seen[-1]) == (MANY, lack.size)


@pytest.mark.parametrize("where", ["source", "target"])
def test_one_of_many_small_parts(runs: Runs, where: str) -> None:
    """One that fails ends the run; what is there already is used by the next copy."""
    source, objects = MemoryStore(), Objects()
    runs.add(source, FIRST, names=("one",), parts=MANY)
    bad = f"{HOST}/{FIRST}.DB.one.tar.007"

    def broken(call: str, name: str) -> None:
        if call == {"source": "get", "target": "put"}[where] and name == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)

    if where == "source":
        source.fault = broken
    (step,) = runs.copy(source, MemoryStore(broken, objects))
    assert step.result.status is Status.FAILED
    assert not manifest_names(MemoryStore(objects=objects))
    source.fault = lambda _call, _name: None
    assert status(runs.copy(source, MemoryStore(objects=objects))) is Status.OK
    assert contents(MemoryStore(objects=objects)) == contents(source)


def test_a_target_that_takes_nothing(runs: Runs, source: MemoryStore) -> None:
    def down(call: str, name: str) -> None:
        if call == "put":
            raise StoreError("memory: connection refused")

    transfer = runs.transfer(source, MemoryStore(down))
    (step,) = transfer.steps(None)
    assert (step.result.status, step.result.message) == (
        Status.FAILED, "memory: connection refused",
    )  # fmt: skip
    assert transfer.warnings == ["1 more run not tried"]


# --- a copy that was killed


def killed(runs: Runs, source: MemoryStore, objects: Objects) -> None:
    """A copy that ends at the last part of the first run."""

    def fault(call: str, name: str) -> None:
        if call == "put" and name.endswith("two.tar.001"):
            raise Cancelled(9)

    with pytest.raises(Cancelled):
        runs.copy(source, MemoryStore(fault, objects))
    assert objects.has(MARKER)


def remarked(objects: Objects, **changes: object) -> None:
    """Write another marker in the place of that of the killed copy."""
    marked = json.loads(objects.read(MARKER))
    objects.remove(MARKER)
    objects.create(MARKER, json.dumps({**marked, **changes}).encode())


@pytest.mark.parametrize("by", ["this machine", "another machine", "this process"])
@pytest.mark.fault("a copy is killed", "its parts stay marked; the next copy continues with them")
def test_a_copy_that_was_killed(runs: Runs, source: MemoryStore, by: str) -> None:
    objects = Objects()
    killed(runs, source, objects)
    if by != "this process":
        remarked(objects, started="1", **({"machine": "x"} if by != "this machine" else {}))
    sent: list[str] = []
    target = MemoryStore(lambda call, name: sent.append(name) if call == "put" else None, objects)
    assert status(runs.copy(source, target)) is Status.OK
    assert contents(target) == contents(source)
    assert PART not in sent


@pytest.mark.parametrize("who", ["a run elsewhere", "a run here", "a copy here"])
def test_what_is_being_written_is_left_alone(runs: Runs, source: MemoryStore, who: str) -> None:
    """The manifest of a run must never be that of a copy: the run itself could not end."""
    objects = Objects()
    killed(runs, source, objects)
    parent = {"process": os.getppid(), "started": _started(os.getppid())}
    remarked(
        objects,
        **({"machine": "x"} if who == "a run elsewhere" else parent),
        copy=who == "a copy here",
    )
    target = MemoryStore(objects=objects)
    first, second = runs.copy(source, target)
    assert (first.result.status, second.result.status) == (Status.INCOMPLETE, Status.OK)
    assert "is writing it into memory" in first.result.message
    assert manifest_names(target) == [SECOND]


def _started(process: int) -> str:
    status = Path(f"/proc/{process}/stat").read_text()
    return status.rpartition(")")[2].split()[19]


@pytest.mark.parametrize("alive", [True, False])
def test_the_sweep_of_a_run_during_a_copy(runs: Runs, source: MemoryStore, alive: bool) -> None:
    """The parts of a copy in progress stay; those of a dead one go once they are old enough."""
    objects = Objects(clock=lambda: time.time() - 2 * DAY)
    killed(runs, source, objects)
    objects.clock = time.time
    if not alive:
        remarked(objects, started="1")
        objects.clock = lambda: time.time() + 2 * DAY
    target = MemoryStore(objects=objects)
    removed = leftovers.remove_crashed_runs(runs.catalog(target), THIRD, DAY)
    assert (MARKER in removed, PART in removed) == (not alive, not alive)


@pytest.mark.fault("a copy takes days", "its marker is written anew each day")
def test_the_marker_of_a_long_copy(runs: Runs, source: MemoryStore) -> None:
    now = [0.0]
    marks: list[str] = []

    def seen(call: str, name: str) -> None:
        if call == "put" and name == MARKER:
            marks.append(name)
        if call == "put" and ".DB." in name:
            now[0] += DAY + 1

    target = MemoryStore(seen)
    pair = Comparison(runs.catalog(source), runs.catalog(target))
    copier = Copier(pair, all_times=False, clock=lambda: now[0])
    copier.copy(pair.lack(FIRST), lambda _size: None)
    assert len(marks) == 4, "before the first part, and before each further one"
    assert not target.objects.has(MARKER)


# --- runs that are in both stores


def test_parts_that_are_missing_are_filled_in(runs: Runs, source: MemoryStore) -> None:
    target = MemoryStore()
    runs.copy(source, target)
    signature = f"{HOST}/{manifest.name_of(FIRST)}{trust.ENDING}"
    for name in (PART, f"{HOST}/{FIRST}{manifest.RECOVERY}", signature):
        target.objects.remove(name)
    assert not runs.copy(source, target, "missing"), "its manifest is there"
    first, second = runs.copy(source, target)
    assert first.result.message.startswith("filled in: 3 objects")
    assert second.is_there
    assert contents(target) == contents(source)


def test_a_damaged_part_in_the_target_is_never_replaced(runs: Runs, source: MemoryStore) -> None:
    target = MemoryStore()
    runs.copy(source, target)
    replaced(target, PART, b"short")
    first, _second = runs.copy(source, target)
    assert first.result.status is Status.FAILED
    assert f"{PART}: object exists with different content" in first.result.message
    assert target.objects.read(PART) == b"short"


def test_parts_of_nobody_with_other_content(runs: Runs, source: MemoryStore) -> None:
    """Of the right size, under the names of a run that the target does not have."""
    target = MemoryStore()
    target.objects.create(PART, b"x" * len(source.objects.read(PART)))
    first, second = runs.copy(source, target)
    assert (first.result.status, second.result.status) == (Status.FAILED, Status.OK)
    assert "SHA-256 mismatch" in first.result.message
    assert "remove it from the store, and copy again" in first.result.hint


def test_each_store_of_a_run_has_its_own_manifest(runs: Runs) -> None:
    """One that lists the same items is as good; what another one lacks is named."""
    source, same, less = MemoryStore(), MemoryStore(), MemoryStore()
    runs.add(source, FIRST, sequence=1)
    runs.add(same, FIRST, sequence=1, end="2026-01-01T04:00:00Z")
    runs.add(less, FIRST, sequence=1, names=("one",), missing=("DB/two",))
    same.objects.remove(PART)
    less.objects.remove(PART)
    (good,) = runs.copy(source, same)
    assert (good.result.status, good.objects) == (Status.OK, 1)
    (step,) = runs.copy(source, less)
    assert (step.result.status, step.objects) == (Status.INCOMPLETE, 1)
    assert "has another manifest of it, without DB/two: manifests are never replaced" in str(
        step.result.warnings
    )


def test_another_manifest_that_is_not_trusted(runs: Runs, source: MemoryStore) -> None:
    target = MemoryStore()
    runs.add(target, FIRST, names=("one",), signed=False)
    first, second = runs.copy(source, target)
    assert (first.result.status, second.result.status) == (Status.INCOMPLETE, Status.OK)
    assert "has another manifest of it" in first.result.message


# --- the numbers of runs


def test_a_store_that_is_filled_up_raises_no_alarm(runs: Runs) -> None:
    source, target = MemoryStore(), MemoryStore()
    for memory_store in (source, target):
        runs.add(memory_store, FIRST, sequence=1)
    digest = runs.catalog(source).claim(FIRST).sha256
    runs.add(source, SECOND, sequence=2, previous_run=FIRST, previous=(digest,))
    digest = runs.catalog(source).claim(SECOND).sha256
    for memory_store in (source, target):
        runs.add(memory_store, THIRD, sequence=3, previous_run=SECOND, previous=(digest,))
    assert status(runs.copy(source, target)) is Status.OK
    sequence.require(runs.catalog(target), 3)
    assert manifest_names(target) == [FIRST, SECOND, THIRD]


@pytest.mark.parametrize("kind", ["number", "previous"])
def test_a_run_that_would_raise_an_alarm_is_left_out(runs: Runs, kind: str) -> None:
    source, target = MemoryStore(), MemoryStore()
    runs.add(target, FIRST, sequence=1)
    number = 1 if kind == "number" else 2
    runs.add(source, SECOND, previous_run=FIRST, previous=("0" * 64,), sequence=number)
    (step,) = runs.copy(source, target)
    assert step.result.status is Status.INCOMPLETE
    assert "a restore from memory would fail with" in step.result.message
    sequence.require(runs.catalog(target))
    assert manifest_names(target) == [FIRST]


# --- the time of a copy


def old(runs: Runs, *run_ids: str) -> MemoryStore:
    """A store whose runs were stored when their ids say."""
    memory_store = MemoryStore()
    for run_id in run_ids:
        moment = datetime.strptime(run_id, "%Y%m%d_%H%M%S").replace(tzinfo=timezone.utc)
        memory_store.objects.clock = moment.timestamp
        runs.add(memory_store, run_id)
    memory_store.objects.clock = time.time
    return memory_store


def time_of(runs: Runs, location: store.Store, run_id: str) -> datetime:
    return runs.catalog(location).stored_at(run_id)


@pytest.mark.parametrize("all_times", [False, True])
def test_a_copy_keeps_the_time_of_its_original(runs: Runs, all_times: bool) -> None:
    """Not where the target has a newer run: a source could date its runs before those."""
    source, target = old(runs, FIRST, SECOND, THIRD), old(runs, SECOND)
    runs.copy(source, target, all_times=all_times)
    is_kept = [
        abs(time_of(runs, target, run_id) - time_of(runs, source, run_id)).total_seconds() < 5
        for run_id in (FIRST, SECOND, THIRD)
    ]
    assert is_kept == [all_times, True, True]


def test_an_interrupted_copy_keeps_all_times(runs: Runs) -> None:
    """A run that took longer than those that began after it is copied after them."""
    source, objects = MemoryStore(), Objects()
    for days, run_id in ((10, SECOND), (9, FIRST), (8, THIRD)):
        source.objects.clock = lambda ago=days: time.time() - ago * DAY  # type: ignore[misc]
        runs.add(source, run_id)
    source.objects.clock = time.time
    steps = runs.transfer(source, MemoryStore(objects=objects)).steps(None)
    assert next(steps).run_id == SECOND
    steps.close()  # type: ignore[attr-defined]
    target = MemoryStore(objects=objects)
    assert [step.run_id for step in runs.copy(source, target, "missing")] == [FIRST, THIRD]
    for run_id in (FIRST, SECOND, THIRD):
        difference = time_of(runs, target, run_id) - time_of(runs, source, run_id)
        assert abs(difference.total_seconds()) < 60


def test_a_store_that_keeps_no_times(runs: Runs) -> None:
    """And a signer that has ended since: nobody would trust the copy."""
    source, target = old(runs, FIRST), BlockStore(MemoryBlocks(), Retries(0))
    expired = runs.line.replace('namespaces="', 'valid-before="20260201Z",namespaces="')
    assert expired != runs.line
    until = Trust(signers.Signers(tuple(signers.of_text(expired, "test"))))
    assert runs.catalog(source, until).claim(FIRST).untrusted is None
    (step,) = runs.copy(source, target, trust=until)
    assert step.result.status is Status.INCOMPLETE
    assert "its copy would count as stored now, and not be trusted" in step.result.message
    assert not list(target.entries(HOST))
    assert status(runs.copy(source, MemoryStore(), trust=until)) is Status.OK
    assert status(runs.copy(source, target)) is Status.OK
    assert abs(time_of(runs, target, FIRST).timestamp() - time.time()) < 60


# --- catching up


@pytest.mark.parametrize(
    ("there", "missed"),
    [
        ("", "123456"),
        ("12", "3456"),
        ("135", "246"),
        ("1256", "34"),
        ("456", ""),  # 1, 2 and 3 may have been cleaned away
        ("3456", ""),
    ],
)
def test_which_runs_a_store_has_missed(runs: Runs, there: str, missed: str) -> None:
    source, target = MemoryStore(), MemoryStore()
    for day in "123456":
        runs.add(source, f"2026010{day}_030000", names=("one",), parts=1)
        if day in there:
            runs.add(target, f"2026010{day}_030000", names=("one",), parts=1)
    runs.add(source, "20260107_030000", config_id="b", names=("one",), parts=1)
    pair = Comparison(runs.catalog(source), runs.catalog(target))
    run_ids = [run_id for run_id in selecting.recent(pair, "a") if pair.lack(run_id).objects]
    assert [run_id[7] for run_id in run_ids] == list(missed)


# --- items that clean-up has removed


def test_an_item_that_was_cleaned_away(runs: Runs, source: MemoryStore) -> None:
    """The run is copied without it, and the note with the run; pins stay where they are."""
    cleaned.note(source, HOST, FIRST, (), ["DB/one"])
    cleaned.pin(source, HOST, FIRST, "")
    for number in range(2):
        source.objects.remove(f"{HOST}/{FIRST}.DB.one.tar.00{number}")
    target = MemoryStore()
    assert status(runs.copy(source, target)) is Status.OK
    pin = f"{HOST}/{FIRST}{cleaned.PIN}"
    assert {**contents(target), pin: b"\n"} == contents(source)
    assert [item.label for item in runs.catalog(target).manifest(FIRST).cleaned] == ["DB/one"]
    assert all(step.is_there for step in runs.copy(source, target))


def test_what_the_target_has_cleaned_away_stays_away(runs: Runs, source: MemoryStore) -> None:
    target = MemoryStore()
    runs.copy(source, target)
    cleaned.note(target, HOST, FIRST, (), ["DB/one"])
    target.objects.remove(PART)
    assert all(step.is_there for step in runs.copy(source, target))
    assert PART not in contents(target)
