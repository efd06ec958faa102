"""What a bucket of Aliyun OSS does, for the test server: it rejects what the service rejects.

Sources: the API reference of OSS at help.aliyun.com (PutObject, GetObject, ListObjectsV2,
DeleteMultipleObjects, InitiateMultipartUpload, UploadPart, CompleteMultipartUpload,
ListMultipartUploads, ListParts, GetBucketVersioning, "Error codes", "Range behaviour").
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

from storage import crc64
from tests import oss_xml
from tests.oss_versions import Version, Versions

MIN_PART = 100 << 10  # bytes of every part but the last
_MOST_PARTS, _MOST_LISTED, _LONGEST_KEY = 10_000, 1_000, 1_023


@dataclass
class Request:
    """One request. path: bucket and key are decoded already; body: read by the server."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def operation(self) -> str:
        """The operation as the API reference calls it."""
        on = "object" if self.key else "bucket"
        subresources = [one for one in _SUBRESOURCES if one in self.query]
        return _OPERATIONS.get((self.method, on, *subresources), "unknown")


_SUBRESOURCES = ("uploads", "uploadId", "delete", "versioning", "versions", "lifecycle", "worm")
_OPERATIONS = {
    ("PUT", "object"): "PutObject",
    ("GET", "object"): "GetObject",
    ("HEAD", "object"): "HeadObject",
    ("DELETE", "object"): "DeleteObject",
    ("POST", "object", "uploads"): "InitiateMultipartUpload",
    ("PUT", "object", "uploadId"): "UploadPart",
    ("POST", "object", "uploadId"): "CompleteMultipartUpload",
    ("DELETE", "object", "uploadId"): "AbortMultipartUpload",
    ("GET", "object", "uploadId"): "ListParts",
    ("GET", "bucket"): "ListObjectsV2",
    ("GET", "bucket", "uploads"): "ListMultipartUploads",
    ("GET", "bucket", "versions"): "ListObjectVersions",
    ("GET", "bucket", "worm"): "GetBucketWorm",
    ("GET", "bucket", "versioning"): "GetBucketVersioning",
    ("GET", "bucket", "lifecycle"): "GetBucketLifecycle",
    ("POST", "bucket", "delete"): "DeleteMultipleObjects",
}


@dataclass
class Answer:
    """An answer. cut: after so many bytes of its body the connection is reset."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


def error(status: int, code: str, message: str = "", **more: str) -> Answer:
    """Return an error as the service writes it."""
    fields = {"Code": code, "Message": message, "RequestId": uuid.uuid4().hex, **more}
    xml = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in fields.items())
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error>{xml}</Error>'
    return Answer(status, text.encode(), {"Content-Type": "application/xml"})


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.answer = error(status, code, message)


@dataclass
class Object:
    """An object of the bucket."""

    content: bytes
    kind: str = "Normal"
    storage_class: str = "Standard"
    modified: float = field(default_factory=time.time)

    @property
    def headers(self) -> dict[str, str]:
        """What the service says of an object beside its content."""
        return {
            "ETag": f'"{md5(self.content)}"',
            "x-oss-hash-crc64ecma": str(_crc64(self.content)),
            "x-oss-object-type": self.kind,
            "x-oss-storage-class": self.storage_class,
        }


@dataclass
class Upload:
    """An upload that has begun."""

    key: str
    storage_class: str
    began: float = field(default_factory=time.time)
    parts: dict[int, bytes] = field(default_factory=dict)


def md5(content: bytes) -> str:
    """Return what the ETag of these bytes is."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest().upper()


def _crc64(content: bytes) -> int:
    function = crc64.compiled()
    assert function is not None, "pip install crcmod-plus"
    return function(content)


def _xml(root: str, content: str) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?><{root}>{content}</{root}>'
    return Answer(200, text.encode(), {"Content-Type": "application/xml"})


class Bucket:
    """The state of one bucket. versioning: "", Enabled or Suspended; page: most of one listing."""

    def __init__(self, min_part: int = MIN_PART, page: int = _MOST_LISTED) -> None:
        self.objects: dict[str, Object] = {}
        self.uploads: dict[str, Upload] = {}
        self.versions = Versions()
        self.versioning = ""
        self.worm = ""  # state of the retention policy
        self.rules = ""  # of the lifecycle, in XML
        self.min_part = min_part
        self.page = page
        self.lock = threading.Lock()

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request that was signed properly."""
        try:
            with self.lock:
                return self._answer(request)
        except _RefusedError as refused:
            return refused.answer

    def _answer(self, request: Request) -> Answer:
        digest = request.headers.get("Content-MD5")
        if digest and base64.b64decode(digest).hex().upper() != md5(request.body):
            raise _RefusedError(400, "InvalidDigest")
        key = request.key
        if len(key.encode()) > _LONGEST_KEY or key.startswith(("/", "\\")):
            raise _RefusedError(400, "InvalidObjectName")
        method = getattr(self, f"_{request.operation}", None)
        if method is None:
            raise _RefusedError(405, "MethodNotAllowed")
        answer = method(request)
        assert isinstance(answer, Answer)
        return answer

    def _forbid_overwrite(self, request: Request) -> None:
        """Without effect where versioning is or was enabled, as the reference says."""
        forbidden = request.headers.get("x-oss-forbid-overwrite") == "true"
        if forbidden and not self.versioning and request.key in self.objects:
            raise _RefusedError(
                409, "FileAlreadyExists", "The object you specified already exists."
            )

    def _put(self, key: str, stored: Object) -> Answer:
        self.objects[key] = stored
        version = {"id": "null"} if not self.versioning else {}
        self.versions.entries.append(Version(key, len(stored.content), **version))
        return Answer(200, b"", stored.headers)

    def _PutObject(self, request: Request) -> Answer:  # noqa: N802  (as the API names it)
        self._forbid_overwrite(request)
        stored = request.headers.get("x-oss-storage-class", "Standard")
        return self._put(request.key, Object(request.body, storage_class=stored))

    def _object(self, request: Request) -> Object:
        if request.key not in self.objects:
            raise _RefusedError(404, "NoSuchKey", "The specified key does not exist.")
        return self.objects[request.key]

    def _HeadObject(self, request: Request) -> Answer:  # noqa: N802  (as above)
        newest = next((one for one in self.versions.entries[::-1] if one.key == request.key), None)
        if newest is not None and newest.size is None:
            return Answer(404, b"", {"x-oss-delete-marker": "true"})
        stored = self._object(request)
        return Answer(200, stored.content, stored.headers)

    def _GetObject(self, request: Request) -> Answer:  # noqa: N802  (as above)
        stored = self._object(request)
        if "Archive" in stored.storage_class:
            raise _RefusedError(403, "InvalidObjectState")
        if request.headers.get("If-Match", stored.headers["ETag"]) != stored.headers["ETag"]:
            raise _RefusedError(412, "PreconditionFailed")
        byte_range = request.headers.get("Range", "")
        size = len(stored.content)
        if not byte_range:
            return Answer(200, stored.content, stored.headers)
        first, _, last = byte_range.removeprefix("bytes=").partition("-")
        begin, end = int(first), min(int(last or size), size - 1)
        if request.headers.get("x-oss-range-behavior") != "standard" and (
            begin >= size or int(last or 0) >= size
        ):
            return Answer(200, stored.content, stored.headers)  # the whole object
        if begin >= size:
            raise _RefusedError(416, "InvalidRange")
        content_range = {"Content-Range": f"bytes {begin}-{end}/{size}"}
        return Answer(206, stored.content[begin : end + 1], {**stored.headers, **content_range})

    def _DeleteObject(self, request: Request) -> Answer:  # noqa: N802  (as above)
        version = request.query.get("versionId", "")
        self._delete(request.key, version)
        if version or not self.versioning:
            return Answer(204)
        marker = self.versions.entries[-1].id
        return Answer(204, b"", {"x-oss-delete-marker": "true", "x-oss-version-id": marker})

    def _delete(self, key: str, version: str) -> None:
        """Remove an object or one of its versions; hide it where versions are kept."""
        if version:
            if self.versions.drop(key, version):
                self.objects.pop(key, None)
            return
        self.objects.pop(key, None)
        if self.versioning:
            self.versions.entries.append(Version(key, None))
        else:
            self.versions.drop(key, "null")

    def _ListObjectVersions(self, request: Request) -> Answer:  # noqa: N802  (as above)
        query = request.query
        most, after = self._most(request, "max-keys"), query.get("version-id-marker", "")
        page = self.versions.page(query.get("prefix", ""), after, most)
        return _xml("ListVersionsResult", page)

    def _DeleteMultipleObjects(self, request: Request) -> Answer:  # noqa: N802  (as above)
        if "Content-MD5" not in request.headers:
            raise _RefusedError(400, "MissingArgument", "Content-MD5")
        named = [
            (str(one.findtext("Key")), one.findtext("VersionId") or "")
            for one in oss_xml.parsed(request.body).iter("Object")
        ]
        if not 0 < len(named) <= _MOST_LISTED:
            raise _RefusedError(400, "MalformedXML")
        deleted = ""
        for key, version in named:
            self._delete(key, version)
            of_version = oss_xml.element("VersionId", version) if version else ""
            deleted += f"<Deleted>{oss_xml.element('Key', quote(key))}{of_version}</Deleted>"
        return _xml("DeleteResult", f"<EncodingType>url</EncodingType>{deleted}")

    def _GetBucketVersioning(self, _request: Request) -> Answer:  # noqa: N802  (as above)
        status = oss_xml.element("Status", self.versioning) if self.versioning else ""
        return _xml("VersioningConfiguration", status)

    def _GetBucketWorm(self, _request: Request) -> Answer:  # noqa: N802  (as above)
        if not self.worm:
            raise _RefusedError(404, "NoSuchWORMConfiguration")
        fields = {"State": self.worm, "RetentionPeriodInDays": 30, "WormId": 1, "CreationDate": 1}
        return _xml("WormConfiguration", "".join(map(oss_xml.element, fields, fields.values())))

    def _GetBucketLifecycle(self, _request: Request) -> Answer:  # noqa: N802  (as above)
        if not self.rules:
            raise _RefusedError(404, "NoSuchLifecycle")
        return _xml("LifecycleConfiguration", self.rules)

    # --- uploads

    def _InitiateMultipartUpload(self, request: Request) -> Answer:  # noqa: N802  (as above)
        self._forbid_overwrite(request)
        upload_id = uuid.uuid4().hex.upper()
        stored = request.headers.get("x-oss-storage-class", "Standard")
        self.uploads[upload_id] = Upload(request.key, stored)
        return _xml("InitiateMultipartUploadResult", oss_xml.element("UploadId", upload_id))

    def _upload(self, request: Request) -> Upload:
        upload = self.uploads.get(request.query["uploadId"])
        if upload is None or upload.key != request.key:
            raise _RefusedError(404, "NoSuchUpload")
        return upload

    def _UploadPart(self, request: Request) -> Answer:  # noqa: N802  (as above)
        number = int(request.query["partNumber"])
        if not 1 <= number <= _MOST_PARTS:
            raise _RefusedError(400, "InvalidArgument")
        self._upload(request).parts[number] = request.body
        headers = Object(request.body).headers
        return Answer(200, b"", {key: headers[key] for key in ("ETag", "x-oss-hash-crc64ecma")})

    def _CompleteMultipartUpload(self, request: Request) -> Answer:  # noqa: N802  (as above)
        upload = self._upload(request)
        self._forbid_overwrite(request)
        listed = [
            (int(str(part.findtext("PartNumber"))), str(part.findtext("ETag")).strip('"'))
            for part in oss_xml.parsed(request.body).iter("Part")
        ]
        numbers = [number for number, _ in listed]
        if numbers != sorted(set(numbers)) or not numbers:
            raise _RefusedError(400, "InvalidPartOrder" if numbers else "MalformedXML")
        for number, etag in listed:
            content = upload.parts.get(number)
            if content is None or md5(content) != etag:
                raise _RefusedError(400, "InvalidPart")
            if number != numbers[-1] and len(content) < self.min_part:
                raise _RefusedError(400, "EntityTooSmall")
        content = b"".join(upload.parts[number] for number in numbers)
        stored = Object(content, "Multipart", upload.storage_class)
        del self.uploads[request.query["uploadId"]]
        answer = self._put(request.key, stored)
        result = _xml("CompleteMultipartUploadResult", oss_xml.element("Key", quote(request.key)))
        return Answer(200, result.body, answer.headers)

    def _AbortMultipartUpload(self, request: Request) -> Answer:  # noqa: N802  (as above)
        self._upload(request)
        del self.uploads[request.query["uploadId"]]
        return Answer(204)

    def _ListParts(self, request: Request) -> Answer:  # noqa: N802  (as above)
        parts = self._upload(request).parts
        after = int(request.query.get("part-number-marker") or 0)
        numbers = [number for number in sorted(parts) if number > after]
        page = numbers[: self._most(request, "max-parts")]
        elements = "".join(
            f"<Part>{oss_xml.element('PartNumber', number)}"
            f"{oss_xml.element('LastModified', oss_xml.time(0))}"
            f"{oss_xml.element('ETag', 'X')}{oss_xml.element('Size', len(parts[number]))}</Part>"
            for number in page
        )
        ends = oss_xml.element("NextPartNumberMarker", page[-1] if page else 0)
        return _xml("ListPartsResult", oss_xml.truncated(page, numbers) + ends + elements)

    # --- listing

    def _most(self, request: Request, name: str) -> int:
        most = int(request.query.get(name, "100"))
        if not 1 <= most <= _MOST_LISTED:
            raise _RefusedError(400, "InvalidArgument")
        return min(most, self.page)

    def _ListObjectsV2(self, request: Request) -> Answer:  # noqa: N802  (as above)
        query = request.query
        after = unquote(query.get("continuation-token", ""))
        names = oss_xml.grouped(self.objects, query.get("prefix", ""), query.get("delimiter", ""))
        names = [one for one in names if one > after]
        page = names[: self._most(request, "max-keys")]
        token = oss_xml.element("NextContinuationToken", quote(page[-1], safe="")) if page else ""
        elements = "".join(
            self._element(one)
            if one in self.objects
            else f"<CommonPrefixes>{oss_xml.element('Prefix', quote(one))}</CommonPrefixes>"
            for one in page
        )
        truncated = oss_xml.truncated(page, names)
        token = token if len(page) < len(names) else ""
        return _xml(
            "ListBucketResult", f"<EncodingType>url</EncodingType>{truncated}{token}{elements}"
        )

    def _element(self, key: str) -> str:
        stored = self.objects[key]
        fields = {
            "Key": quote(key),
            "LastModified": oss_xml.time(stored.modified),
            "ETag": stored.headers["ETag"],
            "Type": stored.kind,
            "Size": len(stored.content),
            "StorageClass": stored.storage_class,
        }
        return f"<Contents>{''.join(map(oss_xml.element, fields, fields.values()))}</Contents>"

    def _ListMultipartUploads(self, request: Request) -> Answer:  # noqa: N802  (as above)
        query = request.query
        prefix = query.get("prefix", "")
        marker = (query.get("key-marker", ""), query.get("upload-id-marker", ""))
        uploads = sorted(
            (one.key, upload_id)
            for upload_id, one in self.uploads.items()
            if one.key.startswith(prefix) and "/" not in one.key[len(prefix) :]
        )
        uploads = [one for one in uploads if one > marker]
        page = uploads[: self._most(request, "max-uploads")]
        elements = "".join(
            f"<Upload>{oss_xml.element('Key', quote(key))}{oss_xml.element('UploadId', one)}"
            f"{oss_xml.element('Initiated', oss_xml.time(self.uploads[one].began))}</Upload>"
            for key, one in page
        )
        key, one = page[-1] if page else ("", "")
        ends = oss_xml.element("NextKeyMarker", quote(key)) + oss_xml.element(
            "NextUploadIdMarker", one
        )
        begin = f"<EncodingType>url</EncodingType>{oss_xml.truncated(page, uploads)}"
        return _xml("ListMultipartUploadsResult", f"{begin}{ends}{elements}")
