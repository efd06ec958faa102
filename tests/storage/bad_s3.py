"""A scripted S3 server in this process: it keeps objects in memory and misbehaves as a test says.

It has no rules of its own beyond those of `Rules`; signatures are not checked.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 1_000  # entries of one page of a listing
PROBES = "nc-backup-py.store/"  # in the keys of what proves create-only


@dataclass
class Answer:
    """What the server sends. cut: only so many bytes of it all, then the connection is reset."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    is_closed: bool = False  # then it is closed as usual, and not reset
    delay: float = 0.0  # seconds before it
    slow: float = 0.0  # seconds between pieces of the body


@dataclass(frozen=True)
class Request:
    """What has been asked. operation: as S3 names it"""

    operation: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def number(self) -> int:
        """The number of a part; 0 for other requests."""
        return int(self.query.get("partNumber", 0))


Fault = Callable[["BadS3", Request, int], Answer | None]  # with the number of the call, from 1


def error(status: int, code: str, message: str = "", **headers: str) -> Answer:
    """Return an error as S3 writes it."""
    text = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, text.encode(), named)


@dataclass
class Upload:
    """An upload that was neither completed nor aborted."""

    key: str
    parts: dict[int, bytes] = field(default_factory=dict)


class BadS3:
    """The server. faults: asked before each request; what they return is the answer.

    conditions: whether If-None-Match is honoured; knows_conditions: whether it is accepted at all
    checksums: whether answers name them
    """

    def __init__(self) -> None:
        self.reset()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.bad = self
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def reset(self) -> None:
        """Forget everything."""
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, Upload] = {}
        self.etags: dict[str, str] = {}
        self.calls: dict[str, int] = {}
        self.seen: list[Request] = []
        self.fault: Fault = lambda _server, _request, _count: None
        self.conditions = True
        self.knows_conditions = True
        self.checksums = True
        self.etag: Callable[[bytes], str] = lambda body: hashlib.md5(body).hexdigest()  # noqa: S324
        self.date: Callable[[], float] = time.time
        self.lock = threading.RLock()

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: Request) -> Answer:
        """Answer a request, as the fault says or as S3 would; of the probe always as S3 would."""
        if PROBES in request.key:
            return self.good(request)
        with self.lock:
            count = self.calls[request.operation] = self.calls.get(request.operation, 0) + 1
            self.seen.append(request)
        return self.fault(self, request, count) or self.good(request)

    def good(self, request: Request) -> Answer:
        """Do what was asked."""
        with self.lock:
            if "if-none-match" in request.headers and not self.knows_conditions:
                return error(501, "NotImplemented", "If-None-Match")
            method = getattr(self, f"_{request.operation}", None)
            answer: Answer = error(501, "NotImplemented") if method is None else method(request)
            return answer

    def _checks(self, request: Request) -> Answer | None:
        sent = request.headers
        digests: dict[str, Callable[[bytes], bytes]] = {
            "content-md5": lambda body: hashlib.md5(body).digest(),  # noqa: S324
            "x-amz-checksum-sha256": lambda body: hashlib.sha256(body).digest(),
            "x-amz-checksum-crc32": lambda body: binascii.crc32(body).to_bytes(4, "big"),
        }
        for name, digest in digests.items():
            if name in sent and sent[name] != base64.b64encode(digest(request.body)).decode():
                return error(400, "BadDigest", "the digest is not that of the body")
        return None

    def _answer_headers(self, request: Request) -> dict[str, str]:
        names = ("x-amz-checksum-sha256", "x-amz-checksum-crc32")
        return {n: request.headers[n] for n in names if self.checksums and n in request.headers}

    def _PutObject(self, request: Request) -> Answer:  # noqa: N802  (of S3)
        refused = self._checks(request)
        if refused:
            return refused
        if self._is_taken(request):
            return error(412, "PreconditionFailed")
        self.objects[request.key] = request.body
        self.etags[request.key] = self.etag(request.body)
        return Answer(
            headers={"ETag": f'"{self.etag(request.body)}"', **self._answer_headers(request)}
        )

    def _is_taken(self, request: Request) -> bool:
        condition = self.conditions and "if-none-match" in request.headers
        return condition and request.key in self.objects

    def _CreateMultipartUpload(self, request: Request) -> Answer:  # noqa: N802
        name = f"upload-{len(self.seen)}"
        self.uploads[name] = Upload(request.key)
        return _xml("InitiateMultipartUploadResult", f"<UploadId>{name}</UploadId>")

    def _UploadPart(self, request: Request) -> Answer:  # noqa: N802
        refused = self._checks(request)
        if refused:
            return refused
        upload = self.uploads.get(request.query["uploadId"])
        if upload is None:
            return error(404, "NoSuchUpload")
        upload.parts[request.number] = request.body
        return Answer(
            headers={"ETag": f'"{self.etag(request.body)}"', **self._answer_headers(request)}
        )

    def _CompleteMultipartUpload(self, request: Request) -> Answer:  # noqa: N802
        upload = self.uploads.get(request.query["uploadId"])
        if upload is None:
            return error(404, "NoSuchUpload")
        if self._is_taken(request):
            return error(412, "PreconditionFailed")
        text = request.body.decode()
        named = list(map(int, re.findall(r"<PartNumber>(\d+)<", text)))
        if any(number not in upload.parts for number in named):
            return error(400, "InvalidPart", "a part is missing")
        content = b"".join(upload.parts[number] for number in named)
        crc = base64.b64encode(binascii.crc32(content).to_bytes(4, "big")).decode()
        sent = request.headers.get("x-amz-checksum-crc32")
        if sent and sent != crc and self.checksums:
            return error(400, "BadDigest", "of the whole object")
        etags = b"".join(hashlib.md5(upload.parts[n]).digest() for n in named)  # noqa: S324
        etag = f"{hashlib.md5(etags).hexdigest()}-{len(named)}"  # noqa: S324
        self.objects[request.key] = content
        self.etags[request.key] = etag
        del self.uploads[request.query["uploadId"]]
        checksum = f"<ChecksumCRC32>{crc}</ChecksumCRC32><ChecksumType>FULL_OBJECT</ChecksumType>"
        tag = f"<ETag>&quot;{etag}&quot;</ETag>"
        return _xml("CompleteMultipartUploadResult", tag + checksum * self.checksums)

    def _AbortMultipartUpload(self, request: Request) -> Answer:  # noqa: N802
        upload = self.uploads.pop(request.query["uploadId"], None)
        return Answer(204) if upload else error(404, "NoSuchUpload")

    def _DeleteObject(self, request: Request) -> Answer:  # noqa: N802
        self.objects.pop(request.key, None)
        return Answer(204)

    def _DeleteObjects(self, request: Request) -> Answer:  # noqa: N802
        if "content-md5" not in request.headers or self._checks(request):
            return error(400, "InvalidRequest", "Missing required header: Content-MD5")
        keys = re.findall(r"<Key>([^<]*)</Key>", request.body.decode())
        for key in keys:
            self.objects.pop(key, None)
        return _xml("DeleteResult", "".join(f"<Deleted><Key>{k}</Key></Deleted>" for k in keys))

    def _described(self, key: str) -> dict[str, str]:
        content = self.objects[key]
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        crc = base64.b64encode(binascii.crc32(content).to_bytes(4, "big")).decode()
        checksums = {"x-amz-checksum-crc32": crc, "x-amz-checksum-sha256": digest}
        return {
            "ETag": f'"{self.etags.get(key, "other")}"',
            **(checksums if self.checksums else {}),
        }

    def _HeadObject(self, request: Request) -> Answer:  # noqa: N802
        content = self.objects.get(request.key)
        if content is None:
            return Answer(404)
        return Answer(headers={**self._described(request.key), "Content-Length": str(len(content))})

    def _GetObject(self, request: Request) -> Answer:  # noqa: N802
        content = self.objects.get(request.key)
        if content is None:
            return error(404, "NoSuchKey")
        headers = self._described(request.key)
        if request.headers.get("if-match", headers["ETag"]) != headers["ETag"]:
            return error(412, "PreconditionFailed")
        if "range" not in request.headers:
            return Answer(body=content, headers=headers)
        begin, _, end = request.headers["range"].removeprefix("bytes=").partition("-")
        if int(begin) >= len(content):
            return error(416, "InvalidRange")
        part = content[int(begin) : int(end) + 1 if end else None]
        extent = f"bytes {begin}-{int(begin) + len(part) - 1}/{len(content)}"
        return Answer(206, part, {**headers, "Content-Range": extent})

    def _ListObjectsV2(self, request: Request) -> Answer:  # noqa: N802
        prefix = request.query.get("prefix", "")
        most = int(request.query.get("max-keys", PAGE))
        names: dict[str, int | None] = {}
        for key in sorted(k for k in self.objects if k.startswith(prefix)):
            below, slash, _ = key[len(prefix) :].partition(request.query.get("delimiter", "\0"))
            names[prefix + below + slash] = None if slash else len(self.objects[key])
        later = [n for n in names if n > request.query.get("continuation-token", "")]
        page = later[:most]
        text = f"<Name>b</Name><KeyCount>{len(page)}</KeyCount>"
        if len(later) > most:
            text += "<IsTruncated>true</IsTruncated>"
            text += f"<NextContinuationToken>{page[-1]}</NextContinuationToken>"
        else:
            text += "<IsTruncated>false</IsTruncated>"
        for name in page:
            if names[name] is None:
                text += f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            else:
                text += _entry(name, names[name] or 0, self.etags.get(name, "other"), self.date())
        return _xml("ListBucketResult", text)

    def _ListMultipartUploads(self, request: Request) -> Answer:  # noqa: N802
        elements = [
            f"<Upload><Key>{escape(one.key)}</Key><UploadId>{name}</UploadId></Upload>"
            for name, one in self.uploads.items()
            if one.key.startswith(request.query.get("prefix", ""))
        ]
        end = "<IsTruncated>false</IsTruncated>"
        return _xml("ListMultipartUploadsResult", "".join(elements) + end)

    def _ListParts(self, request: Request) -> Answer:  # noqa: N802
        upload = self.uploads.get(request.query["uploadId"])
        if upload is None:
            return error(404, "NoSuchUpload")
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><Size>{len(body)}</Size></Part>"
            for number, body in upload.parts.items()
        )
        return _xml("ListPartsResult", parts)


def _entry(name: str, size: int, etag: str, now: float) -> str:
    when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(now))
    return (
        f"<Contents><Key>{escape(name)}</Key><Size>{size}</Size><LastModified>{when}</LastModified>"
        f"<ETag>&quot;{etag}&quot;</ETag></Contents>"
    )


def _xml(name: str, text: str) -> Answer:
    return Answer(body=f'<?xml version="1.0"?><{name}>{text}</{name}>'.encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    bad: BadS3

    def handle_error(self, *_args: Any) -> None:
        """Print nothing: connections are cut on purpose."""


_OPERATIONS = {
    ("PUT", "partNumber"): "UploadPart",
    ("PUT", ""): "PutObject",
    ("POST", "uploads"): "CreateMultipartUpload",
    ("POST", "delete"): "DeleteObjects",
    ("POST", "uploadId"): "CompleteMultipartUpload",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("DELETE", ""): "DeleteObject",
    ("HEAD", ""): "HeadObject",
    ("GET", "uploads"): "ListMultipartUploads",
    ("GET", "uploadId"): "ListParts",
    ("GET", "list-type"): "ListObjectsV2",
    ("GET", "lifecycle"): "GetBucketLifecycleConfiguration",
    ("GET", "object-lock"): "GetObjectLockConfiguration",
    ("GET", "versions"): "ListObjectVersions",
    ("GET", "versioning"): "GetBucketVersioning",
    ("GET", ""): "GetObject",
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_args: Any) -> None:
        """Print nothing."""

    def handle_expect_100(self) -> bool:
        """Let the body come."""
        self.send_response_only(100)
        self.end_headers()
        return True

    def _request(self) -> Request:
        url = urlsplit(self.path)
        query = {name: held[0] for name, held in parse_qs(url.query, True).items()}
        sub = next((n for m, n in _OPERATIONS if m == self.command and n and n in query), "")
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        operation = _OPERATIONS[self.command, sub]
        if self.command == "HEAD" and not key:
            operation = "HeadBucket"
        return Request(operation, key, query, {**headers, "bucket": bucket}, body)

    def _serve(self) -> None:
        answer = self.server.bad.answer(self._request())
        with contextlib.suppress(OSError):
            self._send(answer)

    def do_CONNECT(self) -> None:
        """Be a proxy that asks for a password."""
        self.send_error(407, "Proxy Authentication Required")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _send(self, answer: Answer) -> None:
        if answer.delay:
            time.sleep(answer.delay)
        headers = {"Date": formatdate(self.server.bad.date(), usegmt=True)}
        headers |= {"Content-Length": str(len(answer.body))} | answer.headers
        lines = [f"HTTP/1.1 {answer.status} X"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        if answer.cut is not None:
            self.wfile.write((head + answer.body)[: answer.cut])
            self.reset(politely=answer.is_closed)
        elif answer.slow:
            self.wfile.write(head)
            for at in range(0, len(answer.body), 100):
                self.wfile.write(answer.body[at : at + 100])
                time.sleep(answer.slow)
        else:
            self.wfile.write(head + answer.body)

    def reset(self, *, politely: bool = False) -> None:
        """Reset the connection, as a router or a killed server does; or only close it."""
        self.wfile.flush()
        if politely:
            self.connection.shutdown(socket.SHUT_WR)
        else:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True
