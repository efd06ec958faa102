"""The result of a source section, from what became of its items."""

from __future__ import annotations

from collections.abc import Sequence

from tools import date_str_utils
from tools.base.errors import BackupError
from tools.base.result import Result, Status
from tools.flow.item import about
from tools.flow.item_record import StoredItem


def of_items(
    items: Sequence[StoredItem],
    errors: Sequence[tuple[str, BackupError | OSError]],
    *,
    stored: bool,
    unclean: Sequence[str] = (),
) -> Result:
    """Return the result of a source.

    errors: in their order, each with the name of its item. stored: whether the items are in a
    store, and not in the work folder. unclean: what could not be cleaned up
    """
    size = sum(item.size or 0 for item in items)
    summary = f"{date_str_utils.count(len(items), 'item')}, {date_str_utils.human_size(size)}"
    if stored:
        summary += f", {date_str_utils.human_size(sum(item.stored for item in items))} stored"
    warnings = tuple(about(item.name, line) for item in items for line in item.warnings)
    if not errors:
        status = Status.INCOMPLETE if warnings else Status.UNCLEAN if unclean else Status.OK
        lines = [*warnings, *unclean]
        return Result(status, summary, items=len(items), bytes=size, warnings=tuple(lines))
    lines = [about(name, error) for name, error in errors]
    return Result(
        Status.FAILED,
        f"{lines[0]} ({len(lines)} failed; {summary})" if items else lines[0],
        getattr(errors[0][1], "hint", ""),
        items=len(items),
        bytes=size,
        warnings=(*lines[1:], *warnings),
    )
