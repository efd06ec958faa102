"""The kinds of what S3 servers, proxies and networks do wrong while an object is stored."""

from __future__ import annotations

import dataclasses
from typing import Any

from tests.storage.bad_s3 import Answer, BadS3, Fault, Request, error

SMALL = b"a manifest"
LARGE = bytes(range(256)) * 5  # in 13 parts of 100 bytes
PART = 100
IMPATIENT = 0.3  # seconds for an answer, in tests of servers that hang
STORED, FAILED = "stored", "failed"
DENIED = error(403, "AccessDenied", "Access Denied")
HTML = Answer(200, b"<html><body>Please log in</body></html>", {"Content-Type": "text/html"})


def on(operation: str, answer: Answer, times: int = 1, first: int = 1) -> Fault:
    """Answer some calls of an operation like this, and do nothing of what they ask."""

    def fault(_server: BadS3, request: Request, count: int) -> Answer | None:
        is_meant = request.operation == operation and first <= count < first + times
        return dataclasses.replace(answer) if is_meant else None

    return fault


def after(operation: str, answer: Answer | None = None, times: int = 1, **changes: Any) -> Fault:
    """Do what is asked, and answer otherwise: the answer is lost, cut or altered."""

    def fault(server: BadS3, request: Request, count: int) -> Answer | None:
        if request.operation != operation or count > times:
            return None
        good = server.good(request)
        return dataclasses.replace(good, **changes) if answer is None else answer

    return fault


def always(operation: str, answer: Answer) -> Fault:
    """Answer every call of an operation like this."""
    return on(operation, answer, times=1_000_000)


def without(header: str, answer: Answer) -> Fault:
    """Answer like this where an object or a part lacks a header."""

    def fault(_server: BadS3, request: Request, _count: int) -> Answer | None:
        is_meant = request.operation in ("PutObject", "UploadPart")
        return answer if is_meant and header not in request.headers else None

    return fault


def with_checksum(answer: Answer) -> Fault:
    """Refuse what has a checksum of newer kind."""

    def fault(_server: BadS3, request: Request, _count: int) -> Answer | None:
        is_checked = any(name.startswith("x-amz-checksum") for name in request.headers)
        sending = request.operation in ("PutObject", "UploadPart", "CreateMultipartUpload")
        return answer if is_checked and sending else None

    return fault


def forgets_part(server: BadS3, request: Request, _count: int) -> Answer | None:
    """Lose the third part after its confirmation, and complete without it."""
    if request.operation == "CompleteMultipartUpload":
        upload = server.uploads[request.query["uploadId"]]
        upload.parts[3] = b""
    return None


def swaps_parts(server: BadS3, request: Request, _count: int) -> Answer | None:
    """Exchange two parts of equal length."""
    if request.operation == "CompleteMultipartUpload" and request.key.endswith("x"):
        parts = server.uploads[request.query["uploadId"]].parts
        if parts[1] == LARGE[:PART]:
            parts[1], parts[2] = parts[2], parts[1]
    return None


def wants_equal_parts(server: BadS3, request: Request, _count: int) -> Answer | None:
    """Refuse the completion of parts of several lengths, as some vendors do."""
    if request.operation == "CompleteMultipartUpload":
        parts = server.uploads[request.query["uploadId"]].parts
        sizes = {len(parts[number]) for number in sorted(parts)[:-1]}
        if len(sizes) > 1:
            return error(400, "InvalidPart", "all parts but the last must be equally long")
    return None


def alters_part(_server: BadS3, request: Request, count: int) -> Answer | None:
    """Confirm another checksum for one part, once: bits have flipped on the way."""
    if (request.operation, count) == ("UploadPart", 3):
        return Answer(headers={"ETag": '"x"', "x-amz-checksum-crc32": "AAAAAA=="})
    return None


def replaces(server: BadS3, request: Request, _count: int) -> Answer | None:
    """Let another program publish the name first, while ours is uploaded."""
    if request.operation in ("CompleteMultipartUpload", "PutObject") and request.key.endswith("x"):
        server.objects[request.key] = b"of another program"
    return None


def other_then(answer: Answer) -> Fault:
    """As `replaces`, and answer otherwise than S3 would."""

    def fault(server: BadS3, request: Request, count: int) -> Answer | None:
        if request.operation != "CompleteMultipartUpload" or not request.key.endswith("x"):
            return None
        replaces(server, request, count)
        return answer

    return fault


def lost_then(answer: Answer) -> Fault:
    """Complete, lose the answer, and answer the repetition like this."""
    done: list[str] = []

    def fault(server: BadS3, request: Request, _count: int) -> Answer | None:
        if request.operation != "CompleteMultipartUpload" or not request.key.endswith("x"):
            return None
        if done:
            return answer
        done.append(request.key)
        server.good(request)
        return Answer(cut=0)

    return fault


def expired(until: int, code: str = "ExpiredToken") -> Fault:
    """Accept a token only for so many parts."""

    def fault(_server: BadS3, request: Request, count: int) -> Answer | None:
        is_meant = (request.operation, count) == ("UploadPart", until)
        return error(400 if "Expired" in code else 403, code) if is_meant else None

    return fault


def lost_then_412(server: BadS3, request: Request, count: int) -> Answer | None:
    """Lose the answer of a completion; the repetition is answered as S3 would."""
    if request.operation != "CompleteMultipartUpload" or count > 1:
        return None
    server.good(request)
    return Answer(cut=0)


def forbids_reading(server: BadS3, request: Request, count: int) -> Answer | None:
    """Lose the answer of a completion, and let the credentials list and write alone."""
    if request.operation in ("HeadObject", "GetObject"):
        return DENIED
    return lost_then_412(server, request, count)
