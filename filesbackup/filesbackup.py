#!/usr/bin/env python3
"""Back up files and folders: one archive in WORK_FOLDER/files."""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import dataclasses
import itertools
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from filesbackup import (
    compressed_tar,
    fileset_paths,
    sample,
    tar_archive,
    tar_command,
    tar_privilege,
)
from tools import date_str_utils, filesystem_handling, os_works
from tools.base import finding, foreign_json, path_patterns
from tools.base.errors import ConfigError, SourceError
from tools.base.finding import Finding
from tools.base.result import Result, Status
from tools.flow import pipeline, process, stream, tar
from tools.flow.facts import FilesetFacts
from tools.flow.item import Item, ItemReport, SourceContext
from tools.modules import executable, registry, work_folder
from tools.modules.options import Paths, Patterns, option
from tools.modules.work_store import WorkFolder, WorkStore

KIND = "fileset"  # of its items
_DEFAULT_SECTION = "FILESET"  # its archive has no section in its name
# Left out even if this program is run without backup.py.
_KEY_FILE = Path("/etc/nc-backup-py/key_file")
_IDENTITY_FILE = _KEY_FILE.with_name(_KEY_FILE.name + registry.IDENTITY)


class ChangedFiles(Enum):
    """How files that change while they are read are reported."""

    LOG = "log"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    fileset_include: Paths = option(
        "files and folders to back up; `/` itself is not allowed", default=fileset_paths.DEFAULTS
    )
    fileset_exclude: Patterns = option(
        "paths, or patterns that match names at any depth (`*.log`, `cache`); `**` crosses folders",
        default=(),
    )
    tar_command: str = option(
        "another tar command, for example `sudo /bin/tar czCf /`; default: GNU tar with ACLs, "
        "extended attributes and sparse files",
        default="",
    )
    changed_files: ChangedFiles = option(
        "what a file that changes while it is read means: `log` (a log line), `warn` (exit 3) or "
        "`fail` (exit 1)",
        default=ChangedFiles.LOG,
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
            fileset_paths.reject_top(path, os.path.normpath(path))
        for pattern in self.fileset_exclude:
            path_patterns.compile_pattern(pattern, "FILESET_EXCLUDE")
        tar_command.split(self.tar_command)


def _text(path: Path) -> str:
    return tar_archive.printable_name(os.fsencode(path))


def work(options: Options) -> Result:
    """Write the archive. The result has the files that could not be read or that changed."""
    os_works.refuse_root(options.allow_root)
    resolved = make_fileset(options, _private_paths())
    run_id = work_folder.run_id()
    section = os.environ.get("NC_BACKUP_SECTION", _DEFAULT_SECTION)
    name = f"{run_id}.tar" if section == _DEFAULT_SECTION else f"{run_id}.{section}.tar"
    store = WorkStore(options.work_folder / "files")
    messages = tar_archive.TarMessages()
    target = store.folder / name
    if options.tar_command:
        target = _run_tar_command(options, resolved, section, target, messages)
    else:
        WorkFolder().collect(_item(options, resolved, messages), store, name)
    return _result(options, resolved, messages, target)


def items(options: Options, context: SourceContext) -> tuple[Item, ...]:
    """Return the fileset as the only item of its section."""
    os_works.refuse_root(options.allow_root)
    resolved = make_fileset(options, context.private_paths)
    return (_item(options, resolved, tar_archive.TarMessages()),)


def _item(
    options: Options, resolved: fileset_paths.ResolvedFileset, messages: tar_archive.TarMessages
) -> Item:
    fileset = resolved.fileset

    def read() -> Iterator[bytes]:
        if options.tar_command:
            yield from _tar_command_chunks(options, fileset, messages)
        else:
            yield from tar_archive.read(fileset, messages)
        _check_changed(messages, options)

    def report() -> ItemReport:
        facts = _report(options, resolved, messages)
        return dataclasses.replace(facts, facts=_facts(options, messages.members.count))

    return Item("", KIND, lambda head: f".tar{compressed_tar.compression(head)[0]}", read, report)


def _facts(options: Options, files: int | None) -> FilesetFacts:
    """Return the version of tar for the manifest, or TAR_COMMAND; and the number of members."""
    program = options.tar_command or tar.version(tar_privilege.reader().program)
    return FilesetFacts(program, files)


def _private_paths() -> tuple[Path, ...]:
    """Return the private paths (stores, keys) that backup.py passes in a staged run."""
    return tuple(map(Path, foreign_json.load(os.environ.get("NC_BACKUP_PRIVATE") or "[]")))


def make_fileset(options: Options, private: Sequence[Path]) -> fileset_paths.ResolvedFileset:
    """Return the fileset of the options. Raises SourceError and ConfigError.

    private: paths that are never backed up, besides the work folder and the default key file
    """
    return fileset_paths.resolve(
        options.fileset_include,
        options.fileset_exclude,
        (options.work_folder, _KEY_FILE, _IDENTITY_FILE, *private),
        one_file_system=options.one_file_system,
    )


def _check_changed(messages: tar_archive.TarMessages, options: Options) -> None:
    """Raise SourceError if a file changed and CHANGED_FILES is fail."""
    changed = messages.changed
    if changed and options.changed_files is ChangedFiles.FAIL:
        raise SourceError(
            f"{changed[0]}: file changed while it was read",
            "Back up from a snapshot, exclude the file, or set CHANGED_FILES to warn.",
        )


def _run_tar_command(
    options: Options,
    resolved: fileset_paths.ResolvedFileset,
    section: str,
    target: Path,
    messages: tar_archive.TarMessages,
) -> Path:
    """Run TAR_COMMAND on a file that this process created and owns; return the final path."""
    began = time.monotonic()
    with filesystem_handling.staged(target) as temporary:
        temporary.touch(0o600, exist_ok=False)
        command = tar_command.command(options.tar_command, resolved.fileset, str(temporary))
        for line in process.output(
            command.argv,
            allowed=messages.explains_exit,
            notice=messages.add_line,
            env=command.environment,
            capable=command.raised,
        ):
            sys.stdout.write(line.decode("utf-8", "backslashreplace"))
        messages.raise_on_error()
        _check_changed(messages, options)
        ending = _check_archive(temporary, options.tar_command, messages)
        final = target.with_name(target.name + ending)
        item = _item(options, resolved, messages)
        seconds = time.monotonic() - began
        stored = pipeline.described(item, section, f".tar{ending}", item.report(), seconds)
        WorkFolder().take(temporary, final, stored)
    return final


def _tar_command_chunks(
    options: Options, fileset: tar_archive.Fileset, messages: tar_archive.TarMessages
) -> Iterator[bytes]:
    """Yield the output of TAR_COMMAND. Raises SourceError if it is incomplete."""
    command = tar_command.command(options.tar_command, fileset, "-")
    chunks = process.output(
        command.argv,
        allowed=messages.explains_exit,
        notice=messages.add_line,
        env=command.environment,
        capable=command.raised,
    )
    head = next(chunks, b"")
    if not head:
        raise _no_output_error(options.tar_command)
    all_chunks = itertools.chain([head], chunks)
    ending = compressed_tar.compression(head)[0]
    look = messages.look
    yield from (
        tar.whole_packed(all_chunks, compressed_tar.decoder(ending), look)
        if ending
        else tar.whole(all_chunks, look)
    )
    messages.raise_on_error()


def _no_output_error(command: str) -> SourceError:
    return SourceError(
        f"{command}: wrote no output",
        "End TAR_COMMAND where the name of the archive follows, as in `tar czCf /`.",
    )


def _check_archive(written: Path, command: str, messages: tar_archive.TarMessages) -> str:
    """Return the suffix of a complete archive. Raises SourceError if it is incomplete."""
    with written.open("rb") as file:
        head = file.read(6)
    if not head:
        raise _no_output_error(command)
    ending, unpack = compressed_tar.compression(head)
    chunks = process.output([unpack, "-dc", str(written)]) if unpack else stream.read(written)
    stream.drained(tar.whole(chunks, messages.look))
    return ending


def _report(
    options: Options, resolved: fileset_paths.ResolvedFileset, messages: tar_archive.TarMessages
) -> ItemReport:
    """Return warnings and notes: files that are missing, truncated, empty or changed."""
    changed = [f"{name}: file changed while it was read" for name in messages.changed]
    warnings = [
        *resolved.warnings,
        *messages.unreadable,
        *fileset_paths.long_path_warnings(messages.members),
    ]
    warnings += [f"{problem}; tar of PATH was used" for problem in _unusable_copy(options)]
    more, more_changed = messages.unreadable.more, messages.changed.more
    if options.changed_files is ChangedFiles.WARN:
        warnings, changed = [*warnings, *changed], []
        more, more_changed = more + more_changed, 0
    if not options.allow_empty:
        paths = filter(_is_empty, resolved.fileset.include)
        warnings += [f"{_text(path)}: empty folder" for path in paths]
    notes = [*resolved.notes, *messages.left_out(), *_never_stored(options), *changed]
    return ItemReport(
        tar_archive.summarize_names(warnings, more),
        tar_archive.summarize_names(notes, more_changed),
    )


def _unusable_copy(options: Options) -> tuple[str, ...]:
    """Return why the copy of tar that may read everything is not used although it is there."""
    problem = "" if options.tar_command else tar_privilege.reader().problem
    return (problem,) if problem else ()


def _never_stored(options: Options) -> tuple[str, ...]:
    """Return a note on the attributes that tar does not store."""
    missing = []
    arguments = shlex.split(options.tar_command)
    if arguments and not {"--acls", "--xattrs"} <= set(arguments):
        missing.append("ACLs and extended attributes (TAR_COMMAND lacks --acls --xattrs)")
    return (f"not stored: {', '.join([*missing, 'file flags (chattr) and birth times'])}",)


def _result(
    options: Options,
    resolved: fileset_paths.ResolvedFileset,
    messages: tar_archive.TarMessages,
    target: Path,
) -> Result:
    report = _report(options, resolved, messages)
    for note in report.notes:
        sys.stdout.write(f"{note}\n")
    size = target.stat().st_size
    names = ", ".join(map(_text, resolved.fileset.include))
    summary = f"{names}: {date_str_utils.human_size(size)} in {target.name}"
    if report.warnings:
        count = date_str_utils.count(len(report.warnings), "file")
        summary += f", {count} missing, truncated or empty"
    if messages.changed and options.changed_files is ChangedFiles.LOG:
        count = date_str_utils.count(messages.changed.total, "file")
        summary += f", {count} changed while being read"
    return Result(
        Status.INCOMPLETE if report.warnings else Status.OK,
        summary,
        files=(str(target),),
        items=1,
        bytes=size,
        warnings=report.warnings,
    )


def _is_empty(path: Path) -> bool:
    try:
        return path.is_dir() and not any(path.iterdir())
    except OSError:
        return False  # tar reports it


def test(options: Options) -> tuple[str | Finding, ...]:
    """Return the findings on tar and on the configured paths."""
    os_works.refuse_root(options.allow_root)
    resolved = make_fileset(options, _private_paths())
    if options.tar_command:
        first, unread = _check_program(options.tar_command), []
    else:
        reader = tar_privilege.reader()
        first = f"{reader.program}: {tar.version(reader.program)}"
        if reader.reads_everything:
            first += f", may read every file by {reader.way.value}"
        unread = _unreadable_findings(resolved.fileset)
    good = (f"{_text(path)} exists" for path in resolved.fileset.include)
    copy = [
        finding.warning(
            f"{problem}; tar of PATH is used",
            "Run as root: python3 setup.py. In a container, or in a service that setup.py did not "
            "write, allow CAP_DAC_READ_SEARCH (docs/privileges.md).",
        )
        for problem in _unusable_copy(options)
    ]
    return (first, *copy, *good, *map(finding.warning, resolved.warnings), *unread)


def _check_program(command: str) -> str:
    """Return a line on the program of TAR_COMMAND. Raises ConfigError if it does not exist."""
    program = tar_command.program(command)
    if shutil.which(program) is None:
        raise ConfigError(
            f"TAR_COMMAND: {program}: command not found",
            "Install it, or set TAR_COMMAND to another tar.",
        )
    return f"{program} exists"


def _unreadable_findings(fileset: tar_archive.Fileset) -> list[Finding]:
    """Return a warning if files of a sample cannot be read."""
    looked = sample.find_unreadable(fileset)
    if not looked.unreadable:
        return []
    count = date_str_utils.count(len(looked.unreadable), "file")
    of = "" if looked.whole else f" of the first {looked.checked}"
    return [
        finding.warning(
            f"permission denied: {count}{of}: {tar_archive.first_names(looked.unreadable)}",
            "Run as root: python3 setup.py. It gives tar the right to read every file "
            "(docs/privileges.md).",
        )
    ]


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.run(Options, work, argv)
