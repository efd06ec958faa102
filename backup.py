#!/usr/bin/env python3
"""nc-backup-py: run the sections of one conf.json in order, and say truly what came of it."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parent)
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import dataclasses
import traceback
from collections.abc import Sequence
from datetime import datetime, timezone

from tools import date_str_utils, os_works
from tools.base import log, permissions, project
from tools.base.errors import BackupError, Cancelled, ConfigError
from tools.base.log import logger
from tools.base.result import Status, worst
from tools.base.run_result import Outcome
from tools.config import loading, selection
from tools.config.model import Config, Section
from tools.engine import guard, preflight, run, section_runner, state
from tools.engine.admission import Consent
from tools.reporting import terminal

CONF = Path("/etc/nc-backup-py/conf.json")
_HURRIED = 1  # tries of a report when a signal asks the run to end


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; a wrong one ends with exit code 2 and the usage."""
    parser = argparse.ArgumentParser(
        prog="backup.py",
        description="Run the backup that conf.json describes.",
        epilog="Exit codes: docs/exit-codes.md. The config: docs/config.md.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=project.banner())
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "-r", "--run", action="store_true", help="back up: run every section of the config"
    )
    what.add_argument(
        "-t",
        "--test",
        action="store_true",
        help="check the config, tools, credentials and stores; change nothing",
    )
    what.add_argument(
        "-n",
        "--dry-run",
        action="store_true",
        help="print the command of every section; run nothing",
    )
    what.add_argument(
        "--migrate",
        type=Path,
        metavar="OLD.json",
        help="print a config of the documented system in today's form; change nothing",
    )
    parser.add_argument(
        "-c", "--config", type=Path, default=CONF, help=f"config file (default: {CONF})"
    )
    parser.add_argument(
        "-l",
        "--log-level",
        type=str.upper,
        default="WARNING",
        choices=log.LEVELS,
        help="lowest level that is written to the log file; default WARNING",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print the log to standard error as well"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON on standard output"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="SECTION",
        help="run only this section (repeatable); a source keeps the stages and stores it needs",
    )
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="SECTION",
        help="leave out this section (repeatable)",
    )
    parser.add_argument(
        "--if-busy",
        choices=("fail", "skip"),
        default="fail",
        help="if another run is in progress: fail (exit 11, the default) or skip (exit 0)",
    )
    parser.add_argument(
        "--insecure-permissions",
        action="store_true",
        help="accept a config and code that other users can write: they could run commands "
        "as this user",
    )
    confirm = parser.add_argument_group("confirm for this run")
    confirm.add_argument(
        "--accept-store",
        action="store_true",
        help="a store is another one, or lies below /mnt on the root file system, on purpose",
    )
    confirm.add_argument(
        "--adopt-host",
        action="store_true",
        help="this machine takes over the runs that another machine made under its HOSTNAME",
    )
    confirm.add_argument(
        "--accept-shrink",
        action="store_true",
        help="items may be much smaller than their last good copies",
    )
    return parser.parse_args(argv)


def _consent(given: argparse.Namespace) -> Consent:
    return Consent(given.accept_store, given.adopt_host, given.accept_shrink)


def main(argv: Sequence[str]) -> int:
    """The command line of the documented system; the exit code is that of DESIGN 8."""
    return terminal.final_code(_answer(argv))


def _answer(argv: Sequence[str]) -> int:
    """Do what the command line asks for, and return the exit code of that."""
    given = arguments(argv)
    os_works.harden()
    os_works.catch_signals()
    if given.migrate:
        return _migrate(given.migrate)
    if given.insecure_permissions:
        permissions.accept()
    try:
        loaded = loading.load(given.config, insecure=given.insecure_permissions)
        section_runner.learn_secrets(loaded)
        chosen = run.select(loaded, given.only, given.skip)
        if given.dry_run:
            return terminal.show(preflight.planned(loaded, chosen), as_json=given.json)
        if given.test:
            return terminal.show(
                preflight.tested(loaded, chosen, _consent(given)), as_json=given.json
            )
        return _run(given, loaded, chosen)
    except ConfigError as error:
        return _refused(given, error)
    except Cancelled as cancelled:
        return os_works.status_of_signal(cancelled.signal_number).exit_code


def _migrate(old: Path) -> int:
    """Print a config of the documented system in today's form."""
    from tools.config import migrate

    try:
        migrated = migrate.migrated(old)
    except (ConfigError, OSError) as error:
        terminal.say(f"error: {error}", error=True)
        if getattr(error, "hint", ""):
            terminal.say(f"hint: {getattr(error, 'hint', '')}", error=True)
        return Status.REFUSED.exit_code if isinstance(error, ConfigError) else 1
    terminal.write(migrated.text)
    for change in migrated.changes:
        terminal.say(f"changed: {change}", error=True)
    if migrated.remaining is not None:
        terminal.say(f"warning: the new config cannot run yet: {migrated.remaining}", error=True)
        terminal.say(f"hint: {migrated.remaining.hint}", error=True)
    return 0


def _run(given: argparse.Namespace, loaded: Config, chosen: Sequence[Section]) -> int:
    """Run, report, render."""
    general = loaded.general
    os_works.refuse_root(general.allow_root)  # before a log of root's is made
    guard.check(loaded)
    run_log = log.begin(
        general.log_folder,
        given.log_level,
        general.log_size,
        general.log_files,
        verbose=given.verbose,
    )
    if guard.root_allowed(loaded):
        logger.warning("%s", guard.ROOT_ALLOWED)
    for warning in (*loaded.warnings, *selection.cautions(loaded, chosen)):
        logger.warning("%s", warning)
    with terminal.watcher(quiet=given.json or given.verbose) as watcher:
        try:
            outcome = run.perform(loaded, chosen, watcher, _consent(given))
        except Exception as bug:  # noqa: BLE001  (the outermost guard: a crash is reported too)
            logger.critical("%s", traceback.format_exc())
            traceback.print_exc()
            outcome = _nothing_but(
                Status.FAILED, f"crashed: {type(bug).__name__}: {bug}", general.hostname
            )
    if outcome.status is Status.LOCKED and given.if_busy == "skip":
        return terminal.render(
            dataclasses.replace(outcome, status=Status.OK), "none", as_json=given.json
        )
    if not outcome.steps or outcome.message:
        logger.error("%s", outcome.message)
    log.always("%s", outcome.summary())
    wait = general.message_config_wait
    return _reported(
        given, outcome, (general.message_config_command, general.work_folder, wait), run_log
    )


def _refused(given: argparse.Namespace, error: ConfigError) -> int:
    """A config that cannot be run is reported too, once the address is known."""
    known = (
        loading.report_address(given.config, insecure=given.insecure_permissions)
        if given.run
        else None
    )
    hostname, address, work_folder = known or ("", "", Path())
    outcome = _nothing_but(Status.REFUSED, str(error), hostname, error.hint)
    private = state.owned_folder(work_folder) if address else None
    if private is not None:
        outcome = dataclasses.replace(outcome, run_id=state.claimed_run_id(private))
    code = _reported(given, outcome, (address, work_folder, 1.0), log.RunLog())
    for other in () if given.json else error.others:
        terminal.say(f"error: {other}", error=True)
        if other.hint:
            terminal.say(f"hint: {other.hint}", error=True)
    return code


def _nothing_but(status: Status, message: str, hostname: str, hint: str = "") -> Outcome:
    now = datetime.now(timezone.utc)
    return Outcome(
        date_str_utils.run_id(now), hostname, now, 0.0, status, message=message, hint=hint
    )


def _reported(
    given: argparse.Namespace, outcome: Outcome, to: tuple[str, Path, float], run_log: log.RunLog
) -> int:
    """Send the report; whatever comes of that, the outcome of the backup stays what it is."""
    from tools.reporting import brt  # costs start-up time that -n need not pay

    address, work_folder, first_wait = to
    delivery = "none"
    try:
        if address:
            reporter = brt.Reporter(address, _spool(outcome, work_folder), first_wait)
            hurried = outcome.status in (Status.INTERRUPTED, Status.TERMINATED)
            text = "\n".join([run_log.tail(), *terminal.table_lines(outcome)])
            delivery = reporter.deliver(
                brt.form(outcome, text),
                tries=_HURRIED if hurried else 5,
                waiting=bool(outcome.steps),  # what waits is sent by who held the lock
            )
    except (OSError, BackupError) as error:
        logger.error("the report could not be made or kept: %s", error)
        delivery = "lost"
    if delivery in ("kept", "lost"):
        outcome = dataclasses.replace(outcome, status=worst((outcome.status, Status.UNREPORTED)))
    return terminal.render(outcome, delivery, as_json=given.json)


def _spool(outcome: Outcome, work_folder: Path) -> Path | None:
    """Where a report waits; nowhere where a refused run would have to make the folder."""
    if outcome.status is Status.REFUSED:
        return state.owned_folder(work_folder)
    return state.folder(work_folder)
