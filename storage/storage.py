#!/usr/bin/env python3
"""Store what the sections before made, under the folder of this host."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import dataclasses
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from storage import local, retry
from tools import date_str_utils, filesystem_handling, os_works
from tools.base.errors import BackupError, ConfigError, StoreError
from tools.base.result import Made, Result, Status
from tools.flow import store, stream
from tools.modules import executable
from tools.modules.options import Duration, Paths, option

# Documented, and refused by name until it is built: nothing may pretend to it.
_NOT_BUILT = (
    "upload_command", "upload_command_template", "args_dict", "bucket_name", "aliyun_credentials"
)  # fmt: skip
_PART = re.compile(r"(?P<stem>.+\.(?:age|crypt))\.(?P<number>\d{3,})")


@dataclass(frozen=True)
class Options:
    """The keys of the section."""

    hostname: str = option("name of this server; the folder of its backups in the store")
    destination: str = option("the kind of store: `local`", default="local")
    targets: Paths = option(
        "files and folders to store; default WORK_FOLDER/encrypted",
        default=(),
        aliases=("OBJECTIVES",),
    )
    local_backup: Path | None = option("local: folder of the store", default=None)
    remove_targets: bool = option(
        "remove the sources once every store of the run has confirmed",
        default=True,
        aliases=("REMOVE_OBJECTIVES",),
    )
    require_mount: bool = option("local: the folder must lie on a mounted disk", default=False)
    marker: str = option("local: a file that must be in the folder", default="")
    retry_wait: Duration = option(
        "seconds before the second of five tries; each wait is longer", default=Duration(5.0)
    )
    bucket_name: str = option("not built yet: refused", default="")
    aliyun_credentials: str = option("not built yet: refused", default="")
    upload_command: str = option("not built yet: refused", default="")
    upload_command_template: str = option("not built yet: refused", default="")
    args_dict: str = option("not built yet: refused", default="")
    work_folder: Path = option("temporary work", default=Path("/opt/backup"))

    def __post_init__(self) -> None:
        built = f"Built: DESTINATION {', '.join(STORES)}."
        if self.destination not in STORES:
            raise ConfigError(f"DESTINATION: {self.destination} is not built yet", built)
        for name in _NOT_BUILT:
            if getattr(self, name):
                raise ConfigError(f"{name.upper()}: is not built yet", built)
        if self.local_backup is None:
            raise ConfigError("LOCAL_BACKUP: is required for the store local", "Set it in GENERAL.")
        if "/" in self.hostname or self.hostname in ("", ".", ".."):
            raise ConfigError(f"HOSTNAME: {self.hostname!r} cannot be the name of a folder")


def work(options: Options) -> Result:
    """Store every whole set of parts; one that fails does not hide or stop the others."""
    files = _files(options)
    if not files:
        where = ", ".join(map(str, _targets(options)))
        raise StoreError(f"nothing to store in {where}", "Did the sections before write elsewhere?")
    place = opened(options)
    tries = retry.Retry(place, _say, first_wait=options.retry_wait)
    sets, troubles = whole_sets(files)
    stored: dict[Path, store.Stored] = {}
    lost = len(troubles)
    hints: dict[str, None] = {}
    progress = stream.Progress()
    for parts in sets:
        try:
            names = {part: f"{options.hostname}/{part.name}" for part in parts}
            with store.all_or_none(place, list(names.values())):
                done = {part: tries.put(names[part], _reader(part, progress)) for part in parts}
            stored.update(done)
        except (BackupError, OSError) as error:
            text, hint = store.explained(error, place)
            lost += 1
            hints.setdefault(hint)
            if text not in troubles:
                troubles.append(text)
    result = _result(options, place, stored, troubles, lost)
    return dataclasses.replace(result, hint="\n".join(filter(None, hints)))


def _reader(part: Path, progress: stream.Progress) -> Callable[[], Iterable[bytes]]:
    """What reads a part anew for each try."""
    return lambda: progress(stream.read(part))


def _result(
    options: Options,
    target: store.Store,
    stored: Mapping[Path, store.Stored],
    troubles: list[str],
    lost: int,
) -> Result:
    size = sum(entry.size for entry in stored.values())
    place = options.local_backup / options.hostname if options.local_backup else Path()
    files = date_str_utils.count(len(stored), "file")
    told = f"{files}, {date_str_utils.human_size(size)}, in {place}{store.beside(target, stored)}"
    if troubles:
        return Result(
            Status.FAILED,
            f"{troubles[0]} ({lost} not stored; {told})",
            warnings=tuple(troubles[1:]),
            trail=_trail(stored),
        )
    removable = tuple(map(str, stored)) if options.remove_targets else ()
    if not os.environ.get("NC_BACKUP_RUN_ID"):  # alone: no other store has to confirm
        for name in removable:
            Path(name).unlink()
        removable = ()
    return Result(
        Status.OK,
        told,
        files=tuple(str(place / path.name) for path in stored),
        items=len(stored),
        bytes=size,
        removable=removable,
        trail=_trail(stored),
    )


def _trail(stored: Mapping[Path, store.Stored]) -> tuple[Made, ...]:
    return tuple(
        Made((str(path),), (part.name,), size=part.size, sha256=part.sha256)
        for path, part in stored.items()
    )


def _targets(options: Options) -> Paths:
    return options.targets or (options.work_folder / "encrypted",)


def _files(options: Options) -> list[Path]:
    """Every file to store; two of one name cannot both be."""
    found: dict[str, Path] = {}
    for target in _targets(options):
        if not target.exists():
            raise StoreError(
                f"TARGETS: {target} does not exist", "Name what the sections before wrote."
            )
        for file in filesystem_handling.files_below(target):
            if file.name in found:
                raise StoreError(
                    f"two files to store are called {file.name}", "Give each a name of its own."
                )
            found[file.name] = file
    return list(found.values())


def whole_sets(files: Iterable[Path]) -> tuple[list[list[Path]], list[str]]:
    """The sets of parts in numeric order (a file that is no part is a set), and what is missing."""
    whole: list[list[Path]] = []
    sets: dict[str, dict[int, Path]] = {}
    for file in files:
        part = _PART.fullmatch(file.name)
        if part and part["number"] == f"{int(part['number']):03}":
            sets.setdefault(part["stem"], {})[int(part["number"])] = file
        else:
            whole.append([file])
    troubles = []
    for stem, parts in sets.items():
        gap = next((n for n in range(max(parts)) if n not in parts), None)
        if gap is None:
            whole.append([parts[number] for number in sorted(parts)])
        else:
            troubles.append(f"{stem}.{gap:03} is missing, so its other parts are not stored")
    return whole, troubles


def _local(options: Options) -> store.Store:
    assert options.local_backup is not None  # noqa: S101  (checked in Options)
    made: store.Store = local.LocalStore(
        options.local_backup, require_mount=options.require_mount, marker=options.marker
    )
    return made


# The stores by the word of DESTINATION.
STORES: dict[str, Callable[[Options], store.Store]] = {"local": _local}


def opened(options: Options) -> store.Store:
    """The store that DESTINATION names."""
    return STORES[options.destination](options)


def _say(line: str) -> None:
    """A line for the log, at once: a wait follows it."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def test(options: Options) -> tuple[str, ...]:
    """Whether the store can be reached and written to."""
    opened(options)
    folder = options.local_backup
    assert folder is not None  # noqa: S101  (checked in Options)
    place = filesystem_handling.nearest(folder)
    if not place.is_dir():
        problem = f"is not writable: {place} is not a directory"
        raise StoreError(f"LOCAL_BACKUP: {folder} {problem}", "Name a folder.")
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise StoreError(
            f"LOCAL_BACKUP: {place} lies on a file system that is read-only",
            "Look at the kernel log for errors of its disk, and how it is mounted.",
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise StoreError(f"LOCAL_BACKUP: {place} is not writable", _unwritable(folder, place))
    free = f"{filesystem_handling.free_percent(place):.0f} % free"
    created = "" if place == folder else " (it will be created)"
    return (f"{folder} can be written{created}, {free}",)


def _unwritable(folder: Path, place: Path) -> str:
    """A hint that is safe while the disk is not mounted: no rights are given away on /mnt."""
    if filesystem_handling.unmounted(folder):
        return "Is its disk mounted?"
    user = os_works.user()
    if place == folder:
        return f"Is its disk mounted? Then let the user {user} write to it."
    return (
        f"Is its disk mounted? Otherwise create it as root: "
        f"install -d -m 0700 -o {shlex.quote(user)} {shlex.quote(str(folder))}"
    )


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.run(Options, work, argv)
