"""nc-backup-py: run the sections of one conf.json, and report the result."""

from __future__ import annotations

import argparse
import dataclasses
import traceback
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from tools import date_str_utils, os_works
from tools.base import foreign, log, permissions, project, signals, system_log
from tools.base.errors import Cancelled, ConfigError, in_words, of_system
from tools.base.finding import Level, Line
from tools.base.log import logger
from tools.base.result import Status
from tools.base.run_result import RunResult
from tools.catalog import identity
from tools.config import loading, selection
from tools.config.model import Config, Section
from tools.engine import guard, plan, section_runner, state
from tools.engine.consent import Consent
from tools.reporting import terminal

CONF = Path("/etc/nc-backup-py/conf.json")
_SHOWN_RUNS = 20


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; an invalid one exits with code 2 and the usage."""
    parser = argparse.ArgumentParser(
        prog="backup.py",
        description="Run the backup that conf.json describes.",
        epilog="Exit codes: docs/exit-codes.md. The config: docs/config.md.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=project.banner())
    actions = parser.add_mutually_exclusive_group(required=True)
    actions.add_argument(
        "-r", "--run", action="store_true", help="back up: run every section of the config"
    )
    actions.add_argument(
        "-t",
        "--test",
        action="store_true",
        help="check the config, tools, credentials and stores; change nothing",
    )
    actions.add_argument(
        "-n",
        "--dry-run",
        action="store_true",
        help="print the command of every section; run nothing",
    )
    actions.add_argument(
        "--migrate",
        type=Path,
        metavar="OLD.json",
        help="print a config of the documented system in today's form; change nothing",
    )
    actions.add_argument(
        "--history",
        type=_positive,
        nargs="?",
        const=_SHOWN_RUNS,
        metavar="NUMBER",
        help=f"print the figures of the last runs, by default {_SHOWN_RUNS}",
    )
    actions.add_argument(
        "--accept",
        action="append",
        metavar="SECTION/ITEM",
        help="the newest copy of a suspicious item is right: compare later ones with it "
        "(repeatable)",
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
        help="suspicious items of this run are right; clean-up asks separately (--accept)",
    )
    confirm.add_argument(
        "--accept-rollback",
        action="store_true",
        help="a store was rolled back to an earlier state on purpose",
    )
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if not (number := foreign.number(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return number


def _consent(arguments: argparse.Namespace) -> Consent:
    return Consent(
        arguments.accept_store,
        arguments.adopt_host,
        arguments.accept_shrink,
        arguments.accept_rollback,
    )


def main(argv: Sequence[str]) -> int:
    """Run the command of the arguments, and return the exit code (docs/exit-codes.md)."""
    arguments = parse_arguments(argv)
    os_works.harden()
    signals.catch()
    if arguments.migrate:
        return _migrate(arguments.migrate)
    if arguments.insecure_permissions:
        permissions.accept()
    try:
        config = loading.load(arguments.config, insecure=arguments.insecure_permissions)
        section_runner.learn_secrets(config)
        if arguments.history is not None or arguments.accept:
            return _look_back(arguments, config)
        chosen = selection.select(config, arguments.only, arguments.skip)
        if arguments.run:
            return _run(arguments, config, chosen)
        return _test(arguments, config, chosen)
    except ConfigError as error:
        return _report_config_error(arguments, error)
    except Cancelled as cancelled:
        return signals.status(cancelled.signal_number).exit_code


def _test(arguments: argparse.Namespace, config: Config, chosen: Sequence[Section]) -> int:
    """Show whether the sections could do their work, or the commands of a dry run."""
    if arguments.dry_run:
        return terminal.show(plan.commands(config, chosen), as_json=arguments.json)
    from tools.engine import preflight  # the engine costs start-up time that -n need not pay
    from tools.reporting import metrics, notify_checks

    lines = preflight.tested(config, chosen, _consent(arguments))
    lines += metrics.tested(config.general.metrics_file)
    missing = system_log.missing(config.general.log_to)
    lines += [Line("GENERAL", text, Level.WARN) for text in missing]
    lines += notify_checks.tested(config.notify)
    return terminal.show_findings(lines, as_json=arguments.json)


def _invalid(error: ConfigError) -> list[Line]:
    """Return the errors of a config as findings."""
    every = (error, *error.others)
    return [Line("GENERAL", str(one), Level.BAD, one.hint, one.fix) for one in every]


def _look_back(arguments: argparse.Namespace, config: Config) -> int:
    """Show the figures of earlier runs, or accept those of the newest one."""
    from tools.commands import history  # see _test

    if arguments.accept:
        return history.accept(config, arguments.accept)
    return history.show(config, arguments.history, as_json=arguments.json)


def _migrate(old: Path) -> int:
    """Print a config of the documented system in today's form."""
    from tools.config import migrate

    try:
        migrated = migrate.migrated(old)
    except (ConfigError, OSError) as error:
        problem, hint = in_words(error)
        terminal.say(f"error: {problem}", error=True)
        if hint:
            terminal.say(f"hint: {hint}", error=True)
        return Status.REFUSED.exit_code if isinstance(error, ConfigError) else 1
    terminal.write(migrated.text)
    for change in migrated.changes:
        terminal.say(f"changed: {change}", error=True)
    if migrated.remaining is not None:
        terminal.say(f"warning: the new config cannot run yet: {migrated.remaining}", error=True)
        terminal.say(f"hint: {migrated.remaining.hint}", error=True)
    return 0


def _run(arguments: argparse.Namespace, config: Config, chosen: Sequence[Section]) -> int:
    """Run the sections, report the result, show it, and return the exit code."""
    from tools.engine import run  # see _test
    from tools.reporting import channels, delivery, document

    general = config.general
    os_works.refuse_root(general.allow_root)  # before root creates a log file
    guard.check(config)
    run_log = log.begin(
        general.log_folder,
        arguments.log_level,
        general.log_size,
        general.log_files,
        verbose=arguments.verbose,
        targets=general.log_to,
    )
    if guard.root_allowed(config):
        logger.warning("%s", guard.ROOT_ALLOWED)
    for warning in (*config.warnings, *selection.cautions(config, chosen)):
        logger.warning("%s", warning)
    started = datetime.now(timezone.utc)
    settings = loading.ReportSettings(general, config.notify, general.work_folder)
    announcement = delivery.Announcement()

    def began(run_id: str) -> None:
        log.of_run(run_id, general.hostname)
        origin = identity.origin(config)
        start = document.start_document(run_id, general.hostname, started, origin)
        announcement.begin(channels.configured(general, config.notify), start)

    with terminal.watcher(quiet=arguments.json or arguments.verbose) as listener:
        try:
            result = run.perform(config, chosen, listener, _consent(arguments), began)
        except Exception as bug:  # noqa: BLE001  (the outermost guard: a bug is reported too)
            result = dataclasses.replace(
                _failed(bug),
                hostname=general.hostname,
                begin=started,
                seconds=(datetime.now(timezone.utc) - started).total_seconds(),
                origin=identity.origin(config),
            )
    if result.status is Status.LOCKED and arguments.if_busy == "skip":
        skipped = dataclasses.replace(result, status=Status.OK)
        return terminal.render(skipped, {}, as_json=arguments.json)
    if not result.sections or result.message:
        logger.error("%s", result.message)
    log.always("%s", result.summary())
    announcement.finish()
    return _send_report(arguments, result, settings, run_log)


def _failed(bug: Exception) -> RunResult:
    """Return the result of a run that something ended which nothing expected."""
    if (system_error := of_system(bug)) is not None:
        return _without_sections(Status.FAILED, str(system_error), system_error.hint)
    logger.critical("%s", traceback.format_exc())
    traceback.print_exc()
    return _without_sections(Status.FAILED, f"internal error: {type(bug).__name__}: {bug}")


def _report_config_error(arguments: argparse.Namespace, error: ConfigError) -> int:
    """Report that a config cannot be run, once the address of the report server is known."""
    if arguments.test and arguments.json:
        terminal.show_findings(_invalid(error), as_json=True)
        return Status.REFUSED.exit_code
    settings = _report_settings(arguments)
    result = dataclasses.replace(
        _without_sections(Status.REFUSED, str(error), error.hint),
        origin=identity.origin(None, arguments.config),
    )
    if settings is not None:
        result = dataclasses.replace(result, hostname=settings.general.hostname)
        folder = settings.work_folder
        private = state.owned_folder(folder) if folder is not None else None
        if private is not None:
            result = dataclasses.replace(result, run_id=state.claimed_run_id(private))
    code = _send_report(arguments, result, settings, log.RunLog())
    if arguments.json:
        return code
    if error.fix:
        terminal.say(f"fix:  {error.fix}", error=True)
    for further in error.others:
        terminal.say(f"error: {further}", error=True)
        if further.hint:
            terminal.say(f"hint: {further.hint}", error=True)
    return code


def _report_settings(arguments: argparse.Namespace) -> loading.ReportSettings | None:
    """Return where the report of a run goes whose config is wrong; None if it goes nowhere."""
    if not arguments.run:
        return None
    settings = loading.report_settings(arguments.config, insecure=arguments.insecure_permissions)
    return settings if settings is not None and settings.enabled else None


def _without_sections(status: Status, message: str, hint: str = "") -> RunResult:
    """Return the result of a run of which nothing but an error is known."""
    now = datetime.now(timezone.utc)
    return RunResult(date_str_utils.run_id(now), "", now, 0.0, status, message=message, hint=hint)


def _send_report(
    arguments: argparse.Namespace,
    result: RunResult,
    settings: loading.ReportSettings | None,
    run_log: log.RunLog,
) -> int:
    """Send the report, show the result, and return the exit code.

    settings: None if nobody is to get it
    """
    from tools.commands import run_report  # costs start-up time that -n need not pay

    deliveries: dict[str, str] = {}
    if settings is not None:
        result, deliveries = run_report.send(result, settings, run_log)
    return terminal.render(result, deliveries, as_json=arguments.json)
