"""Check that an archive of mongodump is complete, while it is read.

Format (MongoDB tools, common/archive): a magic number; BSON documents, first one of the archive
itself, then one for each collection; a terminator. Then blocks: a BSON document that names a
collection (`db`, `collection`, `EOF`, `CRC`), its documents, a terminator. The last block of a
collection says EOF.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterator

from tools.base.errors import SourceError, StoreError
from tools.flow.stream import Chunks

_MAGIC = b"\x6d\xe2\x99\x81"
_END = 0xFFFFFFFF  # the terminator, where else the length of a document stands
_LEAST, _MOST = 5, 48 << 20  # bytes of a document; the limit of mongodump is just above 16 MiB
_LENGTH = struct.Struct("<I")
_FIXED = {0x01: 8, 0x08: 1, 0x09: 8, 0x10: 4, 0x11: 8, 0x12: 8, 0x0A: 0}  # BSON: bytes of a value
_TEXT = 0x02
_OPLOG = ("", "oplog")
_INVALID = re.compile(r'[/\\. "$\0]|^$')  # in names of databases (MongoDB manual, limits)
_DATA = ("", "collection")  # types of collections that have documents of their own


class ArchiveChecker:
    """Parses an archive and counts its collections and documents."""

    def __init__(self) -> None:
        self.documents = 0
        self.collections: dict[tuple[str, str], str] = {}  # (database, name): its type
        self._finished: set[tuple[str, str]] = set()
        self._started: set[tuple[str, str]] = set()
        self._remaining = b""
        self._skip = 0  # remaining bytes of a document
        self._expects = "magic"

    @property
    def databases(self) -> tuple[str, ...]:
        """Return the databases that have a collection in the archive."""
        return tuple(sorted({database for database, _ in self.collections if database}))

    @property
    def time_series(self) -> tuple[str, ...]:
        """Return the time series collections (`shop.temperatures`)."""
        return tuple(sorted(".".join(n) for n, t in self.collections.items() if t == "timeseries"))

    def add_chunk(self, chunk: bytes) -> None:
        """Parse the next bytes. Raises SourceError if they are not part of an archive."""
        if self._skip >= len(chunk):
            self._skip -= len(chunk)
            return
        data = self._remaining + chunk[self._skip :]
        self._skip, at = 0, 0
        if self._expects == "magic":
            if len(data) < len(_MAGIC):
                self._remaining = data
                return
            if not data.startswith(_MAGIC):
                raise SourceError(
                    "not a mongodump archive",
                    "Set MONGODUMP_BIN to the mongodump of the MongoDB Database Tools.",
                )
            at, self._expects = len(_MAGIC), "head"
        self._remaining = data[self._walk(data, at) :]

    def _walk(self, data: bytes, at: int) -> int:
        """Parse complete documents; return the offset of the rest."""
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

    def _document(self, fields: dict[str, str | bytes]) -> None:
        """Parse a header: of the archive, of a collection, or of the next block."""
        if self._expects == "head":
            self._expects = "collections"
            return
        name = (str(fields.get("db", "")), str(fields.get("collection", "")))
        if self._expects == "collections":
            self.collections[name] = str(fields.get("type", ""))
            return
        self._started.add(name)
        if fields.get("EOF") == b"\1":
            self._finished.add(name)
        self._expects = "documents"

    def check_databases(self, expected: Collection[str]) -> None:
        """Raise StoreError for a collection outside of these databases, or with an invalid name."""
        for name in sorted({*self.collections, *self._started} - {_OPLOG}):
            database, collection = name
            invalid = _INVALID.search(database) or "\0" in collection or not collection
            if invalid or database not in expected:
                names = ", ".join(map(repr, sorted(expected)))
                raise StoreError(
                    f"the archive contains {'.'.join(name)!r}, which is outside of the databases "
                    f"that were backed up ({names})",
                    "Nothing was sent to the server. Restore an earlier run.",
                )

    def raise_if_incomplete(self) -> None:
        """Raise SourceError if the archive is incomplete. Call it after the last byte."""
        collections = {name for name, kind in self.collections.items() if kind in _DATA}
        missing = (collections | self._started) - self._finished
        if self._expects != "block" or self._remaining or self._skip or missing:
            names = ", ".join(".".join(name) for name in sorted(missing)[:3])
            where = f" in {names}" if names else ""
            raise SourceError(
                f"mongodump archive: unexpected end of file{where}",
                "Run the backup again; mongodump exited with 0 but wrote an incomplete archive.",
            )


def pattern(name: str) -> str:
    """Return the namespaces of a database for --nsInclude, --nsFrom and --nsTo of mongorestore."""
    return re.sub(r"([\\*$])", r"\\\1", name) + ".*"


def fields(document: bytes) -> dict[str, str | bytes]:
    """Return the fields of a flat BSON document (bsonspec.org): strings, others as bytes."""
    values: dict[str, str | bytes] = {}
    at = 4
    try:
        while kind := document[at]:
            end = document.index(0, at + 1)
            name = document[at + 1 : end].decode()
            at = end + 1
            if kind == _TEXT:
                (length,) = _LENGTH.unpack_from(document, at)
                values[name] = document[at + 4 : at + 3 + length].decode()
                at += 4 + length
            else:
                values[name] = document[at : at + _FIXED[kind]]
                at += _FIXED[kind]
    except (KeyError, IndexError, ValueError, struct.error):
        raise SourceError("corrupt mongodump archive", "Run the backup again.") from None
    return values


def check_complete(chunks: Chunks, archive: ArchiveChecker) -> Iterator[bytes]:
    """Pass an archive on unchanged. Raises SourceError at its end if it is incomplete."""
    for chunk in chunks:
        archive.add_chunk(chunk)
        yield chunk
    archive.raise_if_incomplete()
