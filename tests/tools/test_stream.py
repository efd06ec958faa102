from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.flow import store, stream
from tools.flow.stream import Chunks


@given(st.lists(st.binary(max_size=50)), st.integers(1, 40))
def test_split_loses_nothing_and_cuts_where_told(chunks: list[bytes], size: int) -> None:
    parts = [b"".join(part) for part in stream.split(chunks, size)]
    assert b"".join(parts) == b"".join(chunks)
    assert all(len(part) == size for part in parts[:-1])
    assert len(parts[-1]) <= size
    assert len(parts) == max(1, -(-len(b"".join(chunks)) // size))


@given(st.lists(st.binary(max_size=50)), st.integers(1, 40), st.integers(0, 3), st.booleans())
def test_split_skips_what_is_left_unread_of_a_part(
    chunks: list[bytes], size: int, pieces: int, close: bool
) -> None:
    """Issue 12, 7: it goes on to the next part, where that begins, and ends."""
    content = b"".join(chunks)
    begins = []
    for part in stream.split(chunks, size):
        begins.append(b"".join(itertools.islice(part, pieces)))
        if close:
            stream_close(part)
    assert len(begins) == max(1, -(-len(content) // size))
    for number, begin in enumerate(begins):
        assert content[number * size : (number + 1) * size].startswith(begin)


def stream_close(part: Iterator[bytes]) -> None:
    with stream.closed(part):
        pass


@pytest.mark.parametrize(
    ("start", "end"), [(0, None), (0, 0), (3, 8), (5, None), (9, 99), (50, 60)]
)
def test_a_range_of_a_file_and_of_chunks(tmp_path: Path, start: int, end: int | None) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    expected = b"0123456789"[start:end]
    assert b"".join(stream.read(tmp_path / "file", start, end)) == expected
    assert b"".join(store.cut([b"012", b"", b"3456", b"789"], start, end)) == expected


def test_tally_changes_nothing_and_counts() -> None:
    tally = stream.Tally()
    assert b"".join(stream.flow([b"ab", b"c"], tally)) == b"abc"
    assert (tally.size, tally.sha256) == (3, hashlib.sha256(b"abc").hexdigest())


def test_watched_changes_nothing_and_shows_all_of_it() -> None:
    observed: list[bytes] = []
    chunks = [bytes([n]) * 100 for n in range(50)]
    assert list(stream.watched(chunks, observed.extend)) == chunks
    assert observed == chunks


def test_what_a_watcher_raises_is_raised() -> None:
    def early(_chunks: Chunks) -> None:
        raise ValueError("no")

    def late(chunks: Chunks) -> None:
        stream.drained(chunks)
        raise ValueError("no")

    for look in (early, late):
        with pytest.raises(ValueError, match="no"):
            stream.drained(stream.watched([b"x"] * 50, look))


def test_a_watcher_that_has_seen_enough_is_no_trouble() -> None:
    chunks = [b"x"] * 50
    assert list(stream.watched(chunks, lambda _chunk: None)) == chunks


def test_a_watcher_never_takes_an_error_for_the_end() -> None:
    completions: list[bool] = []

    def look(chunks: Chunks) -> None:
        stream.drained(chunks)
        completions.append(True)

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        stream.drained(stream.watched(broken(), look))
    watched_chunks = stream.watched([b"x"] * 50, look)
    assert next(watched_chunks) == b"x"
    watched_chunks.close()  # type: ignore[attr-defined]
    assert not completions


@given(st.lists(st.binary(max_size=50)))
def test_gathered_changes_nothing(chunks: list[bytes]) -> None:
    assert b"".join(stream.gathered(chunks)) == b"".join(chunks)


def test_closing_hides_no_error_while_a_thread_still_reads() -> None:
    """A cancelled restore was an internal error: generator already executing."""
    began, go_on = threading.Event(), threading.Event()

    def chunks() -> Iterator[bytes]:
        began.set()
        go_on.wait(10)
        yield b""

    source = chunks()
    reader = threading.Thread(target=lambda: list(source))
    with pytest.raises(KeyError, match="the error"), stream.closed(source):  # noqa: PT012
        reader.start()
        began.wait(10)
        raise KeyError("the error")
    go_on.set()
    reader.join(10)
