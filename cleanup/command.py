"""The command line of cleanup.py: a plan by default; --confirm removes what it shows."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from cleanup import cleaning, lines, moved_config, rules, stores
from cleanup.cleaning import Order
from cleanup.policy import Rules
from cleanup.remembered import Remembered
from cleanup.rules import Retention
from tools import os_works
from tools.base import foreign, project, signals
from tools.base.errors import BackupError, Cancelled, ConfigError
from tools.base.result import Result, Status, of_error, worst
from tools.catalog import cleaned, identity, location, store_identity
from tools.catalog.catalog import Catalog
from tools.catalog.location import Source
from tools.catalog.memory import Memory
from tools.commands import store_arguments
from tools.config import model
from tools.config.model import Section
from tools.engine import section_runner, state
from tools.engine.user_modules import ForRestore
from tools.modules import options as keys
from tools.reporting import terminal

CONF = store_arguments.CONF
_ROLE = "cleanup"  # of the sections whose rules a config has


def read(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; a wrong one ends with exit code 2 and the usage."""
    parser = argparse.ArgumentParser(
        prog="cleanup.py",
        description="Show which runs of a store the rules of a config would remove, and why. "
        "Nothing is removed without --confirm.",
        epilog="Rules given here replace those of the CLEANUP section. docs/modules/cleanup.md",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=project.banner())
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--confirm", action="store_true", help="remove what the plan shows")
    actions.add_argument("--pin", metavar="RUN", help="never remove this run")
    actions.add_argument("--unpin", metavar="RUN", help="let the rules remove this run again")
    actions.add_argument(
        "--forget-item",
        metavar="SECTION/ITEM",
        help="an item that is no longer backed up: its last copies need not be kept",
    )
    actions.add_argument(
        "--accept-item",
        metavar="SECTION/ITEM",
        help="an item whose newest copy is suspicious, but right: later ones are compared with it",
    )
    actions.add_argument(
        "--adopt-config",
        metavar="FILE",
        help="the path of conf.json before it was moved: its runs count as those of -c",
    )
    actions.add_argument(
        "--discard",
        metavar="RUN",
        help="a run whose manifest is lost: it does not stop clean-up any longer",
    )
    parser.add_argument(
        "--yes-really",
        action="store_true",
        help="with --confirm: also remove more than half of the good runs",
    )
    parser.add_argument(
        "--insecure-permissions",
        action="store_true",
        help="skip the permission check of config and code",
    )
    group = store_arguments.add(parser, "store (from a config, or given here)")
    store_arguments.add_signers(group)
    _add_rules(parser)
    return parser.parse_args(argv)


def _add_rules(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("rules (default: those of the CLEANUP section)")
    for field in keys.fields(Retention):
        group.add_argument(_argument(field.name), metavar="VALUE", help=str(field.metadata["help"]))


def _argument(key: str) -> str:
    """Return the argument that sets a key of a rule."""
    return f"--{key.lower().replace('_', '-')}"


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code (docs/exit-codes.md)."""
    arguments = read(argv)
    os_works.harden()
    signals.catch()
    try:
        store_arguments.settle(arguments, CONF, "rules such as --keep-daily")
        with stores.scratch() as scratch:
            result = _Command(arguments, scratch).run()
    except (BackupError, OSError) as error:
        result = of_error(error)
    except Cancelled as cancelled:
        status = signals.status(cancelled.signal_number)
        result = Result(status, "cancelled: run it again to finish what it has begun")
    return _print_result(result)


def _print_result(result: Result) -> int:
    """Print a result; return its exit code."""
    good = result.status is Status.OK
    if result.message:
        terminal.say(result.message if good else f"error: {result.message}", error=not good)
    if result.hint:
        terminal.say(f"hint: {terminal.indented(result.hint)}", error=True)
    return result.status.exit_code


class _AbsentError(ConfigError):
    """A store has no such run, or no such item."""


class _Command:
    """One call of cleanup.py."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self._arguments = arguments
        self._source = store_arguments.source(arguments)
        self._config = location.load_config(self._source)
        section_runner.learn_secrets(self._config)
        self._scratch = scratch
        self._absent: list[_AbsentError] = []
        configured = arguments.config is not None
        work_folder = self._config.general.work_folder
        self._state = state.owned_folder(work_folder) if configured else None
        self._order = self._ordered()

    def run(self) -> Result:
        """Run the command in every store; return the worst result."""
        outcomes = [self._of_store(source) for source in self._sources()]
        results = [one for one in outcomes if one is not None]
        if not results:
            raise self._absent[0]
        status = worst(result.status for result in results)
        first = next(one for one in results if one.status is status)
        for one in results:
            if one is not first:
                _print_result(one)
        return first

    def _sources(self) -> list[Source]:
        """Return the selected stores. Raises ConfigError where there is none."""
        if self._source.names_store:
            return [self._source]
        sections = stores.named(self._config, self._arguments.store)
        return [dataclasses.replace(self._source, store=entry.name) for entry in sections]

    def _of_store(self, source: Source) -> Result | None:
        """Return the result, or error, of one store; None where it lacks the named run or item."""
        try:
            backups = location.open_location(self._config, source, ForRestore(self._scratch))
            catalog = backups.catalog()
            if not catalog.run_ids and not source.names_store:
                folder = state.readable_folder(self._config.general.work_folder)
                store_identity.require_known(catalog.store, catalog.host, Memory(folder))
            return self._in_store(catalog)
        except _AbsentError as error:
            self._absent.append(error)
            return None
        except (BackupError, OSError) as error:
            result = of_error(error)
            name = "" if source.names_store else f"{source.store}: "
            return dataclasses.replace(result, message=f"{name}{result.message}")

    def _in_store(self, catalog: Catalog) -> Result:
        arguments = self._arguments
        remembered = stores.remembered(catalog, self._state)
        if arguments.pin or arguments.unpin:
            return self._pin(catalog)
        if arguments.discard:
            _require_run(catalog, arguments.discard)
            _require_obstacle(catalog, arguments.discard)
            self._require_memory("--discard")
            remembered.discard(arguments.discard)
            terminal.say(f"{catalog.store}: run {arguments.discard} no longer stops clean-up")
        if arguments.forget_item:
            self._forget(catalog, remembered)
        if arguments.accept_item:
            self._accept(catalog, remembered)
        if arguments.adopt_config:
            self._adopt(catalog, remembered)
        return self._clean(catalog, remembered)

    def _clean(self, catalog: Catalog, remembered: Remembered) -> Result:
        result, plan = cleaning.clean(catalog, self._order, remembered)
        if not self._arguments.confirm or result.status is not Status.OK:
            lines.show(plan)
        for line in plan.notices(""):
            terminal.say(f"note: {line}", error=True)
        for label in plan.suspicious():
            terminal.say(
                f"note: the newest copy of {label} is suspicious, so its older copies stay. If it "
                f"is right: the same command with --accept-item {foreign.argument(label)}",
                error=True,
            )
        if self._arguments.confirm or result.status is not Status.OK:
            return dataclasses.replace(result, message=f"{catalog.store}: {result.message}")
        if plan.removals:
            terminal.say("Nothing was removed. To remove it: the same command with --confirm.")
        return Result(Status.OK, "", result.hint)

    def _ordered(self) -> Order:
        general = self._config.general
        section = self._section()
        options = model.filled(section, self._config) if section is not None else None
        return Order(
            self._rules(section),
            acts=self._arguments.confirm,
            by_hand=True,
            really=self._arguments.yes_really,
            versions=bool(getattr(options, "versions", False)),
            thresholds=self._config.thresholds,
            config_id=self._config_id,
            age=general.leftovers_age,
            sections=tuple(entry.name for entry in self._config.sections),
        )

    def _section(self) -> Section | None:
        return next((one for one in self._config.sections if one.kind == _ROLE), None)

    def _rules(self, section: Section | None) -> Rules:
        """Return the rules of the arguments, or those of the config. Raises ConfigError."""
        names = [field.name for field in keys.fields(Retention)]
        values = {name.upper(): getattr(self._arguments, name) for name in names}
        texts = {name: text for name, text in values.items() if text is not None}
        if texts or section is None:
            return rules.rules(keys.fill(Retention, texts, _argument))
        return rules.rules(cast("Retention", model.filled(section, self._config)))

    # --- decisions of the operator

    def _pin(self, catalog: Catalog) -> Result:
        run_id = self._arguments.pin or self._arguments.unpin
        _require_run(catalog, run_id)
        if self._arguments.pin:
            if run_id not in catalog.pinned:
                cleaned.pin(catalog.store, catalog.host, run_id, "pinned by cleanup.py")
            return Result(Status.OK, f"{catalog.store}: run {run_id} is pinned")
        cleaned.unpin(catalog.store, catalog.host, run_id)
        return Result(Status.OK, f"{catalog.store}: run {run_id} is not pinned any longer")

    def _forget(self, catalog: Catalog, remembered: Remembered) -> None:
        """Remember that an item is no longer wanted. Raises ConfigError where it still is."""
        label = self._arguments.forget_item
        newest = _newest_with(catalog, label)
        if newest == _newest(catalog):
            raise ConfigError(
                f"--forget-item: {label} is in the newest run, {newest}",
                "Remove it from the config, and run a backup first.",
            )
        self._require_memory("--forget-item")
        remembered.forget(label, newest)
        terminal.say(f"{catalog.store}: {label}: may be removed until a run contains it again")

    def _accept(self, catalog: Catalog, remembered: Remembered) -> None:
        """Remember that an item is as large as it should be in its newest run."""
        label = self._arguments.accept_item
        self._require_memory("--accept-item")
        newest = _newest_with(catalog, label)
        remembered.accept(label, newest)
        terminal.say(f"{catalog.store}: {label}: accepted from run {newest} on")

    def _adopt(self, catalog: Catalog, remembered: Remembered) -> None:
        """Remember that the runs of an earlier config are those of this one."""
        self._require_memory("--adopt-config")
        file = self._arguments.adopt_config
        runs = filter(None, (cleaning.usable(catalog, one) for one in catalog.in_turn()))
        try:
            remembered.adopt(*moved_config.adoption(runs, self._config_id, file))
        except LookupError:
            raise _AbsentError(
                f"{catalog.store}: no run of host {catalog.host} was made by the config "
                f"{foreign.line(file)}",
                "The plan names the configs that may be meant.",
            ) from None

    @property
    def _config_id(self) -> str:
        """Return the id of the config; "" where the arguments name none."""
        return identity.config_id(self._config.path) if self._arguments.config else ""

    def _require_memory(self, flag: str) -> None:
        """Raise ConfigError where the state folder cannot remember a decision."""
        if self._state is None:
            raise ConfigError(
                f"{flag}: nowhere to remember it",
                "Use -c CONFIG, as the user of the backup: WORK_FOLDER of the config remembers it.",
            )


def _require_run(catalog: Catalog, run_id: str) -> None:
    if run_id not in catalog.run_ids:
        raise _AbsentError(
            f"{catalog.store}: no run {run_id} of host {catalog.host}",
            "Run restore.py --list to see all runs.",
        )


def _require_obstacle(catalog: Catalog, run_id: str) -> None:
    run = cleaning.usable(catalog, run_id)
    if run is not None and not run.refused:
        raise ConfigError(
            f"--discard: run {run_id} can be read, and does not stop clean-up",
            "Discard only the run that clean-up names as the reason why nothing is removed.",
        )


def _newest(catalog: Catalog) -> str:
    """Return the newest run that is trusted and complete; "" where there is none."""
    for run_id in reversed(catalog.run_ids):
        claim = cleaning.usable(catalog, run_id)
        if claim is not None and claim.is_complete:
            return run_id
    return ""


def _newest_with(catalog: Catalog, label: str) -> str:
    """Return the newest trusted run that has an item. Raises ConfigError where none has."""
    for run_id in reversed(catalog.run_ids):
        run = cleaning.usable(catalog, run_id)
        if run is not None and any(item.label == label for item in run.items):
            return run_id
    raise _AbsentError(
        f"{catalog.store}: no run of host {catalog.host} has the item {foreign.line(label)}",
        "Run restore.py --show latest to see the names of items.",
    )
