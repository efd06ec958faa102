#!/usr/bin/env python3
"""Back up files and folders: one archive in WORK_FOLDER/files."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # spawned by path: look from the root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools import venv

    venv.enter()

import bz2
import dataclasses
import itertools
import json
import lzma
import os
import shlex
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from tools import (
    date_str_utils,
    filesystem_handling,
    module,
    os_works,
    plugin,
    process,
    stream,
    tar,
)
from tools.errors import ConfigError, SourceError
from tools.item import Ended, Item, Told
from tools.options import Paths, Words, option
from tools.result import Made, Result, Status

if TYPE_CHECKING:
    from filesbackup import archive
else:
    archive = plugin.load("filesbackup/archive.py")

_DEFAULTS = (Path("/etc"), Path("/opt/ncscripts"), Path("/var/spool/cron"))
KIND = "fileset"  # of its items: how they are restored
_USUAL = "FILESET"  # the section whose archive bears the documented name
_KINDS = (  # first bytes, ending, what unpacks it
    (b"\x1f\x8b", ".gz", "gzip"),
    (b"BZh", ".bz2", "bzip2"),
    (b"\xfd7zXZ", ".xz", "xz"),
    (b"\x28\xb5\x2f\xfd", ".zst", "zstd"),
)
# Kept out even where no runner says what is private (a run of this program alone).
_KEY_FILE = Path("/etc/nc-backup-py/key_file")
_FROM_TOP = ("/", "-C/", "--directory=/")


class Changed(Enum):
    """What files mean that change while they are read."""

    LOG = "log"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    fileset_include: Paths = option("files and folders; never /", default=_DEFAULTS)
    fileset_exclude: Words = option(
        "paths, and patterns for names at any depth (`*.log`, `cache`)", default=()
    )
    tar_command: str = option(
        "another tar, as `sudo /bin/tar czCf /`; default: GNU tar with all attributes", default=""
    )
    changed_files: Changed = option(
        "files that change while they are read: `log`, `warn` (exit 3) or `fail`",
        default=Changed.LOG,
    )
    allow_empty: bool = option("an empty folder is no warning", default=False)
    one_file_system: bool = option("do not go into other file systems", default=False)
    allow_root: bool = option("run as root all the same", default=False)
    work_folder: Path = option(
        "temporary work; the archive goes into its folder files", default=Path("/opt/backup")
    )

    def __post_init__(self) -> None:
        if not self.fileset_include:
            raise ConfigError("FILESET_INCLUDE: names nothing", "Leave it out for the default.")
        for path in self.fileset_include:
            _refuse_top(path, os.path.normpath(path))
        for pattern in self.fileset_exclude:
            if os.path.normpath(pattern).strip("/") in ("", ".", ".."):
                raise ConfigError(
                    f"FILESET_EXCLUDE: {pattern!r} names no file", "Name a path or a pattern."
                )
        try:
            words = shlex.split(self.tar_command)
        except ValueError as error:
            raise ConfigError(f"TAR_COMMAND: {str(error).lower()}", "Look at its quotes.") from None
        if self.tar_command and not words:
            raise ConfigError("TAR_COMMAND: names no program", "Leave it out for the default.")


def _refuse_top(path: Path, real: str) -> None:
    if real in ("/", "//"):
        also = "" if str(path) == "/" else f" ({_text(path)} is /)"
        raise ConfigError(
            f"FILESET_INCLUDE: / cannot be a fileset{also}", "Name the folders in it."
        )


def _text(path: Path) -> str:
    return archive.shown(os.fsencode(path))


def work(options: Options) -> Result:
    """Write the archive and say what could not be read, what changed."""
    os_works.refuse_root(options.allow_root)
    fileset = fileset_of(options, _told())
    folder = filesystem_handling.make_folder(options.work_folder / "files")
    run_id = os.environ.get("NC_BACKUP_RUN_ID") or date_str_utils.run_id()
    section = os.environ.get("NC_BACKUP_SECTION", _USUAL)
    target = folder / (f"{run_id}.tar" if section == _USUAL else f"{run_id}.{section}.tar")
    findings = archive.Findings()
    if options.tar_command:
        target = _by_command(options, fileset, target, findings)
    else:
        with filesystem_handling.create(target, durable=False) as write:
            chunks = stream.flow(archive.read(fileset, findings), stream.Progress())
            for chunk in chunks:
                write(chunk)
            _judge(findings, options)
    return _result(options, fileset, findings, target)


def items(options: Options, told: Told) -> tuple[Item, ...]:
    """The fileset as the one item of its section, for a streamed run."""
    os_works.refuse_root(options.allow_root)
    fileset = fileset_of(options, told.private)
    findings = archive.Findings()

    def read() -> Iterator[bytes]:
        if options.tar_command:
            yield from _from_command(options, fileset, findings)
        else:
            yield from archive.read(fileset, findings)
        _judge(findings, options)

    def ended() -> Ended:
        said = _findings(options, fileset, findings)
        return dataclasses.replace(said, facts=_facts(options))

    return (Item("", KIND, lambda head: f".tar{_kind(head)[0]}", read, ended),)


def _facts(options: Options) -> dict[str, str]:
    """What made the archive, for the manifest."""
    if options.tar_command:
        return {"tar": options.tar_command}
    return {"tar": tar.version(tar.program())}


def _kind(head: bytes) -> tuple[str, str]:
    """Ending and unpacker of what tar itself compressed; two empty texts for a plain archive."""
    found = (kind[1:] for kind in _KINDS if head.startswith(kind[0]))
    return next(found, ("", ""))


def _told() -> tuple[Path, ...]:
    """What the runner of a staged run says must stay out (stores, keys)."""
    return tuple(map(Path, json.loads(os.environ.get("NC_BACKUP_PRIVATE") or "[]")))


def fileset_of(options: Options, told: Sequence[Path]) -> archive.Fileset:
    """What the options mean, checked: every configured path is there.

    told: paths that must never be backed up, beside the work folder and the usual key file
    """
    include = tuple(_clean(path) for path in options.fileset_include)
    missing = [path for path in include if not _there(path)]
    if options.fileset_include == _DEFAULTS and len(missing) < len(include):
        include = tuple(path for path in include if path not in missing)
    elif missing:
        names = ", ".join(map(_text, missing))
        raise SourceError(f"FILESET_INCLUDE: {names} does not exist", "Is a disk not mounted?")
    private = tuple(path.absolute() for path in (options.work_folder, _KEY_FILE, *told))
    private = tuple(dict.fromkeys(private))
    for path in include:
        real = Path(os.path.realpath(path))
        _refuse_top(path, str(real))
        inside = next((p for p in private if real.is_relative_to(os.path.realpath(p))), None)
        if inside is not None:
            raise ConfigError(
                f"FILESET_INCLUDE: {_text(path)} lies in {_text(inside)}, which is never backed up",
                "It is the work folder, a store or a key of the backup itself.",
            )
    return archive.Fileset(include, options.fileset_exclude, private, options.one_file_system)


def _clean(path: Path) -> Path:
    """An absolute path without . and ..; `link/..` is what the kernel makes of it."""
    return Path(os.path.realpath(path)) if ".." in path.parts else path.absolute()


def _there(path: Path) -> bool:
    """Whether there is anything; where we may not look, tar will (it may have more rights)."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return True
    return True


def _judge(findings: archive.Findings, options: Options) -> None:
    """Raise where a changed file is meant to be a failure."""
    changed = findings.changed
    if changed and options.changed_files is Changed.FAIL:
        raise SourceError(f"{changed[0]} changed while it was read", "CHANGED_FILES is fail.")


def _by_command(
    options: Options, fileset: archive.Fileset, target: Path, findings: archive.Findings
) -> Path:
    """Let the user's own tar write the archive into a file that we made and own."""
    with filesystem_handling.staged(target) as temporary:
        temporary.touch(0o600, exist_ok=False)
        for line in process.output(
            _command(options, fileset, str(temporary)),
            allowed=findings.explain,
            notice=findings.take,
            env=tar.environment(),
        ):
            sys.stdout.write(line.decode("utf-8", "backslashreplace"))
        findings.judge(fileset)
        _judge(findings, options)
        ending = _checked(temporary, options.tar_command)
        final = target.with_name(target.name + ending)
        filesystem_handling.publish(temporary, final)
    return final


def _command(options: Options, fileset: archive.Fileset, target: str) -> list[str]:
    """The user's own tar, with the archive's name where it expects it."""
    words = shlex.split(options.tar_command)
    if Path(words[0]).name == "sudo" and not {"-n", "--non-interactive"} & set(words):
        words.insert(1, "-n")  # never wait for a password
    top = "" if any(word in _FROM_TOP for word in words[1:]) else "/"
    names = [top + os.fsdecode(name) for name in archive.members(fileset)]
    left_out = [*archive.SPOKEN, *archive.excludes(fileset, top)]
    left_out += ["--one-file-system"] if fileset.one_file_system else []
    return [*words, target, *left_out, "--", *names]


def _from_command(
    options: Options, fileset: archive.Fileset, findings: archive.Findings
) -> Iterator[bytes]:
    """What the user's own tar writes to its standard output, looked at for its end."""
    chunks = process.output(
        _command(options, fileset, "-"),
        allowed=findings.explain,
        notice=findings.take,
        env=tar.environment(),
    )
    head = next(chunks, b"")
    if not head:
        raise _nothing(options.tar_command)
    whole = itertools.chain([head], chunks)
    ending = _kind(head)[0]
    yield from tar.whole_packed(whole, _decoder(ending)) if ending else tar.whole(whole)
    findings.judge(fileset)


def _decoder(ending: str) -> tar.Decoder:
    """The decompressor for what tar itself compressed."""
    if ending == ".zst":
        import zstandard

        found: tar.Decoder = zstandard.ZstdDecompressor().decompressobj()
        return found
    makers: dict[str, Callable[[], tar.Decoder]] = {
        ".gz": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
        ".bz2": bz2.BZ2Decompressor,
        ".xz": lzma.LZMADecompressor,
    }
    return makers[ending]()


def _nothing(by: str) -> SourceError:
    return SourceError(f"{by} wrote nothing", "TAR_COMMAND must end where the file's name follows.")


def _checked(written: Path, by: str) -> str:
    """What the archive's name must end with; raises SourceError where it is not whole."""
    with written.open("rb") as file:
        head = file.read(6)
    if not head:
        raise _nothing(by)
    ending, unpack = _kind(head)
    chunks = process.output([unpack, "-dc", str(written)]) if unpack else stream.read(written)
    stream.drained(tar.whole(chunks))
    return ending


def _findings(options: Options, fileset: archive.Fileset, findings: archive.Findings) -> Ended:
    """What is missing, cut, empty or changed."""
    changed = findings.changed
    warnings = list(findings.lost)
    if options.changed_files is Changed.WARN:
        warnings += [f"{name}: changed while it was read" for name in changed]
    if not options.allow_empty:
        warnings += [f"{_text(path)}: is empty" for path in fileset.include if _is_empty(path)]
    notes = [f"{name}: changed while it was read" for name in changed]
    return Ended(archive.bounded(warnings), archive.bounded(notes))


def _result(
    options: Options, fileset: archive.Fileset, findings: archive.Findings, target: Path
) -> Result:
    said = _findings(options, fileset, findings)
    for note in said.notes:
        sys.stdout.write(f"{note}\n")
    size = target.stat().st_size
    ending = target.name[target.name.rindex(".tar") :]
    names = ", ".join(map(_text, fileset.include))
    what = f"{names}: {date_str_utils.human_size(size)} in {target.name}"
    if said.warnings:
        what += f", {len(said.warnings)} missing, cut or empty"
    if findings.changed and options.changed_files is Changed.LOG:
        what += f", {len(findings.changed)} changed while they were read"
    return Result(
        Status.INCOMPLETE if said.warnings else Status.OK,
        what,
        files=(str(target),),
        items=1,
        bytes=size,
        warnings=said.warnings,
        trail=(
            Made(
                (),
                (str(target),),
                KIND,
                facts=_facts(options),
                ending=ending,
                warnings=tuple(said.warnings),
                notes=tuple(said.notes),
            ),
        ),
    )


def _is_empty(path: Path) -> bool:
    try:
        return path.is_dir() and not any(path.iterdir())
    except OSError:
        return False  # tar says so better


def test(options: Options) -> tuple[str, ...]:
    """Whether tar is GNU tar, and the paths can be read."""
    os_works.refuse_root(options.allow_root)
    fileset = fileset_of(options, _told())
    if options.tar_command:
        words = shlex.split(options.tar_command)
        if shutil.which(words[0]) is None:
            raise ConfigError(
                f"TAR_COMMAND: there is no {words[0]}", "Install it, or name another."
            )
        return (f"{words[0]} is there", *(f"{_text(path)} is there" for path in fileset.include))
    program = tar.program()
    good = [f"{program}: {tar.version(program)}"]
    for path in fileset.include:
        if program != str(tar.PRIVILEGED) and not os.access(path, os.R_OK):
            raise SourceError(
                f"FILESET_INCLUDE: {_text(path)} cannot be read", "Allow it, or use TAR_COMMAND."
            )
        good.append(f"{_text(path)} can be read")
    return tuple(good)


if __name__ == "__main__":
    sys.exit(module.run(Options, work))
