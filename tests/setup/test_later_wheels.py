"""The wheels for later versions of Python, which an upgrade of the distribution may bring."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.base import project
from tools.base.errors import BackupError
from tools.setup import environment, later_wheels

LOCK = (project.ROOT / environment.LOCK).read_text(encoding="utf-8")


def wheels(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(("minor", "pycparser"), [(10, "3.11"), (11, "3.12"), (14, "3.12")])
def test_what_another_version_needs(minor: int, pycparser: str) -> None:
    """Names, versions and hashes are those of the lock file; markers are those of the version."""
    text = later_wheels.requirements(LOCK, minor, {"zstandard", "cffi"})
    heads = re.findall(r"^([a-z-]+)==(\S+)(.*) \\$", text, re.M)
    assert {name for name, *_ in heads} == {"zstandard", "cffi", "pycparser", "typing-extensions"}
    never = later_wheels._NEVER
    assert [v for name, v, marker in heads if name == "pycparser" and never not in marker] == [
        pycparser
    ]
    hashes = re.findall("--hash=sha256:[0-9a-f]{64}", text)
    assert len(hashes) > 40
    assert all(one in LOCK for one in hashes)
    assert not re.search(r"full_version", text)


def test_each_later_version_is_fetched(tmp_path: Path) -> None:
    calls: list[list[str]] = []
    folder = wheels(tmp_path, "zstandard-1-cp312-cp312-linux_x86_64.whl", "rich-1-py3-none-any.whl")
    download = lambda _text, options: calls.append(options)  # noqa: E731  (one line)
    assert later_wheels.fetch("3.12", LOCK, folder, download) == ""
    assert [one[-1] for one in calls] == ["--python-version=3.13", "--python-version=3.14"]


@pytest.mark.fault("wheels for later Pythons cannot be fetched", "one line, no error")
@pytest.mark.parametrize("error", [BackupError("pip", "no network"), OSError("no network")])
def test_what_cannot_be_fetched_is_one_line(tmp_path: Path, error: Exception) -> None:
    def failing(_text: str, options: list[str]) -> None:
        if "3.12" not in options[-1]:
            raise error

    folder = wheels(tmp_path, "zstandard-1-cp311-cp311-linux_x86_64.whl")
    line = later_wheels.fetch("3.11", LOCK, folder, failing)
    assert line.startswith("the packages for Python 3.13, 3.14 are not kept (no network): ")
    assert later_wheels.fetch("3", LOCK, folder, failing) == ""  # a version that is not known
    (tmp_path / "pure").mkdir()
    assert later_wheels.fetch("3.11", LOCK, tmp_path / "pure", failing) == ""
