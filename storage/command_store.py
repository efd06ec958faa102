"""The store of commands: each object is uploaded by a command line of the user's own."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from storage.command_index import SMALL, Index
from storage.command_template import Template
from storage.keys import Address, StorageKeys
from storage.local_store import LocalStore
from tools import filesystem_handling, os_works
from tools.base import foreign, removal
from tools.base.errors import ConfigError, StoreError, TakenError, TransientError, UnsupportedError
from tools.base.log import logger
from tools.flow import process, store, stream
from tools.flow.retries import Retries, SelfRetrying
from tools.flow.store import StoredObject, StoreEntry
from tools.modules.options import Fields, option

_FIELDS = ("OBJECTIVES", "TARGETS", "file", "HOSTNAME")
_PRIVATE = Path(".nc-backup-py")  # the private folder of runs in WORK_FOLDER
_DOWNLOAD = "download-"
_MARK = ".upload"  # in the names of what waits
_LONGEST_DICT = 10_000  # characters of ARGS_DICT
_CANNOT_START = {126, 127}  # exit codes of shells, env and others: not executable, not found
_LONGEST_LIST = 256 << 20  # bytes of the output of LIST_COMMAND_TEMPLATE
_PART = re.compile(r"\.[0-9]{3,}\Z")  # of an item: its bytes are never taken from our list
# `SIZE NAME` (rclone ls, find -printf) or `DATE TIME SIZE NAME` (aws s3 ls)
_LISTED = re.compile(r"\s*(?:\d{4}-\d\d-\d\d\s+\d\d:\d\d:\d\d\s+)?([0-9]{1,19})[\s;]+(\S.*)")


@dataclass(frozen=True)
class Options(StorageKeys):
    """The keys of a section with DESTINATION command (or custom_command, as it was called)."""

    upload_command_template: str = option(
        "command: command line that uploads the file %(OBJECTIVES)s/%(file)s for the host "
        "%(HOSTNAME)s; without %(OBJECTIVES)s it gets the content on standard input",
        default="",
    )
    download_command_template: str = option(
        "command: command line that writes the object to the file %(OBJECTIVES)s/%(file)s; "
        "without %(OBJECTIVES)s to standard output",
        default="",
    )
    list_command_template: str = option(
        "command: command line that prints a line `SIZE NAME` for each object of %(HOSTNAME)s",
        default="",
    )
    delete_command_template: str = option(
        "command: command line that deletes the object %(file)s of %(HOSTNAME)s", default=""
    )
    args_dict: Fields = option(
        "command: further fields for the command lines, as a dictionary", default=Fields("")
    )
    list_empty_code: int = option(
        "command: exit code of LIST_COMMAND_TEMPLATE, with no output, where nothing is stored yet "
        "(`aws s3 ls`: 1, rclone: 3)",
        default=0,
        least=0,
    )
    read_back: bool = option(
        "command: download each object after its upload and compare it, where there is a "
        "DOWNLOAD_COMMAND_TEMPLATE",
        default=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.upload_command_template:
            raise ConfigError(
                f"UPLOAD_COMMAND_TEMPLATE is required with DESTINATION {self.destination}",
                "Set it, for example to: tool put %(OBJECTIVES)s/%(file)s %(HOSTNAME)s/%(file)s",
            )
        self.templates()

    def fields(self) -> Mapping[str, str]:
        """Return the fields of ARGS_DICT. Raises ConfigError."""
        text = self.args_dict.strip() or "{}"
        try:
            fields = ast.literal_eval(text) if len(text) <= _LONGEST_DICT else None
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            fields = None
        if not isinstance(fields, dict) or not all(
            isinstance(one, str) for pair in fields.items() for one in pair
        ):
            raise ConfigError(
                "ARGS_DICT: not a dictionary of texts", "Write it as {'BUCKET': 'name'}."
            )
        return fields

    def templates(self) -> Mapping[str, Template]:
        """Return the command lines that are set, by their keys. Raises ConfigError."""
        known = (*_FIELDS, *self.fields())
        keys = ("upload", "download", "list", "delete")
        texts = {key: getattr(self, f"{key}_command_template") for key in keys}
        return {
            key: Template.parse(f"{key.upper()}_COMMAND_TEMPLATE", text, known)
            for key, text in texts.items()
            if text
        }


def open_store(options: Options) -> store.Store:
    """Return the store; nothing is called yet."""
    return CommandStore(options)


def test(options: Options) -> tuple[str, ...]:
    """Return what was found about the commands; only the list is called. Raises BackupError."""
    for key, template in options.templates().items():
        if shutil.which(template.arguments[0]) is None:
            raise StoreError(
                f"{key.upper()}_COMMAND_TEMPLATE: {template.arguments[0]}: command not found",
                "Install it, or set its absolute path.",
            )
    command_store = CommandStore(options)
    if "list" not in options.templates():
        return (f"{command_store}: the commands exist; only a run can test the upload",)
    count = sum(1 for _ in command_store.entries(options.hostname))
    return (f"{command_store}: LIST_COMMAND_TEMPLATE lists {count} objects of {options.hostname}",)


def describe(options: Options) -> str:
    """Return where the objects of this host lie, for messages."""
    return f"{CommandStore(options)}: {options.hostname}"


def keys_of(_address: Address) -> dict[str, str]:
    """Raise ConfigError: command lines have no address."""
    raise ConfigError(
        "--store: a store of commands has no address",
        "Use -c with a config that has its section, and --store SECTION.",
    )


class CommandStore:
    """A store behind command lines.

    Objects wait in a folder of WORK_FOLDER, and `publish` uploads them: nothing is in the store
    before its item has ended well. Without commands to list and to download, a list in
    WORK_FOLDER says what was uploaded.
    """

    create_only = store.CreateOnly.LISTED

    def __init__(self, options: Options) -> None:
        self.retries = Retries(options.retry_wait)
        self._templates = options.templates()
        self._fields = options.fields()
        self._options = options
        aws = [variable for variable in os.environ if variable.startswith("AWS_")]
        self._env = os_works.environment({}, aws, proxies=True)  # now: other sections call too
        text = options.upload_command_template + options.args_dict
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self._private = options.work_folder / _PRIVATE
        self._spool = LocalStore(self._private / f"upload-{digest}")
        self._waiting: dict[str, StoredObject] = {}
        self._index: Index | None = None
        if not {"list", "download"} <= set(self._templates):
            self._index = Index(self._private / f"uploaded-{digest}.jsonl")

    def __str__(self) -> str:
        return f"command {' '.join(self._templates['upload'].arguments[:2])}"

    @property
    def consistent(self) -> bool:
        """See Store: our own list is."""
        return "list" not in self._templates

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """See Store: what waits is proven by the disk, and what was uploaded by `publish`."""
        self._spool.remove([name])  # of a killed upload
        stored = self._spool.put(name, chunks)
        self._waiting[name] = stored
        return stored

    def publish(self, names: Sequence[str]) -> None:
        """See Store: uploaded, and downloaded and compared where there is a command for it."""
        for name in names:
            if name in self._waiting:
                self._spool.publish([name])
                self._publish(self._waiting[name])
                self._spool.remove([name])
                del self._waiting[name]

    def _publish(self, stored: StoredObject) -> None:
        if self._holds(stored):
            return
        file = self._spool.folder / stored.name
        self.retries.call(stored.name, lambda: self._upload(stored.name, file))
        if "download" in self._templates and self._options.read_back:
            self._require_equal(stored)
        if self._index is not None:
            record = stored.size <= SMALL and not _PART.search(stored.name)
            self._index.add(stored, file.read_bytes() if record else None)

    def _holds(self, stored: StoredObject) -> bool:
        """Return whether the object is there already. Raises TakenError where another one is."""
        if stored.name not in {one.name for one in self.entries(stored.name.rpartition("/")[0])}:
            return False
        stored_before = self._index and self._index.get(stored.name)
        if stored_before and stored_before.stored == stored:
            return True
        if not stored_before and "download" in self._templates and self._is_equal(stored):
            return True
        raise TakenError(
            f"{self}: {stored.name}: object exists with different content",
            "Stored files are never overwritten. Check whether two machines use the same HOSTNAME.",
        )

    def _is_equal(self, stored: StoredObject) -> bool:
        """Return whether a download has this content."""
        held = stream.content(self._whole(stored.name))
        stream.drained(held)
        return (held.size, held.sha256) == (stored.size, stored.sha256)

    def _upload(self, name: str, file: Path) -> None:
        stdin = b"" if _takes_files(self._templates["upload"]) else stream.read(file)
        for chunk in self._call("upload", name, file.parent, stdin):
            for line in foreign.lines(foreign.decoded(chunk)):
                logger.debug("%s: %s", self, line)

    def _require_equal(self, stored: StoredObject) -> None:
        if not self._is_equal(stored):
            raise StoreError(
                f"{self}: {stored.name}: the download differs from what was uploaded",
                "Check the commands and the store. No run uses this object.",
            )

    def discard(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            if self._waiting.pop(name, None):
                self._spool.discard([name])
                self._spool.remove([name])

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store. The whole object is downloaded."""
        return store.cut(self._whole(store.check_name(name)), start, end)

    def _whole(self, name: str) -> Iterator[bytes]:
        known = self._index and self._index.get(name)
        if known and known.content is not None:
            yield known.content
            return
        if "download" not in self._templates:
            raise StoreError(
                f"{self}: {name}: {'cannot be downloaded' if known else 'no such object'}",
                "Set DOWNLOAD_COMMAND_TEMPLATE in the section of this store.",
            )
        try:
            yield from self._download(name)
        except TransientError as error:
            if name in {one.name for one in self.entries(name.rpartition("/")[0])}:
                raise
            raise StoreError(f"{name}: no such object in {self} ({error})", error.hint) from None

    def _download(self, name: str) -> Iterator[bytes]:
        if not _takes_files(self._templates["download"]):
            yield from self._call("download", name, self._private)
            return
        filesystem_handling.make_folder(self._private)
        removal.sweep(self._private, _DOWNLOAD)
        with removal.private(self._private, _DOWNLOAD) as folder:
            file = folder / name.rpartition("/")[2]
            stream.drained(self._call("download", name, folder))
            if not file.is_file() or file.is_symlink():
                raise StoreError(
                    f"{self}: {name}: DOWNLOAD_COMMAND_TEMPLATE has not written {file.name}",
                    "It must write the file %(OBJECTIVES)s/%(file)s.",
                )
            yield from stream.read(file)

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store. Raises StoreError where a line is not `SIZE NAME`."""
        store.check_name(folder)
        if "list" not in self._templates:
            assert self._index is not None  # noqa: S101  (see __init__)
            return self._index.entries(folder)
        sizes = {}
        for line in foreign.lines(self._listed(folder).decode("utf-8", "surrogateescape")):
            if line.strip():
                size, name = self._entry(line)
                sizes[f"{folder}/{name}"] = size
        return (StoreEntry(name, size) for name, size in sorted(sizes.items()))

    def _listed(self, folder: str) -> bytes:
        out = bytearray()

        def allowed(code: int) -> bool:
            return code == 0 or (not out and code == self._options.list_empty_code)

        for chunk in self._call("list", f"{folder}/", self._private, allowed=allowed):
            out += chunk
            if len(out) > _LONGEST_LIST:
                raise StoreError(f"{self}: the list is longer than {_LONGEST_LIST >> 20} MiB")
        return bytes(out)

    def _entry(self, line: str) -> tuple[int, str]:
        match = _LISTED.fullmatch(line)
        size = foreign.number(match[1]) if match else None
        if match is None or size is None:
            raise StoreError(
                f"{self}: {line[:100]!r} is not a line of a list",
                "LIST_COMMAND_TEMPLATE must print a line SIZE NAME for each object.",
            )
        return size, match[2].rpartition("/")[2]

    def folders(self) -> Iterator[str]:
        """See Store: this host's alone."""
        yield self._options.hostname

    def unfinished(self, folder: str) -> Iterator[StoreEntry]:
        """See Store: what waits in WORK_FOLDER for its upload."""
        yield from self._spool.unfinished(folder)
        for entry in self._spool.entries(folder):
            above, _, file = entry.name.rpartition("/")
            yield StoreEntry(f"{above}/.{file}{_MARK}", entry.size, entry.age)

    def remove(self, names: Sequence[str]) -> None:
        """See Store. Raises StoreError without a command for it."""
        for name in names:
            above, _, file = store.check_name(name).rpartition("/")
            if file.startswith("."):
                self._spool.remove([name, f"{above}/{file[1:].removesuffix(_MARK)}"])
            elif "delete" not in self._templates:
                raise UnsupportedError(
                    f"{self}: cannot remove {name}", "Set DELETE_COMMAND_TEMPLATE in its section."
                )
            elif name in {one.name for one in self.entries(above)}:
                stream.drained(self._call("delete", name, self._private))
                if self._index is not None:
                    self._index.remove(name)

    def may_remove(self, _host: str) -> bool | None:
        """See Probed: not without a command for it."""
        return None if "delete" in self._templates else False

    def _call(
        self,
        key: str,
        name: str,
        folder: Path,
        stdin: bytes | Iterable[bytes] = b"",
        allowed: Callable[[int], bool] = lambda code: code == 0,
    ) -> Iterator[bytes]:
        """Yield the output of a command; its standard error goes into the log."""
        host, _, file = name.rpartition("/")
        call_fields = {
            "OBJECTIVES": str(folder),
            "TARGETS": str(folder),
            "file": file,
            "HOSTNAME": host,
        }
        codes: list[int] = []

        def judged(code: int) -> bool:
            codes.append(code)
            return allowed(code)

        try:
            yield from process.output(
                self._templates[key].filled({**self._fields, **call_fields}),
                stdin_data=stdin,
                allowed=judged,
                notice=lambda line: logger.info("%s: %s", self, line),
                env=self._env,
                failure=TransientError,
                name=str(self),
            )
        except TransientError as error:
            why = next(iter(foreign.lines(error.hint)), "")
            kind = StoreError if _CANNOT_START & set(codes) else TransientError
            raise kind(f"{error}: {why}" if why else str(error), error.hint) from None


def _takes_files(template: Template) -> bool:
    return template.uses("OBJECTIVES") or template.uses("TARGETS")


if TYPE_CHECKING:
    _: type[store.Store] = CommandStore
    _persistent: type[SelfRetrying] = CommandStore
    _probed: type[store.Probed] = CommandStore
