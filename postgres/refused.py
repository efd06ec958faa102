"""What a server refused of a dump: left out and said where no row is lost, else the end of it."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Iterator

from tools.errors import StoreError

_ERROR = "pg_restore: error: "
_COMMAND = "Command was: "
# What a server says of what it lacks, or we may not (PostgreSQL, messages of the backend).
_ABSENT = re.compile(
    r"could not execute query: ERROR:  (?P<why>.*does not exist|.*is not available|"
    r"could not (?:open extension control|access) file.*|unrecognized configuration parameter.*|"
    r"permission denied.*|must be .*)"
)
# What rows, large objects and numbers of sequences need.
_DATA = re.compile(r"COPY |CREATE (?:UNLOGGED )?TABLE |SELECT pg_catalog\.(?:setval|lo_)")
_SHOWN = 120  # characters of a command
_IGNORED = re.compile(r"errors ignored on restore: (\d+)")
_HINT = "Roles come with --item roles@PORT; as a file (--destination) pg_restore takes the dump."


class Refused:
    """What pg_restore says while it goes on after errors."""

    def __init__(self) -> None:
        self._fatal = ""
        self._why = ""  # of the error whose command follows
        self._left_out: dict[str, list[str]] = collections.defaultdict(list)
        self._ignored = 0

    def take(self, line: str) -> None:
        """The next line of its standard error."""
        if line.startswith(_ERROR):
            error = line.removeprefix(_ERROR)
            found = _ABSENT.match(error)
            self._why = found["why"] if found else ""
            if not found:
                self._fatal = self._fatal or error
        elif line.startswith(_COMMAND) and self._why:
            command = line.removeprefix(_COMMAND).partition("'")[0][:_SHOWN]  # no text: a password
            if _DATA.match(command):
                self._fatal = self._fatal or f"{self._why}: {command}"
            self._left_out[self._why].append(command)
            self._why = ""
        elif ignored := _IGNORED.search(line):
            self._ignored = int(ignored[1])

    def watched(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The dump on its way in. Raises StoreError soon after a part of it is lost."""
        for chunk in chunks:
            self.judge()
            yield chunk

    def judge(self) -> None:
        """Raises StoreError where what was refused cannot be left out."""
        if self._fatal:
            raise StoreError("the server refused a part of the dump", f"{self._fatal}\n{_HINT}")

    def went_on(self, code: int) -> bool:
        """Whether pg_restore came to its end, and each of its errors is known."""
        known = sum(map(len, self._left_out.values()))
        return code == 0 or bool(self._fatal) or (code == 1 and known == self._ignored > 0)

    def warnings(self) -> tuple[str, ...]:
        """What was left out, a line for each reason."""
        return tuple(
            f"{why}: {commands[0]}" + (f" and {len(commands) - 1} more" if commands[1:] else "")
            for why, commands in self._left_out.items()
        )

    def hint(self) -> str:
        """What to do where something was left out."""
        return _HINT if self._left_out else ""
