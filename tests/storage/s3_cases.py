"""A table of what goes wrong while an object is stored, each with its verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from storage.s3_options import ChecksumMode
from tests.storage.bad_s3 import Answer, Fault, error
from tests.storage.s3_fault_kinds import (
    DENIED,
    FAILED,
    HTML,
    IMPATIENT,
    LARGE,
    SMALL,
    STORED,
    after,
    alters_part,
    always,
    expired,
    forbids_reading,
    forgets_part,
    lost_then,
    on,
    other_then,
    replaces,
    swaps_parts,
    wants_equal_parts,
    with_checksum,
    without,
)


@dataclass(frozen=True)
class Case:
    """A fault while an object is stored, and the verdict.

    content:  what is stored; says: pattern of the error or of the log
    calls:    how often an operation must have been called at most, by its name
    keys:     of the section; rules: of the server
    """

    name: str
    fault: Fault
    verdict: str = STORED
    content: bytes = LARGE
    says: str = ""
    calls: dict[str, int] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)
    present: bool = False  # another object has the name


MD5 = {"checksum_mode": ChecksumMode.WHEN_REQUIRED}
HANGS = {"read_timeout": IMPATIENT, "connect_timeout": IMPATIENT}
OPERATIONS = (
    ("PutObject", SMALL),
    ("CreateMultipartUpload", LARGE),
    ("UploadPart", LARGE),
    ("CompleteMultipartUpload", LARGE),
)
BUSY = {
    "500 InternalError": error(500, "InternalError", "We encountered an internal error"),
    "500 without a body": Answer(500),
    "503 SlowDown": error(503, "SlowDown", "Please reduce your request rate"),
    "503 page of a proxy": Answer(503, HTML.body),
    "429": error(429, "TooManyRequests"),
    "502": Answer(502, HTML.body),
    "504": Answer(504),
    "400 RequestTimeout": error(400, "RequestTimeout", "socket not read in time"),
    "connection reset": Answer(cut=0),
    "reset after 40 bytes": Answer(cut=40),
    "200 with an error in its body": Answer(200, error(500, "InternalError").body),
    "200 with a page of a proxy": HTML,
    "200 and nothing": Answer(200),
}
TRANSIENT = [
    Case(f"{name} to {operation}", on(operation, answer, times=2), content=content)
    for name, answer in BUSY.items()
    for operation, content in OPERATIONS
]
REFUSALS = {
    "501 aws-chunked": error(501, "NotImplemented", "aws-chunked encoding is not supported"),
    "501 header": error(
        501, "NotImplemented", "A header you provided implies functionality that is not implemented"
    ),
    "400 XAmzContentSHA256Mismatch": error(
        400, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' does not match"
    ),
    "400 trailing checksum": error(400, "InvalidRequest", "trailing checksum is not supported"),
    "411 MissingContentLength": error(411, "MissingContentLength", "You must provide it"),
    "400 Unsupported header": error(
        400, "InvalidArgument", "Unsupported header 'x-amz-checksum-crc32' received"
    ),
    "400 sdk-checksum": error(
        400, "InvalidArgument", "Unsupported header x-amz-sdk-checksum-algorithm"
    ),
}
VENDORS = [
    Case(
        f"{name} for {len(content)} bytes",
        with_checksum(answer),
        content=content,
        says="Content-MD5",
    )
    for name, answer in REFUSALS.items()
    for content in (SMALL, LARGE)
]
FINAL = [
    Case(
        "access denied",
        always("PutObject", DENIED),
        FAILED,
        SMALL,
        r"access denied.*\.\.\.TEST",
        {"PutObject": 1},
    ),
    Case(
        "access denied for parts",
        always("UploadPart", DENIED),
        FAILED,
        says="s3:PutObject|access denied",
        calls={"UploadPart": 5},
    ),
    Case(
        "no such bucket",
        always("PutObject", error(404, "NoSuchBucket")),
        FAILED,
        SMALL,
        "no such bucket at http",
        {"PutObject": 1},
    ),
    Case(
        "unknown access key",
        always("PutObject", error(403, "InvalidAccessKeyId")),
        FAILED,
        SMALL,
        r"\.\.\.TEST is not known",
    ),
    Case(
        "wrong secret key",
        always("PutObject", error(403, "SignatureDoesNotMatch")),
        FAILED,
        SMALL,
        "secret key",
        {"PutObject": 1},
    ),
    Case(
        "remote disk full (507)",
        always("UploadPart", error(507, "InsufficientStorage")),
        FAILED,
        says="the store is full",
    ),
    Case(
        "quota exceeded",
        always("PutObject", error(403, "QuotaExceeded")),
        FAILED,
        SMALL,
        "the store is full|QuotaExceeded",
    ),
    Case(
        "invalid storage class",
        always("PutObject", error(400, "InvalidStorageClass")),
        FAILED,
        SMALL,
        "InvalidStorageClass",
    ),
    Case(
        "500 for ever",
        always("UploadPart", BUSY["500 InternalError"]),
        FAILED,
        says="InternalError",
    ),
    Case(
        "409 for a name that is being written",
        on("CompleteMultipartUpload", error(409, "ConditionalRequestConflict")),
        FAILED,
        says="another program writes",
        calls={"CompleteMultipartUpload": 1},
    ),
    Case(
        "307 without Location",
        always("PutObject", error(307, "TemporaryRedirect")),
        FAILED,
        SMALL,
        "sends to another server",
    ),
    Case(
        "301 without Location",
        always("PutObject", error(301, "PermanentRedirect")),
        FAILED,
        SMALL,
        "sends to another server",
    ),
    Case(
        "redirect to another host",
        always("PutObject", error(307, "TemporaryRedirect", Location="http://127.0.0.1:1/b/x")),
        FAILED,
        SMALL,
        "sends to another server",
    ),
    Case(
        "bucket in another region",
        always(
            "PutObject",
            error(400, "IllegalLocationConstraintException", x_amz_bucket_region="eu-west-1"),
        ),
        FAILED,
        SMALL,
        "region eu-west-1",
    ),
    Case(
        "signature for another region",
        always(
            "PutObject",
            Answer(
                400,
                b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>",
            ),
        ),
        FAILED,
        SMALL,
        "region eu-west-1",
    ),
    Case(
        "405",
        always("PutObject", error(405, "MethodNotAllowed")),
        FAILED,
        SMALL,
        "MethodNotAllowed",
        {"PutObject": 1},
    ),
    Case(
        "407 of a proxy",
        always("PutObject", Answer(407)),
        FAILED,
        SMALL,
        "proxy asks for a user",
        {"PutObject": 1},
    ),
]
WHOLE = [
    Case("a part confirmed with another checksum", alters_part),
    Case(
        "a part lost after its confirmation",
        forgets_part,
        FAILED,
        says="BadDigest|InvalidPart|other bytes",
    ),
    Case(
        "a part lost, and no checksums",
        forgets_part,
        FAILED,
        says="other bytes",
        rules={"checksums": False},
    ),
    Case("two parts exchanged", swaps_parts, FAILED, says="BadDigest|other bytes"),
    Case(
        "two parts exchanged, and no checksums",
        swaps_parts,
        FAILED,
        says="other bytes",
        rules={"checksums": False},
    ),
    Case("equal parts demanded", wants_equal_parts),
    Case("no checksum in any answer", lambda *_: None, rules={"checksums": False}),
    Case(
        "no checksum, and an ETag of its own",
        lambda *_: None,
        rules={"checksums": False, "etag": lambda _body: "v1"},
    ),
    Case(
        "the same for a small object",
        lambda *_: None,
        content=SMALL,
        rules={"checksums": False, "etag": lambda _body: "v1"},
    ),
    Case(
        "a checksum demanded of each part",
        without("content-md5", error(400, "InvalidRequest", "Content-MD5 is required")),
        keys=MD5,
    ),
    Case(
        "the same for a small object, MD5",
        without("content-md5", error(400, "InvalidRequest", "Content-MD5 is required")),
        content=SMALL,
        keys=MD5,
    ),
    Case(
        "a checksum demanded, as with Object Lock",
        without("x-amz-checksum-crc32", error(400, "InvalidRequest", "Content-MD5 or checksum")),
        content=LARGE,
    ),
    Case(
        "another SHA-256 confirmed",
        after("PutObject", Answer(headers={"ETag": '"x"', "x-amz-checksum-sha256": "AAAA"})),
        FAILED,
        SMALL,
        "other bytes",
    ),
    Case("bits flipped on the way", on("UploadPart", error(400, "BadDigest"), times=4)),
    Case(
        "bits flipped for ever",
        always("UploadPart", error(400, "BadDigest")),
        FAILED,
        says="BadDigest",
    ),
]
AMBIGUOUS = [
    Case("the answer of PutObject lost", after("PutObject", Answer(cut=0)), content=SMALL),
    *(
        Case(f"the answer of Complete lost, then {name}", lost_then(answer))
        for name, answer in {
            "404": error(404, "NoSuchUpload"),
            "412": error(412, "PreconditionFailed"),
            "200": Answer(
                200,
                b"<CompleteMultipartUploadResult><ETag>&quot;x&quot;</ETag></CompleteMultipartUploadResult>",
            ),
            "500": error(500, "InternalError"),
            "closed": Answer(cut=0),
            "an error in a 200": Answer(200, error(500, "InternalError").body),
            "a page of a proxy": HTML,
            "white space and a cut": Answer(200, b" " * 30, cut=120),
            "409": error(409, "OperationAborted"),
        }.items()
    ),
    Case(
        "an object of another program, 412",
        replaces,
        FAILED,
        says="different content",
        present=True,
    ),
    Case(
        "the same for a small object, 412",
        replaces,
        FAILED,
        SMALL,
        "different content",
        present=True,
    ),
    Case(
        "an object of another program, 404",
        other_then(error(404, "NoSuchUpload")),
        FAILED,
        says="different content",
        present=True,
    ),
    Case(
        "an object of another program, closed",
        other_then(Answer(cut=0)),
        FAILED,
        says="different content",
        present=True,
    ),
    Case(
        "Complete 200 with an error, nothing stored",
        always("CompleteMultipartUpload", Answer(200, error(500, "InternalError").body)),
        FAILED,
        says="InternalError",
    ),
    Case("HeadObject forbidden after a lost answer", forbids_reading),
]


OTHERS = [
    Case("a token that expires at part 5", expired(5)),
    Case("an access key that is replaced at part 5", expired(5, "InvalidAccessKeyId")),
    Case(
        "a token that stays expired",
        always("UploadPart", error(400, "ExpiredToken")),
        FAILED,
        says="credentials expired",
    ),
    Case("hang for one part", on("UploadPart", Answer(delay=IMPATIENT * 2)), keys=HANGS),
    Case(
        "hang after storing",
        after("PutObject", None, delay=IMPATIENT * 2),
        content=SMALL,
        keys=HANGS,
    ),
    Case(
        "hang for ever",
        always("PutObject", Answer(delay=IMPATIENT * 1.5)),
        FAILED,
        SMALL,
        "[Tt]ime",
        keys=HANGS,
    ),
    Case("slow link", on("UploadPart", Answer(503, b"x" * 500, slow=0.01))),
    Case("DELETE forbidden", always("AbortMultipartUpload", DENIED)),
    Case("no list of uploads", always("ListMultipartUploads", error(501, "NotImplemented"))),
]
CASES = [*TRANSIENT, *VENDORS, *FINAL, *WHOLE, *AMBIGUOUS, *OTHERS]
