"""What a module of each role must offer: one Protocol per role, which mypy holds built-ins to."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from tools.base.finding import Finding
from tools.base.result import Result
from tools.flow.item import Item, SourceContext, Stage
from tools.flow.item_record import StoredItem
from tools.flow.store import Store
from tools.flow.stream import Chunks
from tools.modules.options import Declaration

Again = Callable[[], Iterator[bytes]]  # the data of a stored item, once more from its beginning
# A restore into a server: yields what came of a step where the other items go first; returns
# what came of the last. Closed early, it drops a database that it made.
Steps = Generator[Result, None, Result]
O = TypeVar("O", bound=Declaration)  # noqa: E741  (the Options of a module)


@dataclass(frozen=True)
class Following:
    """An item of the same section, of the run that is restored or of a later one."""

    run_id: str
    item: StoredItem
    again: Again


@dataclass(frozen=True)
class Server:
    """The server that a dump is restored into.

    credentials: the client's own file of logins; None for its usual one
    database:    another name for what is restored; "" for the old one
    overwrite:   into a database that is not empty
    until:       how far logs are played after the dump; "" for not at all
    tablespaces: tables into those that they were in; MySQL: into their DATA DIRECTORY
    following:   where these logs are found, oldest first
    options:     Options of the section that made the dump; None where the config has none
    """

    host: str
    port: int | None = None
    user: str = ""
    credentials: Path | None = None
    database: str = ""
    overwrite: bool = False
    until: str = ""
    tablespaces: bool = True
    following: Callable[[], Iterator[Following]] = lambda: iter(())
    options: object = None


class Declared(Protocol[O]):
    """A module whose keys are declared in one frozen dataclass."""

    Options: type[O]


class Module(Declared[O], Protocol[O]):
    """A built-in module: `test` looks whether it could run and changes nothing (backup.py -t)."""

    def test(self, options: O, /) -> Sequence[str | Finding]:
        """Return what it found. Raises BackupError or OSError where it could not go on."""


class SourceModule(Module[O], Protocol[O]):
    """Gives items."""

    def items(self, options: O, context: SourceContext, /) -> Sequence[Item]:
        """Return the items to back up; their data are read later. Raises BackupError, OSError."""


class StageModule(Module[O], Protocol[O]):
    """Changes the chunks of every item on their way, and has the inverse."""

    def stage(self, options: O, /) -> Stage:
        """Return the stage. Raises BackupError where it cannot work (no key, no program)."""

    def backward(self, name: str, options: O, /) -> Callable[[Chunks], Iterator[bytes]]:
        """Return the inverse of the stage that the manifest calls `name`. Raises StageError."""


class StoreModule(Module[O], Protocol[O]):
    """Opens a store."""

    def open_store(self, options: O, /) -> Store:
        """Return the store; raises BackupError or OSError where it cannot be reached."""

    def keys_of(self, url: str, endpoint: str, /) -> Mapping[str, str]:
        """Return the keys of a section for a store that is named by its URL. Raises ConfigError."""


class CheckModule(Declared[O], Protocol[O]):
    """Looks at the run or the machine: a program or a plugin class, never part of the stream."""

    def main(self, argv: Sequence[str], /) -> int:
        """Run the command line; return the exit code."""


@runtime_checkable
class Restorer(Protocol):
    """Restores an item into a server."""

    def restore_to_server(self, item: StoredItem, again: Again, server: Server, /) -> Steps:
        """Return the steps of the restore. Raises BackupError or OSError."""


@runtime_checkable
class FolderRestorer(Protocol):
    """Restores an item as a folder in a form of its own (a data directory)."""

    def restore_to_folder(
        self,
        item: StoredItem,
        again: Again,
        folder: Path,
        stored: Callable[[], Iterator[Following]],
        /,
    ) -> Result:
        """Fill the empty folder. Raises BackupError or OSError."""
