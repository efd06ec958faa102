"""The verbs that change the system: each performs a table of steps (plans.py)."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.base import environments, fixes, foreign
from tools.base.errors import BackupError, ConfigError, LockedError
from tools.base.project import ROOT
from tools.setup import (
    adopt,
    arguments,
    environment,
    newer_python,
    plans,
    releases,
    schedule_files,
    steps,
)
from tools.setup.arguments import Arguments
from tools.setup.installation import (
    CODE,
    CONFIG_FOLDER,
    HOME,
    LOG_FOLDER,
    RELEASES,
    USER,
    Installation,
)

_LOCK = "/run/nc-backup-py-setup.lock"  # only root can open it, and so hold it
_AGAIN = "Nothing that works was removed. Fix this, then run the same command again to continue."


def install(parsed: Arguments) -> int:
    """Perform the steps of an installation that are needed; return the exit code."""
    return _change(plans.INSTALL, installation(parsed))


def upgrade(parsed: Arguments) -> int:
    """Install the code of a folder, by its own setup.py; without one that of this clone."""
    if not parsed.folder:
        return install(parsed)
    folder = arguments.folder_of("setup.py upgrade", parsed.folder)
    version = releases.version_of(folder)
    sys.stdout.write(f"upgrading to version {version} of {folder}\n")
    sys.stdout.flush()
    program = str(folder / "setup.py")
    command = [sys.executable, environment.ISOLATED, program, "install", *parsed.options()]
    return subprocess.run(command, check=False).returncode


def rollback(parsed: Arguments) -> int:
    """Switch back to the release before; return the exit code."""
    return _change(plans.ROLLBACK, installation(parsed))


def adopt_old_system(parsed: Arguments) -> int:
    """Convert or remove what the documented system left; only --yes changes anything."""
    adopted = installation(parsed)
    adopted = dataclasses.replace(
        adopted,
        schedule=parsed.schedule or adopt.schedule_of(adopted),
        dry_run=parsed.dry_run or not parsed.yes,
    )
    return _change(plans.ADOPT, adopted, "To change this: python3 setup.py adopt --yes")


def uninstall(parsed: Arguments) -> int:
    """Remove what an installation added; return the exit code."""
    removed = installation(parsed)
    if not parsed.purge:
        kept_parts = f"{CONFIG_FOLDER}, {HOME}, {LOG_FOLDER}, the user {USER}"
        removed.notice(f"kept: {kept_parts} and every backup")
    code = _change(plans.UNINSTALL, removed)
    if not parsed.purge:
        hint = "To remove these as well, keys included, but no backup"
        sys.stdout.write(f"hint: {hint}: {_purge(removed)}\n")
    return code


def _purge(removed: Installation) -> str:
    """Return the command that removes what `uninstall` keeps; its own release may be gone."""
    is_installed = ROOT.is_relative_to(removed.at(RELEASES)) or removed.at(CODE) == ROOT
    program = "setup.py" if is_installed else str(ROOT / "setup.py")
    prefix: list[str | Path] = [] if removed.real else ["--prefix", removed.prefix]
    command = f"sudo {fixes.command('python3', program, 'uninstall', '--purge', *prefix)}"
    return f"{command} (in a clone)" if is_installed else command


def installation(parsed: Arguments) -> Installation:
    """Return the installation for these arguments. Raises ConfigError."""
    if parsed.root == Path("/") and not parsed.dry_run and os.geteuid() != 0:
        raise ConfigError(
            "setup.py: permission denied: only root can change the system",
            "Run it as root: sudo python3 setup.py. To see what it would do: --dry-run",
        )
    if parsed.prefix and os.geteuid() == 0 and (trouble := environments.unsafe(str(parsed.root))):
        raise ConfigError(
            f"--prefix: {trouble}, who could let root write elsewhere by links in it",
            "Run it as that user, without sudo, or use a folder that belongs to root.",
        )
    wheels = arguments.folder_of("--wheels", parsed.wheels) if parsed.wheels else None
    if parsed.schedule:
        schedule_files.parsed(parsed.schedule)  # before anything is changed
    return Installation(
        source=ROOT,
        python=python(parsed.verb),
        prefix=parsed.root,
        wheels=wheels,
        schedule=parsed.schedule,
        dry_run=parsed.dry_run,
        yes=parsed.yes,
        purge=parsed.purge,
    )


def python(verb: str) -> Path:
    """Return the Python that makes the environment: one that every user can start.

    The one that runs this, unless it lies in a closed folder, as those of pyenv of root do, or
    belongs to a user who could change it.
    """
    current = Path(getattr(sys, "_base_executable", sys.executable))
    if verb not in ("install", "upgrade"):
        return current  # makes no environment
    others = (one for one in map(Path, newer_python.candidates()) if newer_python.is_new(str(one)))
    startable = [one for one in (current, *others) if environment.closed_folder(one) is None]
    if startable:  # first one that only root can change
        return min(startable, key=lambda one: bool(environments.unsafe(str(one))))
    raise ConfigError(
        f"{current}: other users cannot start this Python: "
        f"{environment.closed_folder(current)} is closed",
        "Install the Python of the system (Debian, Ubuntu: apt install python3 python3-venv), "
        "then run: /usr/bin/python3 setup.py",
    )


def _change(table: Sequence[plans.Planner], changed: Installation, hint: str = "") -> int:
    """Perform a table of steps, then print the notices, after an error as well.

    hint: how to make the changes that a dry run lists
    """
    os.umask(0o022)  # whatever the caller's is: steps that keep secrets set their own modes
    try:
        with _alone(changed):
            count = steps.perform(plans.steps(table, changed), dry_run=changed.dry_run)
    except BackupError as error:
        error.hint = error.hint or _AGAIN
        raise
    finally:
        sys.stdout.write("".join(map(_printable, changed.notices)))
        sys.stdout.flush()
    if not count:
        sys.stdout.write("nothing to do\n")
    elif changed.dry_run:
        sys.stdout.write("dry run: nothing was changed\n" + (f"hint: {hint}\n" if hint else ""))
    if changed.errors:  # beside what stands
        raise changed.errors[0]
    return 0


def _printable(notice: str) -> str:
    """Return a notice as it is printed: names of files may be those of other users."""
    return foreign.printable(notice, keep="\n") + "\n"


@contextlib.contextmanager
def _alone(changed: Installation) -> Iterator[None]:
    """Keep a second setup.py from changing the same system. Raises LockedError."""
    if changed.dry_run:
        yield
        return
    descriptor = _lock_of(changed)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise LockedError(
            "setup.py: another one is running", "Wait until it has ended, then run this again."
        ) from None
    finally:
        os.close(descriptor)


def _lock_of(changed: Installation) -> int:
    """Return what is locked, opened: a file; with --prefix, where none may be left, a folder."""
    if changed.real:
        return os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    nearest = changed.at(RELEASES).parent
    while not nearest.is_dir():
        nearest = nearest.parent
    return os.open(nearest, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
