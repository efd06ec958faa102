from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.flow import stream
from tools.flow.stream import Chunks


@given(st.lists(st.binary(max_size=50)), st.integers(1, 40))
def test_split_loses_nothing_and_cuts_where_told(chunks: list[bytes], size: int) -> None:
    parts = [b"".join(part) for part in stream.split(chunks, size)]
    assert b"".join(parts) == b"".join(chunks)
    assert all(len(part) == size for part in parts[:-1])
    assert len(parts[-1]) <= size
    assert len(parts) == max(1, -(-len(b"".join(chunks)) // size))


def test_tally_changes_nothing_and_counts() -> None:
    tally = stream.Tally()
    assert b"".join(stream.flow([b"ab", b"c"], tally)) == b"abc"
    assert (tally.size, tally.sha256) == (3, hashlib.sha256(b"abc").hexdigest())


def test_watched_changes_nothing_and_shows_all_of_it() -> None:
    seen: list[bytes] = []
    chunks = [bytes([n]) * 100 for n in range(50)]
    assert list(stream.watched(chunks, seen.extend)) == chunks
    assert seen == chunks


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
    assert list(stream.watched(chunks, lambda given: None)) == chunks


def test_a_watcher_never_takes_an_error_for_the_end() -> None:
    ended: list[bool] = []

    def look(chunks: Chunks) -> None:
        stream.drained(chunks)
        ended.append(True)

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        stream.drained(stream.watched(broken(), look))
    left = stream.watched([b"x"] * 50, look)
    assert next(left) == b"x"
    left.close()  # type: ignore[attr-defined]
    assert not ended


@given(st.lists(st.binary(max_size=50)))
def test_gathered_changes_nothing(chunks: list[bytes]) -> None:
    assert b"".join(stream.gathered(chunks)) == b"".join(chunks)
