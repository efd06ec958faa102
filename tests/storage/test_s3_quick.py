"""Times in the answers of S3 are read as botocore reads them, in a tenth of the time."""

from __future__ import annotations

import pytest
from botocore.utils import parse_timestamp

from storage import s3_http


@pytest.mark.parametrize(
    "text",
    [
        *("2026-11-27T19:57:52Z", "2026-11-27T19:57:52.123Z", "2026-11-27T19:57:52+02:00"),
        *("Fri, 27 Nov 2026 19:57:52 GMT", "1764273472"),
    ],
)
def test_times_are_those_of_botocore(text: str) -> None:
    assert s3_http.moment(text) == parse_timestamp(text).replace(microsecond=0)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-27T19:57:52Z"])
def test_what_is_no_time_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (of whichever parser)
        s3_http.moment(text)
