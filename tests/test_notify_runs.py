"""Whole runs that tell their channels: each outcome once, and never another result."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests import receivers
from tests.receivers import CHECK, Receiver
from tests.system import System, execute, wait_for
from tools.base import lock
from tools.commands import backup
from tools.engine import run, state


@pytest.fixture
def web() -> Iterator[Receiver]:
    with receivers.receiver() as opened:
        yield opened


def notified(system: System, web: Receiver, **more: Any) -> dict[str, Any]:
    """A small config with a monitor and a webhook."""
    (system.source / "a").write_text("a")
    return {
        "FILESET": execute("filesbackup", FILESET_INCLUDE=str(system.source)),
        "STORAGE_LOCAL": execute("storage", DESTINATION="local"),
        "NOTIFY": {
            "monitor": {"TYPE": "ping", "URL": f"{web.url}/ping/{CHECK}"},
            "hook": {"TYPE": "webhook", "URL": f"{web.url}/hook"},
        },
        **more,
    }


def events(web: Receiver) -> list[str]:
    """What the monitor and the webhook got: the end of the path, and the status."""
    return sorted(
        request.path.rpartition("/")[2]
        + (request.json["status"] if request.path == "/hook" else "")
        for request in web.requests
    )


def test_a_good_run(system: System, web: Receiver) -> None:
    system.configure(notified(system, web), STREAM="True")
    done = system.result()
    assert (done["exit_code"], done["stderr"]) == (0, "")
    assert done["reports"] == {"monitor": "delivered", "hook": "delivered"}
    assert events(web) == ["0", "hookok", "start"]
    assert web.requests[0].path.endswith("/start")
    assert len({str(request.form) for request in web.requests if request.form}) == 1
    assert web.requests == web.accepted


def test_a_wrong_config_is_told_by_the_channels_that_are_right(
    system: System, web: Receiver
) -> None:
    sections = notified(system, web)
    sections["NOTIFY"]["mail"] = {"TYPE": "email", "TO": "a@example.com"}
    sections["STORAGE_LOCAL"]["ACTION"] = "fly"
    system.configure(sections, WORK_FOLDER=7)
    done = system.run("-r")
    assert done.returncode == 2
    assert "WORK_FOLDER" in done.stderr
    system.configure(sections)
    done = system.run("-r")
    assert done.returncode == 2
    assert "NOTIFY.mail.FROM is required" in done.stderr
    assert "STORAGE_LOCAL.ACTION: 'fly'" in done.stderr
    assert "Traceback" not in done.stderr
    assert events(web) == ["2", "2", "hookrefused", "hookrefused"]


@pytest.mark.fault(
    "the mail server accepts and is silent, all other receivers are down",
    "the backup is stored, exit 4 in time",
)
def test_channels_that_are_all_dead(system: System, web: Receiver) -> None:
    """Issue 17, C36: the backup is stored, and the run ends in time with exit code 4."""
    sections = notified(system, web)
    with receivers.silent_server() as silent:
        mail: dict[str, Any] = {
            "TYPE": "email",
            "ON": "all",
            "TO": "a@example.com",
            "FROM": "a@example.com",
        }
        mail |= {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": silent, "TIMEOUT": "0.3"}
        sections["NOTIFY"]["mail"] = mail
        web.answer = "down"
        system.configure(sections, STREAM="True")
        done = system.result()
    assert (done["exit_code"], done["status"]) == (4, "unreported")
    assert done["reports"] == {"monitor": "lost", "hook": "kept", "mail": "kept"}
    assert "warning: report not delivered to monitor (lost; see the log)" in done["stderr"]
    assert "warning: report not delivered to hook, mail (kept; " in done["stderr"]
    assert system.stored()


def test_a_run_that_finds_another_one(system: System, web: Receiver) -> None:
    system.configure(notified(system, web))
    with lock.hold(state.folder(system.work) / "lock"):
        assert system.run("-r").returncode == 11
        assert system.run("-r", "--if-busy", "skip").returncode == 0
    assert events(web) == ["11", "hooklocked"]


def test_a_run_that_is_cancelled(system: System, web: Receiver) -> None:
    begun = system.folder / "begun"
    slow = system.script("slow", f"touch {begun}; exec sleep 60")
    system.configure({**notified(system, web), "SLOW": slow})
    with subprocess.Popen(system.command("-r")) as process:
        wait_for(begun)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert events(web) == ["143", "hookterminated", "start"]


def test_a_run_that_crashes(system: System, web: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    system.configure(notified(system, web))
    monkeypatch.setattr(run, "perform", bug)
    assert backup.main(["-r", "-c", str(system.conf)]) == 1
    (hook,) = (request.json for request in web.requests if request.path == "/hook")
    assert hook["problems"][0]["text"] == "internal error: ZeroDivisionError: a bug"
    assert events(web) == ["1", "hookfailed"]


def test_a_restore_is_told_but_not_to_a_monitor(system: System, web: Receiver) -> None:
    system.configure(notified(system, web), STREAM="True")
    assert system.run("-r").returncode == 0
    web.requests.clear()
    system.restored()
    assert events(web) == ["hookok"]
    assert web.requests[0].json["action"] == "restore"


def test_neither_a_plan_nor_a_module_shows_a_secret(system: System, web: Receiver) -> None:
    sections = notified(system, web)
    sections["NOTIFY"]["hook"]["TOKEN"] = "sesame-open-1"
    system.configure(sections)
    plan = system.run("-n", "--json")
    assert {"section": "NOTIFY"}.items() <= json.loads(plan.stdout)[-1].items()
    assert CHECK not in plan.stdout + plan.stderr
    assert "sesame" not in plan.stdout + plan.stderr
