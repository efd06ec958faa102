"""What the system refuses is one line in its own words, never a traceback."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.system import System
from tools.base import errors, masking
from tools.base.project import ROOT
from tools.base.real_path import resolved
from tools.config import loading
from tools.engine import streamed, workers

# Runs a command twice in one process: as root, which imports everything, and then as a user who
# may start no further process or thread.
TWICE = """
import os, resource, sys
sys.path[0] = sys.argv[1]
from tools.base import imports
main = imports.module(sys.argv[2]).main
assert main(sys.argv[3:]) == 0
for folder, _, files in os.walk(os.path.dirname(sys.argv[-1])):  # follows no link
    for name in ("", *files):
        os.lchown(os.path.join(folder, name), 64001, 64001)
os.setresuid(64001, 64001, 64001)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
sys.exit(main(sys.argv[3:]))
"""


def test_an_error_of_a_descriptor_is_one_line_too() -> None:
    """os.scandir(5) gives 5 as the name of the file: it was a traceback."""
    error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), 5)
    assert errors.in_words(error)[0] == "cannot allocate memory"


def test_an_error_of_the_system_names_the_path_first() -> None:
    full = OSError(28, "No space left on device", "/a/b")
    assert errors.in_words(full) == (
        "/a/b: no space left on device",
        "Free space there, or use a larger disk.",
    )
    for number in (errno.EACCES, errno.EPERM, errno.EROFS):
        assert errors.in_words(OSError(number, os.strerror(number), "/a"))[1].startswith("Check ")
    moved = OSError(18, "Invalid cross-device link", b"/a", None, "/b")
    assert errors.in_words(moved) == ("/a -> /b: invalid cross-device link", "")
    assert errors.in_words(OSError("odd")) == ("odd", "")
    assert errors.in_words(errors.BackupError("text", "hint")) == ("text", "hint")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "out of memory"),
        (ValueError("zstd: Allocation error : not enough memory"), "out of memory"),
        (RuntimeError("can't start new thread"), "no more threads: the limit of processes"),
        (RuntimeError("Symlink loop from '/a'"), "'/a': too many levels of symbolic links"),
    ],
)
def test_a_limit_of_the_system_is_no_bug(error: Exception, line: str) -> None:
    """Issue 13 A6: "crashed: MemoryError" and a traceback."""
    assert str(errors.of_system(error)).startswith(line)
    assert errors.of_system(RuntimeError("another")) is None


@pytest.mark.needs("root")
@pytest.mark.fault("no further process or thread is allowed (ulimit -u)", "exit 1, one line")
def test_a_user_without_processes_left_gets_one_line(system: System) -> None:
    """Issue 13 A6 (trials 4, item 20): "can't start new thread" and a traceback."""
    (system.source / "file").write_text("x")
    system.configure(system.full_sections(), STREAM="True")
    for folder in system.folder.parents:
        folder.chmod(folder.stat().st_mode | 0o055)
    arguments = ["tools.commands.backup", "-r", "--insecure-permissions", "-c", str(system.conf)]
    done = subprocess.run(
        [sys.executable, "-c", TWICE, str(ROOT), *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode == 1, done.stderr
    assert "limit of processes and threads" in done.stderr or "no further thread" in done.stderr


def test_a_failed_item_keeps_no_memory() -> None:
    """Issue 13 B6 (trials W19): its traceback kept 2 MiB for the rest of the run."""

    class Chunk:
        """What a frame holds."""

    def fail(_held: Chunk) -> None:
        raise OSError(5, "Input/output error", "/a")

    chunk = Chunk()
    reference = weakref.ref(chunk)
    run = streamed.Streamed((), cast("Any", None))
    source = workers.SourceState(cast("Any", SimpleNamespace(name="S")), cast("Any", None))
    job = workers.Job(source, cast("Any", SimpleNamespace(name="i")))
    try:
        fail(chunk)
    except OSError as error:
        run._record_loss(job, error)
    del chunk
    gc.collect()
    assert reference() is None
    assert [str(error) for _, error in source.errors] == ["/a: input/output error"]


LOOPS = {"WORK_FOLDER": "-r", "LOCAL_BACKUP": "-t", "LOG_FOLDER": "-r", "HOME_FOLDER": "-n"}


@pytest.mark.parametrize(("key", "option"), LOOPS.items())
@pytest.mark.fault("a symbolic link in a path of the config leads to itself", "one line")
def test_a_link_that_leads_to_itself_is_one_line(system: System, key: str, option: str) -> None:
    """Issue 13 A6: Path.resolve raises RuntimeError before Python 3.13."""
    loop = system.folder / "loop"
    loop.symlink_to("loop")
    assert resolved(loop) == loop
    system.configure(system.full_sections(), STREAM="False", **{key: f"{loop}/x"})
    done = system.run(option)
    assert "Traceback" not in done.stderr
    assert done.returncode in ((3,) if key == "LOG_FOLDER" else (1, 2))  # source/ is empty


@pytest.mark.parametrize(
    ("name", "problem"),
    [("loop/conf.json", "too many levels"), ("n" * 300, "file name too long")],
)
def test_a_config_that_cannot_be_looked_at_is_exit_2(
    tmp_path: Path, name: str, problem: str
) -> None:
    """Issue 13 A6 (trials 4, item 19): lstat errors above conf.json were tracebacks, exit 1."""
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(errors.ConfigError, match=problem):
        loading.load(tmp_path / name)
    assert loading.report_settings(tmp_path / name) is None


@pytest.mark.needs("root", "setpriv", "/usr/bin/python3")
def test_a_config_in_a_closed_folder_is_exit_2(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "closed/conf.json").write_text("{}")
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    code = (
        "import sys; sys.path[0] = sys.argv[1]\nfrom pathlib import Path\n"
        "from tools.config import loading\n"
        "try: loading.load(Path(sys.argv[2]))\n"
        "except loading.ConfigError as error: print(error, error.exit_code)\n"
    )
    user = ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-B", "-c"]
    command = [*user, code, str(ROOT), str(tmp_path / "closed/conf.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == f"{tmp_path}/closed/conf.json: permission denied 2\n", done.stderr


@pytest.mark.needs("root", "mount")
@pytest.mark.fault("WORK_FOLDER is full, at the start and later", "exit 1, named, with a hint")
def test_a_full_work_folder_is_named(system: System) -> None:
    """Issue 13 A6 (trials 4, item 17): a traceback of 12 lines in the hint, or a bare errno."""
    (system.source / "file").write_text("x")
    system.work.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(system.work)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount here")
    try:
        for free in (0, 8192):  # bytes that are left: at the start, and in a section
            filler = system.work / "filler"
            filler.write_bytes(b"x" * (65536 - free - 4096 * 2)) if free else _fill(filler)
            system.configure(system.full_sections(), STREAM="False")
            done = system.run("-r")
            assert done.returncode == 1
            assert "Traceback" not in done.stderr
            assert "Errno" not in done.stderr
            assert "no space left on device" in done.stderr
            assert "hint: " in done.stderr
    finally:
        subprocess.run(["umount", str(system.work)], check=True)


def _fill(file: Path) -> None:
    """Take all the space of a file system."""
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY)
    try:
        while True:
            os.write(descriptor, b"x" * 4096)
    except OSError:
        os.close(descriptor)


def test_foreign_text_in_a_message_is_shortened() -> None:
    masking.add("hidden-secret")
    key = "A" * 300_000 + "hidden-secret" + "B" * 990
    error = errors.BackupError(f"conf.json:5: GENERAL.{key}: unknown key", f"Remove {key}.")
    assert len(str(error)) < 2_000
    assert len(error.hint) < 2_000
    assert str(error).startswith("conf.json:5: GENERAL.AAA")
    assert str(error).endswith("BBB: unknown key")
    assert "more characters)..." in str(error)
    assert "secret" not in str(error)
    assert str(errors.BackupError("x" * 2_000)) == "x" * 2_000
