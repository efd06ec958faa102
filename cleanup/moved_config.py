"""Runs from before conf.json was moved: a config is known by its path, so they count separately.

The operator may say that they are those of the config as it is now. Only runs that are older than
its first one can be: two configs in use may have items of the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tools.base import foreign, run_ids
from tools.base.errors import ConfigError
from tools.catalog.manifest import Manifest


@dataclass(frozen=True)
class Adopted:
    """Whose runs an earlier config has made. until: the newest run that counts so"""

    config_id: str
    until: str


@dataclass(frozen=True)
class EarlierConfig:
    """Another config. file: its path, from its newest run"""

    file: str
    newest: str

    def line(self) -> str:
        """Return the line of reports about it."""
        file = foreign.line(self.file)
        return (
            f"the runs of the config {file} count separately, the newest is {self.newest}: its "
            f"last copies stay. If that was this config before it was moved: cleanup.py "
            f"--adopt-config {foreign.argument(self.file)}"
        )


def config_of(run: Manifest, adopted: Mapping[str, Adopted]) -> str:
    """Return the id of the config that a run counts for."""
    config_id, seen = run.config_id, set[str]()
    while config_id not in seen and (by := adopted.get(config_id)) and run.run_id <= by.until:
        seen.add(config_id)
        config_id = by.config_id
    return config_id


def earlier(
    runs: Iterable[Manifest], config_id: str, adopted: Mapping[str, Adopted]
) -> list[EarlierConfig]:
    """Return the configs that may have been this one: with an item of the same name, and before.

    config_id: that of the config as it is now; "" for none
    A run dated in the future counts for nothing.
    """
    by_config = _by_config(runs, adopted)
    of_config = by_config.pop(config_id, [])
    if not config_id or not of_config:
        return []
    labels = {item.label for item in of_config[-1].items}
    return [
        EarlierConfig(past_runs[-1].config_file, past_runs[-1].run_id)
        for past_runs in by_config.values()
        if past_runs[-1].run_id < of_config[0].run_id
        and labels & {item.label for item in past_runs[-1].items}
    ]


def adoption(runs: Iterable[Manifest], config_id: str, file: str) -> tuple[str, Adopted]:
    """Return the id of the config that was at a path, and that it is this one since.

    Raises ConfigError where that cannot be, LookupError where no run is of such a config.
    """
    by_config = _by_config(runs, {})
    past_runs = next((one for one in by_config.values() if one[-1].config_file == file), None)
    if past_runs is None:
        raise LookupError(file)
    if past_runs[-1].config_id == config_id:
        raise ConfigError(f"--adopt-config: {file} is the config of -c", "Name the earlier path.")
    if config_id not in by_config:
        raise ConfigError("--adopt-config: this config has no run yet", "Run a backup first.")
    first, last = by_config[config_id][0].run_id, past_runs[-1].run_id
    if last >= first:
        raise ConfigError(
            f"--adopt-config: {file} has made run {last}, after the first run of this config, "
            f"{first}: it is another one",
            "Adopt only a config that was moved to the path of -c.",
        )
    return past_runs[-1].config_id, Adopted(config_id, last)


def _by_config(
    runs: Iterable[Manifest], adopted: Mapping[str, Adopted]
) -> dict[str, list[Manifest]]:
    """Return the runs of each config, oldest first."""
    by_config: dict[str, list[Manifest]] = {}
    for run in sorted(runs, key=lambda one: one.run_id):
        if not run_ids.in_future(run.run_id):
            by_config.setdefault(config_of(run, adopted), []).append(run)
    return by_config
