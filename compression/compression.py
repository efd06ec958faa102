#!/usr/bin/env python3
"""Compress what the sections before left, each file by itself, in WORK_FOLDER/compressed."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # spawned by path: look from the root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools import venv

    venv.enter()

import json
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from tools import date_str_utils, filesystem_handling, module, plugin, process, stream
from tools.errors import ConfigError, StageError
from tools.options import Paths, option
from tools.result import Result, Status

_codecs = plugin.load("compression/codecs.py")
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
        "files and folders; default every folder in WORK_FOLDER that sections filled",
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
    threads: int = option("processors that zstd uses; 0: all", default=0, least=0)
    tar_command: str = option(
        "as documented (`sudo /bin/tar czCf /`): only its compression is honoured, z gzip, J xz",
        default="",
    )
    work_folder: Path = option("temporary work", default=Path("/opt/backup"))

    def __post_init__(self) -> None:
        codec = _codecs.CODECS[self.chosen().value]
        if self.level is not None and self.level not in codec.levels:
            raise ConfigError(
                f"LEVEL: {self.level} is no level of {self.chosen().value}",
                f"It has {codec.levels[0]} to {codec.levels[-1]}.",
            )

    def chosen(self) -> Algorithm:
        """The algorithm: as named, else as the documented TAR_COMMAND asks, else zstd."""
        if self.algorithm is not None:
            return self.algorithm
        words = [
            word for word in shlex.split(self.tar_command) if "/" not in word and word != "sudo"
        ]
        letters = words[0] if words else ""
        return (
            Algorithm.GZIP if "z" in letters else Algorithm.XZ if "J" in letters else Algorithm.ZSTD
        )


def work(options: Options) -> Result:
    """Compress each file; bundle what is compressed already; then remove the sources."""
    destination = options.destination or options.work_folder / "compressed"
    targets = options.targets or filled_folders(options.work_folder, destination)
    plain, packed = _sorted(targets)
    if not plain and not packed:
        where = ", ".join(map(str, targets)) or str(options.work_folder)
        raise StageError(
            f"nothing to compress in {where}", "Did the sections before write elsewhere?"
        )
    filesystem_handling.make_folder(destination)
    progress = stream.Progress()
    made = [_compress(file, destination, options, progress) for file in plain]
    made += [_bundle(files, destination) for files in packed]
    sources = [*plain, *(file for files in packed for file in files)]
    if options.remove_targets:
        _remove(sources, targets)
    before = sum(size for _, size in made)
    after = sum(path.stat().st_size for path, _ in made)
    share = f"{date_str_utils.human_size(before)} to {date_str_utils.human_size(after)}"
    return Result(
        Status.OK,
        f"{date_str_utils.count(len(sources), 'file')} with {options.chosen().value}, {share}",
        files=tuple(str(path) for path, _ in made),
        items=len(made),
        bytes=after,
    )


def filled_folders(work_folder: Path, destination: Path) -> Paths:
    """The folders in the work folder that are neither private, between stages, nor a store."""
    told = {Path(path) for path in json.loads(os.environ.get("NC_BACKUP_PRIVATE", "[]"))}
    kept = told | {destination.absolute()} | {work_folder.absolute() / name for name in _BETWEEN}
    found = sorted(work_folder.absolute().iterdir()) if work_folder.is_dir() else []
    return tuple(
        path
        for path in found
        if path.is_dir() and not path.name.startswith(".") and path not in kept
    )


def _sorted(targets: Iterable[Path]) -> tuple[list[Path], list[list[Path]]]:
    """The files to compress, and by folder those that are compressed already."""
    plain: list[Path] = []
    packed: dict[Path, list[Path]] = {}
    for target in dict.fromkeys(targets):
        if not target.exists():
            raise StageError(
                f"TARGETS: {target} does not exist", "Name what the sections before wrote."
            )
        for file in filesystem_handling.files_below(target):
            with file.open("rb") as opened:
                known = _codecs.is_compressed(opened.read(_HEAD))
            if known:
                packed.setdefault(file.parent, []).append(file)
            else:
                plain.append(file)
    names = [file.name for file in plain]
    twice = next((file for file in plain if names.count(file.name) > 1), None)
    if twice is not None:
        raise StageError(
            f"two files to compress are called {twice.name}", "Give each a name of its own."
        )
    return plain, list(packed.values())


def _compress(
    file: Path, destination: Path, options: Options, progress: stream.Progress
) -> tuple[Path, int]:
    """One file; gives the new one and how many bytes went in.

    What is there already under the new name was made whole by a run that died before it
    could remove its source: it is made anew, for the source may have changed since.
    """
    codec = _codecs.CODECS[options.chosen().value]
    target = destination / (file.name + codec.ending)
    target.unlink(missing_ok=True)
    level = codec.level if options.level is None else options.level
    threads = options.threads or _codecs.cores()
    tally = stream.Tally()
    source = stream.flow(stream.read(file), progress, tally)
    with filesystem_handling.create(target, durable=False) as write:
        for chunk in codec.pack(source, level, threads):
            write(chunk)
    return target, tally.size


def _bundle(files: Sequence[Path], destination: Path) -> tuple[Path, int]:
    """What is compressed already: one file as it is, several of a folder in one plain tar."""
    size = sum(file.stat().st_size for file in files)
    if len(files) == 1:
        target = destination / files[0].name
        target.unlink(missing_ok=True)
        source = stream.read(files[0])
    else:
        run_id = os.environ.get("NC_BACKUP_RUN_ID") or date_str_utils.run_id()
        folder = files[0].parent
        target = destination / f"{run_id}.{folder.name}.tar"
        names = b"".join(os.fsencode(file.name) + b"\0" for file in files)
        argv = ["tar", "--create", "--file=-", "--format=posix", f"--directory={folder}"]
        argv += ["--null", "--verbatim-files-from", "--files-from=-"]
        source = process.output(argv, given=names)
    with filesystem_handling.create(target, durable=False) as write:
        for chunk in source:
            write(chunk)
    return target, size


def _remove(sources: Iterable[Path], targets: Iterable[Path]) -> None:
    """Remove exactly the files that were taken, and the folders that are empty then."""
    for file in sources:
        file.unlink()
    for target in targets:
        folders = [path for path in target.rglob("*") if path.is_dir()] if target.is_dir() else []
        for folder in sorted(folders, reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()


def test(options: Options) -> tuple[str, ...]:
    """Whether the library for the algorithm is there."""
    name = options.chosen().value
    b"".join(_codecs.CODECS[name].pack([b"x"], _codecs.CODECS[name].level, 1))
    return (f"{name} is there",)


if __name__ == "__main__":
    sys.exit(module.run(Options, work))
