"""Lines for people, of which the first are kept and all are counted."""

from __future__ import annotations

from dataclasses import dataclass, field

_MAX_SHOWN = 100  # lines of each kind that are shown
_HEAD, _TAIL = 300, 200  # characters of a longer line that are shown


@dataclass
class Lines:
    """Lines of which the first are kept and all are counted."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Add a line."""
        self.count += 1
        if len(self.first) < _MAX_SHOWN:
            long = len(line) > _HEAD + _TAIL
            self.first.append(f"{line[:_HEAD]}...{line[-_TAIL:]}" if long else line)

    def extend(self, other: Lines) -> None:
        """Add the lines of another collection."""
        self.count += other.count
        self.first += other.first[: _MAX_SHOWN - len(self.first)]

    def texts(self, prefix: str) -> list[str]:
        """Return the first lines, and how many more there are."""
        more = self.count - len(self.first)
        return [prefix + line for line in self.first] + ([f"{prefix}{more} more"] if more else [])
