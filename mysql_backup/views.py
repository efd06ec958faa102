"""The views of a dump: they come last in it, and wait until all that they name is there."""

from __future__ import annotations

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
        return [_name(found) for found in _VIEW.finditer(self.text)]

    def refused(self, said: Iterable[str]) -> dict[str, str]:
        """Which views a client could not make, and why, from all that it said.

        Raises StoreError where it says an error of its own: the server is gone, say.
        """
        why: dict[str, str] = {}
        for error in (line for line in said if line.startswith("ERROR")):
            found = _ERROR.match(error)
            if found is None or int(found["number"]) in _CLIENT:
                raise StoreError("the views could not be made", error)
            name = ""
            for view in _VIEW.finditer(self.text):
                if self.text.count(b"\n", 0, view.start()) < int(found["line"]):
                    name = _name(view)
            why.setdefault(name, error)
        return why


def _name(found: re.Match[bytes]) -> str:
    return found[1].replace(b"``", b"`").decode("utf-8", "replace")
