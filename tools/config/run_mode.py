"""Whether a run is streamed or staged: STREAM, and the meaning of `auto` for a config."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tools import filesystem_handling
from tools.base.errors import ConfigError
from tools.base.real_path import resolved
from tools.config import model, selection
from tools.config.model import Config, RunMode, Section
from tools.modules import registry
from tools.modules.json_values import Switch


def of_config(config: Config) -> RunMode:
    """Return how a config runs. `auto`: streamed where a staged run would store nothing more."""
    setting = config.general.stream
    if setting is not Switch.AUTO:
        return RunMode(setting is Switch.TRUE, f"STREAM is {setting.value}")
    obstacle = next(_obstacles(config), "")
    return RunMode(not obstacle, obstacle or "every section takes part in the stream")


def of_run(config: Config) -> RunMode:
    """Return how a run of this config goes now: files of a staged run are stored by a staged run.

    Reads the work folder and changes nothing.
    """
    mode = config.mode
    if config.general.stream is not Switch.AUTO or not mode.streamed:
        return mode
    leftover = next(_leftovers(config), None)
    if leftover is None or selection.staged_problem(config.sections) is not None:
        return mode
    return RunMode(False, f"{leftover} is not stored yet")


def refuse_staged_roles(sections: Sequence[Section], mode: RunMode) -> None:
    """Raise ConfigError where a section has a part in a stream and the run is staged."""
    for section in sections:
        if section.declaration is None and section.kind and not mode.streamed:
            raise ConfigError(
                f"{section.where}: {section.name}.STREAM: the run is staged: {mode.reason}",
                'Set "STREAM": "True" in GENERAL, or remove STREAM from this section.',
            )


def _obstacles(config: Config) -> Iterator[str]:
    """Yield why a streamed run of this config would do less than a staged one."""
    sections = config.sections
    for section in sections:
        if not section.kind:
            yield f"{section.name} has no STREAM key"
    problem = selection.flow_problem(sections)
    if problem is not None:
        yield str(problem)
    yield from _of_order(sections)
    built_in = {s.name: model.filled(s, config) for s in sections if s.declaration is not None}
    for section in sections:
        if section.name in built_in:
            yield from _of_keys(section, built_in[section.name])
    stores = [built_in[s.name] for s in sections if s.kind == "store" and s.name in built_in]
    if stores and not any(getattr(store, "remove_targets", True) for store in stores):
        yield "the last store keeps the files that it has stored (REMOVE_TARGETS)"
    yield from _of_folders(config, built_in)


def _of_order(sections: Sequence[Section]) -> Iterator[str]:
    """Yield an obstacle for a stage after a store, and for what waits for a source."""
    kinds = {section.name: section.kind for section in sections}
    store = ""
    for section in sections:
        if section.kind == "stage" and store:
            yield f"{section.name} follows {store}"
        if section.kind == "store":
            store = store or section.name
        if section.kind in ("stage", "store"):
            sources = [name for name in section.needs if kinds.get(name) == "source"]
            if sources:
                yield f"{section.name} needs {sources[0]}"


def _of_keys(section: Section, options: Any) -> Iterator[str]:  # noqa: ANN401  (any Options)
    """Yield an obstacle for each key of a stage that a stream cannot honor."""
    if section.kind != "stage":
        return
    if not options.remove_targets:
        yield f"{section.name} keeps the files that it takes (REMOVE_TARGETS)"
    form = getattr(options, "format", None)
    if form is not None and form.value == "openssl":
        yield f"{section.name} has FORMAT openssl: only a staged run writes the documented names"


def _of_folders(config: Config, built_in: dict[str, Any]) -> Iterator[str]:
    """Yield obstacles: folders taken that no earlier section fills, and those nobody takes."""
    work = config.general.work_folder
    filled: list[Path] = []
    untaken: dict[Path, str] = {}
    for section in config.sections:
        options = built_in.get(section.name)
        if section.kind in ("stage", "store") and options is not None:
            for target in options.targets:
                if not any(_within(target, folder) for folder in filled):
                    yield f"TARGETS of {section.name}: no earlier section writes {target}"
            taken = _taken(section, options, work, filled)
            untaken = {f: n for f, n in untaken.items() if not any(_within(f, t) for t in taken)}
        if section.kind == "check" and options is not None:
            yield from _measured(section, options, work, filled)
        if options is not None and (folder := _filled(section, options, work)) is not None:
            filled.append(folder)
            if section.kind == "source":
                untaken[folder] = section.name
    for folder, name in untaken.items():
        yield f"no section stores {folder}, which {name} writes"


def _measured(
    section: Section,
    options: Any,  # noqa: ANN401  (any Options)
    work: Path,
    filled: Sequence[Path],
) -> Iterator[str]:
    """Yield the files between sections that a check measures; a stream has the usual folder."""
    for target in getattr(options, "targets", ()):
        if target != work / "encrypted" and any(_within(target, folder) for folder in filled):
            yield f"{section.name} checks {target}"


def _within(path: Path, folder: Path) -> bool:
    real = resolved(path)
    return resolved(folder) in (real, *real.parents)


def _taken(
    section: Section,
    options: Any,  # noqa: ANN401  (any Options)
    work: Path,
    filled: Sequence[Path] | None,
) -> Sequence[Path]:
    """Return where a stage or a store of a staged run finds its files.

    filled: the folders of earlier sections. Without a folder of its own that one of them fills,
    a section takes all that they fill; None: its own folder in any case.
    """
    if options.targets:
        return tuple(options.targets)
    row = registry.row(section.file)
    usual = work / row.takes if row is not None else work
    return (usual,) if filled is None or usual in filled else (work,)


def _filled(section: Section, options: Any, work: Path) -> Path | None:  # noqa: ANN401  (any Options)
    """Return the folder that a section of a staged run fills; None for a store or a check."""
    destination = getattr(options, "destination", None)
    row = registry.row(section.file)
    if row is None or section.kind not in ("source", "stage"):
        return None
    if row.fills:
        return Path(destination or work / row.fills)
    return Path(destination or work, options.prefix_folder)


def _leftovers(config: Config) -> Iterator[Path]:
    """Yield finished files that a staged run would take: an earlier one has not stored them."""
    general = config.general
    stores = {general.local_backup}
    sources: list[Path] = []
    for section in config.sections:
        if section.declaration is None or section.kind not in ("stage", "store"):
            continue
        options = model.filled(section, config)
        stores.add(getattr(options, "local_backup", None))
        sources += _taken(section, options, general.work_folder, None)
    store_folders = [resolved(folder) for folder in stores if folder is not None]
    for source in sources:
        inside = source.is_dir() and resolved(source) == resolved(general.work_folder)
        for folder in sorted(source.iterdir()) if inside else [source]:
            real = resolved(folder)
            if folder.is_dir() and not folder.name.startswith(".") and real not in store_folders:
                yield from filesystem_handling.files_below(folder)
