#!/usr/bin/env python3
"""Compress what the sections before left, each file by itself, in WORK_FOLDER/compressed."""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import dataclasses
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from tools import date_str_utils, filesystem_handling, os_works
from tools.base.errors import ConfigError, StageError
from tools.base.result import Result, Status
from tools.flow import codecs, process, stream
from tools.flow.item import Stage
from tools.flow.item_record import StoredItem
from tools.modules import executable
from tools.modules import targets as work_targets
from tools.modules.options import Paths, option
from tools.modules.work_folder import WorkFolder, applied

_TAR = re.compile(r"(gnu|g|bsd)?tar")
_HEAD = 32  # bytes that tell what a file is
_BETWEEN = ("compressed", "encrypted")  # usual folders between stages, no sources


class Algorithm(Enum):
    """The algorithms, by their usual names."""

    ZSTD = "zstd"
    GZIP = "gzip"
    XZ = "xz"
    NONE = "none"


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    targets: Paths = option(
        "files and folders; default, in a run, every folder in WORK_FOLDER that sections filled",
        default=(),
        aliases=("OBJECTIVES",),
    )
    destination: Path | None = option("default WORK_FOLDER/compressed", default=None)
    remove_targets: bool = option(
        "remove what has been compressed", default=True, aliases=("REMOVE_OBJECTIVES",)
    )
    algorithm: Algorithm | None = option(
        "`zstd`, `gzip`, `xz` or `none`; default zstd, or what TAR_COMMAND says", default=None
    )
    level: int | None = option(
        "zstd 1 to 19, gzip 1 to 9, xz 0 to 9; default 3, 6, 6", default=None
    )
    threads: int = option(
        "processors that zstd uses, as far as 160 MiB serve them; 0: all. "
        "With PARALLEL, items that flow at the same time share them",
        default=0,
        least=0,
    )
    tar_command: str = option(
        "as documented (`sudo /bin/tar czCf /`): only its z (gzip) or J (xz) is honoured",
        default="",
    )
    work_folder: Path = option("temporary work", default=Path("/opt/backup"))

    def __post_init__(self) -> None:
        codec = codecs.CODECS[self.chosen().value]
        if self.level is not None and self.level not in codec.levels:
            raise ConfigError(
                f"LEVEL: {self.level} is not a level of {self.chosen().value}",
                f"Choose {codec.levels[0]} to {codec.levels[-1]}.",
            )
        goal = self.goal().resolve()
        for target in self.targets:
            if goal in (target.resolve(), *target.resolve().parents):
                raise ConfigError(
                    f"TARGETS: {target} lies in DESTINATION, {self.goal()}",
                    "Set DESTINATION to a folder that is not in TARGETS.",
                )

    def goal(self) -> Path:
        """Where the compressed files go."""
        return self.destination or self.work_folder / "compressed"

    def chosen(self) -> Algorithm:
        """The algorithm: as named, else as the documented TAR_COMMAND asks, else zstd."""
        return self.algorithm or _of_tar(self.tar_command) or Algorithm.ZSTD


def _of_tar(command: str) -> Algorithm | None:
    """What a tar command compresses with, by the letters or the long option after `tar`."""
    words = command.split()
    at = next((n for n, word in enumerate(words) if _TAR.fullmatch(Path(word).name)), None)
    after = words[at + 1 :] if at is not None else []
    letters = after[0].lstrip("-") if after and not after[0].startswith("--") else ""
    if "z" in letters or "--gzip" in after:
        return Algorithm.GZIP
    return Algorithm.XZ if "J" in letters or "--xz" in after else None


def work(options: Options) -> Result:
    """Compress each file; bundle what is compressed already; then remove the sources."""
    destination = options.goal()
    reserved = reserved_places(options)
    targets = options.targets or filled_folders(options.work_folder, reserved)
    tasks = plan(targets, reserved, options.chosen())
    if not tasks:
        where = ", ".join(map(str, targets)) or str(options.work_folder)
        raise StageError(
            f"nothing to compress in {where}",
            "Set TARGETS to the folder that the earlier sections write to.",
        )
    filesystem_handling.make_folder(destination)
    sources = [file for task in tasks.values() for file in task.files]
    before = sum(file.stat().st_size for file in sources)
    progress = stream.Progress()
    folder = WorkFolder()
    made = [
        _do(task, destination / name, options, progress, folder) for name, task in tasks.items()
    ]
    if options.remove_targets:
        folder.remove(sources)
        _remove_empty(targets)
    after = sum(path.stat().st_size for path in made)
    share = f"{date_str_utils.human_size(before)} to {date_str_utils.human_size(after)}"
    return Result(
        Status.OK,
        f"{date_str_utils.count(len(sources), 'file')} with {options.chosen().value}, {share}",
        files=tuple(str(path) for path in made),
        items=len(made),
        bytes=after,
    )


def reserved_places(options: Options) -> frozenset[Path]:
    """Where no source is looked for: between stages, and what the runner says is private."""
    private = json.loads(os.environ.get("NC_BACKUP_PRIVATE", "[]"))
    between = (options.work_folder / name for name in _BETWEEN)
    return frozenset(Path(place).resolve() for place in (*private, *between, options.goal()))


def filled_folders(work_folder: Path, reserved: Collection[Path]) -> Paths:
    """The folders in the work folder that are not reserved.

    Only the runner knows which are private. Raises ConfigError where there is none: a local
    store in the work folder would be compressed, and removed.
    """
    if "NC_BACKUP_PRIVATE" not in os.environ:
        raise ConfigError(
            "TARGETS: is required where compression.py is called by itself",
            "backup.py says what is private; alone, name the folders.",
        )
    found = sorted(work_folder.absolute().iterdir()) if work_folder.is_dir() else []
    return tuple(
        path
        for path in found
        if path.is_dir() and not path.name.startswith(".") and path.resolve() not in reserved
    )


@dataclass(frozen=True)
class Task:
    """What becomes one file: its name is `first`, as many of the `folders` as needed, `name`."""

    files: Paths
    folders: tuple[str, ...]
    name: str
    packed: bool = False  # compressed already
    first: tuple[str, ...] = ()

    def called(self, depth: int) -> str:
        """The name, with so many folders in it."""
        return ".".join((*self.first, *self.folders[len(self.folders) - depth :], self.name))


def plan(
    targets: Iterable[Path], reserved: Collection[Path], algorithm: Algorithm
) -> dict[str, Task]:
    """What is to be done, by the name in the destination: each file is in one task only.

    Raises StageError for a target that is not there.
    """
    ending = codecs.CODECS[algorithm.value].ending
    tasks = []
    packed: dict[Path, list[Path]] = {}
    for file in (found.path for found in work_targets.files(targets, StageError, reserved)):
        with file.open("rb") as opened:
            known = codecs.is_compressed(opened.read(_HEAD))
        if known:
            packed.setdefault(file.parent, []).append(file)
        else:
            tasks.append(Task((file,), _folders(file), file.name + ending))
    run_id = os.environ.get("NC_BACKUP_RUN_ID") or date_str_utils.run_id()
    for folder, files in packed.items():
        if len(files) == 1:
            tasks.append(Task((files[0],), _folders(files[0]), files[0].name, packed=True))
        else:
            name = f"{folder.absolute().name}.tar"
            tasks.append(Task(tuple(files), _folders(folder), name, packed=True, first=(run_id,)))
    return _named(tasks)


def _folders(path: Path) -> tuple[str, ...]:
    """The names of the folders that a path lies in."""
    return path.absolute().parent.parts[1:]


def _named(tasks: Sequence[Task]) -> dict[str, Task]:
    """The tasks by names that differ: where two are alike, their folders are in them."""
    depths = [0] * len(tasks)
    while True:
        names = [task.called(depth) for task, depth in zip(tasks, depths, strict=True)]
        often = Counter(names)
        alike = [number for number, name in enumerate(names) if often[name] > 1]
        if not alike:
            return dict(zip(names, tasks, strict=True))
        for number in alike:
            if depths[number] == len(tasks[number].folders):
                raise StageError(
                    f"two files would be called {names[number]}", "Rename one of them."
                )
            depths[number] += 1


def _do(
    task: Task, target: Path, options: Options, progress: stream.Progress, folder: WorkFolder
) -> Path:
    """Make the file of one task; return it.

    What is there already under its name was published whole. If it holds the same, a run
    died before it could remove the source, and it is kept. If not, it is the only copy of
    something else: it is kept as well, and the new one gets the run id in front.
    """
    first = task.files[0]
    algorithm = "" if task.packed else options.chosen().value
    item, run = _item(task, options, folder), folder.run_of(first)
    tally = stream.Tally()
    if target.exists():
        there = _held(target, task, options) if len(task.files) == 1 else None
        if there is not None:
            folder.adopt([target], applied(item, algorithm, there), run)
            return target
        run_id = os.environ.get("NC_BACKUP_RUN_ID") or date_str_utils.run_id()
        target = target.with_name(f"{run_id}.{target.name}")
    if task.packed and len(task.files) == 1 and options.remove_targets:
        known = folder.entry(first)
        if known is not None:
            part = dataclasses.replace(known.item.parts[0], name=target.name)
            folder.record(target.parent, dataclasses.replace(item, parts=(part,)), run)
        if _linked(first, target):
            return target
    chunks = _bundle(task) if len(task.files) > 1 else folder.read(first)
    forward = iter if task.packed else stage(options).forward
    folder.write(
        target,
        stream.flow(chunks, tally, progress, forward),
        lambda: applied(item, algorithm, tally),
        run,
    )
    return target


def _item(task: Task, options: Options, folder: WorkFolder) -> StoredItem:
    """What a task compresses: an item, or several in one archive."""
    item = folder.item(task.files[0])
    if len(task.files) == 1:
        return item
    place, top = task.files[0].parent.resolve(), options.work_folder.resolve()
    name = place.relative_to(top) if place.is_relative_to(top) else Path(place.name)
    return StoredItem(item.section, f"{name}.tar", "file", "", (), ())


def stage(options: Options) -> Stage:
    """The stage for a streamed run: what is compressed already is left as it is."""
    name = options.chosen().value
    codec = codecs.CODECS[name]
    level = codec.level if options.level is None else options.level
    threads = options.threads or codecs.cores()
    return Stage(
        name,
        codec.ending,
        lambda chunks: codec.pack(chunks, level, threads),
        skips=codecs.is_compressed,
    )


def backward(name: str, _options: Options) -> Callable[[stream.Chunks], Iterator[bytes]]:
    """The inverse of a stage of this module, by its name in the manifest."""
    unpack: Callable[[stream.Chunks], Iterator[bytes]] = codecs.CODECS[name].unpack
    return unpack


def _held(target: Path, task: Task, options: Options) -> stream.Tally | None:
    """What a file that is there gives back, if that is exactly the one source of the task."""
    unpack = iter if task.packed else codecs.CODECS[options.chosen().value].unpack
    held, wanted = stream.Tally(), stream.Tally()
    try:
        for _ in held(unpack(stream.read(target))):
            pass
    except StageError:
        return None  # another format, or damaged
    for _ in wanted(stream.read(task.files[0])):
        pass
    return held if (held.size, held.sha256) == (wanted.size, wanted.sha256) else None


def _bundle(task: Task) -> Iterator[bytes]:
    """The chunks of an archive of what is compressed already."""
    names = b"".join(os.fsencode(file.name) + b"\0" for file in task.files)
    argv = ["tar", "--create", "--file=-", "--format=posix", f"--directory={task.files[0].parent}"]
    argv += ["--null", "--verbatim-files-from", "--files-from=-"]
    return process.output(argv, given=names, env=os_works.environment({}))


def _linked(file: Path, target: Path) -> bool:
    """Take a file over by a second name; False where the file system does not allow it."""
    try:
        os.link(file, target)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _remove_empty(targets: Iterable[Path]) -> None:
    """Remove the folders below the targets that are empty now."""
    for target in targets:
        folders = [path for path in target.rglob("*") if path.is_dir() and not path.is_symlink()]
        for folder in sorted(folders, reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()


def test(options: Options) -> tuple[str, ...]:
    """Whether the library for the algorithm is there, tar, and a place for what is made."""
    name = options.chosen().value
    b"".join(codecs.CODECS[name].pack([b"x"], codecs.CODECS[name].level, 1))
    if shutil.which("tar") is None:
        raise StageError("tar is not on the path", "Install it: it bundles compressed files.")
    place = options.goal().absolute()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        raise StageError(
            f"DESTINATION: {place} is not writable", "Give it to the user of the backup."
        )
    return (f"{name} and tar are there", f"{options.goal()} can be written")


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.run(Options, work, argv)
