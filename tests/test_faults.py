"""A seeded part of the sweep of system-call faults (benchmarks/faults.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import faults

SEED = 13


@pytest.mark.slow
@pytest.mark.needs("strace")
@pytest.mark.fault(
    "100 seeded faults of system calls: ENOSPC, EIO, EACCES, EINTR, ENOMEM ...",
    "a run that says stored can be restored; older runs are intact; no traceback, no hang",
)
@pytest.mark.parametrize(
    ("flow", "count"),
    [
        ("streamed", 9),
        ("sqlite", 6),
        ("staged", 2),
        ("restore", 10),
        ("verify", 14),
        ("decrypt", 56),
        ("cleanup", 1),
        ("copy", 1),
        ("rollback", 1),
    ],
)
def test_seeded_faults(tmp_path: Path, flow: str, count: int) -> None:
    """Issue 13: the part of `python3 benchmarks/faults.py` that runs each time."""
    task = faults.Task(flow, count, SEED, signals=False, folder=str(tmp_path))
    judged = faults.faults(task)
    assert len(judged) == count
    assert not [(one.fault, one.code, one.wrong, one.text) for one in judged if one.wrong]


@pytest.mark.slow
@pytest.mark.fault(
    "SIGKILL or SIGTERM at seeded moments of a run", "the next run works; older runs are intact"
)
@pytest.mark.parametrize(("flow", "count"), [("streamed", 2), ("staged", 1)])
def test_seeded_signals(tmp_path: Path, flow: str, count: int) -> None:
    """Issue 13: as above, with --signals."""
    task = faults.Task(flow, count, SEED, signals=True, folder=str(tmp_path))
    judged = faults.faults(task)
    assert not [(one.fault, one.code, one.wrong, one.text) for one in judged if one.wrong]
