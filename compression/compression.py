#!/usr/bin/env python3
"""Compress what the sections before left, each file by itself, in WORK_FOLDER/compressed."""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import contextlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from tools import date_str_utils, filesystem_handling
from tools.base import foreign_json, hung_mount
from tools.base.errors import ConfigError, StageError
from tools.base.result import Result, Status
from tools.flow import codecs, stream
from tools.flow.item import Stage
from tools.modules import executable, work_folder
from tools.modules import targets as work_targets
from tools.modules.options import Paths, option
from tools.modules.work_store import WorkFolder, WorkStore, one_file

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
        """Return the folder of the compressed files."""
        return self.destination or self.work_folder / "compressed"

    def chosen(self) -> Algorithm:
        """Return the algorithm: as named, else as the documented TAR_COMMAND asks, else zstd."""
        return self.algorithm or _of_tar(self.tar_command) or Algorithm.ZSTD


def _of_tar(command: str) -> Algorithm | None:
    """Return what a tar command compresses with; None if neither gzip nor xz.

    Both the letters and the long option after `tar` count.
    """
    arguments = command.split()
    at = next((n for n, word in enumerate(arguments) if _TAR.fullmatch(Path(word).name)), None)
    after = arguments[at + 1 :] if at is not None else []
    letters = after[0].lstrip("-") if after and not after[0].startswith("--") else ""
    if "z" in letters or "--gzip" in after:
        return Algorithm.GZIP
    return Algorithm.XZ if "J" in letters or "--xz" in after else None


def work(options: Options) -> Result:
    """Let each item flow into a compressed file of its own; then remove the sources."""
    destination = options.goal()
    reserved = reserved_paths(options)
    targets = options.targets or filled_folders(options.work_folder, reserved)
    folder = WorkFolder()
    paths = [entry.path for entry in work_targets.files(targets, StageError, reserved)]
    recorded, others = folder.sets(paths)
    sets = named([*recorded, *([file] for file in others)], stage(options))
    if not sets:
        where = ", ".join(map(str, targets)) or str(options.work_folder)
        raise StageError(
            f"nothing to compress in {where}",
            "Set TARGETS to the folder that the earlier sections write to.",
        )
    sources = [file for files in sets.values() for file in files]
    before = sum(file.stat().st_size for file in sources)
    store = WorkStore(destination)
    archives = [_compress(files, store, name, options, folder) for name, files in sets.items()]
    if options.remove_targets:
        folder.remove(sources)
        _remove_empty(targets)
    after = sum(path.stat().st_size for path in archives)
    share = f"{date_str_utils.human_size(before)} to {date_str_utils.human_size(after)}"
    return Result(
        Status.OK,
        f"{date_str_utils.count(len(sources), 'file')} with {options.chosen().value}, {share}",
        files=tuple(str(path) for path in archives),
        items=len(archives),
        bytes=after,
    )


def reserved_paths(options: Options) -> frozenset[Path]:
    """Return where no source is looked for: between stages, and the runner's private paths."""
    private = foreign_json.load(os.environ.get("NC_BACKUP_PRIVATE", "[]"))
    between = (options.work_folder / name for name in _BETWEEN)
    places = (*private, *between, options.goal())
    return frozenset(hung_mount.real_path(path, hung_mount.OTHERS) for path in places)


def filled_folders(work_folder: Path, reserved: Collection[Path]) -> Paths:
    """Return the folders in the work folder that are not reserved.

    Only the runner knows which are private. Raises ConfigError where there is none: a local
    store in the work folder would be compressed, and removed.
    """
    if "NC_BACKUP_PRIVATE" not in os.environ:
        raise ConfigError(
            "TARGETS: is required where compression.py is called by itself",
            "backup.py says what is private; alone, name the folders.",
        )
    paths = sorted(work_folder.absolute().iterdir()) if work_folder.is_dir() else []
    return tuple(
        path
        for path in paths
        if path.is_dir() and not path.name.startswith(".") and path.resolve() not in reserved
    )


def named(sets: Sequence[Sequence[Path]], stage: Stage) -> dict[str, Sequence[Path]]:
    """Return the sets of files by the names of what they become.

    Where two names are alike, those of the folders stand in front, as many as needed. Raises
    StageError where that does not help.
    """
    names = [_name(files, stage) for files in sets]
    folders = [files[0].absolute().parent.parts[1:] for files in sets]
    depths = [0] * len(sets)
    while True:
        long = [
            work_folder.bounded(".".join((*above[len(above) - depth :], name)))
            for name, above, depth in zip(names, folders, depths, strict=True)
        ]
        often = Counter(long)
        alike = [number for number, name in enumerate(long) if often[name] > 1]
        if not alike:
            return dict(zip(long, sets, strict=True))
        for number in alike:
            if depths[number] == len(folders[number]):
                raise StageError(f"two files would be called {long[number]}", "Rename one of them.")
            depths[number] += 1


def _name(files: Sequence[Path], stage: Stage) -> str:
    name = work_folder.name_of(files)
    return name if _is_skipped(files[0], stage) else name + stage.ending


def _is_skipped(file: Path, stage: Stage) -> bool:
    with file.open("rb") as opened:
        return stage.skips(opened.read(_HEAD))


def _compress(
    files: Sequence[Path], store: WorkStore, name: str, options: Options, folder: WorkFolder
) -> Path:
    """Let one item flow into a file; return it.

    What is there already under its name was published whole. If it holds the same, a run
    died before it could remove the source, and it is kept. If not, it is the only copy of
    something else: it is kept as well, and the new one gets the run id in front.
    """
    chosen = stage(options)
    skipped = _is_skipped(files[0], chosen)
    target = store.folder / name
    if target.exists():
        unpack = iter if skipped else codecs.CODECS[options.chosen().value].unpack
        if _holds(unpack(stream.read(target)), folder.item(files).read()):
            folder.adopt([target], files, () if skipped else (chosen,))
            return target
        target = store.folder / f"{work_folder.run_id()}.{name}"
    if skipped and len(files) == 1 and options.remove_targets:
        with contextlib.suppress(OSError):  # another file system: it is copied
            folder.take(files[0], target)
            return target
    (target,) = folder.pass_on(files, store, one_file(target.name), chosen)
    return target


def stage(options: Options) -> Stage:
    """Return the stage. What is compressed already is left as it is."""
    name = options.chosen().value
    codec = codecs.CODECS[name]
    level = codec.level if options.level is None else options.level
    threads = options.threads or codecs.cores()
    return Stage(
        name,
        codec.ending,
        lambda chunks: codec.pack(chunks, level, threads),
        skips=codecs.is_compressed,
        checksum=codec.checksum,
    )


def backward(name: str, _options: Options) -> Callable[[stream.Chunks], Iterator[bytes]]:
    """Return the inverse of a stage of this module, by its name in the manifest."""
    unpack: Callable[[stream.Chunks], Iterator[bytes]] = codecs.CODECS[name].unpack
    return unpack


def _holds(packed: Iterator[bytes], source: Iterator[bytes]) -> bool:
    """Return whether a file that is there gives back exactly the source of an item."""
    held, wanted = stream.Tally(), stream.Tally()
    stream.drained(wanted(source))
    try:
        stream.drained(held(packed))
    except StageError:
        return False  # another format, or damaged
    return held.sha256 == wanted.sha256


def _remove_empty(targets: Iterable[Path]) -> None:
    """Remove the folders below the targets that are empty now."""
    for target in targets:
        entries = filesystem_handling.entries_below(target)
        folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        for folder in sorted(folders, reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()


def test(options: Options) -> tuple[str, ...]:
    """Return that the library and the destination can be used. Raises StageError."""
    name = options.chosen().value
    b"".join(codecs.CODECS[name].pack([b"x"], codecs.CODECS[name].level, 1))
    folder = options.goal().absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StageError(
            f"DESTINATION: {folder} is not writable", "Give it to the user of the backup."
        )
    return (f"{name} is installed", f"{options.goal()} is writable")


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.run(Options, work, argv)
