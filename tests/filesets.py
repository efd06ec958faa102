"""Runs of filesbackup as a user makes them, and what came of them."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from pathlib import Path

from tests.system import module_output


def run(tmp_path: Path, *arguments: object, code: int = 0, **environment: str) -> str:
    command = ["--WORK_FOLDER", tmp_path / "work", "--ALLOW_ROOT", "True", *arguments]
    return module_output("filesbackup", *command, code=code, **environment)


def archives(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "work/files"
    return sorted(folder.iterdir()) if folder.exists() else []


def listed(tmp_path: Path) -> set[bytes]:
    argv = ["tar", "tf", str(archives(tmp_path)[0]), "--quoting-style=literal", "--null"]
    names = subprocess.run(argv, capture_output=True, check=True).stdout
    return set(names.split(b"\n"))


ODD = ("a b", "quo'te\"", "new\nline", "-rf", "$(id)`id`;|&*?[x]\\n", "\\", "ü" * 100, "x" * 255)


def difficult(folder: Path) -> Path:
    """A tree of all that a backup stumbles over, made in a new folder."""
    folder.mkdir()
    (folder / "plain").write_text("plain\n")
    (folder / "plain").chmod(0o640)
    os.utime(folder / "plain", ns=(1_600_000_000_123_456_789,) * 2)
    os.link(folder / "plain", folder / "hard")
    (folder / "link").symlink_to("plain")
    (folder / "dangling").symlink_to("/not/there")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "fifo")
    with (folder / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"middle")
    for name in (*ODD, os.fsdecode(b"\xff\xfe not utf-8")):
        (folder / name).write_text(f"{len(name)}")
    deep = folder
    for _ in range(12):
        deep /= "d" * 200
        deep.mkdir()
    (deep / "bottom").write_text("deep")
    return folder


def facts(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a tree that a backup must bring back."""
    by_path: dict[str, tuple[object, ...]] = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = (path.read_bytes(), status.st_mtime_ns, status.st_nlink)
        elif stat.S_ISLNK(status.st_mode):
            content = path.readlink()
        attributes = {
            n: os.getxattr(path, n, follow_symlinks=False)
            for n in os.listxattr(path, follow_symlinks=False)
        }
        mode = stat.S_IMODE(status.st_mode)
        by_path[str(path.relative_to(folder))] = (
            kind,
            mode,
            status.st_uid,
            status.st_gid,
            content,
            attributes,
            0 if stat.S_ISLNK(status.st_mode) else status.st_mtime_ns,
        )
    return by_path


def double(tmp_path: Path, says: str, code: int, *, end: bool = True) -> str:
    """A tar that checks its arguments, writes a real archive (or half of it) and complains."""
    program = tmp_path / "bin/tar"
    program.parent.mkdir(exist_ok=True)
    cut = "" if end else " | head -c 700"
    lines = (
        "#!/bin/bash",
        "[[ $1 == --version ]] && exec /bin/tar --version",
        '[[ $* == *--file=-*" -- "* && $LC_ALL == C ]] || exit 9',
        f'/bin/tar "$@"{cut}',
        f"printf '%s\\n' {shlex.quote(says)} >&2",
        f"kill -{-code} $$" if code < 0 else f"exit {code}",
    )
    program.write_text("\n".join(lines) + "\n")
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"
