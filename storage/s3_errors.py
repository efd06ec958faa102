"""What an S3 server answers and how a call of it fails, as the errors of a store.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and those that other
vendors were reported to answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from storage import s3_hints, s3_http
from storage.bucket_answers import date_of
from storage.s3_http import AnswerError
from tools.base import fixes, foreign
from tools.base.errors import StoreError, TakenError, TransientError, UnreachableError

_SKEW = timedelta(minutes=5)  # S3 allows 15; less is no fault of the clock
_SHOWN = 300  # characters of a message of the server
_TRANSIENT_CODES = {
    *("InternalError", "InternalServerError", "ServiceUnavailable", "SlowDown", "Throttling"),
    *("ThrottlingException", "RequestTimeout", "RequestTimeoutException", "TooManyRequests"),
    *("BandwidthLimitExceeded", "IncompleteBody", "XMinioServerNotInitialized"),
    # The bytes were altered on their way: the server has compared them with what we have sent.
    *("BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"),
    *("XAmzS3Checksummismatch", "ContentSHA256Mismatch"),
}
_TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524)
_FULL_CODES = {
    *("QuotaExceeded", "InsufficientStorage", "InsufficientCapacity", "XMinioStorageFull"),
    *("TotalBytesQuotaExceeded", "BucketQuotaExceeded", "NotEnoughSpace", "DiskFull"),
    *("XMinioAdminBucketQuotaExceeded", "StorageFull", "StorageLimitExceeded", "EntityTooLarge"),
}
_INSUFFICIENT_STORAGE = 507
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_UNKNOWN_KEY = {"InvalidAccessKeyId", "InvalidToken", "UnrecognizedClientException"}
_CHECKSUMS = re.compile(r"checksum|aws-chunked|sdk-checksum|content-?sha256|trailer", re.I)
_REFUSED_CODES = {"MissingContentLength", "XAmzContentSHA256Mismatch"}
_REFUSING = (400, 411, 501)
_MISMATCH = {"BadDigest", "XAmzContentChecksumMismatch"}
_CONDITION = re.compile(r"if-none-match|condition", re.I)
# How vendors say that an object is locked: S3, MinIO, Ceph, R2, Google.
_LOCKED = re.compile(r"lock|worm|retention|legal.?hold|immutab|protected", re.I)
_PROTECTED = re.compile(r"protected by object lock|worm protected|object is locked", re.I)
_PUBLISHING = ("PutObject", "CompleteMultipartUpload", "CreateMultipartUpload")
_WRITING = (*_PUBLISHING, "UploadPart")
_REMOVING = ("DeleteObject", "DeleteObjects", "AbortMultipartUpload")
_NOT_ALLOWED, _BAD_REQUEST = 405, 400
_REFUSED_REMOVAL = (400, 405, 409, 412, 423)
_ENTRY_STATUS = {
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "AccountProblem"), 403),
    **dict.fromkeys(("NoSuchKey", "NoSuchVersion"), 404),
    "MethodNotAllowed": _NOT_ALLOWED,
}
_URL = re.compile(r"\"https?://[^\"]*\"|https?://\S+")
_NOT_HTTP = "An HTTP Client raised an unhandled exception: "  # the text of botocore
_PROXY_AUTHENTICATION = "407 "
_SERVER_HINT = "Check the state of the server. A later run tries again."
_NETWORK_HINT = "Check ENDPOINT_URL, the network, the firewall and the proxy."


class ExpiredError(StoreError):
    """The credentials are no longer valid: new ones may be."""


class ChecksumRefusedError(StoreError):
    """The server knows no such checksum."""


class ConditionRefusedError(StoreError):
    """The server does not know If-None-Match."""


class ConflictError(StoreError):
    """Another upload of the same name is in progress."""


class MissingError(StoreError):
    """There is no such object, or no such upload."""


class RangeError(StoreError):
    """There is no byte in the range."""


class DeniedError(StoreError):
    """The credentials do not allow the call."""


@dataclass(frozen=True)
class Call:
    """What was called, for messages.

    store:    the store, as messages call it
    endpoint: URL of the server
    operation: as S3 names it (PutObject)
    name:     of the object; "" for a call without one
    key_id:   the last four characters of the access key
    """

    store: str
    endpoint: str
    operation: str
    name: str
    key_id: str

    @property
    def subject(self) -> str:
        """Return what a message begins with."""
        return f"{self.store}: {self.name}" if self.name else self.store


@dataclass(frozen=True)
class _Answer:
    """An error of the server."""

    status: int
    code: str
    message: str
    region: str
    date: datetime | None

    @classmethod
    def of(cls, response: Mapping[str, Any]) -> _Answer:
        error = response.get("Error", {})
        data = response.get("ResponseMetadata", {})
        headers = data.get("HTTPHeaders", {})
        message = foreign.printable(str(error.get("Message") or ""), keep="")[:_SHOWN]
        region = str(headers.get("x-amz-bucket-region") or error.get("Region") or "")
        region = region if s3_http.REGION.fullmatch(region) else ""  # it becomes a hint
        status = int(data.get("HTTPStatusCode") or 0)
        code = foreign.printable(str(error.get("Code") or status), keep="")[:_SHOWN]
        return cls(status, code, message, region, date_of(headers))

    @property
    def text(self) -> str:
        """Return the error code and the message of the server."""
        return f"{self.code}: {self.message}" if self.message else self.code


def translated(error: Exception, call: Call) -> Exception:
    """Return the error of a store for what botocore raises; any other error as it is."""
    from botocore import exceptions, parsers

    if isinstance(error, AnswerError):
        return TransientError(f"{call.subject}: {call.operation}: {error}", error.hint)
    if isinstance(error, exceptions.ClientError):
        return _of_answer(_Answer.of(error.response), call)
    if isinstance(error, exceptions.BotoCoreError):
        return _of_client(error, call)
    if isinstance(error, ValueError) and "header" in str(error).lower():
        return StoreError(
            f"{call.subject}: the credentials contain a line break or another control character",
            "Write the access key and the secret key again, without a line break.",
        )
    # ValueError: a size or a time in the answer that is none
    if isinstance(error, parsers.ResponseParserError | ValueError | LookupError):
        return TransientError(
            f"{call.subject}: {call.operation}: the answer is cut, or is none of S3",
            "Check ENDPOINT_URL, and whether a proxy answers instead of the server.",
        )
    return error


def _of_answer(answer: _Answer, call: Call) -> StoreError:
    for judge in _JUDGES:
        error = judge(answer, call)
        if error is not None:
            return error
    text = f"{call.subject}: {call.operation}: {answer.text} (HTTP {answer.status})"
    if answer.code in _TRANSIENT_CODES or answer.status in _TRANSIENT_STATUS:
        return TransientError(text, _SERVER_HINT)
    # A 200 with an error in its body has the status 200 here
    if answer.status < 300:  # noqa: PLR2004
        return TransientError(text, _SERVER_HINT)
    return StoreError(text)


def _of_request(answer: _Answer, call: Call) -> StoreError | None:
    """Return the error of a request that the server does not support; None for others."""
    text = f"{call.subject}: {call.operation}: {answer.text}"
    if answer.status in (501, 400) and _CONDITION.search(answer.message):
        return ConditionRefusedError(text)
    refused = answer.code in _REFUSED_CODES or _CHECKSUMS.search(f"{answer.code} {answer.message}")
    if answer.status in _REFUSING and refused and answer.code not in _MISMATCH:
        return ChecksumRefusedError(text, "Set CHECKSUM_MODE to when_required.")
    if answer.status == 501:  # noqa: PLR2004
        return ChecksumRefusedError(text)
    return None


def _of_clock(answer: _Answer, call: Call) -> StoreError | None:
    """Return the error of a wrong clock; None unless the server sent its time."""
    skew = abs(datetime.now(timezone.utc) - answer.date) if answer.date else timedelta()
    if answer.status not in (400, 401, 403) or skew <= _SKEW:
        return None
    minutes = round(skew.total_seconds() / 60)
    return StoreError(
        f"{call.subject}: the clock of this machine and that of the server differ by {minutes} "
        f"minutes ({answer.text})",
        "Find out which of the two is wrong (date -u), and set that one.",
        fixes.synchronise_clock(),
    )


def _of_credentials(answer: _Answer, call: Call) -> StoreError | None:
    key = f"the access key ...{call.key_id}"
    if answer.status == 407:  # noqa: PLR2004
        return StoreError(
            f"{call.store}: the proxy asks for a user and a password (407)",
            "Check HTTPS_PROXY and NO_PROXY.",
        )
    if answer.code in _EXPIRED:
        return ExpiredError(
            f"{call.subject}: credentials expired ({key})",
            f"Run aws sso login, or write new ones {s3_hints.configuring()}.",
        )
    if answer.code in _UNKNOWN_KEY:
        return ExpiredError(
            f"{call.subject}: {key} is not known to {call.endpoint} ({answer.code})",
            f"Write the access key of this server {s3_hints.configuring()}.",
        )
    if answer.code == "SignatureDoesNotMatch":
        return StoreError(
            f"{call.subject}: the secret key of {key} is wrong (SignatureDoesNotMatch)",
            f"Write it again {s3_hints.configuring()}. A proxy that changes requests has the same "
            "effect.",
        )
    return None


def of_entry(entry: Mapping[str, Any], call: Call) -> StoreError:
    """Return the error that an answer to DeleteObjects names for one key."""
    code = str(entry.get("Code") or "")
    status = _ENTRY_STATUS.get(code, _BAD_REQUEST)
    response = {"Error": entry, "ResponseMetadata": {"HTTPStatusCode": status}}
    return _of_answer(_Answer.of(response), call)


def _is_locked(answer: _Answer, call: Call) -> bool:
    """Return whether an object is kept by a lock, which some vendors answer without a 403."""
    if call.operation not in _REMOVING:
        return False
    match = _LOCKED.search(f"{answer.code} {answer.message}")
    return answer.status == _NOT_ALLOWED or (bool(match) and answer.status in _REFUSED_REMOVAL)


def _of_rights(answer: _Answer, call: Call) -> StoreError | None:
    if answer.code == "InvalidObjectState":
        return StoreError(
            f"{call.subject}: the object is in a cold storage class and must be thawed first",
            "Thaw it and the other parts of its item: "
            f"{s3_hints.thawing(call.store, call.name)}. Then repeat this command.",
        )
    if call.operation in _PUBLISHING and _PROTECTED.search(answer.message):
        return TakenError(f"{call.name}: object exists with different content")  # and is locked
    if answer.status not in (401, 403) and not _is_locked(answer, call):
        return None
    return DeniedError(
        f"{call.subject}: {call.operation}: access denied for the access key ...{call.key_id} "
        f"({answer.text})",
        s3_hints.allowing(call.store, call.operation, call.name),
    )


def _of_place(answer: _Answer, call: Call) -> StoreError | None:
    if answer.code == "NoSuchBucket":
        return StoreError(
            f"{call.store}: no such bucket at {call.endpoint}",
            "Correct BUCKET_NAME or ENDPOINT_URL. Only if the bucket is new: "
            f"{s3_hints.creating(call.store, call.endpoint)}",
        )
    redirect = answer.status in (301, 302, 303, 307, 308)
    malformed = answer.code in (
        *("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
        *("PermanentRedirect", "InvalidRegion"),
    )
    if not redirect and not malformed:
        return None
    if answer.region:
        return StoreError(
            f"{call.store}: the bucket is in the region {answer.region}",
            f"Set REGION to {answer.region}.",
        )
    reason = f"HTTP {answer.status}" if redirect else answer.text
    return StoreError(
        f"{call.store}: {call.endpoint} sends to another server, which is not followed ({reason})",
        "Set ENDPOINT_URL and REGION to those of the bucket.",
    )


def _of_object(answer: _Answer, call: Call) -> StoreError | None:
    """Return the error of an object that is written or read; None for other calls."""
    writes = call.operation in _WRITING
    if answer.status == 412 and writes:  # noqa: PLR2004
        return TakenError(f"{call.name}: object exists with different content")
    if answer.status == 412 and call.operation == "GetObject":  # noqa: PLR2004
        return StoreError(f"{call.subject}: the object has changed while it was read")
    if answer.status == 409 and writes:  # noqa: PLR2004
        return ConflictError(
            f"{call.subject}: another program writes this object ({answer.text})",
            "Let one program alone write to this folder.",
        )
    if answer.status == 416 and call.operation == "GetObject":  # noqa: PLR2004
        return RangeError(f"{call.subject}: no such range")
    return None


def _of_missing(answer: _Answer, call: Call) -> StoreError | None:
    if answer.code == "NoSuchUpload":
        return MissingError(f"{call.subject}: no such upload")
    if answer.status == 404:  # noqa: PLR2004
        if not call.name or call.operation in _WRITING:
            return MissingError(f"{call.subject}: {call.operation}: not found ({answer.text})")
        return MissingError(f"{call.name}: no such object in {call.store}")
    if answer.code in ("InvalidPart", "InvalidPartOrder"):
        return StoreError(
            f"{call.subject}: the server has lost a part ({answer.text})",
            "The object was not stored. Check the server.",
        )
    return None


def _of_space(answer: _Answer, call: Call) -> StoreError | None:
    if answer.status != _INSUFFICIENT_STORAGE and answer.code not in _FULL_CODES:
        return None
    return StoreError(
        f"{call.store}: the store is full ({answer.text})", "Remove old runs there, or enlarge it."
    )


def _of_client(error: Exception, call: Call) -> StoreError:
    """Return the error for what botocore raises itself: connection, credentials, answer."""
    from botocore import exceptions

    text = str(error).replace(_NOT_HTTP, "the answer cannot be read: ", 1)
    text = foreign.printable(text, keep="")[:_SHOWN]
    if isinstance(error, exceptions.ProxyConnectionError):
        reason = str(error.kwargs.get("error", ""))
        denied = _PROXY_AUTHENTICATION in reason
        asks = " (407: it asks for a user and a password)" if denied else ""
        refused = StoreError if denied else UnreachableError
        return refused(f"{call.store}: {text}{asks}", "Check HTTPS_PROXY and NO_PROXY.")
    if isinstance(error, exceptions.SSLError):
        return StoreError(
            f"{call.store}: {text}", "Set CA_BUNDLE to the certificate authority of the server."
        )
    if isinstance(
        error,
        exceptions.NoCredentialsError
        | exceptions.PartialCredentialsError
        | exceptions.CredentialRetrievalError
        | exceptions.TokenRetrievalError
        | exceptions.SSOError
        | exceptions.MetadataRetrievalError,
    ):
        return no_credentials(call.store, text)
    network = (
        *(exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.IncompleteReadError),
        *(exceptions.FlexibleChecksumError, exceptions.ChecksumError),
    )
    if isinstance(error, network):
        message = _URL.sub(call.endpoint, text).rstrip(".")  # a whole URL has 300 characters
        absent = (exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError)
        kind = UnreachableError if isinstance(error, absent) else TransientError
        return kind(f"{call.subject}: {call.operation}: {message}", _NETWORK_HINT)
    return StoreError(f"{call.subject}: {call.operation}: {text}", _NETWORK_HINT)


_JUDGES = (
    *(_of_request, _of_clock, _of_credentials, _of_rights, _of_place, _of_object, _of_missing),
    _of_space,
)


def no_credentials(store: str, text: str) -> StoreError:
    """Return the error of a store whose credentials are not to be had."""
    return StoreError(
        f"{store}: no credentials: {text}",
        f"Write the access key {s3_hints.configuring()}. With an instance role, check that it is "
        "attached, and set the hop limit of the metadata service to 2 where the backup runs in a "
        "container.",
    )
