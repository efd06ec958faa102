#!/usr/bin/env python3
"""Clean-up: remove the runs of a store that its rules do not keep."""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cleanup import cleaning, command, rules, stores
from cleanup.cleaning import Order
from cleanup.policy import Rules
from cleanup.rules import Retention
from tools import os_works
from tools.base import crash, foreign, foreign_json
from tools.base.errors import ConfigError, ForbiddenError, in_words
from tools.base.finding import Finding, Level
from tools.base.result import Result, Status, worst
from tools.catalog import identity, location
from tools.catalog.location import Source
from tools.config.model import Config, Section
from tools.engine import section_runner, state
from tools.flow import store
from tools.flow.store import Probed, Versioned
from tools.modules import executable
from tools.modules.options import option

_ELSEWHERE = (
    "Run cleanup.py with another account, on a machine that an intruder of this one cannot reach "
    "(docs/ransomware.md), and remove this section; or let this account remove objects."
)


@dataclass(frozen=True)
class Options(Retention):
    """The keys of the section."""

    store: str = option("store section to clean up; default: all of the config", default="")
    versions: bool = option(
        "in a versioned bucket, remove the older versions of what is removed as well",
        default=False,
    )
    bucket: str = option("documented key: clean up only the stores in this bucket", default="")
    prefix: str = option(
        "documented key, with BUCKET: folder of this host in the bucket, which is checked",
        default="",
    )
    conf: Path | None = option("conf.json of the backup; a run sets it", default=None)
    allow_root: bool = option("allow the run as root (for containers)", default=False)


def work(options: Options) -> Result:
    """Clean up the stores that hold the manifest of this run."""
    os_works.refuse_root(options.allow_root)
    config = _config(options)
    chosen, why = _chosen(options, config)
    if not chosen:
        text = f"nothing is removed: {why}"
        return Result(Status.OK, text, warnings=(text,))
    if not rules.rules(options).any:
        return Result(Status.OK, "nothing is removed: no KEEP rule is set")
    written = os.environ.get("NC_BACKUP_WRITTEN")
    able = set(foreign_json.load(written)) if written else {entry.name for entry in chosen}
    order = _order(options, config, acts=True)
    results = []
    with stores.scratch() as scratch:
        for entry in chosen:
            if entry.name in able:
                result = _cleaned(config, entry, order, scratch)
            else:
                result = Result(Status.UNCLEAN, "not cleaned up: it has no manifest of this run")
            results.append((entry.name, result))
    return _result(results)


def _cleaned(config: Config, entry: Section, order: Order, scratch: Path) -> Result:
    """Clean up one store; an error concerns it alone."""
    try:
        catalog = stores.opened(config, entry, _source(config), scratch).catalog()
        folder = state.folder(config.general.work_folder)
        remembered = stores.remembered(catalog, folder)
        result, plan = cleaning.clean(catalog, order, remembered)
    except ForbiddenError as error:  # a user-defined store may not even list
        return Result(Status.OK, f"{cleaning.KEEPS} ({error})")
    except Exception as error:  # noqa: BLE001  (see crash.reportable)
        problem, hint = in_words(crash.reportable(error))
        return Result(Status.UNCLEAN, problem, hint)
    return cleaning.with_notes(result, plan, order)


def _result(results: Sequence[tuple[str, Result]]) -> Result:
    """Return the results of all stores as one."""
    status = worst(result.status for _name, result in results)
    bad = next((result for _name, result in results if result.status is status), None)
    return Result(
        status,
        "; ".join(f"{name}: {result.message}" for name, result in results),
        bad.hint if bad is not None else "",
        items=sum(result.items for _name, result in results),
        warnings=tuple(f"{n}: {line}" for n, result in results for line in result.warnings),
        notices=tuple(dict.fromkeys(line for _n, result in results for line in result.notices)),
    )


def _config(options: Options) -> Config:
    path = options.conf or os.environ.get("NC_BACKUP_CONFIG", "")
    if not path:
        raise ConfigError("CONF is required", "Set --CONF to the conf.json of the backup.")
    config = location.load_config(Source(Path(path)))
    section_runner.learn_secrets(config)
    return config


def _source(config: Config) -> Source:
    return Source(config.path, own_run=True)


def _chosen(options: Options, config: Config) -> tuple[list[Section], str]:
    """Return the selected store sections, and why there are none."""
    chosen = stores.named(config, options.store)
    if not options.bucket and not options.prefix:
        return chosen, ""
    return stores.of_bucket(config, chosen, options.bucket, options.prefix)


def _order(options: Options, config: Config, *, acts: bool) -> Order:
    return Order(
        rules.rules(options),
        acts=acts,
        versions=options.versions,
        thresholds=config.thresholds,
        config_id=identity.config_id(config.path),
        age=config.general.leftovers_age,
        sections=tuple(entry.name for entry in config.sections),
    )


def test(options: Options) -> Sequence[str | Finding]:
    """Return what would be removed now, and what the rules lack; nothing is changed."""
    config = _config(options)
    chosen, why = _chosen(options, config)
    if not chosen:
        return [Finding(f"nothing is removed: {why}", Level.WARN)]
    if not rules.rules(options).any:
        return [Finding("no KEEP rule is set: nothing is removed", Level.WARN)]
    findings: list[str | Finding] = list(_findings(rules.rules(options)))
    order = _order(options, config, acts=False)
    with stores.scratch() as scratch:
        for entry in chosen:
            result = _cleaned(config, entry, order, scratch)
            text = foreign.line(f"{entry.name}: {result.message}")
            level = Level.OK if result.status is Status.OK else Level.WARN
            findings.append(Finding(text, level, result.hint))
            findings += [Finding(f"{entry.name}: {line}", Level.WARN) for line in result.warnings]
            findings += _of_store(config, entry, options, scratch)
    return findings


def _of_store(config: Config, entry: Section, options: Options, scratch: Path) -> list[Finding]:
    """Return what a store does with what is removed, as far as that can be checked."""
    if entry.declaration is None:
        return [Finding(f"{entry.name}: {cleaning.KEEPS}: it is user-defined", Level.WARN)]
    backups = stores.opened(config, entry, _source(config), scratch)
    folder = store.folder_of(backups.store)
    if folder is not None and folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        return [Finding(f"{entry.name}: {cleaning.KEEPS} ({folder})", Level.WARN)]
    probed = store.ability(backups.store, Probed)  # type: ignore[type-abstract]
    if probed is not None and probed.may_remove(config.general.hostname) is False:
        return [Finding(f"{entry.name}: {cleaning.KEEPS}", Level.WARN, _ELSEWHERE)]
    versioned = store.ability(backups.store, Versioned)  # type: ignore[type-abstract]
    try:
        hides = versioned is not None and versioned.versioning()
    except ForbiddenError:
        return []
    if hides and not options.versions:
        text = "the bucket keeps old versions: clean-up frees nothing at once"
        hint = "Set VERSIONS to True, or a lifecycle rule that removes old versions."
        return [Finding(f"{entry.name}: {text}", Level.WARN, hint)]
    return []


def _findings(retention: Rules) -> Iterator[Finding]:
    """Yield what the rules do not protect from."""
    if retention.last and not (retention.within or any(retention.periods)):
        yield Finding(
            "KEEP_LAST is the only rule: many runs within a short time push out all older ones",
            Level.WARN,
            "Add KEEP_DAILY or KEEP_WEEKLY: no later run pushes out what they keep.",
        )


def main(argv: Sequence[str]) -> int:
    """Run the command line, of a section or of people; return the exit code."""
    if not os.environ.get("NC_BACKUP_SECTION") and "--help-markdown" not in argv:
        return command.main(argv)
    return executable.run(Options, work, argv)
