"""Files out of an archive: checked member by member, unpacked by GNU tar where nobody looks yet."""

from __future__ import annotations

import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tools import os_works, process, stream
from tools.errors import ConfigError, SourceError, StoreError
from tools.stream import Chunks

if TYPE_CHECKING:
    from restore import members, tarformat
else:
    from tools import plugin

    members = plugin.load("restore/members.py")
    tarformat = plugin.load("restore/tarformat.py")

_PACKED = {
    ".gz": ["gzip", "-dc"],
    ".bz2": ["bzip2", "-dc"],
    ".xz": ["xz", "-dc"],
    ".zst": ["zstd", "-dc"],
}


@dataclass
class Unpacked:
    """What came out: how many entries of each kind, bytes, and what could not be given back."""

    kinds: Counter[str] = field(default_factory=Counter)
    size: int = 0
    dropped: list[str] = field(default_factory=list)
    foreign: int = 0  # entries of other owners, restored without their owner

    def take(self, member: tarformat.Member) -> None:
        """One member that goes through."""
        self.kinds[member.kind] += 1
        self.size += member.size if member.kind == "file" else 0
        if member.unsafe:
            self.dropped.append(f"{tarformat.shown(member.name)}: {member.unsafe}")
        if not os_works.is_root() and member.uid != os.geteuid():
            self.foreign += 1

    @property
    def entries(self) -> int:
        """How many entries of any kind."""
        return sum(self.kinds.values())

    def warnings(self) -> tuple[str, ...]:
        """What is not as it was: only root can set all of it."""
        lines = [f"not root, so not given back: {line}" for line in self.dropped[:100]]
        if len(self.dropped) > len(lines):
            lines.append(f"and {len(self.dropped) - len(lines)} more")
        if self.foreign:
            lines.append(
                f"not root, so {self.foreign} entries of other owners belong to {os_works.user()}"
            )
        return tuple(lines)


def archive(chunks: Chunks, ending: str) -> Iterator[bytes]:
    """The plain archive, where the source's own tar compressed it."""
    unpack = next((words for end, words in _PACKED.items() if ending.endswith(end)), None)
    return process.output(unpack, given=chunks, failure=StoreError) if unpack else iter(chunks)


def unpack(
    again: Callable[[], Iterator[bytes]], ending: str, target: Path, patterns: Sequence[str]
) -> Unpacked:
    """Unpack into a folder that is ours alone.

    again: gives the data of the item anew: hard links whose first name is not among the
    patterns need a second pass. Raises HostileError before anything of a bad member is
    written, SourceError where tar fails, and what the chunks raise.
    """
    wanted = members.matcher(patterns) if patterns else None
    more: frozenset[bytes] = frozenset()
    try:
        return _pass(again(), ending, target, wanted, more)
    except members.NeedsTarget as needs:
        more = needs.targets
        _emptied(target)
        return _pass(again(), ending, target, wanted, more)


def _emptied(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _pass(
    chunks: Iterator[bytes],
    ending: str,
    target: Path,
    wanted: Callable[[bytes], bool] | None,
    more: frozenset[bytes],
) -> Unpacked:
    found = Unpacked()
    privileged = os_works.is_root()
    with stream.closed(chunks):
        plain = archive(chunks, ending)
        rules = tarformat.Rules(privileged=privileged)
        chosen = None if wanted is None else _either(wanted, more)
        safe = members.checked(plain, rules, found.take, chosen)
        checked = stream.ahead(stream.gathered(safe))
        try:
            stream.drained(process.output(command(target), given=checked, env=_environment()))
        except SourceError as error:
            raise _of_tar(error) from None
    return found


def _of_tar(error: SourceError) -> StoreError:
    """What tar could not write, in its own words."""
    lines = [line for line in error.hint.splitlines() if "Exiting with failure" not in line]
    full = any("No space left" in line or "Wrote only" in line for line in lines)
    first = "No space left on the disk" if full else (lines[0] if lines else "nothing was said")
    return StoreError(f"{error}: {first}", "\n".join(lines))


def _either(wanted: Callable[[bytes], bool], more: frozenset[bytes]) -> Callable[[bytes], bool]:
    return lambda name: name in more or wanted(name)


def listed(chunks: Iterator[bytes], ending: str, patterns: Sequence[str]) -> Iterator[str]:
    """What would be unpacked, a line each."""
    wanted = members.matcher(patterns) if patterns else None
    lines: list[str] = []

    def take(member: tarformat.Member) -> None:
        if wanted is None or wanted(member.name):
            lines.append(_line(member))

    with stream.closed(chunks):
        rules = tarformat.Rules(privileged=os_works.is_root())
        for _ in members.checked(archive(chunks, ending), rules, take):
            yield from lines
            lines.clear()
    yield from lines


def _line(member: tarformat.Member) -> str:
    letter = {"folder": "d", "symlink": "l", "link": "h", "fifo": "p"}.get(member.kind, "-")
    mode = stat.filemode(member.mode)[1:]
    target = f" -> {tarformat.shown(member.target)}" if member.target else ""
    about = f"{letter}{mode} {member.uid}/{member.gid} {member.size:>12}"
    return f"{about} {tarformat.shown(member.name)}{target}"


def command(target: Path) -> list[str]:
    """GNU tar's command line: as root everything comes back, else what the user may set."""
    tar = shutil.which("tar")
    if tar is None:
        raise ConfigError("there is no tar", "Install GNU tar.")
    rights = (
        ["--same-owner", "--xattrs-include=*"]
        if os_works.is_root()
        else ["--no-same-owner", "--xattrs-include=user.*"]
    )
    return [
        tar,
        "--extract",
        "--file=-",
        f"--directory={target}",
        "--preserve-permissions",
        "--numeric-owner",
        "--acls",
        "--xattrs",
        "--quoting-style=escape",
        *rights,
    ]


def _environment() -> dict[str, str]:
    """For tar: messages in English, no options from elsewhere."""
    return {**os_works.environment({}), "LC_ALL": "C"}


def verify(chunks: Iterator[bytes], ending: str) -> None:
    """Read an archive to its end as a restore would, and write nothing."""
    with stream.closed(chunks):
        stream.drained(members.checked(archive(chunks, ending), tarformat.Rules(privileged=True)))
