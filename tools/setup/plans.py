"""The tables of steps: what each verb does to the system, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from tools.setup import account, configuration, folders, keys, purging, releases
from tools.setup.installation import Installation
from tools.setup.steps import Step

Planner = Callable[[Installation], Iterable[Step]]
INSTALL: Sequence[Planner] = (
    account.steps,
    folders.steps,
    releases.steps,
    configuration.steps,
    keys.steps,
)
ROLLBACK: Sequence[Planner] = (releases.rollback,)
UNINSTALL: Sequence[Planner] = (
    releases.uninstall,
    purging.steps,
    account.removal,
)


def steps(table: Sequence[Planner], installation: Installation) -> Iterator[Step]:
    """Give the steps of a table, in its order."""
    for planner in table:
        yield from planner(installation)
