"""The commands that fix findings: each is safe to run as it stands, by the user who sees it."""

from __future__ import annotations

import grp
import os
import shlex
import shutil
import stat
from pathlib import Path

# How a program is installed, by the package manager; the packages of each program.
_MANAGERS = {
    "apt-get": ("apt-get", "install"),
    "dnf": ("dnf", "install"),
    "zypper": ("zypper", "install"),
    "apk": ("apk", "add"),
    "pacman": ("pacman", "-S"),
}
_PACKAGES = {
    "tar": dict.fromkeys(_MANAGERS, "tar"),
    "rclone": dict.fromkeys(_MANAGERS, "rclone"),
    "rsync": dict.fromkeys(_MANAGERS, "rsync"),
    "ssh": {
        **dict.fromkeys(("apt-get", "apk"), "openssh-client"),
        **dict.fromkeys(("dnf", "zypper"), "openssh-clients"),
        "pacman": "openssh",
    },
    "mysqldump": {
        "apt-get": "default-mysql-client",
        "dnf": "mariadb",
        "zypper": "mariadb-client",
        "apk": "mariadb-client",
        "pacman": "mariadb-clients",
    },
    "pg_dump": {
        "apt-get": "postgresql-client",
        "dnf": "postgresql",
        "zypper": "postgresql",
        "apk": "postgresql-client",
        "pacman": "postgresql",
    },
    "mariadb-backup": {
        "apt-get": "mariadb-backup",
        "dnf": "mariadb-backup",
        "apk": "mariadb-backup",
    },
    "redis-cli": {
        "apt-get": "redis-tools",
        **dict.fromkeys(("dnf", "zypper", "apk", "pacman"), "redis"),
    },
    "slapcat": {
        "apt-get": "slapd",
        "dnf": "openldap-servers",
        "zypper": "openldap2",
        "apk": "openldap",
        "pacman": "openldap",
    },
}
_PACKAGES["mysql"] = _PACKAGES["mariadb"] = _PACKAGES["mariadb-dump"] = _PACKAGES["mysqldump"]
_PACKAGES["psql"] = _PACKAGES["pg_dumpall"] = _PACKAGES["pg_basebackup"] = _PACKAGES["pg_dump"]
_PACKAGES["mariabackup"] = _PACKAGES["mariadb-backup"]


def as_root(*commands: str) -> str:
    """Return commands that follow each other, as this user runs them with the rights of root."""
    before = "" if os.geteuid() == 0 else "sudo "
    return " && ".join(f"{before}{command}" for command in commands)


def as_user(user: str, command_line: str) -> str:
    """Return a command as this user runs it under the name of another one."""
    before = "runuser -u" if os.geteuid() == 0 else "sudo -u"
    separator = " --" if os.geteuid() == 0 else ""
    return f"{before} {shlex.quote(user)}{separator} {command_line}"


def on(path: Path, *commands: str) -> str:
    """Return commands on a path: the owner needs no rights of root for them."""
    try:
        ours = path.stat().st_uid == os.geteuid()
    except OSError:
        ours = False
    return " && ".join(commands) if ours else as_root(*commands)


def let_read(path: Path) -> str:
    """Return the commands that let the group of this user read a file of secrets.

    "" where that would be wrong: a file of another user than root, a folder that cannot be entered.
    """
    try:
        status = path.stat()
        group = grp.getgrgid(os.getegid()).gr_name
    except (OSError, KeyError):
        return ""
    if os.geteuid() == 0 or status.st_uid != 0 or not stat.S_ISREG(status.st_mode):
        return ""
    return as_root(command("chgrp", group, path), command("chmod", "0640", path))


def command(*arguments: str | Path) -> str:
    """Return a command line with every word quoted where it must be."""
    return shlex.join(map(str, arguments))


def synchronise_clock() -> str:
    """Return the command that sets the clock of this machine by the network; "" without one.

    It changes nothing where the clock is right and another one is wrong.
    """
    return as_root("timedatectl set-ntp true") if shutil.which("timedatectl") else ""


def install_version(package: str, major: int) -> str:
    """Return the command that installs a version of a package of Debian; "" on other systems."""
    if not shutil.which("apt-get"):
        return ""
    return as_root(command("apt-get", "install", f"{package}-{major}"))


def install(program: str) -> str:
    """Return the command that installs a program here; "" where the package is not known."""
    packages = _PACKAGES.get(Path(program).name, {})
    for manager, install_command in _MANAGERS.items():
        if shutil.which(manager) and manager in packages:
            return as_root(command(*install_command, packages[manager]))
    return ""
