"""A whole installation, for real, in a root that is thrown away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.throwaway_root import ThrowawayRoot
from tools.base import project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("root", "unshare", "nsenter", "useradd", "/usr/bin/python3"),
]
SETUP = project.ROOT / "setup.py"
CONF = "/etc/nc-backup-py/conf.json"
PLANTED = "/srv/planted"  # where another user has put modules for root to import
LAYOUT = """\
/etc/nc-backup-py root:ncbackup 750
/etc/nc-backup-py/conf.json root:ncbackup 640
/etc/nc-backup-py/key_file root:ncbackup 640
/etc/nc-backup-py/key_file.identity root:root 600
/etc/nc-backup-py/writer.key ncbackup:ncbackup 600
/opt/backup ncbackup:ncbackup 700
/var/lib/nc-backup-py root:root 777
/var/lib/nc-backup-py-releases root:root 755
/var/log/nc-backup-py ncbackup:ncbackup 750
"""


def setup(root: ThrowawayRoot, *arguments: str, code: int = 0) -> str:
    """setup.py as root, with a closed umask; it must end with this code. What it printed."""
    start = f"umask 077; cd {PLANTED}; exec /usr/bin/python3"
    command = " ".join([start, str(SETUP), *arguments])
    done = root.run("sh", "-c", command, code=code)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def program(root: ThrowawayRoot, *command: str, user: str = "", code: int = 0) -> str:
    """A program of the installed release, by the system's Python."""
    file, *arguments = command
    path = f"/var/lib/nc-backup-py/{file}"
    done = root.run("/usr/bin/python3", path, "-c", CONF, *arguments, user=user, code=code)
    return done.stdout + done.stderr


def back_up_and_restore(root: ThrowawayRoot) -> None:
    """One edit, a run as the user of the backup, a restore by root."""
    text = program(root, "backup.py", "-r", user="ncbackup", code=2)
    assert "LOCAL_BACKUP: is still that of the template" in text
    conf = root.path(CONF)
    config = json.loads(conf.read_text())
    config["GENERAL"]["LOCAL_BACKUP"] = "/srv/disk"  # below /mnt a disk would have to be mounted
    config["FILESET"]["PARAMETERS"]["FILESET_INCLUDE"] = ["/etc/nc-backup-py", "/etc/apt"]
    conf.write_text(json.dumps(config))
    root.run("install", "-d", "-o", "ncbackup", "-m", "0700", "/srv/disk")
    assert program(root, "backup.py", "-r", user="ncbackup") == ""
    arguments = ("restore/restore.py", "--verify", "latest")
    assert "only recipients" in program(root, *arguments, user="ncbackup", code=2)
    program(root, "restore/restore.py", "--restore", "latest", "--destination", "/srv/out")
    root.run("diff", "-r", "/etc/apt", "/srv/out/FILESET/etc/apt")
    listed = root.run("ls", "/srv/out/FILESET/etc/nc-backup-py").stdout.split()
    assert listed == ["conf.json"]  # keys are in no archive


@pytest.mark.fault("setup.py is killed while it builds a release", "the next run finishes it")
def test_from_install_to_uninstall(root: ThrowawayRoot) -> None:
    """One test: an installation costs 15 seconds of a processor."""
    root.path(PLANTED).mkdir(parents=True)
    for name in ("venv", "ensurepip", "pip", "compileall", "argparse"):
        root.path(f"{PLANTED}/{name}.py").write_text(f"open('{PLANTED}/ran', 'w')\n")
    killed = "timeout --signal=KILL 2 /usr/bin/python3"  # while pip works
    root.run("sh", "-c", f"{killed} {SETUP}", code=137)
    releases = root.path("/var/lib/nc-backup-py-releases")
    assert [path.name[:6] for path in releases.iterdir()] == [".part-"]
    assert not root.path("/var/lib/nc-backup-py").is_symlink()

    text = setup(root)
    assert "remove what a killed installation left" in text
    assert "key_file.identity to another machine NOW" in text
    assert "AGE-SECRET-KEY" not in text  # standard output is no terminal: maybe a log
    release = f"/var/lib/nc-backup-py-releases/{next(releases.iterdir()).name}"
    paths = [line.split()[0] for line in LAYOUT.splitlines()]
    assert root.run("stat", "-c", "%n %U:%G %a", *paths).stdout == LAYOUT
    assert not root.run("find", release, "-perm", "/022", "!", "-type", "l").stdout
    assert root.run("find", release, "!", "-perm", "-004").stdout == f"{release}/release.lock\n"
    assert setup(root).endswith("nothing to do\n")
    assert setup(root, "--dry-run").endswith("nothing to do\n")

    assert not root.path(f"{PLANTED}/ran").exists()
    back_up_and_restore(root)

    root.run("rm", f"{release}/.venv/bin/python")
    assert "is not installed" in setup(root, "--dry-run")
    text = setup(root, "uninstall")
    assert f"{paths[7]}: remove all releases" in text
    remaining = [path for path in paths if root.run("test", "-e", path, code=None).returncode == 0]
    assert remaining == [*paths[:6], paths[8]]
    assert "nothing to do\nhint: To remove these as well" in setup(root, "uninstall")
    assert "no backup can be restored" in setup(root, "uninstall", "--purge", code=2)
    setup(root, "uninstall", "--purge", "--yes")
    assert root.run("ls", "/srv/disk").stdout
    root.run("id", "ncbackup", code=1)
    assert not Path(root.path("/etc/nc-backup-py")).exists()
