"""What is done without boto3 for speed is done as boto3 does it."""

from __future__ import annotations

import re
from datetime import datetime
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.utils import parse_timestamp

from storage import s3_http
from storage.s3_prefetch import Signer


@pytest.mark.parametrize("token", [None, "session/token=="])
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9000/backups/",
        "https://backups.s3.eu-central-1.amazonaws.com/",
        "https://backups.s3.eu-central-1.amazonaws.com:443/",
        "http://[::1]:80/b/",
    ],
)
def test_signatures_are_those_of_botocore(url: str, token: str | None) -> None:
    credentials = Credentials("AKIDTEST", "secret", token)
    signer = Signer(credentials, "eu-central-1", url)
    for key in ("srv/20260101_000000.manifest.json", "a b/100%25 ü~'(*)/x+y", "srv/a//b/../c"):
        path = quote(key, safe="/~")
        request = AWSRequest("GET", url + path)
        S3SigV4Auth(credentials, "s3", "eu-central-1").add_auth(request)
        stamp = datetime.strptime(f"{request.headers['X-Amz-Date']}+0000", "%Y%m%dT%H%M%SZ%z")
        where = re.sub("^https?://[^/]*", "", url) + path
        ours = signer.headers(where, stamp)
        assert ours["authorization"] == request.headers["Authorization"]
        assert ours.get("x-amz-security-token") == token


@pytest.mark.parametrize(
    "text",
    [
        *("2026-11-27T19:57:52Z", "2026-11-27T19:57:52.123Z", "2026-11-27T19:57:52+02:00"),
        *("Fri, 27 Nov 2026 19:57:52 GMT", "1764273472"),
    ],
)
def test_times_are_those_of_botocore(text: str) -> None:
    assert s3_http.moment(text) == parse_timestamp(text).replace(microsecond=0)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-27T19:57:52Z"])
def test_what_is_no_time_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (of whichever parser)
        s3_http.moment(text)
