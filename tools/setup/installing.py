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
_AGAIN = "Nothing that works was removed. Fix this, then run the same command again: it goes on."


def install(given: Arguments) -> int:
    """Perform the steps of an installation that are needed; return the exit code."""
    return _change(plans.INSTALL, installation(given))


def upgrade(given: Arguments) -> int:
    """Install the code of a folder, by its own setup.py; without one that of this clone."""
    if not given.folder:
        return install(given)
    folder = arguments.folder_of("setup.py upgrade", given.folder)
    version = releases.version_of(folder)
    sys.stdout.write(f"upgrading to version {version} of {folder}\n")
    sys.stdout.flush()
    program = str(folder / "setup.py")
    command = [sys.executable, environment.ISOLATED, program, "install", *given.options()]
    return subprocess.run(command, check=False).returncode


def rollback(given: Arguments) -> int:
    """Switch back to the release before; return the exit code."""
    return _change(plans.ROLLBACK, installation(given))


def adopt_old_system(given: Arguments) -> int:
    """Convert or remove what the documented system left; only --yes changes anything."""
    adopted = installation(given)
    adopted = dataclasses.replace(
        adopted,
        schedule=given.schedule or adopt.schedule_of(adopted),
        dry_run=given.dry_run or not given.yes,
    )
    return _change(plans.ADOPT, adopted, "To change this: python3 setup.py adopt --yes")


def uninstall(given: Arguments) -> int:
    """Remove what an installation added; return the exit code."""
    removed = installation(given)
    if not given.purge:
        kept = f"{CONFIG_FOLDER}, {HOME}, {LOG_FOLDER}, the user {USER}"
        removed.notice(f"kept: {kept} and every backup")
    code = _change(plans.UNINSTALL, removed)
    if not given.purge:
        hint = "To remove these as well, keys included, but no backup"
        sys.stdout.write(f"hint: {hint}: {_purge(removed)}\n")
    return code


def _purge(removed: Installation) -> str:
    """Return the command that removes what `uninstall` keeps; its own release may be gone."""
    own = ROOT.is_relative_to(removed.at(RELEASES)) or removed.at(CODE) == ROOT
    program = "setup.py" if own else str(ROOT / "setup.py")
    prefix: list[str | Path] = [] if removed.real else ["--prefix", removed.prefix]
    command = f"sudo {fixes.command('python3', program, 'uninstall', '--purge', *prefix)}"
    return f"{command} (in a clone)" if own else command


def installation(given: Arguments) -> Installation:
    """Return the installation that the arguments ask for. Raises ConfigError."""
    if given.root == Path("/") and not given.dry_run and os.geteuid() != 0:
        raise ConfigError(
            "setup.py: permission denied: only root can change the system",
            "Run it as root: sudo python3 setup.py. To see what it would do: --dry-run",
        )
    if given.prefix and os.geteuid() == 0 and (trouble := environments.unsafe(str(given.root))):
        raise ConfigError(
            f"--prefix: {trouble}, who could let root write elsewhere by links in it",
            "Run it as that user, without sudo, or use a folder that belongs to root.",
        )
    wheels = arguments.folder_of("--wheels", given.wheels) if given.wheels else None
    if given.schedule:
        schedule_files.parsed(given.schedule)  # before anything is changed
    return Installation(
        source=ROOT,
        python=python(given.verb),
        prefix=given.root,
        wheels=wheels,
        schedule=given.schedule,
        dry_run=given.dry_run,
        yes=given.yes,
        purge=given.purge,
    )


def python(verb: str) -> Path:
    """Return the Python that makes the environment: one that every user can start.

    The one that runs this, unless it lies in a closed folder, as those of pyenv of root do, or
    belongs to a user who could change it.
    """
    own = Path(getattr(sys, "_base_executable", sys.executable))
    if verb not in ("install", "upgrade"):
        return own  # makes no environment
    others = (one for one in map(Path, newer_python.candidates()) if newer_python.is_new(str(one)))
    opened = [one for one in (own, *others) if environment.closed_folder(one) is None]
    if opened:  # first one that only root can change
        return min(opened, key=lambda one: bool(environments.unsafe(str(one))))
    raise ConfigError(
        f"{own}: other users cannot start this Python: {environment.closed_folder(own)} is closed",
        "Install the Python of the system (Debian, Ubuntu: apt install python3 python3-venv), "
        "then run: /usr/bin/python3 setup.py",
    )


def _change(table: Sequence[plans.Planner], changed: Installation, hint: str = "") -> int:
    """Perform a table of steps, then print the notices, after an error as well.

    hint: how to do what a dry run has shown
    """
    os.umask(0o022)  # whatever the caller's is: steps that keep secrets set their own modes
    try:
        with _alone(changed):
            count = steps.perform(plans.steps(table, changed), dry_run=changed.dry_run)
    except BackupError as error:
        error.hint = error.hint or _AGAIN
        raise
    finally:
        sys.stdout.write("".join(map(_shown, changed.notices)))
        sys.stdout.flush()
    if not count:
        sys.stdout.write("nothing to do\n")
    elif changed.dry_run:
        sys.stdout.write("dry run: nothing was changed\n" + (f"hint: {hint}\n" if hint else ""))
    if changed.errors:  # beside what stands
        raise changed.errors[0]
    return 0


def _shown(notice: str) -> str:
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
