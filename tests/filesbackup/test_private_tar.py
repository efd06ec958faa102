"""The copy of tar that may read everything, where the kernel gives it no capability."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from filesbackup import filesbackup
from tools.base.finding import Finding
from tools.base.project import ROOT
from tools.flow import tar

NOBODY = 65534
PYTHON = "/usr/bin/python3"
# Says which tar is used and why, and what that tar makes of a file that nobody may read.
CODE = """
import subprocess, sys
sys.path[0] = sys.argv[1]
from pathlib import Path
from tools.flow import tar
tar.PRIVILEGED = Path(sys.argv[2])
print(tar.program())
print(tar.unusable())
argv = [tar.program(), "--create", "--file=-", sys.argv[3]]
print(subprocess.run(argv, capture_output=True).returncode)
"""
CASES = {
    "good": ([], True, "", "0"),
    "bounding set": (["--bounding-set=-dac_read_search"], True, "outside the bounding set", "2"),
    "no new privileges": (["--no-new-privs"], True, "NoNewPrivs is set", "2"),
    "lost": ([], False, "has lost its capability", "2"),
    "inherited": (
        ["--no-new-privs", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"],
        True,
        "",
        "0",
    ),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of tar in a folder that everybody can enter."""
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    return Path(shutil.copy("/usr/bin/tar", tmp_path / "tar"))


@pytest.mark.needs("root", "setpriv", "setcap", PYTHON)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.fault("the private tar gets no capability", "tar of PATH, exit 3; -t names why")
def test_it_falls_back_where_it_has_no_capability(case: str, copy: Path) -> None:
    """Issue 13 A8: it could not be executed and nothing was stored, or it read less in silence."""
    words, capable, reason, code = CASES[case]
    if capable:
        able = ["setcap", "cap_dac_read_search=ep", str(copy)]
        if subprocess.run(able, capture_output=True, check=False).returncode != 0:
            pytest.skip("no capability can be given to a file here")
    secret = copy.with_name("secret")
    secret.write_text("x")
    secret.chmod(0o600)
    user = ["setpriv", f"--reuid={NOBODY}", "--clear-groups", *words]
    command = [*user, PYTHON, "-B", "-c", CODE, str(ROOT), str(copy), str(secret)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    program, problem, result = done.stdout.splitlines() or [done.stderr, "", ""]
    assert reason in problem
    assert bool(problem) == bool(reason)
    assert (program == str(copy)) is (not reason)
    assert result == code


@pytest.mark.needs("root")
def test_another_users_copy_and_none_at_all(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "PRIVILEGED", copy.with_name("none"))
    assert tar.unusable() == ""
    copy.chmod(0o000)
    monkeypatch.setattr(tar, "PRIVILEGED", copy)
    assert "permission denied" in tar.unusable()
    assert tar.program() != str(copy)


def test_it_is_a_warning_of_the_run_and_of_its_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar, "unusable", lambda: "/copy: it has lost its capability")
    (tmp_path / "file").write_text("x")
    options = filesbackup.Options(
        fileset_include=(tmp_path,), allow_root=True, work_folder=tmp_path / "work"
    )
    warned = [found for found in filesbackup.test(options) if isinstance(found, Finding)]
    assert [found.text for found in warned] == [
        "/copy: it has lost its capability; tar of PATH is used"
    ]
    result = filesbackup.work(options)
    assert result.warnings == ("/copy: it has lost its capability; tar of PATH was used",)
    assert result.status.exit_code == 3
