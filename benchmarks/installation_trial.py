"""An installation from the quick start to its end, as README and install.md say word for word.

clean_root.py goes through it in a root of debootstrap, booted_machine.py in a machine that boots.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tools.base import project
from tools.base.errors import BackupError

MIRROR = "http://deb.debian.org/debian"
DISK = "/mnt/backup-disk"
CONF = "/etc/nc-backup-py/conf.json"
CODE = "/var/lib/nc-backup-py"
REPOSITORY = "/srv/nc-backup-py.git"
RESTORED = "/srv/restored"
_PLACEHOLDER = "/<folder where the disk for backups is mounted>"
# What a restore cannot have: keys are never backed up.
_PRIVATE = ("key_file", "key_file.identity", "writer.key")


class System(Protocol):
    """What a trial changes: a root file system with processes of its own."""

    def run(self, *command: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command as root in /; return what it printed. Any exit code if code is None."""


class Trial:
    """One life of an installation, from the quick start to its end."""

    options = ""  # of setup.py, beside those of the pages

    def __init__(self, system: System, user: str) -> None:
        self.system = system
        self.user = user
        self.home = "/root" if user == "root" else f"/home/{user}"
        self.clone = f"{self.home}/nc-backup-py"

    def shell(self, script: str, *, user: str = "", folder: str = "/", code: int = 0) -> str:
        """Run lines of a shell as a user; return what they printed."""
        command = ["bash", "-euc", f"cd {folder}\n{script}"]
        who = user or "root"
        if who != "root":
            command = ["runuser", "-u", who, "--", "env", f"HOME={self.home}", *command]
        done = self.system.run(*command, code=None)
        if done.returncode != code:
            raise BackupError(f"{script}: exit code {done.returncode}", done.stdout + done.stderr)
        return done.stdout + done.stderr

    def quick_start(self) -> None:
        """Run the two commands of the README."""
        (script,) = fences("README.md", "## Install")
        script = script.replace("ADDRESS", REPOSITORY).replace("setup.py", self.setup)
        print(self.shell(script, user=self.user, folder=self.home))

    @property
    def setup(self) -> str:
        """Return the part of the command line that starts setup.py."""
        return f"setup.py {self.options}".rstrip()

    def prepare_user(self) -> None:
        """Let everybody clone the repository, and the user use sudo."""
        self.shell("git config --system --add safe.directory '*'")
        if self.user != "root":
            self.shell(
                f"useradd --create-home --shell /bin/bash {self.user}\n"
                f"echo '{self.user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{self.user}"
            )

    def edit(self) -> None:
        """Make the one edit, with a check before and after, and run the first backup."""
        run = f"python3 {CODE}/backup.py -r -c {CONF}"
        text = self.shell(f"runuser -u ncbackup -- {run}", code=2)
        must("LOCAL_BACKUP: is still that of the template" in text, text)
        text = self.shell(f"cat {CONF}")
        must(_PLACEHOLDER in text, text)
        # where the machine has no usable name
        text = text.replace("srv-nc-template-host-config", "clean-root")
        self.write_config(text.replace(_PLACEHOLDER, DISK))
        for script in fences("README.md", "## First backup"):
            print(self.shell(script))

    def write_config(self, text: str) -> None:
        """Write conf.json in its place: owner and mode stay."""
        self.shell(f"printf %s {shlex.quote(text)} > {CONF}")

    def runs(self) -> list[str]:
        """Return the runs in the store."""
        names = self.shell(f"ls {DISK}/*/ 2>/dev/null || :").splitlines()
        return sorted(name.partition(".")[0] for name in names if name.endswith(".manifest.json"))

    def wait_for_run(self, before: Iterable[str], patience: float) -> str:
        """Wait for a new run in the store, of status ok; return its ID."""
        end = time.monotonic() + patience
        while not (new := sorted(set(self.runs()) - set(before))):
            must(time.monotonic() < end, f"no run after {patience:.0f} s")
            time.sleep(1)
        manifest = json.loads(self.shell(f"cat {DISK}/*/{new[0]}.manifest.json"))
        must(manifest.get("status", "ok") == "ok", str(manifest))
        return new[0]

    def restore(self) -> None:
        """Run the README's commands with the config as root, then compare /etc."""
        script = fences("README.md", "## Restore")[0].replace("\\\n", " ")
        lines = [line for line in script.splitlines() if "/etc/nginx" not in line]
        self.shell(f"rm -rf {RESTORED}")
        print(self.shell("\n".join(lines), folder=CODE))
        inside = self.shell(f"ls -d {RESTORED}/*/etc").strip()
        listing = "find . -printf '%P %y %m %U %G %l\\n' | sort"
        one, two = (set(self.shell(listing, folder=top).splitlines()) for top in ("/etc", inside))
        differing = {line.split()[0] for line in one ^ two}
        expected = {f"nc-backup-py/{name}" for name in _PRIVATE}
        must(differing == expected, str(sorted(differing ^ expected)[:10]))
        for secret in ("shadow", "gshadow", "sudoers"):
            self.shell(f"cmp /etc/{secret} {inside}/{secret}")
        print(f"restored: {len(two)} entries of /etc are equal, /etc/shadow among them")

    def upgrade_and_back(self) -> None:
        """Install another version by git pull and go back; each run after it must be good."""
        first = self.shell(f"readlink {CODE}")
        self.publish("9.9.9")
        upgrade, rollback = fences("docs/install.md", "## Upgrade and rollback")
        began = time.monotonic()
        print(self.shell(upgrade, user=self.user, folder=self.home))
        print(f"upgrade: {time.monotonic() - began:.0f} s")
        must("9.9.9" in self.shell(f"readlink {CODE}"), "not upgraded")
        self.run_once()
        print(self.shell(rollback, user=self.user))
        must(self.shell(f"readlink {CODE}") == first, "not rolled back")
        self.run_once()

    def publish(self, version: str) -> None:
        """Give the repository another version."""
        self.shell(
            f"rm -rf /srv/next && git clone -q {REPOSITORY} /srv/next && cd /srv/next\n"
            f"sed -i 's/^version = .*/version = \"{version}\"/' pyproject.toml\n"
            "git -c user.name=a -c user.email=a@b commit -qam next && git push -q origin HEAD:main"
        )

    def run_once(self) -> None:
        """Run as the user of the backup; the run must be good."""
        command = f"cd / && python3 {CODE}/backup.py -r -c {CONF}"
        print(self.shell(f"runuser -u ncbackup -- bash -c '{command}'"))

    def uninstall(self) -> None:
        """Code and schedule go; config, keys and backups stay."""
        (script,) = fences("docs/install.md", "## Uninstall")
        print(self.shell(script, user=self.user))
        ours = "/etc/cron.d/nc-* /etc/systemd/system/nc-* /usr/local/libexec/nc-*"
        leftovers = self.shell(f"ls -d /var/lib/nc-backup* {ours} || :")
        must("\n/" not in f"\n{leftovers}", leftovers)
        self.shell(f"test -s {CONF} && test -s /etc/nc-backup-py/key_file.identity")
        must(self.runs(), "the backups are gone")


def must(condition: object, problem: str) -> None:
    """Raise BackupError where something is not as it must be."""
    if not condition:
        raise BackupError(problem)


def fences(page: str, heading: str) -> list[str]:
    """Return the shell commands below a heading of a page, one text for each block."""
    text = (project.ROOT / page).read_text(encoding="utf-8")
    _, _, section = text.partition(f"\n{heading}\n")
    section = re.split(r"^#", section.replace("```sh\n#", "```sh\n "), maxsplit=1, flags=re.M)[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S)


def base_root(folder: Path, suite: str, packages: Sequence[str]) -> Path:
    """Return a root of debootstrap, made if it is missing."""
    if not (folder / "etc/debian_version").exists():
        include = f"--include={','.join(packages)}"
        command = ["debootstrap", "--variant=minbase", include, suite, str(folder), MIRROR]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def copy_repository(target: Path) -> None:
    """Put a bare clone of this checkout there, whose branch main is what is checked out here."""
    with tempfile.TemporaryDirectory() as folder:  # git follows links out of a root
        bare = Path(folder, "bare.git")
        for command in (
            ["git", "clone", "--quiet", "--bare", str(project.ROOT), str(bare)],
            ["git", "-C", str(bare), "branch", "-f", "main", "HEAD"],
            ["git", "-C", str(bare), "symbolic-ref", "HEAD", "refs/heads/main"],
        ):
            subprocess.run(command, check=True)
        shutil.copytree(bare, target)


def run_acts(acts: Iterable[Callable[[], None]]) -> Iterator[str]:
    """Do one act after the other; yield a line for each that went well, with its time.

    Raises BackupError with the name of the act that went wrong.
    """
    for act in acts:
        began = time.monotonic()
        print(f"== {act.__name__}", flush=True)
        try:
            act()
        except BackupError as error:
            raise BackupError(f"{act.__name__}: {error}", error.hint) from error
        yield f"{act.__name__}: {time.monotonic() - began:.1f} s"
