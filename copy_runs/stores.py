"""The stores of a copy, and whether a store of the config is the one that it was."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass

from tools.base.errors import BackupError, ConfigError
from tools.catalog import location, store_identity
from tools.catalog.catalog import Catalog
from tools.catalog.location import Source, UserModules
from tools.catalog.memory import Memory
from tools.catalog.trust import Trust
from tools.config.model import Config, Section
from tools.engine import admission, state
from tools.flow import store
from tools.flow.store import Store

SOURCE, TARGET = "--from", "--to"


@dataclass(frozen=True)
class OpenStore:
    """A store, and whose runs in it are trusted. name: its section, or its URL"""

    name: str
    store: Store
    trust: Trust
    required: bool = True

    def catalog(self, host: str) -> Catalog:
        """Return the runs of a host as they are now."""
        return Catalog(self.store, host, self.trust)


def opened(config: Config, source: Source, modules: UserModules, argument: str) -> OpenStore:
    """Open the store of an argument, --from or --to. Raises BackupError, OSError.

    Raises StoreError where the target is a section of the config, and another store than it was.
    """
    try:
        backups = location.open_location(config, source, modules)
    except ConfigError as error:  # it names the argument of other commands
        text, hint = (one.replace("--store", argument) for one in (str(error), error.hint))
        raise ConfigError(text, hint) from None
    sections = [one for one in config.sections if one.name == source.store]
    if argument == TARGET and sections:
        _require_known(backups.store, config, sections[0])
    return OpenStore(source.store, backups.store, backups.trust)


def of_config(
    config: Config, source: Source, modules: UserModules
) -> Iterator[tuple[Section, OpenStore | BackupError | OSError]]:
    """Yield every store section of a config with its store, or why it cannot be used.

    A host that signs nothing trusts its own runs, as in a run.
    """
    trust = location.trust_of(config, dataclasses.replace(source, own_run=True))
    for section in config.sections:
        if section.kind != "store":
            continue
        try:
            opened_store = location.store_of(section, config, modules)
            _require_known(opened_store, config, section)
        except (BackupError, OSError) as error:
            yield section, error
            continue
        yield section, OpenStore(section.name, opened_store, trust, section.required)


def _require_known(opened_store: Store, config: Config, section: Section) -> None:
    """Raise StoreError where another disk is mounted in the place of a store, or none."""
    with store.explaining(opened_store):
        key = admission.store_key(config, section)
        seen = store_identity.inspect(opened_store, config.general.hostname, key)
        problem = seen.problem(Memory(state.readable_folder(config.general.work_folder)))
    if problem is not None:
        raise problem


def require_two(first: OpenStore, second: OpenStore) -> None:
    """Raise ConfigError where both names mean one store."""
    folders = [store.folder_of(one.store) for one in (first, second)]
    real = [os.path.realpath(one) for one in folders if one is not None]
    if str(first.store) == str(second.store) or (len(real) == 2 and real[0] == real[1]):  # noqa: PLR2004
        raise ConfigError(
            f"--from and --to are one store: {first.store}", "Name two different stores."
        )
