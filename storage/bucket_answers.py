"""What the server of a bucket may answer before anything believes it; S3 and OSS share this.

These are written by those who control the server, or the way to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from storage.bucket_keys import Keys
from tools.base.errors import StoreError
from tools.flow.store import StoreEntry

LARGEST = 8 << 20  # bytes of an answer that is no object; a page of 1,000 keys has 4 MiB at most
_MOST_MARKUP = 200_000  # of `<` and `=`; a page of 1,000 versions has about 30,000
_DECLARED = re.compile(rb"(?:\xef\xbb\xbf)?<\?xml[^>]*?encoding\s*=\s*[\"'](?!utf-8[\"'])", re.I)
_LONGEST_KEY = 1024  # characters: the most that S3 and OSS allow, in bytes
_LARGEST_OBJECT = 1 << 60  # bytes
MAX_OBJECTS = 1_000_000  # of one host: each takes about 700 bytes of memory
_HINT = "Check the address of the server, and who can write to this bucket."


def is_parsable(body: bytes | bytearray) -> bool:
    """Return whether an answer may be given to a parser of XML.

    A short text becomes gigabytes there: by entities, or by elements of four bytes that take a
    hundred each. Texts in which these cannot be counted are those of no server: entities need a
    DOCTYPE, and other encodings write `<` otherwise.
    """
    if b"\0" in body or b"<!DOCTYPE" in body or _DECLARED.match(body):
        return False
    return body.count(b"<") + body.count(b"=") <= _MOST_MARKUP


def date_of(headers: Mapping[str, str]) -> datetime | None:
    """Return the time of an answer by the clock of the server, UTC; None where it does not say."""
    try:
        date = parsedate_to_datetime(headers.get("date") or headers.get("Date") or "")
        return date.astimezone(timezone.utc) if date.tzinfo else date.replace(tzinfo=timezone.utc)
    except (TypeError, ValueError, OverflowError):
        return None


class Listed:
    """The objects of one folder, as pages of a listing name them. Raises StoreError."""

    def __init__(self, store: object, keys: Keys, folder: str) -> None:
        """Begin an empty list.

        store: named in errors. folder: of the store, "" for the folder of the keys
        """
        self._store = store
        self._keys = keys
        self._prefix = keys.folder(folder) if folder else keys.prefix
        self._entries: dict[str, StoreEntry] = {}

    @property
    def prefix(self) -> str:
        """Return what the keys of the folder begin with."""
        return self._prefix

    def add(self, key: str, size: int = 0, age: float = 0.0) -> None:
        """Take an object, or a folder, unless `name` has none for it. size: bytes; age: seconds"""
        name = self.name(key)
        if name is None:
            return
        if not 0 <= size <= _LARGEST_OBJECT:
            raise StoreError(f"{self._store}: {name}: the server lists an invalid size", _HINT)
        self._entries[name] = StoreEntry(name, size, max(0.0, age))
        if len(self._entries) > MAX_OBJECTS:
            raise StoreError(f"{self._store}: more than {MAX_OBJECTS} objects in one folder", _HINT)

    def name(self, key: str) -> str | None:
        """Return the name of an object in this very folder.

        None for one in a folder below, and for a name that this program never writes.
        """
        if not key.startswith(self._prefix):
            raise StoreError(f"{self._store}: the server lists objects of another folder", _HINT)
        below = key[len(self._prefix) :]
        if not below or "/" in below or len(key) > _LONGEST_KEY:
            return None
        name = self._keys.name(key)
        return name if self._keys.of(name) == key else None

    def __iter__(self) -> Iterator[StoreEntry]:
        """Yield the objects, sorted by name."""
        yield from (self._entries[name] for name in sorted(self._entries))
