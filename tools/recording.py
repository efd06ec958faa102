"""The stores of one run, from its mark to its manifest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime

from tools import flow, house, identity, manifest, records, streamed
from tools.config import Config, Section
from tools.errors import BackupError
from tools.log import logger
from tools.manifest import Manifest
from tools.outcome import Step
from tools.result import Status, worst
from tools.section import Context
from tools.staged import Staged
from tools.store import Store
from tools.streamed import Streamed


class Recording:
    """What is written into every store about a run, before and after its sections."""

    def __init__(
        self, config: Config, run_id: str, begin: datetime, flows: Streamed | None
    ) -> None:
        """flows: of a streamed run; None in a staged one."""
        self._config = config
        self._run_id = run_id
        self._begin = begin
        self._streamed = flows
        self._stores: dict[str, Store] = {}  # by section: those that took the mark
        self._unmarked: dict[str, str] = {}  # why the others did not
        self._previous: dict[str, int] = {}  # plain bytes of items in the last good run

    def open(
        self, chosen: Sequence[Section], contexts: Callable[[Section], Context], stack: ExitStack
    ) -> None:
        """Mark the stores; what dead runs left there is removed. `stack` takes the marks away.

        A store that cannot be reached is for its section to report; without a manifest it
        holds no run, whatever its section says.
        """
        general = self._config.general
        for entry in chosen:
            if entry.kind != "store":
                continue
            try:
                place = streamed.opened(entry, contexts(entry))
                records.begin(place, general.hostname, self._run_id)
            except (BackupError, OSError) as error:
                logger.warning("%s: %s", entry.name, error)
                self._unmarked[entry.name] = str(error)
                continue
            stack.callback(records.end, place, general.hostname, self._run_id)
            self._stores[entry.name] = place
            try:
                newest = records.newest_good(place, general.hostname)
                self._previous = self._previous or _sizes(newest)
                records.sweep(place, general.hostname, self._run_id, general.leftovers_age)
            except (BackupError, OSError) as error:
                logger.warning("%s: nothing is cleaned up: %s", entry.name, error)
        if self._streamed is not None and general.shrink_check:
            self._streamed.previous = self._previous
        if self._streamed is not None:
            self._streamed.earlier = self._earlier

    def _earlier(self, section: str, name: str) -> list[Mapping[str, str] | None]:
        """What the newest copy of an item says of itself, in each store."""
        host = self._config.general.hostname
        found = []
        for place in self._stores.values():
            item = records.newest_item(place, host, section, name)
            found.append(None if item is None else item.facts)
        return found

    def _compare(self, steps: list[Step], item: manifest.Item) -> None:
        """A staged item that has shrunk: its section says so."""
        wanted = self._config.general.shrink_check and house.steady(item.kind)
        if not wanted or item.size is None:
            return
        try:
            warning = flow.shrunk(item.size, self._previous.get(item.called))
            status = Status.INCOMPLETE
        except BackupError as error:
            warning, status = f"{error} ({error.hint})", Status.FAILED
        if warning:
            _worsen(steps, item.section, f"{item.called}: {warning}", status)

    def write(self, steps: list[Step], staged: Staged) -> None:
        """A manifest into every store that holds something of this run."""
        items = {
            name: list(staged.items(name))
            if self._streamed is None
            else [done.item for done in self._streamed.flowed if name in done.holders]
            for name in self._stores
        }
        for item in {item.called: item for held in items.values() for item in held}.values():
            if self._streamed is None:
                self._compare(steps, item)
        everything = {item.called for held in items.values() for item in held}
        everything |= set(() if self._streamed is None else self._streamed.missing)
        warnings = [line for step in steps for line in step.result.warnings]
        for name, place in self._stores.items():
            if not items[name]:
                continue
            made = Manifest(
                host=self._config.general.hostname,
                run_id=self._run_id,
                begin=manifest.stamp(self._begin),
                end=manifest.now(),
                mode="staged" if self._streamed is None else "streamed",
                status=worst(s.result.status for s in steps if _concerns(s, name)).value,
                items=tuple(items[name]),
                missing=tuple(sorted(everything - {item.called for item in items[name]})),
                warnings=tuple(warnings),
                config=self._config.digest,
                base=max((i.facts["base"] for i in items[name] if "base" in i.facts), default=None),
                program=f"nc-backup-py {house.version()}",
                **dataclasses.asdict(identity.writer(self._config)),
            )
            try:
                records.finish(place, made)
            except (BackupError, OSError) as error:
                _without_manifest(steps, name, str(error))
        for name, why in self._unmarked.items():
            _without_manifest(steps, name, why)


def _without_manifest(steps: list[Step], name: str, why: str) -> None:
    """The run does not exist in this store, and its section must not say that it does."""
    if any(step.name == name and step.result.status.stored for step in steps):
        _worsen(steps, name, f"the manifest could not be stored: {why}", Status.FAILED)


def _worsen(steps: list[Step], name: str, what: str, status: Status) -> None:
    """Something that is known only after a section has ended."""
    logger.log(40 if status is Status.FAILED else 30, "%s: %s", name, what)
    for number, step in enumerate(steps):
        if step.name == name:
            now = worst((step.result.status, status))
            result = dataclasses.replace(step.result, status=now)
            if status is Status.FAILED:
                result = dataclasses.replace(result, message=what, removable=())
            else:
                result = dataclasses.replace(result, warnings=(*result.warnings, what))
            steps[number] = dataclasses.replace(step, result=result)


def _sizes(made: Manifest | None) -> dict[str, int]:
    """The plain bytes of each item of a run, where they are known."""
    items = made.items if made is not None else ()
    return {item.called: item.size for item in items if item.size is not None}


def _concerns(step: Step, store: str) -> bool:
    """Whether a section says something of what a store holds: no check, no other store."""
    return step.kind != "check" and (step.kind != "store" or step.name == store)
