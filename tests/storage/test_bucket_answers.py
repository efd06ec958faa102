"""Answers of the server of a bucket that nobody should believe."""

from __future__ import annotations

import pytest

from storage import bucket_answers
from storage.bucket_answers import Listed, date_of, is_parsable
from storage.bucket_keys import Keys
from tools.base.errors import StoreError

ENTITIES = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "<b/><b/>">]><l>&a;</l>'


@pytest.mark.fault(
    "an answer of 8 MiB that takes gigabytes when it is parsed: entities, elements, attributes",
    "it is not parsed",
)
@pytest.mark.parametrize(
    ("body", "good"),
    [
        (b'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult/>', True),
        (b"<?xml version='1.0' encoding='utf-8' standalone='yes'?><r/>", True),
        (b"", True),
        (b"<r>" + b"<Contents><Key>a=b</Key></Contents>" * 10_000 + b"</r>", True),
        (ENTITIES, False),
        (ENTITIES.decode().encode("utf-16"), False),
        (b"<r>" + b"<a/>" * 300_000 + b"</r>", False),
        (b"<r " + b"".join(b'a%d="" ' % number for number in range(300_000)) + b"/>", False),
        (b'<?xml version="1.0"   encoding = "cp037"?>' + "<r/>".encode("cp037"), False),
    ],
)
def test_what_is_parsed(body: bytes, good: bool) -> None:
    assert is_parsable(body) is good


@pytest.mark.fault("a Date that is none in the answer of a store", "it counts as not there")
@pytest.mark.parametrize(
    ("date", "year"),
    [
        ("Thu, 01 Jan 2026 00:00:00 GMT", 2026),
        ("Thu, 01 Jan 2026 00:00:00", 2026),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 9999),
        *[
            (text, None)
            for text in (
                *("", "yesterday", "Thu, 01 Jan 99999999999999999999 00:00:00 GMT"),
                "Fri, 31 Dec 9999 23:59:59 -2300",
                "Thu, 01 Jan 2026 00:00:00 +99999999999999999999",
            )
        ],
    ],
)
def test_dates(date: str, year: int | None) -> None:
    for name in ("date", "Date"):
        moment = date_of({name: date})
        assert (moment and moment.year) == year


def names(*keys: str, folder: str = "srv") -> list[str]:
    listed = Listed("s3://b/store", Keys("store"), folder)
    for key in keys:
        listed.add(key, 1, 1.0)
    return [entry.name for entry in listed]


@pytest.mark.fault(
    "a store lists names that lead elsewhere, or that no object of this program has",
    "they are skipped; an object of another folder is an error",
)
def test_names_that_lead_elsewhere() -> None:
    odd = ("store/srv/", "store/srv/below/x", "store/srv/../../x", "store/srv//x")
    aliases = ("store/srv/%2E%2E%2Fx", "store/srv/%78")
    assert names("store/srv/x", "store/srv/x", "store/srv/a%0Ab", *odd, *aliases) == [
        *("srv/a\nb", "srv/x")
    ]
    assert names("store/srv/" + "x" * 2_000) == []
    assert names("store/srv", "store/b", folder="") == ["b", "srv"]
    for key in ("store/srv2/x", "other/srv/x", "x", ""):
        with pytest.raises(StoreError, match="s3://b/store: the server lists objects of another"):
            names(key)


@pytest.mark.parametrize("size", [-1, 1 << 61, 10**400])
def test_sizes_that_are_none(size: int) -> None:
    with pytest.raises(StoreError, match="s3://b: srv/x: the server lists an invalid size"):
        Listed("s3://b", Keys(""), "srv").add("srv/x", size)


def test_a_folder_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_answers, "MAX_OBJECTS", 3)
    with pytest.raises(StoreError, match="more than 3 objects in one folder"):
        names(*(f"store/srv/{number}" for number in range(4)))
