"""The calls that send bytes to S3, each with a checksum that the server knows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone

from storage import s3_checksums
from storage.bucket_keys import Keys, is_passing, is_record
from storage.s3_checksums import Part
from storage.s3_client import Answer, Client
from storage.s3_errors import ChecksumRefusedError
from storage.s3_options import ChecksumMode
from tools.base import log
from tools.base.errors import TransientError
from tools.flow.block_backend import Block, Upload

_PIECE = 256 << 10  # bytes that are sent at a time
Condition = dict[str, str]  # {"IfNoneMatch": "*"}, or nothing
_PROXY_HINT = "Check ENDPOINT_URL, and whether a proxy answers instead of the server."


class Body:
    """Bytes as botocore reads them: in large pieces that are never copied.

    It would wrap them in a file that is read 16 KiB at a time, and copy a bytearray for that. As
    one piece they would have to be sent within READ_TIMEOUT.
    """

    def __init__(self, content: Block) -> None:
        self._view = memoryview(content)
        self._at = 0

    def __len__(self) -> int:
        return len(self._view)

    def read(self, size: int = -1) -> memoryview:
        """Return the next bytes: more than asked for, or all where nothing is asked for."""
        end = len(self) if size < 0 else self._at + max(size, _PIECE)
        piece = self._view[self._at : end]
        self._at += len(piece)
        return piece

    def tell(self) -> int:
        """Return how many bytes have been read."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to another place. whence: as of files"""
        self._at = offset + (0, self._at, len(self))[whence]
        return self._at


class Sender:
    """Sends objects and parts. What the server knows of checksums is learnt from its answers.

    A body is never chunked: each call has a Content-Length and a checksum that was computed
    before it. Servers that refuse both SHA-256 and CRC32 get Content-MD5.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._lock = threading.Lock()
        self._md5 = client.options.checksum_mode is ChecksumMode.WHEN_REQUIRED

    @property
    def uses_md5(self) -> bool:
        """Return whether Content-MD5 is sent instead of SHA-256 and CRC32."""
        return self._md5

    def put(self, name: str, content: Block, sha256: str, condition: Condition) -> Answer:
        """Send one whole object."""

        def send() -> Answer:
            proof = self._proof("ChecksumSHA256", s3_checksums.sha256(sha256), content)
            facts = {**self._facts(name), **proof, **condition}
            return self._call(
                "put_object", name, Key=self._keys.of(name), Body=Body(content), **facts
            )

        return _confirmed(self._checked(send), name, "PutObject")

    def begin(self, name: str) -> Upload:
        """Begin an upload in parts."""

        def send() -> Answer:
            proof = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
            facts = {**self._facts(name), **({} if self._md5 else proof)}
            return self._call("create_multipart_upload", name, Key=self._keys.of(name), **facts)

        answer = _confirmed(self._checked(send), name, "CreateMultipartUpload", "UploadId")
        return Upload(name, str(answer["UploadId"]))

    def part(self, upload: Upload, number: int, content: Block) -> Part:
        """Send one part, numbered from 1."""
        crc = s3_checksums.crc32_of(content)
        expected = s3_checksums.crc32(crc)

        def send() -> Answer:
            return self._call(
                "upload_part",
                upload.name,
                PartNumber=number,
                Body=Body(content),
                **self.of(upload),
                **self._proof("ChecksumCRC32", expected, content),
            )

        answer = _confirmed(self._checked(send), upload.name, "UploadPart")
        returned = answer.get("ChecksumCRC32")
        if returned and returned != expected:
            raise TransientError(
                f"{self._client}: {upload.name}: part {number}: the server holds other bytes "
                "than were sent"
            )
        etag = str(answer["ETag"]).strip('"')
        proven = bool(returned) or etag == s3_checksums.md5(content)
        return Part(etag, crc, len(content), proven)

    def complete(self, upload: Upload, parts: Sequence[Part], condition: Condition) -> Answer:
        """Make an upload visible."""
        listed: list[dict[str, object]] = []
        for number, part in enumerate(parts, 1):
            crc = {} if self._md5 else {"ChecksumCRC32": s3_checksums.crc32(part.crc32)}
            listed.append({"PartNumber": number, "ETag": f'"{part.etag}"', **crc})
        proof: dict[str, object] = {
            "ChecksumCRC32": s3_checksums.crc32(s3_checksums.whole_crc32(parts)),
            "ChecksumType": "FULL_OBJECT",
            "MpuObjectSize": sum(part.size for part in parts),
        }
        answer = self._call(
            "complete_multipart_upload",
            upload.name,
            MultipartUpload={"Parts": listed},
            **self.of(upload),
            **({} if self._md5 else proof),
            **condition,
        )
        return _confirmed(answer, upload.name, "CompleteMultipartUpload")

    def of(self, upload: Upload) -> dict[str, str]:
        """Return the parameters of a call that belongs to an upload."""
        return {"Key": self._keys.of(upload.name), "UploadId": upload.id}

    def _call(self, operation: str, name: str, **parameters: object) -> Answer:
        return self._client.call(operation, name, **parameters)

    def _proof(self, kind: str, value: str, content: Block) -> dict[str, str]:
        return {"ContentMD5": s3_checksums.content_md5(content)} if self._md5 else {kind: value}

    def _facts(self, name: str) -> dict[str, object]:
        """Return what the options say of a new object."""
        options = self._client.options
        facts: dict[str, object] = {
            "StorageClass": "" if is_record(name) else options.storage_class,
            "ServerSideEncryption": options.sse,
            "SSEKMSKeyId": options.kms_key,
            "Tagging": options.tagging,
        }
        if options.object_lock_days and not is_passing(name):
            facts["ObjectLockMode"] = options.object_lock_mode
            until = datetime.now(timezone.utc) + timedelta(days=options.object_lock_days)
            facts["ObjectLockRetainUntilDate"] = until
        return {key: value for key, value in facts.items() if value}

    def _checked(self, send: Callable[[], Answer]) -> Answer:
        """Return the answer to a call; where its checksum is refused, send it with another."""
        is_last = self._md5 or self._client.options.checksum_mode is not ChecksumMode.AUTO
        try:
            return send()
        except ChecksumRefusedError as error:
            if is_last:
                raise
            self._use_md5(error)
        return send()

    def _use_md5(self, error: ChecksumRefusedError) -> None:
        with self._lock:
            if not self._md5:
                log.always(
                    "%s; Content-MD5 is sent from now on, as with CHECKSUM_MODE when_required",
                    error,
                )
            self._md5 = True


def _confirmed(answer: Answer, name: str, operation: str, key: str = "ETag") -> Answer:
    """Return an answer that is one of S3. A page of a proxy is none, whatever its status."""
    if not answer.get(key):
        raise TransientError(f"{name}: {operation}: the answer has no {key}", _PROXY_HINT)
    return answer
