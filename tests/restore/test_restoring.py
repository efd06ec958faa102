"""Results of items: one that fails costs no other, and a bug is never called altered data."""

from __future__ import annotations

import pytest

from restore import restoring
from tools.base.errors import ManifestError
from tools.base.result import Result, Status
from tools.flow.item_record import Part, StoredItem

ITEMS = [
    StoredItem("X", name, "file", "", (), (Part(f"r.{name}.000", 1, "0" * 64),)) for name in "abc"
]


@pytest.mark.fault("a KeyError of our own code in a restore", "an internal error of one item")
def test_a_bug_is_an_internal_error_of_its_item_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Issue 12, 4: any KeyError was shown as an altered manifest."""

    def action(item: StoredItem, _advance: restoring.Advance) -> Result:
        if item.name == "a":
            raise KeyError("typo")
        if item.name == "b":
            raise ManifestError("X/b: invalid fact in the manifest: x is unknown", "Use another.")
        return Result(Status.OK, "restored")

    first, second, third = restoring.run_steps(ITEMS, action, None)
    assert first.result.message == "internal error: KeyError: 'typo'"
    assert "altered" not in first.result.hint
    assert "Traceback" in caplog.text
    assert second.result.message.endswith("x is unknown")
    assert (second.result.hint, second.result.status) == ("Use another.", Status.FAILED)
    assert third.result.status is Status.OK
