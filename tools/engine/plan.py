"""What a run would do (`-n`), without the code that does it: a plan is shown at once."""

from __future__ import annotations

from collections.abc import Sequence

from tools.base import masking
from tools.base.finding import Level, Line
from tools.config import run_mode, selection
from tools.config.declarations import Hooks
from tools.config.model import Config, Section
from tools.engine import hooks, section_runner


def commands(config: Config, chosen: Sequence[Section]) -> list[Line]:
    """Return the command of every section, secrets masked (-n)."""
    lines = warnings(config, chosen)
    lines.append(Line("GENERAL", _mode_text(config, chosen)))
    lines += _hooks("GENERAL", config.general.hooks)
    for number, current in enumerate(chosen, 1):
        text = section_runner.command(current, config).masked()
        of_class = (
            f" (class {current.class_name} of {current.file})" if current.action == "load" else ""
        )
        lines.append(Line(current.name, f"section {number}: {text}{of_class}"))
        lines += _hooks(current.name, current.hooks)
    lines += [Line("NOTIFY", f"{one.name}: {one.description()}") for one in config.notify]
    return lines


def _hooks(name: str, of_it: Hooks) -> list[Line]:
    return [Line(name, f"{key}: {masking.command(argv)}") for key, argv in hooks.listed(of_it)]


def _mode_text(config: Config, chosen: Sequence[Section]) -> str:
    """Return how the data flow in this run, and into which stores."""
    way = run_mode.of_run(config)
    if not way.streamed:
        how = "each section leaves files in WORK_FOLDER, and the next one takes them"
        return f"staged run: {how} ({way.reason})"
    names = [
        " + ".join(entry.name for entry in chosen if entry.kind == kind)
        for kind in ("source", "stage", "store")
    ]
    return f"streamed run: {' -> '.join(filter(None, names))} ({way.reason})"


def warnings(config: Config, chosen: Sequence[Section]) -> list[Line]:
    """Return the warnings of the config, and those of the sections that run."""
    texts = (*config.warnings, *selection.cautions(config, chosen))
    return [Line("GENERAL", text, Level.WARN) for text in texts]
