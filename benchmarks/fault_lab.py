"""The systems in which the fault sweep runs: an older run in a store, and what must hold after."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from benchmarks.fault_calls import LIMIT, Outcome
from tools.base import imports
from tools.catalog import manifest, writer_key

HOST = "srv"
_OLD, _NEW = "as it was", "as it is now"


class Lab:
    """A folder with what a command works on.

    live: that folder. It is put back to the state of `pristine` before each fault.
    """

    def __init__(self, folder: Path, flow: Flow[Any]) -> None:
        """Build the lab in an empty folder of its own."""
        self.flow = flow
        self.folder = folder
        self.live, self.pristine = folder / "live", folder / "pristine"
        self.live.mkdir()
        self.build()
        self.live.rename(self.pristine)
        self.reset()

    def build(self) -> None:
        """Fill `live`."""
        raise NotImplementedError

    def reset(self) -> None:
        """Put everything back."""
        shutil.rmtree(self.live, ignore_errors=True)
        copy(self.pristine, self.live)

    def harmed(self) -> Iterator[str]:
        """Yield what had to stay, and is no longer as it was."""
        raise NotImplementedError

    def log(self) -> str:
        """Return the log of the runs."""
        return ""

    # --- what runs without a fault: a fork of this process, which has imported everything

    def text(self) -> str:
        """Return what the last call printed."""
        return (self.folder / "output").read_text("utf-8", "surrogateescape")

    def call(self, name: str, *arguments: str) -> int:
        """Call the main function of a module; return its exit code. Raises TimeoutError."""
        module = imports.module(name)
        return self.forked(lambda: int(module.main(arguments)), f"{name} {' '.join(arguments)}")

    def forked(self, work: Callable[[], int], title: str) -> int:
        """Do work in a process of its own; return its exit code. Raises TimeoutError."""
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            _child(self.folder / "output", work)
        until = time.monotonic() + LIMIT
        while time.monotonic() < until:
            finished, status = os.waitpid(process, os.WNOHANG)
            if finished:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.kill(process, 9)
        os.waitpid(process, 0)
        raise TimeoutError(title)


L = TypeVar("L", bound=Lab)


def copy(source: Path, target: Path) -> None:
    """Copy a folder with owners, modes and times."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


class BackupLab(Lab):
    """A config, a source, and a store that holds a run of an older state of the source."""

    def __init__(self, folder: Path, flow: Flow[Any]) -> None:
        """Build the lab in an empty folder of its own."""
        live = folder / "live"
        self.source, self.store = live / "source", live / "store"
        self.conf, self.key, self.out = (live / name for name in ("conf.json", "key", "out"))
        super().__init__(folder, flow)

    @property
    def sealed(self) -> Path:
        """Return a folder with one encrypted item in parts, for the command that decrypts."""
        return self.live / "sealed"

    def build(self) -> None:
        """Store the first run, then bring the source into its new state."""
        for path in (self.source / "folder", self.live / "log", self.sealed, self.store):
            path.mkdir(parents=True)
        self.write(_OLD)
        self.call("encryption.stage", "--KEYGEN", "--KEY_FILE", str(self.key))
        writer_key.create(self.live / "writer.key", HOST)
        self.conf.write_text(json.dumps(self._config()))
        self.conf.chmod(0o600)
        assert self.run() == 0, self.text()  # noqa: S101
        for part in self.store.glob(f"{HOST}/*.age.*"):
            shutil.copy2(part, self.sealed / part.name)
        if self.flow.backup:
            self.write(_NEW)

    def write(self, state: str) -> None:
        """Bring the source into a state."""
        (self.source / "folder" / "text").write_text(state)
        (self.source / "large").write_bytes(os.urandom(1_200_000))
        if not (self.source / "link").is_symlink():
            (self.source / "link").symlink_to("folder/text")
        with sqlite3.connect(self.source / "app.db") as database:
            database.execute("CREATE TABLE IF NOT EXISTS t (state TEXT)")
            database.execute("INSERT INTO t VALUES (?)", (state,))
        database.close()

    def _config(self) -> dict[str, Any]:
        local = {"HOSTNAME": HOST, "WORK_FOLDER": str(self.live / "work")}
        local |= {"LOCAL_BACKUP": str(self.store), "LOG_FOLDER": str(self.live / "log/backup.log")}
        local |= {"WRITER_KEY": str(self.live / "writer.key")}
        local |= {"ALLOW_ROOT": "True", "DISK_SPACE_CHECK": "False", "LEFTOVERS_AGE": "0s"}
        sealed = {"KEY_FILE": str(self.key), "FILE_SIZE": "1"}
        storing = {"DESTINATION": "local", "RETRY_WAIT": "0.01"}
        return {
            "GENERAL": {**local, "STREAM": self.flow.stream},
            self.flow.source: self._source(),
            "COMPRESSION": {"ACTION": "execute", "NAME": "compression"},
            "ENCRYPTION": {"ACTION": "execute", "NAME": "encryption", "PARAMETERS": sealed},
            "STORAGE": {"ACTION": "execute", "NAME": "storage", "PARAMETERS": storing},
        }

    def _source(self) -> dict[str, Any]:
        if self.flow.source == "FILESET":
            parameters = {"FILESET_INCLUDE": str(self.source)}
            return {"ACTION": "execute", "NAME": "filesbackup", "PARAMETERS": parameters}
        section = {"ACTION": "load", "FROM": "sqlite", "FILENAME": "sqlite"}
        parameters = {"DATABASES": str(self.source / "app.db")}
        return {**section, "CLASS": "SQLiteBackup", "PARAMETERS": parameters}

    def run(self) -> int:
        """Run the backup; return its exit code."""
        return self.call("tools.commands.backup", "-r", "-c", str(self.conf))

    def decrypt(self, target: Path) -> int:
        """Decrypt `sealed` into a folder; return the exit code."""
        return self.call("encryption.stage", *self.decrypting(target))

    def decrypting(self, target: Path) -> list[str]:
        """Return the arguments that decrypt `sealed` into a folder."""
        first = min(self.sealed.iterdir())
        sealed = first.with_suffix("")  # the common beginning of the names of its parts
        arguments = ("-d", "--KEY_FILE", self.key, "--OBJECTIVES", sealed, "--DESTINATION", target)
        return [*map(str, arguments), "--REMOVE_OBJECTIVES", "False"]

    def restore(self, run: str) -> int:
        """Restore a run into a new folder `out`; return the exit code."""
        shutil.rmtree(self.out, ignore_errors=True)
        arguments = ("-c", str(self.conf), "--restore", run, "--destination", str(self.out))
        return self.call("restore.command", *arguments, "--no-report")

    # --- what must hold

    def log(self) -> str:
        """Return the log of the runs."""
        log = self.live / "log/backup.log"
        return log.read_text("utf-8", "surrogateescape") if log.exists() else ""

    def runs(self) -> list[str]:
        """Return the ids of the runs that have a manifest."""
        return sorted(filter(None, (manifest.run_of(path.name) for path in self.names())))

    def names(self) -> list[Path]:
        """Return the paths of what the store holds of the host."""
        return list((self.store / HOST).iterdir())

    def harmed(self) -> Iterator[str]:
        """Yield what is no longer as it was before, of the older run."""
        for path in sorted((self.pristine / "store" / HOST).iterdir()):
            now = self.store / HOST / path.name
            if not now.exists() or now.read_bytes() != path.read_bytes():
                yield f"older run: {path.name} has changed"

    def leftovers(self) -> Iterator[str]:
        """Yield what a run without a fault leaves nowhere."""
        for path in self.names():
            if path.name.endswith(".UNFINISHED") or ".part-" in path.name:
                yield f"left in the store: {path.name}"

    def differences(self) -> list[str]:
        """Return the paths that are not restored as the source has them."""
        top = self.out / self.flow.source / str(self.source).lstrip("/")
        if self.flow.source != "FILESET":
            return [] if _rows(top / "app.db") == _rows(self.source / "app.db") else ["app.db"]
        paths = {path.relative_to(self.source) for path in self.source.rglob("*")}
        paths |= {path.relative_to(top) for path in top.rglob("*")} if top.exists() else set()
        return [str(one) for one in sorted(paths) if _state(self.source / one) != _state(top / one)]


@dataclass(frozen=True)
class Flow(Generic[L]):
    """A command that gets faults.

    lab: where it works. check: yields what is wrong after it.
    The others count for a BackupLab. backup: whether it is a run of backup.py.
    """

    name: str
    lab: Callable[[Path, Flow[Any]], L]
    command: Callable[[L], list[str]]
    check: Callable[[L, Outcome], Iterator[str]]
    stream: str = "True"
    source: str = "FILESET"
    backup: bool = True


def _rows(path: Path) -> list[str]:
    if not path.exists():
        return []
    with sqlite3.connect(path) as database:
        rows = list(database.iterdump())
    database.close()
    return rows


def _state(path: Path) -> object:
    if path.is_symlink():
        return path.readlink()
    if not path.exists():
        return None
    status = path.stat()
    content = b"" if path.is_dir() else path.read_bytes()
    return status.st_mode, status.st_mtime_ns, content


def _child(output: Path, work: Callable[[], int]) -> None:
    """Do the work of a forked process, and end it."""
    code = 1
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, target in ((nothing, 0), (descriptor, 1), (descriptor, 2)):
            os.dup2(number, target)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        code = work()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001  (of a process that ends here: all of it is shown)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
