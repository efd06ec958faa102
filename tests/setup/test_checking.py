"""setup.py check: findings of the installation, and of backup.py -t as the user of the backup."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.throwaway_root import ThrowawayRoot
from tools.base import finding, project
from tools.base.errors import ConfigError
from tools.base.finding import Finding, Level
from tools.setup import bounded_run, checking
from tools.setup.installation import Installation

SETUP = project.ROOT / "setup.py"
NOBODY = pwd.getpwnam("nobody")


def lines(stdout: bytes, code: int = 1, stderr: bytes = b"") -> list[Any]:
    done = subprocess.CompletedProcess([], code, stdout, stderr)
    return list(checking._lines(done, NOBODY))


def test_the_lines_of_a_test_are_taken_over() -> None:
    one = {"section": "S3", "text": "t", "level": "WARN", "hint": "h", "fix": "f", "also": ["B"]}
    (line,) = lines(json.dumps([one]).encode())
    assert (line.section, line.level, line.hint, line.fix) == ("S3", Level.WARN, "h", "f")
    assert line.also == ("B",)
    assert finding.rendered(line)[0].startswith("WARN [ncbackup] S3")
    assert finding.rendered(line)[2] == "     suggested by ncbackup: f"


def test_a_forged_line_looks_like_no_other_finding() -> None:
    forged = finding.Line(
        "A\nok   b", "c\nBAD  d", Level.OK, "e\nok", "f\n     fix:  g", source="u"
    )
    lines = "\n".join(finding.rendered(forged)).split("\n")
    assert [one for one in lines if not one.startswith("           ")] == [
        "ok   [u] A",
        "     hint: e",
        "     suggested by u: f",
    ]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("cat /dev/zero", bounded_run.TooMuchError),
        ("cat /dev/zero >&2", subprocess.TimeoutExpired),
        ("sleep 60 & echo", subprocess.TimeoutExpired),
        ("sleep 60 >/dev/null 2>&1", None),
    ],
)
def test_what_never_ends_is_killed(script: str, error: type[Exception] | None) -> None:
    process = subprocess.Popen(
        ["/bin/sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with pytest.raises(error or subprocess.TimeoutExpired):
        bounded_run.output(process, 0.3, 1 << 20)
    until = time.monotonic() + 20  # init collects those whose parent was killed before them
    while lives(process.pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not lives(process.pid)


def lives(group: int) -> bool:
    """Return whether a process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_end_of_standard_error_is_kept() -> None:
    process = subprocess.Popen(
        ["/bin/sh", "-c", "yes | head -c 500000 >&2; echo end >&2; echo out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    stdout, stderr = bounded_run.output(process, 60, 100_000)
    assert stdout == b"out\n"
    assert stderr.endswith(b"y\nend\n")
    assert len(stderr) <= 100_000


@pytest.mark.parametrize(
    "stdout", [b"", b"{}", b'[{"section": 1}]', b"[" * 10_000, b'[{"section":', b"[1]", b"\xff"]
)
def test_other_output_is_one_error(stdout: bytes) -> None:
    findings = lines(stdout, 139, b"one\n\x1b[31mred\n" * 9)
    if stdout == b"{}":
        assert findings == []
        return
    assert [one.level for one in findings] == [Level.BAD]
    assert "run as nobody it ended with exit code 139: " in findings[0].text
    assert "\x1b" not in findings[0].text


def test_one_check_that_fails_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_installation: Installation) -> list[Finding]:
        raise ConfigError("a: is broken", "Do this.", "command")

    def denied(_installation: Installation) -> list[Finding]:
        raise PermissionError(13, "Permission denied", "/etc/secret")

    def good(installation: Installation) -> list[Finding]:
        installation.notice("warning: a line of cron of the old system")
        return [Finding("good")]

    monkeypatch.setattr(checking, "CHECKS", (fails, denied, good))
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/nc-backup-py").symlink_to("release")
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    findings = list(checking.tested(Installation(tmp_path, tmp_path, prefix=tmp_path)))
    by_text = {line.text: line for line in findings}
    assert by_text["a: is broken"].fix == "command"
    denial = by_text["not checked: /etc/secret: permission denied"]
    assert denial.level is Level.WARN
    assert denial.fix == f"sudo python3 {SETUP} check --prefix {tmp_path}"
    assert "good" in by_text
    assert by_text["a line of cron of the old system"].level is Level.WARN
    missing = by_text[f"{tmp_path}/etc/nc-backup-py: it does not exist"]
    assert missing.fix == f"sudo python3 {SETUP} --prefix {tmp_path}"


def test_nothing_installed_is_one_finding(tmp_path: Path) -> None:
    """Also after `uninstall`, which leaves config and keys."""
    config = tmp_path / "etc/nc-backup-py/conf.json"
    for hint in ("", f"The installer uses what is still there: {config}."):
        (finding,) = checking.tested(Installation(tmp_path, tmp_path, prefix=tmp_path))
        assert finding.text == f"not installed: there is no {tmp_path}/var/lib/nc-backup-py"
        assert (finding.level, finding.hint) == (Level.BAD, hint)
        assert finding.fix.endswith(f"python3 {SETUP} --prefix {tmp_path}")
        config.parent.mkdir(parents=True, exist_ok=True)
        config.touch()


def prepared(root: ThrowawayRoot) -> None:
    """A user, a config and a local store; the Python of this checkout may be used by all."""
    root.run("useradd", "--system", "--user-group", "--home-dir", "/opt/backup", "ncbackup")
    root.run("chmod", "0711", "/root")
    root.path("/etc/nc-backup-py").mkdir()
    root.path("/etc/nc-backup-py/key_file.identity").touch(mode=0o600)
    for folder, owner, mode in (
        ("/etc/nc-backup-py", "root", "0750"),
        ("/opt/backup", "ncbackup", "0700"),
        ("/var/log/nc-backup-py", "ncbackup", "0750"),
        ("/srv/store", "ncbackup", "0700"),
    ):
        root.run("install", "-d", "-o", owner, "-g", "ncbackup", "-m", mode, folder)
    config = {
        "GENERAL": {"HOSTNAME": "srv", "LOCAL_BACKUP": "/srv/store", "DISK_SPACE_CHECK": "False"},
        "FILESET": {
            "ACTION": "execute",
            "NAME": "filesbackup",
            "PARAMETERS": {"FILESET_INCLUDE": "/etc/hostname"},
        },
        "STORAGE_LOCAL": {
            "ACTION": "execute",
            "NAME": "storage",
            "PARAMETERS": {"DESTINATION": "local"},
        },
    }
    root.path("/etc/nc-backup-py/conf.json").write_text(json.dumps(config))
    root.run("chown", "root:ncbackup", "/etc/nc-backup-py/conf.json")
    root.run("chmod", "0640", "/etc/nc-backup-py/conf.json")


def checked(root: ThrowawayRoot, user: str = "") -> list[dict[str, Any]]:
    done = root.run("/usr/bin/python3", SETUP, "check", "--json", code=None, user=user)
    findings: list[dict[str, Any]] = json.loads(done.stdout)
    return findings


@pytest.mark.slow
@pytest.mark.needs("root", "unshare", "nsenter")
def test_a_system_as_root_and_as_others(root: ThrowawayRoot) -> None:
    prepared(root)
    texts = {one["text"] for one in checked(root)}
    assert "WORK_FOLDER /opt/backup is writable" in texts
    assert any("the private key is on this machine" in text for text in texts)
    assert any("/srv/store is writable" in text for text in texts)
    assert not any("must not run as root" in text for text in texts)
    assert not root.path("/opt/backup/.nc-backup-py").exists()  # nothing is changed
    root.run("chmod", "0777", "/etc/nc-backup-py")
    bad = [one for one in checked(root) if one["text"].startswith("/etc/nc-backup-py/conf.json:")]
    assert [one["fix"] for one in bad] == ["sudo chmod o-w /etc/nc-backup-py"]
    root.run("chmod", "0750", "/etc/nc-backup-py")
    root.run("chmod", "0600", "/etc/nc-backup-py/conf.json")
    (closed,) = [one for one in checked(root) if "conf.json: permission denied" in one["text"]]
    fix = closed["fix"].replace("sudo ", "")
    assert fix.startswith("chgrp ncbackup /etc/nc-backup-py/conf.json && chmod 0640 ")
    root.run("sh", "-c", fix)
    assert {one["text"] for one in checked(root)} == texts
    findings = {one["text"]: one for one in checked(root, user="nobody")}
    assert findings["not run: it runs as ncbackup"]["fix"] == f"sudo python3 {SETUP} check"
