"""What this machine remembers of the stores that it has written to, in its state folder."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path

from tools import filesystem_handling
from tools.base import foreign_json
from tools.base.log import logger

_STORES = "stores.json"
_NUMBERS = "sequence.json"
_ALARMS = "rollbacks.json"


@functools.lru_cache
def _warn(name: str, why: str) -> None:
    """Say once that a file cannot be read."""
    logger.warning("%s cannot be read, its stores are accepted again: %s", name, why)


@dataclass(frozen=True)
class Memory:
    """Ids of stores by their place, and the numbers of runs that they hold.

    state: the state folder, a cache that may be lost; None for no memory
    """

    state: Path | None

    def ids(self, key: str) -> tuple[str, ...]:
        """Return the ids that are known of a place: several where disks take turns."""
        ids = self._read(_STORES).get(key, ())
        return tuple(one for one in ids if isinstance(one, str)) if isinstance(ids, list) else ()

    def remember(self, key: str, identity: str) -> None:
        """Keep one more id of a place. Raises OSError."""
        if identity not in (known := self.ids(key)):
            self._keep(_STORES, key, [*known, identity])

    def number(self, store_id: str, host: str, config_id: str) -> int:
        """Return the number of the newest run that was stored; 0 if unknown."""
        found = self._read(_NUMBERS).get(f"{store_id} {host} {config_id}", 0)
        return found if isinstance(found, int) and found > 0 else 0

    def reach(self, store_id: str, host: str, config_id: str, number: int) -> None:
        """Keep the number of the newest run that was stored. Raises OSError."""
        self._keep(_NUMBERS, f"{store_id} {host} {config_id}", number)

    def alarm(self, store_id: str, host: str, config_id: str) -> str:
        """Return what an earlier run found wrong with the runs of a store; "" for nothing."""
        found = self._read(_ALARMS).get(f"{store_id} {host} {config_id}", "")
        return found if isinstance(found, str) else ""

    def set_alarm(self, store_id: str, host: str, config_id: str, text: str) -> None:
        """Keep what is wrong with the runs of a store; "" for nothing. Raises OSError."""
        if text != self.alarm(store_id, host, config_id):
            self._keep(_ALARMS, f"{store_id} {host} {config_id}", text)

    def _keep(self, name: str, key: str, value: object) -> None:
        if self.state is None:
            return
        text = json.dumps({**self._read(name), key: value}, indent=1)
        path = self.state / name
        with filesystem_handling.staged(path) as temporary:
            with filesystem_handling.create(temporary) as write:
                write(text.encode())
            temporary.replace(path)

    def _read(self, name: str) -> dict[str, object]:
        """What is remembered; nothing where the file is missing, spoiled or a link."""
        if self.state is None:
            return {}
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(self.state / name, flags), "rb") as file:
                found = foreign_json.load(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, RecursionError) as error:
            _warn(name, str(error))
            return {}
        return found if isinstance(found, dict) else {}
