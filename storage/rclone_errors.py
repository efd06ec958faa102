"""What rclone and its backends say, as errors of a store: which stay, and what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tools.base import foreign
from tools.base.errors import StoreError, TransientError, UnreachableError
from tools.flow import reachability

_SHOWN = 500  # characters of a text of rclone
_USER_OF_URL = re.compile(r"(?<=://)[^/@\s]*@")
_NETWORK_HINT = "Check the network and the server: rclone lsd {remote}"

# Patterns of messages (rclone, its backends, the system), whether another attempt is worth it,
# a text in front, and a hint. The first that fits counts.
_DENIED = (
    r"(?i)permission denied|access ?denied|forbidden|\b40[135]\b|unauthori[sz]ed|invalid_grant"
    r"|not authori[sz]ed|authenticat|InvalidAccessKeyId|SignatureDoesNotMatch|token (?:has )?"
    r"expired|couldn't fetch token|empty token|insufficient (?:permission|privilege|rights)"
    r"|read-only file system|operation not permitted|object ?lock|retention|legal hold|\bWORM\b"
    r"|method not allowed"
)
_UNRESOLVED = r"(?i)no such host|server misbehaving|lookup .* on "
_KNOWN: Sequence[tuple[str, bool, str, str]] = (
    (
        r"didn't find section in config file|didn't find backend called",
        False,
        "unknown remote",
        "Create it with rclone config as the user of the backup. CONFIG names another file; "
        "rclone listremotes prints the remotes of a file.",
    ),
    (
        r"unable to decrypt configuration|failed to decrypt config|RCLONE_CONFIG_PASS"
        r"|[Cc]ouldn't decrypt configuration|password command",
        False,
        "the config of rclone is encrypted, and there is no password for it",
        "Set RCLONE_PASSWORD_COMMAND to a command that prints the password (or RCLONE_CONFIG_PASS "
        "to the password) in the environment of the run.",
    ),
    (
        r"/rclone-[0-9a-f]{16}/.*no space left",
        False,
        "the disk of WORK_FOLDER is full: this remote takes no streams",
        "Free space there: each part waits in WORK_FOLDER. Set FILE_SIZE to make parts smaller.",
    ),
    (
        r"(?i)rate ?limit|too many requests|\b429\b|slow ?down|too_many_",
        True,
        "the server limits the rate of requests",
        'Run fewer backups at a time, or set FLAGS to ["--tpslimit", "5"].',
    ),
    (
        r"(?i)no space left|quota.{0,3}(?:full|exceed|limit)|quota (?:has been )?exceeded"
        r"|over ?quota|insufficient.{0,3}(?:storage|space)|\b507\b|disk (?:is )?full"
        r"|storage ?limit|not enough (?:space|storage)|out of (?:space|storage)",
        False,
        "the store is full",
        "Remove old runs there, or enlarge it.",
    ),
    (
        _DENIED,
        False,
        "",
        "Check the account of the remote and its rights, as the user of the backup: "
        "rclone lsd {remote}. A token that has expired is renewed with rclone config reconnect.",
    ),
    (
        r"(?i)is a directory|not a directory|name too long|bucket not found"
        r"|no such bucket|can't|cannot|doesn't support|not supported|not implemented"
        r"|invalid (?:character|name|argument)|couldn't parse|missing .{0,40}(?:key|option|url)",
        False,
        "",
        "Check REMOTE and the settings of the remote: rclone config show",
    ),
    (
        _UNRESOLVED,
        True,
        "host name not known",
        _NETWORK_HINT,
    ),
    (
        r"(?i)certificate|x509|tls: ",
        False,
        "",
        'Check the certificate of the server. FLAGS ["--ca-cert", "FILE"] names an authority.',
    ),
)


class MissingError(StoreError):
    """There is no such object or folder."""


class DeniedError(StoreError):
    """The account may not do this."""


def printable(text: str) -> str:
    """Return a text of rclone as one line that can be shown, without users of URLs."""
    first = next(iter(foreign.lines(text)), "")
    return foreign.line(_USER_OF_URL.sub("***@", first))[:_SHOWN]


def of_answer(status: int, text: str, subject: str, remote: str) -> StoreError:
    """Return the error of a call. subject: the object or the store that it was about"""
    line = printable(text.removeprefix("panic received: fatal error: "))
    if status == 404:  # noqa: PLR2004
        return MissingError(f"{subject}: no such object ({line})")
    for pattern, again, front, hint in _KNOWN:
        if re.search(pattern, line):
            kind = TransientError if again else DeniedError if pattern is _DENIED else StoreError
            kind = UnreachableError if pattern is _UNRESOLVED else kind
            problem = f"{front} ({line})" if front else line
            return kind(f"{subject}: {problem}", hint.format(remote=remote))
    kind = UnreachableError if reachability.tells_no_connection(line) else TransientError
    return kind(f"{subject}: {line}", _NETWORK_HINT.format(remote=remote))


def of_start(program: str, ending: str, reason: str) -> StoreError:
    """Return the error of an rclone that did not start."""
    if "unknown flag" in reason:
        hint = "Check FLAGS: rclone help flags prints those that there are."
    elif "unknown command" in reason or "unknown shorthand" in reason:
        hint = "Install rclone 1.70 or later."
    else:
        hint = "Install rclone 1.70 or later; rclone version prints the one that there is."
    return StoreError(f"{program} {ending}: {reason}" if reason else f"{program} {ending}", hint)
