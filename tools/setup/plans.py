"""The tables of steps: what install and uninstall do, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from tools.setup import account, folders
from tools.setup.installation import Installation
from tools.setup.steps import Step

Planner = Callable[[Installation], Iterable[Step]]
INSTALL: Sequence[Planner] = (
    account.steps,
    folders.steps,
)
UNINSTALL: Sequence[Planner] = (account.removal,)


def steps(table: Sequence[Planner], installation: Installation) -> Iterator[Step]:
    """Give the steps of a table, in its order."""
    for planner in table:
        yield from planner(installation)
