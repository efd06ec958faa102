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
from tools.base.run_result import RunResult, SectionResult
from tools.config.declarations import General
from tools.config.notify_keys import ENDS
from tools.modules.options import Duration
from tools.reporting import channels, delivery
from tools.reporting.brt import BackupReportingTool
from tools.reporting.channel import Message, Recipient
from tools.reporting.delivery import SpooledChannel
from tools.reporting.document import Document, run_document
from tools.reporting.spool import Spool
from tools.requests_utils import DeliveryError, Doubt, Limits

BEGIN = datetime(2026, 11, 23, tzinfo=timezone.utc)


def document(run_id: str) -> Document:
    return run_document(RunResult(run_id, "srv.1", BEGIN, 1.0, Status.OK))


def fields(run_id: str, log: str = "") -> dict[str, str]:
    return BackupReportingTool("").message(document(run_id), log)


def deliver(
    url: str, folder: Path, run_id: str, log: str = "", *, tries: int = 5, wait: float = 0.001
) -> str:
    """Deliver the report of a run through a BRT with a spool; how that went."""
    recipient = Recipient("brt", "report", BackupReportingTool(url), ENDS, wait)
    sender = SpooledChannel(recipient, Spool(folder / "reports"))
    return sender.deliver(document(run_id), log, tries)


def test_the_acknowledgement_comes_after_a_whole_log(server: ReportServer, tmp_path: Path) -> None:
    """Issue 11 D: the server prints 64 KiB and more before it acknowledges."""
    assert deliver(server.url, tmp_path, "1", "\u20ac" * REPORTED) == "delivered"
    assert len(server.accepted) == 1
    assert list((tmp_path / "reports").iterdir()) == []


def test_what_is_printed_is_no_acknowledgement(server: ReportServer, tmp_path: Path) -> None:
    """Issue 11 D: a log that holds an earlier acknowledgement proves nothing."""
    server.answers = ["silent"]
    log = "x New Backup result added for server: srv.1. This backup ID is: 7. y"
    assert deliver(server.url, tmp_path, "1", log, tries=1) == "kept"
    assert "This backup ID is: 7" in server.forms[0]["log"]


def test_a_refused_report_does_not_hold_the_next_one(server: ReportServer, tmp_path: Path) -> None:
    """Issue 11 D: one report that the server does not take poisons the spool no more."""
    server.refused = {"1"}
    assert deliver(server.url, tmp_path, "1") == "kept"
    assert deliver(server.url, tmp_path, "2") == "delivered"
    assert [form["run_id"] for form in server.accepted] == ["2"]
    server.refused = set()
    assert deliver(server.url, tmp_path, "3") == "delivered"
    assert [form["run_id"] for form in server.accepted] == ["2", "1", "3"]


@pytest.mark.parametrize("runs", [(5,), (2, 2, 2), (1, 5)])
def test_a_report_that_may_have_arrived_is_sent_five_times_in_all(
    server: ReportServer, tmp_path: Path, runs: tuple[int, ...]
) -> None:
    """Issue 11 D: over all runs; then it is put aside, and named."""
    server.answers = ["silent"]
    for number, tries in enumerate(runs):
        deliver(server.url, tmp_path, str(number), tries=tries)
    assert [form["run_id"] for form in server.accepted].count("0") == 5
    server.answers = ["good"]
    assert deliver(server.url, tmp_path, "9") == "delivered"
    assert [form["run_id"] for form in server.accepted].count("0") == 5
    (aside,) = (tmp_path / "reports").glob("0-*.unsure")
    assert json.loads(aside.read_text())["document"]["run_id"] == "0"


def test_tries_that_cannot_have_arrived_do_not_count(server: ReportServer, tmp_path: Path) -> None:
    """Issue 11 D: a server that is down for days, or says no, costs no report."""
    url = server.url
    for answer in ("down", "other"):
        server.answers = [answer]
        assert deliver(url, tmp_path, "1", tries=3) == "kept"
    server.close()
    for _ in range(3):
        assert deliver(url, tmp_path, "2", tries=3) == "kept"
    assert len(list((tmp_path / "reports").glob("*.json"))) == 5


def test_every_error_of_the_sending_thread_is_named(
    server: ReportServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Issue 11 D: certificates that are not there are no answer that does not end."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    monkeypatch.setattr("tools.base.log.logger.propagate", True)
    address = server.url.replace("http://", "https://")
    assert deliver(address, tmp_path, "1") == "kept"
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
    step = SectionResult("SIZE", "check", Result(Status.OK, "", size=size), 0.0)
    now = datetime(2026, 11, 23, tzinfo=timezone.utc)
    outcome = RunResult("1", "srv.1", now, 1.0, Status.OK, sections=(step,))
    assert BackupReportingTool("").message(run_document(outcome), "")["size"] == sent


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
    assert deliver(server.url, tmp_path, "2") == "delivered"
    assert [form["run_id"] for form in server.forms] == ["2"]
    assert sorted(path.name for path in spool.iterdir()) == ["0.bad", "1.bad"]
    assert target.exists()


def test_a_report_of_version_0_1_is_delivered(server: ReportServer, tmp_path: Path) -> None:
    """Issue 12, 8: the spool held the form alone, and its doubts beside it."""
    spool = tmp_path / "reports"
    spool.mkdir()
    for run_id, doubts in (("1", 0), ("2", 4), ("3", 5)):
        (spool / f"{run_id}-abc.json").write_text(json.dumps({**fields(run_id), "_doubts": doubts}))
    (spool / "4-abc.json").write_text(json.dumps(fields("4")))
    assert deliver(server.url, tmp_path, "5") == "delivered"
    assert [form["run_id"] for form in server.accepted] == ["1", "2", "4", "5"]
    assert "_doubts" not in server.forms[0]
    assert [path.name for path in spool.iterdir()] == ["3-abc.unsure"]


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"version": 2, "channel": "brt", "message": {}, "document": {}, "doubts": 0}',
        '{"version": 1, "channel": "brt", "message": {"a": 1}, "document": {}, "doubts": 0}',
        '{"version": 1, "channel": "brt", "message": {}, "document": [], "doubts": 0}',
        '{"version": 1, "channel": "brt", "message": {}, "document": {}, "doubts": true}',
        '{"srvname": "a", "_doubts": "many"}',
        "{" * 100_000,
    ],
)
def test_what_is_not_a_report_is_moved_aside(
    server: ReportServer, tmp_path: Path, content: str
) -> None:
    spool = tmp_path / "reports"
    spool.mkdir()
    (spool / "1.json").write_text(content)
    assert deliver(server.url, tmp_path, "2") == "delivered"
    assert len(server.forms) == 1
    assert [path.name for path in spool.iterdir()] == ["1.bad"]


@pytest.mark.parametrize(("answer", "expected"), [("good", "delivered"), ("down", "lost")])
def test_a_report_that_cannot_be_kept_is_sent_and_never_called_kept(
    server: ReportServer, tmp_path: Path, answer: str, expected: str
) -> None:
    """Issue 12, 8: a full disk; it was called kept, and was neither kept nor sent."""
    (tmp_path / "reports").write_text("a file where the spool should be")
    server.answers = [answer]
    assert deliver(server.url, tmp_path, "1", tries=2) == expected


def test_the_spool_keeps_the_document(server: ReportServer, tmp_path: Path) -> None:
    server.answers = ["down"]
    assert deliver(server.url, tmp_path, "1", tries=1) == "kept"
    (path,) = (tmp_path / "reports").iterdir()
    entry = json.loads(path.read_text())
    assert entry["document"] == document("1")
    assert (entry["version"], entry["channel"], entry["doubts"]) == (1, "brt", 0)


class Postcard:
    """A toy channel: writes the document into a folder, or fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def message(self, document: Document, log: str) -> dict[str, str]:
        return {"text": f"{document['hostname']}: {document['status']}", "name": log}

    def send(self, message: Message, limits: Limits) -> str:
        if not self.folder.is_dir():
            raise DeliveryError("no letter box", doubt=Doubt.UNSENT)
        (self.folder / message["name"]).write_text(message["text"])
        return "posted"


def test_a_new_channel_is_one_file_and_one_row(
    server: ReportServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 12, 8: retries and spool are those of every channel; channels do not disturb others."""
    letters = tmp_path / "letters"
    table = {**channels.CHANNELS, "postcard": lambda _general: Postcard(letters)}
    monkeypatch.setattr(channels, "CHANNELS", table)
    general = General("srv.1", message_config_command=server.url, message_config_wait=Duration(0.0))
    recipients = channels.configured(general)
    assert delivery.deliver(recipients, document("1"), "first", tmp_path, tries=2) == {
        "brt": "delivered",
        "postcard": "kept",
    }
    letters.mkdir()
    server.answers = ["down"]
    assert delivery.deliver(recipients, document("2"), "second", tmp_path, tries=2) == {
        "brt": "kept",
        "postcard": "delivered",
    }
    assert {path.name: path.read_text() for path in letters.iterdir()} == {
        "first": "srv.1: ok",
        "second": "srv.1: ok",
    }
    (waiting,) = (tmp_path / "reports").glob("*.json")
    assert json.loads(waiting.read_text())["channel"] == "brt"


def test_notices_come_first_in_the_log() -> None:
    """Issue 16: what clean-up says of items without a good copy, however long the log is."""
    result = Result(Status.OK, "", notices=("A has no good copy since 2026-01-01",))
    section = SectionResult("CLEANUP", "cleanup", result)
    run = RunResult("1", "srv.1", BEGIN, 1.0, Status.OK, (section,))
    log = BackupReportingTool("").message(run_document(run), "x" * (1 << 20))["log"]
    assert log.startswith("note: CLEANUP: A has no good copy since 2026-01-01\nxxx")
    assert len(log) == REPORTED
