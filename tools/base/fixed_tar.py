"""How tar reads a fileset, and the one command line of it that sudo may allow.

Format: GNU tar, POSIX (pax) with ACLs and extended attributes, numeric owners, sparse files.
Where sudo is the only way to read everything, nothing of the command line may vary: names come
by standard input, and excludes by files of root that the user of the backup can only fill.
"""

from __future__ import annotations

import shutil
from pathlib import Path

FORMAT = (
    "--create",
    "--directory=/",
    "--format=posix",
    "--numeric-owner",
    "--acls",
    "--xattrs",
    "--xattrs-include=*",
    "--sparse",
    "--blocking-factor=128",  # 64 KiB at a time: fewer, larger writes
)
# Names are literal and can be parsed from messages.
MESSAGE_OPTIONS = ("--no-unquote", "--quoting-style=escape")
FROM_LIST = ("--null", "--verbatim-files-from", "--files-from=-")
SINGLE = "--one-file-system"
# How the exclude patterns that follow are compared; the name of a mode is that of its file.
LITERAL = "literal"
MODES = {LITERAL: ("--anchored", "--no-wildcards")} | {
    name + suffix: (anchor, "--wildcards", slash)
    for name, anchor in (("anchored", "--anchored"), ("floating", "--no-anchored"))
    for suffix, slash in (
        ("", "--no-wildcards-match-slash"),
        ("-crossing", "--wildcards-match-slash"),
    )
}
# root:ncbackup 0750, its files 0660: tar, as root, follows no link that ncbackup has made.
EXCLUDES = Path("/var/lib/nc-backup-py-tar")
LOCK = "lock"  # a file in it, held until tar has read the others


def program() -> str:
    """Return the tar that sudo may run: the path that is in the line of sudoers."""
    return shutil.which("tar", path="/usr/bin:/bin") or "/usr/bin/tar"


def sudo_arguments(*, single: bool) -> list[str]:
    """Return the arguments that sudo allows: all of them, in this order.

    sudo compares them joined by spaces: a user who may run the line may pass two words as one. So
    --file is the last: with a word behind it, it would name a file that root would write.
    """
    excludes = [word for mode, how in MODES.items() for word in (*how, _from_file(mode))]
    options = [*FORMAT, *MESSAGE_OPTIONS, *([SINGLE] if single else [])]
    return [*options, *excludes, *FROM_LIST, "--file=-"]


def _from_file(mode: str) -> str:
    return f"--exclude-from={EXCLUDES / mode}"
