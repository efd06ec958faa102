"""Read tar archives block by block: where each member begins, and what it is.

Formats: POSIX.1-2001 pax interchange, ustar, and the extensions of GNU tar (long names, sparse
files in all forms). What two readers could read differently is rejected.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from restore import sparse
from restore.archive_errors import CORRUPT, HINT, UnsafeArchiveError, printable_name, unsafe
from restore.block_reader import BLOCK, BlockReader
from tools.base import foreign

ZEROS = bytes(BLOCK)
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"S": "file", b"1": "link", b"2": "symlink",
          b"3": "device", b"4": "device", b"5": "folder", b"6": "fifo"}  # fmt: skip
_EXTENSIONS = (b"x", b"g", b"L", b"K")  # headers in front of an entry's own
_LONG = {b"L": b"path", b"K": b"linkpath"}  # GNU's long names: which pax record they stand for
_REFUSED = (b"GNU.volume.", b"GNU.dumpdir")  # begin what belongs to archives of other kinds
_XATTR = b"SCHILY.xattr."
_ATTRIBUTES = (_XATTR, b"SCHILY.acl.", b"RHT.security.")
_LONGEST_KEY = len(_XATTR) + 3 * 255  # bytes: an attribute's name, each character as %XX
_PLAIN = frozenset((b"mtime", b"atime", b"ctime", b"path", b"linkpath", b"size", b"uid", b"gid"))
_TIMES = (b"mtime", b"atime", b"ctime")
_TIME = re.compile(rb"-?[0-9]+(?:\.[0-9]*)?")
_usual_time = re.compile(rb"-?[0-9]{1,18}(?:\.[0-9]*)?").fullmatch  # all are below _MAX
_USTAR, _OLD_GNU = b"ustar\0", b"ustar  \0"  # which format a header is in
_time_record = re.compile(rb"([1-9][0-9]) ([mac]time)=([0-9]{1,18}(?:\.[0-9]*)?)\n").match
_MAX = (1 << 63) - 1  # seconds, bytes: off_t and time_t
_LARGEST = 1 << 60  # bytes: more than any disk holds, less than what file systems refuse
_LAST_OWNER = (1 << 32) - 2  # the next number means "no change" (chown(2))
_MOST_BEFORE = 10  # headers in front of an entry's own
_HARMLESS = (b"comment", b"charset")  # that a global header may set


class Member(NamedTuple):
    """One entry as it would be restored.

    kind: file, folder, link (hard), symlink, fifo or device; size: bytes of the content with
    its holes; unsafe: why only root gets all of it, "" otherwise; written: the name as it stands
    in the archive; attributes: the records of its extended header that are some; header: where
    its own block lies in all of its header blocks
    """

    name: bytes
    kind: str
    size: int
    mode: int
    uid: int
    gid: int
    target: bytes = b""
    unsafe: str = ""
    written: bytes = b""
    attributes: tuple[tuple[bytes, bytes], ...] = ()
    header: int = 0


@dataclass(frozen=True)
class Rules:
    """What may come out.

    privileged: device nodes and set-id bits come back, as for root
    special: what gives rights to others may be among that; False for a run of an unknown signer
    """

    privileged: bool = False
    special: bool = True
    max_members: int = 100_000_000
    max_bytes: int | None = None
    max_name: int = 1 << 16


def next_member(source: BlockReader, rules: Rules) -> tuple[Member, bytes, int] | None:
    """Return the next member, its header and map, the bytes that follow; None at the end."""
    header: list[bytes] = []
    records: dict[bytes, bytes] = {}
    before: list[bytes] = []  # the kinds of the headers in front of the entry's own
    at = 0
    while True:
        block = source.take(BLOCK)
        if block == ZEROS:
            if header or source.block() != ZEROS:
                raise UnsafeArchiveError("unexpected zero block inside the archive", HINT)
            return None
        _check_sum(block)
        header.append(block)
        kind = block[156:157]
        if kind not in _EXTENSIONS:
            break
        size = _number(block[124:136])
        if size > rules.max_name * 64:
            raise UnsafeArchiveError(f"extended header of {size} bytes exceeds the limit", HINT)
        _check_order(kind, before)
        data = source.take(-(-size // BLOCK) * BLOCK)
        header.append(data)
        _read_extension(kind, data, size, records)
        at += BLOCK + len(data)
    extensions = list(_extensions(source, block)) if kind == b"S" else []
    header += extensions
    member = _member(block, records, rules, at)
    remaining = -(-member.size // BLOCK) * BLOCK
    if kind == b"S" or not _PLAIN.issuperset(records):
        try:
            in_front, size = _mapped(source, (block, *extensions), records, member)
        except ValueError as error:
            raise unsafe(member.name, f"{error}") from None
        header.append(in_front)
        remaining -= len(in_front)
        member = member._replace(size=size)
    return member, b"".join(header), remaining


def _check_order(kind: bytes, before: list[bytes]) -> None:
    """Add the kind of a header. Raises UnsafeArchiveError for one that another replaces or adds to.

    Of two extended headers GNU tar reads the last, and of a long name beside one it depends.
    """
    if not before:  # as in most archives
        before.append(kind)
        return
    own_kinds = [one for one in (*before, kind) if one != b"g"]
    if len(own_kinds) != len(set(own_kinds)) or (b"x" in own_kinds and len(own_kinds) > 1):
        raise UnsafeArchiveError("two headers describe one entry", HINT)
    if len(before) >= _MOST_BEFORE:  # all are kept until the entry's own
        raise UnsafeArchiveError("too many headers in front of one entry", HINT)
    before.append(kind)


def _check_sum(block: bytes) -> None:
    """Compare the sum of all bytes, those of the checksum itself as spaces, with the checksum.

    Adler-32 begins with 1 and holds, modulo 65521, the sum in its lower half: exact for 256 bytes.
    """
    total = (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF) - 2
    if total != _expected_sum(block[148:156]):
        raise UnsafeArchiveError("corrupt archive: header checksum mismatch", CORRUPT)


@functools.lru_cache(maxsize=4096)
def _expected_sum(field: bytes) -> int:
    """Return the sum of all bytes of a header, without this field of the checksum, as expected."""
    if field[0] > 127:  # noqa: PLR2004
        raise UnsafeArchiveError("corrupt archive: invalid number in a header", CORRUPT)
    return _number(field) + sum(field) - 256


@functools.lru_cache(maxsize=4096)  # owners, modes and times repeat
def _number(field: bytes) -> int:
    """Return a number of a header: octal digits, or binary with the first bit set (GNU)."""
    if field[0] == 0x80:  # noqa: PLR2004
        return int.from_bytes(field[1:], "big")
    match = _OCTAL.fullmatch(field)
    if match is None or not field[field[0] == 0 :].strip(b" "):
        raise UnsafeArchiveError("corrupt archive: invalid number in a header", CORRUPT)
    return int(match[1] or b"0", 8)


def _check_times(block: bytes, records: Mapping[bytes, bytes], name: bytes) -> None:
    """Raise UnsafeArchiveError for a time that GNU tar could not read."""
    field = block[136:148]
    seconds = int.from_bytes(field, "big", signed=True) if field[0] == 0xFF else _number(field)  # noqa: PLR2004
    bad = [
        time
        for time in map(records.get, _TIMES)
        if time is not None and not _usual_time(time) and not _is_time(time)
    ]
    if bad or abs(seconds) >= _MAX:
        invalid = printable_name(bad[0][:40]) if bad else str(seconds)
        raise unsafe(name, f"invalid time {invalid!r}")


def _is_time(time: bytes) -> bool:
    return _TIME.fullmatch(time) is not None and abs(int(time.partition(b".")[0][:40])) < _MAX


def _check_device(block: bytes, name: bytes) -> None:
    """Raise UnsafeArchiveError for a device that no system has (Linux: 12 and 20 bits)."""
    if _number(block[329:337]) >> 12 or _number(block[337:345]) >> 20:
        raise unsafe(name, "invalid device number")


def _read_extension(kind: bytes, data: bytes, size: int, records: dict[bytes, bytes]) -> None:
    """Read a header in front of an entry. Raises UnsafeArchiveError for a key that occurs twice."""
    if kind in _LONG:
        pairs = [(_LONG[kind], data[: max(0, size - 1)])]
        if b"\0" in pairs[0][1] or data[len(pairs[0][1]) :].strip(b"\0") or not size:
            raise UnsafeArchiveError("a long name does not end where it says", HINT)
    else:
        pairs = _pax(data[:size])
    if kind == b"g":
        bad = [key for key, _ in pairs if key not in _HARMLESS]
        if bad:
            raise UnsafeArchiveError(f"global header sets {printable_name(bad[0])}", HINT)
        return
    plain = dict(pairs)
    if not records and len(plain) == len(pairs) and _PLAIN.issuperset(plain):
        records.update(plain)
        return
    for key, value in pairs:
        if key in (sparse.OFFSET, sparse.SIZE):
            _pair(key, value, records)
        elif key in records or key.startswith(_REFUSED):
            raise UnsafeArchiveError(f"header sets {printable_name(key)} twice or wrongly", HINT)
        else:
            records[key] = value


def without_records(header: bytes, end: int, keys: Collection[bytes]) -> bytes:
    """Return checked header blocks with other keys, which GNU tar ignores, in place of these.

    end: where the entry's own block lies
    """
    blocks = bytearray(header)
    at = 0
    while at < end:
        size = _number(bytes(blocks[at + 124 : at + 136]))
        record, at = at + BLOCK, at + BLOCK + -(-size // BLOCK) * BLOCK
        is_extended = blocks[record - BLOCK + 156] == b"x"[0]
        while is_extended and record < at and blocks[record]:
            key_at = blocks.index(b" ", record) + 1
            key = bytes(blocks[key_at : blocks.index(b"=", key_at)])
            if key in keys:
                blocks[key_at : key_at + len(key)] = b"-" * len(key)
            record += int(blocks[record : key_at - 1])
    return bytes(blocks)


def _pair(key: bytes, value: bytes, records: dict[bytes, bytes]) -> None:
    """Add half a region of a sparse file: offset and size alternate, and are kept as one list."""
    so_far = records.get(sparse.OFFSET, b"")
    if so_far.count(b",") % 2 == (key == sparse.OFFSET) or foreign.number(value) is None:
        raise UnsafeArchiveError("corrupt sparse map", HINT)
    records[sparse.OFFSET] = so_far + value + b","


def _pax(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the records of an extended header: "LENGTH KEY=VALUE\\n" (POSIX.1-2001)."""
    pairs = []
    at = 0
    while at < len(data):
        if (time := _time_record(data, at)) and int(time[1]) == time.end() - at:
            pairs.append((time[2], time[3]))  # as most records, found faster
            at = time.end()
            continue
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > at else b""
        length = None if digits[:1] == b"0" else foreign.number(digits)
        if length is None:
            raise _invalid_extension()
        end = at + length
        key, sign, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space or end > len(data) or data[end - 1] != b"\n"[0] or not sign:
            raise _invalid_extension()
        if not key or len(key) > _LONGEST_KEY or key[:1] in b" \t" or b"\0" in key:
            # GNU tar reads another one, or prints more than a line of messages may have
            raise _invalid_extension()
        if b"\n" in key and not key.startswith(_XATTR):
            raise _invalid_extension()
        pairs.append((key, value))
        at = end
    return pairs


def _invalid_extension() -> UnsafeArchiveError:
    return UnsafeArchiveError("corrupt archive: invalid extended header", CORRUPT)


def _extensions(source: BlockReader, block: bytes) -> Iterator[bytes]:
    """Yield the blocks that follow the header of a sparse file of the old GNU format.

    Raises UnsafeArchiveError for more than any file needs: they are kept until the map is judged.
    """
    more, allowed = block[482], sparse.MOST // 21
    while more:
        allowed -= 1
        if allowed < 0:
            raise UnsafeArchiveError("sparse map with too many regions", HINT)
        extension = source.block()
        yield extension
        more = extension[504]


def _member(block: bytes, records: Mapping[bytes, bytes], rules: Rules, at: int) -> Member:
    """Return the member of a header. at: bytes of headers in front; its size: what is stored"""
    name = records.get(b"GNU.sparse.name", records.get(b"path"))
    if name is None:
        name = _name(block)
    if len(name) > rules.max_name or b"\0" in name or not name:
        raise UnsafeArchiveError(f"invalid name {printable_name(name[:80])!r}", HINT)
    kind = _KINDS.get(block[156:157], "")
    stored = _pax_number(records, b"size", _number(block[124:136]), name)
    _check_kind(block, name, kind, stored)
    target = b""
    if kind in ("link", "symlink"):
        target = records.get(b"linkpath", block[157:257].partition(b"\0")[0])
        if not target or b"\0" in target:
            raise unsafe(name, "link without a target")
    _check_times(block, records, name)
    if kind == "device":
        _check_device(block, name)
    uid = _pax_number(records, b"uid", _number(block[108:116]), name)
    gid = _pax_number(records, b"gid", _number(block[116:124]), name)
    if uid > _LAST_OWNER or gid > _LAST_OWNER or stored > _MAX:
        raise unsafe(name, "invalid owner or size")
    short = name.rstrip(b"/") or b"/" * (name[:1] == b"/")
    attributes = () if _PLAIN.issuperset(records) else _attributes(records)
    mode = _number(block[100:108]) & 0o7777
    return Member(short, kind, stored, mode, uid, gid, target, "", name, attributes, at)


def _check_kind(block: bytes, name: bytes, kind: str, stored: int) -> None:
    """Raise UnsafeArchiveError for an entry that other readers take for one of another kind."""
    if not kind:
        raise unsafe(name, f"unknown entry type {block[156:157]!r}")
    if block[475] == 0 and block[487:500:12] == b"  " and block[257:263] == _USTAR:
        raise unsafe(name, "entry of the format of star")  # times in the place of a name's prefix
    if kind == "file" and name.endswith(b"/"):
        raise unsafe(name, "regular file with the name of a directory")
    if kind != "file" and stored:
        raise unsafe(name, "content in an entry that is not a regular file")


def _attributes(records: Mapping[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(one for one in records.items() if one[0].startswith(_ATTRIBUTES))


def _mapped(
    source: BlockReader,
    blocks: Sequence[bytes],
    records: Mapping[bytes, bytes],
    member: Member,
) -> tuple[bytes, int]:
    """Check the map of a sparse file; return what of it precedes the data, and the real size.

    Raises ValueError where it does not fit.
    """
    is_old = blocks[0][156:157] == b"S"
    version = sparse.version(records)
    if not version and not is_old:
        return b"", member.size
    fits = blocks[0][257:265] == _OLD_GNU if is_old else blocks[0][257:263] == _USTAR
    if (version and is_old) or member.kind != "file" or not fits:
        raise ValueError("this entry cannot be sparse")
    size = _real_size(blocks[0], records, member)
    in_front = b""
    if is_old:
        places = [(blocks[0], 386, 4), *((block, 0, 21) for block in blocks[1:])]
        regions = sparse.old(places, _number)
    elif version == "1.0":
        regions, in_front = sparse.in_data(source.block)
    else:
        regions = sparse.in_records(records, version)
    sparse.judge(regions, size, member.size - len(in_front))
    return in_front, size


def _real_size(block: bytes, records: Mapping[bytes, bytes], member: Member) -> int:
    """Return the bytes of a file with its holes. Raises UnsafeArchiveError for an invalid size."""
    size = _number(block[483:495]) if block[156:157] == b"S" else member.size
    for key in (b"GNU.sparse.size", b"GNU.sparse.realsize"):
        size = _pax_number(records, key, size, member.name)
    if size > _LARGEST:
        raise unsafe(member.name, f"invalid size of {size} bytes")
    return size


def _name(block: bytes) -> bytes:
    """Return the name in the header itself, with its prefix where the format has one."""
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == _USTAR else b""
    return prefix + b"/" + name if prefix else name


def _pax_number(records: Mapping[bytes, bytes], key: bytes, otherwise: int, name: bytes) -> int:
    """Return a number in an extended header; else that of the header itself."""
    value = records.get(key)
    if value is None:
        return otherwise
    number = foreign.number(value)
    if number is None:
        raise unsafe(name, f"invalid {printable_name(key)}: {printable_name(value[:40])!r}")
    return number
