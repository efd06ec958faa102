"""XML as Aliyun OSS writes and reads it, for the test server."""

from __future__ import annotations

import time as clock
from collections.abc import Iterable, Sized
from xml.etree import ElementTree
from xml.sax.saxutils import escape


def parsed(xml: bytes) -> ElementTree.Element:
    """Return the root of a document."""
    return ElementTree.fromstring(xml)  # noqa: S314  (of the test)


def time(seconds: float) -> str:
    """Return a time as the service writes it."""
    return clock.strftime("%Y-%m-%dT%H:%M:%S.000Z", clock.gmtime(seconds))


def element(name: str, value: object) -> str:
    """Return an element that holds a value."""
    return f"<{name}>{escape(str(value))}</{name}>"


def truncated(page: Sized, listing: Sized) -> str:
    """Return the element that says whether a page is not the last."""
    return element("IsTruncated", str(len(page) < len(listing)).lower())


def grouped(keys: Iterable[str], prefix: str, delimiter: str) -> list[str]:
    """Return keys, and what they begin with up to a delimiter, in the order of their bytes."""
    names = set()
    for key in keys:
        if key.startswith(prefix):
            head, mark, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            names.add(prefix + head + mark if mark else key)
    return sorted(names, key=str.encode)
