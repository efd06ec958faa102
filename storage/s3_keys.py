"""Keys of objects in a bucket for the names of objects in a store."""

from __future__ import annotations

import re

from tools.flow import store
from tools.modules.work_store import STORE_ENDINGS

_RECORDS = (*STORE_ENDINGS, ".sig", ".signer.json")
# What a key cannot hold, and what looks like an escape already.
_ESCAPED = re.compile("[\0-\x1f\x7f\ud800-\udfff\ufffe\uffff]|%(?=[0-9A-F]{2})")
_ESCAPE = re.compile(r"(?:%[0-9A-F]{2})+")


def is_record(name: str) -> bool:
    """Return whether an object is no part of an item: a manifest, a signature, a marker."""
    folder, _, file = name.rpartition("/")
    return folder == store.OWN_FOLDER or file.endswith(_RECORDS)


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
