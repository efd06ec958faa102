"""By what tar may read every file, where the kernel gives its copy no capability, and who else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from filesbackup import filesbackup, tar_archive, tar_command, tar_privilege
from filesbackup.tar_privilege import Reader, Way
from tools.base.errors import ConfigError
from tools.base.finding import Finding
from tools.base.project import ROOT

NOBODY = 65534
PYTHON = "/usr/bin/python3"
# Says which tar is used and why, what that tar makes of a file that nobody may read, and which
# capabilities other programs of this process have.
CODE = """
import sys
sys.path[0] = sys.argv[1]
from pathlib import Path
from tools import os_works
from tools.flow import process, tar
from filesbackup import tar_privilege
os_works.harden()
tar_privilege.COPY = Path(sys.argv[2])
reader = tar_privilege.reader()
print(reader.way.name)
print(reader.problem)
ended = []
argv = [reader.program, "--create", "--file=-", sys.argv[3]]
allowed = lambda code: ended.append(code) or True
list(process.output(argv, capable=reader.raised, allowed=allowed))
print(ended[0])
for line in b"".join(process.output(["grep", "Cap[IPEA]", "/proc/self/status"])).split():
    print(line.decode())
"""
AMBIENT = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
CASES = {
    "good": ([], True, Way.COPY, "", "0"),
    "bounding set": (
        ["--bounding-set=-dac_read_search"],
        True,
        Way.PLAIN,
        "outside the bounding set",
        "2",
    ),
    "no new privileges": (["--no-new-privs"], True, Way.PLAIN, "NoNewPrivs is set", "2"),
    "lost": ([], False, Way.PLAIN, "has lost its capability", "2"),
    "a service": (["--no-new-privs", *AMBIENT], True, Way.COPY, "", "0"),
    "a service, lost": (["--no-new-privs", *AMBIENT], False, Way.AMBIENT, "", "0"),
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
    """Issue 13 A8: it could not be executed and nothing was stored, or it read less in silence.

    C35: whatever tar has, no other program of the run has a capability.
    """
    setpriv_options, capable, way, reason, code = CASES[case]
    if capable:
        able = ["setcap", "cap_dac_read_search=ep", str(copy)]
        if subprocess.run(able, capture_output=True, check=False).returncode != 0:
            pytest.skip("no capability can be given to a file here")
    secret = copy.with_name("secret")
    secret.write_text("x")
    secret.chmod(0o600)
    user = ["setpriv", f"--reuid={NOBODY}", "--clear-groups", *setpriv_options]
    command = [*user, PYTHON, "-B", "-c", CODE, str(ROOT), str(copy), str(secret)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    used, problem, result, *sets = done.stdout.splitlines() or [done.stderr, "", ""]
    assert (used, result) == (way.name, code)
    assert reason in problem
    assert bool(problem) == bool(reason)
    assert set(sets[1::2]) == {"0" * 16}
    assert len(sets) == 8


@pytest.mark.needs("root")
def test_another_users_copy_and_none_at_all(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_privilege, "COPY", copy.with_name("none"))
    assert tar_privilege.unusable() == ""
    copy.chmod(0o000)
    monkeypatch.setattr(tar_privilege, "COPY", copy)
    assert "permission denied" in tar_privilege.unusable()
    assert tar_privilege.reader().program != str(copy)


def test_it_is_a_warning_of_the_run_and_of_its_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Reader("/bin/tar", Way.PLAIN, "/copy: it has lost its capability")
    monkeypatch.setattr(tar_privilege, "reader", lambda: lost)
    (tmp_path / "file").write_text("x")
    options = filesbackup.Options(
        fileset_include=(tmp_path,), allow_root=True, work_folder=tmp_path / "work"
    )
    findings = [finding for finding in filesbackup.test(options) if isinstance(finding, Finding)]
    assert [finding.text for finding in findings] == [
        "/copy: it has lost its capability; tar of PATH is used"
    ]
    result = filesbackup.work(options)
    assert result.warnings == ("/copy: it has lost its capability; tar of PATH was used",)
    assert result.status.exit_code == 3


@pytest.mark.parametrize(
    "options",
    [
        "czCf /",
        "czf",
        "-C / -zcf",
        "--warning=no-file-changed -C / -zcf",
        "--create --gzip --directory=/ --file",
        "cf",
    ],
)
def test_documented_commands_are_run_by_the_copy(
    options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They need no line of sudoers then, and work where NoNewPrivs is set."""
    for way in (Way.COPY, Way.AMBIENT):
        monkeypatch.setattr(tar_privilege, "reader", lambda way=way: Reader("/way/tar", way))
        assert tar_command.program(f"sudo /bin/tar {options}") == "/way/tar"
    assert tar_command.split(f"nice {tar_privilege.COPY} {options}")
    monkeypatch.setattr(tar_privilege, "reader", lambda: Reader("tar", Way.PLAIN))
    assert tar_command.program(f"sudo /bin/tar {options}") == "sudo"


@pytest.mark.parametrize(
    ("options", "bad"),
    [
        ("czf --checkpoint=1 --checkpoint-action=exec=id", "--checkpoint=1"),
        ("--checkpoint-action=exec=id -cf", "--checkpoint-action=exec=id"),
        ("--checkpoint-act=exec=id -cf", "--checkpoint-act=exec=id"),
        ("--to-command=id -cf", "--to-command=id"),
        ("-I id -cf", "-I"),
        ("--use-compress-program=id -cf", "--use-compress-program=id"),
        ("-cFf id", "-cFf"),
        ("--rsh-command=id -cf", "--rsh-command=id"),
        ("-C /etc/sudoers.d -cf", "-C"),
        ("-C/etc -cf", "-C/etc"),
        ("cCf /etc", "-C"),
        ("-f /etc/sudoers.d/x -c", "/etc/sudoers.d/x"),
        ("--file=/etc/sudoers.d/x -cf", "--file=/etc/sudoers.d/x"),
        ("--remove-files -cf", "--remove-files"),
        ("-cgf /etc/sudoers.d/x", "-cgf"),
        ("-T list -cf", "-T"),
        ("xf", "-x"),
        ("-c", "no -f at the end"),
    ],
)
def test_the_copy_gets_no_option_that_runs_or_writes_anything_else(
    options: str, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=f"TAR_COMMAND: {bad}: not allowed"):
        filesbackup.Options(tar_command=f"{tar_privilege.COPY} {options}")
    monkeypatch.setattr(tar_privilege, "reader", lambda: Reader("/copy", Way.COPY))
    assert tar_command.program(f"sudo /bin/tar {options}") == "sudo"


def test_tar_gets_no_variable_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TAR_OPTIONS", "TAPE", "LD_PRELOAD", "TAR_RSH", "HOME"):
        monkeypatch.setenv(name, "--checkpoint-action=exec=id")
    monkeypatch.setenv("NC_BACKUP_ENVIRONMENT", "TAR_OPTIONS TAPE LD_PRELOAD")
    fileset = tar_archive.Fileset((Path("/etc"),))
    for text in (f"{tar_privilege.COPY} cf", "sudo tar cf"):
        monkeypatch.setattr(tar_privilege, "reader", lambda: Reader("/way/tar", Way.AMBIENT))
        ran = tar_command.command(text, fileset, "-")
        assert set(ran.environment) == {"PATH", "LC_ALL"}
        assert ran.raised is text.startswith("sudo")


def test_without_a_temporary_folder_tar_tells_what_it_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full /tmp is no reason to fail, nor to take another tar."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    assert tar_privilege._reads_everything("/bin/tar")
