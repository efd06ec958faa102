"""The CRC of several pieces together, by the CRC and the size of each.

A CRC is a polynomial over GF(2): further zero bytes multiply it by a power of x (zlib, crc32.c).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Polynomial:
    """A reflected CRC. bits: its width; taps: its polynomial, reflected"""

    bits: int
    taps: int

    def whole(self, parts: Iterable[tuple[int, int]]) -> int:
        """Return the CRC of all parts together. parts: the CRC and the size in bytes of each."""
        crc = 0
        for of_part, size in parts:
            crc = self._times(_zeros(self, size), crc) ^ of_part
        return crc

    def power(self, size: int) -> int:
        """Return x to the power of 8 * size modulo the polynomial, reflected."""
        power, result, exponent = 1 << (self.bits - 2), 1 << (self.bits - 1), 8 * size  # x, and 1
        while exponent:
            if exponent & 1:
                result = self._times(power, result)
            power = self._times(power, power)
            exponent >>= 1
        return result

    def _times(self, one: int, other: int) -> int:
        """Return the product of two polynomials modulo that of the CRC, all reflected."""
        product = 0
        for bit in range(self.bits - 1, -1, -1):
            if one >> bit & 1:
                product ^= other
            other = other >> 1 ^ (self.taps if other & 1 else 0)
        return product


@functools.lru_cache(64)
def _zeros(polynomial: Polynomial, size: int) -> int:
    return polynomial.power(size)


CRC32 = Polynomial(32, 0xEDB88320)  # ISO 3309
CRC64 = Polynomial(64, 0xC96C5795D7870F42)  # ECMA-182
