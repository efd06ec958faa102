"""Lines of which the first are kept and the others are counted: memory does not grow with them."""

from __future__ import annotations


class BoundedList(list[str]):
    """The first lines that were appended. more: number of those that were not kept."""

    def __init__(self, most: int) -> None:
        """Keep at most so many lines."""
        super().__init__()
        self.more = 0
        self._most = most

    def append(self, line: str) -> None:
        """Keep a line, or count it."""
        if len(self) < self._most:
            super().append(line)
        else:
            self.more += 1

    @property
    def total(self) -> int:
        """Return the number of lines that were appended."""
        return len(self) + self.more
