"""Limits of sections: they end the wait of a thread, and what has stalled alone."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.base.errors import BackupError
from tools.config.model import Section
from tools.engine import limits, workers
from tools.engine.limits import Limits
from tools.engine.workers import Job, SourceState, Workers
from tools.flow.fan_out import FanOut, StoreProgress
from tools.flow.item import Item, ItemReport
from tools.flow.memory_store import MemoryStore
from tools.flow.task import StoppedError

_HUNG = threading.Event()  # never set


def _job(source: SourceState, name: str) -> Job:
    return Job(source, Item(name, "file", lambda _head: "", lambda: iter(()), ItemReport))


def _state(**bounds: float) -> SourceState:
    section = Section("DB", "conf.json:1", action="execute", file=Path("/x"))
    return SourceState(section, Limits("DB", **bounds))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_LINGER", 0.0)
    monkeypatch.setattr(workers, "_TICK", 0.01)


def _run(jobs: list[Job], perform: Callable[[Job], None]) -> tuple[list[str], dict[str, str]]:
    """Return the names of the jobs that were done, and why the others were lost."""
    done: list[str] = []
    failures: dict[str, str] = {}

    def work(job: Job) -> None:
        try:
            job.count(0)
            perform(job)
        except BackupError as error:
            failures[job.item.name] = str(error)
        else:
            done.append(job.item.name)

    Workers(work, lambda job, error: failures.update({job.item.name: str(error)})).run(
        jobs, 1, lambda: None
    )
    return done, failures


@pytest.mark.fault("one item of a source moves no data any more", "it fails, the others are stored")
def test_a_stall_ends_its_item_alone() -> None:
    source = _state(stall=0.05)

    def perform(job: Job) -> None:
        if job.item.name == "b":
            _HUNG.wait()

    done, failures = _run([_job(source, name) for name in "abc"], perform)
    assert done == ["a", "c"]
    assert failures == {"b": "no data for 0.05 s (STALL_TIMEOUT)"}


@pytest.mark.fault(
    "a thread waits in Python longer than TIMEOUT", "its item fails, the run goes on"
)
@pytest.mark.parametrize("bound", ["timeout", "deadline"])
def test_a_limit_of_the_section_ends_the_wait_of_a_thread(bound: str) -> None:
    """The second one is not even begun; another section goes on."""
    slow, other = _state(**{bound: 0.05}), _state()

    def perform(job: Job) -> None:
        if job.source is slow:
            _HUNG.wait()

    done, failures = _run([_job(slow, "a"), _job(slow, "b"), _job(other, "c")], perform)
    assert done == ["c"]
    assert set(failures) == {"a", "b"}
    assert ("TIMEOUT of 0.05 s" if bound == "timeout" else "MAX_RUNTIME") in failures["b"]


def test_a_job_has_one_result() -> None:
    job = _job(_state(), "a")
    assert [job.settle(), job.settle()] == [True, False]


def test_what_a_call_returns_and_raises_comes_through() -> None:
    assert limits.within(Limits("DB"), lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        limits.within(Limits("DB"), lambda: 1 // 0)


@pytest.mark.parametrize("bound", [{"timeout": 0.05}, {"stall": 0.05}, {"deadline": 0.0}])
def test_a_call_that_never_returns(bound: dict[str, float]) -> None:
    with pytest.raises(StoppedError, match=r"TIMEOUT|MAX_RUNTIME"):
        limits.within(Limits("DB", **bound), _HUNG.wait)


def test_counters_that_threads_share() -> None:
    """Items that end at the same moment: none of their parts and bytes is lost."""
    progress = StoreProgress("STORE", MemoryStore())
    numbers = itertools.count()

    def flow() -> None:
        for _ in range(20):
            with FanOut([progress]) as fan_out:
                fan_out.put(f"h/{next(numbers)}", [b"xyz"])
                fan_out.confirm()
                fan_out.publish()

    threads = [threading.Thread(target=flow) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (progress.parts, progress.size) == (80, 240)
