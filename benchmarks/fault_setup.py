"""Faults in setup.py: an installation, an upgrade, and a rollback (fault_installer.py)."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import fault_checks, fault_lab
from benchmarks.fault_calls import Outcome
from benchmarks.fault_lab import Flow, Lab
from tools import filesystem_handling
from tools.base import project
from tools.setup import installation as layout

_CODE = ("backup.py", "setup.py", "pyproject.toml", "requirements.lock", "conf", "encryption")
_TIME = re.compile(r"-?\d{8}T\d{6}Z")
_VERSION = re.compile(r'^version = ".*"$', re.M)
_SECRET = re.compile(r"^AGE-SECRET-KEY-\S+$", re.M)
_PUBLIC = re.compile(r"^(?:# public key: )?(age1[0-9a-z]+)$", re.M)
_SIGNER = re.compile(r"^# signer: \S+ (.+)$", re.M)
_KEYS = (layout.IDENTITY_FILE, layout.KEY_FILE, layout.WRITER_KEY)
_MINE = "mine.py"  # a user-defined module
_NEXT = "1.2"


@dataclass(frozen=True)
class SetupFlow(Flow["SetupLab"]):
    """A verb of setup.py.

    earlier: versions that are installed, oldest first. current: the version that is, afterwards
    """

    verb: str = "install"
    earlier: tuple[str, ...] = ()
    current: str = _NEXT


class SetupLab(Lab):
    """A clone, and a folder that stands for / with an installation."""

    flow: SetupFlow

    def build(self) -> None:
        """Install the earlier versions, and let an operator edit what they have installed."""
        self.clone, self.root = self.live / "clone", self.live / "root"
        self.root.mkdir()
        self._clone()
        for version in self.flow.earlier:
            self._edit(version)
            assert self._setup("install") == 0, self.text()  # noqa: S101
        self.edited = [layout.CONFIG, *_KEYS] if self.flow.earlier else []
        if self.edited:
            conf = self.at(layout.CONFIG)
            conf.write_text(conf.read_text().replace('"3"', '"4"') + "\n")
            (self._current() / _MINE).write_text("mine = True\n")
        self._edit(_NEXT)
        self.before = state(self.root)
        before = self.folder / "before"
        fault_lab.copy(self.live, before)
        assert self.again() == 0, self.text()  # noqa: S101
        self.expected = state(self.root)
        shutil.rmtree(self.live)
        before.rename(self.live)

    def _clone(self) -> None:
        ignored = shutil.ignore_patterns("__pycache__")
        for name in (*_CODE, "tools"):
            source = project.ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.clone / name, ignore=ignored)
            else:
                self.clone.mkdir(exist_ok=True)
                shutil.copy2(source, self.clone / name)

    def _edit(self, version: str) -> None:
        file = self.clone / "pyproject.toml"
        file.write_text(_VERSION.sub(f'version = "{version}"', file.read_text()))

    def at(self, path: str) -> Path:
        """Return where a path of the layout is."""
        return self.root / path.lstrip("/")

    def _current(self) -> Path:
        return self.at(str(self.at(layout.CODE).readlink()))

    # --- commands

    def arguments(self, verb: str) -> list[str]:
        """Return the arguments of the installer."""
        schedule = ["--schedule", "cron 03:00"] if verb == "install" else []
        return [str(self.clone), verb, "--prefix", str(self.root), *schedule]

    def _setup(self, verb: str) -> int:
        return self.call("benchmarks.fault_installer", *self.arguments(verb))

    def again(self) -> int:
        """Run the verb, unless it is a switch that has been made; return the exit code."""
        done = self.flow.verb == "rollback" and self._version() == self.flow.current
        return 0 if done else self._setup(self.flow.verb)

    def _version(self) -> str:
        return _TIME.sub("", self._current().name)

    # --- what must hold

    def harmed(self) -> Iterator[str]:
        """Yield what was lost of config, keys and the user-defined module."""
        for path in self.edited:
            before, now = self.pristine / "root" / path.lstrip("/"), self.at(path)
            if not now.is_file() or now.read_bytes() != before.read_bytes():
                yield f"{path} is lost, or has changed"

    def differences(self) -> Iterator[str]:
        """Yield the paths that are not as after the command without a fault."""
        entries = state(self.root)
        for path in sorted({*entries, *self.expected}):
            if path not in entries:
                yield f"{path} is missing"
            elif path not in self.expected:
                yield f"{path} is there"
            elif entries[path] != self.expected[path]:
                yield f"{path} is {entries[path]!r:.200}, not {self.expected[path]!r:.200}"
        yield from self.wrong_keys()

    def wrong_keys(self) -> Iterator[str]:
        """Yield what is wrong with keys: each must name the others."""
        if not all(self.at(path).is_file() for path in _KEYS):
            return
        identity, key, writer = (self.at(path).read_text() for path in _KEYS)
        if len(_SECRET.findall(identity)) != 1:
            yield "the private key is not one key"
        if _PUBLIC.findall(identity) != _PUBLIC.findall(key):
            yield "the recipient is not that of the private key"
        if not all(_SIGNER.findall(one) == _SIGNER.findall(writer) for one in (identity, key)):
            yield "the signer is not that of the key that signs"

    def secrets(self) -> list[str]:
        """Return the private keys that are there."""
        files = [self.at(path) for path in (layout.IDENTITY_FILE, layout.WRITER_KEY)]
        texts = [one.read_text() for one in files if one.is_file()]
        return [line for text in texts for line in text.split("\n") if line and line[0] != "#"]

    def broken_current(self) -> Iterator[str]:
        """Yield why the release that is current is none, or not a whole one."""
        link = self.at(layout.CODE)
        if not link.is_symlink():
            if self.flow.earlier:
                yield "no release is current"
            return
        top = str(self._current().relative_to(self.root))
        begin = f"{_TIME.sub('', top)}/"
        known = {**self.before, **self.expected}
        wanted = {path: one for path, one in known.items() if path.startswith(begin)}
        if not wanted:
            yield f"{top} is current"
        for path, one in wanted.items():
            below = self.root / top / path.removeprefix(begin)
            if not os.path.lexists(below) or _state(below) != one:
                yield f"{path} of the current release is not whole"


def state(root: Path) -> Mapping[str, object]:
    """Return what is below a root: type, owner, mode and content by path, without times.

    Compiled files are left out: they may be there, or not.
    """
    entries: dict[str, object] = {}
    for entry in filesystem_handling.entries_below(root):
        path = Path(entry.path)
        name = _TIME.sub("", str(path.relative_to(root)))
        if "__pycache__" in name:
            continue
        entries[f"{name} (twice)" if name in entries else name] = _state(path)
    return entries


def _state(path: Path) -> object:
    """Return what a path is. Keys are random: their content is judged by `wrong_keys`."""
    about = path.lstat()
    owner = (about.st_uid, about.st_gid)
    if stat.S_ISLNK(about.st_mode):
        return (*owner, _TIME.sub("", str(path.readlink())))
    content = ""
    if stat.S_ISREG(about.st_mode) and path.name not in {Path(key).name for key in _KEYS}:
        content = _TIME.sub("", path.read_text("utf-8", "surrogateescape"))
    return (*owner, oct(about.st_mode), content)


def after_setup(lab: SetupLab, outcome: Outcome) -> Iterator[str]:
    """Yield what is wrong after a setup.py with a fault, and after the next one without."""
    yield from fault_checks.always(lab, outcome)
    yield from lab.broken_current()
    if outcome.code == 0:
        yield from (f"exit 0, and {problem}" for problem in lab.differences())
    secrets = lab.secrets()
    if (code := lab.again()) != 0:
        yield f"the next {lab.flow.verb} ends with {code}: {lab.text().strip()[-200:]}"
    yield from (f"after the next {lab.flow.verb} {problem}" for problem in lab.differences())
    if not set(secrets) <= set(lab.secrets()):
        yield "a private key is lost"
    yield from lab.harmed()


def _command(lab: SetupLab) -> list[str]:
    installer = project.ROOT / "benchmarks/fault_installer.py"
    return [sys.executable, str(installer), *lab.arguments(lab.flow.verb)]


FLOWS = (
    SetupFlow("install", SetupLab, _command, after_setup),
    SetupFlow("upgrade", SetupLab, _command, after_setup, earlier=("1.0", "1.1")),
    SetupFlow(
        *("rollback", SetupLab, _command, after_setup),
        verb="rollback",
        earlier=("1.0", "1.1"),
        current="1.0",
    ),
)
