"""The plan of clean-up as people read it."""

from __future__ import annotations

from cleanup import cleaning
from cleanup.cleaning import Cleaning
from tools.base import foreign
from tools.date_str_utils import count, human_size
from tools.reporting import terminal

_HEADER = ("run", "stored (UTC)", "decision", "reason", "freed")


def show(plan: Cleaning) -> None:
    """Print a table of all runs, oldest first, and what would be freed."""
    reasons = cleaning.reasons(plan)
    going = {one.run_id: one for one in plan.removals}
    rows = []
    for run in plan.found.runs:
        one = going.get(run.run_id)
        decision = "keep" if one is None else "remove" if one.whole else "remove items"
        why = run.problem or reasons.get(run.run_id, "")
        if run.pinned:
            why = "pinned"
        if one is not None and not one.whole:
            why = f"{', '.join(one.labels)} ({why})"
        freed = "-" if one is None else human_size(one.size)
        rows.append((run.run_id, f"{run.stored:%Y-%m-%d %H:%M}", decision, why, freed))
    terminal.table(_HEADER, rows)
    text = f"{plan.catalog.store}, host {plan.catalog.host}: {plan.summary()}"
    terminal.say(foreign.line(f"{text}, {human_size(plan.size)} in all"))
    for run_id in plan.plan.named:
        text = f"run {run_id}: its id and the time of its manifest in the store are far apart"
        terminal.say(f"note: {text}: it is kept, and counts for no rule", error=True)
    if len(plan.found.obstacles) > 1:
        names = ", ".join(plan.found.obstacles)
        number = count(len(plan.found.obstacles), "manifest")
        terminal.say(f"note: {number} that cannot be used: {names}", error=True)
