#!/usr/bin/env python3
"""Back up files and folders: one archive in WORK_FOLDER/files."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # spawned by path: look from the root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools import venv

    venv.enter()

import json
import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from tools import date_str_utils, filesystem_handling, module, os_works, plugin, process, stream
from tools.errors import ConfigError, SourceError
from tools.options import Paths, Words, option
from tools.result import Result, Status

if TYPE_CHECKING:
    from filesbackup import archive
else:
    archive = plugin.load("filesbackup/archive.py")

_DEFAULTS = (Path("/etc"), Path("/opt/ncscripts"), Path("/var/spool/cron"))
_USUAL = "FILESET"  # the section whose archive bears the documented name
_KINDS = (
    (b"\x1f\x8b", ".gz"),
    (b"BZh", ".bz2"),
    (b"\xfd7zXZ", ".xz"),
    (b"\x28\xb5\x2f\xfd", ".zst"),
)


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
        for path in self.fileset_include:
            if Path(os.path.normpath(path)) in (Path("/"), Path("//")):
                raise ConfigError(
                    "FILESET_INCLUDE: / cannot be a fileset", "Name the folders in it."
                )


def work(options: Options) -> Result:
    """Write the archive and say what could not be read, what changed."""
    os_works.refuse_root(options.allow_root)
    fileset = fileset_of(options)
    folder = filesystem_handling.make_folder(options.work_folder / "files")
    run_id = os.environ.get("NC_BACKUP_RUN_ID") or date_str_utils.run_id()
    section = os.environ.get("NC_BACKUP_SECTION", _USUAL)
    target = folder / (f"{run_id}.tar" if section == _USUAL else f"{run_id}.{section}.tar")
    findings = archive.Findings()
    if options.tar_command:
        target = _by_command(options.tar_command, fileset, target, findings)
    else:
        with filesystem_handling.create(target, durable=False) as write:
            chunks = stream.flow(archive.read(fileset, findings), stream.Progress())
            for chunk in chunks:
                write(chunk)
            _judge(findings, options)
    return _result(options, fileset, findings, target)


def fileset_of(options: Options) -> archive.Fileset:
    """What the options mean, checked: every configured path is there and may be read."""
    include = tuple(Path(os.path.normpath(path.absolute())) for path in options.fileset_include)
    missing = [path for path in include if not os.path.lexists(path)]
    if options.fileset_include == _DEFAULTS and len(missing) < len(include):
        include = tuple(path for path in include if path not in missing)
    elif missing:
        names = ", ".join(map(str, missing))
        raise SourceError(f"FILESET_INCLUDE: {names} does not exist", "Is a disk not mounted?")
    private = private_paths(options)
    for path in include:
        inside = next((p for p in private if path.resolve().is_relative_to(p.resolve())), None)
        if inside is not None:
            raise ConfigError(
                f"FILESET_INCLUDE: {path} lies in {inside}, which is never backed up",
                "It is the work folder, a store or a key of the backup itself.",
            )
    return archive.Fileset(include, options.fileset_exclude, private, options.one_file_system)


def private_paths(options: Options) -> tuple[Path, ...]:
    """The work folder, and what the runner says must stay out (stores, keys)."""
    told = json.loads(os.environ.get("NC_BACKUP_PRIVATE", "[]"))
    paths = [options.work_folder, *map(Path, told)]
    return tuple(dict.fromkeys(path.absolute() for path in paths))


def _judge(findings: archive.Findings, options: Options) -> None:
    """Raise where a changed file is meant to be a failure."""
    changed = findings.changed
    if changed and options.changed_files is Changed.FAIL:
        raise SourceError(f"{changed[0]} changed while it was read", "CHANGED_FILES is fail.")


def _by_command(
    text: str, fileset: archive.Fileset, target: Path, findings: archive.Findings
) -> Path:
    """Let the user's own tar write the archive into a file that we made and own."""
    words = shlex.split(text)
    if Path(words[0]).name == "sudo" and "-n" not in words:
        words.insert(1, "-n")  # never wait for a password
    names = [os.fsdecode(name) for name in archive.members(fileset)]
    if not any(re.fullmatch(r"-?[A-Za-z]*C[A-Za-z]*|--directory.*", word) for word in words[1:]):
        names = [f"/{name}" for name in names]
    with filesystem_handling.staged(target) as temporary:
        temporary.touch(0o600, exist_ok=False)
        argv = [*words, str(temporary), *archive.excludes(fileset), "--", *names]
        env = {**os.environ, "LC_ALL": "C"}
        said = process.output(argv, allowed=(0, 1, 2), notice=findings.take, env=env)
        for line in said:
            sys.stdout.write(line.decode("utf-8", "backslashreplace"))
        findings.judge()
        with temporary.open("rb") as file:
            head = file.read(6)
        if not head:
            raise SourceError(
                f"{text} wrote nothing", "TAR_COMMAND must end where the file's name follows."
            )
        ending = next((ending for magic, ending in _KINDS if head.startswith(magic)), "")
        final = target.with_name(target.name + ending)
        _check_end(temporary, ending)
        filesystem_handling.publish(temporary, final)
    return final


def _check_end(written: Path, ending: str) -> None:
    """Whether an archive that somebody else's tar wrote is whole."""
    if ending:
        argv = ["tar", "--list", f"--file={written}"]
        for _ in process.output(argv, env={**os.environ, "LC_ALL": "C"}):
            pass
    else:
        for _ in archive.whole(stream.read(written)):
            pass


def _result(
    options: Options, fileset: archive.Fileset, findings: archive.Findings, target: Path
) -> Result:
    changed, include = findings.changed, fileset.include
    warnings = list(findings.lost)
    if options.changed_files is Changed.WARN:
        warnings += [f"{name}: changed while it was read" for name in changed]
    if not options.allow_empty:
        warnings += [f"{path}: is empty" for path in include if _is_empty(path)]
    for name in archive.bounded(changed):
        sys.stdout.write(f"{name}: changed while it was read\n")
    size = target.stat().st_size
    what = f"{', '.join(map(str, include))}: {date_str_utils.human_size(size)} in {target.name}"
    if warnings:
        what += f", {len(warnings)} missing, cut or empty"
    return Result(
        Status.INCOMPLETE if warnings else Status.OK,
        what,
        files=(str(target),),
        items=1,
        bytes=size,
        warnings=archive.bounded(warnings),
    )


def _is_empty(path: Path) -> bool:
    try:
        return path.is_dir() and not any(path.iterdir())
    except PermissionError:
        return False  # tar says so better


def test(options: Options) -> tuple[str, ...]:
    """Whether tar is GNU tar, and the paths can be read."""
    fileset = fileset_of(options)
    program = archive.tar_program()
    version = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=False
    ).stdout
    if "GNU tar" not in version:
        raise ConfigError(
            f"{program} is not GNU tar", "Install GNU tar, or name it with TAR_COMMAND."
        )
    for path in fileset.include:
        if not options.tar_command and not os.access(path, os.R_OK) and not path.is_symlink():
            raise SourceError(
                f"FILESET_INCLUDE: {path} cannot be read", "Allow it, or use TAR_COMMAND."
            )
    return (version.splitlines()[0], *(f"{path} can be read" for path in fileset.include))


if __name__ == "__main__":
    sys.exit(module.run(Options, work))
