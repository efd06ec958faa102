"""Values of keys: argument lists and objects of lists as JSON; True, False or auto."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from tools.base import foreign_json


def commands(text: str) -> tuple[tuple[str, ...], ...]:
    """Return argument lists: a JSON list of lists of strings, or one list of strings.

    Raises ValueError, also for a command line: no shell would split it.
    """
    value = foreign_json.load(text)
    is_single = (
        isinstance(value, list) and bool(value) and all(isinstance(word, str) for word in value)
    )
    lists = [value] if is_single else value
    if not isinstance(lists, list) or not all(map(_is_command, lists)):
        raise ValueError(text)
    return tuple(map(tuple, lists))


def _is_command(argv: object) -> bool:
    arguments = argv if isinstance(argv, list) else []
    strings = all(isinstance(word, str) and "\0" not in word for word in arguments)
    return bool(arguments) and strings and bool(arguments[0].strip())


def lists(text: str) -> Mapping[str, tuple[str, ...]]:
    """Return a JSON object of texts and lists of texts. Raises ValueError."""
    value = foreign_json.load(text)
    if not isinstance(value, dict):
        raise ValueError(text)
    by_name = {name: [one] if isinstance(one, str) else one for name, one in value.items()}
    for texts in by_name.values():
        if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
            raise ValueError(text)
    return {name: tuple(texts) for name, texts in by_name.items()}


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
