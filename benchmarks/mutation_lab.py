"""Honest runs in memory, which mutations.py alters: staged and streamed, filesets and dumps."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import random
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from encryption import key_commands
from encryption import stage as encryption
from tools.base import run_ids
from tools.catalog import location, manifest, markers, trust, writer_key
from tools.catalog.catalog import Catalog
from tools.catalog.location import BackupLocation, Source
from tools.catalog.manifest import Manifest
from tools.catalog.signers import Signers, of_text
from tools.catalog.trust import Trust
from tools.engine.user_modules import ForRestore
from tools.flow import pipeline
from tools.flow.fan_out import StoreProgress
from tools.flow.item import Item
from tools.flow.item_record import StoredItem
from tools.flow.memory_store import MemoryStore, Objects
from tools.flow.pipeline import ItemContext
from tools.flow.store import Store
from tools.modules import loader
from tools.modules.work_store import parts_of

HOST = "srv-1"
RUNS = ("20260101_030000", "20260102_030000", "20260103_030000")
_STAGED = RUNS[1::2]
_LINE = b"INSERT INTO t VALUES (%d, '%d');\n"
Content = tuple[str, str, str, bytes]  # section, name, kind, plaintext


class Held(MemoryStore):
    """A store of these objects, which are not copied. contents: by their names, with the folder"""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        super().__init__(
            objects=Objects(_contents={name: (one, 0.0) for name, one in contents.items()})
        )


class Lab:
    """Four runs of one host, the keys, and what each item contains."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.honest: dict[tuple[str, str], tuple[str, bytes]] = {}  # by run and label
        key, writer = folder / "key_file", folder / "writer.key"
        key_commands.create(key, post_quantum=False)
        signer = writer_key.create(writer, HOST)
        self._key = writer_key.read(writer)
        self.signers = Signers(tuple(of_text(signer, "writer.key")))
        source = Source(local_backup=folder, key_file=key)
        self._source, self._config = source, location.load_config(source)
        options = encryption.Options(key_file=key)
        packing = loader.stage("compression/compression.py")
        self._stages = (packing.stage(packing.Options()), encryption.stage(options))
        self.objects = self._created(self._key)
        self.inverse_stage = functools.cache(self.location({}, signed=True).inverse_stage)
        self.unsigned = {
            name: one for name, one in self.objects.items() if not name.endswith(trust.ENDING)
        }

    def _created(self, key: writer_key.WriterKey) -> dict[str, bytes]:
        store = MemoryStore()
        catalog = Catalog(store, HOST, Trust(everybody=True))
        digests: tuple[str, ...] = ()
        for number, run_id in enumerate(RUNS, 1):
            items = tuple(self._stored(store, run_id, one) for one in _contents(number))
            mode = "staged" if run_id in _STAGED else "streamed"
            when = run_ids.stamp(run_ids.time_of(run_id))
            record = Manifest(
                HOST, run_id, when, when, mode, "ok", items, program="x", machine="m",
                config_id="c", sequence=number, previous_run=RUNS[number - 2] if number > 1 else "",
                previous=digests,
            )  # fmt: skip
            markers.publish_manifest(catalog, record, key)
            digests = (hashlib.sha256(store.objects.read(manifest_of(run_id))).hexdigest(),)
        return {name: store.objects.read(name) for name in _names(store)}

    def _stored(self, store: Store, run_id: str, content: Content) -> StoredItem:
        section, name, kind, plain = content
        ending = ".tar" if kind == "fileset" else ".sql"
        item = Item(name, kind, lambda _head: ending, lambda: iter([plain]))
        stages = [
            dataclasses.replace(self._stages[0]),
            dataclasses.replace(self._stages[1], size=400),
        ]
        where = ItemContext(f"{HOST}/{run_id}", lambda _size: None)
        if run_id in _STAGED:
            file = f"{HOST}/{run_id}.{section}_{name.replace('/', '_')}{ending}.zst.age"
            where = dataclasses.replace(where, layout=parts_of(file))
        done = pipeline.store_item(item, section, stages, [StoreProgress("S", store)], where)
        self.honest[run_id, done.item.label] = kind, plain
        return done.item

    def location(self, objects: Mapping[str, bytes], *, signed: bool) -> BackupLocation:
        """Return where a restore reads these objects, with the key."""
        whom = Trust(self.signers) if signed else Trust(allow_unsigned=True)
        modules = ForRestore(self.folder)
        return BackupLocation(Held(objects), self._config, HOST, modules, whom, encrypted_only=True)

    def decoded(self, raw: bytes, stages: Sequence[str]) -> bytes:
        """Return what is left when the inverse of each stage was applied, without the flow."""
        for stage in reversed(stages):
            raw = b"".join(self.inverse_stage(stage)(iter([raw])))
        return raw


def _names(store: MemoryStore) -> Iterator[str]:
    return (entry.name for entry in store.entries(HOST))


def _contents(number: int) -> Iterator[Content]:
    """Yield the items of a run, two filesets and two dumps, with different content in each run."""
    rng = random.Random(number)  # noqa: S311  (repeatable)
    for section in ("ETC", "WWW"):
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for name in "ab":
                entry = tarfile.TarInfo(f"{section}/{name}")
                entry.size = 300
                archive.addfile(entry, io.BytesIO(rng.randbytes(300)))
        yield section, "", "fileset", raw.getvalue()
    for name in ("3306/shop", "3306/blog"):
        rows = (_LINE % (row, rng.randrange(1 << 60)) for row in range(20))
        yield "MYSQL", name, "mysql", b"".join(rows)


def manifest_of(run_id: str) -> str:
    """Return the name of a run's manifest."""
    return f"{HOST}/{manifest.name_of(run_id)}"
