"""A whole installation in a temporary folder, and runs of backup.py in it as a user makes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import starter
from tools.base import project
from tools.catalog import writer_key

BUILT_IN = (
    *("filesbackup", "compression", "encryption", "storage", "tools", "qa", "restore", "cleanup"),
    *("mysql_backup", "postgres", "mongo", "sqlite", "redis", "openldap", "rsync"),
)


class System:
    """HOME_FOLDER with the built-in modules and the user's own, a source, a store, a key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.work = folder / "work"
        self.store = folder / "store"
        self.source = folder / "source"
        self.log = folder / "log" / "backup.log"
        self.key = folder / "key_file"
        self.conf = folder / "conf.json"
        self.writer_key = folder / "writer.key"
        for path in (self.home, self.source, self.log.parent):
            path.mkdir(mode=0o755)
        for name in BUILT_IN:
            (self.home / name).symlink_to(project.ROOT / name)
        self.signer = writer_key.create(self.writer_key, "srv-test")
        self.general: dict[str, Any] = {
            "HOSTNAME": "srv-test",
            "WORK_FOLDER": str(self.work),
            "LOCAL_BACKUP": str(self.store),
            "HOME_FOLDER": str(self.home),
            "LOG_FOLDER": str(self.log),
            "ALLOW_ROOT": "True",
            "DISK_SPACE_CHECK": "False",
            "MESSAGE_CONFIG_WAIT": "0.05",
            "CONNECT_WAIT": "0",  # of what a test takes down for good
            "WRITER_KEY": str(self.writer_key),
            "STREAM": "False",  # a test of streamed runs says so
        }

    def script(self, name: str, text: str, stream: str = "", perl: bool = False) -> dict[str, Any]:
        """A section for a new module of the user's own, in bash or perl."""
        self.module(name, text, f"{name}.sh")
        language = "perl" if perl else "bash"
        section = {"ACTION": "execute", "NAME": name, "EXECUTABLE": f"{name}.sh"}
        section |= {"EXECUTE_WITH": language}
        return {**section, "STREAM": stream} if stream else section

    def module(self, name: str, text: str, file: str = "") -> None:
        """A module of the user's own."""
        path = self.home / name / (file or f"{name}.py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def full_sections(self, **more: Any) -> dict[str, Any]:
        """The sections of a whole documented run, and `more`."""
        self.keygen()
        return {
            "FILESET": execute("filesbackup", FILESET_INCLUDE=str(self.source)),
            "COMPRESSION": execute("compression"),
            "ENCRYPTION": execute("encryption", KEY_FILE=str(self.key), FILE_SIZE="1"),
            "SIZE": {
                "ACTION": "load",
                "FROM": "tools",
                "FILENAME": "size_calculation",
                "CLASS": "SizeCalculation",
            },
            "STORAGE_LOCAL": execute("storage", DESTINATION="local"),
            **more,
        }

    def short(self, **more: Any) -> dict[str, Any]:
        """The same without SIZE, which takes longer than all of a small streamed run."""
        sections = self.full_sections(**more)
        del sections["SIZE"]
        return sections

    def keygen(self) -> None:
        """A key, made by the module itself."""
        if not self.key.exists():
            program = str(project.ROOT / "encryption/encryption.py")
            arguments = [program, "--KEYGEN", "--KEY_FILE", str(self.key)]
            starter.run(arguments, os.environ).check_returncode()
            with self.key.open("a") as file:
                file.write(f"{writer_key.SIGNER}{self.signer}\n")

    def configure(self, sections: dict[str, Any], **general: Any) -> Path:
        """Write conf.json."""
        config = {"GENERAL": {**self.general, **general}, **sections}
        self.conf.write_text(json.dumps(config, indent=1))
        self.conf.chmod(0o600)
        return self.conf

    def command(self, *arguments: str) -> list[str]:
        """The command line of a run of this system."""
        return [sys.executable, str(project.ROOT / "backup.py"), "-c", str(self.conf), *arguments]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """backup.py -r (or the words given), from /, as cron would."""
        _python, *command = self.command(*(arguments or ("-r",)))
        done = starter.run(command, {**os.environ, **environment}, timeout=120)
        texts = [out.decode().replace("\r\n", "\n") for out in (done.stdout, done.stderr)]
        return subprocess.CompletedProcess(done.args, done.returncode, *texts)

    def result(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """The result of a run as JSON, its exit code checked against the process's."""
        done = self.run("-r", "--json", *arguments, **environment)
        assert done.stdout, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        assert result["exit_code"] == done.returncode
        return {**result, "stderr": done.stderr}

    def restore(self, *arguments: str, code: int = 0) -> str:
        """restore.py with this config; it must end with this code. What it said."""
        return self.restore_bare("-c", str(self.conf), *arguments, code=code)

    def restore_bare(self, *arguments: str, code: int = 0) -> str:
        """restore.py without a config; it must end with this code. What it said."""
        program = str(project.ROOT / "restore/restore.py")
        done = starter.run([program, *arguments], os.environ, timeout=120)
        text = (done.stdout + done.stderr).decode("utf-8", "surrogateescape")
        assert done.returncode == code, text
        assert "Traceback" not in text
        return text

    def restored(self, *arguments: str, run: str = "latest", code: int = 0) -> Path:
        """A whole restore into a new folder; it must end with this code."""
        out = self.folder / f"restored-{len(list(self.folder.iterdir()))}"
        self.restore("--restore", run, "--destination", str(out), *arguments, code=code)
        return out

    def manifest(self) -> dict[str, Any]:
        """The manifest of the one run in the store."""
        (path,) = (self.store / "srv-test").glob("*.manifest.json")
        manifest: dict[str, Any] = json.loads(path.read_text())
        return manifest

    def rewrite(self, change: Callable[[dict[str, Any]], None], path: Path | None = None) -> None:
        """Alter a manifest (default: the newest) and sign it again, as this host might have."""
        path = path or sorted((self.store / "srv-test").glob("*.manifest.json"))[-1]
        manifest = json.loads(path.read_text())
        change(manifest)
        self.sign(path, json.dumps(manifest))

    def sign(self, path: Path, text: str) -> None:
        """Write a manifest and its signature."""
        signature = path.with_name(path.name + ".sig")
        for file in filter(Path.exists, (path, signature)):
            file.chmod(0o600)
        path.write_text(text)
        signature.write_bytes(writer_key.read(self.writer_key).sign(path.read_bytes()))

    def forge(self, *, signed: bool) -> None:
        """Make the newest run one of somebody who can write to the store.

        signed: by a key of their own, else by none
        """
        path = sorted((self.store / "srv-test").glob("*.manifest.json"))[-1]
        self.rewrite(lambda manifest: manifest.update(message="ours"), path)
        signature = path.with_name(path.name + ".sig")
        if not signed:
            signature.unlink()
            return
        theirs = self.folder / "theirs.key"
        writer_key.create(theirs, "srv-test")
        signature.write_bytes(writer_key.read(theirs).sign(path.read_bytes()))

    def stored(self) -> list[str]:
        """The names of the parts in the store of this host."""
        records = (".manifest.json", ".manifest.json.sig", ".RECOVERY.txt")
        return [name for name in self.names() if not name.endswith(records)]

    def names(self) -> list[str]:
        """All names in the store of this host."""
        folder = self.store / "srv-test"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def next_second() -> None:
    """Wait for the next second: IDs of runs and times of logs have no fractions."""
    time.sleep(1.02 - time.time() % 1)


def wait_for(path: Path, pattern: str = "", seconds: float = 20.0) -> None:
    """Wait until a file is there, or one below it that fits the pattern."""
    until = time.monotonic() + seconds
    while not (any(path.glob(pattern)) if pattern else path.exists()):
        assert time.monotonic() < until, f"{path / pattern} did not appear"
        time.sleep(0.02)


def peak(*argv: object) -> int:
    """The peak memory of a command in KiB; it must end well.

    A small process in between starts it: a child's peak counts from that of its parent.
    """
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, *map(str, argv)]
    environment = {**os.environ, "PYTHONPATH": str(project.ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def spawning(module: str, *arguments: object) -> list[str]:
    """The command line of a module, with a key that it does not know and must skip."""
    program = project.ROOT / module / f"{module}.py"
    return [sys.executable, str(program), "--GREASE", "--x", *map(str, arguments)]


def module_output(module: str, *arguments: object, code: int = 0, **environment: str) -> str:
    """Spawn a module from /; it must end with this code. What it said on both outputs."""
    done = starter.run(spawning(module, *arguments)[1:], {**os.environ, **environment})
    text = (done.stdout + done.stderr).decode("utf-8", "surrogateescape")
    assert done.returncode == code, text
    assert "Traceback" not in text
    return text


def execute(name: str, **parameters: Any) -> dict[str, Any]:
    """A section that executes a module."""
    return {"ACTION": "execute", "NAME": name, "PARAMETERS": parameters}
