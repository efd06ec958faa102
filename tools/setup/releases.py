"""Releases: each in a folder of its own, one of them current by a link that is switched at once.

A release is built under a hidden name and gets its own when it is complete: code, private
environment, lock file, wheels. So a run that has begun goes on with the code that it began with,
and a killed installation leaves nothing that anybody would start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from tools import filesystem_handling
from tools.base import environments, foreign_json, release_lock, removal
from tools.base.errors import BackupError, ConfigError
from tools.setup import files, locked_packages, questions
from tools.setup.folders import Access
from tools.setup.installation import CODE, RELEASES, Installation
from tools.setup.steps import Step

RECORD = (
    release_lock.RECORD
)  # in a release: what it is, and what of its top level came from the source
_PART = ".part-"  # begins the name of a release that is not complete
_SET_ASIDE = f"{CODE}.before-"
LOCK = release_lock.LOCK
_LOCK_ACCESS = Access(0o640, group=True)
_NOT_INSTALLED = frozenset({"tests", "benchmarks", RECORD, LOCK, locked_packages.WHEELS})
_NAMED = 3  # files that a question names
_FOR_OTHERS = 2  # releases that stay while users other than root and the backup run from them
_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Release:
    """A complete release.

    code: SHA-256 of its code; created: when, in UTC, as in its name; names: those at its
    top level that came from the source: others are user-defined modules
    """

    path: Path
    version: str
    code: str
    created: str
    names: frozenset[str]


def steps(installation: Installation) -> Iterator[Step]:
    """Yield the steps that build the release of the source, switch to it, and remove old ones."""
    yield _step_leftovers(installation)
    code = code_digest(installation.source)
    version = version_of(installation.source)
    yield Step(
        subject=f"release {version}",
        action=f"copy {installation.source} to {installation.at(RELEASES)}, and install its Python "
        f"packages{f' from {installation.wheels}' if installation.wheels else ''}",
        reason=lambda: "" if _usable(installation, code) else "it is not installed",
        perform=lambda: _build(installation, version, code),
    )
    before = current(installation)
    yield _step_link(installation, code)
    yield _step_old(installation, before)


def rollback(installation: Installation) -> Iterator[Step]:
    """Yield the step that switches to the release before. Raises ConfigError if there is none."""
    now = current(installation)
    if now is None:
        raise ConfigError(
            f"{installation.at(CODE)}: no release is installed", "Run setup.py install first."
        )
    earlier = [one for one in installed(installation) if one.created < now.created]
    if not earlier:
        raise ConfigError(
            f"no earlier release than {now.path.name} is kept",
            "Install the version you want from its clone: setup.py upgrade FOLDER",
        )
    target = max(earlier, key=lambda one: one.created)
    if not locked_packages.works(target.path):
        raise BackupError(
            f"{target.path}: its Python does not start any more",
            "Install that version from its clone: setup.py upgrade FOLDER",
        )
    yield Step(
        subject=str(installation.at(CODE)),
        action=f"switch from {now.path.name} back to {target.path.name}",
        reason=lambda: f"{now.path.name} is current",
        perform=lambda: _switch(installation, target),
    )


def uninstall(installation: Installation) -> Iterator[Step]:
    """Yield the steps that remove link and releases."""
    link, releases = installation.at(CODE), installation.at(RELEASES)
    yield Step(
        subject=str(link),
        action="remove this link",
        reason=lambda: "it is there" if _is_ours(installation, link) else "",
        perform=link.unlink,
    )
    yield Step(
        subject=str(releases),
        action="remove all releases",
        reason=lambda: "it is there" if releases.is_dir() else "",
        perform=lambda: removal.tree(releases),
    )


def current(installation: Installation) -> Release | None:
    """Return the release that the link names; None if there is no link, or no whole release."""
    link = installation.at(CODE)
    return _read(installation.at(str(link.readlink()))) if link.is_symlink() else None


def installed(installation: Installation) -> list[Release]:
    """Return the complete releases, oldest first."""
    folder = installation.at(RELEASES)
    paths = folder.iterdir() if folder.is_dir() else ()
    releases = [one for one in map(_read, paths) if one is not None]
    return sorted(releases, key=lambda one: one.created)


def version_of(source: Path) -> str:
    """Return the version that pyproject.toml of a folder states. Raises ConfigError if none."""
    file = source / "pyproject.toml"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    line = re.search(r'^version = "([0-9A-Za-z.+-]+)"$', text, re.M)
    if line is None or not (source / "backup.py").is_file():
        raise ConfigError(
            f"{source}: holds no nc-backup-py", "Name the folder of a clone or unpacked archive."
        )
    return line[1]


def code_digest(folder: Path) -> str:
    """Return the SHA-256 of the code in a folder: names, contents, and which files are programs."""
    digest = hashlib.sha256()
    for path in _files(folder):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        program = bool(path.stat().st_mode & stat.S_IXUSR)
        name = os.fsencode(path.relative_to(folder))
        digest.update(name + f"\0{program}\0{content}\n".encode())
    return digest.hexdigest()


def _confirm_private(installation: Installation) -> None:
    """Ask about files that others may not read, in a clone that they may read: keys, configs.

    A release is readable by everybody. Raises ConfigError without a yes.
    """
    source = installation.source
    if not (source / "pyproject.toml").stat().st_mode & stat.S_IROTH:
        return  # all of it is closed
    closed = [path for path in _files(source) if not path.stat().st_mode & stat.S_IROTH]
    if closed:
        names = [str(path.relative_to(source)) for path in closed[:_NAMED]]
        more = [f"{len(closed) - _NAMED} more"] if len(closed) > _NAMED else []
        questions.confirm(
            f"{source}: other users cannot read {', '.join(names + more)}, but could in a release",
            "Move keys and configs out of this folder; for code: chmod o+r.",
            "Copy these files into the release?",
            installation,
        )


def _files(folder: Path) -> Iterator[Path]:
    """Yield the regular files of the code, sorted; nothing hidden, no tests, no links.

    Of a release only what came from its source, without user-defined modules.
    """
    release = _read(folder)
    for path in sorted(folder.iterdir()):
        if path.name not in _NOT_INSTALLED and (release is None or path.name in release.names):
            yield from _below(path)


def _below(path: Path) -> Iterator[Path]:
    if path.name.startswith((".", "__pycache__")) or path.is_symlink():
        return
    if path.is_file() and path.suffix != ".pyc":
        yield path
    elif path.is_dir():
        for inside in sorted(path.iterdir()):
            yield from _below(inside)


def _read(path: Path) -> Release | None:
    """Return the release in a folder; None if it has no record.

    Raises OSError if that cannot be read: a release that is there must not count as none.
    """
    try:
        record = foreign_json.load((path / RECORD).read_bytes())
        version, code, created = (str(record[key]) for key in ("version", "code", "created"))
        return Release(path, version, code, created, frozenset(map(str, record["own"])))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, BackupError):
        return None


def _usable(installation: Installation, code: str) -> Release | None:
    """Return the newest release with this code whose environment works."""
    same = [one for one in installed(installation) if one.code == code]
    working = (one for one in reversed(same) if locked_packages.works(one.path))
    return next(working, None)


def _step_leftovers(installation: Installation) -> Step:
    folder = installation.at(RELEASES)

    def leftovers() -> list[Path]:
        return sorted(folder.glob(f"{_PART}*")) if folder.is_dir() else []

    def perform() -> None:
        for path in leftovers():
            removal.tree(path)

    return Step(
        subject=str(folder),
        action="remove what a killed installation left",
        reason=lambda: ", ".join(path.name for path in leftovers()),
        perform=perform,
    )


def _build(installation: Installation, version: str, code: str) -> None:
    """Build a release under a hidden name, then rename it."""
    _confirm_private(installation)
    folder = installation.at(RELEASES)
    part = folder / f"{_PART}{os.getpid()}"
    try:
        part.mkdir(mode=0o755)
        names = _copy(installation.source, part)
        if code_digest(part) != code:
            raise BackupError(f"{installation.source}: was changed while it was copied")
        _carry_over(installation, part, names)
        name, created = _name(folder, version)
        now = current(installation)
        before = now.path if now else None
        locked_packages.install(installation, part, f"{RELEASES}/{name}", before)
        _name_added(installation, before)
        record = {"version": version, "code": code, "created": created, "own": sorted(names)}
        (part / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        _close(part)
        files.write(part / LOCK, b"", _LOCK_ACCESS, installation)
        filesystem_handling.sync_file_system(part)
        part.rename(folder / name)
    except BaseException:
        with contextlib.suppress(OSError):  # the next run removes it
            removal.tree(part)
        raise


def _name(folder: Path, version: str) -> tuple[str, str]:
    """Return a new name, and its time."""
    when = datetime.now(timezone.utc)
    while (folder / f"{version}-{when:{_TIME}}").exists():
        when += timedelta(seconds=1)
    return f"{version}-{when:{_TIME}}", f"{when:{_TIME}}"


def _copy(source: Path, target: Path) -> set[str]:
    """Copy the code; return the names at its top level."""
    names = set()
    for path in _files(source):
        below = path.relative_to(source)
        names.add(below.parts[0])
        copied = target / below
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied)
        copied.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
    return names


def _carry_over(installation: Installation, part: Path, names: set[str]) -> None:
    """Copy the user-defined modules of the current release into the new one."""
    now = current(installation)
    for path in sorted(now.path.iterdir()) if now is not None else ():
        is_built_in = path.name in names or path.name in _NOT_INSTALLED or path.name.startswith(".")
        if now is None or is_built_in or path.name in now.names or path.name == "__pycache__":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, part / path.name, symlinks=True)
        else:
            shutil.copy2(path, part / path.name, follow_symlinks=False)
        installation.notice(f"user-defined module {path.name}: copied from {now.path}")


def _name_added(installation: Installation, before: Path | None) -> None:
    """Name the packages that somebody added to the environment of the release before."""
    if before is None:
        return
    added = environments.added(str(before / ".venv"), str(before / locked_packages.LOCK))
    if added:
        installation.notice(
            f"the new release lacks the packages {', '.join(added)}, which were added by hand: "
            f"sudo {CODE}/.venv/bin/python -m pip install {' '.join(added)}"
        )


def _close(part: Path) -> None:
    """Let everybody read a release, and nobody but its owner write."""
    for entry in filesystem_handling.entries_below(part):
        mode = entry.stat(follow_symlinks=False).st_mode
        if not stat.S_ISLNK(mode):
            runs = 0o111 if mode & stat.S_IXUSR else 0
            Path(entry.path).chmod((stat.S_IMODE(mode) | 0o444 | runs) & 0o755)


def _step_link(installation: Installation, code: str) -> Step:
    link = installation.at(CODE)

    def reason() -> str:
        now = current(installation)
        if now is not None and now.code == code and locked_packages.works(now.path):
            return ""
        if now is None:
            return "it is no link to a release"
        if now.code == code:
            return f"{now.path.name} does not start"
        return f"{now.path.name} is in use, and the code here is another"

    def perform() -> None:
        release = _usable(installation, code)
        if release is None:
            raise BackupError(f"{installation.at(RELEASES)}: the new release does not start")
        _set_aside(installation, link)
        _switch(installation, release)

    return Step(str(link), "switch this link to the release", reason, perform)


def _set_aside(installation: Installation, link: Path) -> None:
    """Rename what is in the place of the link and is no link to a release; nothing is lost."""
    if not filesystem_handling.exists(link) or _is_ours(installation, link):
        return
    aside = installation.at(f"{_SET_ASIDE}{datetime.now(timezone.utc):{_TIME}}")
    link.rename(aside)
    installation.notice(
        f"{link}: what was there is now {aside}: copy user-defined modules from it, then remove it"
    )


def _is_ours(installation: Installation, link: Path) -> bool:
    return link.is_symlink() and link.readlink().parent == Path(RELEASES)


def _switch(installation: Installation, release: Release) -> None:
    """Point the link at a release, by renaming a new link over it."""
    link = installation.at(CODE)
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(f"{RELEASES}/{release.path.name}")
    temporary.rename(link)
    filesystem_handling.sync_folder(link.parent)


def _unused(releases: Sequence[Release]) -> list[Release]:
    """Return the releases that no process needs.

    Any user can lock a record for ever, and so fill the disk: beside the releases that root or
    the backup runs from, only the newest few stay for other users.
    """
    unlocked = [one for one in releases if not release_lock.is_held(str(one.path))]
    of_others = [one for one in unlocked if release_lock.is_held_by_anybody(str(one.path))]
    return [one for one in unlocked if one not in of_others[-_FOR_OTHERS:]]


def _step_old(installation: Installation, before: Release | None) -> Step:
    def old() -> list[Release]:
        now = current(installation)
        others = [one for one in installed(installation) if now is None or one.path != now.path]
        same = [one for one in others if before is not None and one.path == before.path]
        retained = (same or others[-1:])[:1]
        return _unused([one for one in others if one not in retained])

    def perform() -> None:
        for release in old():
            hidden = release.path.with_name(f"{_PART}{release.path.name}")
            release.path.rename(hidden)
            removal.tree(hidden)

    return Step(
        subject=str(installation.at(RELEASES)),
        action="remove all releases but the current one, the one before it and those in use",
        reason=lambda: ", ".join(one.path.name for one in old()),
        perform=perform,
    )
