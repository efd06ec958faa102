"""The versions that a bucket of Aliyun OSS keeps, for the test server.

Source: "Versioning", ListObjectVersions and DeleteMultipleObjects in the API reference of OSS.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from urllib.parse import quote
from xml.sax.saxutils import escape


@dataclass(frozen=True)
class Version:
    """A version of a key. size: of its content; None for a delete marker"""

    key: str
    size: int | None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def xml(self) -> str:
        """How a listing names it."""
        about = f"<Key>{quote(self.key)}</Key><VersionId>{escape(self.id)}</VersionId>"
        about += "<IsLatest>true</IsLatest><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        about += "<Owner><ID>1</ID><DisplayName>1</DisplayName></Owner>"
        if self.size is None:
            return f"<DeleteMarker>{about}</DeleteMarker>"
        properties = (
            f"<Type>Normal</Type><StorageClass>Standard</StorageClass><Size>{self.size}</Size>"
        )
        return f'<Version>{about}{properties}<ETag>"x"</ETag></Version>'


class Versions:
    """All versions of a bucket, the oldest first."""

    def __init__(self) -> None:
        self.entries: list[Version] = []

    def page(self, prefix: str, after: str, most: int) -> str:
        """Return the XML of a page of a listing. after: the ID of the last version before it"""
        ours = [one for one in reversed(self.entries) if one.key.startswith(prefix)]
        ours.sort(key=lambda one: one.key)
        ids = [one.id for one in ours]
        remaining = ours[ids.index(after) + 1 if after in ids else 0 :]
        page = remaining[:most]
        ends = f"<IsTruncated>{str(len(page) < len(remaining)).lower()}</IsTruncated>"
        if page:
            ends += f"<NextKeyMarker>{quote(page[-1].key)}</NextKeyMarker>"
            ends += f"<NextVersionIdMarker>{page[-1].id}</NextVersionIdMarker>"
        names = "".join(f"<{one}></{one}>" for one in ("Prefix", "KeyMarker", "VersionIdMarker"))
        about = f"<Name>b</Name>{names}<Delimiter></Delimiter><MaxKeys>{most}</MaxKeys>"
        elements = "".join(one.xml for one in page)
        return f"<EncodingType>url</EncodingType>{about}{ends}{elements}"

    def drop(self, key: str, version: str) -> bool:
        """Remove a version; return whether no content of the key is left, or it was another one."""
        is_known = any((one.key, one.id) == (key, version) for one in self.entries)
        self.entries = [one for one in self.entries if (one.key, one.id) != (key, version)]
        return not is_known or not any(
            one.key == key and one.size is not None for one in self.entries
        )
