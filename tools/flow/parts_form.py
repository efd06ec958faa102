"""The form `parts`: one stream, cut into parts of FILE_SIZE that are joined in their order."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tools.flow import stream
from tools.flow.form import Form, InverseStages, Objects, Outlet, Plaintext, ReadObject
from tools.flow.item_record import Part, StoredItem

_MAX_NAMES = 200  # that one command lists; more parts are joined by a loop


class PartsForm:
    """See Form. `cat PARTS | age -d | zstd -d` restores an item without this program."""

    name = "parts"

    def store(self, data: Plaintext, outlet: Outlet) -> Objects:
        """See Form: the data and all stages but the last run in a thread of their own."""
        stem = data.stem + data.ending + "".join(stage.ending for stage in data.stages)
        *first, last = [stage.forward for stage in data.stages] or [iter]
        size = min(data.part_size, outlet.max_object_size)
        with stream.closed(stream.ahead(stream.flow(data.chunks, *first))) as chunks:
            layout, again = itertools.tee(data.layout(stem, size))
            parts = stream.split_into(last(chunks), (size for _, size in again))
            named = zip(layout, parts, strict=False)  # the stream ends before the names do
            return Objects(tuple(outlet.put(name, part) for (name, _), part in named))

    def check(self, item: StoredItem) -> None:
        """See Form."""
        if not item.parts:
            raise ValueError("item without parts")

    def needed(self, item: StoredItem, read_object: ReadObject) -> Iterable[Part]:
        """See Form: its parts."""
        return item.parts

    def size(self, item: StoredItem) -> int:
        """See Form."""
        return sum(part.size for part in item.parts)

    def read(
        self, item: StoredItem, read_object: ReadObject, inverse: InverseStages
    ) -> Iterator[bytes]:
        """See Form: each inverse stage runs in a thread of its own."""
        chunks: Iterator[bytes] = itertools.chain.from_iterable(map(read_object, item.parts))
        for stage in reversed(item.stages):
            chunks = inverse(stage)(stream.ahead(chunks))
        return stream.ahead(chunks) if item.stages else chunks

    def commands(self, item: StoredItem, inverse: Sequence[str]) -> Sequence[str]:
        """See Form: the parts are joined, in a loop where there are many."""
        names = [part.name for part in item.parts]
        stem = names[0].removesuffix("000")
        counted = [f"{stem}{number:03}" for number in range(len(names))]
        if len(names) > _MAX_NAMES and names == counted:
            quoted = shlex.quote(stem)
            join = (
                f"for n in $(seq 0 {len(names) - 1}); do "
                f'cat -- {quoted}"$(printf %03d "$n")" || exit 1; done'
            )
        else:
            join = "cat -- " + " ".join(shlex.quote(name) for name in names)
        return [join, *inverse]


if TYPE_CHECKING:
    _: type[Form] = PartsForm
