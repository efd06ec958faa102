"""What a server of Aliyun OSS, a proxy or the network does wrong, and what must come of it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.oss_bucket import Answer, Bucket, Object, Request, error
from tests.oss_server import SECRET, ConnectionClosed, Fault, Handler, OssServer, Proceed

STORED = ""
BLOCK = 1_000  # bytes of a part here
SMALL = b"small content"
LARGE = bytes(range(256)) * 14  # 4 parts
OTHER = b"the content of another machine"
_HTML = b"<html><body>The proxy asks you to log in</body></html>"
Setting = Callable[[OssServer, Bucket], None]


@dataclass(frozen=True)
class Case:
    """A fault while something is done, and the verdict.

    fault:   of the next requests of `operation`, `times` of them, after `skip`
    action:  small and large store an object; read, range, list, unfinished and remove use one
    verdict: STORED, or what the error says; hint: what its hint says
    calls:   how often operations are called at all
    kept:    content that is under the name afterwards in spite of an error
    """

    name: str
    action: str
    operation: str
    fault: Fault | None
    verdict: str = STORED
    times: int = 1
    skip: int = 0
    hint: str = ""
    calls: Mapping[str, int] = field(default_factory=dict)
    kept: bytes | None = None
    setting: Setting = lambda _server, _bucket: None


def says(status: int, code: str, message: str = "", **more: str) -> Fault:
    """Answer with an error, and do nothing."""

    def fault(handler: Handler, _request: Request, _proceed: Proceed) -> Answer:
        handler.body()
        return error(status, code, message, **more)

    return fault


def answers(answer: Answer) -> Fault:
    """Give this answer, and do nothing."""

    def fault(handler: Handler, _request: Request, _proceed: Proceed) -> Answer:
        handler.body()
        return answer

    return fault


def done_and(answer: Answer | None) -> Fault:
    """Do it, and answer something else; None: reset the connection."""

    def fault(_handler: Handler, _request: Request, proceed: Proceed) -> Answer:
        proceed()
        if answer is None:
            raise ConnectionClosed
        return answer

    return fault


def reset(after: int) -> Fault:
    """Reset the connection after so many bytes of the body have been received."""

    def fault(handler: Handler, _request: Request, _proceed: Proceed) -> Answer:
        handler.body(after)
        raise ConnectionClosed

    return fault


def hang(handler: Handler, _request: Request, _proceed: Proceed) -> Answer:
    """Give no answer until the client has given up."""
    handler.body()
    handler.server.ended.wait(1)
    raise ConnectionClosed


def damaged(_handler: Handler, request: Request, proceed: Proceed) -> Answer:
    """Flip a bit on the way."""
    body = bytearray(_handler.body())
    body[-1] ^= 1
    request.body = bytes(body)
    return proceed()


def with_headers(**headers: str) -> Fault:
    """Change headers of the answer."""

    def fault(_handler: Handler, _request: Request, proceed: Proceed) -> Answer:
        answer = proceed()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer.headers = {k: v for k, v in {**answer.headers, **named}.items() if v}
        return answer

    return fault


def cut(after: int) -> Fault:
    """Reset the connection after so many bytes of the answer."""

    def fault(_handler: Handler, _request: Request, proceed: Proceed) -> Answer:
        answer = proceed()
        answer.cut = after
        return answer

    return fault


def half_headers(handler: Handler, _request: Request, _proceed: Proceed) -> Answer:
    """Close the connection, without a reset, within the headers of an answer."""
    handler.body()
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nServer: Aliy")
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_WR)
    handler.connection.recv(1)  # until the client has closed it as well
    raise ConnectionClosed


def whole_object(handler: Handler, _request: Request, _proceed: Proceed) -> Answer:
    """Ignore the range."""
    handler.body()
    return Answer(200, LARGE, dict(Object(LARGE).headers))


def forgotten(handler: Handler, request: Request, proceed: Proceed) -> Answer:
    """Lose a part that was confirmed."""
    answer = proceed()
    upload = handler.server.buckets[request.bucket].uploads[request.query["uploadId"]]
    del upload.parts[int(request.query["partNumber"])]
    return answer


def joined(*order: int) -> Fault:
    """Complete an upload of parts in another order, or without some of them."""

    def fault(handler: Handler, request: Request, proceed: Proceed) -> Answer:
        answer = proceed()
        parts = [LARGE[number * BLOCK : (number + 1) * BLOCK] for number in order]
        stored = Object(b"".join(parts), "Multipart")
        handler.server.buckets[request.bucket].objects[request.key] = stored
        return Answer(200, answer.body, stored.headers)

    return fault


def raced(content: bytes) -> Fault:
    """Let another program publish the name in this moment."""

    def fault(handler: Handler, request: Request, proceed: Proceed) -> Answer:
        handler.server.buckets[request.bucket].objects[request.key] = Object(content)
        return proceed()

    return fault


def _clock(seconds: float) -> Setting:
    def setting(server: OssServer, _bucket: Bucket) -> None:
        server.clock = seconds

    return setting


def _region(server: OssServer, _bucket: Bucket) -> None:
    server.region = "cn-shanghai"


def _other_secret(server: OssServer, _bucket: Bucket) -> None:
    server.secrets = dict.fromkeys(server.secrets, f"{SECRET}-changed")


def _other_key(server: OssServer, _bucket: Bucket) -> None:
    server.secrets = {}


_CRC = "x_oss_hash_crc64ecma"
_EXISTS = error(409, "FileAlreadyExists", "The object you specified already exists.")
_WRONG = "the server holds other bytes than were sent"
_PUT, _PART, _COMPLETE = "PutObject", "UploadPart", "CompleteMultipartUpload"
_INITIATE, _GET, _LIST = "InitiateMultipartUpload", "GetObject", "ListObjectsV2"
_LONG = "x" * 9_000 + "\x1b[31m"

CASES = (
    # --- for a moment
    Case("an internal error", "small", _PUT, says(500, "InternalError"), calls={_PUT: 2}),
    Case("it is busy", "small", _PUT, says(503, "ServiceBusy"), times=4, calls={_PUT: 5}),
    Case("too many requests a second", "large", _PART, says(503, "QpsLimitExceeded"), times=3),
    Case("a limit with a status of clients", "large", _PART, says(429, "TooManyRequests")),
    Case("the body arrived too slowly", "large", _PART, says(400, "RequestTimeout")),
    Case("a proxy without its server", "large", _COMPLETE, answers(Answer(502, _HTML))),
    Case("no answer", "large", _PART, hang),
    Case("no answer to a small object", "small", _PUT, hang),
    Case("a reset before the body", "small", _PUT, reset(0)),
    Case("a reset in a part", "large", _PART, reset(700), times=3, skip=1),
    Case("a reset at the beginning", "large", _INITIATE, reset(0)),
    Case("an error for ever", "small", _PUT, says(500, "InternalError"), "InternalError",
         times=9, calls={_PUT: 5}),
    Case("a part that is never taken", "large", _PART, reset(9), "UploadPart", times=99),
    # --- the answer is lost, or another one
    Case("put, the answer lost", "small", _PUT, done_and(None)),
    Case("put, the answer lost, then it exists", "small", _PUT, done_and(_EXISTS)),
    Case("a part, the answer lost", "large", _PART, done_and(None), skip=2),
    Case("completed, the answer lost", "large", _COMPLETE, done_and(None)),
    Case("completed, then 500", "large", _COMPLETE, done_and(error(500, "InternalError"))),
    Case("completed, then it exists", "large", _COMPLETE, done_and(_EXISTS)),
    Case("completed, then no such upload", "large", _COMPLETE,
         done_and(error(404, "NoSuchUpload"))),
    Case("an upload that is gone", "large", _COMPLETE, says(404, "NoSuchUpload"),
         "no such upload", times=9),
    Case("an upload without an ID", "large", _INITIATE, answers(Answer(200, _HTML))),
    Case("an object that only a login page has taken", "small", _PUT, answers(Answer(200, _HTML))),
    Case("half an ID", "large", _INITIATE, cut(40)),
    # --- other bytes
    Case("a bit that flips in a small object", "small", _PUT, damaged, calls={_PUT: 2}),
    Case("a bit that flips in a part", "large", _PART, damaged, skip=1, calls={_PART: 5}),
    Case("a wrong CRC of a part", "large", _PART, with_headers(**{_CRC: "1"})),
    Case("always a wrong CRC of a part", "large", _PART, with_headers(**{_CRC: "1"}), _WRONG,
         times=99),
    Case("a wrong CRC of a small object", "small", _PUT, with_headers(**{_CRC: "1"}), _WRONG,
         hint="removed again", calls={"DeleteObject": 1}),
    Case("no CRC of parts", "large", _PART, with_headers(**{_CRC: ""}), times=9),
    Case("a CRC that is not a number", "large", _PART, with_headers(**{_CRC: "high"})),
    Case("a part that is lost", "large", _PART, forgotten, "lost a part", skip=2),
    Case("an object without its third part", "large", _COMPLETE, joined(0, 1, 3), _WRONG),
    Case("an object with swapped parts", "large", _COMPLETE, joined(1, 0, 2, 3), _WRONG),
    Case("parts that are out of order", "large", _COMPLETE, says(400, "InvalidPartOrder"),
         "lost a part"),
    # --- another program
    Case("another program puts the name", "small", _PUT, raced(OTHER), "different content",
         kept=OTHER),
    Case("another program puts the same", "small", _PUT, raced(SMALL)),
    Case("another program completes the name", "large", _COMPLETE, raced(OTHER),
         "different content", kept=OTHER),
    Case("another program completes the same", "large", _COMPLETE, raced(LARGE)),
    Case("a name that exists", "large", _INITIATE, raced(OTHER), "different content", kept=OTHER),
    # --- rights and places
    Case("access denied", "small", _PUT, says(403, "AccessDenied", "no rights"), "access denied",
         times=9, hint="oss:PutObject", calls={_PUT: 1}),
    Case("an upload denied", "large", _INITIATE, says(403, "AccessDenied"), "access denied",
         times=9, hint="oss:PutObject", calls={_INITIATE: 1}),
    Case("it may write and not read", "large", "HeadObject", says(403, "AccessDenied"), times=9),
    Case("it may not abort", "large", "AbortMultipartUpload", says(403, "AccessDenied"), times=9),
    Case("no such bucket", "small", _PUT, says(404, "NoSuchBucket"), "no such bucket",
         times=9, hint="BUCKET_NAME", calls={_PUT: 1}),
    Case("the bucket is elsewhere", "small", _PUT,
         says(403, "AccessDenied", "must be addressed using the specified endpoint",
              Endpoint="oss-cn-beijing.aliyuncs.com"),
         "but at oss-cn-beijing", hint="ENDPOINT to oss-cn-beijing.aliyuncs.com"),
    Case("a redirect", "small", _PUT,
         answers(Answer(307, b"", {"Location": "http://127.0.0.1:1/stolen"})),
         "which is not followed", calls={_PUT: 1}),
    Case("a redirect without an address", "small", _PUT, answers(Answer(301)), "not followed"),
    Case("another region", "small", _PUT, None, "the region cn-hangzhou is not that",
         setting=_region, hint="REGION"),
    Case("a clock that is an hour slow", "small", _PUT, None, "differ by 60 minutes",
         setting=_clock(3600), hint="date -u", calls={_PUT: 1}),
    Case("a clock that is right", "small", _PUT, says(403, "RequestTimeTooSkewed"),
         "access denied", hint="PutObject"),
    Case("a wrong secret", "small", _PUT, None, "secret of the access key ...1234 is wrong",
         setting=_other_secret, hint="access_key"),
    Case("an unknown key", "small", _PUT, None, "is unknown or inactive", setting=_other_key),
    Case("an expired token", "small", _PUT, says(403, "SecurityTokenExpired"),
         "credentials expired", times=9, calls={_PUT: 1}),
    Case("unpaid bills", "small", _PUT, says(403, "UserDisable"), "suspended", hint="bills"),
    Case("a long message with escapes", "small", _PUT, says(400, "Odd", _LONG), "HTTP 400"),
    Case("an error that is no XML", "small", _PUT, answers(Answer(400, _HTML)), "HTTP 400"),
    Case("an error of bytes", "small", _PUT, answers(Answer(400, b"\xff\xfe<Error>"))),
    # --- reading
    Case("a download that breaks off", "read", _GET, cut(1_500), times=3),
    Case("a download whose headers are cut", "read", _GET, half_headers, times=2),
    Case("a download that is busy", "read", _GET, says(503, "ServiceBusy")),
    Case("a whole object instead of a range", "range", _GET,
         whole_object),
    Case("an object in an archive", "read", _GET, says(403, "InvalidObjectState"),
         "in an archive class", times=9, hint="ossutil restore", calls={_GET: 1}),
    Case("no object", "read", _GET, says(404, "NoSuchKey"), "no such object", times=9),
    Case("a list that is cut", "list", _LIST, cut(150)),
    Case("a list from a proxy", "list", _LIST, answers(Answer(200, _HTML))),
    Case("always a list from a proxy", "list", _LIST, answers(Answer(200, _HTML)),
         "none of OSS", times=9, hint="proxy", calls={_LIST: 5}),
    Case("a list without an end", "list", _LIST,
         answers(Answer(200, b"<a>" * (3 << 20)))),
    Case("a list that names no next page", "list", _LIST,
         answers(Answer(200, b"<R><IsTruncated>true</IsTruncated></R>"))),
    Case("unfinished uploads that may not be listed", "unfinished", "ListMultipartUploads",
         says(403, "AccessDenied"), times=9),
    Case("a list of objects is not removed: one by one", "remove", "DeleteMultipleObjects",
         answers(Answer(200, b"<DeleteResult></DeleteResult>")), calls={"DeleteObject": 1}),
    Case("an object that is protected", "remove", "DeleteMultipleObjects",
         says(409, "FileImmutable"), "retention policy"),
)  # fmt: skip
