"""A store in memory: for tests, also where a store must fail at a chosen call."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tools.base.errors import StoreError, TakenError
from tools.flow import store, stream
from tools.flow.block_backend import Block, BlockBackend, Held, PendingUpload, Unpublished, Upload
from tools.flow.store import CreateOnly, StoredObject, StoreEntry

MARK = ".part-"  # in the names of what was never published, as in a local store
Fault = Callable[[str, str], None]


def _no_fault(_call: str, _name: str) -> None:
    """Let every call succeed."""


@dataclass
class Objects:
    """What is visible in a store in memory. clock: seconds, for the age of objects."""

    clock: Callable[[], float] = time.time
    pending: dict[str, bytes] = field(default_factory=dict)  # put and not published, hidden
    _contents: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def create(self, name: str, content: bytes, age: float = 0.0) -> None:
        """Make an object visible. Raises TakenError where another content has its name.

        age: seconds since it counts as written
        """
        with self._lock:
            if self._contents.setdefault(name, (content, self.clock() - age))[0] != content:
                raise TakenError(f"{name}: object exists with different content")

    def read(self, name: str) -> bytes:
        """Return an object. Raises StoreError where there is none."""
        if name not in self._contents:
            raise StoreError(f"{name}: no such object in the store")
        return self._contents[name][0]

    def has(self, name: str) -> bool:
        """Return whether there is an object of this name."""
        return name in self._contents

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        store.check_name(folder)
        now = self.clock()
        for name, (content, created) in sorted(self._contents.items()):
            if name.rpartition("/")[0] == folder:
                yield StoreEntry(name, len(content), now - created)

    def folders(self) -> Iterator[str]:
        """See Store."""
        names = {name.partition("/")[0] for name in list(self._contents)}
        yield from sorted(names - {store.OWN_FOLDER})

    def remove(self, name: str) -> None:
        """See Store."""
        self._contents.pop(store.check_name(name), None)


class MemoryStore:
    """Objects in memory. fault: called with the name of each call and of its object."""

    consistent = True
    create_only = CreateOnly.ATOMIC

    def __init__(self, fault: Fault = _no_fault, objects: Objects | None = None) -> None:
        self.fault = fault
        self.objects = objects or Objects()
        self._hidden: dict[str, str] = {}  # the hidden name of what is not published
        self._ages: dict[str, float] = {}  # of what is not published, where it was set

    def __str__(self) -> str:
        return "memory"

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """See Store."""
        store.check_name(name)
        self.fault("put", name)
        content = stream.content(chunks)
        held = b"".join(content)
        self.fault("put end", name)
        self.discard([name])
        above, slash, file = name.rpartition("/")
        hidden = f"{above}{slash}.{file}{MARK}{uuid.uuid4().hex[:8]}"
        self.objects.pending[hidden] = held
        stored = StoredObject(name, len(held), content.sha256)
        self._hidden[name] = hidden
        return stored

    def publish(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            self.fault("publish", name)
            if name in self._hidden:
                content = self.objects.pending[self._hidden[name]]
                self.objects.create(name, content, self._ages.get(name, 0.0))
                self.discard([name])

    def set_age(self, name: str, seconds: float) -> None:
        """See Timed."""
        self.fault("set age", name)
        if name in self._hidden:
            self._ages[name] = seconds

    def discard(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            self.fault("discard", name)
            if name in self._hidden:
                self.objects.pending.pop(self._hidden.pop(name), None)
                self._ages.pop(name, None)

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""
        self.fault("get", store.check_name(name))
        content = self.objects.read(name)[start:end]
        for begin in range(0, len(content), stream.CHUNK):
            yield content[begin : begin + stream.CHUNK]
            self.fault("get on", name)

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        self.fault("entries", folder)
        yield from self.objects.entries(folder)

    def unfinished(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        self.fault("unfinished", folder)
        store.check_name(folder)
        for name, content in sorted(self.objects.pending.items()):
            if name.rpartition("/")[0] == folder:
                yield StoreEntry(name, len(content))

    def folders(self) -> Iterator[str]:
        """See Store."""
        self.fault("folders", "")
        yield from self.objects.folders()

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            self.fault("remove", name)
            self.objects.pending.pop(name, None)
            self.objects.remove(name)


class MemoryBlocks:
    """A block backend in memory. fault: called with the name of each call and of its object."""

    consistent = True
    create_only = CreateOnly.ATOMIC

    def __init__(
        self, block_size: int = 1 << 20, fault: Fault = _no_fault, max_blocks: int = 9000
    ) -> None:
        self.block_size = block_size
        self.max_blocks = max_blocks
        self.fault = fault
        self.objects = Objects()
        self._uploads: dict[Upload, dict[int, bytes]] = {}
        self._count = 0
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return "memory in blocks"

    def create(self, name: str, content: Block, sha256: str) -> None:
        """See BlockBackend."""
        content = bytes(content)
        self.fault("create", name)
        checked = stream.content([content])
        stream.drained(checked)
        if checked.sha256 != sha256:
            raise StoreError(f"{name}: checksum mismatch")
        self.objects.create(name, content)
        self.fault("create end", name)

    def begin(self, name: str) -> Upload:
        """See BlockBackend."""
        self.fault("begin", name)
        with self._lock:
            self._count += 1
            upload = Upload(name, str(self._count))
            self._uploads[upload] = {}
        return upload

    def block(self, upload: Upload, number: int, content: Block) -> str:
        """See BlockBackend."""
        self.fault(f"block {number}", upload.name)
        self._of(upload)[number] = bytes(content)
        return f"{number}:{len(content)}"

    def complete(self, upload: Upload, tags: Sequence[str], size: int) -> None:
        """See BlockBackend."""
        self.fault("complete", upload.name)
        blocks = self._of(upload)
        if [f"{number}:{len(blocks[number])}" for number in sorted(blocks)] != list(tags):
            raise StoreError(f"{upload.name}: blocks are missing")
        content = b"".join(blocks[number] for number in sorted(blocks))
        if len(content) != size:
            raise StoreError(f"{upload.name}: {len(content)} bytes instead of {size}")
        self.objects.create(upload.name, content)
        self.abort(upload)
        self.fault("complete end", upload.name)

    def held(self, unpublished: Unpublished) -> Held:
        """See BlockBackend."""
        self.fault("held", unpublished.stored.name)
        return Held.UNKNOWN if self.objects.has(unpublished.stored.name) else Held.ABSENT

    def abort(self, upload: Upload) -> None:
        """See BlockBackend."""
        self.fault("abort", upload.name)
        self._uploads.pop(upload, None)

    def _of(self, upload: Upload) -> dict[int, bytes]:
        if upload not in self._uploads:
            raise StoreError(f"{upload.name}: no such upload")
        return self._uploads[upload]

    def uploads(self, folder: str) -> Iterator[PendingUpload]:
        """See BlockBackend."""
        self.fault("uploads", folder)
        for upload, blocks in sorted(self._uploads.items(), key=lambda pair: pair[0].name):
            if upload.name.rpartition("/")[0] == folder:
                yield PendingUpload(upload, sum(map(len, blocks.values())))

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""
        self.fault("get", name)
        yield self.objects.read(name)[start:end]

    def entries(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        self.fault("entries", folder)
        yield from self.objects.entries(folder)

    def folders(self) -> Iterator[str]:
        """See Store."""
        self.fault("folders", "")
        yield from self.objects.folders()

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            self.fault("remove", name)
            self.objects.remove(name)


if TYPE_CHECKING:
    _: type[store.Store] = MemoryStore
    _timed: type[store.Timed] = MemoryStore
    _blocks: type[BlockBackend] = MemoryBlocks
