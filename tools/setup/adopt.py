"""setup.py adopt: what the documented system has left here is converted or removed.

Nothing is changed without --yes, and no file without a copy of it in a folder of /etc/nc-backup-py:
lines of cron, rules of sudoers, the modes of config and keys, and the config itself.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tools import filesystem_handling
from tools.base import fixes, foreign
from tools.base.errors import BackupError
from tools.base.finding import Finding, bad, warning
from tools.base.project import ROOT
from tools.setup import (
    configuration,
    environment,
    files,
    folders,
    old_cron,
    old_sudoers,
    schedule,
    schedule_files,
    sudoers,
)
from tools.setup.installation import (
    CONFIG,
    CONFIG_FOLDER,
    PRIVATE_TAR,
    USER,
    WRITER_KEY,
    Installation,
)
from tools.setup.steps import Step

_COPIES = f"{CONFIG_FOLDER}/old-system-"
_LARGEST = 1 << 24  # bytes of a file that is copied
_PRIVATE = 0o600  # of a file for its owner alone
_UNTOUCHED = "setup.py leaves it as it is. If it starts the old system, remove it"
_HINT = (
    "To see what would change: python3 setup.py adopt. To change it: python3 setup.py adopt --yes"
)


def folder_steps(installation: Installation) -> Iterator[Step]:
    """Yield the step that closes the folder of the config, before anything in it is looked at."""
    if installation.at(CONFIG_FOLDER).is_dir():
        yield folders.step(CONFIG_FOLDER, folders.CONFIG_ACCESS, installation)


def sudoers_steps(installation: Installation) -> Iterator[Step]:
    """Yield the steps that remove the old rules of sudoers, once tar has another way."""
    rules = old_sudoers.rules(installation)
    ways = (installation.at(PRIVATE_TAR), installation.at(sudoers.FILE))
    if not installation.dry_run and not any(way.exists() for way in ways):
        for rule in rules:
            installation.notice(f"warning: {rule}: kept: tar has no other way to read every file")
        return
    for path in dict.fromkeys(rule.path for rule in rules):
        removed = [rule for rule in rules if rule.path == path]
        reasons = [
            "its wildcard gives root" if rule.is_powerful else "it is not needed"
            for rule in removed
        ]

        def perform(path: Path = path, rules: list[old_sudoers.Rule] = removed) -> None:
            _save(installation, path)
            old_sudoers.without(path, rules)

        yield from _lines("remove this rule", removed, reasons, perform)


def cron_steps(installation: Installation) -> Iterator[Step]:
    """Yield the steps that remove the old lines of cron that the schedule of setup.py replaces."""
    lines = old_cron.lines(installation)
    replaced = [line for line in lines if line.config == CONFIG]
    for line in lines:
        if line not in replaced:
            config = line.config or "not named"
            installation.notice(
                f"warning: {line}: kept: its config is {config}, and setup.py runs {CONFIG}"
            )
    if replaced and not schedule.can_start(installation):
        for line in replaced:
            installation.notice(f"warning: {line}: kept: nothing else here would start the backup")
        return
    if replaced and not installation.schedule and _only_time(replaced) is None:
        installation.notice(
            "warning: the old lines of cron are kept: they do not run once a day, all at one time"
            '\nhint: Choose the time: python3 setup.py adopt --yes --schedule "03:00"'
        )
        return
    for path in dict.fromkeys(line.path for line in replaced):
        removed = [line for line in replaced if line.path == path]

        def perform(path: Path = path, lines: list[old_cron.Line] = removed) -> None:
            _save(installation, path)
            old_cron.without(path, lines)

        reasons = ["setup.py has a schedule of its own"] * len(removed)
        yield from _lines("remove this line", removed, reasons, perform)


def _lines(
    action: str, lines: Sequence[object], reasons: Sequence[str], perform: Callable[[], None]
) -> Iterator[Step]:
    """Yield a step for each line of one file: the last one removes all of them at once."""
    for number, (line, reason) in enumerate(zip(lines, reasons, strict=True), 1):
        done = perform if number == len(lines) else _with_the_last
        yield Step(str(line), action, lambda reason=reason: reason, done)  # type: ignore[misc]


def _with_the_last() -> None:
    """Leave this line to the step of the last one."""


def _only_time(lines: Sequence[old_cron.Line]) -> schedule_files.Time | None:
    times = {line.time for line in lines}
    return times.pop() if len(times) == 1 else None


def schedule_of(installation: Installation) -> str:
    """Return the value of --schedule that keeps the time of the old lines of cron; "" for none.

    The lines stay where they are all that may start the backup, now or later.
    """
    written = (schedule_files.TIMER, schedule_files.CRON)
    has_own = any(installation.at(path).exists() for path in written)
    if has_own or not schedule.can_start(installation):
        return ""
    replaced = [line for line in old_cron.lines(installation) if line.config == CONFIG]
    return str(_only_time(replaced) or "")


def mode_steps(installation: Installation) -> Iterator[Step]:
    """Close config, keys and credentials: the documented system gave all of them to ncbackup.

    What has mode 0600 stays so: programs demand it of some files.
    """
    folder = installation.at(CONFIG_FOLDER)
    config, writer_key = installation.at(CONFIG), installation.at(WRITER_KEY)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        mode = path.lstat().st_mode
        closed = stat.S_IMODE(mode) == _PRIVATE and path != config
        if stat.S_ISREG(mode) and not closed and path != writer_key:
            yield Step(
                str(path),
                f"set its owner and mode, {configuration.ACCESS}",
                lambda path=path: configuration.ACCESS.difference(path, installation),  # type: ignore[misc]
                lambda path=path: files.set_access(path, configuration.ACCESS, installation),  # type: ignore[misc]
            )


def config_steps(installation: Installation) -> Iterator[Step]:
    """Yield the step that writes the config in today's form."""
    config = installation.at(CONFIG)
    if not config.is_file():
        return
    text, changes = _migrated(installation, config)

    def perform() -> None:
        _save(installation, config)
        files.write(config, text.encode(), configuration.ACCESS, installation)
        for change in changes:
            installation.notice(f"changed: {change}")

    yield Step(str(config), "write it in today's form", lambda: "; ".join(changes), perform)


def _migrated(installation: Installation, config: Path) -> tuple[str, list[str]]:
    """Return the config in today's form, and its changes, as backup.py --migrate has them.

    Raises BackupError.
    """
    program = installation.source / "backup.py"
    done = subprocess.run(
        [str(installation.python), environment.ISOLATED, str(program), "--migrate", str(config)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    lines = foreign.lines(foreign.decoded(done.stderr).strip())
    if done.returncode != 0:
        problem = next((line[7:] for line in lines if line.startswith("error: ")), "unknown error")
        raise BackupError(
            f"{config}: cannot be converted: {foreign.line(problem)}",
            "It is unchanged. Correct it, then run this again.",
        )
    changes = [foreign.line(line[9:]) for line in lines if line.startswith("changed: ")]
    return foreign.decoded(done.stdout), changes


def _save(installation: Installation, path: Path) -> None:
    """Copy a file, before it is changed, into a folder that only root can read."""
    folder = _folder_of_copies(installation)
    name = str(path).strip("/").replace("/", "_")
    copy = next(one for one in _numbered(folder / name) if not filesystem_handling.exists(one))
    files.write(copy, foreign.content(path, _LARGEST), folders.Access(0o600), installation)
    installation.notice(f"copy of the old {path}: {copy}")


def _folder_of_copies(installation: Installation) -> Path:
    """Return the folder of today's copies, which is made if need be.

    A folder of that name that root has not made, as in a config folder that belonged to the user
    of the backup, is left alone.
    """
    today = installation.at(_COPIES + time.strftime("%Y%m%d", time.gmtime()))
    for folder in _numbered(today):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        about = folder.lstat()
        if stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid():
            return folder
    raise AssertionError  # the numbers do not end


def _numbered(path: Path) -> Iterator[Path]:
    """Yield a path, and the same with .1, .2 and so on at its end."""
    yield path
    for number in itertools.count(1):
        yield path.with_name(f"{path.name}.{number}")


def notices(installation: Installation) -> Iterator[Step]:
    """Yield no step, but name what is left of the old system: for `install`."""
    for finding in findings(installation):
        installation.notice(f"warning: {finding.text}\nhint: {finding.hint}")
    yield from ()


def findings(installation: Installation) -> list[Finding]:
    """Return what is left of the old system: rules of sudoers and lines of cron."""
    entries = []
    prefix = () if installation.real else ("--prefix", installation.prefix)
    fix = fixes.as_root(fixes.command("python3", ROOT / "setup.py", "adopt", "--yes", *prefix))
    for rule in old_sudoers.rules(installation):
        text = f"{rule}: an old rule of sudoers"
        if rule.is_powerful:
            power = f"{text}: its wildcard gives root to the user of the backup"
            entries.append(bad(power, _HINT, fix))
        else:
            entries.append(warning(text, _HINT, fix))
    by_hand = f"Look at it, and remove {USER}: visudo -f"
    entries += [
        warning(f"{rule}: names {USER} among others", f"{by_hand} {rule.path}")
        for rule in old_sudoers.mentions(installation)
    ]
    lines = old_cron.lines(installation)
    entries += [warning(f"{line}: an old line of cron", _HINT, fix) for line in lines]
    others = old_cron.lines_of_others(installation)
    return entries + [
        warning(
            f"{line}: a line of cron of another user",
            f"{_UNTOUCHED}: {fixes.command('crontab', '-u', line.user, '-e')}",
        )
        for line in others
    ]
