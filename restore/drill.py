#!/usr/bin/env python3
"""Prove that what is stored can be restored: on a schedule, into a throwaway place, and look."""

from __future__ import annotations

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from restore import server, target, throwaway
from tools import filesystem_handling, os_works
from tools.base import removal, run_ids
from tools.base.errors import BackupError, ConfigError
from tools.base.result import Result, Status
from tools.catalog import manifest
from tools.catalog.manifest import Manifest
from tools.date_str_utils import count, human_time
from tools.flow import dump_stream, process
from tools.flow.item_record import StoredItem as Item
from tools.modules import executable, registry
from tools.modules.options import Duration, Lists, Words, option

_RESTORE = Path(__file__).with_name("restore.py")
_ROOTS = Path("/var/tmp")  # noqa: S108  (private folders are made in it)
_FALSE = ("", "0", "f", "false", "no", "null")
_SLACK = 3600  # seconds: a drill each 7 days goes on when 6 days and 23 hours are over


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    every: Duration = option(
        "how often; runs in between say when it was proven last", default=Duration(604800)
    )
    run: str = option('what is restored: "latest", a run or a date', default="latest")
    items: Words = option(
        "what of it: SECTION, or SECTION/item, with * and ?; default: all of it", default=("*",)
    )
    assertions: Lists | None = option(
        "for SECTION/item: what must be true. Databases: SQL whose first value is not empty, 0 or "
        "false; files: names with * and ?, of which one must be there and not empty",
        default=None,
    )
    store: str = option("the section of the store; default: the first that opens", default="")
    conf: Path | None = option("the conf.json, where this is started by hand", default=None)
    work_folder: Path = option("what is restored lies here meanwhile", default=Path("/opt/backup"))
    server_folder: Path | None = option(
        "data of throwaway servers; default: WORK_FOLDER, or as root, whom these servers refuse, "
        "/var/tmp",
        default=None,
    )
    allow_root: bool = option("run as root all the same", default=False)


@dataclass
class _Drill:
    """One drill: what it has found so far."""

    options: Options
    config: str
    run: Manifest
    troubles: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    restored: int = 0
    asserted: int = 0
    size: int = 0

    def restore(self, items: Sequence[Item], *words: str) -> list[Item]:
        """Restore items of one section by the command that people use; those that came.

        Raises BackupError where that gives no result.
        """
        chosen = [word for item in items if item.name for word in ("--item", item.name)]
        where = ("--section", items[0].section, *chosen)
        out = _asked(self.options, self.config, "--restore", self.run.run_id, *where, *words)
        try:
            steps = {step["name"]: step for step in json.loads(out)["sections"]}
            failed = [name for name, step in steps.items() if step["status"] == "failed"]
            self.troubles += [f"{name}: {steps[name]['message']}" for name in failed]
            self.warnings += [
                f"{name}: {line}" for name in steps for line in steps[name]["warnings"]
            ]
            came = [
                item
                for item in items
                if item.called not in failed and f"{server.REST} {item.called}" not in failed
            ]
        except (ValueError, KeyError, TypeError):
            raise BackupError("restore.py gave no result", out.decode("utf-8", "replace")) from None
        self.restored += len(came)
        self.size += sum(item.size or 0 for item in came)
        return came

    def judge(self, item: Item, said: str, assertion: str) -> None:
        """One assertion: what the database or the folder said to it."""
        self.asserted += 1
        if said.lower() in _FALSE:
            what = f"gave {said!r}" if said else "gave nothing"
            self.troubles.append(f"{item.called}: {assertion} {what}")

    def assertions(self, item: Item) -> Sequence[str]:
        """What must be true of an item."""
        return (self.options.assertions or {}).get(item.called, ())


def work(options: Options) -> Result:
    """Restore, look, drop it again; or say when it was proven last."""
    os_works.refuse_root(options.allow_root)
    section = os.environ.get("NC_BACKUP_SECTION", "DRILL")
    memory = options.work_folder / f".drill-{section}.json"
    wanted = _digest(options)
    moment, text = _remembered(memory, wanted)
    age = time.time() - moment
    if text and 0 <= age < options.every - min(_SLACK, options.every / 2):
        return Result(Status.OK, f"proven restorable {human_time(age)} ago ({text})")
    config = str(options.conf or os.environ.get("NC_BACKUP_CONFIG", ""))
    if not config:
        raise ConfigError("CONF: is not said", "Name the conf.json of the backup.")
    began = time.monotonic()
    if not json.loads(_asked(options, config, "--list")):
        return Result(Status.OK, "nothing is stored yet: the next run has something to prove")
    shown = _asked(options, config, "--show", options.run)
    drill = _Drill(options, config, manifest.read(shown, f"run {options.run}"))
    items = _chosen(drill.run.items, options)
    with dump_stream.scratch(options.work_folder) as folder:
        for item in items:
            if not registry.kind(item.kind).server:
                _tried(drill, item, folder)
        for kind, some in _by_server(items):
            _served(drill, kind, some, folder)
    if drill.troubles:
        first, *rest = drill.troubles
        what = f"run {drill.run.run_id} is NOT proven restorable: {first}"
        hint = "Look at it now: restore.py --verify, and another run or store."
        return Result(Status.FAILED, what, hint, warnings=tuple(rest))
    told = f"run {drill.run.run_id}: {count(drill.restored, 'item')}"
    told += f", {count(drill.asserted, 'assertion')}"
    if drill.warnings:
        told += f", {count(len(drill.warnings), 'warning')}"
    facts = {"time": time.time(), "text": f"{told}, {run_ids.now()}", "wanted": wanted}
    with filesystem_handling.staged(memory) as temporary:
        temporary.write_text(json.dumps(facts), encoding="utf-8")
        temporary.replace(memory)
    seconds = human_time(time.monotonic() - began)
    text = f"proven restorable at {run_ids.now()}: {told}, in {seconds}"
    status = Status.INCOMPLETE if drill.warnings else Status.OK
    warnings = tuple(drill.warnings)
    return Result(status, text, items=drill.restored, bytes=drill.size, warnings=warnings)


def _digest(options: Options) -> str:
    """What is to be proven: another wish is due at once."""
    wanted = repr((options.run, options.items, options.assertions, options.store))
    return hashlib.sha256(wanted.encode()).hexdigest()


def _remembered(memory: Path, wanted: str) -> tuple[float, str]:
    """When just this was proven last, and how; 0 and "" for never."""
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
        if found["wanted"] != wanted:
            return 0.0, ""
        return float(found["time"]), str(found["text"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0, ""


def _asked(options: Options, config: str, *words: str) -> bytes:
    """What restore.py prints. Raises BackupError with its own words where it fails."""
    told = ("--store", options.store) if options.store else ()
    whole = [sys.executable, str(_RESTORE), "-c", config, *told, "--json", "--no-report", *words]
    said: list[str] = []
    env = os_works.environment({}, os.environ)
    out = b"".join(process.output(whole, env=env, allowed=lambda _code: True, notice=said.append))
    if not out:
        error, *rest = [line.partition(": ")[2] or line for line in said] or ["it said nothing"]
        raise BackupError(error, "\n".join(rest))
    return out


def _chosen(items: Sequence[Item], options: Options) -> list[Item]:
    """Those that are meant. Raises ConfigError where a name means none."""
    found: dict[str, Item] = {}
    for pattern in options.items:
        some = [
            one
            for one in items
            if pattern == one.section or fnmatch.fnmatchcase(one.called, pattern)
        ]
        if not some:
            there = ", ".join(one.called for one in items)
            raise ConfigError(f"ITEMS: the run holds no {pattern}", f"It holds: {there}.")
        found.update({one.called: one for one in some if not registry.kind(one.kind).log})
    for name in options.assertions or {}:
        if name not in found:
            there = ", ".join(found)
            raise ConfigError(f"ASSERTIONS: {name} is not restored", f"What is: {there}.")
    return list(found.values())


def _tried(drill: _Drill, item: Item, folder: Path) -> None:
    """An item that becomes files: restored into a folder of its own, looked at, removed."""
    try:
        with removal.private(folder, "files-") as place:
            came = drill.restore([item], "--destination", str(place), "--overwrite")
            made = place / target.place_of(item)
            for assertion in drill.assertions(item) if came else ():
                drill.judge(item, _looked(made, item, assertion), assertion)
    except BackupError as error:
        drill.troubles.append(f"{item.called}: {error}")


def _looked(made: Path, item: Item, assertion: str) -> str:
    """What was found: a file, or the first value of a statement (SQLite)."""
    if registry.kind(item.kind).file_of_sql:
        try:
            with contextlib.closing(sqlite3.connect(made)) as database:
                row = database.execute(assertion).fetchone()
        except sqlite3.Error as error:
            raise BackupError(f"{assertion}: {error}") from None
        return "" if row is None or row[0] is None else str(row[0])
    names = made.glob(assertion.lstrip("/")) if made.is_dir() else iter(())
    return next((str(path) for path in names if path.is_dir() or path.stat().st_size), "")


def _by_server(items: Sequence[Item]) -> Iterator[tuple[str, list[Item]]]:
    """Items that need a server, one server for each port of each section."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        if kind := registry.kind(item.kind).server:
            groups.setdefault((kind, server.source(item)), []).append(item)
    for (kind, _source), some in groups.items():
        yield kind, some


def _served(drill: _Drill, kind: str, items: Sequence[Item], folder: Path) -> None:
    """Items of one server into a throwaway one; each is asked what must be true of it."""
    top = drill.options.server_folder or (_ROOTS if os_works.is_root() else folder)
    facts = [item.facts for item in items]
    try:
        with (
            tempfile.TemporaryDirectory(prefix="nc-drill-", dir=top) as data,
            tempfile.TemporaryDirectory(prefix="nc-drill-") as sockets,
            throwaway.started(kind, Path(data), Path(sockets), facts) as running,
        ):
            for item in drill.restore(items, *running.restore):
                _asserted(drill, running, item)
    except (BackupError, OSError) as error:
        drill.troubles.append(f"{items[0].called}: {error}")


def _asserted(drill: _Drill, running: throwaway.Throwaway, item: Item) -> None:
    try:
        for assertion in drill.assertions(item):
            said = running.answer(item.name.partition("/")[2], assertion)
            drill.judge(item, said, assertion)
    except BackupError as error:
        drill.troubles.append(f"{item.called}: {error}")


def test(options: Options) -> tuple[str, ...]:
    """When it was proven last."""
    os_works.refuse_root(options.allow_root)
    section = os.environ.get("NC_BACKUP_SECTION", "DRILL")
    _moment, text = _remembered(options.work_folder / f".drill-{section}.json", _digest(options))
    return (f"proven restorable: {text}" if text else "not proven restorable yet",)


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.run(Options, work, argv)
