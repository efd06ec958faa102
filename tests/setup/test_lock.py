"""requirements.lock and pyproject.toml say the same, and the lock file has every hash."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tools.base import environments, project
from tools.base.errors import BackupError
from tools.setup import environment, locked_packages
from tools.setup.installation import Installation

LOCK = project.ROOT / environment.LOCK


def pinned() -> dict[str, list[str]]:
    """Name and versions of each package; each block of the file must have hashes."""
    by_name: dict[str, list[str]] = {}
    text = re.sub(r"^#.*\n", "", LOCK.read_text(encoding="utf-8"), flags=re.M)
    for block in re.split(r"\n(?=[a-z0-9])", text.strip()):
        head = re.match(r"([a-z0-9-]+)==([0-9a-z.]+)( ;.*)? \\\n", block)
        assert head, block
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block
        by_name.setdefault(head[1], []).append(head[2])
    return by_name


def direct() -> set[str]:
    """The packages that the project itself asked for when the file was made."""
    blocks = re.split(r"\n(?=[a-z0-9])", LOCK.read_text(encoding="utf-8"))
    return {one.partition("==")[0] for one in blocks if "nc-backup-py (pyproject.toml)" in one}


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", version))


def test_the_lock_file_is_that_of_pyproject() -> None:
    """After a change of the dependencies: the command of docs/dependencies.md."""
    locked = pinned()
    for requirement in environment.requirements("dependencies"):
        name, _, least = requirement.partition(">=")
        assert name in locked, f"{name} is not in {LOCK.name}"
        assert all(numbers(one) >= numbers(least) for one in locked[name]), requirement
    required = [one.partition(">=")[0] for one in environment.requirements("dependencies")]
    assert sorted(required) == sorted(direct()) == sorted(environments.PACKAGES)


@pytest.mark.slow
@pytest.mark.fault("setup.py without a network", "one line and a hint; nothing is left")
@pytest.mark.parametrize("wheels", [False, True])
def test_packages_that_cannot_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheels: bool
) -> None:
    """No server answers, or the folder of --wheels lacks a package."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    wheels_folder = tmp_path if wheels else None
    installation = Installation(project.ROOT, Path(sys.executable), tmp_path, wheels_folder)
    lock = tmp_path / LOCK.name
    lock.write_text(f"no-such-package==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(BackupError, match="the Python packages could not be fetched") as caught:
        locked_packages._fetch(installation, sys.executable, lock, tmp_path / "new", None)
    assert "no-such-package" in caught.value.hint
    hint = f"{tmp_path} must have the packages" if wheels else "Check network and proxy"
    assert caught.value.hint.startswith(hint)
    assert "\n" not in caught.value.hint
