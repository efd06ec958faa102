"""A set of many names in little memory: 8 bytes each, and as many again that are free."""

from __future__ import annotations

from array import array

_FIRST = 1 << 10  # slots; always a power of two


class Names:
    """Which names were added. One that was not is taken for one with a chance of 2^-64 each."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * _FIRST))  # 0 for a free one
        self._count = 0

    def add(self, name: bytes) -> None:
        """Remember a name."""
        if self._count * 2 >= len(self._slots):
            self._grow()
        self._put(_number(name))

    def __len__(self) -> int:
        return self._count

    def __contains__(self, name: bytes) -> bool:
        number = _number(name)
        return self._slots[self._slot(number)] == number

    def _put(self, number: int) -> None:
        slot = self._slot(number)
        self._count += self._slots[slot] == 0
        self._slots[slot] = number

    def _slot(self, number: int) -> int:
        """Return where a number is, or would be put."""
        slots = self._slots
        most = len(slots) - 1
        slot = number & most
        while (held := slots[slot]) and held != number:
            slot = (slot + 1) & most
        return slot

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("Q", bytes(16 * len(old)))
        self._count = 0
        for number in old:
            if number:
                self._put(number)


def _number(name: bytes) -> int:
    """Return a number from 1 to 2^64 - 1, keyed by the process: nobody can cause collisions."""
    return hash(name) & ((1 << 64) - 1) or 1
