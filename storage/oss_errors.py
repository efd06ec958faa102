"""What Aliyun OSS answers, as the errors of a store.

Codes: "Error codes" and the pages of each operation in the API reference of OSS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from xml.etree import ElementTree

from storage.bucket_answers import date_of
from storage.oss_account import Account
from tools.base import fixes, foreign
from tools.base.errors import (
    BackupError,
    StoreError,
    TakenError,
    TransientError,
    UnreachableError,
)
from tools.flow import reachability

_SHOWN = 300  # characters of an answer in a message
_SKEW = timedelta(minutes=5)
_REQUEST_TIMEOUT = 408
_TOO_MANY = 429
_SERVER = 500
_REDIRECTS = range(300, 400)
_INVALID = 400
_DENIED = (401, 403)
_ENDPOINT = re.compile(r"[a-z0-9.-]{1,100}\.aliyuncs\.com")
# What another attempt can fix, though the status is not that of a fault of the server.
_TRANSIENT_CODES = {
    *("RequestTimeout", "ConnectionTimeout", "InvalidDigest", "IncompleteBody", "BadDigest"),
    *("QpsLimitExceeded", "TotalQpsLimitExceeded", "UploadTrafficRateLimitExceeded"),
    *("DownloadTrafficRateLimitExceeded", "TrafficRateLimitExceeded", "ServiceBusy", "SlowDown"),
}
_EXPIRED = {"SecurityTokenExpired", "InvalidSecurityToken", "ExpiredToken"}
_UNKNOWN_KEY = {"InvalidAccessKeyId", "InvalidAccessKeyIdError", "InactiveAccessKeyId"}
_SERVER_HINT = "Check the status of the service. A later run tries again."
_NETWORK_HINT = "Check ENDPOINT, the network, the firewall and the proxy."
_ANSWER_HINT = "Check ENDPOINT, and whether a proxy answers instead of the server."


class ExpiredError(StoreError):
    """The credentials are no longer valid: new ones may be."""


class MissingError(StoreError):
    """There is no such object, or no such upload."""


class BeyondError(StoreError):
    """A range begins beyond the last byte of an object."""


class DeniedError(StoreError):
    """The credentials do not allow the call."""


@dataclass(frozen=True)
class Call:
    """What was called, for messages. store: as messages call it; name: of the object, or ""."""

    store: str
    account: Account
    operation: str
    name: str

    @property
    def subject(self) -> str:
        """Return what a message begins with."""
        return f"{self.store}: {self.name}" if self.name else self.store

    @property
    def key(self) -> str:
        """Return the access key as messages name it."""
        return f"the access key ...{self.account.key_id[-4:]}"


@dataclass(frozen=True)
class _Answer:
    """An error of the server."""

    status: int
    code: str
    message: str
    endpoint: str
    date: datetime | None

    @classmethod
    def of(cls, error: Any) -> _Answer:  # noqa: ANN401  (of oss2)
        details = error.details or {}

        def detail(name: str) -> str:
            return foreign.printable(str(details.get(name) or ""))[:_SHOWN]

        code = detail("Code") or str(error.status)
        endpoint = detail("Endpoint")
        endpoint = endpoint if _ENDPOINT.fullmatch(endpoint) else ""  # it becomes a hint
        return cls(error.status, code, detail("Message"), endpoint, date_of(error.headers))

    @property
    def skew(self) -> timedelta:
        """Return how far the clocks of machine and server differ; 0 if it sent no date."""
        return abs(datetime.now(timezone.utc) - self.date) if self.date else timedelta()

    @property
    def text(self) -> str:
        """Return the error code and the message of the server."""
        return f"{self.code}: {self.message}" if self.message else self.code


def translated(error: Exception, call: Call) -> Exception:
    """Return the error of a store for what oss2 raises; any other error is returned as it is."""
    import requests
    from oss2 import exceptions

    if isinstance(error, BackupError):
        return error
    if isinstance(error, exceptions.ServerError):
        return _of_answer(_Answer.of(error), call)
    if isinstance(error, requests.RequestException):
        return _of_connection(error, call)
    parsing = (ElementTree.ParseError, RuntimeError, ValueError, exceptions.OssError)
    if isinstance(error, parsing):  # oss2 raises RuntimeError for elements that are missing
        return TransientError(
            f"{call.subject}: {call.operation}: the answer is cut, or is none of OSS", _ANSWER_HINT
        )
    return error


def _of_answer(answer: _Answer, call: Call) -> StoreError:
    for judge in (_of_place, _of_rights, _of_object):
        error = judge(answer, call)
        if error is not None:
            return error
    text = f"{call.subject}: {call.operation}: {answer.text} (HTTP {answer.status})"
    transient = answer.status >= _SERVER or answer.status in (_REQUEST_TIMEOUT, _TOO_MANY)
    if transient or answer.code in _TRANSIENT_CODES:
        return TransientError(text, _SERVER_HINT)
    return StoreError(text)


def _of_place(answer: _Answer, call: Call) -> StoreError | None:
    """Judge what is wrong with the server or the bucket."""
    server = call.account.endpoint.host
    if answer.code == "NoSuchBucket":
        return StoreError(
            f"{call.store}: no such bucket at {server}",
            "Correct BUCKET_NAME or ENDPOINT. Only if the bucket is new, create it in the console "
            "of Aliyun, or with ossutil mb.",
        )
    if answer.endpoint and answer.endpoint != server:
        return StoreError(
            f"{call.store}: the bucket is not at {server} but at {answer.endpoint}",
            f"Set ENDPOINT to {answer.endpoint}.",
        )
    if answer.status in _REDIRECTS:
        return StoreError(
            f"{call.store}: {server} redirects to another server, which is not followed "
            f"(HTTP {answer.status})",
            "Set ENDPOINT to the server of the bucket's region.",
        )
    if "region" in answer.message.lower() and answer.status in (_INVALID, *_DENIED):
        return StoreError(
            f"{call.store}: the region {call.account.region or '(unknown)'} is not that of "
            f"{server} ({answer.text})",
            "Set ENDPOINT and REGION to those of the bucket.",
        )
    return None


def _of_rights(answer: _Answer, call: Call) -> StoreError | None:
    if answer.code in _EXPIRED:
        return ExpiredError(
            f"{call.subject}: credentials expired ({call.key}, {answer.code})",
            f"Replace them with new ones ({call.account.source}).",
        )
    if answer.code in _UNKNOWN_KEY:
        return ExpiredError(
            f"{call.subject}: {call.key} is unknown or inactive ({answer.code})",
            f"Replace it with an active access key of this account ({call.account.source}).",
        )
    if answer.status not in _DENIED:
        return None
    minutes = answer.skew.total_seconds() / 60
    if answer.skew > _SKEW:
        return StoreError(
            f"{call.subject}: the clock of this machine and that of the server differ by "
            f"{minutes:.0f} minutes ({answer.text})",
            "Find out which of the two is wrong (date -u), and set that one.",
            fixes.synchronise_clock(),
        )
    if answer.code in _REASONS:
        problem, hint = _REASONS[answer.code]
        return StoreError(f"{call.subject}: {problem.format(key=call.key)} ({answer.code})", hint)
    return DeniedError(
        f"{call.subject}: {call.operation}: access denied for {call.key} ({answer.text})",
        f"Allow oss:{_RIGHTS.get(call.operation, call.operation)} for this bucket in the RAM "
        "policy of the access key (docs/modules/storage-oss.md).",
    )


_REASONS = {
    "SignatureDoesNotMatch": (
        "the access key secret of {key} is wrong",
        "Check access_key, and REGION; a proxy that changes requests has the same effect.",
    ),
    "InvalidObjectState": (
        "the object is in an archive class and must be restored first",
        "Run ossutil restore for it, wait, and repeat this command.",
    ),
    "UserDisable": (
        "Aliyun has suspended the account of {key}",
        "Check its bills in the console.",
    ),
}
_RIGHTS = {
    "ListObjectsV2": "ListObjects",
    "ListObjectVersions": "ListObjectVersions",
    "DeleteObjectVersions": "DeleteObjectVersion",
    "HeadObject": "GetObject",
    "InitiateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "DeleteMultipleObjects": "DeleteObject",
}


def _of_object(answer: _Answer, call: Call) -> StoreError | None:
    if answer.code == "FileImmutable" and not call.operation.startswith("Delete"):
        return TakenError(f"{call.name}: object exists with different content")  # and is locked
    kind, problem = _OBJECTS.get(answer.code) or _OBJECTS.get(str(answer.status)) or (None, "")
    if kind is None:
        return None
    if kind is MissingError and not call.name:
        return MissingError(f"{call.store}: {call.operation}: not found ({answer.text})")
    return kind(problem.format(subject=call.subject, name=call.name, call=call, text=answer.text))


_LOST = "{subject}: the server has lost a part ({text})"
# By the code, else by the status.
_OBJECTS: dict[str, tuple[type[StoreError], str]] = {
    "FileAlreadyExists": (TakenError, "{name}: object exists with different content"),
    "FileImmutable": (
        DeniedError,
        "{subject}: {call.operation}: protected by the retention policy of the bucket",
    ),
    "NoSuchUpload": (MissingError, "{subject}: no such upload"),
    "InvalidPart": (StoreError, _LOST),
    "InvalidPartOrder": (StoreError, _LOST),
    "404": (MissingError, "{name}: no such object in {call.store}"),
    "412": (StoreError, "{subject}: the object has changed while it was read"),
    "416": (BeyondError, "{subject}: {text}"),
}


def _of_connection(error: Exception, call: Call) -> StoreError:
    """Judge what requests raises: the network, TLS, a proxy."""
    import requests

    server = call.account.endpoint
    text = f"{call.subject}: {call.operation}: {server.host}: {_reason(error)}"
    if isinstance(error, requests.exceptions.InvalidHeader):
        return StoreError(
            f"{call.subject}: the access key contains a line break",
            "Write it again, on one line.",
        )
    if isinstance(error, requests.exceptions.ProxyError):
        denied = "407" in str(error)
        return (StoreError if denied else UnreachableError)(
            f"{text} (the proxy asks for a user and a password)" if denied else text,
            "Check HTTPS_PROXY and NO_PROXY.",
        )
    if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE" in str(error).upper():
        return StoreError(text, "Check ENDPOINT and the certificate authorities of this machine.")
    kind = UnreachableError if reachability.tells_no_connection(text) else TransientError
    if server.internal and isinstance(error, requests.ConnectionError):
        return kind(
            text,
            "An internal endpoint answers only inside Aliyun, in its own region. Elsewhere set "
            f"ENDPOINT to {server.other}.",
        )
    return kind(text, _NETWORK_HINT)


def _reason(error: BaseException) -> str:
    """Return the innermost cause in one line, without addresses of objects in memory."""
    text = foreign.printable(str(error)).rpartition(">: ")[2]
    return text.strip("()'\" ")[:_SHOWN] or type(error).__name__
