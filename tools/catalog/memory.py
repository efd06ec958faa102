"""What this machine remembers of the stores that it has written to, in its state folder."""

from __future__ import annotations

import errno
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import filesystem_handling
from tools.base import foreign, foreign_json
from tools.base.log import logger

_STORES = "stores.json"
_NUMBERS = "sequence.json"
_ALARMS = "rollbacks.json"
_ACCEPTED = "accepted.json"
_TOLERATED = "tolerated.json"
# A link, no regular file, too large: root's restore reads it in a folder of the backup's user.
_NOT_OURS = (errno.ELOOP, errno.EINVAL, errno.EFBIG)
_MOST_RUNS = 100  # from which on an item was accepted, that are kept


@functools.lru_cache
def _warn(name: str, why: str) -> None:
    """Say once that a file cannot be read."""
    logger.warning("%s cannot be read, and what it says of stores counts as unknown: %s", name, why)


@dataclass(frozen=True)
class Reached:
    """The newest run that was stored: its number and the fingerprint of its signer.

    signer: "" where it was not signed
    """

    number: int = 0
    signer: str = ""


@dataclass(frozen=True)
class Memory:
    """Ids of stores by their place, and the numbers of runs that they hold.

    state: the state folder, a cache that may be lost; None for no memory
    """

    state: Path | None

    def ids(self, key: str) -> tuple[str, ...]:
        """Return the ids that are known for a location: several where disks take turns."""
        ids = self.read(_STORES).get(key, ())
        return tuple(one for one in ids if isinstance(one, str)) if isinstance(ids, list) else ()

    def remember(self, key: str, identity: str) -> None:
        """Keep one more id of a place. Raises OSError."""
        if identity not in (ids := self.ids(key)):
            self.keep(_STORES, key, [*ids, identity])

    def reached(self, store_id: str, host: str, config_id: str) -> Reached:
        """Return the newest run that was stored in a store; number 0 if unknown."""
        return _reached(self.read(_NUMBERS).get(f"{store_id} {host} {config_id}"))

    def highest(self, host: str, config_id: str) -> int:
        """Return the highest number in any store, also in one that is not there now."""
        of_config = f"{host} {config_id}"
        entries = self.read(_NUMBERS).items()
        values = [value for key, value in entries if key.partition(" ")[2] == of_config]
        return max((_reached(value).number for value in values), default=0)

    def signer(self, host: str) -> str:
        """Return the fingerprint of a signer of earlier runs of a host; "" if none is known."""
        entries = self.read(_NUMBERS).items()
        reached = [_reached(value) for key, value in entries if f" {host} " in key]
        return max((one for one in reached if one.signer), default=Reached(0), key=_number).signer

    def reach(self, store_id: str, host: str, config_id: str, newest: Reached) -> None:
        """Keep the newest run that was stored. Raises OSError."""
        self.keep(_NUMBERS, f"{store_id} {host} {config_id}", [newest.number, newest.signer])

    def alarm(self, store_id: str, host: str, config_id: str) -> str:
        """Return what an earlier run found wrong with the runs of a store; "" for nothing."""
        alarm = self.read(_ALARMS).get(f"{store_id} {host} {config_id}", "")
        return alarm if isinstance(alarm, str) else ""

    def set_alarm(self, store_id: str, host: str, config_id: str, text: str) -> None:
        """Keep what is wrong with the runs of a store; "" for nothing. Raises OSError."""
        if text != self.alarm(store_id, host, config_id):
            self.keep(_ALARMS, f"{store_id} {host} {config_id}", text)

    def accepted(self, host: str) -> Mapping[str, Sequence[str]]:
        """Return by label the runs from which on the figures of an item are right, oldest first.

        Several where an item has changed more than once: the copies between count as well.
        """
        return self._runs(_ACCEPTED, host)

    def accept(self, host: str, runs: Mapping[str, str]) -> None:
        """Keep that items are right from a run on, by label. Raises OSError."""
        self._add(_ACCEPTED, host, runs)

    def tolerated(self, host: str) -> Mapping[str, Sequence[str]]:
        """Return the same for the runs of this machine alone: clean-up does not use it."""
        return self._runs(_TOLERATED, host)

    def tolerate(self, host: str, runs: Mapping[str, str]) -> None:
        """Keep it. Raises OSError."""
        self._add(_TOLERATED, host, runs)

    def _add(self, name: str, host: str, runs: Mapping[str, str]) -> None:
        runs_before = self._runs(name, host)
        added = {label: sorted({*runs_before.get(label, ()), run}) for label, run in runs.items()}
        self.keep(name, host, {**runs_before, **{k: one[-_MOST_RUNS:] for k, one in added.items()}})

    def _runs(self, name: str, host: str) -> dict[str, list[str]]:
        entries = self.read(name).get(host, {})
        pairs = entries.items() if isinstance(entries, dict) else ()
        return {
            label: sorted(run for run in runs if isinstance(run, str))
            for label, runs in pairs
            if isinstance(runs, list)
        }

    def keep(self, name: str, key: str, value: object) -> None:
        """Keep a JSON value under a key of a file.

        Raises OSError, where the file cannot be read as well: its other keys would be lost.
        """
        if self.state is None:
            return
        text = json.dumps({**self._content(name), key: value}, indent=1)
        path = self.state / name
        with filesystem_handling.staged(path) as temporary:
            with filesystem_handling.create(temporary) as write:
                write(text.encode())
            temporary.replace(path)

    def read(self, name: str) -> dict[str, object]:
        """Return the values of a file; none where it is missing, unreadable, damaged or no file."""
        try:
            return self._content(name)
        except OSError as error:
            _warn(name, str(error))
            return {}

    def _content(self, name: str) -> dict[str, object]:
        """Return the values of a file; none where it is missing, damaged or no file."""
        if self.state is None:
            return {}
        try:
            content = foreign.content(self.state / name, foreign_json.MAX_BYTES, follow=False)
            values = foreign_json.load(content)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (ValueError, RecursionError) as error:
            _warn(name, str(error))
            return {}
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
            _warn(name, str(error))
            return {}
        return values if isinstance(values, dict) else {}


def _number(reached: Reached) -> int:
    return reached.number


def _reached(value: object) -> Reached:
    """Return a parsed value of the file; number 0 where it is damaged."""
    match value:
        case [int(number), str(signer)] if number > 0:
            return Reached(number, signer)
    return Reached()
