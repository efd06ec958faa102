"""Move a restored tree into a folder that may have files: folders are merged, files replaced.

Every conflict is found before anything is moved. Moves stay within one file system: what belongs
below a mount point is copied there first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from restore import conflicts, folder_attributes, folder_pairs, mount_copy
from restore.folder_pairs import Step
from restore.replaced_files import ReplacedFiles
from tools import filesystem_handling
from tools.base import removal
from tools.base.errors import StoreError

STAGING = ".nc-restore-"  # begins the name of a staging folder


@dataclasses.dataclass(frozen=True)
class _Tree:
    """A part of the restored tree, and the folder that it is moved into.

    path: the goal relative to the destination, "" for all; skip: mount points, relative to the goal
    """

    source: Path
    goal: Path
    path: bytes = b""
    skip: Collection[bytes] = ()

    def below(self, paths: Collection[bytes]) -> set[bytes]:
        """Return those of the paths that are below the goal, relative to it."""
        prefix = self.path + b"/" if self.path else b""
        return {path[len(prefix) :] for path in paths if path.startswith(prefix)}


def merge(
    source: Path, goal: Path, implied: Collection[bytes], *, overwrite: bool
) -> tuple[str, ...]:
    """Move everything in `source` into the folder `goal`; return a line for each difference.

    Folders that are in both get owner, mode, attributes and times of the source's when everything
    is in them, except those of `implied` (paths relative to `source`), which keep their own. Raises
    ConfigError naming the conflicts, before anything has been moved.
    """
    visitor = conflicts.Conflicts(goal, overwrite=overwrite)
    folder_pairs.walk(source, goal, visitor)
    visitor.raise_if_any()
    problems: list[str] = []
    with _copies(source, goal, visitor.mounts, problems) as trees:
        if visitor.replaces:  # a power cut must not leave half a file in the place of a whole one
            for tree in trees:
                filesystem_handling.sync_file_system(tree.source)
        for tree in trees:
            with ReplacedFiles(tree.goal, needed=visitor.replaces) as replaced:
                mover = _Mover(tree, tree.below(implied), problems, replaced)
                folder_pairs.walk(tree.source, tree.goal, mover, tree.skip)
        for tree in trees[1:]:
            if tree.path not in implied:
                problems += _set_mount_root(source / os.fsdecode(tree.path), tree)
    return tuple(problems)


@contextlib.contextmanager
def _copies(
    source: Path, goal: Path, mounts: Sequence[bytes], problems: list[str]
) -> Iterator[list[_Tree]]:
    """Yield the tree, and a copy of each part for a mount point below it, next to its goal."""
    with contextlib.ExitStack() as stack:
        trees = [_Tree(source, goal, skip=mounts)]
        for path in mounts:
            below = goal / os.fsdecode(path)
            removal.sweep(below, STAGING)
            copy = stack.enter_context(removal.private(below, STAGING))
            problems += mount_copy.copy(source / os.fsdecode(path), copy)
            tree = _Tree(copy, below, path)
            trees.append(dataclasses.replace(tree, skip=tree.below(mounts)))
        yield trees


def _set_mount_root(source: Path, tree: _Tree) -> list[str]:
    """Set the attributes of a mount point to those of the folder that the backup has there."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with removal.opened(source, flags) as original, removal.opened(tree.goal, flags) as folder:
        lines = folder_attributes.copy(original, os.fstat(original), folder)
    return [_difference(tree.path, line) for line in lines]


def _difference(path: bytes, problem: str) -> str:
    return f"{os.fsdecode(path)}: differs from the backup: {problem}"


class _Mover:
    """Moves each name into its place. A Visitor of `folder_pairs.walk`."""

    files = False

    def __init__(
        self,
        tree: _Tree,
        implied: Collection[bytes],
        problems: list[str],
        replaced: ReplacedFiles,
    ) -> None:
        self._tree = tree
        self._implied = implied
        self._problems = problems
        self._replaced = replaced
        self._levels: list[tuple[os.stat_result, os.stat_result]] = []  # both folders, before

    def visit(self, step: Step) -> None:
        """Move a file, or a folder that is new; see Visitor."""
        if not step.both_folders:
            self._move(step)
        elif step.path not in self._tree.skip:
            before = (
                os.lstat(step.name, dir_fd=step.source),
                os.lstat(step.name, dir_fd=step.goal),
            )
            self._levels.append(before)
            for parent in (step.source, step.goal):
                with (
                    contextlib.suppress(PermissionError),  # of another user: `denied` reports it
                    folder_pairs.opened_folder(step.name, parent) as folder,
                ):
                    folder_pairs.owner_may_write(folder)

    def _move(self, step: Step) -> None:
        """Move a name; a folder that its owner may not write is writable meanwhile.

        Raises StoreError.
        """
        try:
            with self._writable(step) if step.is_folder else contextlib.nullcontext():
                self._replaced.replace(step.name, step.source, step.goal)
        except OSError as error:
            raise self._error(step, error) from None

    @staticmethod
    @contextlib.contextmanager
    def _writable(step: Step) -> Iterator[None]:
        """Let the owner of a restored folder write it in the block, wherever it is moved."""
        with folder_pairs.opened_folder(step.name, step.source) as folder:
            mode = folder_pairs.owner_may_write(folder)
            yield
            if mode is not None:
                folder_pairs.set_mode(folder, mode)

    def _error(self, step: Step, error: OSError) -> StoreError:
        where = f"{self._tree.goal}/{os.fsdecode(step.path)}"
        return StoreError(
            f"{where}: cannot be replaced: {(error.strerror or str(error)).lower()}",
            "Restore into a new folder: a mount point or an immutable file (lsattr) cannot be "
            "replaced. Files before it in the alphabet are replaced already.",
        )

    def denied(self, step: Step, error: OSError) -> None:
        """Implement Visitor: the folder could be opened when conflicts were searched."""
        raise self._error(step, error)

    def leave(self, path: bytes, source: int, goal: int) -> None:
        """Set the attributes of a folder; see Visitor."""
        original, before = self._levels.pop()
        full_path = self._tree.path + b"/" + path if self._tree.path else path
        if path not in self._implied:
            lines = folder_attributes.copy(source, original, goal)
            self._problems += [_difference(full_path, line) for line in lines]
            return
        try:
            folder_attributes.restore_own(goal, before)
        except PermissionError:
            pass  # another user's folder, in which this one may write: nothing of it was changed
        except OSError as error:
            self._problems.append(_difference(full_path, str(error.strerror).lower()))
