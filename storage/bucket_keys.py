"""What all stores of buckets share: the keys of objects for their names, and checks of options."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from tools.base.errors import ConfigError
from tools.flow import store
from tools.modules.work_store import STORE_ENDINGS

PLAINTEXT = "the connection is not encrypted, and the host is public"
_PRIVATE = (".local", ".localhost", ".internal", ".lan", ".home.arpa", ".test")
_RECORDS = (*STORE_ENDINGS, ".sig", ".signer.json")
# What a key cannot hold, and what looks like an escape already.
_ESCAPED = re.compile("[\0-\x1f\x7f\ud800-\udfff\ufffe\uffff]|%(?=[0-9A-F]{2})")
_ESCAPE = re.compile(r"(?:%[0-9A-F]{2})+")


def is_record(name: str) -> bool:
    """Return whether an object is no part of an item: a manifest, a signature, a marker."""
    folder, _, file = name.rpartition("/")
    return folder == store.OWN_FOLDER or file.endswith(_RECORDS)


def check_prefix(prefix: str) -> None:
    """Raise ConfigError unless PREFIX can be a folder of a bucket; "" is all of it."""
    names = prefix.strip("/").split("/") if prefix.strip("/") else []
    if any(name in ("", ".", "..") for name in names) or "\0" in prefix:
        raise ConfigError(f"PREFIX: {prefix!r}: not a folder", "Write it as A/B.")


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
        """prefix: folder of the bucket, "" for all of it"""
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


def _escaped(found: re.Match[str]) -> str:
    raw = found[0].encode("utf-8", "surrogateescape")
    return "".join(f"%{byte:02X}" for byte in raw)


def _plain(found: re.Match[str]) -> str:
    return bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "surrogateescape")
