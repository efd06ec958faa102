from __future__ import annotations

import pytest

from tools.base.errors import BackupError
from tools.base.result import Result, Status, worst


def test_json_there_and_back() -> None:
    result = Result(Status.INCOMPLETE, "m", "h", ("/a",), 2, 3, ("w",), ("/r",), "3 B")
    assert Result.from_json(result.to_json()) == result


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"status": "great"}', '{"status": "ok", "bytes": "x"}', "null"]
)
def test_what_is_no_result_is_refused(text: str) -> None:
    with pytest.raises(BackupError, match="invalid result file"):
        Result.from_json(text)


def test_exit_codes() -> None:
    codes = {status.value: status.exit_code for status in Status}
    assert codes == {
        "ok": 0,
        "unreported": 4,
        "unclean": 5,
        "incomplete": 3,
        "failed": 1,
        "locked": 11,
        "refused": 2,
        "interrupted": 130,
        "terminated": 143,
    }
    assert Status.of_exit_code(99) is Status.FAILED
    assert worst([Status.OK, Status.FAILED, Status.INCOMPLETE]) is Status.FAILED
    assert worst([]) is Status.OK
