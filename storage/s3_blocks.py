"""Objects of an S3 bucket, uploaded in parts: what a store of blocks is made of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from storage import s3_checksums
from storage.bucket_keys import MAX_PARTS, MIB, Keys
from storage.s3_checksums import Expected, Part
from storage.s3_client import Answer, Client
from storage.s3_create_only import Guard
from storage.s3_errors import DeniedError, MissingError, RangeError
from storage.s3_listing import Listing
from storage.s3_removal import Removal
from storage.s3_sender import Sender
from storage.s3_versions import Versions
from tools.base.errors import ForbiddenError, StoreError
from tools.flow.block_backend import (
    Block,
    BlockBackend,
    Held,
    PendingUpload,
    Unpublished,
    Upload,
)
from tools.flow.store import CreateOnly, StoreEntry, cut

_CHANGED = "Check the server, and the network to it: the object was not stored."


class S3Blocks:
    """The objects of one bucket below one prefix. See BlockBackend."""

    consistent = True
    max_blocks = MAX_PARTS

    def __init__(self, client: Client, block_size: int = 0) -> None:
        """Send parts of `block_size` bytes; 0 for the size in the options."""
        self.client = client
        self.block_size = block_size or client.options.part_size * MIB
        self.keys = Keys(client.options.prefix)
        self.listing = Listing(client, self.keys)
        self.removal = Removal(client, self.keys)
        self.versions = Versions(client, self.keys, self.removal)
        self._sender = Sender(client, self.keys)
        self.guard = Guard(client, self._sender, self.listing)
        self._partly_read: dict[str, str] = {}  # ETags of objects whose reading was interrupted

    def __str__(self) -> str:
        return str(self.client)

    @property
    def create_only(self) -> CreateOnly:
        """See Store."""
        return self.guard.proofs.create_only

    # --- uploading

    def create(self, name: str, content: Block, sha256: str) -> None:
        """See BlockBackend: one PutObject."""
        condition = self.guard.before_put(name)
        answer = self._sender.put(name, content, sha256, condition)
        self._require(name, Expected.of_content(content, sha256), answer)

    def begin(self, name: str) -> Upload:
        """See BlockBackend."""
        self.guard.before_upload()
        return self._sender.begin(name)

    def block(self, upload: Upload, number: int, content: Block) -> str:
        """See BlockBackend."""
        return str(self._sender.part(upload, number + 1, content))

    def complete(self, upload: Upload, tags: Sequence[str], size: int) -> None:
        """See BlockBackend."""
        parts = list(map(Part.of, tags))
        condition = self.guard.before_complete(upload.name)
        answer = self._sender.complete(upload, parts, condition)
        expected = Expected.of_parts(parts)
        if expected.size != size:
            raise StoreError(f"{self}: {upload.name}: {expected.size} bytes instead of {size}")
        self._require(upload.name, expected, answer)

    def abort(self, upload: Upload) -> None:
        """See BlockBackend."""
        try:
            of_upload = self._sender.of(upload)
            self.client.call("abort_multipart_upload", upload.name, **of_upload)
        except MissingError:
            return
        except DeniedError as error:
            raise ForbiddenError(str(error), error.hint) from error

    def try_upload(self, name: str) -> None:
        """Begin an upload, send a part and abort it. Raises ForbiddenError, StoreError."""
        upload = self._sender.begin(name)
        try:
            self._sender.part(upload, 1, b"test")
        finally:
            self.abort(upload)

    def _require(self, name: str, expected: Expected, answer: Answer) -> None:
        """Raise StoreError unless the server holds the bytes that were sent.

        By the answer to the call that has stored them, by HeadObject, else by reading them.
        """
        held = expected.compared(answer)
        if held is Held.UNKNOWN:
            held = expected.compared(self.described(name) or {})
        if held is Held.UNKNOWN:
            held = Held.OURS if self._read_back(name) == expected.read_back else Held.OTHER
        if held is not Held.OURS:
            with contextlib.suppress(StoreError, OSError):
                self.remove([name])  # it was created by this call
            raise StoreError(f"{self}: {name}: the server holds other bytes than sent", _CHANGED)

    def _read_back(self, name: str) -> tuple[int, str]:
        size, crc = 0, 0
        for chunk in self.get(name):
            size += len(chunk)
            crc = s3_checksums.crc32_of(chunk, crc)
        return size, s3_checksums.crc32(crc)

    def described(self, name: str) -> Mapping[str, Any] | None:
        """Return what HeadObject says of an object, or the listing; None where there is none."""
        mode = {} if self._sender.uses_md5 else {"ChecksumMode": "ENABLED"}
        try:
            return self.client.call("head_object", name, Key=self.keys.of(name), **mode)
        except MissingError:
            return None
        except DeniedError:  # credentials that may write and list, and not read
            entry = self.listing.entry(name)
            return entry and {"ContentLength": entry["Size"], "ETag": entry.get("ETag", "")}

    def held(self, unpublished: Unpublished) -> Held:
        """See BlockBackend."""
        stored = unpublished.stored
        answer = self.described(stored.name)
        if answer is None:
            return Held.ABSENT
        if unpublished.content is not None:
            expected = Expected.of_content(unpublished.content, stored.sha256)
        else:
            expected = Expected.of_parts(list(map(Part.of, unpublished.tags)), stored.sha256)
        return expected.compared(answer)

    # --- reading

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store. Where an earlier reading was interrupted, of the same object alone."""
        if end is not None and end <= start:
            self.client.call("head_object", name, Key=self.keys.of(name))
            return
        parameters = (
            {"IfMatch": self._partly_read[name]} if start and name in self._partly_read else {}
        )
        if start or end is not None:
            parameters["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if version := self.versions.chosen(name):
            parameters["VersionId"] = version
        try:
            answer = self.client.call("get_object", name, Key=self.keys.of(name), **parameters)
        except RangeError:
            if "Range" not in parameters:
                raise
            return
        self._partly_read[name] = str(answer.get("ETag", ""))
        chunks = self._chunks(name, answer)
        if "Range" in parameters and not answer.get("ContentRange"):
            chunks = cut(chunks, start, end)
        yield from chunks
        self._partly_read.pop(name, None)

    def _chunks(self, name: str, answer: Answer) -> Iterator[bytes]:
        with self.client.reading(answer, name) as chunks:
            yield from chunks

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        return self.listing.entries(folder)

    def folders(self) -> Iterator[str]:
        """See Store."""
        return self.listing.folders()

    def uploads(self, folder: str) -> Iterator[PendingUpload]:
        """See BlockBackend."""
        return self.listing.uploads(folder)

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        self.removal.remove(names)


if TYPE_CHECKING:
    _: type[BlockBackend] = S3Blocks
