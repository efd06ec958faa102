"""Which stores take part in a run: those that are the right ones, and took its mark."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from tools.base.errors import BackupError, StoreError, TakenError, in_words
from tools.base.finding import Finding, bad, warning
from tools.base.log import logger
from tools.catalog import (
    identity,
    leftovers,
    location,
    markers,
    sequence,
    store_identity,
    writer_key,
)
from tools.catalog.catalog import Catalog
from tools.catalog.history import History
from tools.catalog.identity import Writer
from tools.catalog.location import Source
from tools.catalog.manifest import Manifest
from tools.catalog.memory import Memory
from tools.catalog.trust import Trust
from tools.config.model import Config, Section
from tools.date_str_utils import human_size
from tools.engine import newest_runs, streamed
from tools.engine.consent import Consent
from tools.engine.section_runner import Context
from tools.flow import store
from tools.flow.store import Store

_ROLLED_BACK = (
    "Check who can write to this store. If it was rolled back on purpose, run backup.py once with "
    "--accept-rollback."
)
_MOST_TAKEN = 50  # run ids, one for each second, that a store may hold something of
_FORGED = "Check who can write to this store."
_MOVED = (
    "After a move nothing is to be done for new runs; to restore earlier ones here, copy "
    "WRITER_KEY and KEY_FILE from the old machine, or list its signer in SIGNERS. Without a move: "
    "check who can write to this store."
)
_ENOUGH = 2  # times the size of the last run that must be free


@dataclass(frozen=True)
class Admitted:
    """A store that takes part. `warnings`: what the operator should know of it."""

    section: str
    catalog: Catalog
    history: History
    identity: str
    warnings: tuple[Finding, ...]

    @property
    def store(self) -> Store:
        """Return the store itself."""
        return self.catalog.store

    def mark(self, run_id: str) -> None:
        """Take a run id. Raises TakenError where it is taken, BackupError or OSError."""
        if self.catalog.has_objects_of(run_id):
            raise TakenError(f"{self.store} holds something of run {run_id}")
        with store.explaining(self.store):
            markers.create_marker(self.store, self.catalog.host, run_id)


def admitted(entry: Section, context: Context, memory: Memory, consent: Consent) -> Admitted:
    """Open the store of a section and look whether it is the right one.

    Raises BackupError or OSError where it must not be written to. Nothing but the marker of a
    new store is written.
    """
    config = context.config
    host = config.general.hostname
    target = streamed.open_section_store(entry, context)
    with store.explaining(target):
        inspected = store_identity.inspect(target, host, store_key(config, entry))
        problem = inspected.problem(memory)
        if problem is not None and not consent.store:
            raise problem
        catalog = Catalog(target, host, _trust(config))
        history = History(catalog)
        findings = list(_findings(catalog, history, identity.writer(config), consent))
        odd, alarm = _numbers(catalog, config, memory, inspected.identity, consent)
        findings += [*odd, *_no_longer_signed(catalog, config)]
    settled = inspected.settle(memory, accept=consent.store)
    memory.set_alarm(settled, host, identity.config_id(config.path), alarm)
    return Admitted(entry.name, catalog, history, settled, tuple(findings))


def _trust(config: Config) -> Trust:
    return location.trust_of(config, Source(config=config.path, own_run=True))


def _numbers(
    catalog: Catalog, config: Config, memory: Memory, store_id: str, consent: Consent
) -> tuple[list[Finding], str]:
    """Return whether runs were rolled back, replaced or removed, and what to remember of it.

    It is a finding of every run until it is accepted. The run goes on: a backup less would help
    nobody.
    """
    host, config_id = catalog.host, identity.config_id(config.path)
    reached = memory.reached(store_id, host, config_id)
    problem = sequence.problem(catalog, config_id, sequence.expected(catalog, reached))
    alarm = memory.alarm(store_id, host, config_id)
    findings = []
    if problem is not None and (error := sequence.unread(catalog)) is not None:
        text, hint = in_words(error)
        findings.append(
            warning(f"{catalog.store}: the numbers of runs are not known: {text}", hint)
        )
    elif problem is not None:
        alarm = str(problem)
    if alarm and consent.rollback:
        logger.warning("%s (accepted)", alarm)
        alarm = ""
    if alarm:
        findings.append(warning(alarm, _ROLLED_BACK))
    return findings, alarm


def _no_longer_signed(catalog: Catalog, config: Config) -> Iterator[Finding]:
    """Yield a warning for a host that has lost its key: no restore trusts its runs."""
    path = config.general.writer_key
    if not writer_key.is_missing(path):
        return
    claims = sequence.claims(catalog, identity.config_id(config.path))
    signed = next(filter(catalog.has_signature, (one.manifest.run_id for one in claims)), "")
    if signed:
        yield warning(
            f"{catalog.store}: run {signed} was signed, and this run is not: WRITER_KEY {path} "
            "does not exist. A restore will not trust this run",
            ": ".join(
                writer_key.missing(path, catalog.host, location.key_file_of(config), signed=True)
            ),
        )


def tested(entry: Section, config: Config, memory: Memory, consent: Consent) -> Iterator[Finding]:
    """Look at a built-in store for `backup.py -t`; nothing is changed. Raises BackupError."""
    host = config.general.hostname
    target = location.opened(entry, config)
    inspected = store_identity.inspect(target, host, store_key(config, entry))
    problem = inspected.problem(memory)
    if problem is not None and not consent.store:
        yield bad(str(problem), problem.hint)
        return
    catalog = Catalog(target, host, _trust(config))
    history, ours = History(catalog), identity.writer(config)
    yield from _findings(catalog, history, ours, consent)
    yield from newest_runs.findings(target, newest_runs.of(catalog, history, ours.config_id))
    yield from _numbers(catalog, config, memory, inspected.identity, consent)[0]
    yield from _no_longer_signed(catalog, config)


def store_key(config: Config, entry: Section) -> str:
    """Return what tells a store of a config from the others of this machine."""
    return f"{config.path}#{entry.name}"


def _findings(
    catalog: Catalog, history: History, ours: Writer, consent: Consent
) -> Iterator[Finding]:
    """Yield what the operator should know. Raises StoreError where another machine writes too."""
    target = catalog.store
    for run in catalog.future:
        yield warning(
            f"{target}: run {run} lies in the future: the clock was wrong then, or is wrong now",
            "Check the clock first (date). If it is right, the run is never restored as latest: "
            f"once it is not needed, remove {run}.* from the folder {catalog.host} of the store.",
        )
    if foreign := None if consent.host else _foreign(catalog, history, ours):
        yield foreign
    if tight := _tight(target, history.newest_complete(ours.config_id)):
        yield tight


def _foreign(catalog: Catalog, history: History, ours: Writer) -> Finding | None:
    """Return a warning where another machine was the last to write under this host name.

    The first time may be a move. Raises StoreError from the second time on.
    """
    trusted = next(history.manifests(), None)
    claimed = next(history.claimed(), None)
    newest = next((one for one in (trusted, claimed) if _is_foreign(one, ours)), None)
    if newest is None:
        return None
    other = identity.named(newest.machine, newest.machine_name)
    this = identity.named(ours.machine, ours.machine_name)
    text = (
        f"{catalog.store}: run {newest.run_id} of {newest.host} was made by the machine {other}, "
        f"and this is the machine {this}"
    )
    apart = "If both machines are in use, give one of them another HOSTNAME."
    if newest is not trusted:
        signed = catalog.has_signature(newest.run_id)
        why = "Its signer is not known on this machine" if signed else "It is not signed"
        return warning(f"{text}. {why}", f"{_MOVED if signed else _FORGED} {apart}")
    if _came_back(history, ours.machine):
        raise StoreError(text, f"{apart} After a move run backup.py once with --adopt-host.")
    return warning(text, f"{apart} After a move nothing is to be done.")


def _is_foreign(manifest: Manifest | None, ours: Writer) -> bool:
    """Return whether a run says that another machine made it."""
    return (
        manifest is not None and bool(ours.machine) and manifest.machine not in ("", ours.machine)
    )


def _came_back(history: History, machine: str) -> bool:
    """Return whether this machine has written after another one before.

    Only trusted runs count: anyone who can write to the store could stop all backups otherwise.
    """
    machines = [manifest.machine for manifest in history.manifests() if manifest.machine]
    return any(
        later == machine and earlier != machine for later, earlier in itertools.pairwise(machines)
    )


def _tight(target: Store, last: Manifest | None) -> Finding | None:
    """Return a warning where less space is free than two more runs need."""
    free = None if last is None else store.free_space(target)
    if last is None or free is None or free >= _ENOUGH * last.size:
        return None
    return warning(
        f"{target}: only {human_size(free)} are free, and run {last.run_id} has "
        f"{human_size(last.size)}",
        "Remove old runs, or use a larger disk.",
    )


def claimed(
    stores: Sequence[Admitted],
    run_id: str,
    following: Callable[[str], str],
    within: Callable[[str, Callable[[], None]], None],
) -> tuple[str, dict[str, BackupError | OSError]]:
    """Mark the stores with a run id that none of them holds, before anything runs.

    following: gives the next id
    within: makes a call for a section, under its limits
    Return the id, and by section why a store could not be marked.
    """
    for attempts_left in itertools.count(_MOST_TAKEN, -1):
        failed: dict[str, BackupError | OSError] = {}
        with ExitStack() as unmark:
            try:
                for admitted_store in stores:
                    mark = functools.partial(_marked, admitted_store, run_id, unmark)
                    call = functools.partial(within, admitted_store.section, mark)
                    _admit(admitted_store.section, call, failed, another=attempts_left > 0)
            except TakenError as taken:
                logger.info("the run id %s is taken: %s", run_id, taken)
            else:
                unmark.pop_all()
                return run_id, failed
        run_id = following(run_id)
    raise AssertionError  # itertools.count has no end


def _marked(target: Admitted, run_id: str, unmark: ExitStack) -> None:
    target.mark(run_id)
    unmark.callback(leftovers.remove_marker, target.catalog, run_id)


def _admit(
    section: str,
    mark: Callable[[], None],
    failed: dict[str, BackupError | OSError],
    *,
    another: bool,
) -> None:
    """Make a call that marks a store, and note why it failed.

    another: whether a further run id may be tried; it raises TakenError then
    """
    try:
        mark()
    except TakenError as taken:
        if another:
            raise
        text = f"{taken}, and of the {_MOST_TAKEN} ids before"
        failed[section] = StoreError(text, "Check who can write to this store.")
    except (BackupError, OSError) as error:
        failed[section] = error
