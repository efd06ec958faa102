"""What somebody who can write to a store, but has no key, may put there (issue 14 A, B).

Nothing is waited for, nothing large is kept, and honest runs are neither hidden nor stopped.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from mysql_backup.binlog_replay import Replay
from storage.local_store import LocalStore
from tools.base.errors import BackupError, ManifestError, StoreError, TakenError
from tools.catalog import (
    liveness,
    manifest,
    readback,
    rotation,
    sequence,
    signers,
    sshsig,
    store_identity,
    trust,
    writer_key,
)
from tools.catalog.catalog import Catalog
from tools.catalog.history import History
from tools.catalog.location import BackupLocation
from tools.catalog.manifest import Manifest
from tools.catalog.readback import StoredRun
from tools.catalog.signers import Signers
from tools.catalog.trust import Trust
from tools.config.declarations import General
from tools.config.model import Config
from tools.engine import admission
from tools.engine.admission import Admitted
from tools.engine.user_modules import ForRestore
from tools.flow import store
from tools.flow.facts import Json
from tools.flow.item_record import Part, StoredItem
from tools.flow.store import StoreEntry
from tools.modules.contracts import Following

HOST = "srv-1"
RUN = "20260101_030000"
CHUNK = 1 << 16


class Signing:
    """A local store with signed runs, and a catalog that knows their signer."""

    def __init__(self, folder: Path) -> None:
        self.line = writer_key.create(folder / "writer.key", HOST)
        self.key = writer_key.read(folder / "writer.key")
        self.local = LocalStore(folder / "store")
        self.folder = folder / "store" / HOST
        self.folder.mkdir(parents=True)
        self.trust = Trust(Signers(tuple(signers.of_text(self.line, "test"))))

    @property
    def catalog(self) -> Catalog:
        return Catalog(self.local, HOST, self.trust)

    def add(self, run_id: str, *, signed: bool = True, **fields: Any) -> Manifest:
        """Store a run."""
        part = Part(f"{run_id}.FILESET.tar.000", 4, hashlib.sha256(b"data").hexdigest())
        item = StoredItem("FILESET", "", "fileset", ".tar", (), (part,), 4, part.sha256)
        start = "2026-01-01T03:00:00Z"
        complete = Manifest(HOST, run_id, start, start, "streamed", "ok", (item,), config_id="a")
        complete = Manifest(**{**vars(complete), **fields})
        (self.folder / part.name).write_bytes(b"data")
        path = self.folder / manifest.name_of(run_id)
        path.write_bytes(complete.to_json())
        if signed:
            signature = self.key.sign(path.read_bytes())
            path.with_name(path.name + trust.ENDING).write_bytes(signature)
        return complete


@pytest.fixture
def signing(tmp_path: Path) -> Signing:
    return Signing(tmp_path)


# --- objects without an end


class Endless(LocalStore):
    """A store in which objects with this ending have no end; it counts what is read of them."""

    ending = ""
    chunks = 0

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        if not name.endswith(self.ending):
            yield from super().get(name, start, end)
            return
        while True:
            self.chunks += 1
            assert self.chunks < 1000, "read without an end"
            yield bytes(CHUNK)


def of_manifest(signing: Signing, endless: Endless) -> None:
    with pytest.raises(ManifestError, match="and not read"):
        Catalog(endless, HOST, signing.trust).manifest(RUN)


def of_signature(signing: Signing, endless: Endless) -> None:
    with pytest.raises(ManifestError, match="not an SSH signature"):
        Catalog(endless, HOST, signing.trust).manifest(RUN)


def of_sheet(signing: Signing, endless: Endless) -> None:
    runs = Catalog(endless, HOST, signing.trust)
    assert "was altered" in readback.sheet_problem(StoredRun(runs, runs.manifest(RUN)))


def of_marker(_signing: Signing, endless: Endless) -> None:
    assert not liveness.has_ended(endless, StoreEntry(f"{HOST}/{RUN}.UNFINISHED", 1, 5.0))
    assert not liveness.has_ended(endless, StoreEntry(f"{HOST}/{RUN}.UNFINISHED", 1, -1e9))


def of_identity(_signing: Signing, endless: Endless) -> None:
    with pytest.raises(StoreError, match="not a store marker"):
        store_identity.inspect(endless, HOST, "key")


@pytest.mark.fault("an object that grows for ever in a store", "one line; little of it is read")
@pytest.mark.parametrize(
    ("ending", "read"),
    [
        (manifest.ENDING, of_manifest),
        (trust.ENDING, of_signature),
        (manifest.RECOVERY, of_sheet),
        (".UNFINISHED", of_marker),
        ("id.json", of_identity),
    ],
)
def test_an_object_without_an_end(
    signing: Signing,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    read: Callable[[Signing, Endless], None],
) -> None:
    monkeypatch.setattr(manifest, "MAX_BYTES", 100 * CHUNK)
    monkeypatch.setattr(readback, "_MAX_SHEET", 100 * CHUNK)
    signing.add(RUN, recovery="0" * 64)
    (signing.folder / f"{RUN}{manifest.RECOVERY}").write_bytes(b"sheet")
    endless = Endless(signing.local.folder)
    endless.ending = ending
    read(signing, endless)
    assert endless.chunks


def test_a_large_manifest_must_be_trusted_before_it_is_parsed(signing: Signing) -> None:
    """Parsed it needs many times its size in memory."""
    many = tuple("a warning" for _ in range(1 << 19))
    signing.add(RUN, warnings=many)
    assert signing.catalog.manifest(RUN).warnings == many
    (signing.folder / f"{manifest.name_of(RUN)}{trust.ENDING}").unlink()
    with pytest.raises(ManifestError, match="larger than 4194304 bytes, and not read"):
        signing.catalog.claim(RUN)
    unsigned = Catalog(signing.local, HOST, Trust(allow_unsigned=True))
    assert unsigned.manifest(RUN).warnings == many


def test_of_large_untrusted_manifests_only_the_reason_is_kept(signing: Signing) -> None:
    signing.add(RUN, signed=False, warnings=("a warning",) * 10_000)
    runs = signing.catalog
    first, second = runs.claim(RUN), runs.claim(RUN)
    assert first.manifest == second.manifest
    assert first is not second
    with pytest.raises(ManifestError, match="not signed"):
        runs.manifest(RUN)


# --- names that are no files


@pytest.mark.fault("FIFOs and links under names in a store", "nothing is waited for")
@pytest.mark.parametrize("kind", ["fifo", "folder", "link to nothing", "link to a device"])
def test_what_is_no_file_under_the_name_of_an_object(signing: Signing, kind: str) -> None:
    path = signing.folder / "part.000"
    make: dict[str, Callable[[], object]] = {
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "link to nothing": lambda: path.symlink_to("/nonexistent/file"),
        "link to a device": lambda: path.symlink_to("/dev/zero"),
    }
    make[kind]()
    with pytest.raises(TakenError, match="is not a file"):
        store.store_object(signing.local, f"{HOST}/part.000", [b"data"])
    with pytest.raises(StoreError, match="no such file"):
        list(signing.local.get(f"{HOST}/part.000"))


class _Log:
    """An item of binary logs whose archive has one member."""

    def __init__(self, member: tarfile.TarInfo, last: str) -> None:
        facts: dict[str, Json] = {
            "first": "binlog.000001",
            "last": last,
            "last_size": 4,
            "format": "ROW",
        }
        facts["until"] = "2026-01-02 00:00:00"
        self.item = StoredItem(
            "MYSQL", "binlogs@3306", "mysql-binlogs", ".tar", (), (), facts=facts
        )
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(member)
        self.following = Following(RUN, self.item, lambda: iter([buffer.getvalue()]))


def replay(log: _Log) -> Replay:
    facts: dict[str, Json] = {
        "binlog_file": "binlog.000001",
        "binlog_position": 4,
        "time": "2026-01-01 00:00:00",
    }
    dump = StoredItem(
        "MYSQL", "3306/shop", "mysql", ".sql", (), (), facts={**facts, "server": "10.11.6-MariaDB"}
    )
    return Replay(dump, "2026-01-01 12:00:00", [log.following])


@pytest.mark.fault("a link or FIFO as a binary log", "one line; it is never opened")
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_binary_log_that_is_no_file(kind: bytes) -> None:
    member = tarfile.TarInfo("binlog.000001")
    member.type, member.linkname = kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
    with pytest.raises(StoreError, match=r"binlog.000001 of run .* is not a file"):
        replay(_Log(member, "binlog.000001")).check_logs()


def test_more_binary_logs_than_a_run_can_have() -> None:
    with pytest.raises(StoreError, match="999999999998 binary logs"):
        replay(_Log(tarfile.TarInfo("binlog.000001"), "binlog.999999999999"))


# --- many of them


@pytest.mark.fault("hundreds of forged runs that are newer", "they hide no replaced run")
def test_forged_runs_do_not_hide_the_numbers(signing: Signing) -> None:
    """Only the newest 100 manifests were compared, trusted or not."""
    signing.add("20260101_030000", sequence=1)
    signing.add("20260102_030000", sequence=2)
    signing.add("20260103_030000", sequence=2)
    for second in range(120):
        run_id = f"20260104_03{second // 60:02}{second % 60:02}"
        signing.add(run_id, signed=bool(second % 2), sequence=9)
        path = signing.folder / manifest.name_of(run_id)
        path.write_text(path.read_text().replace('"a"', '"b"'))
    with pytest.raises(ManifestError, match="both have number 2"):
        sequence.require(signing.catalog)
    assert sequence.newest([signing.catalog], "a").number == 2
    assert sequence.highest_claimed([signing.catalog], "a") == 2
    newest = History(signing.catalog).newest_complete()
    assert newest is not None
    assert newest.run_id == "20260103_030000"
    unread = dict(History(signing.catalog).unread(set()))
    assert unread["20260101_030000"] is not None


@pytest.mark.fault("hundreds of forged statements about signers", "the true one is found")
def test_forged_statements_do_not_hide_a_successor(signing: Signing, tmp_path: Path) -> None:
    """The oldest 100 were read, trusted or not."""
    forged = writer_key.create(tmp_path / "forged", HOST)
    theirs = writer_key.read(tmp_path / "forged")
    signed = b"", theirs.sign(rotation.statement(HOST, forged))
    for second in range(150):
        name = f"20000101T00{second // 60:02}{second % 60:02}Z{rotation.ENDING}"
        statement = rotation.statement(HOST, forged)
        (signing.folder / name).write_bytes(statement)
        (signing.folder / f"{name}{trust.ENDING}").write_bytes(signed[second % 2])
    writer_key.rotate(tmp_path / "writer.key", HOST)
    signing.key = writer_key.read(tmp_path / "writer.key")
    (link,) = signing.key.links
    (signing.folder / link.name).write_bytes(link.statement)
    (signing.folder / f"{link.name}{trust.ENDING}").write_bytes(link.signature)
    signing.add(RUN)
    assert signing.catalog.manifest(RUN).run_id == RUN
    assert not signing.catalog.knows(sshsig.fingerprint(theirs.public))


@pytest.mark.fault("objects with the run ids of the next hours", "that store fails alone")
def test_run_ids_that_are_taken_do_not_block_a_run(signing: Signing, tmp_path: Path) -> None:
    """After a minute of such ids the search began again, for ever."""
    good = LocalStore(tmp_path / "good")
    for second in range(200):
        (signing.folder / f"20260101_03{second // 60:02}{second % 60:02}.x").write_bytes(b"")
    both = [
        Admitted(name, one, History(one), "id", ())
        for name, one in (("BAD", signing.catalog), ("GOOD", Catalog(good, HOST, Trust())))
    ]
    clock = datetime(2026, 1, 1, 3, tzinfo=timezone.utc).timestamp()

    def following(_after: str) -> str:
        nonlocal clock
        clock += 1
        return datetime.fromtimestamp(clock, timezone.utc).strftime("%Y%m%d_%H%M%S")

    run_id, failed = admission.claimed(both, RUN, following, lambda _section, call: call())
    assert list(failed) == ["BAD"]
    assert "holds something of run" in str(failed["BAD"])
    assert (good.folder / HOST / f"{run_id}.UNFINISHED").exists()


# --- runs that were made while the key was lost (docs/security.md)


def test_a_run_that_was_made_while_the_key_was_lost(signing: Signing, tmp_path: Path) -> None:
    signing.add("20260101_030000", sequence=1)
    signing.add("20260102_030000", signed=False, sequence=2)
    new = writer_key.create(tmp_path / "new.key", HOST)
    signing.key = writer_key.read(tmp_path / "new.key")
    signing.add("20260103_030000", sequence=3, previous_run="20260101_030000", previous=("0" * 64,))
    both = Trust(
        Signers(tuple(signers.of_text(f"{signing.line}\n{new}", "test"))), allow_unsigned=True
    )
    with pytest.raises(ManifestError, match="not older than the first signed run"):
        Catalog(signing.local, HOST, both).manifest("20260102_030000")
    sequence.require(Catalog(signing.local, HOST, both))  # `previous` is of another signer
    later = Trust(Signers(tuple(signers.of_text(new, "test"))), allow_unsigned=True)
    assert Catalog(signing.local, HOST, later).manifest("20260102_030000").sequence == 2


# --- what a manifest says, and folders that are no hosts


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mode", "both"),
        ("mode", "\x1b[2J"),
        ("begin", "\x1b[2J"),
        ("begin", "2026-13-45T00:00:00Z"),
        ("end", "9" * 400),
        ("end", "2026-01-01T03:00:00Z\n"),
    ],
)
def test_mode_and_times_of_a_manifest_are_checked(signing: Signing, key: str, value: str) -> None:
    fields: dict[str, Any] = {key: value}
    signing.add(RUN, **fields)
    with pytest.raises(ManifestError, match=rf"invalid manifest \({key}: ") as caught:
        signing.catalog.manifest(RUN)
    assert "\x1b" not in str(caught.value)


def test_a_disk_has_other_folders_than_hosts(signing: Signing) -> None:
    """README restores from a whole disk without --hostname: its lost+found is no host."""
    signing.add(RUN)
    (signing.local.folder / "lost+found").mkdir()
    (signing.local.folder / "photos").mkdir()
    (signing.local.folder / "photos" / "a.jpg").write_bytes(b"")
    config = Config(Path("arguments"), General("unknown"), {}, ())
    location = BackupLocation(signing.local, config, "", ForRestore(signing.folder), signing.trust)
    assert location.hosts() == [HOST]
    assert location.host() == HOST
    odd = signing.local.folder / "a\nhint: b"
    odd.mkdir()
    (odd / manifest.name_of(RUN)).write_bytes(b"{}")
    with pytest.raises(BackupError, match="2 hosts") as caught:
        location.host()
    assert "\n" not in caught.value.hint
