"""Archives for benchmarks/tar_fuzz.py: members that GNU tar wrote in all of its formats, mixed,
and one to three of their header fields, records or maps changed with the checksum put right."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BLOCK = 512
FORMS = {
    "gnu": ["--format=gnu"],
    "oldgnu": ["--format=oldgnu"],
    "pax": ["--format=posix"],
    "ustar": ["--format=ustar"],
    "v7": ["--format=v7"],
    **{
        f"sparse {version} of {form}": [
            f"--format={form}",
            "--sparse",
            f"--sparse-version={version}",
        ]
        for form, version in (
            ("posix", "0.0"),
            ("posix", "0.1"),
            ("posix", "1.0"),
            ("gnu", "0.0"),
            ("oldgnu", "0.0"),
        )
    },
}
_EXTENSIONS = (b"x", b"g", b"L", b"K")
_LONG = "n" * 60 + "/" + "m" * 90  # too long for a header without a prefix
_LONGER = "/".join(["o" * 120] * 3)
_NAMES = (
    *(b"a", b"b", b"d", b"d/", b"d/a", b"d/e/f", b"./a", b"./", b".", b"s", b"link", b"link/x"),
    *(b"dangling", b"a/x", b"a/", b"x//y", b"x/./y", b"../out", b"/out", b"d/../../out", b"\xff"),
    *(b"A", b"\xc3\xa4", b"a\xcc\x88", b"new\nline", b"b\\n", b" a", b"a ", b"a\0b", b"n" * 100),
)
_NUMBERS = (
    *(b"%011o\0" % number for number in (0, 1, 511, 512, 513, 1024, 4096, 8**11 - 1)),
    *(b"%12o" % 512, b"%10o\0 " % 512, b" 1000\0     ", b"1000 000000 ", b"1000\0junk!!!"),
    bytes(12),
    *(b"\0" + b"1000".rjust(11), b" " * 12, b"-1\0".ljust(12, b"\0"), b"+AA".ljust(12, b"\0")),
    *(b"\x80" + (512).to_bytes(11, "big"), b"\x80" + b"\xff" * 11, b"\xff" * 12),
    b"\xff" + bytes(11),
    *(b"\xc0" + bytes(11), b"\x81" + bytes(11), b"8" * 12, b"7" * 12, b"0x200".ljust(12, b"\0")),
)  # fmt: skip
_FIELDS = {
    "mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "size": (124, 12), "mtime": (136, 12),
    "major": (329, 8), "minor": (337, 8), "atime": (345, 12), "ctime": (357, 12),
    "offset 1": (386, 12), "length 1": (398, 12), "offset 2": (410, 12), "length 2": (422, 12),
    "length 4": (470, 12), "real size": (483, 12),
}  # fmt: skip
_MAGICS = (
    b"ustar\x0000",
    b"ustar  \0",
    b"ustar\0  ",
    b"ustar   ",
    b"ustar\0\0\0",
    bytes(8),
    b"tar\0    ",
)
_KINDS = b"01234567\0SLKxgXDMNVAIaZ \xff"
_RECORDS = (
    *((b"path", name) for name in _NAMES[:16]),
    *((b"linkpath", name) for name in (b"a", b"../canary", b"d", b"")),
    *((b"size", size) for size in (b"0", b"1", b"512", b"513", b"1024", b" 512", b"+512", b"0512")),
    *((b"size", size) for size in (b"-1", b"512x", b"", b"0x200", b"99999999999999999999")),
    (b"GNU.sparse.name", b"b"), (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"),
    (b"GNU.sparse.major", b"0"), (b"GNU.sparse.minor", b"1"), (b"GNU.sparse.major", b"2"),
    (b"GNU.sparse.realsize", b"4096"), (b"GNU.sparse.size", b"4096"),
    (b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.numblocks", b"0"),
    (b"GNU.sparse.map", b"0,512"), (b"GNU.sparse.map", b"512,512,1024,0"), (b"GNU.sparse.map", b""),
    (b"GNU.sparse.offset", b"0"), (b"GNU.sparse.numbytes", b"512"),
    (b"GNU.volume.label", b"x"), (b"GNU.volume.size", b"512"), (b"GNU.dumpdir", b"Ya\0\0"),
    (b"mtime", b"1.5"), (b"mtime", b"x"), (b"uid", b"1"), (b"uid", b"-1"),
    (b"hdrcharset", b"BINARY"),
    (b"comment", b"x"), (b"charset", b"x"), (b" path", b"b"), (b"\tpath", b"b"), (b"path ", b"b"),
    (b"pa\0th", b"b"), (b"PATH", b"b"), (b"uname", b"x"), (b"unknown", b"1"), (b"typeflag", b"5"),
    (b"LIBARCHIVE.symlinktype", b"dir"), (b"SCHILY.realsize", b"9"),
    (b"SCHILY.filetype", b"sparse"),
)  # fmt: skip


@dataclass
class Piece:
    """A header and the data behind it. sum: what the field of the checksum holds, if not the sum"""

    header: bytearray
    data: bytearray
    sum: bytes = b""

    def copy(self) -> Piece:
        """Return an equal piece."""
        return Piece(bytearray(self.header), bytearray(self.data), self.sum)

    def blocks(self) -> bytes:
        """Return the blocks of the archive."""
        self.header[148:156] = b" " * 8
        self.header[148:156] = self.sum or b"%06o\0 " % sum(self.header)
        return bytes(self.header + self.data + bytes(-len(self.data) % BLOCK))


Member = list[Piece]  # headers in front of an entry, and its own
Archive = list[Piece]


def seeds(forms: Mapping[str, Sequence[str]] = FORMS) -> list[Member]:
    """Return the members of archives that GNU tar makes of one tree in every format."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder) / "tree"
        _tree(top)
        return [member for options in forms.values() for member in split(_archive(top, options))]


def _archive(top: Path, options: Sequence[str]) -> bytes:
    argv = [
        "tar",
        "--create",
        "--file=-",
        *options,
        "--numeric-owner",
        f"--directory={top}",
        "--sort=name",
    ]
    done = subprocess.run(
        [*argv, *sorted(path.name for path in top.iterdir())], capture_output=True, check=False
    )
    return done.stdout


def _tree(top: Path) -> None:
    (top / "d/e").mkdir(parents=True)
    (top / "a").write_bytes(b"content of a\n")
    (top / "b").write_bytes(b"b" * 1025)
    (top / "d/a").write_bytes(b"")
    (top / "d/e/f").write_bytes(b"f" * 512)
    os.link(top / "a", top / "hard")
    (top / "link").symlink_to("d")
    (top / "dangling").symlink_to("../canary")
    (top / "far").symlink_to("/" + "t" * 150)
    os.mkfifo(top / "fifo")
    for name in (_LONG, _LONGER):
        (top / name).parent.mkdir(parents=True)
        (top / name).write_bytes(b"long\n")
    os.link(top / _LONGER, top / "harder")
    _sparse(top / "s", [0, 20000, 40000], 65536)
    _sparse(top / "many", range(0, 30 * 8192, 8192), 30 * 8192 + 100)
    _sparse(top / "hole", [], 9000)
    _sparse(top / _LONG[:80], [8192], 12288)


def _sparse(path: Path, offsets: Sequence[int], size: int) -> None:
    with path.open("wb") as file:
        for offset in offsets:
            file.seek(offset)
            file.write(b"data" * 64)
        file.truncate(size)


def split(raw: bytes) -> list[Member]:
    """Return the members of an honest archive."""
    members: list[Member] = [[]]
    at = 0
    while raw[at : at + BLOCK].strip(b"\0"):
        header = bytearray(raw[at : at + BLOCK])
        more = BLOCK
        while header[156:157] == b"S" and raw[at + (482 if more == BLOCK else more - 8)]:
            more += BLOCK
        end = at + more + int(header[124:135], 8)
        members[-1].append(Piece(header, bytearray(raw[at + BLOCK : end])))
        at = end + -end % BLOCK
        if bytes(header[156:157]) not in _EXTENSIONS:
            members.append([])
    return members[:-1]


def make(rng: random.Random, pool: Sequence[Member], changes: int) -> bytes:
    """Return an archive of one to five members with so many changes."""
    chosen = rng.choices(pool, k=rng.randrange(1, 6))
    if not changes:  # as GNU tar makes it: each name once
        chosen = list({bytes(member[-1].header[:60]): member for member in chosen}.values())
    pieces = [piece.copy() for member in chosen for piece in member]
    for _ in range(changes):
        rng.choice(_CHANGES)(rng, pieces)
    raw = b"".join(piece.blocks() for piece in pieces)
    if changes and not rng.randrange(20):
        at = rng.randrange(len(raw) // BLOCK + 1) * BLOCK
        raw = raw[:at] + bytes(BLOCK) * rng.choice((1, 1, 2)) + raw[at:]
    return raw + bytes(2 * BLOCK)


# --- changes


def _put(piece: Piece, at: int, length: int, value: bytes) -> None:
    piece.header[at : at + length] = value[:length].ljust(length, b"\0")


def _field(rng: random.Random, pieces: Archive) -> None:
    piece = rng.choice(pieces)
    at, length = _FIELDS[rng.choice([*_FIELDS, "size", "size"])]
    value = rng.choice(_NUMBERS)
    _put(piece, at, length, value[len(value) - length :] if rng.randrange(3) else value)


def _size(rng: random.Random, pieces: Archive) -> None:
    piece = rng.choice(pieces)
    stated = len(piece.data) + rng.choice((-513, -512, -1, 0, 1, 512))
    _put(piece, 124, 12, b"%011o\0" % max(0, stated))


def _byte(rng: random.Random, pieces: Archive) -> None:
    piece = rng.choice(pieces)
    piece.header[rng.randrange(BLOCK)] = rng.choice((0, 32, 47, 48, 49, 0x80, rng.randrange(256)))


def _name(rng: random.Random, pieces: Archive) -> None:
    at, length = rng.choice(((0, 100), (0, 100), (157, 100), (345, 155)))
    _put(rng.choice(pieces), at, length, rng.choice(_NAMES))


def _kind(rng: random.Random, pieces: Archive) -> None:
    rng.choice(pieces).header[156] = rng.choice(_KINDS)


def _magic(rng: random.Random, pieces: Archive) -> None:
    _put(rng.choice(pieces), 257, 8, rng.choice(_MAGICS))


def _star(rng: random.Random, pieces: Archive) -> None:
    """Write the times of star's format, which lie in the prefix of ustar."""
    piece = rng.choice(pieces)
    _put(piece, 257, 8, b"ustar\x0000")
    piece.header[475] = 0
    _put(piece, 476, 24, b"00000000000 " * 2)


def _sum(rng: random.Random, pieces: Archive) -> None:
    piece = rng.choice(pieces)
    piece.sum = b""
    piece.blocks()
    total = int(piece.header[148:154], 8)
    signed = total - 256 * sum(byte >> 7 for byte in piece.header)
    forms = (b"%07o\0", b"%6o\0 ", b" %06o\0", b"%08o", b"%06ox ", b"\0%06o\0")
    binary = b"\x80" + total.to_bytes(7, "big")
    piece.sum = rng.choice((rng.choice(forms) % total, binary, b"%06o\0 " % max(0, signed)))


def _order(rng: random.Random, pieces: Archive) -> None:
    one, other = rng.randrange(len(pieces)), rng.randrange(len(pieces))
    change = rng.choice(("twice", "swap", "swap", "less"))
    if change == "twice":
        pieces.insert(other, pieces[one].copy())
    elif change == "swap":
        pieces[one], pieces[other] = pieces[other], pieces[one]
    elif len(pieces) > 1:
        del pieces[one]


def long_name(kind: bytes, name: bytes) -> Piece:
    """Return a header with a long name (L) or link target (K) as its data."""
    return _in_front(b"././@LongLink", kind, b"ustar  \0", name)


def extended_header(records: Sequence[tuple[bytes, bytes]], kind: bytes = b"x") -> Piece:
    """Return a header with these records as its data."""
    data = b"".join(_record(key, value) for key, value in records)
    return _in_front(b"PaxHeaders/x", kind, b"ustar\x0000", data)


def _in_front(name: bytes, kind: bytes, magic: bytes, data: bytes) -> Piece:
    piece = Piece(bytearray(BLOCK), bytearray(data))
    _put(piece, 0, 100, name)
    _put(piece, 100, 24, b"0000644\x000000000\x000000000\0")
    _put(piece, 124, 24, b"%011o\0" % len(data) + b"00000000000\0")
    _put(piece, 156, 1, kind)
    _put(piece, 257, 8, magic)
    return piece


def _long(rng: random.Random, pieces: Archive) -> None:
    """Insert a long name in front of a member, with or without the NUL at its end."""
    name = rng.choice((*_NAMES, b"long" * 40, _LONG.encode()))
    name += rng.choice((b"\0",) * 5 + (b"", b"\0\0", b"\0x\0"))
    piece = long_name(rng.choice((b"L", b"L", b"K")), name)
    pieces.insert(rng.randrange(len(pieces)), piece)


def _record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _extended(rng: random.Random, pieces: Archive) -> None:
    """Insert an extended header of one to four records in front of a member."""
    kind = rng.choice((b"x", b"x", b"x", b"g", b"X"))
    records = [rng.choice(_RECORDS) for _ in range(rng.randrange(1, 5))]
    pieces.insert(rng.randrange(len(pieces)), extended_header(records, kind))


def _records(rng: random.Random, pieces: Archive) -> None:
    """Change the records of an extended header: one more, twice, fewer, in another order."""
    extended = [piece for piece in pieces if piece.header[156:157] == b"x" and piece.data]
    if not extended:
        return _extended(rng, pieces)
    piece = rng.choice(extended)
    lines = bytes(piece.data).splitlines(keepends=True)
    at = rng.randrange(len(lines))
    change = rng.choice(("more", "more", "twice", "less", "order", "order"))
    if change == "more":
        lines.insert(at, _record(*rng.choice(_RECORDS)))
    elif change == "twice":
        lines.insert(at, rng.choice(lines))
    elif change == "less":
        del lines[at]
    else:
        rng.shuffle(lines)
    piece.data = bytearray(b"".join(lines))
    return _put(piece, 124, 12, b"%011o\0" % len(piece.data))


def _text(rng: random.Random, pieces: Archive) -> None:
    """Change a byte of records, of a name in front of a member, or of a map in front of data."""
    full = [piece for piece in pieces if piece.data]
    if full:
        data = rng.choice(full).data
        data[rng.randrange(min(len(data), 600))] = rng.choice(b"\0\n ,=0123456789/.+-\t")


def _target(rng: random.Random, pieces: Archive) -> None:
    piece = rng.choice(pieces)
    _put(piece, 156, 1, rng.choice((b"1", b"1", b"2")))
    _put(piece, 157, 100, rng.choice((b"a", b"./a", b"a/", b"d", b"link", b"link/a", *_NAMES)))
    if piece.header[156] in b"12" and rng.randrange(5):
        piece.data = bytearray()
        _put(piece, 124, 12, b"%011o\0" % 0)


_CHANGES: tuple[Callable[[random.Random, Archive], None], ...] = (
    _field, _field, _size, _byte, _byte, _name, _name, _kind, _magic, _star, _sum, _order, _order,
    _long, _extended, _records, _records, _text, _text, _target,
)  # fmt: skip
