"""setup.py adopt: cron lines, rules of sudoers, modes and config of the documented system."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from tests import throwaway_root
from tools.base import project
from tools.base.finding import Level
from tools.setup import adopt, old_cron, old_sudoers, schedule, steps
from tools.setup.installation import CONFIG, CONFIG_FOLDER, Installation
from tools.setup.schedule_files import CRON, TIMER, Time

LINE = "00 03 * * * python /var/lib/nc-backup-py/backup.py -r -c /etc/nc-backup-py/conf.json"
# As the manual of the documented system has it.
SUDOERS = r"""Defaults	env_reset
root	ALL=(ALL:ALL) ALL
Cmnd_Alias NCBACKUP = /bin/tar czCf / [A-z_/ ]*, \
    /bin/tar czf [A-z_/ ]*
ncbackup ALL = NOPASSWD: NCBACKUP
Defaults:ncbackup   !requiretty
Cmnd_Alias SHARED = /bin/ls
other ALL = SHARED
ncbackup ALL = SHARED
"""
OLD_CONFIG = {
    "GENERAL": {"HOSTNAME": "srv", "WORK_FOLDER": "/opt/backup", "LOCAL_BACKUP": "/srv/backups"},
    "FILESET": {
        "ACTION": "execute",
        "NAME": "filesbackup",
        "PARAMETERS": {"FILESET_INCLUDE": "/etc", "TAR_COMMAND": "sudo /bin/tar czCf /"},
    },
    "STORAGE_LOCAL": {
        "ACTION": "execute",
        "NAME": "storage",
        "PARAMETERS": {"DESTINATION": "local", "OBJECTIVES": "/opt/backup/files"},
    },
}


@pytest.fixture
def prefix(tmp_path: Path) -> Installation:
    """An old system below a prefix."""
    for name, text in (
        ("var/spool/cron/crontabs/ncbackup", f"MAILTO=x\n{LINE}\n# {LINE}\n0 4 * * * /bin/other\n"),
        ("etc/crontab", "17 * * * * root run-parts /etc/cron.hourly\n"),
        ("etc/sudoers", SUDOERS),
        ("etc/nc-backup-py/conf.json", json.dumps(OLD_CONFIG)),
        ("etc/nc-backup-py/key_file", "secret\n"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
    return Installation(project.ROOT, Path(sys.executable), prefix=tmp_path)


@pytest.mark.parametrize(
    ("line", "user_field"),
    [
        (LINE, False),
        ("0 3 * * * ncbackup cd / && /usr/bin/python2.7 /opt/x/backup.py -c conf.json -r", True),
        ("@daily python3 '/srv/nc backup/backup.py' --run --config /etc/b.json -l INFO", False),
    ],
)
def test_lines_of_cron_are_found(prefix: Installation, line: str, user_field: bool) -> None:
    path = prefix.at("/etc/cron.d/other" if user_field else "/var/spool/cron/root")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{line}\n")
    assert line in [entry.text for entry in old_cron.lines(prefix)]


@pytest.mark.parametrize(
    "line",
    [
        f"#{LINE}",
        "0 3 * * * tar czf /backup.tgz /etc",
        "0 3 * * * python3 /x/backup.py -t -c conf.json",
        "0 3 * * * ls backup.py",
    ],
)
def test_other_lines_of_cron_are_left(prefix: Installation, line: str) -> None:
    prefix.at("/etc/crontab").write_text(f"{line}\n")
    prefix.at(CRON).parent.mkdir()
    prefix.at(CRON).write_text(f"{LINE}\n")  # ours
    assert [entry.text for entry in old_cron.lines(prefix)] == [LINE]


def test_the_time_and_the_config_of_a_line() -> None:
    def line(text: str) -> old_cron.Line:
        return old_cron.Line(Path("/x"), 1, text)

    assert line(LINE).time == Time(3, 0)
    assert line(LINE).config == CONFIG
    assert line("*/5 * * * * python backup.py -r -c 'a b'").time is None
    assert line("*/5 * * * * python backup.py -r -c 'a b'").config == "a b"
    assert line("0 3 * * 1 python backup.py -r -c").time is None
    assert line("0 3 * * 1 it's backup.py -r -c x").config == "x"


def test_rules_of_sudoers_with_their_aliases(prefix: Installation) -> None:
    rules = old_sudoers.rules(prefix)
    assert [(rule.first, rule.last, rule.is_powerful) for rule in rules] == [
        (3, 4, True),
        (5, 5, False),
        (6, 6, False),
        (9, 9, False),
    ]


def test_rules_with_other_users_are_named_and_left(prefix: Installation) -> None:
    lines = ["User_Alias BACKUP = ncbackup", "alice, ncbackup ALL = ALL", "%ncbackup ALL = ALL"]
    prefix.at("/etc/sudoers").write_text("\n".join([*lines, "bob ALL = ALL", ""]))
    assert [rule.first for rule in old_sudoers.rules(prefix)] == [3]
    assert [rule.first for rule in old_sudoers.mentions(prefix)] == [1, 2]
    by_hand = [one.text for one in adopt.findings(prefix) if "visudo" in one.hint]
    assert len(by_hand) == 2


@pytest.mark.parametrize(
    ("rule", "powerful"),
    [
        ("ncbackup ALL=(ALL) NOPASSWD: ALL", True),
        ("ncbackup ALL=(root) NOPASSWD: /bin/tar czCf / *", True),
        ("ncbackup ALL=(root) NOPASSWD: /bin/tar --xattrs-include\\=\\*", False),
        ("ncbackup ALL=(root) NOPASSWD:NOEXEC: /sbin/lvcreate --size 5G x", False),
    ],
)
def test_which_rule_gives_root(rule: str, powerful: bool) -> None:
    assert old_sudoers.Rule(Path("/etc/sudoers"), 1, 1, rule).is_powerful is powerful


def test_the_findings_name_what_is_left(prefix: Installation) -> None:
    findings = adopt.findings(prefix)
    assert [one.level for one in findings].count(Level.BAD) == 1
    assert any("ncbackup:2: 00 03" in one.text for one in findings)
    assert all("setup.py adopt --yes" in one.fix for one in findings)


def test_the_schedule_keeps_the_old_time(prefix: Installation) -> None:
    assert adopt.schedule_of(prefix) == "03:00"
    prefix.at("/etc/crontab").write_text(LINE.replace("00 03", "30 04") + "\n")
    assert adopt.schedule_of(prefix) == ""
    assert list(adopt.cron_steps(prefix)) == []
    assert "--schedule" in prefix.notices[0]


def test_a_schedule_of_two_kinds_and_none(prefix: Installation) -> None:
    assert schedule.findings(prefix) == []
    for name in (CRON, TIMER):
        prefix.at(name).parent.mkdir(parents=True, exist_ok=True)
        prefix.at(name).write_text("")
    reasons = [
        step.reason() for step in schedule.steps(dataclasses.replace(prefix, schedule="1:00"))
    ]
    assert "the backup is started by systemd timer" in reasons
    assert steps.perform(schedule.steps(dataclasses.replace(prefix, schedule="none"))) == 3
    assert schedule.findings(prefix)[0].text.startswith("schedule: none")
    assert steps.perform(schedule.steps(prefix)) == 0
    assert steps.perform(schedule.uninstall(prefix)) == 1


def test_a_config_that_is_not_json_is_left(prefix: Installation) -> None:
    from tools.base.errors import BackupError

    prefix.at(CONFIG).write_text("{'a': 1}")
    with pytest.raises(BackupError, match=r"conf\.json: cannot be converted"):
        list(adopt.config_steps(prefix))
    assert prefix.at(CONFIG).read_text() == "{'a': 1}"


@pytest.mark.slow
@pytest.mark.needs("root", "unshare", "nsenter", "visudo", "getcap")
def test_an_old_system_is_adopted(tmp_path: Path) -> None:
    """Nothing without --yes; then all of it, with a copy of each file; then nothing again."""
    setup = ["python3", f"{project.ROOT}/setup.py"]
    with throwaway_root.opened() as root:
        root.run("useradd", "-m", "ncbackup", "-s", "/sbin/nologin")
        root.run("install", "-d", "-o", "ncbackup", CONFIG_FOLDER, "/var/spool/cron/crontabs")
        for path, text in (
            ("/etc/sudoers", SUDOERS),
            ("/var/spool/cron/crontabs/ncbackup", f"{LINE}\n1 1 * * * /bin/true\n"),
            (CONFIG, json.dumps(OLD_CONFIG)),
            (f"{CONFIG_FOLDER}/key_file", "x\n"),
        ):
            root.run("sh", "-c", f"cat > {path}; chown ncbackup {path}", text=text)
        root.run(
            "sh", "-c", "rm -f /etc/sudoers.d/*; chown root /etc/sudoers; chmod 440 /etc/sudoers"
        )
        before = root.run("sh", "-c", "ls -lR /etc/nc-backup-py; cat /etc/sudoers").stdout
        output = root.run(*setup, "adopt").stdout
        for line in ("NCBACKUP = /bin/tar", LINE, "is now called TARGETS", "root:ncbackup 0640"):
            assert line in output
        assert "dry run: nothing was changed" in output
        assert root.run("sh", "-c", "ls -lR /etc/nc-backup-py; cat /etc/sudoers").stdout == before
        done = root.run(*setup, "adopt", "--yes", "--schedule", "cron 03:00").stdout
        copies = [line.rpartition(" ")[2] for line in done.splitlines() if line.startswith("copy")]
        assert SUDOERS in [root.path(path).read_text() for path in copies]
        assert len(copies) == 3
        root.run("visudo", "-c")
        sudoers = root.path("/etc/sudoers").read_text()
        assert "NCBACKUP" not in sudoers
        assert "ncbackup" not in sudoers
        assert "other ALL = SHARED" in sudoers
        crontab = root.path("/var/spool/cron/crontabs/ncbackup")
        assert crontab.read_text() == "1 1 * * * /bin/true\n"
        assert crontab.stat().st_uid == root.path("/home/ncbackup").stat().st_uid
        assert "0 3 * * * ncbackup" in root.path(CRON).read_text()
        assert root.path(f"{CONFIG_FOLDER}/key_file").stat().st_mode & 0o777 == 0o640
        assert '"TARGETS"' in root.path(CONFIG).read_text()
        assert root.run(*setup, "adopt", "--yes").stdout.endswith("nothing to do\n")
        # TAR_COMMAND is kept: the capability copy runs it
        assert "sudo /bin/tar czCf /" in root.path(CONFIG).read_text()


def test_a_line_of_cron_stays_where_nothing_else_would_start_the_backup(
    prefix: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(adopt.cron_steps(prefix))
    monkeypatch.setattr(schedule, "can_start", lambda _installation: False)
    assert not list(adopt.cron_steps(prefix))
    assert any("kept: nothing else" in notice for notice in prefix.notices)
