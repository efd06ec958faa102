"""The wrappers of stores and the retries, where the store inside fails."""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.local_store import LocalStore
from tools.base.errors import StoreError, TransientError
from tools.flow import store, stream
from tools.flow.memory_store import MemoryStore
from tools.flow.retries import Retries
from tools.flow.retrying_store import Retrying
from tools.flow.store_wrappers import DryRun, Limited

NO_WAIT = Retries(0, say=lambda _line: None)


class Faults:
    """Fails the next calls of a name with these errors."""

    def __init__(self, call: str, *errors: BaseException) -> None:
        self.call = call
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, call: str, _name: str) -> None:
        if call == self.call:
            self.calls += 1
            if self.errors:
                raise self.errors.pop(0)


def broken(number: int = errno.EIO) -> OSError:
    return OSError(number, "trouble")


def once(*chunks: bytes) -> Iterator[bytes]:
    """Chunks as a stream gives them: they cannot be read a second time."""
    yield from chunks


def read(inner: store.Store, name: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(inner.get(name, start, end))


# --- Retrying


def test_five_attempts_with_growing_waits() -> None:
    waits: list[float] = []
    lines: list[str] = []
    policy = Retries(10.0, lines.append, lambda _event, seconds: waits.append(seconds))
    faults = Faults("put end", *[broken()] * 4)
    tried = Retrying(MemoryStore(faults), policy)
    store.store_object(tried, "srv/x", once(b"all ", b"of it"))
    assert read(tried, "srv/x") == b"all of it"
    assert faults.calls == 5
    assert [line.partition(": ")[0] + ": " + line.split(": ")[1] for line in lines] == [
        f"srv/x: attempt {number} of 5 failed" for number in range(1, 5)
    ]
    assert all("trouble; retrying in " in line for line in lines)
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(waits))


def test_after_the_fifth_attempt_the_error_is_raised() -> None:
    faults = Faults("put", *[broken()] * 9)
    with pytest.raises(OSError, match="trouble"):
        Retrying(MemoryStore(faults), NO_WAIT).put("srv/x", once(b"all of it"))
    assert faults.calls == 5


@pytest.mark.parametrize(
    "error",
    [
        *map(broken, (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT)),
        StoreError("no such bucket"),
        ValueError("a bug"),
    ],
    ids=str,
)
def test_what_no_attempt_can_fix_is_not_tried_again(error: Exception) -> None:
    faults = Faults("put", error)
    with pytest.raises(type(error)):
        Retrying(MemoryStore(faults), NO_WAIT).put("srv/x", once(b"all of it"))
    assert faults.calls == 1


def test_what_the_store_calls_transient_is_tried_again() -> None:
    for call in ("put", "publish"):
        faults = Faults(call, TransientError("503 Slow Down"))
        tried = Retrying(MemoryStore(faults), NO_WAIT)
        store.store_object(tried, "srv/x", once(b"all of it"))
        assert faults.calls == 2


def test_a_failed_sync_of_a_folder_is_not_repeated() -> None:
    """After EIO a second fsync may succeed though nothing was written (fsync(2))."""
    faults = Faults("publish", broken())
    tried = Retrying(MemoryStore(faults), NO_WAIT)
    tried.put("srv/x", once(b"all of it"))
    with pytest.raises(OSError, match="trouble"):
        tried.publish(["srv/x"])
    assert faults.calls == 1


def test_a_stream_that_no_longer_fits_into_memory_is_not_put_again() -> None:
    faults = Faults("put end", broken())
    tried = Retrying(MemoryStore(faults), NO_WAIT, memory=10)
    with pytest.raises(OSError, match="trouble"):
        tried.put("srv/x", once(*[b"four"] * 3))
    assert faults.calls == 1
    store.store_object(tried, "srv/x", once(b"four"))


def test_a_long_stream_is_put_again_when_nothing_of_it_has_passed() -> None:
    faults = Faults("put", broken())
    tried = Retrying(MemoryStore(faults), NO_WAIT, memory=10)
    store.store_object(tried, "srv/x", once(*[b"four"] * 3))
    assert read(tried, "srv/x") == b"four" * 3


def test_objects_that_are_put_at_once_share_the_memory() -> None:
    faults = Faults("put end", broken())
    tried = Retrying(MemoryStore(faults), NO_WAIT, memory=10)

    def chunks() -> Iterator[bytes]:
        yield b"eight..."
        faults.errors, kept = [], faults.errors
        tried.put("srv/y", once(b"five5"))  # does not fit beside it
        faults.errors = kept
        yield b"9"

    store.store_object(tried, "srv/x", chunks())
    assert read(tried, "srv/x") == b"eight...9"
    faults.errors = [broken()]
    store.store_object(tried, "srv/z", once(b"0123456789"))  # all of the memory is back


def test_a_stream_is_hashed_once_over_all_attempts() -> None:
    faults = Faults("put end", broken(), broken())
    tally = stream.Tally()
    content = stream.Content(tally(once(b"all ", b"of it")), tally)
    stored = Retrying(MemoryStore(faults), NO_WAIT).put("srv/x", content)
    assert (tally.size, stored.size, stored.sha256) == (9, 9, tally.sha256)


def test_a_source_that_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    never = Retries(say=print, wait=lambda _event, _seconds: pytest.fail("waited"))
    tried = Retrying(LocalStore(tmp_path / "store"), never)
    gone = stream.read(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="gone"):
        tried.put("srv/gone", gone)
    assert not list((tmp_path / "store/srv").iterdir())


def test_an_object_that_nobody_wants_any_more_is_not_waited_for() -> None:
    abandoned = threading.Event()

    def wait(event: threading.Event, _seconds: float) -> None:
        assert event is abandoned
        event.set()

    faults = Faults("put end", *[broken()] * 9)
    tried = Retrying(MemoryStore(faults), Retries(say=lambda _line: None, wait=wait))
    with pytest.raises(OSError, match="trouble"):
        tried.put("srv/x", stream.Content(once(b"all of it"), None, abandoned))
    assert faults.calls == 1


def test_reading_goes_on_where_it_stopped() -> None:
    faults = Faults("get on", TransientError("timed out"), TransientError("reset"))
    tried = Retrying(MemoryStore(faults), NO_WAIT)
    content = bytes(range(256)) * 10_000
    store.store_object(tried, "srv/x", [content])
    assert read(tried, "srv/x") == content
    faults.errors = [TransientError("reset")]
    assert read(tried, "srv/x", 7, 2_000_000) == content[7:2_000_000]


@pytest.mark.parametrize(
    ("call", "use"),
    [
        ("entries", lambda tried: list(tried.entries("srv"))),
        ("unfinished", lambda tried: list(tried.unfinished("srv"))),
        ("folders", lambda tried: list(tried.folders())),
        ("remove", lambda tried: tried.remove(["srv/x"])),
        ("get", lambda tried: list(tried.get("srv/x"))),
    ],
)
def test_every_other_call_is_repeated_too(call: str, use: Callable[[store.Store], object]) -> None:
    faults = Faults(call)
    tried = Retrying(MemoryStore(faults), NO_WAIT)
    store.store_object(tried, "srv/x", [b"content"])
    faults.errors = [TransientError("503"), TransientError("timed out")]
    use(tried)
    assert faults.calls == 3
    faults.errors = [broken()]
    with pytest.raises(OSError, match="trouble"):  # a disk that fails is not waited for
        use(tried)
    assert faults.calls == 4


# --- Limited


def test_only_so_many_calls_work_at_once() -> None:
    lock = threading.Lock()
    working, most = [0], [0]
    enough = threading.Barrier(2, timeout=20)

    def fault(call: str, _name: str) -> None:
        if call != "entries":
            return
        with lock:
            working[0] += 1
            most[0] = max(most[0], working[0])
        enough.wait()  # two are let in at once, in pairs
        with lock:
            working[0] -= 1
        enough.wait()

    limited = Limited(MemoryStore(fault), 2)
    threads = [
        threading.Thread(target=lambda: list(limited.entries("srv")), daemon=True) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert most[0] == 2


def test_two_limited_stores_of_two_streams_do_not_wait_for_each_other() -> None:
    """Each of two streams goes into both stores, one call at a time in each."""
    stores = [Limited(MemoryStore(), 1), Limited(MemoryStore(), 1)]
    begun = threading.Barrier(4, timeout=20)

    def chunks() -> Iterator[bytes]:
        yield b"first"
        begun.wait()  # all four puts are in the middle
        yield b"second"

    threads = [
        threading.Thread(target=one.put, args=(f"srv/{number}", chunks()), daemon=True)
        for one in stores
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not begun.broken
    assert not any(thread.is_alive() for thread in threads)


# --- DryRun


def test_a_dry_run_changes_nothing_and_says_what_it_would_do() -> None:
    inner = MemoryStore()
    store.store_object(inner, "srv/x", [b"content"])
    lines: list[str] = []
    dry = DryRun(inner, lines.append)
    stored = store.store_object(dry, "srv/y", once(b"ab", b"c"))
    assert (stored.size, stored.sha256) == (3, stream_sha256(b"abc"))
    dry.put("srv/z", [b"z"])
    dry.discard(["srv/z"])
    dry.publish(["srv/z"])
    dry.remove(["srv/x"])
    assert lines == ["would store srv/y (3 bytes)", "would remove srv/x"]
    assert [entry.name for entry in dry.entries("srv")] == ["srv/x"]
    assert read(dry, "srv/x") == b"content"
    assert list(dry.folders()) == ["srv"]
    assert not list(dry.unfinished("srv"))
    for bad in (lambda: dry.put("../x", [b"x"]), lambda: dry.remove(["/x"])):
        with pytest.raises(StoreError, match="invalid object name"):
            bad()


def stream_sha256(content: bytes) -> str:
    tally = stream.Tally()
    stream.drained(tally([content]))
    return tally.sha256


def test_a_dry_run_passes_on_what_only_reads(tmp_path: Path) -> None:
    dry = DryRun(LocalStore(tmp_path / "store"), print)
    assert store.folder_of(dry) == tmp_path / "store"
    assert store.free_space(dry) is not None
    assert store.ability(dry, MemoryStore) is None
