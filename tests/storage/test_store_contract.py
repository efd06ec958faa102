"""One suite for every store: what the contract says, held by each implementation."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage import command_store
from storage.local_store import LocalStore
from storage.s3_store import S3Store
from tests.sshd import sshd
from tests.storage import oss_stores, rclone_stores, s3_stores
from tools.base.errors import StoreError, TakenError
from tools.flow import store, stream
from tools.flow.block_store import BlockStore
from tools.flow.memory_store import MemoryBlocks, MemoryStore, Objects
from tools.flow.rate_limit import Bucket, RateLimited
from tools.flow.retries import Retries
from tools.flow.retrying_store import Retrying
from tools.flow.store import Store
from tools.flow.store_wrappers import Limited
from tools.modules.options import fill

Open = Callable[[], Store]  # one more process that uses the same store
ODD = (
    "srv/a b",
    "srv/new\nline",
    "srv/-rf",
    "srv/quo'te\"",
    os.fsdecode(b"srv/\xff\xfe"),
    "srv/$(id)",
    "srv/100%.upload-x",
)
BAD = ("", "/etc/x", "../x", "a/../x", "a//b", "a/.", "a\0b", "..")
RANGES = (
    *((0, None), (0, 0), (0, 1), (2, 5), (3, None), (4, 8), (5, 5), (7, 100), (9, 10)),
    *((10, None), (10, 11), (100, 200)),
)
SIZES = (1, 3, 4, 5, 8, 9, 100, 4_096, 4_097)


def _memory(_folder: Path) -> Open:
    objects = Objects()
    return lambda: MemoryStore(objects=objects)


def _blocks(size: int, **more: int) -> Callable[[Path], Open]:
    def make(_folder: Path) -> Open:
        backend = MemoryBlocks(size)
        return lambda: BlockStore(backend, Retries(0), **more)

    return make


def _commands(*keys: str) -> Callable[[Path], Open]:
    """Folders that are written by cp. keys: the commands that there are, besides the upload"""

    def make(folder: Path) -> Open:
        path = f"{folder}/store/%(HOSTNAME)s"
        into = f'sh -c \'mkdir -p "$2" && cp -- "$1" "$2/"\' x %(OBJECTIVES)s/%(file)s {path}'
        listing = f"find {path} -maxdepth 1 -type f -printf '%%s %%f\\n'"
        commands = {
            "download": f"cp -- {path}/%(file)s %(OBJECTIVES)s/",
            "list": f'sh -c \'test ! -d "$0" || exec "$@"\' {path} {listing}',
            "delete": f"rm -f -- {path}/%(file)s",
        }
        settings = {f"{key.upper()}_COMMAND_TEMPLATE": commands[key] for key in keys}
        settings |= {"HOSTNAME": "srv", "DESTINATION": "command", "WORK_FOLDER": str(folder)}
        settings |= {"UPLOAD_COMMAND_TEMPLATE": into}
        options = fill(command_store.Options, settings)
        return lambda: command_store.open_store(options)

    return make


def _ssh(kind: str) -> Callable[[Path], Open]:
    return lambda folder: lambda: sshd().store(folder / "store", kind)


STORES: dict[str, Callable[[Path], Open]] = {
    "commands": _commands("download", "list", "delete"),
    "commands without a list": _commands("download", "delete"),
    "local": lambda folder: lambda: LocalStore(folder / "store"),
    "memory": _memory,
    "blocks of 4 bytes": _blocks(4),
    "blocks of 5 bytes, one at a time, nothing kept": _blocks(5, parallel=1, memory=0),
    "blocks of 700 bytes": _blocks(700),
    "ssh, checksums by its shell": _ssh("login shell"),
    "ssh, sftp alone": _ssh("no shell"),
    "s3": lambda _folder: s3_stores.seaweedfs(),
    "s3, everything in parts": lambda _folder: s3_stores.seaweedfs(memory=0),
    "versitygw": lambda _folder: s3_stores.versitygw(),
    "versitygw, everything in parts": lambda _folder: s3_stores.versitygw(memory=0),
    "rclone, hashes": rclone_stores.local,
    "rclone, no hashes": rclone_stores.crypt,
    "rclone, a bucket": rclone_stores.memory,
    "rclone's S3 server": lambda _folder: s3_stores.rclone(),
    "oss, blocks of 90 bytes": oss_stores.blocks(90, page=2, memory=0),
    "oss, blocks of 700 bytes": oss_stores.blocks(700, page=1000),
}
SERVERS = (("ssh", "sshd"), ("oss", "oss2"), ("versitygw", "versitygw"), ("rclone", "rclone"))
NEEDS = {
    name: pytest.mark.needs(needed)
    for begin, needed in SERVERS
    for name in STORES
    if name.startswith(begin)
}
WRAPPERS: dict[str, Callable[[Store], Store]] = {
    "retrying": lambda inner: Retrying(inner, Retries(0)),
    "retrying without memory": lambda inner: Retrying(inner, Retries(0), memory=0),
    "rate limited": lambda inner: RateLimited(inner, Bucket(1e12), Bucket(1e12)),
    "limited": lambda inner: Limited(inner, 1),
}
PAIRS = (
    *((name, "") for name in STORES),
    *(("local", wrapper) for wrapper in WRAPPERS),
    *(("memory", wrapper) for wrapper in WRAPPERS),
    ("blocks of 4 bytes", "retrying"),
    ("blocks of 4 bytes", "limited"),
)


@pytest.fixture(
    params=[pytest.param(pair, marks=NEEDS.get(pair[0], ())) for pair in PAIRS],
    ids=[" ".join(reversed(pair)).strip() for pair in PAIRS],
)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    name, wrapper = request.param
    inner = STORES[name](tmp_path)
    return (lambda: WRAPPERS[wrapper](inner())) if wrapper else inner


@pytest.fixture
def target(open_store: Open) -> Store:
    return open_store()


def names(target: Store, folder: str = "srv") -> list[str]:
    return [entry.name for entry in target.entries(folder)]


def read(target: Store, name: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(target.get(name, start, end))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- put and publish


def test_what_is_put_is_invisible_until_it_is_published(target: Store) -> None:
    target.put("srv/x.000", [b"ab"])
    target.put("srv/y.000", [b"cde", b"fgh"])
    assert names(target) == []
    with pytest.raises(StoreError, match="no such"):
        read(target, "srv/x.000")
    target.publish(["srv/y.000"])
    assert names(target) == ["srv/y.000"]
    target.publish(["srv/x.000"])
    assert names(target) == ["srv/x.000", "srv/y.000"]


def test_size_and_checksum_are_confirmed(target: Store) -> None:
    stored = target.put("srv/x", [b"ab", b"", b"cdefgh", b"i"])
    assert stored == store.StoredObject("srv/x", 9, sha256(b"abcdefghi"))


def test_a_stream_that_is_hashed_before_is_not_hashed_again(target: Store) -> None:
    """The tally of the caller counts; what it gives is what the store confirms."""
    tally = stream.Tally()
    stored = target.put("srv/x", stream.Content(tally([b"abcdef", b"gh"]), tally))
    assert (stored.size, stored.sha256) == (8, sha256(b"abcdefgh"))
    assert tally.size == 8


def test_what_is_copied_may_keep_its_time(target: Store) -> None:
    """See Timed: until it is published, and only the object of this name."""
    target.put("srv/x", [b"a"])
    target.put("srv/y", [b"b"])
    store.set_age(target, "srv/x", 100_000.0)
    store.set_age(target, "srv/z", 100_000.0)
    target.publish(["srv/x", "srv/y"])
    store.set_age(target, "srv/y", 100_000.0)
    ages = [entry.age for entry in target.entries("srv")]
    expected = 100_000.0 if store.keeps_times(target) else 0.0
    assert ages == [pytest.approx(expected, abs=60), pytest.approx(0.0, abs=60)]


@pytest.mark.parametrize("size", SIZES)
def test_every_size(target: Store, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    stored = store.store_object(target, "srv/x", [content[:size]])
    assert (stored.size, stored.sha256) == (size, sha256(content[:size]))
    assert [entry.size for entry in target.entries("srv")] == [size]
    assert read(target, "srv/x") == content[:size]


def test_chunks_of_one_byte(target: Store) -> None:
    content = bytes(range(256))
    store.store_object(target, "srv/x", [content[n : n + 1] for n in range(256)])
    assert read(target, "srv/x") == content


@pytest.mark.parametrize("chunks", [[], [b""], [b"", b""]], ids=len)
def test_an_empty_object_is_an_object(target: Store, chunks: list[bytes]) -> None:
    assert store.store_object(target, "srv/x", chunks).size == 0
    assert read(target, "srv/x") == b""
    assert names(target) == ["srv/x"]


def test_the_chunks_are_read_once_and_to_their_end(target: Store) -> None:
    seen: list[str] = []

    def chunks() -> Iterator[bytes]:
        seen.append("begin")
        yield from [b"abcdef", b"ghi"]
        seen.append("end")

    store.store_object(target, "srv/x", chunks())
    assert seen == ["begin", "end"]


def test_a_source_that_raises_leaves_nothing(target: Store) -> None:
    def failing() -> Iterator[bytes]:
        yield b"half of it, in several blocks"
        raise RuntimeError("source")

    with pytest.raises(RuntimeError, match="source"):
        target.put("srv/x", failing())
    assert names(target) == []
    assert list(target.unfinished("srv")) == []
    store.store_object(target, "srv/x", [b"whole"])
    assert read(target, "srv/x") == b"whole"


def test_a_source_that_raises_an_error_of_the_system_is_not_read_again(target: Store) -> None:
    """That of a stream: it is no fault of the store, and its bytes have passed."""
    reads: list[int] = []

    def failing() -> Iterator[bytes]:
        reads.append(1)
        yield b"half"
        raise OSError(5, "Input/output error", "the source")

    with pytest.raises(OSError, match="the source"):
        target.put("srv/x", failing())
    assert len(reads) == 1


def test_what_is_put_twice_is_the_second(target: Store) -> None:
    target.put("srv/x", [b"first, longer"])
    target.put("srv/x", [b"second"])
    assert len(list(target.unfinished("srv"))) == 1
    target.publish(["srv/x"])
    assert read(target, "srv/x") == b"second"
    assert list(target.unfinished("srv")) == []


def test_publish_may_be_repeated(target: Store) -> None:
    target.put("srv/x", [b"content"])
    target.publish(["srv/x"])
    target.publish(["srv/x"])
    assert read(target, "srv/x") == b"content"


def test_several_are_published_together(target: Store) -> None:
    for number in range(5):
        target.put(f"srv/x.{number:03}", [bytes([number]) * 9])
    target.publish([f"srv/x.{number:03}" for number in range(5)])
    assert names(target) == [f"srv/x.{number:03}" for number in range(5)]


def test_several_threads_put_at_once(target: Store) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            content = bytes([number]) * 1000
            store.store_object(target, f"srv/{number}", [content[:500], content[500:]])
        except BaseException as error:  # noqa: BLE001  (shown below)
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [read(target, f"srv/{number}") for number in range(8)] == [
        bytes([number]) * 1000 for number in range(8)
    ]


# --- create-only


def test_nothing_is_ever_overwritten(target: Store) -> None:
    store.store_object(target, "srv/x", [b"first content"])
    with pytest.raises(TakenError, match="different content"):
        store.store_object(target, "srv/x", [b"second"])
    assert read(target, "srv/x") == b"first content"
    assert list(target.unfinished("srv")) == []


def test_nothing_is_overwritten_by_another_process(open_store: Open) -> None:
    store.store_object(open_store(), "srv/x", [b"first content"])
    with pytest.raises(TakenError, match="different content"):
        store.store_object(open_store(), "srv/x", [b"second"])
    assert read(open_store(), "srv/x") == b"first content"


def test_equal_content_counts_as_stored(open_store: Open) -> None:
    first = store.store_object(open_store(), "srv/x", [b"the same content"])
    assert store.store_object(open_store(), "srv/x", [b"the same", b" content"]) == first
    assert names(open_store()) == ["srv/x"]


def test_what_two_put_at_once_only_one_publishes(open_store: Open) -> None:
    one, other = open_store(), open_store()
    one.put("srv/x", [b"the first content"])
    other.put("srv/x", [b"the second content"])
    one.publish(["srv/x"])
    with pytest.raises(TakenError, match="different content"):
        other.publish(["srv/x"])
    other.discard(["srv/x"])
    assert read(one, "srv/x") == b"the first content"
    assert list(one.unfinished("srv")) == []


def test_what_two_put_at_once_may_be_equal(open_store: Open) -> None:
    one, other = open_store(), open_store()
    one.put("srv/x", [b"the same content"])
    other.put("srv/x", [b"the same content"])
    one.publish(["srv/x"])
    other.publish(["srv/x"])
    assert read(other, "srv/x") == b"the same content"
    assert list(one.unfinished("srv")) == []


# --- discard


def test_what_is_discarded_is_gone(target: Store) -> None:
    target.put("srv/x", [b"content in blocks"])
    target.discard(["srv/x", "srv/never"])
    target.publish(["srv/x"])
    assert names(target) == []
    assert list(target.unfinished("srv")) == []


def test_what_is_published_is_not_discarded(target: Store) -> None:
    store.store_object(target, "srv/x", [b"content in blocks"])
    target.discard(["srv/x"])
    assert read(target, "srv/x") == b"content in blocks"


def test_a_set_is_published_whole_or_not_at_all(target: Store) -> None:
    def half() -> None:
        with store.atomic_publish(target, ["srv/x.000", "srv/x.001"]):
            target.put("srv/x.000", [b"content in blocks"])
            raise RuntimeError("between")

    with pytest.raises(RuntimeError, match="between"):
        half()
    assert names(target) == []
    assert list(target.unfinished("srv")) == []


# --- get


@pytest.mark.parametrize(("start", "end"), RANGES)
def test_ranges(target: Store, start: int, end: int | None) -> None:
    store.store_object(target, "srv/x", [b"0123456789"])
    assert read(target, "srv/x", start, end) == b"0123456789"[start:end]


def test_a_range_of_a_large_object(target: Store) -> None:
    content = bytes(range(256)) * 20
    store.store_object(target, "srv/x", [content])
    assert read(target, "srv/x", 1_001, 2_503) == content[1_001:2_503]


@pytest.mark.parametrize("extent", [(0, None), (2, 5)])
def test_what_is_missing_is_named(target: Store, extent: tuple[int, int | None]) -> None:
    with pytest.raises(StoreError, match=r"srv/none.*: no such"):
        read(target, "srv/none", *extent)


def test_it_can_be_read_again_and_by_another_process(open_store: Open) -> None:
    target = open_store()
    store.store_object(target, "srv/x", [b"content in blocks"])
    assert read(target, "srv/x") == read(target, "srv/x") == read(open_store(), "srv/x")


# --- listing


def test_a_listing_is_sorted_and_of_one_folder(target: Store) -> None:
    for name in ("srv/b", "srv/a.001", "srv/a.000", "srv-2/c", "srv/B"):
        store.store_object(target, name, [b"content"])
    assert names(target) == ["srv/B", "srv/a.000", "srv/a.001", "srv/b"]
    assert names(target, "srv-2") == ["srv-2/c"]
    assert names(target, "other") == []


def test_ages_are_those_of_the_store(target: Store) -> None:
    store.store_object(target, "srv/x", [b"content"])
    (entry,) = target.entries("srv")
    assert -1 < entry.age < 600


def test_the_folders_are_the_hosts(target: Store) -> None:
    if isinstance(target, command_store.CommandStore):
        assert list(target.folders()) == ["srv"]  # of the host in its section
        return
    assert list(target.folders()) == []
    for name in ("srv-2/x", "srv-1/x", "srv-1/y", f"{store.OWN_FOLDER}/id.json"):
        store.store_object(target, name, [b""])
    assert list(target.folders()) == ["srv-1", "srv-2"]


def test_what_never_was_published_can_be_removed_by_another_process(open_store: Open) -> None:
    target = open_store()
    content = b"larger than a block" * (300_000 if isinstance(target, S3Store) else 40)
    for number in (0, 1):
        target.put(f"srv/20260101_000000.x.00{number}", [content])
    other = open_store()
    (one, two) = other.unfinished("srv")
    assert one.size == two.size == len(content)
    for leftover in (one, two):
        assert leftover.name.startswith("srv/.20260101_000000.x.00")
        assert leftover.name not in names(other)
    other.remove([one.name])
    other.remove([one.name, two.name])
    assert list(other.unfinished("srv")) == []
    assert list(other.unfinished("other")) == []


# --- remove


def test_exactly_what_is_named_is_removed(target: Store) -> None:
    for name in ("srv/x", "srv/x.000", "srv/x.001", "srv/y"):
        store.store_object(target, name, [b"content"])
    target.remove(["srv/x", "srv/y", "srv/none"])
    assert names(target) == ["srv/x.000", "srv/x.001"]
    target.remove([])
    assert names(target) == ["srv/x.000", "srv/x.001"]


def test_a_name_can_be_used_again_when_it_has_been_removed(target: Store) -> None:
    store.store_object(target, "srv/x", [b"first"])
    target.remove(["srv/x"])
    store.store_object(target, "srv/x", [b"second"])
    assert read(target, "srv/x") == b"second"


# --- names


@pytest.mark.parametrize("name", ODD)
def test_odd_names(target: Store, name: str) -> None:
    if isinstance(target, command_store.CommandStore) and not target.consistent and "\n" in name:
        return  # a list of lines cannot hold it
    store.store_object(target, name, [b"content"])
    assert names(target) == [name]
    assert read(target, name) == b"content"
    target.remove([name])
    assert names(target) == []


@pytest.mark.parametrize("name", BAD)
def test_a_name_stays_inside_the_store(target: Store, name: str) -> None:
    for call in (
        lambda: target.put(name, [b"x"]),
        lambda: list(target.get(name)),
        lambda: list(target.entries(name)),
        lambda: list(target.unfinished(name)),
        lambda: target.remove([name]),
    ):
        with pytest.raises(StoreError, match="invalid object name"):
            call()


# --- what it says of itself


def test_it_says_how_far_it_can_be_trusted(target: Store, request: pytest.FixtureRequest) -> None:
    commands = isinstance(target, command_store.CommandStore)
    assert target.consistent or commands
    store.store_object(target, "srv/x", [b"content"])  # which proves it
    proven = (store.CreateOnly.ATOMIC, store.CreateOnly.PROBED)
    listed = any(kind in request.node.name for kind in ("commands", "rclone"))
    assert target.create_only in ((store.CreateOnly.LISTED,) if listed else proven)
    assert str(target)
    if isinstance(target, S3Store) and listed:  # a result of a run says so
        assert "create-only by our own listing only" in target.note()


def test_abilities_are_found_behind_wrappers(target: Store, tmp_path: Path) -> None:
    is_local = str(target) == str(tmp_path / "store")
    assert store.folder_of(target) == (tmp_path / "store" if is_local else None)
    is_measured = is_local or str(target).startswith("ssh://")
    assert (store.free_space(target) is not None) is is_measured
    assert store.max_object_size(target) > 9
