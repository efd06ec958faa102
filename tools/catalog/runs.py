"""The runs of a catalog in short, and the items that arguments select."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from tools.base import foreign, run_ids
from tools.base.errors import BackupError, ConfigError, in_words
from tools.catalog.catalog import Catalog
from tools.catalog.manifest import Manifest
from tools.date_str_utils import RUN_ID, count
from tools.flow.item_record import StoredItem as Item

_DATES = (  # accepted forms, and from what is written to the last second that it means
    (RUN_ID, timedelta()),
    ("%Y-%m-%d", timedelta(days=1, seconds=-1)),
    ("%Y%m%d", timedelta(days=1, seconds=-1)),
    ("%Y-%m-%dT%H:%M", timedelta(seconds=59)),
    ("%Y-%m-%d %H:%M", timedelta(seconds=59)),
    ("%Y-%m-%dT%H:%M:%S", timedelta()),
    ("%Y-%m-%d %H:%M:%S", timedelta()),
)
_MAX_INVALID_NAMED = 3  # invalid items of a run that a list of runs names
IN_FUTURE = (
    "is dated in the future: the clock was wrong when it was made, or is wrong now. "
    "It is never latest"
)


@dataclass(frozen=True)
class RunSummary:
    """A run that has a manifest.

    manifest: None where it cannot be read or is not trusted; `error` says why, `hint` what to do
    claimed:  what it says, to be shown
    signed:   whether a known signer has signed it
    unsigned: whether it is not trusted only because it was made before signing began
    signature: whether the store has a signature of it, whosever it is
    pinned:   whether clean-up must not touch it
    """

    host: str
    run_id: str
    manifest: Manifest | None = None
    error: str = ""
    hint: str = ""
    claimed: Manifest | None = None
    signed: bool = False
    unsigned: bool = False
    signature: bool = False
    pinned: bool = False

    @property
    def in_future(self) -> bool:
        """Return whether the run was made while the clock was wrong."""
        return run_ids.in_future(self.run_id)

    @property
    def age(self) -> float:
        """Return the seconds since the run began."""
        return (datetime.now(timezone.utc) - run_ids.time_of(self.run_id)).total_seconds()

    @property
    def result(self) -> str:
        """Return the status, and what the store lacks; or why the manifest cannot be read."""
        if self.unsigned and self.claimed is not None:
            why = "signer not known" if self.signature else "not signed"
            return f"{self.claimed.status}, {why}"
        if self.manifest is None:
            return f"{'not trusted' if self.claimed else 'unreadable'}: {self.error}"
        result = self.manifest.status
        if self.manifest.cleaned:
            result += f", {count(len(self.manifest.cleaned), 'item')} cleaned away"
        if self.pinned:
            result += ", pinned"
        if self.manifest.missing:
            result += f", lacks {', '.join(self.manifest.missing)}"
        for item in self.manifest.refused[:_MAX_INVALID_NAMED]:
            result += f"; unreadable: {item.label}: {item.problem}"
        return foreign.line(result)

    def warning(self) -> str:
        """Return a warning about the run; "" for none."""
        return f"run {self.run_id} of {self.host} {IN_FUTURE}" if self.in_future else ""


def list_runs(catalog: Catalog) -> Iterator[RunSummary]:
    """Return all runs, oldest first, whether or not their manifests can be read."""
    for run_id in catalog.in_turn():
        try:
            claim = catalog.claim(run_id)
        except (BackupError, OSError) as error:
            yield RunSummary(catalog.host, run_id, error=in_words(error)[0])
            continue
        run = claim.manifest
        if claim.untrusted is None:
            yield RunSummary(
                catalog.host,
                run_id,
                run,
                claimed=run,
                signed=bool(claim.signer),
                pinned=run_id in catalog.pinned,
            )
        else:
            yield RunSummary(
                catalog.host,
                run_id,
                error=str(claim.untrusted),
                hint=claim.untrusted.hint if catalog.has_signature(run_id) else "",
                claimed=run,
                unsigned=catalog.is_unsigned(run_id),
                signature=catalog.has_signature(run_id),
                pinned=run_id in catalog.pinned,
            )


def parse_date(text: str) -> datetime:
    """Return the last second that a date or time means, UTC. Raises ConfigError."""
    for form, rest in _DATES:
        try:
            return datetime.strptime(text, form).replace(tzinfo=timezone.utc) + rest
        except ValueError:
            continue
    raise ConfigError(
        f"{text}: not a run ID or a date",
        'Use a run ID, "latest" or a UTC time: 2026-01-31, "2026-01-31 14:30".',
    )


def select_items(
    items: Sequence[Item], section: str, names: Sequence[str], label: str
) -> Sequence[Item]:
    """Return the items of a section that the names select; no names select all.

    A name is that of an item (`3306/shop`), of a database alone (`shop`), or a pattern with *
    and ?. label: names the run in errors.
    Raises ConfigError where a name, or the section, selects nothing.
    """
    of_section = [item for item in items if section in ("", item.section)]
    selected: set[str] = set()
    for name in names or ("",):
        matches = _matches(of_section, name)
        if not matches:
            raise ConfigError(
                f"{label}: {_nothing(section, name)}",
                f"Choose from: {', '.join(foreign.argument(item.label) for item in items)}.",
            )
        selected.update(item.label for item in matches)
    return [item for item in of_section if item.label in selected]


def _matches(items: Sequence[Item], name: str) -> Sequence[Item]:
    """Return the items of this name; else the databases of this name; else what matches it."""
    return (
        [item for item in items if name in ("", item.name, item.label)]
        or [item for item in items if name == item.name.partition("/")[2]]
        or [item for item in items if fnmatch.fnmatchcase(item.name, name)]
    )


def _nothing(section: str, name: str) -> str:
    of_section = f" in section {section}" if section else ""
    return f"no item {name}{of_section}" if name else f"no item{of_section}"
