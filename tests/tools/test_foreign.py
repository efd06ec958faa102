"""Text and JSON of other programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools.base import foreign, foreign_json, masking
from tools.base.foreign_json import InvalidJsonError

BAD_JSON = {
    "not UTF-8": b'{"a": "caf\xe9"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep and complete": b"[" * 5000 + b"]" * 5000,
    "101 levels": b"[" * 101 + b"]" * 101,
    "Infinity": b'{"a": Infinity}',
    "-Infinity": b"[-Infinity]",
    "NaN": b"[NaN]",
    "float out of range": b"[1e999]",
    "5000 digits": b"[" + b"9" * 5000 + b"]",
    "65 bits": b"[18446744073709551616]",
    "half a surrogate pair": b'["\\ud800"]',
    "half a pair in a key": b'{"\\udbff": 1}',
    "empty": b"",
    "NUL": b"\0",
    "two values": b"{} {}",
    "too large": b'"' + b"x" * foreign_json.MAX_BYTES + b'"',
}


@pytest.mark.parametrize("raw", BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json_raises_one_error(raw: bytes) -> None:
    with pytest.raises(InvalidJsonError) as caught:
        foreign_json.load(raw)
    assert "\n" not in str(caught.value)


def test_json_that_programs_write_is_read() -> None:
    text = b'\xef\xbb\xbf{"a": [1, -1.5, 18446744073709551615], "\\udce9": "\\ud83d\\ude00"}'
    value = {"a": [1, -1.5, (1 << 64) - 1], "\udce9": "\U0001f600"}
    assert foreign_json.load(text) == value
    assert foreign_json.load("[" * 100 + "]" * 100)


def test_only_line_feeds_end_a_line() -> None:
    text = "a\u2028b\x85c\x0bd\x0ce\x1cf\rg\r\nlast\n\nend"
    assert foreign.lines(text) == ["a\u2028b\x85c\x0bd\x0ce\x1cf\rg", "last", "", "end"]
    assert foreign.lines("a\n") == ["a"]
    assert foreign.lines("") == []
    assert foreign.lines_with_ends("a\u2028\r\nb\x85\n\nc") == ["a\u2028\r\n", "b\x85\n", "\n", "c"]


@pytest.mark.parametrize(
    "text",
    ["²", "٣", "", "1e3", "-1", "+1", "9" * 5000, "9223372036854775808", " 1", "1_0", "0x1", "1 2"],
)
def test_what_is_not_a_number(text: str) -> None:
    assert foreign.number(text) is None
    assert foreign.number(text.encode()) is None


def test_a_number() -> None:
    assert foreign.number("0042") == 42
    assert foreign.number("9223372036854775807") == (1 << 63) - 1
    assert foreign.number(b"7") == 7


def test_control_characters_are_escaped_as_in_names_of_tar() -> None:
    text = "\x1b[2J\x9b\x7f\u202e\u2028\u2066\r\n\0\udce9 é \\ \U0001f600"
    escaped = "\\x1b[2J\\x9b\\x7f\\u202e\\u2028\\u2066\\r\\n\\x00\\xe9 é \\ \U0001f600"
    assert foreign.printable(text) == escaped
    assert foreign.printable(escaped) == escaped


def test_lines_are_masked_before_they_are_cut() -> None:
    masking.add("hunter2-foreign")
    assert foreign.line("tab\tpassword hunter2-foreign\nx") == "tab\tpassword ***\\nx"
    line = foreign.line("x" * (foreign.MAX_LINE - 5) + "hunter2-foreign")
    assert "hunter" not in line
    long = foreign.line("y" * 1_000_000)
    assert len(long) <= foreign.MAX_LINE
    assert long.endswith("(991858 more characters)")
    assert foreign.line(long) == long
    control = foreign.line("\x1b" * 5000)
    assert foreign.line(control) == control


def test_an_argument_of_a_command_that_is_shown_is_safe_to_paste() -> None:
    assert foreign.argument("MYSQL/3306/shop") == "MYSQL/3306/shop"
    assert foreign.argument("A/$(id); it's\n") == """'A/$(id); it'"'"'s\\n'"""


def test_lists_and_paragraphs_are_bounded() -> None:
    lines = foreign.listing(f"w{n}\x1b" for n in range(20_000))
    assert len(lines) == foreign.MAX_LINES
    assert (lines[0], lines[-1]) == ("w0\\x1b", "(19001 more)")
    text = foreign.paragraph("a\n" * 5000)
    assert text.endswith("a\n(4901 more lines)")
    assert foreign.paragraph(text) == text
    assert foreign.listing(lines) == lines


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert foreign.content(tmp_path / "file", 3) == b"abc"
    with pytest.raises(OSError, match="larger than 2 bytes"):
        foreign.content(tmp_path / "file", 2)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        foreign.content(tmp_path / "pipe", 3)
