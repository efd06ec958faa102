"""The keys of a section with DESTINATION s3."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import SplitResult, urlencode, urlsplit

from storage.bucket_keys import BucketOptions
from tools.base import masking
from tools.base.errors import ConfigError
from tools.modules.options import Strings, option

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]|arn:[!-~]+")
_OSS = ".aliyuncs.com"


class Addressing(Enum):
    """Where the bucket stands in URLs."""

    AUTO = "auto"
    PATH = "path"
    VIRTUAL = "virtual"


class ChecksumMode(Enum):
    """Which checksums are sent with objects and parts."""

    AUTO = "auto"
    WHEN_SUPPORTED = "when_supported"
    WHEN_REQUIRED = "when_required"


@dataclass(frozen=True)
class Options(BucketOptions):
    """The keys of a section with DESTINATION s3."""

    endpoint_url: str = option(
        "s3: URL of the server; default: the environment or the profile of AWS, else Amazon",
        default="",
    )
    profile: str = option("s3: profile in the AWS config of the user", default="")
    addressing: Addressing = option(
        "s3: place of the bucket in URLs: auto, path or virtual", default=Addressing.AUTO
    )
    sse: str = option("s3: encryption by the server: AES256 or aws:kms", default="")
    kms_key: str = option("s3: key of the encryption aws:kms", default="")
    object_lock_mode: str = option("s3: GOVERNANCE or COMPLIANCE", default="")
    object_lock_days: int = option(
        "s3: days for which an object is locked, with OBJECT_LOCK_MODE", default=0, least=0
    )
    tags: Strings = option("s3: tags of every object, each as NAME=VALUE", default=())
    ca_bundle: Path | None = option(
        "s3: file of the certificate authorities that are trusted", default=None
    )
    checksum_mode: ChecksumMode = option(
        "s3: auto, when_supported (SHA-256 and CRC32) or when_required (Content-MD5)",
        default=ChecksumMode.AUTO,
    )
    upload_command: str = option(
        "s3: program that uploads parts, called as COMMAND FILE s3://BUCKET/HOSTNAME/FILE; "
        "default: the built-in upload",
        default="",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bucket_name:
            raise ConfigError(
                "BUCKET_NAME is required with DESTINATION s3", "Set it to the name of the bucket."
            )
        if not _BUCKET.fullmatch(self.bucket_name):
            raise ConfigError(
                f"BUCKET_NAME: {self.bucket_name!r}: not the name of a bucket",
                "Write the name alone, without s3:// and without a slash; a folder is PREFIX.",
            )
        if self.endpoint_url:
            check_endpoint(self.endpoint_url)
        _check_choices(self)
        _check_lock(self)
        _check_tags(self.tags)
        _check_command(self.upload_command)

    @property
    def url(self) -> str:
        """Return s3://BUCKET/PREFIX, without a slash at its end."""
        return "/".join(filter(None, (f"s3://{self.bucket_name}", self.prefix.strip("/"))))

    @property
    def location(self) -> str:
        """Return the folder and its server, for comparison with other sections."""
        server = self.endpoint_url or (f"profile {self.profile}" if self.profile else "")
        return f"{self.url} at {server.rstrip('/')}" if server else self.url

    @property
    def tagging(self) -> str:
        """Return the tags as S3 takes them, one URL query; "" for none."""
        return urlencode(dict(tag.split("=", 1) for tag in self.tags))


def check_endpoint(url: str, key: str = "ENDPOINT_URL") -> SplitResult:
    """Return the parts of the URL of a server. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        complete = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        complete = False
    if not complete or not re.fullmatch(r"[!-~]+", url):
        raise ConfigError(
            f"{key}: {masking.quoted(url)}: not the URL of a server",
            "Begin it with https://, for example https://s3.example.com:9000.",
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"{key}: must be a server without user, password or query",
            "Keep the credentials in the AWS config of the user, or in AWS_ACCESS_KEY_ID.",
        )
    if str(parts.hostname).endswith(_OSS):
        raise ConfigError(
            f"{key}: {parts.hostname}: Aliyun OSS does not keep objects from being overwritten "
            "by its S3 interface",
            "Set DESTINATION to oss.",
        )
    return parts


def _check_choices(options: Options) -> None:
    choices = (
        ("SSE", options.sse, ("AES256", "aws:kms", "aws:kms:dsse")),
        ("OBJECT_LOCK_MODE", options.object_lock_mode, ("GOVERNANCE", "COMPLIANCE")),
    )
    for key, value, known in choices:
        if value and value not in known:
            raise ConfigError(f"{key}: {value!r}: invalid value", f"Use {' or '.join(known)}.")
    if options.kms_key and not options.sse.startswith("aws:kms"):
        raise ConfigError("KMS_KEY is used with SSE aws:kms alone", "Set SSE to aws:kms.")


def _check_lock(options: Options) -> None:
    if bool(options.object_lock_mode) != bool(options.object_lock_days):
        raise ConfigError(
            "OBJECT_LOCK_MODE and OBJECT_LOCK_DAYS belong together", "Set both, or remove both."
        )


def _check_tags(tags: Strings) -> None:
    for tag in tags:
        name, equals, _value = tag.partition("=")
        if not name or not equals:
            raise ConfigError(f"TAGS: {tag!r}: not NAME=VALUE", "Write TAGS as team=ops host=web.")


def _check_command(command: str) -> None:
    try:
        shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"UPLOAD_COMMAND: {error}", "Check its quotes.") from None
