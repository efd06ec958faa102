"""The garbage collector of Python while many objects are made that stay."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_OBJECTS = 100_000  # new objects after which it looks for cycles; Python's default is 700


@contextlib.contextmanager
def collected_rarely() -> Iterator[None]:
    """Let the collector run rarely within the block.

    It would look at every manifest that was read so far again and again, and find nothing: 8 % of
    the time in which 10,000 of them are read. For blocks that hold no large buffers.
    """
    usual = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
