#!/usr/bin/env python3
"""The ssh store against ssh and sftp themselves, over the loopback interface: time.

    python3 benchmarks/ssh.py [--size MB] [--objects N] [--runs N] [--folder FOLDER]

Starts an sshd of its own; needs openssh-server. Each pair is measured in turn; the ratio is that
of the medians.
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

from storage.ssh_command import Server
from storage.ssh_objects import SshStore
from storage.ssh_session import Session
from tests.sshd import sshd
from tools.flow import store, stream

_BLOCK = 1 << 20
_SMALL = 4096  # bytes of a small object


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="of the large object, in MB")
    parser.add_argument("--objects", type=int, default=1000, help="small objects")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="of the store; default: a temporary one")
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="nc-bench-ssh-", dir=options.folder))
    try:
        _large(folder, options.size, options.runs)
        _small(folder, options.objects, options.runs)
    finally:
        shutil.rmtree(folder)
    return 0


def _large(folder: Path, size: int, runs: int) -> None:
    source = folder / "source"
    with source.open("wb") as file:
        for _ in range(size):
            file.write(os.urandom(_BLOCK))
    account = sshd().server()
    command = [*account.argv(), "--", account.host]
    into = folder / "other"
    rivals = {
        "ssh host 'cat > f'": f"cat > {into}",
        "the same, sync and sha256sum": f"cat > {into} && sync {into} && sha256sum {into}",
    }
    ours: dict[str, list[float]] = {"shell": [], "sftp alone": []}
    theirs: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(runs):
        for name, line in rivals.items():
            theirs[name].append(_timed(_piped, [*command, line], source))
            into.unlink()
        for name, times in ours.items():
            target = SshStore(Session(account, with_shell=name == "shell"), str(folder / "store"))
            chunks = stream.read(source)
            key = f"large/{name}.{number}"
            times.append(_timed(store.store_object, target, key, chunks))
            target.remove([key])
    for name, times in ours.items():
        _show(f"{size} MB, {name}", times, theirs)


def _small(folder: Path, count: int, runs: int) -> None:
    source = folder / "small"
    source.mkdir()
    for number in range(count):
        (source / f"{number}").write_bytes(os.urandom(_SMALL))
    account = sshd().server()
    ours: list[float] = []
    theirs: dict[str, list[float]] = {"sftp -b, put -r": []}
    for number in range(runs):
        into = folder / f"copied{number}"
        batch = f"mkdir {into}\nput -r {source} {into}\n".encode()
        sftp = ["sftp", "-q", "-b", "-", *_options(account), f"{account.user}@{account.host}"]
        theirs["sftp -b, put -r"].append(_timed(_run_with_input, sftp, batch))
        target = SshStore(Session(account), str(folder / f"store{number}"))
        ours.append(_timed(_each, target, source))
    _show(f"{count} objects of 4 KB, one after the other", ours, theirs)


def _each(target: SshStore, source: Path) -> None:
    for path in source.iterdir():
        store.store_object(target, f"small/{path.name}", stream.read(path))


def _options(account: Server) -> list[str]:
    """Return the options of ssh as sftp takes them."""
    arguments = account.argv()[3:]
    return [*arguments[: arguments.index("-l")], "-P", str(account.port)]


def _piped(command: list[str], source: Path) -> None:
    with source.open("rb") as file:
        subprocess.run(command, stdin=file, stdout=subprocess.DEVNULL, check=True)


def _run_with_input(command: list[str], text: bytes) -> None:
    subprocess.run(command, input=text, stdout=subprocess.DEVNULL, check=True)


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
