"""The CRC-64 of objects and parts, as Aliyun OSS and xz compute it (ECMA-182, reflected)."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable
from typing import Any

from tools.flow.block_backend import Block

_CRCMOD = 0x142F0E1EBA9EA3693  # the polynomial as crcmod writes it
_POLYNOMIAL = 0xC96C5795D7870F42  # the same, reflected
_BITS = 64
_ALL = (1 << _BITS) - 1


@functools.cache
def compiled() -> Callable[[Block], int] | None:
    """Return the function of crcmod; None where its C extension is missing: Python is too slow."""
    try:
        importlib.import_module("crcmod._crcfunext")
        crcmod: Any = importlib.import_module("crcmod.crcmod")
    except ImportError:
        return None
    made: Callable[[Block], int] = crcmod.mkCrcFun(_CRCMOD, initCrc=0, xorOut=_ALL, rev=True)
    return made


def whole(parts: Iterable[tuple[int, int]]) -> int:
    """Return the CRC of the bytes of all parts together. parts: the CRC and the size of each."""
    crc = 0
    for of_part, size in parts:
        crc = _times(_zeros(size), crc) ^ of_part
    return crc


# A CRC is a polynomial over GF(2): further zero bytes multiply it by a power of x.


@functools.lru_cache(64)
def _zeros(size: int) -> int:
    """Return x to the power of 8 * size modulo the polynomial, reflected."""
    power, result, exponent = 1 << (_BITS - 2), 1 << (_BITS - 1), 8 * size  # x, and 1
    while exponent:
        if exponent & 1:
            result = _times(power, result)
        power = _times(power, power)
        exponent >>= 1
    return result


def _times(one: int, other: int) -> int:
    """Return the product of two polynomials modulo that of the CRC, all reflected."""
    product = 0
    for bit in range(_BITS - 1, -1, -1):
        if one >> bit & 1:
            product ^= other
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
    return product
