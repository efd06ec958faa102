"""Several objects of one name, as Google Drive may hold them: read by size and SHA-256.

rclone reads the first of them by its name. All of them are read by a filter of names and sizes
(https://rclone.org/filtering/), one after another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from storage.rclone_daemon import Program
from tools.base import foreign
from tools.base.errors import StoreError, TransientError
from tools.flow import process, store, stream
from tools.flow.store import StoredObject

Copies = Sequence[Mapping[str, Any]]  # what a listing says of each
_SPECIAL = re.compile(r"[*?\[\]{}\\]")


def named(copies: Copies, subject: str) -> str:
    """Return a line that names every object of one name."""
    ids = (f" (ID {foreign.line(str(one['ID']))})" if one.get("ID") else "" for one in copies)
    facts = ", ".join(
        f"{one.get('Size')} bytes of {foreign.line(str(one.get('ModTime')))}{ident}"
        for one, ident in zip(copies, ids, strict=True)
    )
    return f"{subject}: {len(copies)} objects have this name: {facts}"


def read(
    program: Program, remote: str, copies: Copies, wanted: StoredObject | None, subject: str
) -> Iterator[bytes]:
    """Yield the object that has a size and a SHA-256.

    wanted: None where nobody knows them: all objects must be equal then. Raises StoreError
    """
    sizes = {int(one.get("Size", -1)) for one in copies}
    if (wanted is None and len(sizes) > 1) or (wanted is not None and wanted.size not in sizes):
        raise _ambiguous(copies, subject)
    size = wanted.size if wanted is not None else sizes.pop()
    count = sum(int(one.get("Size", -1)) == size for one in copies)
    path = str(copies[0]["Path"])

    def chunks() -> Iterator[bytes]:
        return _all(program, remote, path, size)

    if count == 1:
        yield from chunks()
        return
    digests = [_digest(part) for part in stream.split(chunks(), size)] if size else [""]
    if (wanted is None and len(set(digests)) > 1) or len(digests) != (count if size else 1):
        raise _ambiguous(copies, subject)
    chosen = digests.index(wanted.sha256) if wanted and wanted.sha256 in digests else 0
    yield from store.cut(chunks(), chosen * size, (chosen + 1) * size)


def _all(program: Program, remote: str, path: str, size: int) -> Iterator[bytes]:
    """Yield all objects of a name and a size, one after another."""
    folder, _, file = path.rpartition("/")
    name = _SPECIAL.sub(r"\\\g<0>", file)
    base = remote if remote.endswith((":", "/")) or not folder else f"{remote}/"
    config = () if program.config is None else ("--config", str(program.config))
    bounds = ("--min-size", f"{size}B", "--max-size", f"{size}B", "--max-depth", "1")
    chosen = (*bounds, "--include", f"/{name}", "--ask-password=false")
    yield from process.output(
        (program.path(), "cat", f"{base}{folder}", *program.flags, *chosen, *config),
        env=dict(program.env),
        failure=TransientError,
        name=program.program,
    )


def _digest(chunks: Iterator[bytes]) -> str:
    content = stream.content(chunks)
    stream.drained(content)
    return content.sha256


def _ambiguous(copies: Copies, subject: str) -> StoreError:
    return StoreError(
        named(copies, subject), "Compare them, and remove all but the right one by hand."
    )
