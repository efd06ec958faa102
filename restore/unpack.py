"""Unpack an archive: each entry is checked, then GNU tar unpacks it into a staging folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from restore import archive_checks, attributes, tar_messages, tar_reader
from restore.archive_errors import HINT, UnsafeArchiveError, printable_name
from restore.lines import Lines
from tools import os_works
from tools.base import removal, trusted_path
from tools.base.errors import ConfigError, SourceError, StoreError
from tools.flow import process, stream
from tools.flow.stream import Chunks

UNMATCHED = "nothing matches --path"  # begins the line of a pattern
_REPLACED = "Restore into a folder that no other user can change, nor a folder above it."
_NAMED = 10  # entries of other owners that are named
_IMPLIED = 0o755  # mode of folders that the archive has no member for
_PACKED = {
    ".gz": ["gzip", "-dc"],
    ".bz2": ["bzip2", "-dc"],
    ".xz": ["xz", "-dc"],
    ".zst": ["zstd", "-dc"],
}


def count_entries(number: int) -> str:
    """Return a number of entries, for people."""
    return f"{number} entry" if number == 1 else f"{number} entries"


@dataclass
class UnpackResult:
    """What was unpacked: entries of each kind, bytes, and what could not be restored."""

    privileged: bool  # as root, who restores owners
    kinds: Counter[str] = field(default_factory=Counter)
    size: int = 0
    lost: Lines = field(default_factory=Lines)  # entries that could not be restored
    unset: Lines = field(default_factory=Lines)  # attributes that differ from the backup
    not_restored: Lines = field(default_factory=Lines)  # what only root could have set
    foreign: Lines = field(default_factory=Lines)  # entries restored without owner or group
    implied: set[bytes] = field(default_factory=set)  # folders that occur only in paths
    unmatched: tuple[str, ...] = ()  # patterns that no name matched
    _folders: set[bytes] = field(default_factory=lambda: {b""})

    def take(self, member: tar_reader.Member) -> None:
        """Count an entry that is handed on to tar."""
        self.kinds[member.kind] += 1
        self.size += member.size if member.kind == "file" else 0
        self._add_folders(member)
        if member.unsafe:
            self.not_restored.add(f"{printable_name(member.name)}: {member.unsafe}")
        if not self.privileged and (member.uid, member.gid) != (os.geteuid(), os.getegid()):
            self.foreign.add(printable_name(member.name))

    def _add_folders(self, member: tar_reader.Member) -> None:
        """Remember the folders of the archive, and those that it has only as part of a path."""
        if member.kind == "folder":
            self._folders.add(member.name)
            self.implied.discard(member.name)
        parent = member.name.rpartition(b"/")[0]
        while parent not in self._folders and parent not in self.implied:
            self.implied.add(parent)
            parent = parent.rpartition(b"/")[0]

    def lose(self, member: tar_reader.Member, why: str) -> None:
        """Add an entry that cannot be restored at all."""
        self.lost.add(f"{printable_name(member.name)}: {why}")

    @property
    def entries(self) -> int:
        """Return the number of entries of all kinds."""
        return sum(self.kinds.values())

    def warnings(self) -> tuple[str, ...]:
        """Return a line for each difference; of many the first, and how many more there are."""
        lines = [
            *self.lost.texts("cannot be restored: "),
            *self.unset.texts("differs from the backup: "),
            *self.not_restored.texts("not restored without root: "),
        ]
        if self.foreign.count:
            names = self.foreign.first[:_NAMED]
            more = self.foreign.count - len(names)
            lines.append(
                f"{count_entries(self.foreign.count)} of other owners or groups now belong to "
                f"{os_works.user()}: not running as root: {', '.join(names)}"
                + (f" and {more} more" if more else "")
            )
        lines += [f"{UNMATCHED} {pattern}" for pattern in self.unmatched]
        return tuple(lines)


def archive(chunks: Chunks, ending: str) -> Iterator[bytes]:
    """Return the archive, decompressed where the tar of the source compressed it."""
    unpack = next((command for end, command in _PACKED.items() if ending.endswith(end)), None)
    return process.output(unpack, stdin_data=chunks, failure=StoreError) if unpack else iter(chunks)


def unpack(
    again: Callable[[], Iterator[bytes]],
    ending: str,
    target: Path,
    patterns: Sequence[str],
    *,
    special: bool = True,
) -> UnpackResult:
    """Unpack into a folder that is ours alone.

    again: gives the data of the item anew: hard links whose first name is not among the patterns
    need a second pass. special: see Rules. Raises UnsafeArchiveError before anything of a bad
    member is written, SourceError where tar fails, and what the chunks raise.
    """
    with _held(target) as folder:
        return _unpacked(again, ending, folder, patterns, special=special)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[Path]:
    """Yield a path of a folder that stays valid if the folder or one above is renamed.

    Only for root, and where /proc is. Raises StoreError for a folder that is not ours alone.
    """
    process_folder = Path("/proc/self")
    if not os_works.is_root() or not process_folder.exists():
        yield folder
        return
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(trusted_path.folder(folder))
            path = process_folder.resolve() / f"fd/{descriptor}"
            status = os.fstat(descriptor)
            is_ours = status.st_uid == os.geteuid() and not status.st_mode & 0o022
            is_ours = is_ours and not any(path.iterdir())
        except OSError as error:
            raise StoreError(f"{folder}: {error.strerror}", _REPLACED) from None
        if not is_ours:
            raise StoreError(f"{folder}: was replaced during the restore", _REPLACED)
        yield path


def _unpacked(
    again: Callable[[], Iterator[bytes]],
    ending: str,
    target: Path,
    patterns: Sequence[str],
    *,
    special: bool,
) -> UnpackResult:
    """Unpack with a second pass if it is needed; see `unpack`."""
    selection = archive_checks.Patterns(patterns) if patterns else None
    rules = tar_reader.Rules(privileged=os_works.is_root(), special=special)
    try:
        result = _restored(again(), ending, target, rules, selection)
    except archive_checks.MissingLinkTargetError as needs:
        _clear_folder(target)
        result = _restored(again(), ending, target, rules, _either(selection, needs.targets))
    result.unmatched = selection.unmatched if selection else ()
    for name in result.implied:
        with contextlib.suppress(OSError):  # it was never made, and what lay in it is named
            (target / os.fsdecode(name)).chmod(_IMPLIED)
    return result


def _clear_folder(folder: Path) -> None:
    for entry in folder.iterdir():
        removal.tree(entry)


def _restored(
    chunks: Iterator[bytes],
    ending: str,
    target: Path,
    rules: tar_reader.Rules,
    selects: Callable[[bytes], bool] | None,
) -> UnpackResult:
    """Unpack once; what tar could not do with single members is named."""
    result, messages = _unpack_pass(chunks, ending, command(target), rules, selects)
    missing = len(messages.missing)
    if missing and missing >= result.entries:
        raise StoreError(f"no entry could be restored: {messages.lost.first[0]}")
    for path in _below(target, messages.partial):
        path.unlink()
    for path in _below(target, messages.of_others):
        path.chmod(path.stat().st_mode & 0o1777)  # never for another owner than intended
    result.lost.extend(messages.lost)
    result.unset.extend(messages.unset)
    result.kinds["missing"] -= missing
    return result


def _below(folder: Path, names: Iterable[bytes]) -> Iterator[Path]:
    """Yield the paths that exist below a folder and lead through no symbolic link."""
    top = os.path.realpath(folder)
    for path in (folder / os.fsdecode(name) for name in names):
        is_below = folder in path.parents and ".." not in path.parts
        real = f"{top}/{path.relative_to(folder)}" if is_below else ""
        if os.path.realpath(path) == real and path.exists():
            yield path


def _unpack_pass(
    chunks: Iterator[bytes],
    ending: str,
    argv: list[str],
    rules: tar_reader.Rules,
    selects: Callable[[bytes], bool] | None = None,
    judge: Callable[[tar_reader.Member], Iterator[str]] = lambda _member: iter(()),
) -> tuple[UnpackResult, tar_messages.Messages]:
    """Send an archive through the checks and GNU tar, to unpack or only to list it.

    tar prints each name that it reads: it must read those that we saw. Raises UnsafeArchiveError
    before tar gets anything of a bad member, StoreError where tar fails, and what the chunks raise.
    """
    result = UnpackResult(rules.privileged)
    same = _Same()
    messages = tar_messages.Messages(argv[0])

    def on_member(member: tar_reader.Member) -> None:
        same.expect(member.written)
        result.take(member)
        unset = [
            f"attribute {printable_name(key[:80])}: not set: line feed in a name"
            for key in attributes.unreportable(member)
        ]
        for why in (*unset, *judge(member)):
            result.unset.add(f"{printable_name(member.name)}: {why}")

    with stream.closed(chunks):
        plain = archive(chunks, ending)
        safe = archive_checks.check_archive(plain, rules, on_member, selects, result.lose)
        checked = stream.ahead(stream.gathered(safe))
        listed = process.output(
            argv,
            stdin_data=checked,
            env=_environment(),
            notice=messages.take,
            allowed=messages.allowed,
        )
        try:
            with stream.closed(listed):  # first: its thread reads the chunks
                for chunk in listed:
                    same.take(chunk)
        except SourceError as error:
            raise _tar_error(error, messages) from None
    same.end()
    for line in messages.unknown:  # tar exited with 0
        result.unset.add(line)
    return result, messages


class _Same:
    """Checks that tar reads the same names as the checks: the two readers must not differ."""

    def __init__(self) -> None:
        self._expected: deque[bytes] = deque()
        self._rest = b""

    def expect(self, name: bytes) -> None:
        """Add a name that tar will read."""
        self._expected.append(name)

    def take(self, chunk: bytes) -> None:
        """Take names that tar printed, a line each. Raises UnsafeArchiveError."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            name = tar_messages.unescaped(line)
            expected = self._expected.popleft() if self._expected else b""
            if name.rstrip(b"/") != expected.rstrip(b"/"):
                self._differs(expected or name)

    def end(self) -> None:
        """Check that no name is missing. Raises UnsafeArchiveError."""
        if self._rest or self._expected:
            self._differs(self._expected[0] if self._expected else self._rest)

    @staticmethod
    def _differs(name: bytes) -> None:
        raise UnsafeArchiveError(
            f"{printable_name(name)}: GNU tar reads another name",
            HINT,
        )


def _tar_error(error: SourceError, messages: tar_messages.Messages) -> StoreError:
    """Return why tar failed as a whole, in its own words."""
    full = any("No space left" in line or "Wrote only" in line for line in messages.unknown)
    first = "no space left on device" if full else messages.error()
    hint = "Free space on the destination, or restore into another folder." if full else ""
    return StoreError(f"{error}: {first}", hint)


def _either(
    selects: Callable[[bytes], bool] | None, more: frozenset[bytes]
) -> Callable[[bytes], bool]:
    return lambda name: name in more or (selects is not None and selects(name))


def list_entries(
    chunks: Iterator[bytes],
    ending: str,
    selects: Callable[[bytes], bool] | None,
    *,
    special: bool = True,
) -> Iterator[str]:
    """Return a line for each entry that would be unpacked; it names what could not be.

    Raises what unpacking would raise, at the end.
    """
    lines: list[str] = []

    def take(member: tar_reader.Member, why: str = "") -> None:
        if selects is None or selects(member.name):
            without = f" (without {member.unsafe})" if member.unsafe else ""
            lines.append(_line(member) + (f" (not restored: {why})" if why else without))

    with stream.closed(chunks):
        rules = tar_reader.Rules(privileged=os_works.is_root(), special=special)
        try:
            for _ in archive_checks.check_archive(
                archive(chunks, ending), rules, take, on_lost=take
            ):
                yield from lines
                lines.clear()
        finally:
            yield from lines


def _line(member: tar_reader.Member) -> str:
    letter = {"folder": "d", "symlink": "l", "link": "h", "fifo": "p"}.get(member.kind, "-")
    mode = stat.filemode(member.mode)[1:]
    target = f" -> {printable_name(member.target)}" if member.target else ""
    about = f"{letter}{mode} {member.uid}/{member.gid} {member.size:>12}"
    return f"{about} {printable_name(member.name)}{target}"


def command(target: Path) -> list[str]:
    """Return the command line of GNU tar: as root it restores all, else what the user may set."""
    rights = (
        ["--same-owner", "--xattrs-include=*"]
        if os_works.is_root()
        else ["--no-same-owner", "--xattrs-include=user.*"]
    )
    return [
        program(),
        "--extract",
        "--verbose",
        "--file=-",
        f"--directory={target}",
        "--preserve-permissions",
        "--numeric-owner",
        "--acls",
        "--xattrs",
        "--quoting-style=escape",
        "--warning=no-timestamp",  # harmless, and with the name as it is
        *rights,
    ]


def program() -> str:
    """Return the path of tar. Raises ConfigError if it is missing."""
    tar = shutil.which("tar")
    if tar is None:
        raise ConfigError("tar: command not found", "Install GNU tar.")
    return tar


def _environment() -> dict[str, str]:
    """Return the environment of tar: messages in English, no options from elsewhere."""
    return {**os_works.environment({}), "LC_ALL": "C"}


def verify(chunks: Iterator[bytes], ending: str, *, special: bool = True) -> UnpackResult:
    """Read an archive to its end as a restore by root would, and write nothing."""
    argv = [program(), "--list", "--file=-", "--quoting-style=escape"]
    rules = tar_reader.Rules(privileged=True, special=special)
    result, messages = _unpack_pass(chunks, ending, argv, rules, judge=attributes.refused)
    result.unset.extend(messages.lost)
    result.unset.extend(messages.unset)
    result.foreign = Lines()  # root restores owners, and nothing was written
    return result
