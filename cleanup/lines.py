"""The plan of clean-up as people read it."""

from __future__ import annotations

from cleanup import cleaning
from cleanup.cleaning import FEW, Cleaning
from tools.base import foreign
from tools.date_str_utils import count, human_size
from tools.reporting import terminal

_HEADER = ("run", "stored (UTC)", "decision", "reason", "freed")


def show(plan: Cleaning) -> None:
    """Print a table of all runs, oldest first, and what would be freed."""
    reasons = cleaning.reasons(plan)
    going = {removal.run_id: removal for removal in plan.removals}
    rows = []
    unusable = [run.run_id for run in plan.inventory.runs if run.problem]
    hidden = set(unusable[FEW:])
    for run in plan.inventory.runs:
        if run.run_id in hidden:
            continue
        removal = going.get(run.run_id)
        decision = "keep" if removal is None else "remove" if removal.is_whole else "remove items"
        why = run.problem or reasons.get(run.run_id, "")
        if run.pinned:
            why = "pinned"
        if removal is not None and not removal.is_whole:
            why = f"{', '.join(removal.labels)} ({why})"
        freed = "-" if removal is None else human_size(removal.size)
        rows.append((run.run_id, f"{run.stored:%Y-%m-%d %H:%M}", decision, why, freed))
    terminal.table(_HEADER, rows)
    if hidden:
        text = f"{count(len(hidden), 'more run')} that cannot be used: restore.py --list shows all"
        terminal.say(f"note: {text}", error=True)
    text = f"{plan.catalog.store}, host {plan.catalog.host}: {plan.summary()}"
    terminal.say(foreign.line(f"{text}, {human_size(plan.size)} in all"))
    apart = "its id and the time of its manifest in the store are far apart"
    for text in foreign.listing((f"run {run_id}: {apart}" for run_id in plan.plan.named), FEW):
        terminal.say(f"note: {text}: it is kept, and counts for no rule", error=True)
    if len(plan.inventory.obstacles) > 1:
        names = ", ".join(foreign.listing(plan.inventory.obstacles, FEW))
        number = count(len(plan.inventory.obstacles), "manifest")
        terminal.say(f"note: {number} that cannot be used: {names}", error=True)
