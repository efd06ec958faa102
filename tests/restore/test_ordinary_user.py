"""A restore by an ordinary user: everything that only root could set is left out and named."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from restore import unpack
from tests.restore.test_archives import make

pytestmark = pytest.mark.needs("root")
ARCHIVE = make(
    {"name": "d", "kind": "folder", "mode": 0o2755, "uid": 1, "gid": 1},
    {"name": "d/dev", "kind": "device", "uid": 1, "gid": 1},
    {"name": "d/caps", "content": b"x", "uid": 54321, "gid": 0,
     "pax": {"SCHILY.xattr.security.capability": "x", "SCHILY.xattr.user.note": "kept"}},
    {"name": "d/label", "content": b"x", "uid": 54321, "gid": 0,
     "pax": {"SCHILY.xattr.security.selinux": "x", "RHT.security.selinux": "x",
             "SCHILY.xattr.trusted.x": "y"}},
    {"name": "d/group", "content": b"x", "uid": 54321, "gid": 7},
    {"name": "d/plain", "content": b"x", "uid": 54321, "gid": 0},
)  # fmt: skip


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder, and the rights of an ordinary user."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        try:
            os.seteuid(54321)
            yield Path(name)
        finally:
            os.seteuid(0)


def test_everything_that_is_left_out_is_named(folder: Path) -> None:
    """Trials 7 A3: devices, capabilities, security.* and trusted.* were gone without a word."""
    unpacked = unpack.unpack(lambda: iter([ARCHIVE]), ".tar", folder, [])
    *lines, owners = unpacked.warnings()
    assert lines == [
        "cannot be restored: d/dev: only root can create a device node",
        "not restored without root: d: set-user-ID or set-group-ID bit",
        "not restored without root: d/caps: security.capability",
        "not restored without root: d/label: security.selinux, RHT.security.selinux, trusted.x",
    ]
    assert owners.startswith("2 entries of other owners or groups now belong to ")
    assert owners.endswith(": not running as root: d, d/group")
    assert sorted(path.name for path in (folder / "d").iterdir()) == [
        *("caps", "group", "label", "plain")
    ]
    assert os.getxattr(folder / "d/caps", "user.note") == b"kept"
    assert (folder / "d").stat().st_mode & 0o7777 == 0o755


def test_a_device_that_is_selected_is_named(folder: Path) -> None:
    """Trials 7 A3: "nothing in the run matches", exit 2, which was untrue."""
    unpacked = unpack.unpack(lambda: iter([ARCHIVE]), ".tar", folder, ["dev"])
    assert unpacked.warnings() == ("cannot be restored: d/dev: only root can create a device node",)


@pytest.mark.usefixtures("folder")
def test_a_dry_run_names_it_as_well() -> None:
    lines = "\n".join(unpack.list_entries(iter([ARCHIVE]), ".tar", None))
    assert "d/dev (not restored: only root can create a device node)" in lines
    assert "d/caps (without security.capability)" in lines
