"""Where a restore takes its data from: the stores and keys of a config, or of arguments alone."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore import selection
from tools.base import permissions, project
from tools.base.errors import BackupError, ConfigError
from tools.base.run_result import RunResult
from tools.catalog import identity, manifest
from tools.config import loading, model
from tools.config.declarations import General
from tools.config.model import Config, Section
from tools.engine import section_runner, streamed, user_modules
from tools.engine.section_runner import Context
from tools.flow.item_record import StoredItem as Item
from tools.flow.store import Store, folder_of
from tools.flow.stream import Chunks
from tools.modules import loader, registry

_STORAGE = "storage/storage.py"
_ENCRYPTION = "encryption/encryption.py"


@dataclass(frozen=True)
class Origin:
    """A store, whose runs are meant, and what undoes the stages."""

    store: Store
    config: Config
    hostname: str
    scratch: Path
    configured: bool = False  # by a config file, not by arguments alone

    def hosts(self) -> Sequence[str]:
        """The hosts that are meant: the one that was named, or all in the store."""
        return [self.hostname] if self.hostname else list(self.store.folders())

    def host(self) -> str:
        """The one host that is meant. Raises ConfigError where the store holds several."""
        hosts = self.hosts()
        if len(hosts) != 1:
            raise ConfigError(
                f"{self.store} holds {f'runs of {len(hosts)} hosts' if hosts else 'no runs'}",
                f"Name one: --hostname {' or '.join(hosts)}." if hosts else self.elsewhere(),
            )
        return hosts[0]

    def elsewhere(self) -> str:
        """Return a hint where the store has no run of the host that was named."""
        others = [host for host in self.store.folders() if host != self.hostname]
        if others and self.hostname:
            return f"Hosts in the store: {', '.join(others)}. Name one with --hostname."
        folder = folder_of(self.store)
        if folder is not None and any(folder.glob(f"*{manifest.ENDING}")):
            return f"{folder} is the folder of one host: name the store, {folder.parent}."
        return "Is it the right store, and is its disk mounted?"

    def wanted(self) -> selection.Wanted:
        """Whose runs are meant. Raises ConfigError where the store holds several hosts."""
        host = self.host()
        if not self.configured or host != self.config.general.hostname:
            return selection.Wanted(host)
        names = tuple(entry.name for entry in self.config.sections)
        ours = identity.writer(self.config)
        return selection.Wanted(host, names, ours.config_id, ours.machine)

    def undo(self, stage: str) -> Callable[[Chunks], Iterator[bytes]]:
        """The inverse of a stage, by its name in the manifest. Raises ConfigError, StageError."""
        row = registry.row_of_stage(stage)
        if row is not None:
            module = row.file
            given = model.filled(_of(self.config, module) or _built_in(module), self.config)
            return loader.stage(module).backward(stage, given)
        name = stage.removeprefix(user_modules.STAGE)
        found = [entry for entry in self.config.sections if entry.name == name]
        if not stage.startswith(user_modules.STAGE) or not found:
            raise ConfigError(
                f"the stage {stage!r} is not known here",
                f"It is a filter of the section {name}: name the config that has it (-c).",
            )
        return lambda chunks: user_modules.undone(
            found[0], context(self.config, found[0], self.scratch), chunks
        )

    def options(self, item: Item) -> object:
        """The Options of the section that made an item; None where the config has no such."""
        module = registry.file_of_kind(item.kind)
        for entry in self.config.sections:
            if entry.name == item.section and registry.name_of(entry.file) == module:
                return model.filled(entry, self.config)
        return None

    def report(self, result: RunResult) -> dict[str, str]:
        """Report a restore through the channels of the config; return the results by channel."""
        from tools.reporting import delivery, terminal
        from tools.reporting.document import run_document

        table = "\n".join(terminal.table_lines(result))
        return delivery.deliver(self.config.general, run_document(result), table, None)


def context(loaded: Config, entry: Section, scratch: Path) -> Context:
    """What a program of the user's own is told in a restore."""
    folder = scratch / entry.name
    folder.mkdir(exist_ok=True)
    return Context(loaded, "restore", folder)


def of(given: argparse.Namespace, scratch: Path) -> Origin:
    """Read the arguments. Raises ConfigError, or what the store raises."""
    if given.config is None and given.local_backup is None:
        raise ConfigError(
            "where from is not said", "Name a config (-c), or a store: --local-backup FOLDER."
        )
    if given.insecure_permissions:
        permissions.accept()
    loaded = (
        loading.load(given.config, insecure=given.insecure_permissions)
        if given.config
        else Config(Path.cwd() / "arguments", General(given.hostname or "unknown"), {}, ())
    )
    section_runner.learn_secrets(loaded)
    if given.key_file or given.passphrase:
        loaded = _with_key(loaded, given)
    host = given.hostname or (loaded.general.hostname if given.config else "")
    return Origin(_store(loaded, given, scratch), loaded, host, scratch, bool(given.config))


def _of(loaded: Config, module: str) -> Section | None:
    """The section of a config that runs a built-in module."""
    return next(
        (entry for entry in loaded.sections if registry.name_of(entry.file) == module), None
    )


def _built_in(module: str, **parameters: Any) -> Section:  # noqa: ANN401  (values of options)
    """A section for a built-in module that no config has."""
    file = project.ROOT / module
    kind = registry.MODULES[module].role
    return Section(
        Path(module).stem.upper(), "arguments", "execute", file, "python",
        parameters=parameters, kind=kind, declaration=registry.declaration(file),
    )  # fmt: skip


def _with_key(loaded: Config, given: argparse.Namespace) -> Config:
    """The config, its encryption with the key that was named."""
    old = _of(loaded, _ENCRYPTION)
    ours = old or _built_in(_ENCRYPTION)
    parameters = {k: v for k, v in ours.parameters.items() if k not in ("PASSPHRASE", "RECIPIENTS")}
    if given.key_file:
        parameters["KEY_FILE"] = str(given.key_file.absolute())
    if given.passphrase:
        parameters["PASSPHRASE"] = given.passphrase
    ours = dataclasses.replace(ours, parameters=parameters)
    rest = [entry for entry in loaded.sections if entry is not old]
    return dataclasses.replace(loaded, sections=(ours, *rest))


def _store(loaded: Config, given: argparse.Namespace, scratch: Path) -> Store:
    """The store that was named, or the first of the config that opens."""
    if given.local_backup is not None:
        folder = given.local_backup.absolute()
        if not folder.is_dir():
            raise ConfigError(f"--local-backup: {folder} is no folder", "Is its disk mounted?")
        entry = _built_in(_STORAGE, HOSTNAME="any", DESTINATION="local", LOCAL_BACKUP=str(folder))
        return streamed.opened(entry, context(loaded, entry, scratch))
    stores = [entry for entry in loaded.sections if entry.kind == "store"]
    chosen = [entry for entry in stores if given.store in ("", entry.name)]
    if not chosen:
        names = ", ".join(entry.name for entry in stores) or "none"
        raise ConfigError(f"--store: there is no store {given.store}", f"Stores: {names}.")
    error: BackupError | OSError | None = None
    for entry in chosen:
        try:
            return streamed.opened(entry, context(loaded, entry, scratch))
        except (BackupError, OSError) as trouble:
            error = error or trouble
    assert error is not None  # noqa: S101
    raise error
