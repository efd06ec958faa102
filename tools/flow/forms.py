"""The table of forms: how items can be stored. A new one is one file and one row."""

from __future__ import annotations

from tools.flow.form import Form
from tools.flow.parts_form import PartsForm

FORMS: dict[str, Form] = {form.name: form for form in (PartsForm(),)}


def of(name: str) -> Form:
    """Return a form by the name that manifests give it. Raises ValueError for an unknown one."""
    if name not in FORMS:
        raise ValueError(f"the form {name!r} is not known")
    return FORMS[name]
