"""The tables of steps: what each verb does to the system, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from tools.setup import (
    account,
    adopt,
    configuration,
    folders,
    keys,
    private_tar,
    purging,
    releases,
    schedule,
    sudoers,
)
from tools.setup.installation import Installation
from tools.setup.steps import Step

Planner = Callable[[Installation], Iterable[Step]]
INSTALL: Sequence[Planner] = (
    account.steps,
    folders.steps,
    releases.steps,
    configuration.steps,
    keys.steps,
    private_tar.steps,
    sudoers.steps,
    schedule.steps,
    adopt.notices,
)
ADOPT: Sequence[Planner] = (
    account.steps,
    adopt.folder_steps,
    private_tar.steps,
    sudoers.steps,
    adopt.sudoers_steps,
    schedule.steps,
    adopt.cron_steps,
    adopt.mode_steps,
    adopt.config_steps,
)
ROLLBACK: Sequence[Planner] = (releases.rollback,)
UNINSTALL: Sequence[Planner] = (
    purging.question,
    schedule.uninstall,
    sudoers.removal,
    private_tar.removal,
    releases.uninstall,
    purging.steps,
    account.removal,
)


def steps(table: Sequence[Planner], installation: Installation) -> Iterator[Step]:
    """Yield the steps of a table, in its order."""
    for planner in table:
        yield from planner(installation)
