"""The table of forms: how items can be stored. A new one is one file and one row."""

from __future__ import annotations

from collections.abc import Sequence

from tools.flow.form import Form, read_object
from tools.flow.item_record import Part, StoredItem
from tools.flow.parts_form import PartsForm
from tools.flow.store import Store

FORMS: dict[str, Form] = {form.name: form for form in (PartsForm(),)}


def of(name: str) -> Form:
    """Return a form by the name that manifests give it. Raises ValueError for an unknown one."""
    if name not in FORMS:
        raise ValueError(f"unknown form {name!r}")
    return FORMS[name]


def needed(store: Store, folder: str, item: StoredItem) -> Sequence[Part]:
    """Return every object in a folder of a store that reading an item needs.

    Raises StoreError, DamagedError or OSError where that cannot be found out.
    """
    return tuple(of(item.form).needed(item, lambda part: read_object(store, folder, part)))
