"""Values of keys: argument lists and objects of lists as JSON; True, False or auto."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from tools.base import foreign_json


def commands(text: str) -> tuple[tuple[str, ...], ...]:
    """Argument lists: a JSON list of lists of strings, or one list of strings. Raises ValueError.

    A command line is rejected: no shell would split it.
    """
    given = foreign_json.load(text)
    one = isinstance(given, list) and bool(given) and all(isinstance(word, str) for word in given)
    found = [given] if one else given
    if not isinstance(found, list) or not all(map(_is_command, found)):
        raise ValueError(text)
    return tuple(map(tuple, found))


def _is_command(argv: object) -> bool:
    words = argv if isinstance(argv, list) else []
    strings = all(isinstance(word, str) and "\0" not in word for word in words)
    return bool(words) and strings and bool(words[0].strip())


def lists(text: str) -> Mapping[str, tuple[str, ...]]:
    """A JSON object of texts and lists of texts; raises ValueError."""
    given = foreign_json.load(text)
    if not isinstance(given, dict):
        raise ValueError(text)
    found = {name: [one] if isinstance(one, str) else one for name, one in given.items()}
    for some in found.values():
        if not isinstance(some, list) or not all(isinstance(one, str) for one in some):
            raise ValueError(text)
    return {name: tuple(some) for name, some in found.items()}


class Switch(Enum):
    """On, off, or decided by the program; spelt like the booleans."""

    AUTO = "auto"
    TRUE = "True"
    FALSE = "False"

    @classmethod
    def _missing_(cls, value: object) -> Switch | None:
        spelt = {"true": cls.TRUE, "1": cls.TRUE, "yes": cls.TRUE}
        spelt |= {"false": cls.FALSE, "0": cls.FALSE, "no": cls.FALSE}
        return spelt.get(str(value).lower())
