"""Block uploads where the remote side fails: retried by block, aborted, settled by asking."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator

import pytest

from tests.storage.test_store_wrappers import Faults, broken, once, read
from tools.base.errors import StoreError, TakenError, TransientError
from tools.flow import store
from tools.flow.block_store import BlockStore
from tools.flow.memory_store import MemoryBlocks
from tools.flow.retries import Retries
from tools.flow.retrying_store import Retrying

NO_WAIT = Retries(0, say=lambda _line: None)
CONTENT = bytes(range(256)) * 10  # in 26 blocks of 100 bytes


def block_store(
    *faults: Faults, parallel: int = 2, memory: int = 1 << 20
) -> tuple[BlockStore, MemoryBlocks]:
    def fault(call: str, name: str) -> None:
        for one in faults:
            one(call, name)

    backend = MemoryBlocks(100, fault)
    return BlockStore(backend, NO_WAIT, parallel=parallel, memory=memory), backend


@pytest.mark.fault("a call of an upload in blocks fails four times", "that call is repeated alone")
@pytest.mark.parametrize("call", ["begin", "block 0", "block 13", "block 25", "complete"])
def test_every_call_of_an_upload_is_repeated_alone(call: str) -> None:
    faults, blocks = Faults(call, *[broken()] * 4), Faults("block 12")
    target, _ = block_store(faults, blocks)
    assert store.store_object(target, "srv/x", once(CONTENT)).size == len(CONTENT)
    assert read(target, "srv/x") == CONTENT
    assert (faults.calls, blocks.calls) == (5, 1)


def test_a_small_object_is_one_call_in_publish() -> None:
    calls = [Faults(call) for call in ("create", "begin", "block 0", "complete")]
    target, _ = block_store(*calls)
    target.put("srv/x", once(CONTENT[:100]))
    assert [one.calls for one in calls] == [0, 0, 0, 0]
    target.publish(["srv/x"])
    assert [one.calls for one in calls] == [1, 0, 0, 0]


def test_small_objects_wait_in_a_bounded_memory() -> None:
    created, begun = Faults("create"), Faults("begin")
    target, _ = block_store(created, begun, memory=150)
    for number in range(3):
        target.put(f"srv/{number}", once(CONTENT[:70]))
    target.publish([f"srv/{number}" for number in range(3)])
    assert (created.calls, begun.calls) == (2, 1)
    target.put("srv/3", once(CONTENT[:70]))
    target.discard(["srv/3"])
    for number in (4, 5):
        store.store_object(target, f"srv/{number}", once(CONTENT[:100]))
    assert begun.calls == 1  # the memory is given back


def test_nothing_is_left_where_a_block_fails_for_good() -> None:
    target, _ = block_store(Faults("block 7", *[broken()] * 5))
    with pytest.raises(OSError, match="trouble"):
        target.put("srv/x", once(CONTENT))
    assert not list(target.unfinished("srv"))
    assert not list(target.entries("srv"))


def test_an_error_that_no_attempt_can_fix_ends_the_upload_at_once() -> None:
    faults = Faults("block 3", broken(errno.EACCES))
    later = Faults("block 25")
    with pytest.raises(OSError, match="trouble"):
        block_store(faults, later, parallel=1)[0].put("srv/x", once(CONTENT))
    assert (faults.calls, later.calls) == (1, 0)


def test_an_upload_that_cannot_be_aborted_is_listed_and_removed_later() -> None:
    aborts = Faults("abort", broken())
    target, _ = block_store(Faults("block 7", *[broken()] * 5), aborts)
    with pytest.raises(OSError, match="trouble"):
        target.put("srv/20260101_000000.x", once(CONTENT))
    (leftover,) = target.unfinished("srv")
    assert leftover.name.startswith("srv/.20260101_000000.x.upload-")
    target.remove([leftover.name])
    assert not list(target.unfinished("srv"))


@pytest.mark.fault("the answer to a publication is lost", "the store is asked what it holds")
@pytest.mark.parametrize("size", [50, len(CONTENT)])
@pytest.mark.parametrize("lost", [broken(), TransientError("timed out"), broken(errno.ENOENT)])
def test_an_answer_that_was_lost_is_settled_by_asking(size: int, lost: Exception) -> None:
    """The object is visible; what the store says to the repeated call does not matter."""
    target, _ = block_store(Faults("create end", lost), Faults("complete end", lost))
    store.store_object(target, "srv/x", once(CONTENT[:size]))
    assert read(target, "srv/x") == CONTENT[:size]


@pytest.mark.parametrize("size", [50, len(CONTENT)])
def test_an_object_of_another_is_not_taken_for_our_own(size: int) -> None:
    target, backend = block_store(Faults("create", broken()), Faults("complete", broken()))
    target.put("srv/x", once(CONTENT[:size]))
    other = b"as long as it".ljust(size, b".")
    backend.objects.create("srv/x", other)
    with pytest.raises(TakenError, match="different content"):
        target.publish(["srv/x"])
    assert read(target, "srv/x") == other


def test_blocks_are_sent_at_once_and_no_more_than_allowed() -> None:
    lock = threading.Lock()
    sending, most = [0], [0]
    both = threading.Barrier(2, timeout=20)

    def fault(call: str, _name: str) -> None:
        if not call.startswith("block"):
            return
        with lock:
            sending[0] += 1
            most[0] = max(most[0], sending[0])
        both.wait()  # two at once; a third is not let in
        with lock:
            sending[0] -= 1
        both.wait()

    target = BlockStore(MemoryBlocks(100, fault), NO_WAIT, parallel=2)
    store.store_object(target, "srv/x", once(CONTENT))  # 26 blocks: pairs
    assert most[0] == 2
    assert read(target, "srv/x") == CONTENT


def test_blocks_in_memory_are_bounded() -> None:
    """The source is read no further than the blocks that are sent, and one more."""
    taken: list[int] = []
    sending = threading.Semaphore(0)
    held = threading.Event()

    def fault(call: str, _name: str) -> None:
        if call.startswith("block"):
            sending.release()
            held.wait(20)

    def chunks() -> Iterator[bytes]:
        for number in range(20):
            taken.append(number)
            yield bytes(100)

    target = BlockStore(MemoryBlocks(100, fault), NO_WAIT, parallel=2)
    worker = threading.Thread(target=target.put, args=("srv/x", chunks()), daemon=True)
    worker.start()
    assert sending.acquire(timeout=20)
    assert sending.acquire(timeout=20)
    assert not sending.acquire(blocking=False)
    assert len(taken) <= 3  # two are sent, the third waits for a slot
    held.set()
    worker.join(20)
    assert len(taken) == 20


def test_a_store_that_repeats_blocks_is_not_repeated_as_a_whole() -> None:
    faults = Faults("block 3", *[broken()] * 99)
    begun = Faults("begin")
    with pytest.raises(OSError, match="trouble"):
        Retrying(block_store(faults, begun)[0], NO_WAIT).put("srv/x", once(CONTENT))
    assert (faults.calls, begun.calls) == (5, 1)


def test_an_object_may_have_so_many_blocks() -> None:
    assert store.max_object_size(Retrying(BlockStore(MemoryBlocks(100, max_blocks=26)))) == 2600


def test_a_store_that_finds_another_checksum_shows_nothing() -> None:
    backend = MemoryBlocks(100)
    with pytest.raises(StoreError, match="checksum mismatch"):
        backend.create("srv/x", b"content", "0" * 64)  # as bits may flip on the way
    assert not list(BlockStore(backend).entries("srv"))
