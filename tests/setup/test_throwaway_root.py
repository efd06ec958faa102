"""The throwaway root itself: nothing that is done in it reaches this machine."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests import throwaway_root
from tests.throwaway_root import ThrowawayRoot
from tools.base import project

pytestmark = [pytest.mark.slow, pytest.mark.needs("root", "unshare", "nsenter", "setcap")]


def test_what_is_changed_in_it_stays_in_it(root: ThrowawayRoot) -> None:
    before = Path("/etc/passwd").read_bytes()
    root.run("useradd", "--system", "somebody-new")
    assert root.run("id", "-un", user="somebody-new").stdout == "somebody-new\n"
    assert "somebody-new" in root.path("/etc/passwd").read_text()
    assert Path("/etc/passwd").read_bytes() == before
    root.run("touch", project.ROOT / "new", code=1)  # read-only
    assert root.run("pwd").stdout == "/\n"


def test_capabilities_work_in_it(root: ThrowawayRoot) -> None:
    root.run("useradd", "--system", "somebody-new")
    root.run("cp", "/bin/cat", "/usr/local/bin/reading-cat")
    root.run("setcap", "cap_dac_read_search=ep", "/usr/local/bin/reading-cat")
    root.run("cat", "/etc/shadow", user="somebody-new", code=1)
    assert "root:" in root.run("reading-cat", "/etc/shadow", user="somebody-new").stdout


def test_what_was_started_in_it_ends_with_it() -> None:
    with throwaway_root.opened() as root:
        started = root.start("sh", "-c", "touch /run/started; exec sleep 1000")
        while not root.path("/run/started").exists():
            assert started.poll() is None
            time.sleep(0.01)
    assert started.wait(timeout=60) == -signal.SIGKILL
