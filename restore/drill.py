#!/usr/bin/env python3
"""Restore drill: restore stored items on a schedule, check them, and remove them again."""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import contextlib
import fnmatch
import hashlib
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from restore import database_restore, destination, temporary_server
from restore.restoring import Restoring
from tools import filesystem_handling, os_works
from tools.base import crash, foreign, foreign_json, removal, run_ids
from tools.base.errors import BackupError, ConfigError
from tools.base.result import Result, Status
from tools.base.run_result import SectionResult
from tools.catalog import location, readback, selection
from tools.catalog.selection import Selection
from tools.date_str_utils import count, human_time
from tools.engine import section_runner
from tools.engine.user_modules import ForRestore
from tools.flow import dump_stream
from tools.flow.facts import MysqlServerFacts
from tools.flow.item_record import StoredItem as Item
from tools.modules import executable, registry
from tools.modules.options import Duration, Lists, Strings, option

_ROOT_FOLDER = Path("/var/tmp")  # noqa: S108  (private folders are created in it)
_FALSE_VALUES = ("", "0", "f", "false", "no", "null")
_SCHEDULE_TOLERANCE = 3600  # seconds: a weekly drill also runs after 6 days and 23 hours


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    every: Duration = option(
        "how often to run the drill; other runs report when the last one passed",
        default=Duration(604800),
    )
    run: str = option('run to restore: "latest", a run ID or a date', default="latest")
    items: Strings = option(
        "items to restore, as SECTION or SECTION/item (`*` and `?` allowed); default: all",
        default=("*",),
    )
    assertions: Lists | None = option(
        "checks per SECTION/item. Databases: SQL whose first value must not be empty, 0 or false. "
        "Files: patterns that must match a file that is not empty",
        default=None,
    )
    store: str = option(
        "store section to restore from; default: the first that can be opened", default=""
    )
    conf: Path | None = option(
        "conf.json of the backup, when the drill is started by hand", default=None
    )
    work_folder: Path = option("folder for the restored data", default=Path("/opt/backup"))
    server_folder: Path | None = option(
        "folder for the data of temporary servers; default: WORK_FOLDER, or /var/tmp as root "
        "(these servers do not run as root)",
        default=None,
    )
    allow_root: bool = option("allow the run as root (for containers)", default=False)


@dataclass
class _Drill:
    """One drill and its findings so far."""

    options: Options
    restoring: Restoring
    selection: Selection
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    restored_count: int = 0
    assertion_count: int = 0
    size: int = 0

    def require(self, items: Sequence[Item]) -> Selection:
        """Return a selection of these items. Raises BackupError where a part or key is missing."""
        selected = self.selection.only(items)
        for run in selected.runs():
            readback.require_parts(run, selected.of(run))
        self.restoring.require_stages(items)
        return selected

    def take(self, items: Sequence[Item], steps: Sequence[SectionResult]) -> list[Item]:
        """Add the results of a restore; return the items that were restored."""
        failed = {step.name for step in steps if not step.result.status.stored}
        self.errors += [
            f"{step.name}: {step.result.message}" for step in steps if step.name in failed
        ]
        self.warnings += [f"{step.name}: {line}" for step in steps for line in step.result.warnings]
        second = database_restore.SECOND_STEP_LABEL
        restored = [
            item
            for item in items
            if item.label not in failed and f"{second} {item.label}" not in failed
        ]
        self.restored_count += len(restored)
        self.size += sum(item.size or 0 for item in restored)
        return restored

    def judge(self, item: Item, value: str, assertion: str) -> None:
        """Take the value of one assertion."""
        self.assertion_count += 1
        if value.lower() in _FALSE_VALUES:
            problem = f"returned {value!r}" if value else "returned nothing"
            self.errors.append(f"{item.label}: {assertion}: {problem}")

    def assertions(self, item: Item) -> Sequence[str]:
        """Return the assertions about an item."""
        return (self.options.assertions or {}).get(item.label, ())


def work(options: Options) -> Result:
    """Run the drill if it is due; otherwise report when the last one passed."""
    os_works.refuse_root(options.allow_root)
    memory = _memory(options)
    passed, text = _last_result(memory, _digest(options))
    age = time.time() - passed
    tolerance = min(_SCHEDULE_TOLERANCE, options.every / 2)
    if text and 0 <= age < options.every - tolerance:
        return Result(Status.OK, f"restore tested {human_time(age)} ago ({text})")
    started = time.monotonic()
    with destination.scratch() as scratch:
        drill = _opened(options, scratch)
        if drill is None:
            return Result(
                Status.OK, "no run in the store yet: the first drill is due after the next run"
            )
        _restore_all(drill)
    if drill.errors:
        return _failed(drill)
    return _passed(drill, memory, time.monotonic() - started)


def _opened(options: Options, scratch: Path) -> _Drill | None:
    """Return the drill of the selected items; None where the store has no run yet."""
    config_path = options.conf or os.environ.get("NC_BACKUP_CONFIG", "")
    if not config_path:
        raise ConfigError("CONF is required", "Set --CONF to the conf.json of the backup.")
    source = location.Source(Path(config_path), options.store, own_run=True)
    config = location.load_config(source)
    section_runner.learn_secrets(config)
    backups = location.open_location(config, source, ForRestore(scratch))
    catalog = backups.catalog()
    if not catalog.run_ids:
        return None
    selected = selection.select_run(catalog, backups.preference(catalog.host), options.run)
    selected = selected.only(_select_items(selected, options))
    return _Drill(options, Restoring(backups, catalog), selected)


def _select_items(selected: Selection, options: Options) -> list[Item]:
    """Return the items to restore. Raises ConfigError where a name selects none."""
    chosen: dict[str, Item] = {}
    for pattern in options.items:
        matches = [
            item
            for item in selected.items
            if pattern == item.section or fnmatch.fnmatchcase(item.label, pattern)
        ]
        if not matches:
            raise ConfigError(
                f"ITEMS: {selected.label()}: no item matches {pattern}", _choices(selected.items)
            )
        chosen.update({item.label: item for item in matches if not registry.kind(item.kind).log})
    for name in options.assertions or {}:
        if name not in chosen:
            raise ConfigError(
                f"ASSERTIONS: {name} is not among the restored items", _choices(chosen.values())
            )
    return list(chosen.values())


def _choices(items: Iterable[Item]) -> str:
    return f"Choose from: {', '.join(item.label for item in items)}."


def _restore_all(drill: _Drill) -> None:
    """Restore and check every item: files first, then databases server by server."""
    with dump_stream.scratch(drill.options.work_folder) as folder:
        for item in drill.selection.items:
            if not registry.kind(item.kind).server:
                _restore_item(drill, item, folder)
        for kind, items in _by_server(drill.selection.items):
            _drill_in_server(drill, kind, items, folder)


def _failed(drill: _Drill) -> Result:
    first, *others = drill.errors
    label = drill.selection.label()
    run_id = drill.selection.newest.run_id
    return Result(
        Status.FAILED,
        f"{label}: restore drill FAILED: {first}",
        f"Run restore.py --verify {run_id}; then try another run or store.",
        warnings=tuple(others),
    )


def _passed(drill: _Drill, memory: Path, seconds: float) -> Result:
    """Return the result of a drill that passed, and remember it."""
    summary = f"{drill.selection.label()}: {count(drill.restored_count, 'item')}"
    summary += f", {count(drill.assertion_count, 'assertion')}"
    if drill.warnings:
        summary += f", {count(len(drill.warnings), 'warning')}"
    text = f"{summary}, {run_ids.now()}"
    remembered = {"time": time.time(), "text": text, "wanted": _digest(drill.options)}
    with filesystem_handling.staged(memory) as temporary:
        temporary.write_text(json.dumps(remembered), encoding="utf-8")
        temporary.replace(memory)
    return Result(
        Status.INCOMPLETE if drill.warnings else Status.OK,
        f"restore drill passed at {run_ids.now()}: {summary}, in {human_time(seconds)}",
        items=drill.restored_count,
        bytes=drill.size,
        warnings=tuple(drill.warnings),
    )


def _memory(options: Options) -> Path:
    """Return the file that remembers when the drill passed last."""
    section = os.environ.get("NC_BACKUP_SECTION", "DRILL")
    return options.work_folder / f".drill-{section}.json"


def _digest(options: Options) -> str:
    """Return a digest of what the drill checks: a changed drill is due at once."""
    checked = repr((options.run, options.items, options.assertions, options.store))
    return hashlib.sha256(checked.encode()).hexdigest()


def _last_result(memory: Path, digest: str) -> tuple[float, str]:
    """Return when this drill passed last, and its summary; 0 and "" for never."""
    try:
        remembered = foreign_json.load(foreign.content(memory, foreign_json.MAX_BYTES))
        if remembered["wanted"] != digest:
            return 0.0, ""
        return float(remembered["time"]), str(remembered["text"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0, ""


def _restore_item(drill: _Drill, item: Item, folder: Path) -> None:
    """Restore an item that becomes files into a private folder, check and remove it."""
    try:
        with removal.private(folder, "files-") as private:
            selected = drill.require([item])
            steps = drill.restoring.into_folder(selected, private, overwrite=True)
            path = private / destination.item_path(item)
            for assertion in drill.assertions(item) if drill.take([item], steps) else ():
                drill.judge(item, _evaluate(path, item, assertion), assertion)
    except Exception as error:  # noqa: BLE001  (see crash.reportable)
        drill.errors.append(f"{item.label}: {crash.reportable(error)}")


def _evaluate(path: Path, item: Item, assertion: str) -> str:
    """Return the path of a matching file, or the first value of a statement (SQLite)."""
    if registry.kind(item.kind).file_of_sql:
        try:
            with contextlib.closing(sqlite3.connect(path)) as database:
                database.execute("PRAGMA trusted_schema = OFF")
                row = database.execute(assertion).fetchone()
        except sqlite3.Error as error:
            raise BackupError(f"{assertion}: {error}") from None
        return "" if row is None or row[0] is None else str(row[0])
    matches = path.glob(assertion.lstrip("/")) if path.is_dir() else iter(())
    return next((str(one) for one in matches if _is_restored(one, path)), "")


def _is_restored(path: Path, folder: Path) -> bool:
    """Return whether a path is a folder, or a file that is not empty, and lies in a folder.

    Restored links may lead to files of this machine, which prove nothing.
    """
    real = path.resolve()
    inside = real.is_relative_to(folder.resolve())
    return inside and (real.is_dir() or (real.is_file() and real.stat().st_size > 0))


def _by_server(items: Sequence[Item]) -> Iterator[tuple[str, list[Item]]]:
    """Return the items that need a server, grouped by section and port."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        server = registry.kind(item.kind).server
        if server:
            groups.setdefault((server, database_restore.source_server(item)), []).append(item)
    for (server, _source), group in groups.items():
        yield server, group


def _drill_in_server(drill: _Drill, kind: str, items: Sequence[Item], folder: Path) -> None:
    """Restore the items of one server into a temporary one, and check them there."""
    top = drill.options.server_folder or (_ROOT_FOLDER if os_works.is_root() else folder)
    try:
        selected = drill.require(database_restore.select_databases(items))
        with contextlib.ExitStack() as stack:
            enter = stack.enter_context
            data = enter(removal.private(top, "nc-drill-"))
            sockets = enter(removal.private(Path(tempfile.gettempdir()), "nc-drill-"))
            begun = temporary_server.start_server(kind, data, sockets, _variables(items))
            running = enter(begun)
            steps = drill.restoring.into_server(selected, running.server)
            for item in drill.take(items, steps):
                _check_database(drill, running, item)
    except Exception as error:  # noqa: BLE001  (see crash.reportable)
        drill.errors.append(f"{items[0].label}: {crash.reportable(error)}")


def _variables(items: Sequence[Item]) -> list[Mapping[str, str]]:
    """Return the settings of the MySQL or MariaDB servers that the items come from."""
    typed = [registry.kind(item.kind).facts.of(item) for item in items]
    return [one.variables for one in typed if isinstance(one, MysqlServerFacts)]


def _check_database(drill: _Drill, running: temporary_server.TemporaryServer, item: Item) -> None:
    try:
        for assertion in drill.assertions(item):
            value = running.query_value(item.name.partition("/")[2], assertion)
            drill.judge(item, value, assertion)
    except BackupError as error:
        drill.errors.append(f"{item.label}: {error}")


def test(options: Options) -> tuple[str, ...]:
    """Return when the drill passed last."""
    os_works.refuse_root(options.allow_root)
    _passed_at, text = _last_result(_memory(options), _digest(options))
    return (f"restore drill: {text}" if text else "restore drill: never passed",)


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.run(Options, work, argv)
