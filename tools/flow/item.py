"""What flows: an item that a source gives, and the stages that it goes through.

A built-in source has `items(options, context)`, a built-in stage `stage(options)`, and for the
way back `backward(name, options)`; a store has `open_store(options)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.base import foreign
from tools.flow.facts import Facts, FileFacts
from tools.flow.item_record import StoredItem
from tools.flow.stream import Chunks

USER_STAGE = "own:"  # begins the name of a user-defined stage; the name of its section follows


@dataclass(frozen=True)
class SourceContext:
    """What a source receives from the run.

    private_paths: what must never be backed up
    previous:      for an item's name, its newest stored copy in each store (None: it has none)
    """

    run_id: str
    section: str
    private_paths: tuple[Path, ...] = ()
    previous: Callable[[str], Sequence[StoredItem | None]] = lambda _name: ()


@dataclass(frozen=True)
class ItemReport:
    """What a source reports about an item that has been read to its end.

    warnings: what is missing or cut (the run is incomplete then); notes: what is worth knowing
    facts:    versions of tools, positions
    base:     the run that an incremental item was added to; None for a full one
    failures: what fails the section, though the item itself is whole and stored
    unclean:  what the source could not clean up (exit code 5)
    """

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    facts: Facts = field(default_factory=FileFacts)
    failures: tuple[str, ...] = ()
    unclean: tuple[str, ...] = ()
    base: str | None = None

    def __post_init__(self) -> None:
        """Make its texts fit to be shown: they may quote servers and names of files."""
        for name in ("warnings", "notes", "failures", "unclean"):
            object.__setattr__(self, name, foreign.listing(getattr(self, name)))


@dataclass(frozen=True)
class Item:
    """One restorable thing.

    name:       within its section (a database); "" for the one item of a section
    kind:       what restores it ("fileset")
    suffix_for: the ending of its names (".tar"), from its first bytes
    read:       its bytes; raises at their end where they are not whole (SourceError)
    report:     asked once, after the end
    origin:     what is recorded of an item that waits in the work folder; None for a new one
    """

    name: str
    kind: str
    suffix_for: Callable[[bytes], str]
    read: Callable[[], Iterator[bytes]]
    report: Callable[[], ItemReport] = ItemReport
    origin: StoredItem | None = None


@dataclass(frozen=True)
class Stage:
    """A function from chunks to chunks, as the flow and the manifest need it.

    name:   what the manifest calls it, by which its inverse is found ("zstd", "age")
    ending: what it adds to a name
    skips:  whether it leaves an item that begins like this as it is
    size:   bytes of a part, where the stage says how large one may be
    notice: a warning that is shown once per run; "" for none
    checksum: whether its output has a checksum of its input, which its inverse checks
    """

    name: str
    ending: str
    forward: Callable[[Chunks], Iterator[bytes]]
    skips: Callable[[bytes], bool] = lambda _head: False
    size: int | None = None
    notice: str = ""
    checksum: bool = False


def about(name: str, line: object) -> str:
    """Return a line that begins with the item's name, as a path that a line begins with is."""
    text = str(line)
    return text if not name or text.lstrip("/").startswith(f"{name}: ") else f"{name}: {text}"
