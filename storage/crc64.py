"""The CRC-64 of objects and parts, as Aliyun OSS and xz compute it (ECMA-182, reflected)."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from tools.flow.block_backend import Block

_CRCMOD = 0x142F0E1EBA9EA3693  # the polynomial as crcmod writes it
_ALL = (1 << 64) - 1


@functools.cache
def compiled() -> Callable[[Block], int] | None:
    """Return the function of crcmod; None where its C extension is missing: Python is too slow."""
    try:
        importlib.import_module("crcmod._crcfunext")
        crcmod: Any = importlib.import_module("crcmod.crcmod")
    except ImportError:
        return None
    function: Callable[[Block], int] = crcmod.mkCrcFun(_CRCMOD, initCrc=0, xorOut=_ALL, rev=True)
    return function
