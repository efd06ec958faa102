"""Objects of a bucket of Aliyun OSS, uploaded in parts: what a store of blocks is made of."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage import crc64, oss_client
from storage.bucket_keys import MAX_PARTS, Keys, is_record
from storage.crc_sums import CRC64
from storage.oss_client import Body, Client
from storage.oss_create_only import Guard
from storage.oss_errors import BeyondError, DeniedError, MissingError
from storage.oss_listing import Listing
from storage.oss_removal import Removal
from tools.base import foreign
from tools.base.errors import ForbiddenError, StoreError, TransientError
from tools.base.log import logger
from tools.flow import store
from tools.flow.block_backend import Block, BlockBackend, Held, PendingUpload, Unpublished, Upload
from tools.flow.store import CreateOnly, StoreEntry

_OCTETS = {"Content-Type": "application/octet-stream"}
_PARTIAL = 206
_UNKNOWN = "-"


@dataclass(frozen=True)
class Part:
    """A part of an upload as the server has confirmed it; its text is the tag of a block.

    crc: of its bytes; None where neither this machine nor the server computes it
    """

    etag: str
    crc: int | None
    size: int

    @classmethod
    def of(cls, tag: str) -> Part:
        """Return the part of a tag."""
        etag, crc, size = tag.rsplit(" ", 2)
        return cls(etag, None if crc == _UNKNOWN else int(crc, 16), int(size))

    def __str__(self) -> str:
        return f"{self.etag} {_UNKNOWN if self.crc is None else f'{self.crc:016x}'} {self.size}"


class OssBlocks:
    """The objects of one bucket below one prefix. See BlockBackend.

    Each part is compared with the server's CRC-64 of it. Where no compiled library computes
    that here, the server compares an MD5 before it accepts the part. Each object is compared
    with the CRC-64 of all its parts.
    """

    consistent = True
    max_blocks = MAX_PARTS

    def __init__(
        self, client: Client, *, prefix: str, block_size: int, storage_class: str = ""
    ) -> None:
        """Use the folder `prefix` of the bucket.

        storage_class: of parts; records are Standard
        """
        self._client = client
        self._class = storage_class
        self.block_size = block_size
        self._keys = Keys(prefix)
        self._listing = Listing(client, self._keys)
        self.removal = Removal(client, self._keys)
        self.guard = Guard(client, self._keys, self._listing)
        self._partly_read: dict[str, str] = {}  # ETags of objects whose reading was interrupted
        self._crc = crc64.compiled()
        if self._crc is None:
            logger.info("%s: crcmod has no C extension: MD5 is used for each part", client)

    def __str__(self) -> str:
        return str(self._client)

    @property
    def create_only(self) -> CreateOnly:
        """See Store."""
        return self.guard.proofs.create_only

    # --- publishing

    def create(self, name: str, content: Block, sha256: str) -> None:
        """See BlockBackend: one PutObject, which the server compares with its MD5."""
        del sha256  # no checksum that OSS knows
        headers = {
            **self._facts(name),
            **self.guard.before_put(name),
            "Content-MD5": _content_md5(content),
        }
        key = self._keys.of(name)
        answer = self._client.call(
            "PutObject", name, lambda bucket: bucket.put_object(key, Body(content), headers)
        )
        if not answer.etag:  # a login page answers 200 to everything
            raise TransientError(
                f"{self}: {name}: PutObject: the answer has no ETag",
                "Check ENDPOINT, and whether a proxy answers instead of the server.",
            )
        crc = self._crc(content) if self._crc else None
        if None not in (crc, answer.crc) and crc != answer.crc:
            raise self._withdrawn(name, answer.versionid)

    def _facts(self, name: str) -> dict[str, str]:
        """Return what the options say of a new object."""
        stored = "" if is_record(name) else self._class
        return {**_OCTETS, "x-oss-storage-class": stored} if stored else dict(_OCTETS)

    def begin(self, name: str) -> Upload:
        """See BlockBackend."""
        self.guard.before_upload()
        key = self._keys.of(name)
        return Upload(name, self.guard.begin(name, key, self._facts(name)))

    def block(self, upload: Upload, number: int, content: Block) -> str:
        """See BlockBackend."""
        key = self._keys.of(upload.name)
        crc = self._crc(content) if self._crc else None
        headers = {} if crc is not None else {"Content-MD5": _content_md5(content)}

        def send(bucket: Any) -> Any:  # noqa: ANN401  (of oss2)
            body = Body(content)
            return bucket.upload_part(key, upload.id, number + 1, body, headers=headers)

        answer = self._client.call("UploadPart", upload.name, send)
        if not _is_confirmed(answer, crc, content):
            raise TransientError(
                f"{self}: {upload.name}: the server holds other bytes than were sent "
                f"(part {number + 1})"
            )
        return str(Part(answer.etag, answer.crc if crc is None else crc, len(content)))

    def complete(self, upload: Upload, tags: Sequence[str], size: int) -> None:
        """See BlockBackend."""
        parts = list(map(Part.of, tags))
        headers = self.guard.before_complete(upload.name)
        listed = [oss_client.part(number, part.etag) for number, part in enumerate(parts, 1)]
        key = self._keys.of(upload.name)
        answer = self._client.call(
            "CompleteMultipartUpload",
            upload.name,
            lambda bucket: bucket.complete_multipart_upload(key, upload.id, listed, headers),
        )
        held_size, held_crc = size, answer.crc
        with contextlib.suppress(DeniedError):  # with the right to write alone
            held_size, held_crc = self._held(upload.name)
        expected = whole_crc(parts)
        if held_size != size or (None not in (expected, held_crc) and expected != held_crc):
            raise self._withdrawn(upload.name, answer.versionid)

    def _held(self, name: str) -> tuple[int, int | None]:
        """Return the size and the CRC-64 of an object. Raises MissingError, DeniedError."""
        key = self._keys.of(name)
        answer = self._client.call("HeadObject", name, lambda bucket: bucket.head_object(key))
        return int(answer.content_length or 0), answer.server_crc

    def held(self, unpublished: Unpublished) -> Held:
        """See BlockBackend: by size and CRC-64."""
        stored = unpublished.stored
        try:
            size, crc = self._held(stored.name)
        except MissingError:
            return Held.ABSENT
        except DeniedError:  # who may not read: equal content cannot be told
            return Held.UNKNOWN if self._listing.has(stored.name) else Held.ABSENT
        expected = self._expected(unpublished)
        if size == stored.size and None in (crc, expected):
            return Held.UNKNOWN
        return Held.OURS if (size, crc) == (stored.size, expected) else Held.OTHER

    def _expected(self, unpublished: Unpublished) -> int | None:
        """Return the CRC-64 of an object; None where it was not computed."""
        if unpublished.content is None:
            return whole_crc(list(map(Part.of, unpublished.tags)))
        return self._crc(unpublished.content) if self._crc else None

    def _withdrawn(self, name: str, version: str | None) -> StoreError:
        """Remove what was just created with wrong content; return the error that says so."""
        key = self._keys.of(name)
        params = {"versionId": version} if version else None
        message = f"{self}: {name}: the server holds other bytes than were sent (CRC-64)"
        try:
            self._client.call(
                "DeleteObject", name, lambda bucket: bucket.delete_object(key, params)
            )
        except (StoreError, OSError) as error:
            return StoreError(f"{message}, and the object could not be removed: {error}")
        return StoreError(message, "The object was removed again. Run the backup again.")

    def try_upload(self, name: str) -> None:
        """Begin an upload, send a part and abort it. Raises ForbiddenError, StoreError."""
        upload = Upload(name, self.guard.begin(name, self._keys.of(name), self._facts(name)))
        try:
            self.block(upload, 0, b"test")
        finally:
            self.abort(upload)

    def abort(self, upload: Upload) -> None:
        """See BlockBackend."""
        key = self._keys.of(upload.name)
        try:
            self._client.call(
                "AbortMultipartUpload",
                upload.name,
                lambda bucket: bucket.abort_multipart_upload(key, upload.id),
            )
        except MissingError:
            return
        except DeniedError as error:
            raise ForbiddenError(str(error), error.hint) from error

    # --- reading

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store. Where an earlier reading was interrupted, of the same object alone."""
        if end is not None and start >= end:
            self._held(name)  # raises where there is none
            return
        ranged = start > 0 or end is not None
        try:
            answer = self._get_object(name, start, end, ranged=ranged)
        except BeyondError:
            return
        self._partly_read[name] = str(answer.headers.get("ETag", ""))
        chunks = self._chunks(name, answer)
        if ranged and answer.status != _PARTIAL:
            chunks = store.cut(chunks, start, end)
        yield from chunks
        self._partly_read.pop(name, None)

    def _get_object(self, name: str, start: int, end: int | None, *, ranged: bool) -> Any:  # noqa: ANN401  (of oss2)
        """Return the answer with the content. Raises BeyondError for a range beyond the end."""
        key = self._keys.of(name)
        byte_range = (start, None if end is None else end - 1) if ranged else None
        # Without this header OSS answers a range beyond the end with the whole object.
        headers = {"x-oss-range-behavior": "standard"} if ranged else {}
        if start and self._partly_read.get(name):
            headers["If-Match"] = self._partly_read[name]
        return self._client.call(
            "GetObject", name, lambda bucket: bucket.get_object(key, byte_range, headers)
        )

    def _chunks(self, name: str, answer: Any) -> Iterator[bytes]:  # noqa: ANN401  (of oss2)
        """Yield the content. Raises TransientError where it is shorter than announced.

        An answer that announces nothing was cut in its headers.
        """
        announced = foreign.number(str(answer.headers.get("Content-Length", "")))
        received = 0
        translating = self._client.translating(self._client.connection, "GetObject", name)
        with contextlib.closing(answer.resp), translating:
            for chunk in answer.resp:
                received += len(chunk)
                yield chunk
        if received != announced and "Transfer-Encoding" not in answer.headers:
            raise TransientError(f"{self}: {name}: the answer ended after {received} bytes")

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        return self._listing.entries(folder)

    def folders(self) -> Iterator[str]:
        """See Store."""
        return self._listing.folders()

    def uploads(self, folder: str) -> Iterator[PendingUpload]:
        """See BlockBackend."""
        return self._listing.uploads(folder)

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        self.removal.remove(names)


def whole_crc(parts: Sequence[Part]) -> int | None:
    """Return the CRC-64 of an object of these parts; None where one of them has none."""
    crcs = [(part.crc, part.size) for part in parts if part.crc is not None]
    return CRC64.whole(crcs) if len(crcs) == len(parts) else None


def _md5(content: Block) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def _content_md5(content: Block) -> str:
    """Return the value of the header Content-MD5."""
    return base64.b64encode(_md5(content)).decode("ascii", "strict")


def _is_confirmed(answer: Any, crc: int | None, content: Block) -> bool:  # noqa: ANN401  (of oss2)
    """Return whether the server holds these bytes, by its CRC-64, else by its MD5."""
    if None not in (crc, answer.crc):
        return bool(crc == answer.crc)
    return str(answer.etag).lower() == _md5(content).hex()


if TYPE_CHECKING:
    _: type[BlockBackend] = OssBlocks
