"""The manifest: the record that makes a run exist (docs/manifest.md, docs/manifest.schema.json).

Written last, once, never over another. It says what restore, verify and clean-up need,
without any key; nothing private stands in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

from tools import date_str_utils
from tools.errors import BackupError

VERSION = 1
ENDING = ".manifest.json"
RECOVERY = ".RECOVERY.txt"
_NAME = re.compile(rf"(?P<run_id>[0-9]{{8}}_[0-9]{{6}}){re.escape(ENDING)}")
_RUN_ID = re.compile(r"[0-9]{8}_[0-9]{6}")
_STATUS = re.compile(r"[a-z]{1,20}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FORMS = ("parts",)
_LONGEST = 100  # bytes of an item's name in the names of its parts
_MOST_BYTES = 256 << 20  # of a manifest that is read
_MOST_SIZE = (1 << 63) - 1  # bytes of an item or a part: what file systems can hold
_AHEAD = timedelta(days=1)  # a run later than this from now was made with a wrong clock


class ManifestError(BackupError):
    """A manifest that is none, is not whole, or is of a later version."""


@dataclass(frozen=True)
class Part:
    """One part as it lies in the store: its name beside the manifest, bytes, SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Item:
    """One restorable thing as it is stored.

    kind:   what restores it ("fileset", "file" ...)
    form:   how it is stored: "parts" joined in this order
    ending: of the data before the first stage (".tar")
    stages: in the order in which they were applied ("zstd", "age")
    size, sha256: of the data before the first stage; None where it is not known
    facts:  versions of tools, positions
    warnings: what is missing from it or cut; notes: what was left out by rule, or is worth knowing
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
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """How people call it: SECTION/name, or SECTION for the one item of a section."""
        return f"{self.section}/{self.name}" if self.name else self.section

    @property
    def stored(self) -> int:
        """The bytes of its parts."""
        return sum(part.size for part in self.parts)


@dataclass(frozen=True)
class Manifest:
    """One run in one store.

    begin, end: UTC, to the second, ISO 8601
    mode:   "staged" or "streamed"
    status: of all that this store should hold, when the manifest was written (DESIGN 8)
    base:   the newest run that an item of this one was added to; None where all are full
    config: SHA-256 of the config, without its secrets
    machine, machine_name: which machine made it: its id (tools.identity) and its node name
    config_id, config_file: which config made it, whatever was changed in it since; and its path
    missing: items of this run that this store does not hold, SECTION/name
    """

    host: str
    run_id: str
    begin: str
    end: str
    mode: str
    status: str
    items: tuple[Item, ...]
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    config: str = ""
    base: str | None = None
    program: str = ""
    machine: str = ""
    machine_name: str = ""
    config_id: str = ""
    config_file: str = ""
    version: int = VERSION

    @property
    def size(self) -> int:
        """The bytes of all parts."""
        return sum(item.stored for item in self.items)

    @property
    def good(self) -> bool:
        """Whether the run stored all of it here; some files may have been unreadable."""
        return self.status in ("ok", "incomplete", "unclean", "unreported") and not self.missing

    def to_json(self) -> bytes:
        """The file's bytes: sorted, indented, so that two of them can be compared by eye."""
        whole = dataclasses.asdict(self)
        return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def quoted(text: str) -> str:
    """A section's or an item's name as it stands in names of parts: percent-encoded, bounded.

    Dots are encoded as well, so that a name can be taken apart. A longer one is cut, with a
    digest of the whole at its end: the manifest has the whole name.
    """
    found = quote(text.encode("utf-8", "surrogateescape"), safe="-_").replace(".", "%2E")
    found = found.replace("~", "%7E")
    if len(found) <= _LONGEST:
        return found
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{found[: _LONGEST - 13].rstrip('%')}~{digest}"


def name_of(run_id: str) -> str:
    """The manifest's name beside its parts."""
    return run_id + ENDING


def run_of(name: str) -> str:
    """The run id in the name of a manifest; "" for another name."""
    found = _NAME.fullmatch(name)
    return found["run_id"] if found else ""


def run_in(name: str) -> str:
    """The run id that any name of a run's files begins with; "" for another name."""
    found = _RUN_ID.match(name.lstrip("."))
    return found[0] if found else ""


def now() -> str:
    """The time for `begin` and `end`."""
    return stamp(datetime.now(timezone.utc))


def stamp(moment: datetime) -> str:
    """A moment as the manifest writes it."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def time_of(run_id: str) -> datetime:
    """When a run began. Raises ValueError for what is no run id."""
    return datetime.strptime(run_id, date_str_utils.RUN_ID).replace(tzinfo=timezone.utc)


def in_future(run_id: str) -> bool:
    """Return whether a run began more than a day from now: the clock was wrong when it was made.

    Also true for a name that is no time at all (month 13).
    """
    try:
        return time_of(run_id) > datetime.now(timezone.utc) + _AHEAD
    except ValueError:
        return True


def read(raw: bytes, called: str) -> Manifest:
    """A manifest from its bytes, every field checked; `called` names it in errors.

    Keys that are not known are skipped: a later version may add some. A later VERSION means
    that skipping would be wrong. Raises ManifestError.
    """
    if len(raw) > _MOST_BYTES:
        raise ManifestError(f"{called}: is larger than any manifest", "Is it another file?")
    try:
        given = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ManifestError(
            f"{called}: is no whole manifest ({error})", "It was cut or altered: use another copy."
        ) from None
    if not isinstance(given, dict):
        raise ManifestError(f"{called}: is no manifest", "It was altered: use another copy.")
    version = given.get("version")
    if type(version) is int and version > VERSION:
        raise ManifestError(
            f"{called}: is of version {version}, and this program knows up to {VERSION}",
            "Use the program that wrote it, or a later one.",
        )
    try:
        return _manifest(given)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ManifestError(
            f"{called}: is no manifest ({what})", "It was altered: use another copy."
        ) from None


def _manifest(given: Mapping[str, Any]) -> Manifest:
    if given["version"] != VERSION:
        raise ValueError("version")
    run_id = _text(given, "run_id", _is_run_id)
    found = Manifest(
        host=_text(given, "host", _is_file_name),
        run_id=run_id,
        begin=_text(given, "begin"),
        end=_text(given, "end"),
        mode=_text(given, "mode"),
        status=_text(given, "status", lambda text: bool(_STATUS.fullmatch(text))),
        items=tuple(_item(entry, run_id) for entry in _list(given, "items", dict)),
        missing=tuple(_list(given, "missing", str)),
        warnings=tuple(_list(given, "warnings", str)),
        config=_text(given, "config"),
        base=None if given.get("base") is None else _text(given, "base", _is_run_id),
        program=_text(given, "program"),
        machine=_optional(given, "machine"),
        machine_name=_optional(given, "machine_name"),
        config_id=_optional(given, "config_id"),
        config_file=_optional(given, "config_file"),
    )
    names = [part.name for item in found.items for part in item.parts]
    if len(set(names)) != len(names):
        raise ValueError("a part stands in it twice")
    called = [item.called for item in found.items]
    if len(set(called)) != len(called):
        raise ValueError("an item stands in it twice")
    return found


def _item(given: Mapping[str, Any], run_id: str) -> Item:
    form = _text(given, "form")
    if form not in _FORMS:
        raise ValueError(f"the form {form!r} is not known")
    parts = tuple(_part(entry) for entry in _list(given, "parts", dict))
    if not parts:
        raise ValueError("an item has no parts")
    digest = given.get("sha256")
    facts = given.get("facts", {})
    if not isinstance(facts, dict) or not all(isinstance(text, str) for text in facts.values()):
        raise ValueError("facts")
    return Item(
        section=_text(given, "section", _is_writable),
        name=_text(given, "name", _is_writable),
        kind=_text(given, "kind", _is_writable),
        ending=_text(given, "ending", lambda text: "/" not in text and _is_writable(text)),
        stages=tuple(_list(given, "stages", str)),
        parts=parts,
        size=None if given.get("size") is None else _number(given, "size"),
        sha256=None if digest is None else _text(given, "sha256", _is_digest),
        form=form,
        facts=facts,
        warnings=tuple(_list(given, "warnings", str)),
        notes=tuple(_list(given, "notes", str)) if "notes" in given else (),
    )


def _part(given: Mapping[str, Any]) -> Part:
    return Part(
        _text(given, "name", _is_file_name),
        _number(given, "size"),
        _text(given, "sha256", _is_digest),
    )


def _is_file_name(text: str) -> bool:
    """A name in the same folder: nothing in it leads elsewhere."""
    return bool(text) and "/" not in text and text not in (".", "..") and _is_writable(text)


def _is_writable(text: str) -> bool:
    """Whether a file can have this name: no NUL, and bytes that it stands for (PEP 383)."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _is_digest(text: str) -> bool:
    return bool(_SHA256.fullmatch(text))


def _is_run_id(text: str) -> bool:
    return bool(_RUN_ID.fullmatch(text))


def _text(
    given: Mapping[str, Any], key: str, good: Callable[[str], bool] = lambda _text: True
) -> str:
    value = given[key]
    if not isinstance(value, str) or not good(value):
        raise ValueError(f"{key}: {str(value)[:80]!r} cannot be it")
    return value


def _optional(given: Mapping[str, Any], key: str) -> str:
    """A text that manifests of earlier versions do not have."""
    return _text(given, key) if key in given else ""


def _number(given: Mapping[str, Any], key: str) -> int:
    value = given[key]
    if type(value) is not int or not 0 <= value <= _MOST_SIZE:
        raise ValueError(f"{key}: {repr(value)[:80]} is no size")
    return value


def _list(given: Mapping[str, Any], key: str, kind: type[Any]) -> Sequence[Any]:
    value = given[key]
    if not isinstance(value, list) or not all(isinstance(entry, kind) for entry in value):
        raise ValueError(f"{key} is no list of what it must be")
    return value
