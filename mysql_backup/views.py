"""The views of a dump: they come last in it, and wait until all that they name is there."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator

from tools.errors import StoreError

_FIRST = b"\n-- Final view structure for view "
_VIEW = re.compile(rb"^-- Final view structure for view `((?:[^`]|``)+)`$", re.MULTILINE)
# What gives the session its old settings back: a session of its own has none.
_OLD = re.compile(rb"^/\*M?!\d+ SET \w+\s*=\s*@OLD_\w+ \*/;$", re.MULTILINE)
_ERROR = re.compile(r"ERROR (?P<number>\d+) .*?at line (?P<line>\d+)")
_CLIENT = range(2000, 3000)  # errors of the client: the server is gone, say


class Views:
    """What a dump says of its views at the end; stand-ins for them are in the rest of it."""

    def __init__(self) -> None:
        self.text = b""

    def withheld(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """All of a dump but its views, which are kept."""
        left = iter(chunks)
        tail = b""
        for chunk in left:
            block = tail + chunk
            at = block.find(_FIRST) + 1
            if at:
                yield block[:at]
                self.text = _OLD.sub(b"", b"".join((block[at:], *left)))
                return
            cut = max(0, len(block) - len(_FIRST))
            yield block[:cut]
            tail = block[cut:]
        yield tail

    @property
    def names(self) -> list[str]:
        """What the views are called."""
        return [name for _, name in self._places()]

    def _places(self) -> Iterator[tuple[int, str]]:
        """The line at which each view begins, counted from 1, and its name."""
        line, at = 1, 0
        for found in _VIEW.finditer(self.text):
            line += self.text.count(b"\n", at, found.start())
            at = found.start()
            name = found[1].replace(b"``", b"`").replace(b"\n-- ", b"\n")
            yield line, name.decode("utf-8", "replace")

    def refused(self, said: Iterable[str]) -> dict[str, str]:
        """Which views a client could not make, and why, from all that it said.

        Raises StoreError where it says an error of its own: the server is gone, say.
        """
        places = list(self._places())
        why: dict[str, str] = {}
        for error in (line for line in said if line.startswith("ERROR")):
            found = _ERROR.match(error)
            if not places or found is None or int(found["number"]) in _CLIENT:
                raise StoreError("the views could not be made", error)
            last = bisect.bisect(places, int(found["line"]), key=lambda place: place[0]) - 1
            why.setdefault(places[last][1], error)
        return why
