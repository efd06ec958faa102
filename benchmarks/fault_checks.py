"""The oracle of the fault sweep: what must hold after a command that had a fault."""

from __future__ import annotations

import re
from collections.abc import Iterator

from benchmarks.fault_calls import LIMIT, Outcome
from benchmarks.fault_lab import HOST, BackupLab, Lab
from tools.catalog import manifest

_STORED = (0, 3, 4, 5)  # exit codes of a run that has stored
_INCOMPLETE = 3
_BUG = ("Traceback (most recent call last)", "internal error", "crashed: ")


def always(lab: Lab, outcome: Outcome) -> Iterator[str]:
    """Yield what is wrong whatever the command was: a hang, a traceback, a harmed older run."""
    if outcome.code is None:
        yield f"no end within {LIMIT:g} s"
    elif outcome.code < 0:
        yield f"ended by signal {-outcome.code}"
    if not outcome.outside(lab.live):  # a Python that cannot read its own files says so
        text = outcome.text + lab.log()
        yield from (f"says {bug!r}" for bug in _BUG if bug in text)
    yield from lab.harmed()


def after_run(lab: BackupLab, outcome: Outcome) -> Iterator[str]:
    """Yield what is wrong after a run with a fault, and after the next one without."""
    yield from always(lab, outcome)
    old = lab.pristine / "store" / HOST
    new = [run for run in lab.runs() if not (old / manifest.name_of(run)).exists()]
    if outcome.code in _STORED:
        if not new:
            yield f"exit {outcome.code}, and no run is there"
        for run in new:
            yield from restored(lab, outcome, run)
    yield from next_run(lab)


def restored(lab: BackupLab, outcome: Outcome, run: str) -> Iterator[str]:
    """Yield what is wrong with a restore of a run that says that it is stored."""
    code = lab.restore(run)
    different = lab.differences()
    if code not in (0, _INCOMPLETE) or (code == _INCOMPLETE and outcome.code != _INCOMPLETE):
        yield f"exit {outcome.code}, and its restore ends with {code}"
    text = outcome.text + lab.text()
    yield from (
        f"exit {outcome.code}, and {path} is not as in the source"
        for path in different
        if outcome.code != _INCOMPLETE or not named(lab, path, text)
    )


def named(lab: BackupLab, path: str, text: str) -> bool:
    """Return whether a text names a path of the source, or a folder above it, as tar does."""
    whole = lab.source / path
    above = [one for one in whole.parents if one.is_relative_to(lab.source)]
    return any(
        re.search(rf"{re.escape(str(one).lstrip('/'))}/?(?![/\w])", text) for one in (whole, *above)
    )


def next_run(lab: BackupLab) -> Iterator[str]:
    """Yield what is wrong with the next run, which has no fault."""
    code = lab.run()
    text = lab.text()
    if code not in (0, _INCOMPLETE):
        yield f"the next run ends with {code}: {text.strip()[-200:]}"
        return
    run = lab.runs()[-1]
    if lab.restore(run) != code or lab.differences():
        yield f"the next run ends with {code}, and is not as the source"
    yield from lab.harmed()
    yield from lab.leftovers()


def after_decryption(lab: BackupLab, outcome: Outcome) -> Iterator[str]:
    """Yield what is wrong after a decryption with a fault."""
    yield from always(lab, outcome)
    expected = lab.live / "expected"
    if lab.decrypt(expected) != 0:
        yield f"the next decryption fails: {lab.text()[-200:]}"
        return
    if outcome.code == 0 and not lab.out.exists():
        yield "exit 0, and nothing is there"
    elif lab.out.exists() and lab.out.read_bytes() != expected.read_bytes():
        yield f"exit {outcome.code}, and the result is not what was encrypted"


def after_restore(lab: BackupLab, outcome: Outcome) -> Iterator[str]:
    """Yield what is wrong after a restore with a fault."""
    yield from always(lab, outcome)
    if outcome.code in (0, _INCOMPLETE):
        yield from (
            f"exit {outcome.code}, and {path} is not as in the source"
            for path in lab.differences()
            if outcome.code == 0 or not named(lab, path, outcome.text)
        )
    elif (lab.out / lab.flow.source).exists() and lab.differences():
        yield f"exit {outcome.code}, and a part of an item has its final name"
    if lab.restore("latest") != 0 or lab.differences():
        yield f"the next restore fails: {lab.text()[-200:]}"
