"""The library that provides the ciphers of ciphers.py.

`cryptography` is the first choice. `pycryptodome` takes its place where `cryptography` cannot
be imported, and provides the post-quantum keys where `cryptography` was built without them.
Both libraries are loaded at their first use: importing this file costs nothing.
"""

from __future__ import annotations

import contextlib
import functools
import sys

from encryption.ciphers import Hybrid, Provider
from tools.base import imports
from tools.base.errors import ConfigError


def _cryptography() -> Provider:
    from encryption.provider_cryptography import Cryptography

    return Cryptography()


def _pycryptodome() -> Provider:
    from encryption.provider_pycryptodome import Pycryptodome

    return Pycryptodome()


_PROVIDERS = (_cryptography, _pycryptodome)  # in the order of preference
_NO_HYBRID = "post-quantum keys need cryptography 48 (built with ML-KEM) or pycryptodome 4"


@functools.cache
def current() -> Provider:
    """Return the first library that can be imported. Raises ConfigError where there is none."""
    for load in _PROVIDERS:
        with contextlib.suppress(ImportError):
            return load()
    with imports.packages():  # names all packages that are missing
        try:
            return _cryptography()
        except ModuleNotFoundError:
            raise
        except ImportError as error:
            raise ConfigError(
                f"cryptography cannot be imported: {error}",
                "Reinstall it, or install pycryptodome beside it.",
            ) from None


@functools.cache
def hybrid() -> Hybrid:
    """Return the post-quantum keys of the first library that has them. Raises ConfigError."""
    for load in _PROVIDERS:
        with contextlib.suppress(ImportError):
            if (keys := load().hybrid()) is not None:
                return keys
    raise ConfigError(_NO_HYBRID, f"Install one: {sys.executable} -m pip install pycryptodome")
