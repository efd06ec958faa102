from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from tools import stream


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
