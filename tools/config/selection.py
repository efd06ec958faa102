"""Which sections run, and whether a run of them could store anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tools.base import hung_mount
from tools.base.errors import BackupError, ConfigError
from tools.config import model
from tools.config.model import Config, Section
from tools.modules import registry

_SIZE = "tools/size_calculation.py"  # measures what the sections before it left


def select(config: Config, only: Sequence[str], skip: Sequence[str]) -> list[Section]:
    """Return the sections to run.

    With a source, `only` keeps the stages, and the stores unless it names some. Raises
    ConfigError for a name that no section has, where no source or no store is left, and where
    two sections store in one folder.
    """
    names = [entry.name for entry in config.sections]
    for name in (*only, *skip):
        if name not in names:
            raise ConfigError(f"no section {name}", f"Choose from: {', '.join(names)}.")
    wanted_names = _with_needed(config.sections, only) if only else names
    chosen = [s for s in config.sections if s.name in wanted_names and s.name not in skip]
    by = " and ".join(
        flag for flag, section_names in (("--only", only), ("--skip", skip)) if section_names
    )
    _check_complete(chosen, config, by)
    _refuse_twins(chosen, config)
    return chosen


def _with_needed(sections: Sequence[Section], only: Sequence[str]) -> list[str]:
    """Return the names with those of the stages and stores that a source among them needs.

    A stage is never left out silently: without the encryption, plaintext would be stored.
    """
    kinds = {entry.name: entry.kind for entry in sections}
    selected_kinds = {kinds[name] for name in only}
    if "source" not in selected_kinds:
        return list(only)
    needed = ("stage",) if "store" in selected_kinds else ("stage", "store")
    return [*only, *(name for name, kind in kinds.items() if kind in needed)]


def _check_complete(chosen: Sequence[Section], config: Config, by: str) -> None:
    """Reject a run that would report success and store nothing.

    Checks alone (QA, a drill) have nothing to store. In a staged run a user-defined module
    may be a source or a store: a run with one is judged by its sections when it has ended.
    """
    if not chosen:
        raise ConfigError(f"{by}: no section is left", "Name a section that runs.")
    kinds = {entry.kind for entry in chosen}
    unclear = "" in kinds and not config.mode.streamed
    flows = kinds & {"source", "stage", "store"} or _measures(chosen)
    if unclear or not flows:
        return
    problem = f"{config.path}: {{}}{f' with {by}' if by else ''}"
    if "source" not in kinds:
        raise ConfigError(
            problem.format("no source section"),
            _hint(config, "source", by)
            or "Add a source, for example a section with NAME "
            "filesbackup. Keys that begin with __ are comments.",
        )
    if "store" not in kinds:
        raise ConfigError(
            problem.format("no store section"),
            _hint(config, "store", by)
            or "Add a store: a section with NAME storage. Without one nothing can be restored.",
        )


def _refuse_twins(chosen: Sequence[Section], config: Config) -> None:
    """Raise ConfigError where two sections store in one folder."""
    folders: dict[str, str] = {}
    for entry in chosen:
        folder = _store_folder(entry, config)
        if folder and folder in folders:
            raise ConfigError(
                f"{folders[folder]} and {entry.name} store in one folder: {folder}",
                "Give one of them another folder.",
            )
        folders[folder] = entry.name


def _store_folder(entry: Section, config: Config) -> str:
    """Return the folder of a store, links of a local one followed; "" where it is not known."""
    if entry.kind != "store" or entry.declaration is None:
        return ""
    try:
        options = model.filled(entry, config)
    except BackupError:
        return ""  # the test and the run of the section name it
    folder = getattr(options, "local_backup", None)
    if folder:
        return str(hung_mount.real_path(folder, entry.timeout))
    return str(getattr(options, "location", ""))


def _measures(chosen: Sequence[Section]) -> bool:
    return all(registry.name_of(entry.file) == _SIZE for entry in chosen)


def _hint(config: Config, kind: str, by: str) -> str:
    """Return which sections to select; "" where the config itself has none."""
    names = [entry.name for entry in config.sections if entry.kind == kind]
    if not by or not names:
        return ""
    more = " A full run also stores what an earlier one left." if kind == "source" else ""
    return f"Select a {kind} as well: {', '.join(names)}.{more}"


def cautions(config: Config, chosen: Sequence[Section]) -> list[str]:
    """Return a warning if items would be stored as plaintext.

    A user-defined filter may encrypt, and so may any user-defined module of a staged run.
    """
    kinds = {entry.kind for entry in chosen}
    may_encrypt = any(
        entry.declaration is None and (entry.kind == "stage" or not config.mode.streamed)
        for entry in chosen
    )
    encrypts = registry.encrypts(entry.file for entry in chosen)
    if "store" not in kinds or "source" not in kinds or encrypts or may_encrypt:
        return []
    return [
        "the backup is not encrypted: anyone who can read a store can read everything in it "
        "(docs/modules/encryption.md)"
    ]


def check_order(sections: Sequence[Section], *, streamed: bool) -> None:
    """Reject an order in which some sections could not work."""
    problem = flow_problem(sections) if streamed else staged_problem(sections)
    if problem is not None:
        raise problem


def flow_problem(sections: Sequence[Section]) -> ConfigError | None:
    """Return why these sections cannot be streamed."""
    return _problem(_check_flow, sections)


def staged_problem(sections: Sequence[Section]) -> ConfigError | None:
    """Return why these sections cannot be staged."""
    return _problem(_check_staged, sections)


def _problem(
    check: Callable[[Sequence[Section]], None], sections: Sequence[Section]
) -> ConfigError | None:
    try:
        check(sections)
    except ConfigError as error:
        return error
    return None


def _check_flow(sections: Sequence[Section]) -> None:
    """Reject a stage that a streamed run would apply twice or in the wrong order."""
    stages = [section for section in sections if section.kind == "stage"]
    for number, section in enumerate(stages):
        before = [other.file for other in stages[:number]]
        if section.declaration is not None and section.file in before:
            raise ConfigError(
                f"{section.where}: {section.name}: second {section.file.parent.name} section "
                "of a streamed run",
                "Remove one: every item passes through every stage.",
            )
        if section.declaration is not None and registry.encrypts(before):
            raise ConfigError(
                f"{section.where}: {section.name}: follows the encryption section",
                "Move it before the encryption: encrypted data cannot be compressed.",
            )


def _check_compressed_first(sections: Sequence[Section]) -> None:
    """Reject an encryption that comes before the compression whose output it encrypts."""
    stages = [section for section in sections if section.kind == "stage" and section.declaration]
    encrypting = [registry.encrypts([section.file]) for section in stages]
    if not any(encrypting) or all(encrypting):
        return
    first, later = stages[encrypting.index(True)], stages[encrypting.index(False)]
    if stages.index(first) < stages.index(later) and "TARGETS" not in first.places:
        raise ConfigError(
            f"{later.where}: {later.name}: follows {first.name}, which encrypts what "
            "compression writes",
            f"Move {later.name} before {first.name}.",
        )


def _check_staged(sections: Sequence[Section]) -> None:
    """Reject a source after the last store of a staged run: nothing would store it."""
    _check_compressed_first(sections)
    kinds = [section.kind for section in sections]
    if "store" not in kinds:
        return
    last = len(kinds) - 1 - kinds[::-1].index("store")
    for section in sections[last + 1 :]:
        if section.kind == "source":
            raise ConfigError(
                f"{section.where}: {section.name}: follows the last store "
                f"({sections[last].name}), so nothing would store it",
                f'Move it before {sections[last].name}, or set "STREAM": "True" in GENERAL.',
            )
