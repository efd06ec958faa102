"""A server of Aliyun OSS in this process: it verifies signatures and can be told to misbehave.

Sources: "Signature version 4" and "Signature version 1" in the API reference of OSS at
help.aliyun.com; the messages of errors are those of the service.
"""

from __future__ import annotations

import base64
import calendar
import hashlib
import hmac
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, unquote_plus, urlsplit

from tests.oss_bucket import Answer, Bucket, Request, error

KEY_ID, SECRET, REGION = "LTAI5tTestTestTest1234", "osssecretosssecret", "cn-hangzhou"
_SKEW = 900  # seconds
# Of the query: what is part of the resource that V1 signs.
_SIGNED = {
    *("uploads", "uploadId", "partNumber", "delete", "versioning", "versionId"),
    *("lifecycle", "worm", "versions", "key-marker", "version-id-marker"),
    *("continuation-token", "acl"),
}
_MESSAGES = {
    "InvalidAccessKeyId": "The OSS Access Key Id you provided does not exist in our records.",
    "InvalidSecurityToken": "The security token you provided is invalid.",
    "SignatureDoesNotMatch": "The request signature we calculated does not match.",
    "RequestTimeTooSkewed": "The difference between the request time and the current time is too "
    "large.",
}
Proceed = Callable[[], Answer]
Fault = Callable[["Handler", Request, Proceed], Answer]


class ConnectionClosed(Exception):  # noqa: N818  (no error: the connection is gone)
    """Close the connection without an answer."""


class OssServer(ThreadingHTTPServer):
    """The server: buckets, access keys, and what goes wrong next."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.secrets = {KEY_ID: SECRET}
        self.tokens: dict[str, str] = {}  # that the requests of an access key must bring
        self.buckets: dict[str, Bucket] = {}
        self.region = REGION
        self.clock = 0.0  # seconds that the clock of the server is ahead
        self.requests: list[str] = []
        self.signatures: set[str] = set()
        self.ended = threading.Event()
        self._faults: list[tuple[str, list[Fault | None]]] = []
        self._numbers = itertools.count()

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def bucket(self, **settings: Any) -> tuple[str, Bucket]:
        """Make a bucket; return its name and the bucket."""
        name = f"test-bucket-{next(self._numbers)}"
        self.buckets[name] = Bucket(**settings)
        return name, self.buckets[name]

    def script(self, operation: str, fault: Fault, *, times: int = 1, skip: int = 0) -> None:
        """Let the next requests of one operation go wrong, after so many that do not."""
        self._faults.append((operation, [None] * skip + [fault] * times))

    def reset(self) -> None:
        """Forget what was scripted, and what was asked."""
        self._faults.clear()
        self.requests.clear()
        self.signatures.clear()
        self.secrets, self.tokens = {KEY_ID: SECRET}, {}
        self.region, self.clock = REGION, 0.0

    def fault(self, operation: str) -> Fault | None:
        """Return what goes wrong with this request."""
        for name, steps in self._faults:
            if name == operation and steps:
                return steps.pop(0)
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients close connections: that is no error here."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: OssServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (as in the base class)
        """Say nothing."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the time by the clock of the server."""
        return formatdate((timestamp or time.time()) + self.server.clock, usegmt=True)

    def _request(self) -> Request:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path[1:]).partition("/")
        pairs = [one.partition("=") for one in parts.query.split("&") if one]
        query = {unquote(name): unquote_plus(value) for name, _, value in pairs}
        return Request(self.command, bucket, key, query, self.headers)  # type: ignore[arg-type]

    def _respond(self) -> None:
        request = self._request()
        self.server.requests.append(request.operation)
        fault = self.server.fault(request.operation)

        def proceed() -> Answer:
            request.body = request.body or self.body()
            return self._checked(request)

        try:
            answer = fault(self, request, proceed) if fault else proceed()
            self._send(request, answer)
        except ConnectionClosed:
            self.reset()

    def body(self, size: int | None = None) -> bytes:
        """Read the body of the request, or its beginning."""
        length = int(self.headers.get("Content-Length") or 0)
        return self.rfile.read(length if size is None else min(size, length))

    def reset(self) -> None:
        """Reset the connection."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _send(self, request: Request, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in {"x-oss-request-id": "5F", **answer.headers}.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(answer.body)))
        if request.method == "HEAD" and answer.status >= 300:
            self.send_header("x-oss-err", base64.b64encode(answer.body).decode())
        self.end_headers()
        if request.method != "HEAD":
            self.wfile.write(answer.body[: answer.cut])
        if answer.cut is not None:
            raise ConnectionClosed

    def _checked(self, request: Request) -> Answer:
        """Return the answer, or why the request is rejected."""
        if request.method == "PUT" and "Content-Length" not in self.headers:
            return error(411, "MissingContentLength")
        problem = self._unsigned()
        if problem is not None:
            return problem
        bucket = self.server.buckets.get(request.bucket)
        if bucket is None:
            return error(404, "NoSuchBucket", "The specified bucket does not exist.")
        return bucket.answer(request)

    def _unsigned(self) -> Answer | None:
        """Return why the signature is rejected; None for a good one."""
        authorization = self.headers.get("Authorization", "")
        version, _, fields = authorization.partition(" ")
        if version == "OSS4-HMAC-SHA256":
            pairs = dict(one.strip().split("=", 1) for one in fields.split(","))
            key_id, _, scope = pairs["Credential"].partition("/")
            expected = self._v4(scope, self.server.secrets.get(key_id, ""))
            moment = calendar.timegm(time.strptime(self.headers["x-oss-date"], "%Y%m%dT%H%M%SZ"))
            signature = pairs["Signature"]
            if scope.split("/")[1] != self.server.region:
                message = "Invalid signing region in Authorization header."
                return error(400, "InvalidArgument", message)
        elif version == "OSS":
            key_id, _, signature = fields.partition(":")
            expected = self._v1(self.server.secrets.get(key_id, ""))
            moment = int(parsedate_to_datetime(self.headers["Date"]).timestamp())
        else:
            return error(403, "AccessDenied", "Anonymous access is forbidden for this operation.")
        self.server.signatures.add(version)
        problem = self._problem(key_id, is_good=hmac.compare_digest(expected, signature))
        if not problem and abs(time.time() + self.server.clock - moment) > _SKEW:
            problem = "RequestTimeTooSkewed"
        return error(403, problem, _MESSAGES[problem]) if problem else None

    def _problem(self, key_id: str, *, is_good: bool) -> str:
        """Return the code for what is wrong with the access key; "" for nothing."""
        if key_id not in self.server.secrets:
            return "InvalidAccessKeyId"
        token = self.server.tokens.get(key_id, "")
        if self.headers.get("x-oss-security-token", "") != token:
            return "InvalidSecurityToken"
        return "" if is_good else "SignatureDoesNotMatch"

    def _service_headers(self) -> Mapping[str, str]:
        """Return the headers of the service by their names in small letters, sorted."""
        headers = {name.lower(): value.strip() for name, value in self.headers.items()}
        return dict(sorted(one for one in headers.items() if one[0].startswith("x-oss-")))

    def _v1(self, secret: str) -> str:
        parts = urlsplit(self.path)
        pairs = [one.partition("=") for one in parts.query.split("&") if one]
        signed = sorted((name, unquote_plus(value)) for name, _, value in pairs if name in _SIGNED)
        resource = "&".join(name + (f"={value}" if value else "") for name, value in signed)
        lines = [
            self.command,
            self.headers.get("Content-MD5", ""),
            self.headers.get("Content-Type", ""),
            self.headers.get("Date", ""),
            *(f"{name}:{value}" for name, value in self._service_headers().items()),
            unquote(parts.path) + (f"?{resource}" if resource else ""),
        ]
        digest = hmac.new(secret.encode(), "\n".join(lines).encode(), hashlib.sha1).digest()
        return base64.b64encode(digest).decode()

    def _v4(self, scope: str, secret: str) -> str:
        parts = urlsplit(self.path)
        headers = dict(self._service_headers())
        for name in ("content-type", "content-md5"):
            if name in self.headers:
                headers[name] = str(self.headers[name]).strip()
        # requests sends a space as +, which is signed as %20
        pairs = sorted(
            (quote(unquote(name), safe="-_.~"), quote(unquote_plus(value), safe="-_.~"))
            for name, _, value in (one.partition("=") for one in parts.query.split("&") if one)
        )
        canonical = "\n".join(
            [
                self.command,
                quote(unquote(parts.path), safe="/-_.~"),
                "&".join(f"{name}={value}" if value else name for name, value in pairs),
                "".join(f"{name}:{headers[name]}\n" for name in sorted(headers)),
                "",
                self.headers.get("x-oss-content-sha256", "UNSIGNED-PAYLOAD"),
            ]
        )
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = "\n".join(["OSS4-HMAC-SHA256", self.headers["x-oss-date"], scope, digest])
        key = f"aliyun_v4{secret}".encode()
        for one in scope.split("/"):
            key = hmac.new(key, one.encode(), hashlib.sha256).digest()
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _respond  # noqa: N815  (of the base class)


_running: list[OssServer] = []


def reset_all() -> None:
    """Let no test find what an earlier one has scripted."""
    for server in _running:
        server.reset()


@contextmanager
def running() -> Iterator[OssServer]:
    """Run a server in a thread until the block ends."""
    server = OssServer()
    _running.append(server)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        _running.remove(server)
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def credentials(folder: Path, server: OssServer, bucket: str, **more: str) -> Path:
    """Write a credentials file as the documented system left it; return its path."""
    lines = {"access_id": KEY_ID, "access_key": SECRET, "host": server.url, "bucket": bucket}
    lines = {key: value for key, value in {**lines, **more}.items() if value}
    text = "[OSSCredentials]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())
    path = folder / "alioss.conf"
    path.touch(0o600)
    path.write_text(text + "[options]\nretry_times = 15\nmulti-upload = on   # if > 100 MB\n")
    return path
