"""What the tar reader computes in a fast way, against the plain form of the same rule."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

import pytest

from restore import archive_checks, archive_errors, tar_reader
from tools.base import foreign

ROUNDS = 2000
RANDOM = random.Random()
MEMBER = tar_reader.Member(b"m", "file", 0, 0o644, 0, 0)


@pytest.fixture(autouse=True)
def _same_values_in_each_order() -> None:
    RANDOM.seed(20260727)


def outcome(function: Callable[..., object], *arguments: object) -> object:
    """Return what a function returns, or the text of the error with which it rejects."""
    try:
        return function(*arguments)
    except archive_errors.UnsafeArchiveError as error:
        return str(error)


def mutated(raw: bytes, alphabet: bytes) -> bytes:
    """Return the bytes with up to three of them replaced."""
    changed = bytearray(raw)
    for _ in range(RANDOM.randrange(4)):
        changed[RANDOM.randrange(len(changed))] = RANDOM.choice(alphabet)
    return bytes(changed)


def plain_number(field: bytes) -> int:
    """Return a number of a header."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = re.fullmatch(rb" *([0-7]*)[ \0]*", field)
    if digits is None or not field.strip(b" ") or not field.removeprefix(b"\0").strip(b" "):
        raise archive_errors.UnsafeArchiveError("corrupt archive: invalid number in a header", "")
    return int(digits[1] or b"0", 8)


def plain_sum(block: bytes) -> None:
    """Compare the checksum of a header."""
    if block[148] == 0x80:
        raise archive_errors.UnsafeArchiveError("corrupt archive: invalid number in a header", "")
    if plain_number(block[148:156]) != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
        raise archive_errors.UnsafeArchiveError("corrupt archive: header checksum mismatch", "")


def plain_pax(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records of an extended header."""
    while data:
        digits, _, rest = data.partition(b" ")
        length = None if digits.startswith(b"0") else foreign.number(digits)
        record = data[: length or 0]
        key, sign, value = rest[: len(record) - len(digits) - 2].partition(b"=")
        if length is None or length != len(record) or length <= len(digits) + 1:
            raise archive_errors.UnsafeArchiveError("corrupt archive: invalid extended header", "")
        if record[-1:] != b"\n" or not key or not sign or re.match(rb"[ \t]|.*[\0\n]", key, re.S):
            raise archive_errors.UnsafeArchiveError("corrupt archive: invalid extended header", "")
        yield key, value
        data = data[length:]


def plain_clean(name: bytes) -> bytes:
    """Return a name without `.` and doubled slashes."""
    segments = name.split(b"/")
    if name.startswith(b"/") or b".." in segments or b"." in segments[1:]:
        raise archive_errors.UnsafeArchiveError("", "")
    if b"." not in name and b"//" not in name:
        return name
    return b"/".join(word for word in segments if word not in (b"", b"."))


def test_the_numbers_of_headers_are_those_of_the_plain_form() -> None:
    alphabet = b"01234567 \0 89+-_x\t\n\x80\xff"
    for _ in range(ROUNDS):
        field = mutated(b"%0*o" % (RANDOM.choice((7, 11)), RANDOM.randrange(1 << 20)), alphabet)
        field += RANDOM.choice((b"\0", b" ", b"8", b"7"))
        assert outcome(tar_reader._number, field) == outcome(plain_number, field), field
        assert outcome(tar_reader._number, field) == outcome(plain_number, field), field  # again


def test_the_checksum_of_a_header_is_that_of_the_plain_form() -> None:
    blocks = [bytes(512), b"\xff" * 512, b"\xff" * 256 + bytes(256), bytes(256) + b"\xff" * 256]
    blocks += [RANDOM.randbytes(512) for _ in range(ROUNDS // 2)]
    for block in blocks:
        total = sum(block) - sum(block[148:156]) + 256
        for stated in (total, total - 1, total + 1, total % 65521, total ^ 0o400):
            field = RANDOM.choice((b"%06o\0 ", b"%07o\0", b" %06o ")) % stated
            signed = block[:148] + field + block[156:]
            assert outcome(tar_reader._check_sum, signed) == outcome(plain_sum, signed)
            assert (outcome(tar_reader._check_sum, signed) is None) == (stated == total)
    with pytest.raises(archive_errors.UnsafeArchiveError, match="invalid number"):
        tar_reader._check_sum(bytes(148) + b"12345x\0 " + bytes(356))


def test_the_records_of_an_extended_header_are_those_of_the_plain_form() -> None:
    valid = b"30 mtime=1795762834.061414594\n21 path=a/b c/\xc3\xa4=1 5\n6 x=\n\n6 a=b\n"
    accepted = 0
    for _ in range(ROUNDS):
        data = mutated(valid, b"0123456789 +-_=\n\0\xb2a")
        data = data[: RANDOM.choice((len(data), len(data) - 1, RANDOM.randrange(len(data))))]
        data = data.replace(
            b"6 a", RANDOM.choice((b"6 a", b"6 a", b"06 a", b"9" * 19 + b" ", b"1" * 30))
        )
        records = outcome(tar_reader._pax, data)
        assert records == outcome(lambda raw: list(plain_pax(raw)), data), data
        accepted += isinstance(records, list)
    assert 200 < accepted < ROUNDS - 200  # both ways were taken


def test_the_times_of_headers_are_judged_as_by_the_plain_form() -> None:
    limit = (1 << 63) - 1
    for seconds in (0, 1, 10**18 - 1, 10**18, limit - 1, limit, limit + 1, 10**30):
        for sign in (b"", b"-", b"+", b" "):
            for fraction in (b"", b".", b".5", b".000000001", b".x", b"e1", b"\n"):
                time = sign + b"%d" % seconds + fraction
                fits = (
                    seconds < limit and sign in (b"", b"-") and fraction[:2] not in (b".x", b"e1")
                )
                block = bytes(136) + b"00000000000\0" + bytes(364)
                error = outcome(tar_reader._check_times, block, {b"ctime": time}, b"m")
                assert (error is None) == (fits and fraction != b"\n"), time


def test_names_are_cleaned_as_by_the_plain_form() -> None:
    segments = (b"", b".", b"..", b"a", b".a", b"a.", b"..a", b"a..", b"...", b"a.b", b"c")
    for _ in range(ROUNDS):
        name = b"/".join(RANDOM.choices(segments, k=RANDOM.randrange(1, 6))) or b"x"
        cleaned = outcome(archive_checks._clean, name, MEMBER, "name")
        expected = outcome(plain_clean, name)
        assert isinstance(cleaned, str) == isinstance(expected, str), name
        assert isinstance(cleaned, str) or cleaned == expected, name
