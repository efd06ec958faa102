"""An item as a store holds it: the record that manifests consist of (docs/manifest.md)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tools.base import run_ids
from tools.flow.facts import Json

_SHA256 = re.compile(r"[0-9a-f]{64}")
EARLIER = "EARLIER"  # section of what an earlier staged run left and this one stored
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST = 100  # bytes of an item's name in the names of its parts
_MOST_SIZE = (1 << 63) - 1  # bytes of an item or a part: what file systems can hold
_MOST_SECONDS = 1e9  # of an item: about 30 years


@dataclass(frozen=True)
class Part:
    """One part as it lies in the store: its name beside the manifest, bytes, SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class StoredItem:
    """One restorable thing as it is stored.

    kind:   what restores it ("fileset", "file" ...)
    form:   how it is stored: "parts" joined in this order
    references: further objects that the form needs, by what they are for
    ending: of the data before the first stage (".tar")
    stages: in the order in which they were applied ("zstd", "age")
    size, sha256: of the data before the first stage; None where they are not known, and the SHA-256
        as well where zstd keeps a checksum of the data
    facts:  versions of tools, positions: the JSON object of tools.flow.facts for the kind
    base:   the run that an incremental item was added to; None for a full one
    warnings: what is missing from it or cut; notes: what was left out by rule, or is worth knowing
    suspicious: why the guard of the run took it for a bad copy; grave: whether so bad that `latest`
        must not select it (tools.flow.anomaly)
    seconds: how long its stream was read, from the first byte to the end; None where not known
    problem: why the record must not be used: it is invalid; "" for a good one (never stored)
    """

    section: str
    name: str
    kind: str
    ending: str
    stages: tuple[str, ...]
    parts: tuple[Part, ...]
    size: int | None = None
    sha256: str | None = None
    form: str = "parts"
    references: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)
    facts: Mapping[str, Json] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    base: str | None = None
    suspicious: tuple[str, ...] = ()
    grave: bool = False
    seconds: float | None = None
    problem: str = ""

    @property
    def label(self) -> str:
        """Return its name in messages: SECTION/name, or SECTION for the one item of a section."""
        return f"{self.section}/{self.name}" if self.name else self.section

    @property
    def stored(self) -> int:
        """Return the bytes of its parts."""
        return sum(part.size for part in self.parts)


def quoted(text: str) -> str:
    """Return the name of a section or an item for names of parts: percent-encoded, bounded.

    Dots are encoded as well, so that a name can be taken apart. A longer one is cut, with a
    digest of the whole at its end: the manifest has the whole name.
    """
    encoded = quote(text.encode("utf-8", "surrogateescape"), safe="-_").replace(".", "%2E")
    encoded = encoded.replace("~", "%7E")
    if len(encoded) <= _LONGEST:
        return encoded
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{encoded[: _LONGEST - 13].rstrip('%')}~{digest}"


def item_of(record: Mapping[str, Any]) -> StoredItem:
    """Return an item from its JSON object, every field checked.

    Raises KeyError, TypeError or ValueError where it is none.
    """
    parts = tuple(_part(entry) for entry in list_of(record, "parts", dict))
    digest = record.get("sha256")
    facts = dict(record.get("facts", {})) if isinstance(record.get("facts", {}), dict) else None
    if facts is None:
        raise ValueError("facts is not an object")
    base = record.get("base", facts.pop("base", None))  # a fact in version 1
    return StoredItem(
        section=text_of(record, "section", is_word),
        name=text_of(record, "name", is_writable),
        kind=text_of(record, "kind", is_word),
        ending=text_of(record, "ending", _is_ending),
        stages=_stages(record),
        parts=parts,
        size=None if record.get("size") is None else number_of(record, "size"),
        sha256=None if digest is None else text_of(record, "sha256", is_digest),
        form=text_of(record, "form"),
        references=_references(record.get("references", {})),
        facts=facts,
        warnings=tuple(list_of(record, "warnings", str)),
        notes=tuple(list_of(record, "notes", str)) if "notes" in record else (),
        base=None if base is None else text_of({"base": base}, "base", run_ids.is_run_id),
        suspicious=tuple(list_of(record, "suspicious", str)) if "suspicious" in record else (),
        grave=record.get("grave") is True,
        seconds=_seconds_of(record),
    )


def _seconds_of(record: Mapping[str, Any]) -> float | None:
    """Return a duration, which earlier versions do not record. Raises ValueError."""
    value = record.get("seconds")
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= _MOST_SECONDS:
        raise ValueError(f"seconds: {repr(value)[:80]} is not a duration")
    return float(value)


def _stages(record: Mapping[str, Any]) -> tuple[str, ...]:
    stages = tuple(list_of(record, "stages", str))
    if not all(map(is_word, stages)):
        raise ValueError(f"stages: {str(stages)[:80]} is not valid")
    return stages


def _references(value: object) -> Mapping[str, tuple[Part, ...]]:
    if not isinstance(value, dict):
        raise ValueError("references")
    return {name: tuple(map(_part, list_of(value, name, dict))) for name in value}


def _part(record: Mapping[str, Any]) -> Part:
    return Part(
        text_of(record, "name", is_file_name),
        number_of(record, "size"),
        text_of(record, "sha256", is_digest),
    )


def is_file_name(text: str) -> bool:
    """Return whether a text is a file name in the same folder, which leads nowhere else."""
    return bool(text) and "/" not in text and text not in (".", "..") and is_writable(text)


def is_writable(text: str) -> bool:
    """Return whether a file can have this name: no NUL, and bytes that it stands for (PEP 383)."""
    if not text.isascii():
        try:
            text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return False
    return "\0" not in text


def is_word(text: str) -> bool:
    """Return whether a text can name a section, a kind or a stage: no control characters."""
    if text.isascii():
        return text.isprintable()
    return is_writable(text) and not _CONTROL.search(text)


def _is_ending(text: str) -> bool:
    return "/" not in text and is_word(text)


def is_digest(text: str) -> bool:
    """Return whether a text is a SHA-256 in hexadecimal."""
    return bool(_SHA256.fullmatch(text))


def text_of(
    record: Mapping[str, Any], key: str, good: Callable[[str], object] | None = None
) -> str:
    """Return the text under a key. Raises KeyError or ValueError."""
    value = record[key]
    if not isinstance(value, str) or (good is not None and not good(value)):
        raise ValueError(f"{key}: {str(value)[:80]!r} is not valid")
    return value


def optional(record: Mapping[str, Any], key: str) -> str:
    """Return a text that manifests of earlier versions do not have; "" where it is missing."""
    return text_of(record, key) if key in record else ""


def number_of(record: Mapping[str, Any], key: str) -> int:
    """Return a size in bytes. Raises KeyError or ValueError."""
    value = record[key]
    if type(value) is not int or not 0 <= value <= _MOST_SIZE:
        raise ValueError(f"{key}: {repr(value)[:80]} is not a size")
    return value


def list_of(record: Mapping[str, Any], key: str, kind: type[object]) -> Sequence[Any]:
    """Return a list of values of one type. Raises KeyError or ValueError."""
    value = record[key]
    if not isinstance(value, list) or (value and not all(isinstance(one, kind) for one in value)):
        raise ValueError(f"{key} is not a list of {kind.__name__}")
    return value
