#!/usr/bin/env python3
"""Install into a clean Debian, as the README says word for word, and live with it.

    python3 benchmarks/clean_root.py [--root FOLDER] [--suite bookworm] [--as root]

In a root of debootstrap (made once in FOLDER, changed only in an overlay): the quick start of the
README, by a user with sudo or by root; the one edit of the config; the schedule, which the cron
daemon fires as ncbackup, storing root-only files of /etc; a restore by root with the README's
commands, compared; upgrade, rollback, uninstall. Needs root, debootstrap and a network.
Exit code 1 where anything differs.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from tests import throwaway_root
from tests.throwaway_root import ThrowawayRoot
from tools.base import project
from tools.base.errors import BackupError

_MIRROR = "http://deb.debian.org/debian"
_PACKAGES = "ca-certificates,cron,git,python3,sudo"  # what the quick start asks for, and cron
_DISK = "/mnt/backup-disk"
_CONF = "/etc/nc-backup-py/conf.json"
_PLACEHOLDER = "/<folder where the disk for backups is mounted>"
_PATIENCE = 240.0  # seconds for cron to fire, and for its run
# What a restore cannot have: keys are never backed up.
_PRIVATE = ("key_file", "key_file.identity", "writer.key")


class Trial:
    """One life of an installation, from the quick start to its end."""

    def __init__(self, root: ThrowawayRoot, user: str) -> None:
        self.root = root
        self.user = user
        self.home = "/root" if user == "root" else f"/home/{user}"
        self.clone = f"{self.home}/nc-backup-py"

    def shell(self, script: str, *, user: str = "", folder: str = "/", code: int = 0) -> str:
        """Run lines of a shell as a user; return what they printed."""
        words = ["bash", "-euc", f"cd {folder}\n{script}"]
        who = user or "root"
        if who != "root":
            words = ["runuser", "-u", who, "--", "env", f"HOME={self.home}", *words]
        done = self.root.run(*words, code=None)
        if done.returncode != code:
            raise BackupError(f"{script}: exit code {done.returncode}", done.stdout + done.stderr)
        return done.stdout + done.stderr

    def prepare(self) -> None:
        """Give the root a user with sudo, a disk for backups, and the clone's address."""
        self.shell(f"mkdir -p {_DISK} && mount -t tmpfs backup-disk {_DISK}")
        self.shell("git config --system --add safe.directory '*'")
        if self.user != "root":
            self.shell(
                f"useradd --create-home --shell /bin/bash {self.user}\n"
                f"echo '{self.user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{self.user}"
            )
        self.trust(os.environ.get("PIP_CERT", ""))
        with tempfile.TemporaryDirectory() as folder:  # git follows links out of the root
            checkout = Path(folder, "nc-backup-py.git")
            command = ["git", "clone", "--quiet", "--bare", str(project.ROOT), str(checkout)]
            subprocess.run(command, check=True)
            shutil.copytree(checkout, self.root.path("/srv/nc-backup-py.git"))
        self.shell("git -C /srv/nc-backup-py.git branch -f main HEAD")
        self.shell("git -C /srv/nc-backup-py.git symbolic-ref HEAD refs/heads/main")

    def trust(self, certificates: str) -> None:
        """Let pip trust the certificates that it trusts here: a proxy may have its own."""
        if certificates:
            shutil.copy(certificates, self.root.path("/etc/ssl/trusted.crt"))
            self.root.path("/etc/pip.conf").write_text("[global]\ncert = /etc/ssl/trusted.crt\n")

    def quick_start(self) -> None:
        """The two commands of the README."""
        (script,) = fences("README.md", "## Install")
        script = script.replace("ADDRESS", "/srv/nc-backup-py.git")
        print(self.shell(script, user=self.user, folder=self.home))

    def edit(self) -> None:
        """The one edit, with a check before and after, and the commands of the first backup."""
        run = f"python3 /var/lib/nc-backup-py/backup.py -r -c {_CONF}"
        text = self.shell(f"runuser -u ncbackup -- {run}", code=2)
        must("LOCAL_BACKUP: is still that of the template" in text, text)
        path = self.root.path(_CONF)
        text = path.read_text(encoding="utf-8")
        must(_PLACEHOLDER in text, text)
        text = text.replace(_PLACEHOLDER, _DISK)
        if "srv-nc-template-host-config" in text:  # this machine has no usable name
            text = text.replace("srv-nc-template-host-config", "clean-root")
        path.write_text(text, encoding="utf-8")
        for script in fences("README.md", "## First backup"):
            print(self.shell(script))

    def wait_for_cron(self) -> None:
        """Set the schedule to the next minute but one, and wait for a run by the cron daemon."""
        before = self.runs()
        when = datetime.now(timezone.utc) + timedelta(seconds=75)
        command = f'sudo python3 setup.py --schedule "{when:%H:%M}"'
        print(self.shell(command, user=self.user, folder=self.clone))
        self.root.start("cron", "-f")
        end = time.monotonic() + _PATIENCE
        while self.runs() == before:
            if time.monotonic() > end:
                raise BackupError("cron: no run", self.shell("cat /etc/cron.d/nc-backup-py"))
            time.sleep(1)
        (new,) = set(self.runs()) - set(before)
        manifest = json.loads(self.manifest(new))
        print(f"cron: run {new}, status {manifest.get('status')}")
        must(manifest.get("status", "ok") == "ok", str(manifest))

    def runs(self) -> list[str]:
        """The runs in the store."""
        paths = self.root.path(_DISK).glob("*/*.manifest.json")
        return sorted(path.name.partition(".")[0] for path in paths)

    def manifest(self, run: str) -> str:
        (path,) = self.root.path(_DISK).glob(f"*/{run}.manifest.json")
        return path.read_text(encoding="utf-8")

    def restore(self) -> None:
        """The README's commands with the config, as root; then a comparison of /etc."""
        script = fences("README.md", "## Restore")[0].replace("\\\n", " ")
        lines = [line for line in script.splitlines() if "/etc/nginx" not in line]
        self.shell("rm -rf /srv/restored")
        print(self.shell("\n".join(lines), folder="/var/lib/nc-backup-py"))
        (etc,) = self.root.path("/srv/restored").glob("*/etc")
        inside = f"/srv/restored/{etc.parent.name}/etc"
        listing = "find . -printf '%P %y %m %U %G %l\\n' | sort"
        one, two = (set(self.shell(listing, folder=top).splitlines()) for top in ("/etc", inside))
        gone = {line.split()[0] for line in one ^ two}
        expected = {f"nc-backup-py/{name}" for name in _PRIVATE}
        must(gone == expected, str(sorted(gone ^ expected)[:10]))
        for secret in ("shadow", "gshadow", "sudoers"):
            self.shell(f"cmp /etc/{secret} {inside}/{secret}")
        print(f"restored: {len(two)} entries of /etc are equal, /etc/shadow among them")

    def upgrade_and_back(self) -> None:
        """Another version by git pull; the run after each change must be good."""
        first = self.shell("readlink /var/lib/nc-backup-py")
        self.shell(
            "git clone -q /srv/nc-backup-py.git /srv/next && cd /srv/next\n"
            "sed -i 's/^version = .*/version = \"9.9.9\"/' pyproject.toml\n"
            "git -c user.name=a -c user.email=a@b commit -qam next && git push -q origin HEAD:main"
        )
        upgrade, rollback = fences("docs/install.md", "## Upgrade and rollback")
        began = time.monotonic()
        print(self.shell(upgrade, user=self.user, folder=self.home))
        print(f"upgrade: {time.monotonic() - began:.0f} s")
        must("9.9.9" in self.shell("readlink /var/lib/nc-backup-py"), "not upgraded")
        self.run_once()
        print(self.shell(rollback, user=self.user))
        must(self.shell("readlink /var/lib/nc-backup-py") == first, "not rolled back")
        self.run_once()

    def run_once(self) -> None:
        """A run as the user of the backup must be good."""
        command = f"cd / && python3 /var/lib/nc-backup-py/backup.py -r -c {_CONF}"
        print(self.shell(f"runuser -u ncbackup -- bash -c '{command}'"))

    def uninstall(self) -> None:
        """Code and schedule go; config, keys and backups stay."""
        (script,) = fences("docs/install.md", "## Uninstall")
        print(self.shell(script, user=self.user))
        left = self.shell("ls -d /var/lib/nc-backup* /etc/cron.d/nc-* /usr/local/libexec/nc-* || :")
        must("\n/" not in f"\n{left}", left)
        self.shell(f"test -s {_CONF} && test -s /etc/nc-backup-py/key_file.identity")
        must(self.runs(), "the backups are gone")


def must(condition: object, problem: str) -> None:
    """Raise BackupError where something is not as it must be."""
    if not condition:
        raise BackupError(problem)


def fences(page: str, heading: str) -> list[str]:
    """The shell commands below a heading of a page, one text for each block."""
    text = (project.ROOT / page).read_text(encoding="utf-8")
    _, _, section = text.partition(f"\n{heading}\n")
    section = re.split(r"^#", section.replace("```sh\n#", "```sh\n "), maxsplit=1, flags=re.M)[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S)


def made(folder: Path, suite: str) -> Path:
    """Return a root of debootstrap, made if it is missing."""
    if not (folder / "etc/debian_version").exists():
        include = f"--include={_PACKAGES}"
        command = ["debootstrap", "--variant=minbase", include, suite, str(folder), _MIRROR]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def main(argv: Sequence[str]) -> int:
    """Run one trial; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path("/tmp/clean-root"))  # noqa: S108
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--as", dest="user", default="admin")
    given = parser.parse_args(argv)
    with throwaway_root.opened(below=made(given.root, given.suite)) as root:
        trial = Trial(root, given.user)
        for act in (
            *(trial.prepare, trial.quick_start, trial.edit, trial.wait_for_cron, trial.restore),
            *(trial.upgrade_and_back, trial.uninstall),
        ):
            began = time.monotonic()
            print(f"== {act.__name__}", flush=True)
            try:
                act()
            except BackupError as error:
                print(f"FAILED {act.__name__}: {error}\n{error.hint}")
                return 1
            print(f"== {act.__name__}: {time.monotonic() - began:.1f} s", flush=True)
    print("all good")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
