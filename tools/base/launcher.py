"""Start an executable: under the Python of .venv, or under this one if that is new enough.

An environment that an upgrade of the distribution has left dead is made again (rebuilding.py).

Python 2.7 and all later ones must be able to read this file, so that they can say which Python is
needed. It therefore has no annotations, and imports from this project only what a new Python runs.
"""

import os
import sys

_BACKUP = "tools/commands/backup.py"  # whose run is reported even if it cannot start
NEEDED = (3, 10)
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))


def start(executable):  # type: (str) -> None
    """Run the `main` of an executable under .venv, and exit with the exit code that it returns.

    executable: the path of the file that is `__main__`, or from the root of the project the one
    that has its code. It is imported once more by its own name, and that one runs: each class
    of a file exists once, in every module that imports it.
    """
    environment = os.path.join(_ROOT, ".venv")
    enter(environment)
    if sys.version_info >= (3, 6):
        from tools.base import environments, release_lock

        release_lock.hold(_ROOT)
        why = environments.state(environment)
        if why:
            _again(executable, environment, why)
        os.environ.pop(environments.GUARD, None)  # it is whole: later it may be made again
    if sys.version_info < NEEDED:
        sys.stderr.write(_too_old(environment))
        _report(executable, "nc-backup-py needs Python %d.%d or later" % NEEDED)
        sys.exit(2)
    from tools.base import entry

    sys.exit(entry.run(executable, lambda why: _missing(executable, environment, why)))


def _again(executable, environment, why):  # type: (str, str, str) -> None
    """Go on in an environment that is made again; return where this command goes on without it.

    A run that could not load its packages ends here: it is reported, with exit code 1.
    """
    from tools.base import environments, rebuilding

    is_run = _is_run(executable)
    failure = rebuilding.entered_again(environment, why, is_run)
    is_lost = is_run and sys.version_info >= NEEDED and environments.import_problem(sys.executable)
    sys.stderr.write("%s: %s\n" % ("error" if is_lost else "warning", failure))
    if failure.hint:
        sys.stderr.write("hint: %s\n" % failure.hint)
    if is_lost:
        _report(executable, "%s" % failure)
        sys.exit(1)


def _missing(executable, environment, why):  # type: (str, str, str) -> None
    """Deal with a package that could not be imported at the start."""
    from tools.base import environments

    if environments.is_inside(environment):
        _again(executable, environment, why)
    else:
        _report(executable, why)


def _is_run(executable):  # type: (str) -> bool
    """Return whether this is the nightly run: nobody looks on, and a failure is reported."""
    import re

    options = [word for word in sys.argv[1:] if re.match("--run$|-[rtnv]*r", word)]
    return executable == _BACKUP and bool(options)


def _report(executable, problem):  # type: (str, str) -> None
    """Tell the report server and the channels of the config that a run could not start."""
    if _is_run(executable) and sys.version_info >= (3, 6):
        from tools.base import last_report

        last_report.send(sys.argv[1:], problem)


def enter(environment):  # type: (str) -> None
    """Replace this process by the same command under an environment, if that exists.

    So the documented commands work word for word with the system's own python3. A Python
    that is in an environment already stays there, if it is new enough; and so does one that may
    not start the environment's: root may have made it with a Python that only root can reach.
    """
    python = os.path.join(environment, "bin", "python")
    inside = sys.prefix != getattr(sys, "base_prefix", sys.prefix)
    # a broken environment must not make this process replace itself for ever
    if sys.executable == python or not _is_whole(environment):
        return
    if inside and sys.version_info >= NEEDED:
        return
    # without the options of Python itself before 3.10, which does not know sys.orig_argv
    arguments = list(getattr(sys, "orig_argv", [""] + sys.argv))[1:]
    try:
        os.execv(python, [python] + arguments)
    except OSError as error:
        sys.stderr.write("warning: %s: %s\n" % (python, error.strerror))


def _is_whole(environment):  # type: (str) -> bool
    python = os.path.join(environment, "bin", "python")
    configured = os.access(os.path.join(environment, "pyvenv.cfg"), os.R_OK)
    return configured and os.access(python, os.X_OK)


def _too_old(environment):  # type: (str) -> str
    """Return the error and the hint for a Python that cannot run this project."""
    closed = os.path.exists(environment) and not _is_whole(environment)
    why = "; this user cannot start %s/bin/python" % environment if closed else ""
    return (
        "error: nc-backup-py needs Python %d.%d or later, and this is %d.%d%s\n"
        "hint: Run setup.py env with a newer one, for example python3.11 setup.py env: "
        "it creates .venv, in which every command then runs.\n"
    ) % (NEEDED[0], NEEDED[1], sys.version_info[0], sys.version_info[1], why)
