#!/usr/bin/env python3
"""Install into a machine that boots, and let its systemd start the backups.

    python3 benchmarks/booted_machine.py [--root FOLDER] [--suite bookworm] [--wheels DIR] [--tcg]

A Debian root of debootstrap (made once in FOLDER) becomes the disk of a machine of qemu without a
network: the quick start, the one edit of the config, and then nights. The timer fires by itself,
the machine is off when it is due, the disk for backups is missing, the power is cut while a run
stores and just after an upgrade. Files that are easily hidden from a service must be in the
backups. Then upgrade, rollback, uninstall. Needs root, qemu-system-x86, debootstrap and, for the
first time, a network. Exit code 1 where anything differs.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone

from benchmarks import installation_trial, virtual_machine
from benchmarks.installation_trial import CODE, CONF, DISK, REPOSITORY, RESTORED, Trial, must
from benchmarks.virtual_machine import Machine
from tools.base import project
from tools.base.errors import BackupError

_WHEELS = "/srv/wheels"
_PLATFORMS = ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64")
_UNIT = "nc-backup-py"
_DROP_IN = f"/etc/systemd/system/{_UNIT}.timer.d"
# Each has a file that only root can read. /bound is mounted on /data after the boot.
_HIDDEN = ("home/u", "root/data", "tmp/data", "var/tmp/data", "opt/data", "srv/u", "run/data")
_BIG = "/srv/big"  # what is being stored when the power is cut
_MEGABYTES = 256
_START = datetime.now(timezone.utc).replace(hour=20, minute=0, second=0, microsecond=0)


class BootedTrial(Trial):
    """The trial in a machine, whose clock it sets: each act says on which day it begins."""

    options = f"--wheels {_WHEELS}"

    def __init__(self, machine: Machine, patience: float) -> None:
        super().__init__(machine, "root")
        self.machine = machine
        self.patience = patience
        self.config = ""  # of the quick start
        self.day = _START  # the evening before the next night

    def prepare(self) -> None:
        """Boot, and see that systemd has started all it wants."""
        self.machine.boot(self.day)
        self.shell(f"systemctl is-system-running --wait && mountpoint {DISK}")
        self.prepare_user()

    def schedule(self) -> None:
        """Check the timer of the quick start: it runs tonight, at most 10 minutes late."""
        self.shell(f"systemctl is-enabled {_UNIT}.timer && systemctl is-active {_UNIT}.timer")
        self.shell(f"systemd-analyze verify /etc/systemd/system/{_UNIT}.*")
        late = self.next_run() - self.night()
        must(timedelta(0) <= late <= timedelta(minutes=10), f"{self.next_run()}: not tonight")
        print(self.shell(f"python3 {CODE}/setup.py check"))

    def night(self) -> datetime:
        """Return when tonight's run is due."""
        return (self.day + timedelta(days=1)).replace(hour=3)

    def next_run(self) -> datetime:
        """Return when systemd starts the next run, with the random delay that it drew."""
        text = self.shell(f"systemctl show {_UNIT}.timer -p NextElapseUSecRealtime --value")
        return datetime.strptime(text.strip(), "%a %Y-%m-%d %H:%M:%S UTC").replace(
            tzinfo=timezone.utc
        )

    def hidden_folders(self) -> None:
        """Put files where the sandbox of a service may hide them; include them in the backup."""
        tops = " ".join(f"/{path}" for path in (*_HIDDEN, "bound"))
        self.shell(
            f"for top in {tops}; do\n"
            "    mkdir -p -m 0700 $top && hostname > $top/file && chmod 0600 $top/file\n"
            "done\n"
            "mkdir -p /data && mount --bind /bound /data"
        )
        self.config = self.shell(f"cat {CONF}")
        config = json.loads(self.config)
        include = config["FILESET"]["PARAMETERS"]["FILESET_INCLUDE"]
        include += [f"/{path}" for path in (*_HIDDEN, "data") if f"/{path}" not in include]
        self.write_config(json.dumps(config, indent=2))

    def fires_on_time(self) -> None:
        """Set the clock to 5 seconds before 03:00, from here on without the random delay.

        systemd draws the delay again whenever the clock is set.
        """
        self.shell(
            f"mkdir -p {_DROP_IN}\n"
            f"printf '[Timer]\\nRandomizedDelaySec=0\\n' > {_DROP_IN}/trial.conf\n"
            "systemctl daemon-reload"
        )
        before = self.runs()
        self.set_clock(self.night() - timedelta(seconds=5))
        run = self.good_run(before)
        late = datetime.strptime(run, "%Y%m%d_%H%M%S").replace(tzinfo=timezone.utc) - self.due
        # AccuracySec: systemd may take a minute, to wake up less often (systemd.timer(5))
        must(timedelta(0) <= late < timedelta(minutes=2), f"{run}: {late} after it was due")

    def set_clock(self, when: datetime) -> None:
        """Set the clock of the machine for this night; the next act has the next one."""
        self.due = self.night()
        self.shell(f"date -u -s '{when:%Y-%m-%d %H:%M:%S}'")
        self.day += timedelta(days=1)

    def good_run(self, before: Sequence[str]) -> str:
        """Wait for a run that the timer starts; it must be ncbackup's and end with 0."""
        run = self.wait_for_run(before, self.patience)
        self.ended("success", 0)
        owner = self.shell(f"stat -c %U {DISK}/*/{run}.manifest.json").strip()
        must(owner == "ncbackup", f"{run}: is {owner}'s")
        print(f"run {run} by the timer, exit code 0, of the user ncbackup")
        return run

    def wait_for_run(self, before: Iterable[str], patience: float) -> str:
        """See Trial; the error has what the service has written since the boot."""
        try:
            return super().wait_for_run(before, patience)
        except BackupError as error:
            command = f"systemctl status --no-pager -n 50 {_UNIT}.timer {_UNIT}.service || :"
            raise BackupError(str(error), self.shell(command)) from error

    def ended(self, result: str, code: int) -> None:
        """Wait until the service is over; its result and exit code must be these."""
        command = f"systemctl show {_UNIT}.service --value -p"
        end = time.monotonic() + self.patience
        while self.shell(f"{command} ActiveState").strip() in ("activating", "deactivating"):
            must(time.monotonic() < end, "the service does not end")
            time.sleep(1)
        outcome = [self.shell(f"{command} {name}").strip() for name in ("Result", "ExecMainStatus")]
        journal = self.shell(f"journalctl -b -o cat -u {_UNIT}.service")
        must(outcome == [result, str(code)], f"service: {outcome}\n{journal}")

    def restore_folders(self) -> None:
        """Restore as in the README, and compare each file of the hidden folders as root.

        The next boot removes some of the places, so the config is as before again; it waits
        less for a disk that never comes, and what a run left is old after a short night.
        """
        self.restore()
        for path in (*_HIDDEN, "data"):
            self.shell(f"cmp /{path}/file {RESTORED}/*/{path}/file")
        self.shell(f"rm -r {RESTORED}")  # the size of the backups stays as it is
        config = json.loads(self.config)
        config["GENERAL"] |= {"CONNECT_WAIT": "30s", "LEFTOVERS_AGE": "12h"}
        self.write_config(json.dumps(config, indent=2))
        print(f"restored: a file of root's of each of {', '.join(_HIDDEN)}, and of a bind mount")

    def off_when_due(self) -> None:
        """Turn the machine off at 03:00; the boot at 08:00 must make up for it."""
        before = self.runs()
        self.machine.power_off()
        self.day += timedelta(days=1)
        self.machine.boot(self.day.replace(hour=8))
        run = self.good_run(before)
        must(f"{self.day:%Y%m%d}_08" in run, f"{run}: not at the boot")

    def without_its_disk(self) -> None:
        """Boot without the backup disk: the run must fail and write nothing in its place."""
        self.machine.power_off()
        self.day += timedelta(days=1)
        self.machine.boot(self.day.replace(hour=8), disk=False)
        end = time.monotonic() + self.patience
        while self.shell(f"systemctl is-failed {_UNIT}.service || :").strip() != "failed":
            must(time.monotonic() < end, "the service has not failed")
            time.sleep(1)
        self.ended("exit-code", 1)
        print(self.shell(f"journalctl -b -o cat -u {_UNIT}.service"))
        must(not self.shell(f"ls -A {DISK}"), "something was written where the disk is missing")
        self.machine.power_off()
        self.machine.boot(self.day.replace(hour=9))

    def power_cut(self) -> None:
        """Cut the power while a run stores; the next night's run must work unaided."""
        self.shell(f"head -c {_MEGABYTES}M /dev/urandom > {_BIG} && sync")
        before = self.runs()
        self.set_clock(self.night() - timedelta(seconds=2))
        big_part = f"find {DISK} -type f -size +20M -newer {_BIG}"
        end = time.monotonic() + self.patience
        while not self.shell(big_part):
            must(time.monotonic() < end, "nothing is being stored")
            time.sleep(0.2)
        self.machine.cut_power()
        self.machine.boot(self.due + timedelta(minutes=5))
        must(self.runs() == before, "a run that was cut looks complete")
        print(f"after the cut: {self.unfinished()}")
        self.set_clock(self.night() - timedelta(seconds=2))
        self.good_run(before)
        must("UNFINISHED" not in self.unfinished(), f"left: {self.unfinished()}")
        restore = f"python3 restore/restore.py -c {CONF}"
        self.shell(f"rm -rf {RESTORED} && {restore} --verify latest", folder=CODE)
        self.shell(
            f"{restore} --restore latest --path {_BIG} --destination {RESTORED}", folder=CODE
        )
        self.shell(f"cmp {_BIG} {RESTORED}/*{_BIG} && rm {_BIG}")

    def unfinished(self) -> str:
        """Return the names of the unfinished runs in the store, and of hidden files."""
        return self.shell(f"cd {DISK} && find . -name '*UNFINISHED*' -o -type f -name '.*'")

    def upgrade_and_cut(self) -> None:
        """Cut the power just after an upgrade has ended; the release must be whole."""
        self.publish("8.8.8")
        (upgrade, _rollback) = installation_trial.fences(
            "docs/install.md", "## Upgrade and rollback"
        )
        self.shell(upgrade, folder=self.home)
        self.machine.cut_power()
        self.machine.boot(self.day)
        must("8.8.8" in self.shell(f"readlink {CODE}"), "not upgraded")
        before = self.runs()
        self.set_clock(self.night() - timedelta(seconds=2))
        self.good_run(before)

    def journal(self) -> None:
        """Print the warnings of systemd and of the runs since the first boot."""
        command = f"journalctl -q -o short -p warning -u {_UNIT}.service -u {_UNIT}.timer"
        print(self.shell(command))

    def uninstalled(self) -> None:
        """Uninstall as in install.md; systemd must have forgotten the timer."""
        self.shell(f"rm -r {_DROP_IN}")
        self.uninstall()
        timers = self.shell(f"systemctl list-timers --all --no-legend '{_UNIT}*'")
        must(not timers, timers)
        self.machine.power_off()


def wheels_for(root: Path, folder: Path) -> Path:
    """Return a folder with the packages of requirements.lock for the Python of a root."""
    version = (root / "usr/bin/python3").readlink().name.replace("python", "")
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps"),
        *("--python-version", version, "--only-binary=:all:", *platforms),
        *("-r", str(project.ROOT / "requirements.lock"), "-d", str(folder)),
    ]
    subprocess.run(command, check=True)
    return folder


def fill(root: Path, wheels: Path) -> None:
    """Give a base root what the trial needs: the repository, wheels, the files of the machine."""
    for name in (REPOSITORY, _WHEELS):
        shutil.rmtree(root / name.lstrip("/"), ignore_errors=True)
    installation_trial.copy_repository(root / REPOSITORY.lstrip("/"))
    shutil.copytree(wheels, root / _WHEELS.lstrip("/"))
    virtual_machine.write_guest_files(root)


def tried(options: argparse.Namespace) -> None:
    """Run the trial. Raises BackupError."""
    missing = virtual_machine.missing_programs()
    if missing:
        raise BackupError(f"{missing[0]}: not found", "apt install qemu-system-x86 debootstrap")
    root = installation_trial.base_root(options.root, options.suite, virtual_machine.PACKAGES)
    with tempfile.TemporaryDirectory(prefix="booted-machine-") as folder:
        fill(root, options.wheels or wheels_for(root, Path(folder, "wheels")))
        images = Path(folder, "images")
        with virtual_machine.opened(
            images, root, patience=options.patience, emulate=options.tcg
        ) as machine:
            trial = BootedTrial(machine, options.patience)
            acts = [
                *(trial.prepare, trial.quick_start, trial.edit, trial.schedule),
                *(trial.hidden_folders, trial.fires_on_time, trial.restore_folders),
                *(trial.off_when_due, trial.without_its_disk),
                *(trial.power_cut, trial.upgrade_and_cut, trial.upgrade_and_back, trial.journal),
                trial.uninstalled,
            ]
            lines = []
            for line in installation_trial.run_acts(acts):
                print(f"== {line}", flush=True)
                lines.append(line)
            boots = ", ".join(f"{seconds:.0f}" for seconds in machine.boots)
            print("\n".join(("", machine.kind, f"boots: {boots} s", *lines)))


def main(argv: Sequence[str]) -> int:
    """Run the trial; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path("/tmp/booted-root"))  # noqa: S108
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--wheels", type=Path, help="packages for the Python of that suite")
    parser.add_argument("--tcg", action="store_true", help="emulate, even if there is /dev/kvm")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds, for a boot or run")
    options = parser.parse_args(argv)
    began = time.monotonic()
    try:
        tried(options)
    except BackupError as error:
        print(f"FAILED {error}\n{error.hint}")
        return 1
    print(f"all good, after {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
