#!/usr/bin/env python3
"""Whether GNU tar creates what the checks of a restore saw, for archives that nobody should make.

    python3 benchmarks/tar_fuzz.py [--count N] [--seed N] [--below FOLDER]

Each archive goes through the checks (restore/archive_checks.py). What they accept GNU tar unpacks,
with the options of a restore: the names, kinds, sizes, modes, hard links and targets of symbolic
links must be those that the checks saw, and nothing outside of the folder may have changed.
One of eight archives is as GNU tar made it, of members of all formats, and must be accepted.
Needs root.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import os
import random
import shutil
import stat
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import tar_archives
from restore import archive_checks, tar_messages, tar_reader, unpack
from tools.base.errors import BackupError

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
_HONEST = 8  # one of so many archives is not changed
_RULES = tar_reader.Rules(privileged=True)


@dataclass(eq=False)
class Node:
    """What a name stands for. mode: None where the archive does not say it"""

    kind: str
    size: int = 0
    mode: int | None = None
    target: bytes = b""
    names: list[bytes] = field(default_factory=list)

    def facts(self, mode: int | None) -> tuple[object, ...]:
        """Return what must be equal.

        mode: that of the other side, for what the archive does not say
        """
        return (
            self.kind,
            self.size,
            mode if self.mode is None else self.mode,
            self.target,
            sorted(self.names),
        )


class Expected:
    """The tree that the members stand for."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, Node] = {}

    def take(self, member: tar_reader.Member) -> None:
        """Add one member, after those in front of it."""
        if not member.name:  # the folder itself
            return
        parent = member.name.rpartition(b"/")[0]
        while parent and parent not in self.nodes:
            self.nodes[parent] = Node("folder")
            parent = parent.rpartition(b"/")[0]
        if member.kind == "link":
            self.nodes[member.name] = self.nodes[member.target]
            return
        size = member.size if member.kind == "file" else 0
        mode = None if member.kind == "symlink" else member.mode
        target = member.target if member.kind == "symlink" else b""
        self.nodes[member.name] = Node(member.kind, size, mode, target)

    def whole(self) -> dict[bytes, Node]:
        """Return all names."""
        for name, node in self.nodes.items():
            node.names.append(name)
        return self.nodes


def created(folder: bytes) -> dict[bytes, Node]:
    """Return the tree below a folder."""
    nodes: dict[bytes, Node] = {}
    files: dict[int, Node] = {}
    for parent, folders, others in os.walk(folder):
        for name in (*folders, *others):
            path = parent + b"/" + name
            status = os.lstat(path)
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "?")
            size = status.st_size if kind == "file" else 0
            mode = None if kind == "symlink" else stat.S_IMODE(status.st_mode)
            target = os.readlink(path) if kind == "symlink" else b""  # noqa: PTH115  (bytes)
            node = files.setdefault(status.st_ino, Node(kind, size, mode, target))
            short = path[len(folder) + 1 :]
            node.names.append(short)
            nodes[short] = node
    return nodes


@dataclass
class Lab:
    """A folder for unpacking, in one that must not change."""

    top: Path
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.target = self.top / "target"
        self.target.mkdir()
        (self.top / "canary").write_bytes(b"canary")
        self.outside = self._outside()

    def _outside(self) -> list[tuple[object, ...]]:
        entries = [
            (entry.name, entry.stat(follow_symlinks=False)) for entry in os.scandir(self.top)
        ]
        return sorted(
            (name, status.st_mode, status.st_uid, status.st_nlink, status.st_size, status.st_ino)
            for name, status in entries
            if name not in ("target", "archive")
        )

    def difference(self, raw: bytes) -> str:
        """Return what GNU tar makes but the checks missed; "" if all is equal or rejected."""
        expected = Expected()
        try:
            chunks = archive_checks.check_archive(iter([raw]), _RULES, expected.take)
            checked = b"".join(chunks)
        except BackupError as error:
            self.counts["refused"] += 1
            return f"refused: {error}"
        self.counts["accepted"] += 1
        shutil.rmtree(self.target)
        self.target.mkdir()
        problem = self._unpacked(checked)
        return problem or self._compared(expected.whole())

    def _unpacked(self, checked: bytes) -> str:
        """Return what is wrong with the end of tar; "" for nothing."""
        archive = self.top / "archive"
        archive.write_bytes(checked)
        argv = unpack.command(self.target)
        with archive.open("rb") as source:
            done = subprocess.run(
                argv, stdin=source, capture_output=True, check=False, env=unpack._environment()
            )
        messages = tar_messages.Messages(argv[0])
        for line in done.stderr.decode("utf-8", "surrogateescape").splitlines():
            messages.take(line)
        bad = [*messages.unknown, *messages.lost.first, *messages.unset.first]
        return f"tar ended with {done.returncode}: {bad[:3]}" if done.returncode or bad else ""

    def _compared(self, expected: dict[bytes, Node]) -> str:
        if self._outside() != self.outside:
            return "something outside has changed"
        nodes = created(os.fsencode(self.target))
        if nodes.keys() != expected.keys():
            return f"names: {sorted(nodes)}, seen: {sorted(expected)}"
        for name, node in nodes.items():
            facts = expected[name].facts(node.mode)
            if node.facts(node.mode) != facts:
                return f"{name!r}: {node.facts(node.mode)}, seen: {facts}"
        return ""


def fuzz(count: int, seed: int, below: Path | None = None) -> tuple[Counter[str], list[str]]:
    """Try so many archives; return how many of each kind there were, and all differences."""
    problems: list[str] = []
    pool = tar_archives.seeds()
    with tempfile.TemporaryDirectory(dir=below) as folder:
        lab = Lab(Path(folder))
        for number in range(count):
            rng = random.Random(f"{seed} {number}")  # noqa: S311
            changes = rng.randrange(1, 4) if number % _HONEST else 0
            problem = lab.difference(tar_archives.make(rng, pool, changes))
            if problem and (not changes or not problem.startswith("refused: ")):
                problems.append(f"archive {number} of seed {seed}: {problem}")
    return lab.counts, problems


def main(argv: Sequence[str]) -> int:
    """Print the differences, and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--below", type=Path, default=Path("/dev/shm"))  # noqa: S108
    options = parser.parse_args(argv)
    started = time.monotonic()
    counts, problems = fuzz(options.count, options.seed, options.below)
    print("\n".join(problems))
    seconds = time.monotonic() - started
    print(
        f"{options.count} archives in {seconds:.0f} s: {counts['accepted']} accepted, "
        f"{counts['refused']} refused, {len(problems)} differences"
    )
    return 1 if problems else 0
