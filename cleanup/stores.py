"""The stores of a config that are cleaned up, and what this machine remembers of them."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from cleanup.remembered import Remembered
from tools.base import removal
from tools.base.errors import ConfigError
from tools.catalog import location
from tools.catalog.catalog import Catalog
from tools.catalog.location import BackupLocation, Source
from tools.catalog.memory import Memory
from tools.config import model
from tools.config.model import Config, Section
from tools.engine.user_modules import ForRestore

_SCRATCH = "nc-backup-cleanup-"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield a private folder for the programs of user-defined stores."""
    top = Path(tempfile.gettempdir())
    removal.sweep(top, _SCRATCH)
    with removal.private(top, _SCRATCH) as folder:
        yield folder


def named(config: Config, store: str) -> list[Section]:
    """Return a store section of a config by its name, or all of them for "".

    Raises ConfigError where there is none.
    """
    stores = [entry for entry in config.sections if entry.kind == "store"]
    chosen = [entry for entry in stores if store in ("", entry.name)]
    if not chosen:
        names = ", ".join(entry.name for entry in stores) or "none"
        raise ConfigError(f"STORE: no store section {store}", f"Choose from: {names}.")
    return chosen


def of_bucket(
    config: Config, sections: Sequence[Section], bucket: str, prefix: str
) -> tuple[list[Section], str]:
    """Return the stores in a bucket, as the documented keys name it, and why there are none.

    prefix: of the objects in it, which must be the folder of the host; "" for any
    """
    host = config.general.hostname
    matching: list[Section] = []
    why = f"no store of this config has the bucket {bucket}"
    for entry in sections:
        options = model.filled(entry, config) if entry.declaration is not None else None
        if not bucket or getattr(options, "bucket_name", "") != bucket:
            continue
        folder = f"{getattr(options, 'prefix', '').strip('/')}/{host}".strip("/")
        if prefix.strip("/") in ("", folder):
            matching.append(entry)
        else:
            why = f"PREFIX {prefix} is not the folder of this host in {entry.name}, {folder}/"
    return matching, "" if matching else why


def opened(config: Config, entry: Section, source: Source, scratch: Path) -> BackupLocation:
    """Return the store of a section. Raises BackupError or OSError where it cannot be opened."""
    of_section = dataclasses.replace(source, store=entry.name)
    return location.open_location(config, of_section, ForRestore(scratch))


def remembered(catalog: Catalog, state_folder: Path | None) -> Remembered:
    """Return the decisions of the operator about a host in a store."""
    return Remembered(Memory(state_folder), str(catalog.store), catalog.host)
