"""The runs of a store: found, and told of in a line."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from tools.base import run_ids
from tools.base.errors import BackupError, ConfigError
from tools.catalog import manifest, markers
from tools.catalog.manifest import Manifest
from tools.date_str_utils import RUN_ID, human_size, human_time
from tools.flow import item_record
from tools.flow.store import Store

_DATES = (  # what is accepted, and how much later its end is
    (RUN_ID, timedelta()),
    ("%Y-%m-%d", timedelta(days=1, seconds=-1)),
    ("%Y%m%d", timedelta(days=1, seconds=-1)),
    ("%Y-%m-%dT%H:%M", timedelta(seconds=59)),
    ("%Y-%m-%d %H:%M", timedelta(seconds=59)),
    ("%Y-%m-%dT%H:%M:%S", timedelta()),
    ("%Y-%m-%d %H:%M:%S", timedelta()),
)
IN_FUTURE = "lies in the future: it was made while the clock was wrong, and is never latest"
_FACTS = (  # of a run in --list --json; null where its manifest cannot be read
    *("begin", "end", "status", "items", "size", "plain_size", "missing", "warnings"),
    *("mode", "base", "machine", "machine_name", "config_id", "config_file"),
)


@dataclass(frozen=True)
class Found:
    """A run of which there is a manifest; `trouble` where that cannot be read."""

    host: str
    run_id: str
    manifest: Manifest | None = None
    trouble: str = ""

    def facts(self) -> dict[str, object]:
        """What --list shows, as --json gives it."""
        made = self.manifest
        return {
            "run_id": self.run_id,
            "host": self.host,
            "age": round(self.age()),
            "result": self.result,
            "future": run_ids.in_future(self.run_id),
            **(_facts(made) if made is not None else dict.fromkeys(_FACTS)),
        }

    def warning(self) -> str:
        """Return what is to be said of the run beside its row; "" for nothing."""
        if not run_ids.in_future(self.run_id):
            return ""
        return f"run {self.run_id} of {self.host} {IN_FUTURE}"

    def row(self) -> tuple[str, ...]:
        """What --list shows, as texts."""
        made = self.manifest
        items = "-" if made is None else str(len(made.items))
        size = "-" if made is None else human_size(made.size)
        base = "-" if made is None or made.base is None else made.base
        return (self.run_id, self.host, human_age(self.age()), self.result, items, size, base)

    def age(self) -> float:
        """Seconds since it began."""
        return (datetime.now(timezone.utc) - run_ids.time_of(self.run_id)).total_seconds()

    @property
    def result(self) -> str:
        """One word, or what is wrong with the manifest."""
        if self.manifest is None:
            return f"unreadable: {self.trouble}"
        if self.manifest.missing:
            return f"{self.manifest.status}, lacks {', '.join(self.manifest.missing)}"
        return self.manifest.status


def _facts(made: Manifest) -> dict[str, object]:
    """What --list --json says of a run whose manifest can be read; sizes in bytes, times in UTC."""
    sizes = [item.size for item in made.items]
    known = [size for size in sizes if size is not None]
    values = (
        made.begin,
        made.end,
        made.status,
        len(made.items),
        made.size,
        sum(known) if len(known) == len(sizes) else None,
        list(made.missing),
        len(made.warnings),
        made.mode,
        made.base,
        made.machine or None,
        made.machine_name or None,
        made.config_id or None,
        made.config_file or None,
    )
    return dict(zip(_FACTS, values, strict=True))


def human_age(seconds: float) -> str:
    """An age as people say it: 3 d, 5 h, 42 s."""
    days = int(seconds // 86400)
    if seconds < 0:
        return f"in {human_age(-seconds)}"
    return f"{days} d" if days else human_time(max(0.0, seconds))


def found(store: Store, host: str) -> Iterator[Found]:
    """Every run of a host, oldest first, whether its manifest can be read or not."""
    for entry in store.entries(host):
        run_id = manifest.run_of(entry.name.rpartition("/")[2])
        if not run_id:
            continue
        try:
            run_ids.time_of(run_id)
            yield Found(host, run_id, markers.read(store, host, run_id))
        except ValueError:
            continue  # eight digits and six, but no time
        except (BackupError, OSError) as error:
            yield Found(host, run_id, trouble=str(error))


def until(text: str) -> datetime:
    """The last moment that a date means, UTC. Raises ConfigError."""
    for form, rest in _DATES:
        try:
            return datetime.strptime(text, form).replace(tzinfo=timezone.utc) + rest
        except ValueError:
            continue
    raise ConfigError(
        f"{text!r} is no run, and no date",
        'Name a run id, "latest", or a time in UTC: 2026-01-31, "2026-01-31 14:30".',
    )


def items(
    everything: Sequence[item_record.StoredItem], section: str, names: Sequence[str], what: str
) -> Sequence[item_record.StoredItem]:
    """The items that are meant, a database also by its name alone (`shop` for `3306/shop`).

    everything: what there is to choose from; `what` names it in errors.
    names: none for all; with * and ? where nothing is called so. Raises ConfigError where a name,
    or the section, means nothing.
    """
    of_section = [entry for entry in everything if section in ("", entry.section)]
    found: dict[str, item_record.StoredItem] = {}
    for name in names or ("",):
        wanted = [entry for entry in of_section if name in ("", entry.name, entry.called)]
        wanted = wanted or [entry for entry in of_section if name == entry.name.partition("/")[2]]
        wanted = wanted or [entry for entry in of_section if fnmatch.fnmatchcase(entry.name, name)]
        if not wanted:
            there = ", ".join(entry.called for entry in everything)
            raise ConfigError(
                f"{what} holds no item {name or '(any)'} of section {section or '(any)'}",
                f"It holds: {there}.",
            )
        found.update({entry.called: entry for entry in wanted})
    return [entry for entry in of_section if entry.called in found]
