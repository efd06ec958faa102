"""The report: a server that prints what it got, refuses one, takes one without a word."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests.brt import ReportServer
from tools.base.log import REPORTED
from tools.base.result import Result, Status
from tools.base.run_result import Outcome, Step
from tools.reporting import brt
from tools.reporting.brt import Reporter


def fields(run_id: str, log: str = "") -> dict[str, str]:
    now = datetime(2026, 11, 23, tzinfo=timezone.utc)
    return brt.form(Outcome(run_id, "srv.1", now, 1.0, Status.OK), log)


def test_the_acknowledgement_comes_after_a_whole_log(server: ReportServer, tmp_path: Path) -> None:
    """Issue 11 D: the server prints 64 KiB and more before it acknowledges."""
    reporter = Reporter(server.url, tmp_path, 0.01)
    assert reporter.deliver(fields("1", "\u20ac" * REPORTED)) == "delivered"
    assert len(server.accepted) == 1
    assert list((tmp_path / "reports").iterdir()) == []


def test_what_is_printed_is_no_acknowledgement(server: ReportServer, tmp_path: Path) -> None:
    """Issue 11 D: a log that holds an earlier acknowledgement proves nothing."""
    server.answers = ["silent"]
    log = "x New Backup result added for server: srv.1. This backup ID is: 7. y"
    assert Reporter(server.url, tmp_path, 0.01).deliver(fields("1", log), tries=1) == "kept"
    assert "This backup ID is: 7" in server.forms[0]["log"]


def test_a_refused_report_does_not_hold_the_next_one(server: ReportServer, tmp_path: Path) -> None:
    """Issue 11 D: one report that the server does not take poisons the spool no more."""
    server.refused = {"1"}
    assert Reporter(server.url, tmp_path, 0.01).deliver(fields("1")) == "kept"
    assert Reporter(server.url, tmp_path, 0.01).deliver(fields("2")) == "delivered"
    assert [form["run_id"] for form in server.accepted] == ["2"]
    server.refused = set()
    assert Reporter(server.url, tmp_path, 0.01).deliver(fields("3")) == "delivered"
    assert [form["run_id"] for form in server.accepted] == ["2", "1", "3"]


@pytest.mark.parametrize("runs", [(5,), (2, 2, 2), (1, 5)])
def test_a_report_that_may_have_arrived_is_sent_five_times_in_all(
    server: ReportServer, tmp_path: Path, runs: tuple[int, ...]
) -> None:
    """Issue 11 D: over all runs; then it is put aside, and named."""
    server.answers = ["silent"]
    for number, tries in enumerate(runs):
        Reporter(server.url, tmp_path, 0.001).deliver(fields(str(number)), tries=tries)
    assert [form["run_id"] for form in server.accepted].count("0") == 5
    server.answers = ["good"]
    assert Reporter(server.url, tmp_path, 0.001).deliver(fields("9")) == "delivered"
    assert [form["run_id"] for form in server.accepted].count("0") == 5
    (aside,) = (tmp_path / "reports").glob("0-*.unsure")
    assert json.loads(aside.read_text())["run_id"] == "0"


def test_tries_that_cannot_have_arrived_do_not_count(server: ReportServer, tmp_path: Path) -> None:
    """Issue 11 D: a server that is down for days, or says no, costs no report."""
    url = server.url
    for answer in ("down", "other"):
        server.answers = [answer]
        assert Reporter(url, tmp_path, 0.001).deliver(fields("1"), tries=3) == "kept"
    server.close()
    for _ in range(3):
        assert Reporter(url, tmp_path, 0.001).deliver(fields("2"), tries=3) == "kept"
    assert len(list((tmp_path / "reports").glob("*.json"))) == 5


def test_every_error_of_the_sending_thread_is_named(
    server: ReportServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Issue 11 D: certificates that are not there are no answer that does not end."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    monkeypatch.setattr("tools.base.log.logger.propagate", True)
    address = server.url.replace("http://", "https://")
    assert Reporter(address, tmp_path, 0.001).deliver(fields("1")) == "kept"
    assert "/nonexistent" in caplog.text
    assert "does not end" not in caplog.text
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("size", "sent"),
    [
        ("512 B", "0.50 KB"),
        ("0 B", "0.00 KB"),
        ("1.42 KB", "1.42 KB"),
        ("4.39 GB", "4.39 GB"),
        ("1.50 PB", "1536.00 TB"),
        ("N/A", "N/A"),
        ("many", "many"),
    ],
)
def test_sizes_are_in_units_that_the_server_knows(size: str, sent: str) -> None:
    """Issue 11 D: it takes bytes for KB."""
    step = Step("SIZE", "check", Result(Status.OK, "", size=size), 0.0)
    now = datetime(2026, 11, 23, tzinfo=timezone.utc)
    outcome = Outcome("1", "srv.1", now, 1.0, Status.OK, steps=(step,))
    assert brt.form(outcome, "")["size"] == sent


@pytest.mark.needs("root")
def test_a_planted_report_is_not_sent(server: ReportServer, tmp_path: Path) -> None:
    """Issue 11 C: nor one through a link."""
    spool = tmp_path / "reports"
    spool.mkdir()
    target = tmp_path / "target"
    target.write_text(json.dumps(fields("1")))
    (spool / "0.json").symlink_to(target)
    (spool / "1.json").write_text(json.dumps(fields("1")))
    os.chown(spool / "1.json", 12345, 12345)
    assert Reporter(server.url, tmp_path, 0.001).deliver(fields("2")) == "delivered"
    assert [form["run_id"] for form in server.forms] == ["2"]
    assert sorted(path.name for path in spool.iterdir()) == ["0.bad", "1.bad"]
    assert target.exists()
