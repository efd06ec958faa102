"""Names of users and groups by their numbers; the number itself where there is no name."""

from __future__ import annotations

import grp
import pwd


def user(number: int) -> str:
    """Return the name of a user."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def group(number: int) -> str:
    """Return the name of a group."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
