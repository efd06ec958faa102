"""The archive of mongodump, looked at while it passes: is every collection in it to its end?

Format (MongoDB tools, common/archive): a magic number; BSON documents, first one of the archive
itself, then one for each collection; a terminator. Then blocks: a BSON document that names a
collection (`db`, `collection`, `EOF`, `CRC`), its documents, a terminator. The last block of a
collection says EOF.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tools.base.errors import SourceError
from tools.flow.stream import Chunks

_MAGIC = b"\x6d\xe2\x99\x81"
_END = 0xFFFFFFFF  # the terminator, where else the length of a document stands
_LEAST, _MOST = 5, 48 << 20  # bytes of a document; mongodump's own limit is 16 MiB and a little
_LENGTH = struct.Struct("<I")
_FIXED = {0x01: 8, 0x08: 1, 0x09: 8, 0x10: 4, 0x11: 8, 0x12: 8, 0x0A: 0}  # BSON: bytes of a value
_TEXT = 0x02
_DATA = ("", "collection")  # types of collections that have documents of their own


class Archive:
    """What has passed so far."""

    def __init__(self) -> None:
        self.documents = 0
        self.collections: dict[tuple[str, str], str] = {}  # (database, name): its type
        self._ended: set[tuple[str, str]] = set()
        self._begun: set[tuple[str, str]] = set()
        self._left = b""
        self._skip = 0  # bytes of a document that are still to come
        self._expects = "magic"

    @property
    def databases(self) -> tuple[str, ...]:
        """The databases that have a collection in it."""
        return tuple(sorted({database for database, _ in self.collections if database}))

    @property
    def time_series(self) -> tuple[str, ...]:
        """The time series collections (`shop.temperatures`)."""
        return tuple(sorted(".".join(n) for n, t in self.collections.items() if t == "timeseries"))

    def take(self, chunk: bytes) -> None:
        """The next bytes. Raises SourceError for what cannot be an archive."""
        if self._skip >= len(chunk):
            self._skip -= len(chunk)
            return
        data = self._left + chunk[self._skip :]
        self._skip, at = 0, 0
        if self._expects == "magic":
            if len(data) < len(_MAGIC):
                self._left = data
                return
            if not data.startswith(_MAGIC):
                raise SourceError(
                    "not a mongodump archive",
                    "Set MONGODUMP_BIN to the mongodump of the MongoDB Database Tools.",
                )
            at, self._expects = len(_MAGIC), "head"
        self._left = data[self._walk(data, at) :]

    def _walk(self, data: bytes, at: int) -> int:
        """Go from document to document; gives where the rest begins."""
        size = len(data)
        while at + 4 <= size:
            (length,) = _LENGTH.unpack_from(data, at)
            if length == _END:
                at += 4
                self._expects = "block"
                continue
            if not _LEAST <= length <= _MOST:
                raise SourceError("corrupt mongodump archive", "Run the backup again.")
            if self._expects == "documents":
                self.documents += 1
                at += length
                if at > size:
                    self._skip = at - size
                    return size
                continue
            if at + length > size:
                break
            self._document(fields(data[at : at + length]))
            at += length
        return at

    def _document(self, found: dict[str, str | bytes]) -> None:
        """One that describes: the archive, a collection, or the block that follows."""
        if self._expects == "head":
            self._expects = "collections"
            return
        name = (str(found.get("db", "")), str(found.get("collection", "")))
        if self._expects == "collections":
            self.collections[name] = str(found.get("type", ""))
            return
        self._begun.add(name)
        if found.get("EOF") == b"\1":
            self._ended.add(name)
        self._expects = "documents"

    def judge(self) -> None:
        """After the last byte. Raises SourceError where something of it is missing."""
        wanted = {name for name, kind in self.collections.items() if kind in _DATA}
        missing = (wanted | self._begun) - self._ended
        if self._expects != "block" or self._left or self._skip or missing:
            names = ", ".join(".".join(name) for name in sorted(missing)[:3])
            where = f" in {names}" if names else ""
            raise SourceError(
                f"mongodump archive: unexpected end of file{where}",
                "Run the backup again; mongodump exited with 0 but wrote an incomplete archive.",
            )


def fields(document: bytes) -> dict[str, str | bytes]:
    """The fields of a flat BSON document (bsonspec.org): texts, and others as their bytes."""
    found: dict[str, str | bytes] = {}
    at = 4
    try:
        while kind := document[at]:
            end = document.index(0, at + 1)
            name = document[at + 1 : end].decode()
            at = end + 1
            if kind == _TEXT:
                (length,) = _LENGTH.unpack_from(document, at)
                found[name] = document[at + 4 : at + 3 + length].decode()
                at += 4 + length
            else:
                found[name] = document[at : at + _FIXED[kind]]
                at += _FIXED[kind]
    except (KeyError, IndexError, ValueError, struct.error):
        raise SourceError("corrupt mongodump archive", "Run the backup again.") from None
    return found


def whole(chunks: Chunks, archive: Archive) -> Iterator[bytes]:
    """A stage that changes nothing: raises SourceError where the archive is not whole."""
    for chunk in chunks:
        archive.take(chunk)
        yield chunk
    archive.judge()
