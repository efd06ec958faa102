"""The text of a schedule: a service and its timer, or a file of cron.

The service is hardened only by what hides no file: a backup that does not see /home, /tmp or
/root would say so to nobody. So it has no ProtectHome, PrivateTmp, PrivateDevices,
ProtectKernelModules (which empties /usr/lib/modules), InaccessiblePaths or TemporaryFileSystem.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tools.base.errors import ConfigError
from tools.setup.installation import CODE, CONFIG, CONFIG_FOLDER, USER
from tools.setup.programs import PATH

NAME = "nc-backup-py"
CRON = f"/etc/cron.d/{NAME}"
SERVICE = f"/etc/systemd/system/{NAME}.service"
TIMER = f"/etc/systemd/system/{NAME}.timer"
NEVER = "none"
_SCHEDULE = re.compile(r"(?:(timer|cron) +)?([01]?\d|2[0-3]):([0-5]\d)")
_WRITTEN = "# Written by setup.py --schedule"


class Kind(Enum):
    """What starts the backup."""

    TIMER = "systemd timer"
    CRON = "cron"


@dataclass(frozen=True)
class Time:
    """A time of every day, in the time zone of the server."""

    hour: int
    minute: int

    def __str__(self) -> str:
        return f"{self.hour:02}:{self.minute:02}"


def parsed(text: str) -> tuple[Kind | None, Time | None]:
    """Return the value of --schedule: the kind if it names one, and the time; None for "none".

    Raises ConfigError.
    """
    if text.strip() == NEVER:
        return None, None
    match = _SCHEDULE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"--schedule: {text!r}: not a time of day",
            'Use hours and minutes, such as "03:00" or "cron 03:00", or none. Other times: '
            f"systemctl edit {NAME}.timer",
        )
    kind = {"timer": Kind.TIMER, "cron": Kind.CRON}.get(match[1] or "")
    return kind, Time(int(match[2]), int(match[3]))


def files(kind: Kind, time: Time, python: str, before: str = "") -> dict[str, str]:
    """Return the text of each file of a schedule by its path.

    before: the file of cron that is there; its MAILTO is kept
    """
    if kind is Kind.CRON:
        return {CRON: _cron(time, python, re.findall(r"^MAILTO=.*\n", before, re.M))}
    return {SERVICE: _service(python), TIMER: _timer(time)}


def time_of(text: str) -> Time | None:
    """Return the time in a file that `files` gave; None if it has another one, or none."""
    if cron := re.search(rf"^(\d+) (\d+) \* \* \* {USER} ", text, re.M):
        return Time(int(cron[2]), int(cron[1]))
    timer = re.search(r"^OnCalendar=\*-\*-\* (\d\d):(\d\d):00$", text, re.M)
    return Time(int(timer[1]), int(timer[2])) if timer else None


def command(python: str) -> str:
    """Return the command line of a nightly run."""
    return f"{python} {CODE}/backup.py -r -c {CONFIG}"


def _cron(time: Time, python: str, kept_lines: Sequence[str]) -> str:
    return f"""{_WRITTEN}: run it again to change the time.
# cron mails what backup.py prints to root, or to the address of a line MAILTO=address here.
SHELL=/bin/sh
PATH={PATH}
{"".join(kept_lines)}{time.minute} {time.hour} * * * {USER} {command(python)}
"""


def _timer(time: Time) -> str:
    return f"""{_WRITTEN}: run it again to change the time.
# Changes of your own: systemctl edit {NAME}.timer
[Unit]
Description=Backup of this server every day (nc-backup-py)

[Timer]
OnCalendar=*-*-* {time}:00
# after a night in which the server was off
Persistent=true
# many servers do not reach one store in the same second
RandomizedDelaySec=10min

[Install]
WantedBy=timers.target
"""


def _service(python: str) -> str:
    return f"""{_WRITTEN}; changes of your own: systemctl edit {NAME}.service
[Unit]
Description=Backup of this server (nc-backup-py)
Documentation=file:{CODE}/docs/privileges.md
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart={command(python)}
User={USER}
Group={USER}
UMask=0077
Environment=PATH={PATH}

# The one power: reading every file. backup.py lowers it at its start, and raises it for tar.
AmbientCapabilities=CAP_DAC_READ_SEARCH
CapabilityBoundingSet=CAP_DAC_READ_SEARCH
NoNewPrivileges=yes

# Only what hides no file: a backup must see /home, /root, /tmp and every mount.
ProtectSystem=full
ReadWritePaths=-{CONFIG_FOLDER}
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelTunables=yes
DevicePolicy=closed
KeyringMode=private
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""
