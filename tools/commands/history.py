"""`backup.py --history` and `--accept`: the figures of the last runs, and which are right."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
from collections.abc import Sequence
from pathlib import Path

from tools.base import foreign, masking
from tools.base.errors import BackupError, ConfigError, in_words
from tools.catalog.memory import Memory
from tools.config.model import Config
from tools.date_str_utils import human_size, human_time
from tools.engine import run_history, state
from tools.engine.run_history import RunEntry
from tools.reporting import terminal

_LONGEST = 80  # characters of what was unusual
_HEADER = ("run", "status", "size", "stored", "duration", "items", "unusual")


def show(config: Config, most: int, *, as_json: bool) -> int:
    """Print the last runs, newest first. Return the exit code."""
    try:
        with contextlib.closing(
            run_history.read_only(config.general.work_folder / state.NAME)
        ) as history:
            runs = history.runs(most, config.general.hostname)
    except FileNotFoundError:
        runs = []
    except (BackupError, OSError) as error:
        problem, hint = in_words(error)
        if getattr(error, "damaged", False):
            hint = "The next run makes it again from the stores."
        terminal.say(f"error: {foreign.line(problem)}", error=True)
        if hint:
            terminal.say(f"hint: {terminal.indented(hint)}", error=True)
        return 1
    if as_json:
        terminal.say(json.dumps([masking.structure(dataclasses.asdict(run)) for run in runs]))
    elif runs:
        terminal.table(_HEADER, [_row(run) for run in runs])
    else:
        terminal.say("No run is recorded yet.", error=True)
    return 0


def _row(run: RunEntry) -> tuple[str, ...]:
    sizes = ["-" if value is None else human_size(value) for value in (run.size, run.stored)]
    took = "-" if run.seconds is None else human_time(run.seconds)
    return (run.run_id, run.status, *sizes, took, str(run.items), _shortened(run.unusual))


def _shortened(lines: Sequence[str]) -> str:
    """Return the first line, and how many more there are."""
    if not lines:
        return ""
    first = lines[0] if len(lines[0]) <= _LONGEST else f"{lines[0][: _LONGEST - 3]}..."
    return first + (f" (and {len(lines) - 1} more)" if lines[1:] else "")


def accept(config: Config, labels: Sequence[str]) -> int:
    """Remember that the newest figures of items are right. Return the exit code.

    The guard and the clean-up of this machine compare with nothing before that run then.
    Raises ConfigError for an item that no run has, and where nothing can be remembered.
    """
    host, work_folder = config.general.hostname, config.general.work_folder
    folder = state.owned_folder(work_folder)
    if folder is None:
        raise ConfigError(
            f"--accept: {work_folder} is missing, or of another user",
            "Run it as the user of the backup.",
        )
    newest = _newest(folder, host)
    for label in labels:
        if label not in newest:
            near = difflib.get_close_matches(label, newest, 1)
            hint = f"Did you mean {foreign.line(near[0])}?" if near else ""
            hint = hint or "Run restore.py --show latest to see the names of items."
            raise ConfigError(f"--accept: no run has the item {foreign.line(label)}", hint)
    for label in labels:
        run_id = newest[label]
        inside = [one for one in newest if one.startswith(f"{label}/") and newest[one] == run_id]
        Memory(folder).accept(host, dict.fromkeys([label, *inside], run_id))
        terminal.say(f"{label}: accepted from run {run_id} on")
    return 0


def _newest(folder: Path, host: str) -> dict[str, str]:
    """Return the newest run of each item and section. Raises ConfigError."""
    try:
        with contextlib.closing(run_history.read_only(folder)) as history:
            return history.newest(host)
    except FileNotFoundError:
        problem = "no run is recorded yet"
    except (BackupError, OSError) as error:
        problem, hint = in_words(error)
        if hint:
            raise ConfigError(f"--accept: {problem}", hint) from None
    hint = "The next run records what the stores hold. Run backup.py -r, then this again."
    raise ConfigError(f"--accept: {problem}", hint)
