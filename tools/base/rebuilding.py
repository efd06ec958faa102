"""An environment that is dead is made again, and the command goes on in it.

An upgrade of the distribution replaces or removes the Python below `.venv`. It is made again from
the wheels that are kept beside the code, or by pip from the lock file, always with hashes: in a
new folder, which takes the place of the old one by rename. A user who may not write beside the
code gets one in a private folder of his own (environments.own_folder).

Python 3.6 can read and run this file: it keeps to the grammar and the library of that version.
"""

import fcntl
import glob
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from typing import NoReturn

from tools.base import capability, environments

NEEDED = (3, 10)
_NEWEST = 14  # minor version of Python that is looked for first
_LONGEST = 600.0  # seconds for all of it, waiting for another process included
_PREFIX = ".environment-"  # of folders in which one is being made
_PAUSE = 15.0  # seconds before pip is tried again that had no network
_PIP_OF_DEBIAN = "/usr/share/python-wheels/pip-*.whl"
_KEEP = 30 * 86400  # seconds for which an environment of another release is kept
_TAIL = 3  # lines of a failed program that are shown
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_KEPT_BEGINNINGS = ("LC_", "PIP_")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
_NO_NETWORK = re.compile(
    r"name resolution|Name or service not known|unreachable|Connection refused|timed out"
    r"|NewConnectionError|ConnectionError|Errno -[235]\b",
    re.I,
)
_PASSWORD_IN_URL = re.compile(r"(://)[^/@\s]*@")
_VERSION = "import sys; print('%d %d %s' % (sys.version_info[:2] + (sys.executable,)))"


class RebuildError(Exception):
    """The environment could not be made again."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def entered_again(environment: str, why: str, waits: bool) -> RebuildError:
    """Go on with this command in an environment that is whole; it is made again if need be.

    environment: the one beside the code. why: what is wrong with it, as "lacks requests".
    waits: keep trying while there is no network, because nobody looks on.
    Does not return where that succeeds; else return why it failed.
    """
    try:
        if os.environ.pop(environments.GUARD, ""):
            return RebuildError("%s was made again, and still %s" % (environment, why))
        return _gone_on(*_available(environment, why, waits))
    except RebuildError as error:
        return error
    except (OSError, UnicodeError) as error:
        return RebuildError("%s %s, and cannot be made again: %s" % (environment, why, error))


def _available(environment: str, why: str, waits: bool) -> "tuple[str, bool]":
    """Return an environment to go on in, and whether it was made now. Raises RebuildError."""
    if not os.path.exists(environments.LOCK):
        raise RebuildError(
            "%s %s, and there is no requirements.lock to make it again" % (environment, why),
            "Make it again: python3 %s env" % os.path.join(environments.ROOT, "setup.py"),
        )
    target = _target(environment)
    if target != environment and not _inside(target) and _can_start(target):
        return target, False
    _refuse_unsafe(environments.LOCK)
    # pip is run as it is; hashes protect what it installs
    for path in [environments.WHEELS] + _kept_pips():
        if os.path.lexists(path):
            _refuse_unsafe(path)
    deadline = time.monotonic() + _LONGEST
    lock = _Lock(os.path.join(os.path.dirname(target), ".environment.lock"), deadline)
    before = _identity(target)
    with lock:
        if _identity(target) != before and _can_start(target):
            return target, True  # the other process has made it
        _remove_old(target)
        where = "" if target == environment else " in %s" % target
        _say("warning: %s %s; it is made again%s" % (environment, why, where))
        added = environments.added(target, environments.LOCK)
        began = time.monotonic()
        umask = os.umask(0o022 if target == environment else 0o077)
        try:
            python = _build(target, deadline, waits)
        finally:
            os.umask(umask)
        _say("note: %s: made with Python %s in %.0f s" % (target, python, time.monotonic() - began))
    if added:
        _say("warning: %s lacks what was added to it by hand: %s" % (target, ", ".join(added)))
        _say("hint: Install it again: %s/bin/python -m pip install %s" % (target, " ".join(added)))
    return target, True


def _target(environment: str) -> str:
    """Return the path of the environment that this user can make. Raises OSError, RebuildError."""
    parent = os.path.dirname(environment)
    if os.access(parent, os.W_OK | os.X_OK) and not environments.unsafe(parent):
        return environment
    return environments.own_environment(environments.made_own_folder())


def _inside(folder: str) -> bool:
    return os.path.realpath(sys.prefix) == os.path.realpath(folder)


def _can_start(folder: str) -> bool:
    configured = os.access(os.path.join(folder, "pyvenv.cfg"), os.R_OK)
    return configured and os.access(os.path.join(folder, "bin", "python"), os.X_OK)


def _refuse_unsafe(path: str) -> None:
    trouble = environments.unsafe(path)
    if trouble:
        raise RebuildError(
            "%s is not used to make the environment again: %s" % (path, trouble),
            "Let %s belong to root, writable by nobody else." % environments.ROOT,
        )


def _gone_on(folder: str, is_new: bool) -> NoReturn:
    """Replace this process by the same command under an environment. Raises OSError."""
    if is_new:
        os.environ[environments.GUARD] = "1"
    python = os.path.join(folder, "bin", "python")
    # without the options of Python itself before 3.10, which does not know sys.orig_argv
    arguments = list(getattr(sys, "orig_argv", [""] + sys.argv))[1:]
    sys.stderr.flush()
    os.execv(python, [python] + arguments)


def _identity(folder: str) -> "tuple[int, int]":
    try:
        status = os.lstat(folder)
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_ctime_ns)


class _Lock:
    """Held by the one process that makes the environment of a place."""

    def __init__(self, path: str, deadline: float) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)
        self._path = path
        self._deadline = deadline

    def __enter__(self) -> None:
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > self._deadline:
                    os.close(self._descriptor)
                    text = "%s: another process has been making the environment for too long"
                    raise RebuildError(text % self._path) from None
                time.sleep(0.2)

    def __exit__(self, *_error: object) -> None:
        os.close(self._descriptor)


# --- making one


def _build(target: str, deadline: float, waits: bool) -> str:
    """Make an environment, and let it take its place; return the version of its Python.

    The kept wheels are tried with each Python before anything is asked of the network.
    """
    failures = []
    pythons = _pythons()
    kept = [(one, False) for one in pythons] if os.path.isdir(environments.WHEELS) else []
    for (python, version), online in kept + [(one, True) for one in pythons]:
        new = tempfile.mkdtemp(prefix=_PREFIX, dir=os.path.dirname(target))
        try:
            _fill(new, python, _Pip(online, deadline, waits))
            _switch(new, target)
            return version
        except RebuildError as error:
            source = "by network" if online else "from wheels/"
            failures.append("Python %s %s: %s" % (version, source, error))
        finally:
            shutil.rmtree(new, ignore_errors=True)
    raise RebuildError(
        "%s cannot be made again: %s" % (target, "; ".join(failures) or "no Python 3.10 or later"),
        "Install Python 3.10 or later with its venv module (Debian, Ubuntu: apt install "
        "python3-venv), then run this command again.",
    )


def _pythons() -> "list[tuple[str, str]]":
    """Return the Pythons of this machine that are new enough, this one first, with versions."""
    names = ["python3"] + ["python3.%d" % minor for minor in range(_NEWEST, NEEDED[1] - 1, -1)]
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/bin:/usr/bin:/bin"])
    base = getattr(sys, "_base_executable", "") or sys.executable
    by_version = {}  # type: dict[str, str]
    for command in [base] + [shutil.which(name, path=path) or "" for name in names]:
        version, executable = _inspected(command) if command else ((0, 0), "")
        if version >= NEEDED and _is_open(executable):
            by_version.setdefault("%d.%d" % version, executable)
    return [(executable, version) for version, executable in by_version.items()]


def _inspected(command: str) -> "tuple[tuple[int, int], str]":
    """Return the version of a Python, and its real executable; (0, 0) where it does not start."""
    try:
        done = _run([command, "-I", "-c", _VERSION], time.monotonic() + 20)
    except RebuildError:
        return (0, 0), ""
    major, minor, executable = done.strip().split(" ", 2)
    return (int(major), int(minor)), executable


def _is_open(executable: str) -> bool:
    """Return whether the users who can reach the code could start a Python as well.

    Root would else make an environment for all that only root can start.
    """
    return os.geteuid() != 0 or _closed(environments.ROOT) or not _closed(executable)


def _closed(path: str) -> bool:
    folder = os.path.dirname(os.path.realpath(path))
    while os.stat(folder).st_mode & stat.S_IXOTH:
        if folder == "/":
            return False
        folder = os.path.dirname(folder)
    return True


class _Pip:
    """How pip gets its packages: from the kept wheels, or by the network."""

    def __init__(self, online: bool, deadline: float, waits: bool) -> None:
        self.deadline = deadline
        self._waits = waits and online
        away = ["--no-index", "--find-links", environments.WHEELS]
        self._source = ["--retries", "1", "--timeout", "15"] if online else away

    def install(self, pip: "list[str]") -> None:
        """Install what the lock file lists; raises RebuildError with the last lines of pip."""
        arguments = ["install", "--quiet", "--no-input", "--no-cache-dir", "--no-deps"]
        arguments += ["--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes"]
        while True:
            try:
                _run(pip + arguments + self._source + ["-r", environments.LOCK], self.deadline)
                return
            except RebuildError as error:
                late = time.monotonic() + _PAUSE > self.deadline
                if late or not self._waits or not _NO_NETWORK.search(str(error)):
                    raise
            time.sleep(_PAUSE)


def _fill(folder: str, python: str, source: _Pip) -> None:
    """Make an environment in an empty folder, try it, and seal it. Raises RebuildError."""
    inside = os.path.join(folder, "bin", "python")
    source.install([inside, "-I"] + _pip(folder, python, source.deadline))
    trouble = environments.import_problem(inside)
    if trouble:
        raise RebuildError("the new environment %s" % trouble)
    code = "import sys; sys.path.insert(0, %r); from tools.base import environments; %s"
    sealing = "environments.seal(%r)" % folder
    _run([inside, "-I", "-B", "-c", code % (environments.ROOT, sealing)], source.deadline)


def _pip(folder: str, python: str, deadline: float) -> "list[str]":
    """Make an environment without packages; return the arguments with which it runs a pip.

    Debian has ensurepip in a package of its own, which an upgrade may have left behind.
    """
    venv = [python, "-I", "-m", "venv"]
    kept = _kept_pips()
    if not kept:
        try:
            _run(venv + [folder], deadline)
            return ["-m", "pip"]
        except RebuildError:
            kept = sorted(glob.glob(_PIP_OF_DEBIAN))
            if not kept:
                raise
    _run(venv + ["--clear", "--without-pip", folder], deadline)
    return [os.path.join(kept[-1], "pip")]  # a wheel is a zip file, which Python can run


def _kept_pips() -> "list[str]":
    return sorted(glob.glob(os.path.join(environments.WHEELS, "pip-*.whl")))


def _switch(new: str, target: str) -> None:
    """Put a new environment into its place; what was there is removed. Raises OSError."""
    os.chmod(new, 0o755 if target == os.path.join(environments.ROOT, ".venv") else 0o700)
    old = new + ".old"
    if os.path.lexists(target):
        os.rename(target, old)
    os.rename(new, target)
    if os.path.islink(old):
        os.remove(old)
    shutil.rmtree(old, ignore_errors=True)


def _remove_old(target: str) -> None:
    """Remove what killed processes left, and old environments of this user of other releases."""
    parent = os.path.dirname(target)
    leftovers = glob.glob(os.path.join(parent, _PREFIX + "*"))
    for path in glob.glob(os.path.join(parent, environments.OWN_PREFIX + "*")):
        private = os.path.basename(target).startswith(environments.OWN_PREFIX)
        if private and path != target and os.lstat(path).st_mtime < time.time() - _KEEP:
            leftovers.append(path)
    for path in leftovers:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)


def _run(argv: "list[str]", deadline: float) -> str:
    """Return the output of a program. Raises RebuildError with its last lines."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_KEPT_BEGINNINGS) or name.lower() in _PROXIES
    }
    try:
        with capability.withheld():
            program = subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise RebuildError("%s: %s" % (argv[0], error.strerror)) from None
    try:
        output = program.communicate(timeout=max(0.1, deadline - time.monotonic()))[0]
    except BaseException as error:  # also KeyboardInterrupt: nothing is left running
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise RebuildError("%s took too long" % os.path.basename(argv[0])) from None
        raise
    text = output.decode("utf-8", "replace")
    if program.returncode != 0:
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        tail = " | ".join(lines[-_TAIL:]) or "exit code %d" % program.returncode
        raise RebuildError(_printable(_PASSWORD_IN_URL.sub(r"\1***@", tail)))
    return text


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
