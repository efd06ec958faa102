"""The account of Aliyun OSS: the credentials file of alicmd, or the environment; the endpoint.

The file is that of the documented system: `access_id`, `access_key`, `host` and `bucket`, each on
a line of its own. Sections, comments and all other lines are skipped. The names that ossutil
writes (accessKeyID, accessKeySecret, stsToken, endpoint) are known as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from storage.bucket_keys import is_public_plaintext
from tools.base import foreign, masking, permissions
from tools.base.errors import ConfigError, in_words

DEFAULT_FILE = Path("/etc/.alioss.conf")
_LARGEST = 1 << 20  # bytes of a credentials file
_NAMES = {
    **dict.fromkeys(("access_id", "accesskeyid", "access_key_id"), "key_id"),
    **dict.fromkeys(("access_key", "accesskeysecret", "access_key_secret"), "secret"),
    **dict.fromkeys(("sts_token", "ststoken", "security_token"), "token"),
    **dict.fromkeys(("host", "endpoint"), "host"),
    "bucket": "bucket",
    "region": "region",
}
_WRITTEN = {"key_id": "access_id", "secret": "access_key"}
# As oss2 and ossutil name them.
_VARIABLES = {
    "key_id": "OSS_ACCESS_KEY_ID",
    "secret": "OSS_ACCESS_KEY_SECRET",
    "token": "OSS_SESSION_TOKEN",
}
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_WORD = re.compile(r"[!-~]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+")
_ALIYUN = ".aliyuncs.com"
_INTERNAL = "-internal"
_OLD_HOSTS = ".aliyun.com"  # of the time before regions: storage.aliyun.com
_EXAMPLE = "for example oss-cn-hangzhou.aliyuncs.com"


class Keys(Protocol):
    """The keys of a section that say which account is used."""

    @property
    def bucket_name(self) -> str:
        """Bucket; "" for that of the file."""

    @property
    def aliyun_credentials(self) -> Path | None:
        """Return the file; None for the environment or the default file."""

    @property
    def endpoint(self) -> str:
        """Server; "" for that of the file."""

    @property
    def region(self) -> str:
        """Region; "" for that of the endpoint."""


@dataclass(frozen=True)
class Endpoint:
    """A server of OSS. region: "" where its name does not say it; internal: only inside Aliyun."""

    url: str
    region: str = ""
    internal: bool = False

    @property
    def host(self) -> str:
        """Return the name of the server."""
        return str(urlsplit(self.url).hostname)

    @property
    def is_exposed(self) -> bool:
        """Return whether requests pass a public network in plain text."""
        return not self.internal and is_public_plaintext(self.url)

    @property
    def other(self) -> str:
        """Return the internal name of a public server of Aliyun, or the reverse; "" for others."""
        label = self.host.removesuffix(_ALIYUN)
        if label == self.host or not self.region or "." in label:
            return ""
        changed = label.removesuffix(_INTERNAL) if self.internal else label + _INTERNAL
        return changed + _ALIYUN


@dataclass(frozen=True)
class Account:
    """Whose bucket is used. source: where the credentials were found; region: "" if unknown."""

    key_id: str
    bucket: str
    endpoint: Endpoint
    region: str
    source: str
    secret: str = field(repr=False)
    token: str = field(repr=False, default="")


def of(keys: Keys) -> Account:
    """Return the account of a section; its secrets are masked from now on. Raises ConfigError."""
    lines, source = _account_lines(keys)
    for name in ("key_id", "secret"):
        if not lines.get(name):
            raise ConfigError(
                f"{source}: {_WRITTEN[name]} is missing",
                f"Add a line {_WRITTEN[name]} = ... with the access key of the RAM user.",
            )
    for secret in ("secret", "token"):
        masking.add(lines.get(secret, ""))
    if any(not one.isprintable() or " " in one for one in map(lines.get, _VARIABLES) if one):
        raise ConfigError(
            f"{source}: the access key contains a space or a control character",
            "Write it again, on one line.",
        )
    bucket = keys.bucket_name or lines.get("bucket", "")
    check_bucket(bucket, source)
    server = _endpoint(keys, lines, source, bucket)
    region = keys.region or server.region or lines.get("region", "")
    return Account(
        key_id=lines["key_id"],
        bucket=bucket,
        endpoint=server,
        region=region.removeprefix("oss-"),
        source=source,
        secret=lines["secret"],
        token=lines.get("token", ""),
    )


def _account_lines(keys: Keys) -> tuple[Mapping[str, str], str]:
    """Return the lines of the account and where they stand.

    The file that the section names; else the variables; else the default file.
    """
    if keys.aliyun_credentials is None and os.environ.get(_VARIABLES["key_id"]):
        lines: dict[str, str] = {key: os.environ.get(one, "") for key, one in _VARIABLES.items()}
        others = _lines(DEFAULT_FILE) if os.access(DEFAULT_FILE, os.R_OK) else {}
        settings = {name: one for name, one in others.items() if name not in _VARIABLES}
        return {**settings, **lines}, "environment"
    path = keys.aliyun_credentials or DEFAULT_FILE
    return _lines(path), f"ALIYUN_CREDENTIALS: {path}"


def _lines(path: Path) -> dict[str, str]:
    """Return the known lines of a credentials file. Raises ConfigError."""
    try:
        permissions.check_secret("ALIYUN_CREDENTIALS", path)
        text = foreign.content(path, _LARGEST).decode("utf-8-sig", "replace")
    except OSError as error:
        raise ConfigError(
            f"ALIYUN_CREDENTIALS: {in_words(error)[0]}",
            "Set ALIYUN_CREDENTIALS to a file with the lines access_id, access_key and host "
            "(chmod 0600), or set OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET.",
        ) from None
    return parsed(text)


def parsed(text: str) -> dict[str, str]:
    """Return the values of a credentials file by our names; unknown lines are skipped."""
    values: dict[str, str] = {}
    for line in foreign.lines(text):
        mark = "=" if "=" in line else ":"
        name, marked, value = line.partition(mark)
        known = _NAMES.get(name.strip().lower())
        if marked and known:
            values[known] = _value(value)
    return values


def _value(text: str) -> str:
    """Return a value without its comment and quotes."""
    spaced = text.replace("\t", " ")
    value = spaced.partition(" #")[0].strip()
    quoted = value[:1] in ("'", '"') and value[:1] == value[-1:] and len(value) > 1
    return value[1:-1] if quoted else value


def check_bucket(bucket: str, source: str) -> None:
    """Raise ConfigError unless this can be the name of a bucket."""
    if not bucket:
        raise ConfigError(
            f"BUCKET_NAME: is missing, and {source} names no bucket",
            "Set BUCKET_NAME to the name of the bucket.",
        )
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(
            f"BUCKET_NAME: {bucket!r}: not the name of a bucket",
            "Write the name alone, without oss:// and without a slash; a folder is PREFIX.",
        )


def _endpoint(keys: Keys, lines: Mapping[str, str], source: str, bucket: str) -> Endpoint:
    if keys.endpoint:
        return endpoint(keys.endpoint, "ENDPOINT", bucket)
    if keys.region and not lines.get("host"):
        return endpoint(f"oss-{keys.region.removeprefix('oss-')}{_ALIYUN}", "REGION", bucket)
    if not lines.get("host"):
        raise ConfigError(
            f"{source}: host is missing, and ENDPOINT is not set",
            f"Set ENDPOINT (restore.py: --endpoint) to the server of the bucket, {_EXAMPLE}.",
        )
    return endpoint(lines["host"], f"{source}: host", bucket)


def endpoint(text: str, key: str, bucket: str = "") -> Endpoint:
    """Return the server that a text names; without a scheme it is https. Raises ConfigError."""
    url = (text if "://" in text else f"https://{text}").rstrip("/")
    try:
        parts = urlsplit(url)
        host = str(parts.hostname or "")
        port = f":{parts.port}" if parts.port else ""
        more = parts.path or parts.query or parts.fragment or parts.username
        plain = bool(_WORD.fullmatch(text)) and not more
    except ValueError:
        host, port, plain = "", "", False
    if not _HOST.fullmatch(host) or not plain or parts.scheme not in ("http", "https"):
        raise ConfigError(
            f"{key}: {masking.quoted(text)}: not the name of a server", f"Set it {_EXAMPLE}."
        )
    if host.endswith(_OLD_HOSTS):
        raise ConfigError(
            f"{key}: {host} is a server of the time before regions, and no longer answers",
            f"Set ENDPOINT to the server of the bucket's region, {_EXAMPLE}.",
        )
    if bucket and host.startswith(f"{bucket}."):
        host = host.removeprefix(f"{bucket}.")
    if host.startswith("s3.") and host.endswith(_ALIYUN):
        raise ConfigError(f"{key}: {host}: is the S3 interface of OSS", "Remove `s3.` from it.")
    region, internal = _region(host)
    return Endpoint(f"{parts.scheme}://{host}{port}", region, internal)


def _region(host: str) -> tuple[str, bool]:
    """Return the region that the name of a server says, and whether it is an internal one."""
    label = host.removesuffix(_ALIYUN)
    if label == host:
        return "", False
    internal = label.endswith(_INTERNAL)
    label = label.removesuffix(_INTERNAL)
    if label == "oss":
        return "cn-hangzhou", internal
    if label.endswith(".oss"):  # for IPv6: cn-hangzhou.oss.aliyuncs.com
        return label.removesuffix(".oss"), internal
    region = label.rpartition("oss-")[2] if "oss-" in label else ""
    return ("" if region.startswith("accelerate") else region), internal
