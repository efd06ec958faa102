"""The items of a manifest, each checked by itself: a bad one never costs the others."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tools import filesystem_handling
from tools.base import foreign, foreign_json, run_ids
from tools.catalog import cleaned
from tools.flow import forms, item_record
from tools.flow.item_record import StoredItem, is_word, item_of

STREAMED = "streamed"
_RECORD = re.compile(  # the names of what a store holds beside parts
    r"[0-9]{8}_[0-9]{6}(?:\.(?:manifest\.json(?:\.sig)?|RECOVERY\.txt|UNFINISHED|PINNED)"
    rf"|{cleaned.PATTERN})"
    r"|[0-9]{8}T[0-9]{6}Z\.signer\.json(?:\.sig)?"
)
_LONGEST = 200  # characters of a bad name that are shown


def read(
    entries: Sequence[object], run_id: str, mode: str, *, checked: bool = False
) -> tuple[StoredItem, ...]:
    """Return the items of a run; `problem` of each says why it must not be used.

    checked: whether texts and numbers need no further check (foreign_json.load_structure)
    Raises ValueError for an item that has not even a section.
    """
    items = [
        _item(number, entry, run_id, mode, checked=checked)
        for number, entry in enumerate(entries, 1)
    ]
    parts = _repeated(part.name for item in items for part in item.parts)
    labels = _repeated(item.label for item in items)
    return tuple(
        _refused(item, "duplicate item")
        if item.label in labels
        else _refused(item, "duplicate part")
        if any(part.name in parts for part in item.parts)
        else item
        for item in items
    )


def _repeated(names: Iterable[str]) -> set[str]:
    return {name for name, times in Counter(names).items() if times > 1}


def _refused(item: StoredItem, problem: str) -> StoredItem:
    return item if item.problem else dataclasses.replace(item, problem=_invalid(problem))


def _invalid(problem: str) -> str:
    return f"invalid manifest entry ({foreign.line(problem)})"


def _item(number: int, entry: object, run_id: str, mode: str, *, checked: bool) -> StoredItem:
    try:
        if not isinstance(entry, dict):
            raise ValueError("not an object")
        if not checked:
            foreign_json.check(entry)
        item = item_of(entry)
        forms.of(item.form).check(item)
        _check_base(item, run_id)
        _check_names(item, run_id, mode)
    except (KeyError, TypeError, ValueError) as error:
        problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        return _placeholder(number, entry if isinstance(entry, dict) else {}, _invalid(problem))
    return item


def _placeholder(number: int, entry: Mapping[str, Any], problem: str) -> StoredItem:
    """Return an item that stands for a bad one.

    Raises ValueError where its section is unknown: it might be any item that the run should have.
    """
    section, name, kind = (entry.get(key) for key in ("section", "name", "kind"))
    if not isinstance(section, str) or not section or not is_word(section):
        raise ValueError(f"item {number} has no section: {problem}")
    label = foreign.printable(name)[:_LONGEST] if isinstance(name, str) else f"item {number}"
    kind = kind if isinstance(kind, str) and is_word(kind) else ""
    return StoredItem(section, label, kind, "", (), (), problem=problem)


def _check_base(item: StoredItem, run_id: str) -> None:
    if item.base is not None and (item.base == run_id or not run_ids.is_time(item.base)):
        raise ValueError(f"base: {item.base} is not an earlier run")


def _check_names(item: StoredItem, run_id: str, mode: str) -> None:
    """Raise ValueError for a name that no object of this item has.

    In a streamed run the name of a part begins with the run, the section and the item. In a
    staged one it is that of the file in the work folder, which may be anything. What a form
    refers to may be of earlier runs.
    """
    part_names = [part.name for part in item.parts]
    for name in (*part_names, *(part.name for more in item.references.values() for part in more)):
        if filesystem_handling.is_temporary(name) or _RECORD.fullmatch(name):
            raise ValueError(f"part {name!r} is not the name of a part")
    name_parts = (run_id, *map(item_record.quoted, filter(None, (item.section, item.name))), "")
    start = ".".join(name_parts)
    for name in part_names if mode == STREAMED else ():
        if not name.startswith(start):
            raise ValueError(f"part {name!r} belongs to another run or item")
