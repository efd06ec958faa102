"""The environment that commands run in: whether it is whole, and where one may lie.

Python 3.6 can read and run this file: it keeps to the grammar and the library of that version.
Every command asks `state` at its start, so that must cost next to nothing: what only a dead
environment needs is imported there.
"""

import grp
import os
import pwd
import stat
import sys

PACKAGES = ("boto3", "cryptography", "requests", "rich", "zstandard")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
LOCK = os.path.join(ROOT, "requirements.lock")  # every package, with its hashes
WHEELS = os.path.join(ROOT, "wheels")  # packages that are kept to make it again without network
_SEAL = "nc-backup-py.seal"  # in an environment: the Python it was tried with, and what it holds
GUARD = "NC_BACKUP_ENVIRONMENT_MADE"  # set for the command that goes on: it is made only once
OWN_PREFIX = "environment-"  # of the environments of one user, one for each lock file
_PRIVATE_NAME = ".nc-backup-py"  # in the home of a user who may not write beside the code
_CHECKED = "environment-checked"  # there: the last Python that .venv was tried with
_IMPORTS = "import boto3, cryptography.hazmat.bindings._rust, requests, rich, zstandard"
_IMPORT_TIME = 120.0  # seconds; it takes half a second where nothing else runs
_LARGEST = 1 << 20  # bytes of a seal


def state(environment: str) -> str:
    """Return why commands cannot run in the environment beside the code; "" where they can.

    A Python that has all packages itself needs none: then there is no such folder, or this is
    another environment.
    """
    if is_inside(environment):
        return problem(sys.prefix)
    if sys.prefix != sys.base_prefix and sys.version_info >= (3, 10):
        return ""
    if os.path.lexists(environment):
        return "cannot be started by this user"
    return "does not exist" if os.path.exists(LOCK) and os.path.isdir(WHEELS) else ""


def is_inside(environment: str) -> bool:
    """Return whether this process runs in an environment of ours: beside the code, or own."""
    if sys.prefix == sys.base_prefix:
        return False
    if os.path.realpath(sys.prefix) == os.path.realpath(environment):
        return True
    private = own_folder() if os.path.basename(sys.prefix).startswith(OWN_PREFIX) else ""
    return bool(private) and sys.prefix == own_environment(private)


def added(environment: str, lock: str) -> "list[str]":
    """Return the names of the packages that somebody has installed beside those of a lock file.

    pip marks what it was asked for by a file REQUESTED; what only those need has none.
    """
    import glob
    import re

    try:
        with open(lock, encoding="utf-8", errors="replace") as file:
            locked = set(re.findall(r"^([a-z0-9.-]+)==", file.read(), re.M))
    except OSError:
        return []
    marks = glob.glob(os.path.join(environment, "lib/python3*/site-packages/*.dist-info/REQUESTED"))
    names = {os.path.basename(os.path.dirname(one)).partition("-")[0] for one in marks}
    usual = {
        name.replace("_", "-").lower() for name in names if re.match(r"[A-Za-z0-9_.]+\Z", name)
    }
    return sorted(usual - locked - {"pip", "setuptools", "wheel"})


def problem(folder: str) -> str:
    """Return why the environment that this process runs in is not whole; "" where it is."""
    try:
        present = set(os.listdir(_packages(folder)))
    except OSError:
        return "was made for another version of Python than %d.%d" % sys.version_info[:2]
    python, names = _sealed(folder)
    missing = sorted(set(names or PACKAGES) - present)
    if missing:
        return "lacks %s" % ", ".join(missing[:3])
    if not python or fingerprint() in (python, _checked()):
        return ""
    trouble = import_problem(sys.executable)
    if not trouble:
        _remember(folder)
    return trouble


def fingerprint() -> str:
    """Return what differs between two builds of Python: version, time of the build, ABI."""
    version = " ".join(sys.version.split())
    return "%s %s%s" % (version, sys.implementation.cache_tag, getattr(sys, "abiflags", ""))


def import_problem(python: str) -> str:
    """Return why a Python cannot import the packages; "" where it can."""
    import subprocess

    try:
        done = subprocess.run(
            [python, "-I", "-c", _IMPORTS],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_IMPORT_TIME,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return "cannot be started: %s" % error
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode("utf-8", "replace").strip().split("\n")
    return "cannot load its packages: %s" % (lines[-1] if lines else "no message")


def seal(folder: str) -> None:
    """Record in an environment, under this Python, that it is whole. Raises OSError."""
    names = sorted(os.listdir(_packages(folder)))
    _write(os.path.join(folder, _SEAL), "\n".join([fingerprint()] + names) + "\n", 0o644)


def _packages(folder: str) -> str:
    return os.path.join(folder, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")


def _sealed(folder: str) -> "tuple[str, list[str]]":
    """Return the Python that an environment was tried with, and the names of what it holds."""
    lines = _read(os.path.join(folder, _SEAL)).split("\n")
    return lines[0], [name for name in lines[1:] if name]


def _checked() -> str:
    """Return the Python that this user has tried the environment beside the code with."""
    private = own_folder()
    lines = _read(os.path.join(private, _CHECKED)).split("\n") if private else []
    return lines[1] if lines[:1] == [ROOT] and len(lines) > 1 else ""


def _remember(folder: str) -> None:
    """Record that an environment works under this Python: in it, or for this user alone."""
    try:
        seal(folder)
    except OSError:
        try:
            _write(os.path.join(made_own_folder(), _CHECKED), ROOT + "\n" + fingerprint(), 0o600)
        except OSError:
            return  # it is tried again next time, which takes half a second


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_LARGEST)
    except OSError:
        return ""


def _write(path: str, text: str, mode: int) -> None:
    """Write a file whole. Raises OSError."""
    temporary = "%s.%d" % (path, os.getpid())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(
        os.open(temporary, flags, mode), "w", encoding="utf-8", errors="replace"
    ) as file:
        file.write(text)
    os.rename(temporary, path)


# --- places


def own_folder() -> str:
    """Return the private folder of this user below the home; "" where there is none to trust."""
    try:
        folder = os.path.join(pwd.getpwuid(os.geteuid()).pw_dir, _PRIVATE_NAME)
        status = os.lstat(folder)
    except (KeyError, OSError):
        return ""
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    return folder if private and status.st_uid == os.geteuid() and not unsafe(folder) else ""


def made_own_folder() -> str:
    """Return that folder, which is made if it does not exist. Raises OSError."""
    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        raise OSError("the user %d has no home directory" % os.geteuid()) from None
    trouble = unsafe(home)
    if trouble:
        raise OSError(trouble)
    folder = os.path.join(home, _PRIVATE_NAME)
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        if not own_folder():
            raise OSError("%s: must be a folder of this user alone (mode 0700)" % folder) from None
    return folder


def own_environment(folder: str) -> str:
    """Return where the environment of this user lies in `folder`: one for each lock file."""
    import hashlib

    with open(LOCK, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    return os.path.join(folder, OWN_PREFIX + digest[:12])


def unsafe(path: str) -> str:
    """Return why others than root and this user could change a path; "" where nobody could."""
    location = os.path.realpath(path)
    while True:
        try:
            status = os.stat(location)
        except OSError as error:
            return "%s: %s" % (location, (error.strerror or "cannot be read").lower())
        if status.st_uid not in (0, os.geteuid()):
            return "%s belongs to another user" % location
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if not sticky and status.st_mode & stat.S_IWOTH:
            return "%s is writable by everybody" % location
        if not sticky and status.st_mode & stat.S_IWGRP and not _of_owner(location, status):
            return "%s is writable by others than its owner" % location
        if location == os.path.dirname(location):
            return ""
        location = os.path.dirname(location)


def _of_owner(path: str, status: os.stat_result) -> bool:
    """Return whether a group is root's or has the owner's name, and no ACL adds anybody."""
    try:
        if "system.posix_acl_access" in os.listxattr(path):
            return False
    except OSError:  # a file system without such attributes
        pass
    try:
        owner, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        return False
    return status.st_gid == 0 or owner == group
