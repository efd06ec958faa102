"""Logins that a MySQL or MariaDB server rejects: which server and account, and what to do.

The texts are those of the server in English (share/errmsg-utf8.txt, ER_ACCESS_DENIED_ERROR and
ER_ACCESS_DENIED_NO_PASSWORD_ERROR). A server with messages in another language is quoted as it is.
"""

from __future__ import annotations

import re
from pathlib import Path

# without "at line 1": with it a statement was denied, after the login
_REJECTED = re.compile(
    r"ERROR (?P<number>1045|1698) \(28000\): Access denied for user (?P<account>'.*?'@'.*?')"
    r"(?: \(using password: (?P<password>YES|NO)\))?$"
)
_REASONS = {
    "YES": ": the password is wrong, or there is no such user",
    "NO": " without a password",
    None: "",
}
_HOST = re.compile(r"^[ \t]*host\s*=\s*[\"']?([^\s\"'#]+)", re.M)


def explained(line: str, address: str) -> str:
    """Return the error for a line of the client, if the server rejected the login; else ""."""
    match = _REJECTED.match(line.strip())
    if match is None:
        return ""
    account = match["account"]
    return f"{address}: the server rejects the login of {account}{_REASONS[match['password']]}"


def host_of(option_file: Path | None) -> str:
    """Return the host that an option file names; that of the clients' default without one."""
    try:
        text = "" if option_file is None else option_file.read_text("utf-8", "replace")
    except OSError:
        text = ""  # the client names what is wrong with the file
    match = _HOST.search(text)
    return match[1] if match else "localhost"
