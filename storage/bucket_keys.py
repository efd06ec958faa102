"""What all stores of buckets share: the keys of objects for their names, and checks of options."""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from storage.keys import Address, StorageKeys
from tools.base.errors import ConfigError
from tools.flow import store
from tools.modules import work_store
from tools.modules.options import Duration, option

MIB = 1 << 20
MAX_PARTS = 9_000  # of one object; S3 and OSS allow 10,000
_LARGEST_PART = 512  # MiB: 9,000 of them are within the 5 TiB of one object
PLAINTEXT = "the connection is not encrypted, and the host is public"
_RUN_ID = 15  # characters: the names of a run begin with its ID
_MANY = 20  # runs of which the folder is listed rather than each of them
_PRIVATE = (".local", ".localhost", ".internal", ".lan", ".home.arpa", ".test")
_RECORDS = (".sig", ".signer.json")
_PASSING = re.compile(r"\.(?:UNFINISHED|PINNED|cleaned-[0-9]+\.json)\Z")
# What a key cannot hold, and what looks like an escape already.
_ESCAPED = re.compile("[\0-\x1f\x7f\ud800-\udfff\ufffe\uffff]|%(?=[0-9A-F]{2})")
_ESCAPE = re.compile(r"(?:%[0-9A-F]{2})+")


def is_record(name: str) -> bool:
    """Return whether an object is no part of an item: a manifest, a signature, a marker."""
    folder, _, file = name.rpartition("/")
    return folder == store.OWN_FOLDER or file.endswith(_RECORDS) or work_store.is_record(file)


def is_passing(name: str) -> bool:
    """Return whether an object is meant to be removed soon, so that no lock is put on it.

    Markers, probes, and what clean-up and pins note: all that protects no content of a run.
    """
    folder, _, file = name.rpartition("/")
    return folder == store.OWN_FOLDER or bool(_PASSING.search(file))


def lock(kind: str, days: int, *, bypass: bool = False) -> str:
    """Return what a lock means for the backups, and for the bill.

    bypass: whether an account may have the right to remove locked objects
    """
    who = " without the right to bypass it" if bypass else ""
    return (
        f"{kind}: nobody{who} can destroy a run within {days} days; runs older than {days} days "
        f"are not protected; {days} days of daily change are paid for, whatever clean-up removes"
    )


def keys_of(scheme: str, address: Address, endpoint_key: str) -> dict[str, str]:
    """Return the keys of a bucket by its address: SCHEME://BUCKET/PREFIX. Raises ConfigError."""
    if not address.host or address.user or address.port:
        raise ConfigError(
            f"--store: {scheme}:// needs a bucket, without a user and without a port",
            f"Write {scheme}://BUCKET/PREFIX, and the server as --endpoint URL.",
        )
    keys = {"BUCKET_NAME": address.host, "PREFIX": address.path, endpoint_key: address.endpoint}
    return {key: value for key, value in keys.items() if value}


@dataclass(frozen=True)
class BucketOptions(StorageKeys):
    """The keys of every store that lies in a bucket."""

    bucket_name: str = option(
        "s3, oss: bucket; oss: default that of ALIYUN_CREDENTIALS", default=""
    )
    prefix: str = option(
        "s3, oss: folder in the bucket; the folders of the hosts are in it", default=""
    )
    region: str = option(
        "s3, oss: region of the bucket; oss: default that of the server's name", default=""
    )
    storage_class: str = option(
        "s3, oss: storage class of parts; manifests, signatures and markers stay standard",
        default="",
    )
    part_size: int = option(
        "s3, oss: MiB of one part of an upload; all parts of an object are equally long",
        default=16,
        least=5,
        unit="MiB",
    )
    connect_timeout: Duration = option(
        "s3, oss, ssh: seconds until the server must answer", default=Duration(30.0)
    )
    read_timeout: Duration = option(
        "s3, oss: seconds until the next bytes of an answer", default=Duration(60.0)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.prefix.strip("/").split("/") if self.prefix.strip("/") else []
        if any(name in ("", ".", "..") for name in names) or "\0" in self.prefix:
            raise ConfigError(f"PREFIX: {self.prefix!r}: not a folder", "Write it as A/B.")
        for key, seconds in (
            ("CONNECT_TIMEOUT", self.connect_timeout),
            ("READ_TIMEOUT", self.read_timeout),
        ):
            if seconds <= 0:
                raise ConfigError(f"{key}: {seconds:g}: must be above 0", "Set it in seconds.")
        if self.part_size > _LARGEST_PART:
            raise ConfigError(
                f"PART_SIZE: {self.part_size} is more than {_LARGEST_PART}",
                f"Set the number of MiB, from 5 to {_LARGEST_PART}.",
            )


def groups(keys: Sequence[str]) -> Mapping[str, list[str]]:
    """Return keys by what they begin with: one list serves those of one run.

    Of many runs one list of their folder does, which is fewer pages.
    """
    by_prefix: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        folder, slash, file = key.rpartition("/")
        by_prefix[f"{folder}{slash}{file[:_RUN_ID]}"].append(key)
    if len(by_prefix) > _MANY:
        by_prefix.clear()
        for key in keys:
            by_prefix["".join(key.rpartition("/")[:2])].append(key)
    return {some[0] if len(some) == 1 else prefix: some for prefix, some in by_prefix.items()}


def is_public_plaintext(url: str) -> bool:
    """Return whether a URL is http to a host that is neither this machine nor a private network."""
    parts = urlsplit(url)
    host = str(parts.hostname)
    if parts.scheme != "http":
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith(_PRIVATE)


class Keys:
    """Keys below a prefix. Characters that no key can hold are escaped as %0A."""

    def __init__(self, prefix: str) -> None:
        """Name objects below a prefix, "" for the whole bucket."""
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def of(self, name: str) -> str:
        """Return the key of an object."""
        return self.prefix + _ESCAPED.sub(_escaped, name)

    def folder(self, name: str) -> str:
        """Return what the keys of a folder begin with."""
        return f"{self.of(name)}/"

    def name(self, key: str) -> str:
        """Return the name of an object."""
        return _ESCAPE.sub(_plain, key[len(self.prefix) :])


def _escaped(match: re.Match[str]) -> str:
    raw = match[0].encode("utf-8", "surrogateescape")
    return "".join(f"%{byte:02X}" for byte in raw)


def _plain(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "surrogateescape")
