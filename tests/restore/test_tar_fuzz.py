"""The checks and GNU tar see the same entries, or the archive is refused (issue 14, D)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import tar_archives, tar_fuzz
from benchmarks.tar_archives import Piece
from restore import archive_checks, tar_reader
from restore import sparse as sparse_maps
from tests.restore.test_archives import make
from tools.base.errors import BackupError

pytestmark = pytest.mark.needs("root")
ROOT = tar_reader.Rules(privileged=True)


@pytest.mark.slow
@pytest.mark.fault(
    "archives of all formats with changed headers, records and maps",
    "GNU tar creates what the checks saw, or nothing is restored",
)
def test_gnu_tar_creates_what_the_checks_saw(tmp_path: Path) -> None:
    """Issue 14: the part of `python3 benchmarks/tar_fuzz.py` that runs each time."""
    fast = Path("/dev/shm")  # noqa: S108
    counts, problems = tar_fuzz.fuzz(500, 14, fast if fast.is_dir() else tmp_path)
    assert problems == []
    assert counts["accepted"] > 150
    assert counts["refused"] > 150


def test_the_fuzzer_sees_a_difference(tmp_path: Path) -> None:
    """A size, a name and a target that tar does not create are found."""
    lab = tar_fuzz.Lab(tmp_path)
    lab.target.joinpath("a").write_bytes(b"12")
    for member in (
        tar_reader.Member(b"a", "file", 3, 0o644, 0, 0),
        tar_reader.Member(b"b", "file", 2, 0o644, 0, 0),
        tar_reader.Member(b"a", "symlink", 0, 0o777, 0, 0, b"b"),
    ):
        expected = tar_fuzz.Expected()
        expected.take(member)
        assert lab._compared(expected.whole())
    (tmp_path / "canary").unlink()
    assert lab._compared({}) == "something outside has changed"


def refusal(raw: bytes, rules: tar_reader.Rules = ROOT) -> str:
    """Why an archive is refused; "" if it is not."""
    try:
        for _ in archive_checks.check_archive(iter([raw]), rules):
            pass
    except BackupError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("form", tar_archives.FORMS)
def test_each_member_that_gnu_tar_writes_is_accepted(form: str) -> None:
    """The formats of archives that earlier versions made, too."""
    members = tar_archives.seeds({form: tar_archives.FORMS[form]})
    assert len(members) > 10
    links = (b"1",)  # to a file in front
    for member in members:
        raw = b"".join(piece.blocks() for piece in member) + bytes(1024)
        assert refusal(raw) == "", bytes(member[-1].header[:100])
        assert member[-1].header[156:157] in (*links, b"0", b"2", b"5", b"6", b"S", b"\0")


# --- what GNU tar and other readers take for different entries


def sparse(form: str, name: bytes = b"s") -> list[Piece]:
    """The sparse member of the seeds in a form."""
    return next(
        member
        for member in tar_archives.seeds({form: tar_archives.FORMS[form]})
        if bytes(member[-1].header[:100]).rstrip(b"\0").endswith(name)
    )


def plain(*, form: str = "ustar") -> list[Piece]:
    """A member of one header."""
    return tar_archives.split(make({"name": "f", "content": b"x"}, form=form))[0]


def put(
    at: int, value: bytes, base: Callable[[], list[Piece]] = plain
) -> Callable[[], list[Piece]]:
    """A change of the bytes of the entry's own header."""

    def change() -> list[Piece]:
        pieces = base()
        pieces[-1].header[at : at + len(value)] = value
        return pieces

    return change


def extended(*records: tuple[bytes, bytes], twice: bool = False) -> Callable[[], list[Piece]]:
    """A member with one extended header of these records; twice: with one for each."""

    def change() -> list[Piece]:
        groups = [[one] for one in records] if twice else [list(records)]
        return [*(tar_archives.extended_header(group) for group in groups), *plain()]

    return change


def long_name(data: bytes) -> Callable[[], list[Piece]]:
    """A member with a long name in front."""
    return lambda: [tar_archives.long_name(b"L", data), *plain(form="gnu")]


def reordered() -> list[Piece]:
    """A sparse map in front of the number of its regions."""
    pieces = sparse("sparse 0.1 of posix")
    lines = sorted(
        bytes(pieces[0].data).splitlines(keepends=True), key=lambda line: b"map=" not in line
    )
    pieces[0].data = bytearray(b"".join(lines))
    return pieces


def old_map_that_ends_early() -> list[Piece]:
    """The second region of an old map is free, but it says that it goes on."""
    pieces = sparse("sparse 0.0 of gnu", b"many")
    pieces[-1].header[398:410] = bytes(12)
    return pieces


def binary_sum() -> list[Piece]:
    """A checksum that is no octal number, as GNU tar requires."""
    pieces = plain()
    pieces[0].blocks()
    pieces[0].sum = b"\x80" + int(pieces[0].header[148:154], 8).to_bytes(7, "big")
    return pieces


def old_sparse(form: str) -> Callable[[], list[Piece]]:
    return lambda: sparse(form)


DIFFERENT: dict[str, tuple[Callable[[], list[Piece]], str]] = {
    "a checksum in binary form": (binary_sum, "invalid number"),
    "an old sparse file in ustar": (
        put(257, b"ustar\x0000", old_sparse("sparse 0.0 of gnu")),
        "cannot be sparse",
    ),
    "a sparse file of pax in GNU's format": (
        put(257, b"ustar  \0", old_sparse("sparse 1.0 of posix")),
        "cannot be sparse",
    ),
    "a sparse file of pax in V7's format": (
        put(257, bytes(8), old_sparse("sparse 0.1 of posix")),
        "cannot be sparse",
    ),
    "a real size beyond the map": (
        put(483, b"00000300000\0", old_sparse("sparse 0.0 of gnu")),
        "does not fit the size",
    ),
    "an old map that ends early": (old_map_that_ends_early, "ends early"),
    "a map in front of its number": (reordered, "in front of its number"),
    "the format of star": (put(475, b"\0" + b"00000000000 " * 2), "format of star"),
    "two extended headers": (
        extended((b"path", b"a"), (b"comment", b"x"), twice=True),
        "two headers describe one entry",
    ),
    "a key behind blanks": (extended((b" path", b"a")), "invalid extended header"),
    "a key behind a tab": (extended((b"\tpath", b"a")), "invalid extended header"),
    "a key with NUL": (extended((b"pa\0th", b"a")), "invalid extended header"),
    "a key with a line feed": (extended((b"x\ny", b"a")), "invalid extended header"),
    "a key twice": (extended((b"path", b"a"), (b"path", b"b")), "twice or wrongly"),
    "an owner of NUL and blanks": (put(108, b"\0       "), "invalid number"),
    "a long name without NUL": (long_name(b"n" * 120), "does not end where it says"),
    "a long name with NUL inside": (
        long_name(b"a\0" + b"n" * 120 + b"\0"),
        "does not end where it says",
    ),
    "an empty long name": (long_name(b""), "does not end where it says"),
    "two long names": (
        lambda: [tar_archives.long_name(b"L", b"a\0"), *long_name(b"b\0")()],
        "two headers describe one entry",
    ),
    "a long name and an extended header": (
        lambda: [tar_archives.long_name(b"L", b"a\0"), *extended((b"comment", b"x"))()],
        "two headers describe one entry",
    ),
    "eleven global headers": (
        lambda: [tar_archives.extended_header([(b"comment", b"x")], b"g")] * 11 + plain(),
        "too many headers",
    ),
    "the extended header of Solaris": (put(156, b"X"), "unknown entry type"),
    "a volume label": (put(156, b"V"), "unknown entry type"),
    "the rest of another volume": (put(156, b"M"), "unknown entry type"),
    "a list of a folder": (put(156, b"D"), "unknown entry type"),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_two_readers_could_read_differently_is_refused(case: str) -> None:
    """Issue 14: each was accepted, and GNU tar created something else or failed."""
    base, says = DIFFERENT[case]
    raw = b"".join(piece.blocks() for piece in base())
    assert says in refusal(raw + bytes(1024))


def test_a_lone_zero_block_is_refused() -> None:
    """Issue 14: GNU tar goes on behind it, other readers end."""
    raw = b"".join(piece.blocks() for piece in plain())
    assert "zero block" in refusal(raw + bytes(512) + raw + bytes(1024))
    assert refusal(raw + raw + bytes(1024)) == ""


def test_a_map_without_an_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 14: a few kilobytes of a packed archive could fill the memory."""
    monkeypatch.setattr(sparse_maps, "MOST", 2100)
    pieces = sparse("sparse 0.0 of gnu", b"many")
    pieces[-1].data = bytearray()
    more = bytes(504) + b"\1" + bytes(7)

    def chunks() -> Iterator[bytes]:
        yield pieces[-1].blocks()[:512]
        for number in range(1000):
            assert number < 200
            yield more

    with pytest.raises(BackupError, match="too many regions"):
        list(archive_checks.check_archive(chunks(), ROOT))
