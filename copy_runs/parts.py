"""Copy the parts of a run: large ones one after the other, several small ones at once."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from tools.base.errors import (
    BackupError,
    DamagedError,
    StoreError,
    TakenError,
    TruncatedError,
)
from tools.flow import form, store, stream
from tools.flow.item_record import Part
from tools.flow.store import Store

Advance = Callable[[int], None]  # called with the bytes of a run that have been copied
_SMALL = 8 << 20  # bytes of a part for which round trips take longer than the transfer
_FEW = 8  # small parts that are not worth the threads
_AT_ONCE = 4
_OTHER = (
    "If no run and no other copy is at work there, the object is damaged: remove it from the "
    "store, and copy again."
)


class Parts:
    """Copies parts of one host from a store into another one.

    source_error: of the source, whatever the target says of it; None for none
    """

    def __init__(self, source: Store, target: Store, host: str) -> None:
        self._source = source
        self._target = target
        self._host = host
        self.source_error: BaseException | None = None

    def send(self, parts: Sequence[Part], advance: Advance, between: Callable[[], None]) -> None:
        """Copy parts, in any order. Raises BackupError, OSError.

        between: called now and then, in this thread
        """
        small = [part for part in parts if part.size <= _SMALL]
        small = small if len(small) > _FEW else []
        size = self._send_small(small, advance, between) if small else 0
        sent = set(small)
        for part in (part for part in parts if part not in sent):
            between()
            self._send(part, _after(size, advance))
            size += part.size

    def _send_small(
        self, parts: Sequence[Part], advance: Advance, between: Callable[[], None]
    ) -> int:
        """Copy several parts at once; return their bytes. The first error ends them all."""
        size = 0
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            sending = {pool.submit(self._send, part, _nothing): part for part in parts}
            try:
                for done in concurrent.futures.as_completed(sending):
                    done.result()
                    size += sending[done].size
                    advance(size)
                    between()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        return size

    def _send(self, part: Part, advance: Advance) -> None:
        """Copy one part; its SHA-256 is compared on the way, and by the target."""
        tally = stream.Tally()
        chunks = self._watched(form.read_object(self._source, self._host, part, tally))
        reading = stream.ahead(chunks) if part.size > _SMALL else chunks
        with stream.closed(reading) as ready:
            content = stream.Content(_counted(ready, advance), tally)
            stored = store.store_object(self._target, f"{self._host}/{part.name}", content)
        if (stored.size, stored.sha256) != (part.size, part.sha256):
            raise StoreError(
                f"{self._target}: {part.name}: confirmed other bytes than were sent",
                "Check the store.",
            )

    def _watched(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the chunks of the source; its error is noted, also where the target wraps it."""
        with self.reading():
            yield from chunks

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Note an error of the source."""
        try:
            yield
        except (BackupError, OSError) as error:
            self.source_error = error
            raise

    def compare(self, part: Part) -> None:
        """Raise TakenError where what the target has under the name of a part is not the part."""
        try:
            stream.drained(form.read_object(self._target, self._host, part))
        except (DamagedError, TruncatedError) as error:
            raise TakenError(f"{self._target}: {error}", _OTHER) from None


def _nothing(_size: int) -> None:
    """Report nothing: the listener is called from one thread."""


def _after(before: int, advance: Advance) -> Advance:
    """Return what counts the bytes of a part beside those of the parts before it."""
    return lambda size: advance(before + size)


def _counted(chunks: Iterator[bytes], advance: Advance) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        advance(size)
        yield chunk
