"""The service and its timer under a real systemd: what they may do, and that they hide no file."""

from __future__ import annotations

import io
import json
import re
import tarfile
import time
from collections.abc import Iterator

import pytest

from tests import booted_root
from tests.setup.granting import grant
from tests.throwaway_root import ThrowawayRoot
from tools.base import project
from tools.setup.installation import CODE, CONFIG, PRIVATE_TAR
from tools.setup.schedule_files import CRON, NAME, SERVICE, TIMER

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("root", "unshare", "nsenter", "systemctl", "systemd-analyze"),
]
# Each has a folder and a file that only root can read; /bound is mounted on /data while it runs.
PLACES = (
    "home/u",
    "root/data",
    "tmp/data",
    "var/tmp/data",
    "opt/data",
    "srv/u",
    "run/data",
    "closed/in",
)
PREPARE = f"""
set -e
chmod 0711 /root  # the Python of the checkout may be below it
ln -s {project.ROOT} {CODE}
for place in {" ".join(PLACES)} bound lib/modules/x; do
    mkdir -p -m 0700 /$place
    echo secret > /$place/file
    chmod 0600 /$place/file
done
chmod 0700 /closed
mkdir /data /opt/home
mount --bind /bound /data
for one in {project.ROOT}/*; do ln -s $one /opt/home/; done
mkdir -m 0755 /opt/home/own
install -d -m 0777 /caps
echo 'grep ^Cap /proc/self/status | tee /caps/own' > /opt/home/own/own.sh
cat > /opt/home/slapcat <<'END'
#!/bin/sh
grep ^Cap /proc/self/status > /caps/client
printf 'dn: dc=test\n\n'
END
chmod 0755 /opt/home/slapcat /opt/home/own/own.sh
"""
SECTIONS = {
    "FILESET": {
        "ACTION": "execute",
        "NAME": "filesbackup",
        "PARAMETERS": {
            "FILESET_INCLUDE": [f"/{name}" for name in (*PLACES, "data", "lib/modules")]
        },
    },
    "OWN": {
        "ACTION": "execute",
        "NAME": "own",
        "EXECUTABLE": "own.sh",
        "EXECUTE_WITH": "bash",
        "STREAM": "source",
    },
    "OPENLDAP": {
        "ACTION": "load",
        "FROM": "openldap",
        "FILENAME": "openldap",
        "CLASS": "OpenLDAPBackup",
        "PARAMETERS": {"SLAPCAT": "/opt/home/slapcat", "CONFIG_FOLDER": "/", "DATABASES": "1"},
    },
    "STORE": {
        "ACTION": "execute",
        "NAME": "storage",
        "PARAMETERS": {"DESTINATION": "local", "TARGETS": "/opt/backup/files"},
    },
}
GENERAL = {
    "HOSTNAME": "srv-test",
    "WORK_FOLDER": "/opt/backup",
    "HOME_FOLDER": "/opt/home",
    "LOG_FOLDER": "/var/log/nc-backup-py",
    "BEFORE": ["sh", "-c", "grep ^Cap /proc/self/status > /caps/hook"],
    "DISK_SPACE_CHECK": "False",
}


@pytest.fixture(scope="module")
def installed() -> Iterator[ThrowawayRoot]:
    """A root with a running systemd, in which setup.py has installed the timer."""
    with booted_root.opened() as root:
        root.run("sh", "-c", PREPARE)
        grant(root, "--schedule", "04:10")
        root.run("install", "-d", "-o", "ncbackup", "-m", "0700", "/backups")
        yield root


def configure(root: ThrowawayRoot, stream: str, store: str) -> None:
    """Write the config of a run."""
    sections = json.loads(json.dumps(SECTIONS))
    if stream == "False":
        del sections["OWN"]["STREAM"]
        # as documented configs have it: sudo itself would fail in the service
        sections["FILESET"]["PARAMETERS"]["TAR_COMMAND"] = "sudo /bin/tar czCf /"
    general = {**GENERAL, "STREAM": stream, "LOCAL_BACKUP": store}
    document = {"GENERAL": general, **sections}
    root.run("tee", CONFIG, text=json.dumps(document))
    root.run("chown", "root:ncbackup", CONFIG)
    root.run("chmod", "0640", CONFIG)


def archived(root: ThrowawayRoot, store: str) -> dict[str, bytes]:
    """Return the files of the archive in a store."""
    folder = root.path(f"{store}/srv-test")
    parts = sorted(path for path in folder.iterdir() if ".tar" in path.name)
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(b"".join(path.read_bytes() for path in parts))) as archive:
        for member in archive:
            if member.isreg() and member.name.endswith("/file"):
                content = archive.extractfile(member)
                files[member.name] = content.read() if content else b""
    return files


@pytest.mark.parametrize(("stream", "copy"), [("True", True), ("False", True), ("True", False)])
def test_the_service_reads_every_file_and_nothing_else_of_it_can(
    installed: ThrowawayRoot, stream: str, copy: bool
) -> None:
    """C35: with the capability copy and with the ambient capability; both kinds of runs.

    A user-defined module, the client of a database and a hook have no capability at all.
    """
    store = f"/backups/{stream}-{copy}"
    configure(installed, stream, store)
    if not copy:
        installed.run("rm", PRIVATE_TAR)
    installed.run("sh", "-c", "rm -f /caps/*")
    installed.run("systemctl", "start", f"{NAME}.service", code=None)
    log = installed.run("sh", "-c", "cat /var/log/nc-backup-py/*").stdout
    assert "exit 0" in log.splitlines()[-1], log
    expected = {f"{folder}/file": b"secret\n" for folder in (*PLACES, "data", "usr/lib/modules/x")}
    assert expected.items() <= archived(installed, store).items()
    for program in ("own", "client", "hook"):
        lines = installed.path(f"/caps/{program}").read_text().split()
        sets = dict(zip(lines[::2], lines[1::2], strict=True))
        del sets["CapBnd:"]  # the limit of what it could get from a file, without NoNewPrivileges
        assert set(sets.values()) == {"0" * 16}
    grant(installed)  # makes the copy again


def test_the_timer_starts_a_run_by_itself_and_catches_up(installed: ThrowawayRoot) -> None:
    """Once at its time; and at once where the machine was off at that time (Persistent=)."""
    folder = installed.path(f"{TIMER}.d")
    folder.mkdir()
    lines = ["[Timer]", "RandomizedDelaySec=0", "AccuracySec=1us"]
    moment = installed.run("date", "--date=3 seconds", "+%F %T").stdout.strip()
    for store, more in (
        ("/backups/timer", ["OnCalendar=", f"OnCalendar={moment}"]),
        ("/backups/late", []),
    ):
        configure(installed, "True", store)
        (folder / "test.conf").write_text("\n".join([*lines, *more, ""]))
        installed.run("systemctl", "daemon-reload")
        if not more:
            installed.run("systemctl", "stop", f"{NAME}.timer")
            installed.run(
                "touch", "--date=3 days ago", f"/var/lib/systemd/timers/stamp-{NAME}.timer"
            )
        installed.run("systemctl", "restart", f"{NAME}.timer")
        until = time.monotonic() + 60
        while not list(installed.path(store).glob("srv-test/*.manifest.json")):
            assert time.monotonic() < until, installed.run("systemctl", "list-timers").stdout
            time.sleep(0.2)
        installed.run("systemctl", "stop", f"{NAME}.timer")
    (folder / "test.conf").unlink()
    folder.rmdir()
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "start", f"{NAME}.timer")


def test_the_units_are_accepted_and_hardened(installed: ThrowawayRoot) -> None:
    assert not installed.run("systemd-analyze", "verify", SERVICE, TIMER).stderr
    rated = installed.run("systemd-analyze", "security", "--offline=true", SERVICE).stdout
    exposure = re.search(r"exposure level for \S+: (\d+\.\d+)", rated)
    assert exposure is not None
    assert float(exposure[1]) <= 3.0


def test_one_schedule_of_one_kind(installed: ThrowawayRoot) -> None:
    """Setup removes the other kind, keeps time and kind without --schedule, and says nothing."""
    assert "04:" in installed.run("systemctl", "list-timers", "--all").stdout
    assert grant(installed) == "nothing to do\n"
    grant(installed, "--schedule", "5:45")
    timer = installed.run("systemctl", "show", f"{NAME}.timer").stdout
    assert "OnCalendar=*-*-* 05:45:00" in timer
    assert "ActiveState=active" in timer
    grant(installed, "--schedule", "cron 23:05")
    assert not installed.path(TIMER).exists()
    assert not installed.path(SERVICE).exists()
    line = "5 23 * * * ncbackup /usr/bin/python3 /var/lib/nc-backup-py/backup.py -r -c"
    assert line in installed.path(CRON).read_text()
    grant(installed, "--schedule", "timer 03:00")
    assert not installed.path(CRON).exists()
    assert installed.run("systemctl", "is-active", f"{NAME}.timer").stdout == "active\n"
    grant(installed, "--schedule", "none")
    assert not installed.path(TIMER).exists()
    installed.run("systemctl", "is-active", f"{NAME}.timer", code=3)
