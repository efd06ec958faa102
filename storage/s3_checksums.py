"""The checksums of objects and parts, as S3 writes them."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.crc_sums import CRC32
from tools.flow.block_backend import Block, Held

_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Part:
    """A part of an upload as the server has confirmed it; its text is the tag of a block.

    etag:   as the server named it, without quotes
    crc32:  of its bytes
    proven: whether the server has compared its bytes with a checksum of ours
    """

    etag: str
    crc32: int
    size: int
    proven: bool

    @classmethod
    def of(cls, tag: str) -> Part:
        """Return the part of a tag."""
        etag, crc, size, proven = tag.rsplit(" ", 3)
        return cls(etag, int(crc, 16), int(size), proven == "+")

    def __str__(self) -> str:
        return f"{self.etag} {self.crc32:08x} {self.size} {'+' if self.proven else '-'}"


@dataclass(frozen=True)
class Expected:
    """What the server must say of an object: by each checksum, as S3 writes it.

    sha256: "" where it is not known; etag: "" where it proves nothing
    """

    size: int
    crc32: str
    sha256: str = ""
    etag: str = ""

    @classmethod
    def of_parts(cls, parts: Sequence[Part], digest: str = "") -> Expected:
        """Return what is expected of an upload. digest: its SHA-256 in hexadecimal"""
        size = sum(part.size for part in parts)
        proven = all(part.proven for part in parts)
        whole = sha256(digest) if digest else ""
        return cls(size, crc32(whole_crc32(parts)), whole, etag_of(parts) if proven else "")

    @classmethod
    def of_content(cls, content: Block, digest: str) -> Expected:
        """Return what is expected of an object of one call. digest: as above"""
        return cls(len(content), crc32(crc32_of(content)), sha256(digest), md5(content))

    @property
    def read_back(self) -> tuple[int, str]:
        """Size and CRC-32 of the bytes, for a comparison with those that are read."""
        return self.size, self.crc32

    def compared(self, answer: Mapping[str, Any]) -> Held:
        """Compare what an answer says of the whole object; UNKNOWN where that proves nothing."""
        size = answer.get("ContentLength")
        if size is not None and size != self.size:
            return Held.OTHER
        whole = answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
        pairs = (("ChecksumSHA256", self.sha256), ("ChecksumCRC32", self.crc32))
        for name, expected in pairs:
            checksum = str(answer.get(name) or "")
            if whole and checksum and expected and "-" not in checksum:
                return Held.OURS if checksum == expected else Held.OTHER
        same = bool(self.etag) and str(answer.get("ETag", "")).strip('"') == self.etag
        return Held.OURS if same else Held.UNKNOWN


def sha256(hexadecimal: str) -> str:
    """Return a SHA-256 as S3 writes it."""
    return _base64(bytes.fromhex(hexadecimal))


def crc32(value: int) -> str:
    """Return a CRC-32 as S3 writes it."""
    return _base64(value.to_bytes(4, "big"))


def md5(content: Block) -> str:
    """Return the MD5 of bytes in hexadecimal: what an ETag is where nothing is encrypted."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def content_md5(content: Block) -> str:
    """Return the value of the header Content-MD5."""
    return _base64(bytes.fromhex(md5(content)))


def is_md5(etag: str) -> bool:
    """Return whether an ETag can be an MD5."""
    return bool(_MD5.fullmatch(etag))


def etag_of(parts: Iterable[Part]) -> str:
    """Return the ETag of an upload of these parts; "" where theirs are no MD5.

    The MD5 of the MD5s, a hyphen and the number of parts.
    """
    etags = [part.etag for part in parts]
    if not all(map(is_md5, etags)):
        return ""
    return f"{md5(b''.join(map(bytes.fromhex, etags)))}-{len(etags)}"


def whole_crc32(parts: Iterable[Part]) -> int:
    """Return the CRC-32 of the bytes of all parts together, by those of each part."""
    return CRC32.whole((part.crc32, part.size) for part in parts)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii", "replace")


def crc32_of(content: Block, before: int = 0) -> int:
    """Return the CRC-32 of bytes. before: that of the bytes in front of them"""
    return zlib.crc32(content, before)
