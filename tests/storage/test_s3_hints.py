"""What the errors of S3 say about what to do, by the real class of botocore's errors."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from storage import s3_errors
from tools import os_works
from tools.base import fixes
from tools.base.errors import BackupError

_HOST = "https://s3.example.com"


def error_of(
    code: str, status: int, operation: str = "PutObject", name: str = "web1/a", **headers: str
) -> BackupError:
    response: Any = {
        "Error": {"Code": code, "Message": "no"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    call = s3_errors.Call("s3://b1/servers", _HOST, operation, name, "ABCD")
    error = s3_errors.translated(ClientError(response, operation), call)
    assert isinstance(error, BackupError)
    return error


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (error_of("NoSuchBucket", 404), f"aws s3 mb s3://b1 --endpoint-url {_HOST}"),
        (error_of("AccessDenied", 403), "Allow s3:PutObject on arn:aws:s3:::b1/servers/* in"),
        (
            error_of("AccessDenied", 403, "ListObjectsV2", ""),
            "Allow s3:ListBucket on arn:aws:s3:::b1 in",
        ),
        (
            error_of("AccessDenied", 403, "ListMultipartUploads", "web1/a"),
            "Allow s3:ListBucketMultipartUploads on arn:aws:s3:::b1 in",
        ),
        (
            error_of("PermanentRedirect", 301, **{"x-amz-bucket-region": "eu-west-1"}),
            "Set REGION to eu-west-1.",
        ),
        (error_of("InvalidAccessKeyId", 403), f"aws configure as the user {os_works.user()}"),
        (error_of("ExpiredToken", 400), "aws sso login"),
    ],
)
def test_each_says_what_to_do_and_has_no_command_that_could_be_wrong(
    error: BackupError, hint: str
) -> None:
    assert hint in error.hint
    assert not error.fix


def test_missing_credentials_are_written_by_the_user_of_the_backup() -> None:
    call = s3_errors.Call("s3://b1", _HOST, "PutObject", "", "")
    error = s3_errors.translated(NoCredentialsError(), call)
    assert f"aws configure as the user {os_works.user()}" in getattr(error, "hint", "")


def test_a_clock_is_set_by_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    error = error_of("RequestTimeTooSkewed", 403, date="Mon, 01 Jan 2024 00:00:00 GMT")
    assert error.fix == fixes.as_root("timedatectl set-ntp true")
    assert "date -u" in error.hint
