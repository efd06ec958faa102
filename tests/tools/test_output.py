"""Standard output that cannot be written is an error in every executable."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.test_launcher import EXECUTABLES
from tools.base.project import ROOT

# Forks once for each executable; prints its name, exit code and standard error if they are wrong.
CALLS = """
import os, sys
sys.path[0] = sys.argv[1]
from tools.base import entry, imports
names = sys.argv[2:]
for name in names:
    imports.module(".".join(name.removesuffix(".py").split("/")))
for name, full in [(name, full) for name in names for full in (True, False)]:
    given, taken = os.pipe()
    if not os.fork():
        os.dup2(taken, 2)
        os.close(1)
        if full:
            os.open("/dev/full", os.O_WRONLY)
        else:
            sys.stdout = None
        sys.argv = [name, "--help"]
        os._exit(entry.run(name))
    os.close(taken)
    with open(given) as errors:
        lines = errors.read().splitlines()
    code = os.waitstatus_to_exitcode(os.wait()[1])
    if code != 1 or len(lines) != 1 or not lines[0].startswith("error: standard output: "):
        print(name, full, code, lines)
"""


def code_of(file: Path) -> str:
    """Return the file that has the `main` of an executable, from the root of the project."""
    named = re.search(r'launcher\.start\("(.+)"\)', file.read_text("utf-8"))
    return named[1] if named else str(file.relative_to(ROOT))


def test_help_that_cannot_be_printed_is_an_error() -> None:
    """Issue 13 A6: it was lost, with exit code 0: on a full disk, or onto a closed descriptor."""
    command = [sys.executable, "-c", CALLS, str(ROOT), *map(code_of, EXECUTABLES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
@pytest.mark.parametrize("command", ["setup.py --help", "backup.py --version"])
@pytest.mark.fault("standard output is full or closed", "exit 1, named, in every program")
def test_a_shell_redirects_it(command: str, redirection: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} {command} {redirection}"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_file_never_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """What a program prints would be written into it."""
    code = (
        "import os, sys; sys.path[0] = sys.argv[1]\n"
        "from tools.base import output; output.open_standard()\n"
        "assert os.open(sys.argv[2], os.O_CREAT | os.O_RDWR) > 2\n"
        "print('text'); print('text', file=sys.stderr); assert sys.stdin is None\n"
        "sys.exit(output.close_standard(0))"
    )
    script = f'exec {sys.executable} -c "$0" "$@" <&- >&- 2>&-'
    command = ["sh", "-c", script, code, str(ROOT), str(tmp_path / "file")]
    assert subprocess.run(command, timeout=60, check=False).returncode == 1
    assert (tmp_path / "file").read_bytes() == b""


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    script = f"{sys.executable} restore/restore.py --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_character_that_the_terminal_cannot_show_is_escaped() -> None:
    code = (
        "import sys; sys.path[0] = sys.argv[1]\n"
        "from tools.base import output; output.open_standard()\n"
        "print('\\u20ac \\udcff'); sys.exit(output.close_standard(0))"
    )
    environment = {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"\\u20ac \\udcff\n")
