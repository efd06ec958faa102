"""JSON of other programs: bounded in size, depth and numbers, with one error for all that is wrong.

Every JSON text that this program reads goes through `load`, but for conf.json, whose parser names
lines and keys (a test forbids other ways).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_BYTES = 1 << 20  # of a text, unless the caller allows more
MAX_DEPTH = 100  # levels of lists and objects
_MAX_DIGITS = 20  # of a whole number: 64 bits have no more
_ODD_NUMBER = re.compile(rb"[:\[,]\s*-?(?:[0-9]{19}|[0-9]+(?:\.[0-9]+)?[eE])")
_ODD_WORDS = (b"\\u", b"NaN", b"Infinity")
_LARGEST, _SMALLEST = (1 << 64) - 1, -(1 << 63)


class InvalidJsonError(ValueError):
    """The text is not JSON, or holds what no program of this project writes."""


class IncompleteJsonError(InvalidJsonError):
    """The text is not JSON: it may have been cut."""


def load(raw: bytes | str, max_bytes: int = MAX_BYTES) -> Any:  # noqa: ANN401  (any JSON value)
    """Return the value of a JSON text.

    Bytes must be UTF-8. Numbers are finite; whole ones have at most 64 bits. Texts consist of
    characters and of bytes that are not UTF-8 (PEP 383), as names of files do. Raises
    InvalidJsonError.
    """
    value = load_structure(raw, max_bytes)
    check(value)
    return value


def load_structure(raw: bytes | str, max_bytes: int = MAX_BYTES) -> Any:  # noqa: ANN401
    """Return the value of a JSON text whose numbers and texts are still to be checked.

    For a text with many records, where a bad one must not cost the others: each must go through
    `check`. Raises InvalidJsonError for what is no JSON, or is too large or too deep.
    """
    if len(raw) > max_bytes:
        raise InvalidJsonError(f"larger than {max_bytes} bytes")
    try:
        text = raw if isinstance(raw, str) else raw.decode("utf-8-sig")
        value = json.loads(text, parse_int=_whole, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise InvalidJsonError(f"not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise InvalidJsonError(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise IncompleteJsonError(f"not JSON: {error}") from None
    _check_depth(value)
    return value


def is_plain(raw: bytes) -> bool:
    """Return whether nothing in a JSON text can be what `check` rejects.

    It has no characters but those of ASCII, none of them by number, no exponent, and no number of
    more than 18 digits. A text may look like one of these: then `check` decides.
    """
    odd = any(word in raw for word in _ODD_WORDS)
    return raw.isascii() and not odd and not _ODD_NUMBER.search(raw)


def check(value: object) -> None:
    """Raise InvalidJsonError where a value of `load_structure` is none that `load` returns."""
    inner = [value]
    while inner:
        one = inner.pop()
        if isinstance(one, str):
            if not one.isascii():
                _check_text(one)
        elif isinstance(one, dict):
            inner += one
            inner += one.values()
        elif isinstance(one, list):
            inner += one
        elif isinstance(one, float) and not math.isfinite(one):
            raise InvalidJsonError("number out of range")


_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"


def _whole(digits: str) -> int | float:
    """Return a whole number; infinity for one with more than 64 bits."""
    if len(digits) > _MAX_DIGITS or not _SMALLEST <= int(digits) <= _LARGEST:
        return math.inf
    return int(digits)


def _constant(_name: str) -> float:
    return math.nan


def _check_depth(value: object) -> None:
    level: list[dict[str, object] | list[object]] = [[value]]
    for _depth in range(MAX_DEPTH + 1):
        level = [
            part
            for one in level
            for part in (one.values() if isinstance(one, dict) else one)
            if isinstance(part, dict | list)
        ]
        if not level:
            return
    raise InvalidJsonError(_TOO_DEEP)


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidJsonError("text with half of a surrogate pair") from None
