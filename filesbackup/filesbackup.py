#!/usr/bin/env python3
"""Back up files and folders: one archive in WORK_FOLDER/files."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

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

from filesbackup import archive, included, sample
from tools import date_str_utils, filesystem_handling, os_works
from tools.base import finding
from tools.base.errors import ConfigError, SourceError
from tools.base.finding import Finding
from tools.base.result import Made, Result, Status
from tools.flow import process, stream, tar
from tools.flow.item import Ended, Item, Told
from tools.modules import executable
from tools.modules.options import Paths, Words, option

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

    fileset_include: Paths = option(
        "files and folders to back up; `/` itself is not allowed", default=included.DEFAULTS
    )
    fileset_exclude: Words = option(
        "paths, or patterns that match names at any depth (`*.log`, `cache`)", default=()
    )
    tar_command: str = option(
        "another tar command, for example `sudo /bin/tar czCf /`; default: GNU tar with ACLs, "
        "extended attributes and sparse files",
        default="",
    )
    changed_files: Changed = option(
        "what a file that changes while it is read means: `log` (a log line), `warn` (exit 3) or "
        "`fail` (exit 1)",
        default=Changed.LOG,
    )
    allow_empty: bool = option("do not warn about empty folders", default=False)
    one_file_system: bool = option("do not descend into other file systems", default=False)
    allow_root: bool = option("allow the run as root (for containers)", default=False)
    work_folder: Path = option(
        "folder for temporary files; the archive is written to its folder `files`",
        default=Path("/opt/backup"),
    )

    def __post_init__(self) -> None:
        if not self.fileset_include:
            raise ConfigError(
                "FILESET_INCLUDE: empty value",
                "Name the folders to back up, or remove the key to use the default.",
            )
        for path in self.fileset_include:
            included.reject_top(path, os.path.normpath(path))
        for pattern in self.fileset_exclude:
            if os.path.normpath(pattern).strip("/") in ("", ".", ".."):
                raise ConfigError(
                    f"FILESET_EXCLUDE: {pattern!r}: invalid pattern",
                    "Use a path or a name pattern, for example `*.log`.",
                )
        try:
            words = shlex.split(self.tar_command)
        except ValueError as error:
            raise ConfigError(f"TAR_COMMAND: {str(error).lower()}", "Check the quotes.") from None
        if self.tar_command and not words:
            raise ConfigError(
                "TAR_COMMAND: empty value",
                "Name a tar command, or remove the key to use the default.",
            )


def _text(path: Path) -> str:
    return archive.shown(os.fsencode(path))


def work(options: Options) -> Result:
    """Write the archive and say what could not be read, what changed."""
    os_works.refuse_root(options.allow_root)
    found = included_of(options, _told())
    fileset = found.fileset
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
    return _result(options, found, findings, target)


def items(options: Options, told: Told) -> tuple[Item, ...]:
    """The fileset as the one item of its section, for a streamed run."""
    os_works.refuse_root(options.allow_root)
    found = included_of(options, told.private)
    fileset = found.fileset
    findings = archive.Findings()

    def read() -> Iterator[bytes]:
        if options.tar_command:
            yield from _from_command(options, fileset, findings)
        else:
            yield from archive.read(fileset, findings)
        _judge(findings, options)

    def ended() -> Ended:
        said = _findings(options, found, findings)
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


def included_of(options: Options, private: Sequence[Path]) -> included.Included:
    """Return what the options mean, checked.

    private: what must never be backed up, beside the work folder and the usual key file
    """
    return included.resolved(
        options.fileset_include,
        options.fileset_exclude,
        (options.work_folder, _KEY_FILE, *private),
        one_file_system=options.one_file_system,
    )


def _judge(findings: archive.Findings, options: Options) -> None:
    """Raise where a changed file is meant to be a failure."""
    changed = findings.changed
    if changed and options.changed_files is Changed.FAIL:
        raise SourceError(
            f"{changed[0]}: file changed while it was read",
            "Back up from a snapshot, exclude the file, or set CHANGED_FILES to warn.",
        )


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
        findings.judge()
        _judge(findings, options)
        ending = _checked(temporary, options.tar_command, findings)
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
    look = findings.long.take
    yield from (
        tar.whole_packed(whole, _decoder(ending), look) if ending else tar.whole(whole, look)
    )
    findings.judge()


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
    return SourceError(
        f"{by}: wrote no output",
        "End TAR_COMMAND where the name of the archive follows, as in `tar czCf /`.",
    )


def _checked(written: Path, by: str, findings: archive.Findings) -> str:
    """What the archive's name must end with; raises SourceError where it is not whole."""
    with written.open("rb") as file:
        head = file.read(6)
    if not head:
        raise _nothing(by)
    ending, unpack = _kind(head)
    chunks = process.output([unpack, "-dc", str(written)]) if unpack else stream.read(written)
    stream.drained(tar.whole(chunks, findings.long.take))
    return ending


def _findings(options: Options, found: included.Included, findings: archive.Findings) -> Ended:
    """What is missing, cut, empty or changed, and what is never stored."""
    changed = [f"{name}: file changed while it was read" for name in findings.changed]
    warnings = [*found.warnings, *findings.lost, *included.too_long(found.fileset, findings.long)]
    if options.changed_files is Changed.WARN:
        warnings, changed = [*warnings, *changed], []
    if not options.allow_empty:
        paths = filter(_is_empty, found.fileset.include)
        warnings += [f"{_text(path)}: empty folder" for path in paths]
    notes = [*found.notes, *findings.left_out(), *_never_stored(options), *changed]
    return Ended(archive.bounded(warnings), archive.bounded(notes))


def _never_stored(options: Options) -> tuple[str, ...]:
    """What tar does not store of any file."""
    lost = []
    words = shlex.split(options.tar_command)
    if words and not {"--acls", "--xattrs"} <= set(words):
        lost.append("ACLs and extended attributes (TAR_COMMAND lacks --acls --xattrs)")
    return (f"not stored: {', '.join([*lost, 'file flags (chattr) and birth times'])}",)


def _result(
    options: Options, found: included.Included, findings: archive.Findings, target: Path
) -> Result:
    said = _findings(options, found, findings)
    for note in said.notes:
        sys.stdout.write(f"{note}\n")
    size = target.stat().st_size
    ending = target.name[target.name.rindex(".tar") :]
    names = ", ".join(map(_text, found.fileset.include))
    what = f"{names}: {date_str_utils.human_size(size)} in {target.name}"
    if said.warnings:
        count = date_str_utils.count(len(said.warnings), "file")
        what += f", {count} missing, truncated or empty"
    if findings.changed and options.changed_files is Changed.LOG:
        count = date_str_utils.count(len(findings.changed), "file")
        what += f", {count} changed while being read"
    made = Made(
        (),
        (str(target),),
        KIND,
        facts=_facts(options),
        ending=ending,
        warnings=tuple(said.warnings),
        notes=tuple(said.notes),
    )
    return Result(
        Status.INCOMPLETE if said.warnings else Status.OK,
        what,
        files=(str(target),),
        items=1,
        bytes=size,
        warnings=said.warnings,
        trail=(made,),
    )


def _is_empty(path: Path) -> bool:
    try:
        return path.is_dir() and not any(path.iterdir())
    except OSError:
        return False  # tar says so better


def test(options: Options) -> tuple[str | Finding, ...]:
    """Return whether tar is there, and which of the configured paths and files can be read."""
    os_works.refuse_root(options.allow_root)
    found = included_of(options, _told())
    if options.tar_command:
        first, unread = _program(options.tar_command), []
    else:
        first = f"{tar.program()}: {tar.version(tar.program())}"
        unread = _unreadable(found.fileset)
    good = (f"{_text(path)} exists" for path in found.fileset.include)
    return (first, *good, *map(finding.warning, found.warnings), *unread)


def _program(command: str) -> str:
    """The program of TAR_COMMAND. Raises ConfigError where there is none."""
    program = shlex.split(command)[0]
    if shutil.which(program) is None:
        raise ConfigError(
            f"TAR_COMMAND: {program}: command not found",
            "Install it, or set TAR_COMMAND to another tar.",
        )
    return f"{program} exists"


def _unreadable(fileset: archive.Fileset) -> list[Finding]:
    """A warning where files cannot be read; not all files are looked at."""
    looked = sample.unreadable(fileset)
    if not looked.unreadable:
        return []
    count = date_str_utils.count(len(looked.unreadable), "file")
    of = "" if looked.whole else f" of the first {looked.looked_at}"
    return [
        finding.warning(
            f"permission denied: {count}{of}: {archive.few(looked.unreadable)}",
            "Grant tar read access as in docs/modules/filesbackup.md, Reading everything.",
        )
    ]


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.run(Options, work, argv)
