#!/usr/bin/env python3
"""The rclone store against rclone itself, with a remote of type local: time.

    python3 benchmarks/rclone.py [--size MB] [--objects N] [--runs N] [--folder FOLDER]

Needs rclone. Each pair is measured in turn; the ratio is that of the medians.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence

from storage import rclone_store
from storage.rclone_store import Options
from tests.servers import program
from tools.flow import store, stream

_BLOCK = 1 << 20
_SMALL = 4096  # bytes of a small object


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="of the large object, in MB")
    parser.add_argument("--objects", type=int, default=200, help="small objects")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="of the store; default: a temporary one")
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="nc-bench-rclone-", dir=options.folder))
    try:
        _large(folder, options.size, options.runs)
        _small(folder, options.objects, options.runs)
    finally:
        shutil.rmtree(folder)
    return 0


def _open_store(remote: str, work: Path) -> store.Store:
    executable = program("rclone")
    options = Options(
        hostname="srv", remote=remote, program=executable, config=Path(os.devnull), work_folder=work
    )
    return rclone_store.open_store(options)


def _large(folder: Path, size: int, runs: int) -> None:
    source = folder / "source"
    with source.open("wb") as file:
        for _ in range(size):
            file.write(os.urandom(_BLOCK))
    ours: list[float] = []
    theirs: dict[str, list[float]] = {"rclone rcat": [], "rclone rcat, then rclone hashsum": []}
    remote = f":local:{folder}/other"
    for number in range(runs):
        for name, times in theirs.items():
            times.append(_timed(_rcat, source, f"{remote}/x", "hashsum" in name))
            (folder / "other/x").unlink()
        target = _open_store(f":local:{folder}/store", folder)
        ours.append(_timed(store.store_object, target, f"srv/{number}", stream.read(source)))
        target.remove([f"srv/{number}"])
        del target
    _show(f"{size} MB", ours, theirs)


def _rcat(source: Path, remote: str, hashed: bool) -> None:
    with source.open("rb") as file:
        _rclone("rcat", remote, stdin=file.fileno())
    if hashed:
        _rclone("hashsum", "sha256", remote)


def _rclone(*arguments: str, stdin: int = subprocess.DEVNULL) -> None:
    command = [program("rclone"), "--config", os.devnull, *arguments]
    subprocess.run(command, stdin=stdin, stdout=subprocess.DEVNULL, check=True)


def _small(folder: Path, count: int, runs: int) -> None:
    source = folder / "small"
    source.mkdir()
    for number in range(count):
        (source / f"{number}").write_bytes(os.urandom(_SMALL))
    ours: list[float] = []
    theirs: dict[str, list[float]] = {"rclone copy": [], "rclone rcat, a process each": []}
    copy, single = theirs.values()
    for number in range(runs):
        copy.append(_timed(_rclone, "copy", str(source), f":local:{folder}/copied{number}"))
        single.append(_timed(_each_rcat, source, f":local:{folder}/single{number}"))
        target = _open_store(f":local:{folder}/store{number}", folder)
        ours.append(_timed(_each, target, source))
    _show(f"{count} objects of 4 KB, one after the other", ours, theirs)


def _each(target: store.Store, source: Path) -> None:
    for path in source.iterdir():
        store.store_object(target, f"small/{path.name}", stream.read(path))


def _each_rcat(source: Path, remote: str) -> None:
    for path in source.iterdir():
        _rcat(path, f"{remote}/{path.name}", hashed=False)


def _timed(work: Callable[..., object], *arguments: object) -> float:
    began = time.monotonic()
    work(*arguments)
    return time.monotonic() - began


def _show(title: str, ours: list[float], theirs: dict[str, list[float]]) -> None:
    median = statistics.median(ours)
    print(f"{title}: {median:.2f} s ({min(ours):.2f} to {max(ours):.2f})")
    for name, times in theirs.items():
        other = statistics.median(times)
        print(
            f"  {name}: {other:.2f} s ({min(times):.2f} to {max(times):.2f}), {median / other:.2f}"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
