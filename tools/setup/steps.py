"""Steps: what setup.py does to a system, as data. Who adds a step needs this file alone.

A step says in one line what it would do, whether that is needed and why, and does it. From these
follow all that an installer has to keep, once and here:

* a second run does nothing, and finishes what a killed one left: `reason` looks at the system
* `--dry-run` prints the steps that are needed, and performs none
* `setup.py check` shows the same steps as findings (`findings`)

To add steps, write a function that takes the `Installation` and gives steps, and put it into the
tables `INSTALL` and `UNINSTALL` of tools/setup/plans.py, at its place in the order:

    def steps(installation: Installation) -> Iterator[Step]:
        path = installation.at("/etc/cron.d/nc-backup-py")
        yield Step(
            subject="schedule",
            action=f"write {path}, 03:00 every night",
            reason=lambda: "" if path.exists() else "there is none",
            perform=lambda: write(path),
        )

A generator is advanced after its last step was performed, so it may look at the result; in a dry
run nothing was performed, and later steps are printed as if it had been. The rules:

* `reason` reads, and never writes. It may take 0.5 s, and may not raise for what is missing.
* `perform` leaves nothing half done under a final name: write a temporary name, then rename.
  It raises BackupError (one line and a hint) or OSError; then no later step is performed.
* What the operator must read at the end goes into `installation.notices`, not onto the screen:
  it is printed after the last step, and also after a failed one.
* With `--prefix` (`not installation.real`): no users, owners, daemons or programs of the system.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tools.base.finding import Finding, bad
from tools.base.foreign import printable


@dataclass(frozen=True)
class Step:
    """One change of the system.

    subject: what it is about, as findings name it: "user ncbackup", "/opt/backup"
    action:  what performing it does, in the imperative: "create it, mode 0700"
    reason:  returns why it is needed; "" where all is as it should be
    perform: does it; raises BackupError, OSError
    """

    subject: str
    action: str
    reason: Callable[[], str]
    perform: Callable[[], None]


def perform(steps: Iterable[Step], *, dry_run: bool = False) -> int:
    """Perform what is needed, each announced by a line; return the number of these steps.

    dry_run: only print the lines, with the reasons. Raises BackupError, OSError.
    """
    count = 0
    for step in steps:
        reason = step.reason()
        if not reason:
            continue
        count += 1
        line = f"{step.subject}: {step.action}"
        sys.stdout.write(printable(f"{line} ({reason})" if dry_run else line) + "\n")
        sys.stdout.flush()
        if not dry_run:
            step.perform()
    return count


def findings(steps: Iterable[Step], hint: str, fix: str = "") -> list[Finding]:
    """Return a finding for each step: OK, or BAD with its reason, the hint and the command."""
    lines = []
    for step in steps:
        reason = step.reason()
        text = f"{step.subject}: {reason}"
        lines.append(bad(text, hint, fix) if reason else Finding(step.subject))
    return lines
