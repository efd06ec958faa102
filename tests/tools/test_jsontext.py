from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.base import foreign_json
from tools.base.errors import ConfigError
from tools.config import json_parser

texts = st.text().filter(lambda text: "\0" not in text)
keys = texts.filter(lambda text: not text.startswith("__"))
scalars = st.none() | st.booleans() | st.integers() | texts
numbers = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | numbers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=15,
)


@given(st.dictionaries(st.text("ABC", min_size=1), values), st.sampled_from([None, 1]))
def test_it_reads_what_the_standard_library_writes(
    value: dict[str, object], indent: int | None
) -> None:
    raw = json.dumps(value, indent=indent, ensure_ascii=bool(indent)).encode(
        "utf-8", "surrogatepass"
    )
    try:
        raw.decode()
    except UnicodeDecodeError:
        return
    assert json_parser.plain(json_parser.parse(raw, "x")) == value


def test_lines_and_comments_that_repeat() -> None:
    table = json_parser.parse(b'{\n "__a": 1,\n "__a": 2,\n "B": {\n  "C": 3}\n}', "x")
    assert table.values.keys() == {"B"}
    assert table.lines == {"B": 4}
    assert table.values["B"].lines == {"C": 5}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"A": 1,\n "A": 2}', r"x:2: duplicate key A"),
        ('{"A": 1,}', r"x:1: expected a key, found '}' \(column 9\)"),
        ('{"A": [1,]}', r"expected a value, found '\]'"),
        ('{"A" 1}', r"expected ':' after the key 'A'"),
        ('{"A": 1 "B": 2}', r"expected ',' or '}'"),
        ('{"A": NaN}', r"expected a value, found 'NaN'"),
        ('{"A": Infinity}', r"found 'Infinity'"),
        ('{"A": -}', r"expected a value"),
        ('{"A": 01}', r"expected ',' or '}'"),
        ('{"A": "x\ny"}', r"x:1: invalid control character"),
        ('{"A": "x', r"x:1: unterminated string"),
        ('{"A": "\\u0000"}', r"NUL"),
        ("{\n\n// no\n}", r"x:3: expected a key"),
        ('{"A": 1} x', r"unexpected text after"),
        ("[1]", r"must be a JSON object"),
        ("", r"unexpected end of file"),
        ('{"A": ' + "[" * 30 + "]" * 30 + "}", r"more than 20 levels deep"),
        ('{"A": tru}', r"found a word without quotes"),
    ],
)
def test_what_is_wrong_is_said_with_line_and_column(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        json_parser.parse(text.encode(), "x")


def test_not_utf8_and_too_large() -> None:
    with pytest.raises(ConfigError, match="x:2: invalid UTF-8") as caught:
        json_parser.parse(b'{\n"A": "\xff"}', "x")
    assert "0xff" in caught.value.hint
    with pytest.raises(ConfigError, match="larger than"):
        json_parser.parse(b" " * (1 << 20) + b"{}", "x")


def test_a_byte_order_mark_is_no_trouble() -> None:
    assert json_parser.parse(b"\xef\xbb\xbf{}", "x").values == {}


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1e999}',
        '{"a": -1.5E999}',
        "[1,2e400]",
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 123456789012345678901}',
        '{"a": "\\ud800"}',
        '{"a": "\ud800"}',
    ],
)
def test_what_check_rejects_is_to_be_checked(text: str) -> None:
    value, sound = foreign_json.load_structure(text)
    assert not sound
    with pytest.raises(foreign_json.InvalidJsonError):
        foreign_json.check(value)


def test_a_manifest_needs_no_further_check() -> None:
    raw = f'{{"sha256": "{"7e" * 32}", "size": 12345, "facts": {{"ratio": 0.5}}}}'.encode()
    assert foreign_json.load_structure(raw)[1]
