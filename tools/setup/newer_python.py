"""A Python of this machine that is new enough, where `python3` is not.

Python 2.7 and all later ones must be able to read this file: setup.py asks it before all else.
"""

import os
import subprocess
import sys

NEEDED = (3, 10)
_NEWEST = 14
_FOLDERS = ("/usr/local/bin", "/usr/bin")


def go_on(arguments):  # type: (list[str]) -> None
    """Return if this Python is new enough; else replace this process by one that is.

    arguments: the command line after the name of the Python. Exits with 2 and one line and a
    hint if there is none.
    """
    if sys.version_info >= NEEDED:
        return
    for python in candidates():
        if is_new(python):
            sys.stderr.write("going on with %s\n" % python)
            sys.stderr.flush()
            os.execv(python, [python] + arguments)
    sys.stderr.write(
        "error: nc-backup-py needs Python %d.%d or later, and this is %d.%d\n"
        "hint: Install python3.11 or later (Debian, Ubuntu: apt install python3.11 "
        "python3.11-venv; Fedora, RHEL: dnf install python3.11). setup.py finds it then.\n"
        % (NEEDED + sys.version_info[:2])
    )
    sys.exit(2)


def candidates():  # type: () -> list[str]
    """Return the paths of python3.14 ... python3.10 that exist, newest version first."""
    folders = [folder for folder in os.environ.get("PATH", "").split(":") if folder[:1] == "/"]
    paths = []  # type: list[str]
    for minor in range(_NEWEST, NEEDED[1] - 1, -1):
        for folder in folders + [one for one in _FOLDERS if one not in folders]:
            path = os.path.join(folder, "python3.%d" % minor)
            if os.access(path, os.X_OK) and path not in paths:
                paths.append(path)
    return paths


def is_new(python):  # type: (str) -> bool
    """Return whether a Python starts and is new enough: a shim of pyenv may only claim that."""
    look = "import sys; sys.exit(sys.version_info < (%d, %d))" % NEEDED
    with open(os.devnull, "w") as null:
        try:
            return subprocess.call([python, "-I", "-c", look], stdout=null, stderr=null) == 0
        except OSError:
            return False
