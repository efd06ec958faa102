"""JSON of other programs: bounded in size, depth and numbers, with one error for all that is wrong.

Every JSON text that this program reads goes through `load`, but for conf.json, whose parser names
lines and keys (a test forbids other ways).
"""

from __future__ import annotations

import json
import math
from typing import Any

MAX_BYTES = 1 << 20  # of a text, unless the caller allows more
MAX_DEPTH = 100  # levels of lists and objects
_MAX_DIGITS = 20  # of a whole number: 64 bits have no more
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
    value, sound = load_structure(raw, max_bytes)
    if not sound:
        check(value)
    return value


def load_structure(raw: bytes | str, max_bytes: int = MAX_BYTES) -> tuple[Any, bool]:
    """Return the value of a JSON text, and whether its numbers and texts need no further check.

    For a text with many records, where a bad one must not cost the others: each must go through
    `check`. Raises InvalidJsonError for what is no JSON, or is too large or too deep.
    """
    if len(raw) > max_bytes:
        raise InvalidJsonError(f"larger than {max_bytes} bytes")
    try:
        text = raw if isinstance(raw, str) else raw.decode("utf-8-sig")
        numbers = _Numbers()
        value = numbers.decoder().decode(text)
    except UnicodeDecodeError as error:
        raise InvalidJsonError(f"not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise InvalidJsonError(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise IncompleteJsonError(f"not JSON: {error}") from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    # no character that is not ASCII, and none by its number: no half of a surrogate pair
    return value, text.isascii() and "\\u" not in text and not numbers.is_out_of_range


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


class _Numbers:
    """The numbers of one text. odd: whether one of them is out of range: infinite, or no number"""

    def __init__(self) -> None:
        self.is_out_of_range = False

    def decoder(self) -> json.JSONDecoder:
        """Return a decoder that reads numbers by the methods below."""
        return json.JSONDecoder(
            parse_int=self._integer, parse_float=self._float, parse_constant=self._constant
        )

    def _integer(self, digits: str) -> int | float:
        """Return a whole number; infinity for one with more than 64 bits."""
        if len(digits) <= _MAX_DIGITS and _SMALLEST <= (value := int(digits)) <= _LARGEST:
            return value
        self.is_out_of_range = True
        return math.inf

    def _float(self, digits: str) -> float:
        value = float(digits)
        self.is_out_of_range = self.is_out_of_range or math.isinf(value)
        return value

    def _constant(self, _name: str) -> float:
        self.is_out_of_range = True
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
