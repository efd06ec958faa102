"""The schedule: a timer where systemd runs, else a file of cron; never both."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from tools.base import fixes
from tools.base.errors import BackupError
from tools.base.finding import Finding, bad
from tools.setup import files, folders, labels, old_cron, programs, schedule_files
from tools.setup.installation import CONFIG_FOLDER, USER, Installation
from tools.setup.schedule_files import CRON, NAME, SERVICE, TIMER, Kind, Time
from tools.setup.steps import Step

DEFAULT = Time(3, 0)
_SYSTEMD = Path("/run/systemd/system")  # it exists where systemd is the init (sd_booted(3))
_FILES = {Kind.TIMER: (SERVICE, TIMER), Kind.CRON: (CRON,)}
_ACCESS = folders.Access(0o644)
_UNIT = f"{NAME}.timer"
_CRONS = ("cron", "crond")  # daemons of the distributions that read /etc/cron.d
NONE = f"{CONFIG_FOLDER}/no-schedule"  # it exists after --schedule none
_AGAIN = 'Run as root: python3 setup.py --schedule "03:00"'


def steps(installation: Installation) -> Iterator[Step]:
    """Yield the steps that write the schedule, and remove one of the other kind.

    Without --schedule an existing schedule keeps its time and kind; where there is none, and no
    old line of cron, the backup runs every night.
    """
    existing = [kind for kind in Kind if installation.at(_FILES[kind][-1]).exists()]
    if not installation.schedule and existing:
        time = _existing_time(installation, existing[0])
        kind: Kind | None = existing[0]
    elif installation.schedule:
        forced, time = schedule_files.parsed(installation.schedule)
        kind = forced or _kind(installation)
        yield _none_step(installation, remember=time is None)
        if time is None:
            yield from removal(installation)
            return
    elif installation.real and not _without(installation):
        time, kind = DEFAULT, _kind(installation)
    else:
        return
    if kind is None:
        _cannot_start(installation)
    elif time is not None:  # else: changed by hand
        yield from _written(installation, kind, time)


def _cannot_start(installation: Installation) -> None:
    """Say that nothing starts the backup: an error where --schedule asked for it."""
    nightly = fixes.as_user(USER, schedule_files.command("python3"))
    hint = f"Install cron and run this again, or run every night: {nightly}"
    if installation.schedule:
        problem = f"--schedule {installation.schedule}: there is neither systemd nor cron here"
        rest = "" if installation.dry_run else "The rest is installed. "
        installation.errors.append(BackupError(problem, rest + hint))
    else:
        problem = "no schedule: there is neither systemd nor cron here"
        installation.notice(f"warning: {problem}\nhint: {hint}")


def _without(installation: Installation) -> bool:
    """Return whether there is to be no schedule: by --schedule none, or by an old line of cron."""
    return installation.at(NONE).exists() or bool(old_cron.lines(installation))


def _none_step(installation: Installation, *, remember: bool) -> Step:
    """Return the step that remembers --schedule none for later installations, or forgets it."""
    path = installation.at(NONE)

    def perform() -> None:
        if remember:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, b"set by setup.py --schedule none\n", _ACCESS, installation)
        else:
            path.unlink()

    return Step(
        str(path),
        "remember that there is no schedule" if remember else "remove it",
        lambda: "" if path.exists() == remember else "--schedule",
        perform,
    )


def _existing_time(installation: Installation, kind: Kind) -> Time | None:
    path = installation.at(_FILES[kind][-1])
    time = schedule_files.time_of(path.read_text("utf-8", "replace"))
    if time is None:
        installation.notice(f"note: {path}: changed by hand, and kept")
    return time


def can_start(installation: Installation) -> bool:
    """Return whether steps() has a kind of schedule: there is systemd or cron, or it was named."""
    forced = schedule_files.parsed(installation.schedule)[0] if installation.schedule else None
    return (forced or _kind(installation)) is not None


def _kind(installation: Installation) -> Kind | None:
    """Return what can start a backup here."""
    if not installation.real or _systemd_runs():
        return Kind.TIMER
    return Kind.CRON if _has_cron() else None


def _has_cron() -> bool:
    return any(shutil.which(name, path=programs.PATH) for name in _CRONS)


def _systemd_runs() -> bool:
    return _SYSTEMD.is_dir() and shutil.which("systemctl", path=programs.PATH) is not None


def _written(installation: Installation, kind: Kind, time: Time) -> Iterator[Step]:
    python = Path("/usr/bin/python3")
    command = str(python if python.exists() else installation.python)
    cron = installation.at(CRON)
    before = cron.read_text("utf-8", "replace") if cron.is_file() else ""
    for name, text in schedule_files.files(kind, time, command, before).items():
        yield _file_step(installation, name, text, time)
    if kind is Kind.TIMER and installation.real and _systemd_runs():
        yield Step(
            _UNIT,
            "enable it and start it",
            lambda: "" if _is("enabled") and _is("active") else "it is not active",
            lambda: _systemctl("enable", "--now", _UNIT),
        )
    for other in set(Kind) - {kind}:
        yield from _removed(installation, other, f"the backup is started by {kind.value}")


def _file_step(installation: Installation, name: str, text: str, time: Time) -> Step:
    path = installation.at(name)

    def reason() -> str:
        if not path.exists():
            return "it does not exist"
        if path.read_text("utf-8", "replace") != text:
            return "it differs"
        return _ACCESS.difference(path, installation)

    def perform() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, text.encode(), _ACCESS, installation)
        if installation.real:
            labels.restore(path)
            _reload()

    return Step(str(path), f"run the backup every day at {time}", reason, perform)


def removal(installation: Installation) -> Iterator[Step]:
    """Yield the steps that remove each schedule of setup.py."""
    for kind in Kind:
        yield from _removed(installation, kind, "it exists")


def uninstall(installation: Installation) -> Iterator[Step]:
    """Yield the steps that remove each schedule, and what is remembered of it."""
    yield from removal(installation)
    if installation.at(NONE).exists():
        yield _none_step(installation, remember=False)


def _removed(installation: Installation, kind: Kind, why: str) -> Iterator[Step]:
    paths = [installation.at(name) for name in _FILES[kind]]

    def perform() -> None:
        if kind is Kind.TIMER and installation.real and _systemd_runs() and _is("enabled"):
            _systemctl("disable", "--now", _UNIT)
        for path in paths:
            path.unlink(missing_ok=True)
        if installation.real:
            _reload()

    if any(path.exists() for path in paths):
        yield Step(str(paths[-1]), "remove this schedule", lambda: why, perform)


def _reload() -> None:
    if _systemd_runs():
        _systemctl("daemon-reload")


def _systemctl(*arguments: str) -> None:
    programs.run(["systemctl", *arguments])


def _is(state: str) -> bool:
    """Return whether the timer is `enabled`, or `active`."""
    try:
        programs.run(["systemctl", f"is-{state}", "--quiet", _UNIT])
    except BackupError:
        return False
    return True


def findings(installation: Installation) -> list[Finding]:
    """Return when the backup runs, and whether it can be started; the steps report the rest."""
    if installation.at(NONE).exists():
        return [Finding("schedule: none, as --schedule none has set it")]
    lines = []
    for kind in Kind:
        path = installation.at(_FILES[kind][-1])
        runs = _has_cron() if kind is Kind.CRON else _systemd_runs()
        if not path.exists():
            continue
        if installation.real and not runs:
            lines.append(bad(f"{path}: {kind.value} does not run here", _AGAIN))
        else:
            time = schedule_files.time_of(path.read_text("utf-8", "replace"))
            when = f"every day at {time}" if time else "changed by hand"
            lines.append(Finding(f"schedule: {kind.value}, {when}"))
    return lines
