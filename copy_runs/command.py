"""Copy runs from one store to another, byte for byte and without any key."""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from copy_runs import arguments, catch_up, output, selecting, stores
from copy_runs.comparison import Comparison
from copy_runs.output import Outcome
from copy_runs.stores import OpenStore
from copy_runs.transfer import Transfer
from tools import os_works
from tools.base import removal, signals
from tools.base.errors import BackupError, Cancelled, ConfigError
from tools.base.result import of_error
from tools.catalog import catalog, identity, location
from tools.config.model import Config
from tools.engine import section_runner
from tools.engine.user_modules import ForRestore
from tools.reporting import terminal

_SCRATCH = "nc-backup-copy-"


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code (docs/exit-codes.md)."""
    options = arguments.read(argv)
    os_works.harden()
    signals.catch()
    outcome = Outcome(dry_run=options.dry_run)
    try:
        arguments.check(options)
        top = Path(tempfile.gettempdir())
        removal.sweep(top, _SCRATCH)
        with removal.private(top, _SCRATCH) as scratch:
            perform(options, scratch, outcome)
    except (BackupError, OSError) as error:
        return output.failed(of_error(error))
    except Cancelled as cancelled:
        output.cancelled(outcome)
        return signals.status(cancelled.signal_number).exit_code
    return output.render(outcome, as_json=options.json)


def perform(options: argparse.Namespace, scratch: Path, outcome: Outcome) -> None:
    """Copy for checked arguments; `outcome` gets the results.

    scratch: a private folder. Raises BackupError or OSError where nothing could be copied.
    """
    _Command(options, scratch, outcome).run()


class _Command:
    """One call of copy_runs.py."""

    def __init__(self, options: argparse.Namespace, scratch: Path, outcome: Outcome) -> None:
        self._options = options
        self._modules = ForRestore(scratch)
        self._outcome = outcome

    def run(self) -> None:
        """Copy the selected runs, and record the results. Raises BackupError, OSError."""
        began = time.monotonic()
        with terminal.watcher(quiet=self._options.json) as watcher:
            for transfer in self._transfers():
                try:
                    for step in transfer.steps(watcher):
                        self._outcome.steps.append(step)
                except (BackupError, OSError) as error:
                    failed = catch_up.failed(transfer.name, error, required=True)
                    self._outcome.stores.append(failed)
                self._outcome.warnings += transfer.warnings
        self._outcome.seconds = time.monotonic() - began

    def _transfers(self) -> Iterator[Transfer]:
        return self._catch_up() if self._options.catch_up else self._between_two()

    def _between_two(self) -> Iterator[Transfer]:
        """Yield a transfer for each host of --from."""
        source, target = self._two()
        for host in self._hosts(source):
            choose = functools.partial(selecting.chosen, names=self._options.runs)
            yield from self._transfer((source, target), host, choose, all_times=False)

    def _two(self) -> tuple[OpenStore, OpenStore]:
        options = self._options
        first = arguments.source(options, options.from_store, options.from_endpoint)
        second = arguments.source(options, options.to_store, options.to_endpoint)
        config = self._config(first)
        source = stores.opened(config, first, self._modules, stores.SOURCE)
        target = stores.opened(config, second, self._modules, stores.TARGET)
        stores.require_two(source, target)
        return source, target

    def _config(self, source: location.Source) -> Config:
        config = location.load_config(source)
        section_runner.learn_secrets(config)
        self._host = source.hostname or (config.general.hostname if source.config else "")
        return config

    def _hosts(self, source: OpenStore) -> list[str]:
        """Return the hosts whose runs are copied. Raises ConfigError where none has any."""
        all_hosts = catalog.hosts(source.store)
        hosts = [host for host in all_hosts if self._host in ("", host)]
        if not hosts:
            of_host = f" of host {self._host}" if self._host else ""
            others = (
                f"Choose a host with --hostname: {catalog.named(all_hosts)}." if all_hosts else ""
            )
            raise ConfigError(
                f"{source.store}: no runs{of_host}", others or "Check that this is the right store."
            )
        if len(hosts) > 1 and self._options.runs[0] not in arguments.SELECTORS:
            raise ConfigError(
                f"{source.store} contains runs of {len(hosts)} hosts",
                f"Choose one with --hostname: {catalog.named(hosts)}.",
            )
        return hosts

    def _catch_up(self) -> Iterator[Transfer]:
        """Yield a transfer for each store of the config, from each other one."""
        source = arguments.source(self._options, "", "")
        config = self._config(source)
        open_stores = []
        for section, outcome in stores.of_config(config, source, self._modules):
            if isinstance(outcome, OpenStore):
                open_stores.append(outcome)
            else:
                failure = catch_up.failed(section.name, outcome, required=section.required)
                self._outcome.stores.append(failure)
        if len(open_stores) + len(self._outcome.stores) < 2:  # noqa: PLR2004
            raise ConfigError(
                f"{config.path}: --catch-up requires two store sections",
                "Use --from and --to to copy into another store.",
            )
        config_id = identity.config_id(config.path)
        for pair in catch_up.pairs(open_stores):
            choose = functools.partial(selecting.recent, config_id=config_id)
            yield from self._transfer(pair, self._host, choose, all_times=True)

    def _transfer(
        self,
        open_stores: tuple[OpenStore, OpenStore],
        host: str,
        choose: Callable[[Comparison], Sequence[str]],
        *,
        all_times: bool,
    ) -> Iterator[Transfer]:
        """Yield the transfer between two stores; note where they cannot be read."""
        source, target = open_stores
        try:
            pair = Comparison(source.catalog(host), target.catalog(host), self._options.runs)
            chosen = choose(pair)
            if not all_times and self._options.runs == [arguments.MISSING]:
                self._outcome.left_out += len(pair.source.run_ids) - len(chosen)
            dry_run = self._options.dry_run
            yield Transfer(pair, chosen, all_times=all_times, dry_run=dry_run)
        except ConfigError:
            raise
        except (BackupError, OSError) as error:
            name = f"{source.name} to {target.name}"
            self._outcome.stores.append(catch_up.failed(name, error, required=target.required))
