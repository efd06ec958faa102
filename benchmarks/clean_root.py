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
import os
import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from benchmarks import installation_trial
from benchmarks.installation_trial import DISK, REPOSITORY, Trial
from tests import throwaway_root
from tests.throwaway_root import ThrowawayRoot
from tools.base.errors import BackupError

_PACKAGES = ("ca-certificates", "cron", "git", "python3", "sudo")  # of the quick start, and cron
_PATIENCE = 240.0  # seconds for cron to fire, and for its run


class RootTrial(Trial):
    """The trial in a throwaway root, where only the cron daemon runs."""

    def __init__(self, root: ThrowawayRoot, user: str) -> None:
        super().__init__(root, user)
        self.root = root

    def prepare(self) -> None:
        """Give the root a user with sudo, a disk for backups, and the clone's address."""
        self.shell(f"mkdir -p {DISK} && mount -t tmpfs backup-disk {DISK}")
        self.trust(os.environ.get("PIP_CERT", ""))
        installation_trial.copy_repository(self.root.path(REPOSITORY))
        self.prepare_user()

    def trust(self, certificates: str) -> None:
        """Let pip trust the certificates that it trusts here: a proxy may have its own."""
        if certificates:
            shutil.copy(certificates, self.root.path("/etc/ssl/trusted.crt"))
            self.root.path("/etc/pip.conf").write_text("[global]\ncert = /etc/ssl/trusted.crt\n")

    def wait_for_cron(self) -> None:
        """Set the schedule to the next minute but one, and wait for a run by the cron daemon."""
        before = self.runs()
        when = datetime.now(timezone.utc) + timedelta(seconds=75)
        command = f'sudo python3 setup.py --schedule "{when:%H:%M}"'
        print(self.shell(command, user=self.user, folder=self.clone))
        self.root.start("cron", "-f")
        print(f"cron: run {self.wait_for_run(before, _PATIENCE)}")


def main(argv: Sequence[str]) -> int:
    """Run one trial; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path("/tmp/clean-root"))  # noqa: S108
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--as", dest="user", default="admin")
    options = parser.parse_args(argv)
    below = installation_trial.base_root(options.root, options.suite, _PACKAGES)
    with throwaway_root.opened(below=below) as root:
        trial = RootTrial(root, options.user)
        acts = (
            *(trial.prepare, trial.quick_start, trial.edit, trial.wait_for_cron, trial.restore),
            *(trial.upgrade_and_back, trial.uninstall),
        )
        try:
            for line in installation_trial.run_acts(acts):
                print(f"== {line}", flush=True)
        except BackupError as error:
            print(f"FAILED {error}\n{error.hint}")
            return 1
    print("all good")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
