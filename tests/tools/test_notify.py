"""NOTIFY: its keys, and channels against real receivers that work, refuse, hang and lie."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests import receivers
from tests.receivers import CHECK, PASSWORD, USER, Certificate, Receiver
from tools import requests_utils
from tools.base import masking, project
from tools.base.errors import ConfigError
from tools.base.result import Result, Status
from tools.base.run_result import RunOrigin, RunResult, SectionResult
from tools.base.secret import Secret
from tools.config import notify
from tools.config.declarations import General
from tools.config.include import Files
from tools.config.notify import NotifyChannel
from tools.config.notify_keys import TYPES, AppriseKeys, EmailKeys, Outcome
from tools.modules import key_tables
from tools.modules.options import Duration
from tools.reporting import apprise_service, channels, delivery, notify_checks, ping, summary
from tools.reporting.apprise_service import AppriseService
from tools.reporting.document import Document, run_document, start_document
from tools.reporting.smtp_mail import Email
from tools.requests_utils import DeliveryError, Doubt, Limits

PAGE = (project.ROOT / "docs/notify.md").read_text(encoding="utf-8")
BEGIN = datetime(2026, 11, 23, tzinfo=timezone.utc)
MAIL = {"TYPE": "email", "TO": "a@example.com", "FROM": "b@example.com"}
SHORT = Limits(connect=1.0, read=1.0, whole=1.0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return receivers.certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def web() -> Iterator[Receiver]:
    with receivers.receiver() as receiver:
        yield receiver


def read_section(
    folder: Path, section: Any
) -> tuple[tuple[NotifyChannel, ...], list[str], list[str]]:
    """Channels, errors with hints, and warnings of a NOTIFY section."""
    path = folder / "conf.json"
    path.write_text(json.dumps({"NOTIFY": section}, indent=1))
    warnings: list[str] = []
    merged = Files(insecure=True).merged(path)
    notify_channels, errors = notify.take(merged, warnings)
    assert "NOTIFY" not in merged
    return notify_channels, [f"{error} | {error.hint}" for error in errors], warnings


def one(folder: Path, **keys: Any) -> NotifyChannel:
    """One channel, its file secure."""
    notify_channels, errors, _ = read_section(folder, {"it": keys})
    assert errors == []
    return notify_channels[0]


def document(status: Status = Status.FAILED, text: str = "access denied", **more: Any) -> Document:
    section = SectionResult("DB", "source", Result(status, text, hint="Grant it."), 1.5)
    sections = () if status in (Status.LOCKED, Status.REFUSED) else (section,)
    message = "" if sections else text
    result = RunResult("20261123_030000", "srv-1", BEGIN, 3.0, status, sections, message)
    return run_document(replace(result, **more))


# --- the config


@pytest.mark.parametrize("kind", TYPES)
def test_the_page_has_every_key(kind: str) -> None:
    rows = key_tables.table(TYPES[kind]).splitlines()[2:]
    assert [row for row in rows if row not in PAGE and not row.startswith("| `ON`")] == []
    (on,) = (row for row in rows if row.startswith("| `ON`"))
    assert on.rpartition(" | ")[2] in PAGE  # its default depends on the type


def test_the_examples_of_the_page_are_valid(tmp_path: Path) -> None:
    examples = re.findall(r"^```json\n(.*?)^```$", PAGE, re.M | re.S)
    sections = [
        json.loads(text)["NOTIFY"] if text.startswith("{") else json.loads(f"{{{text}}}")
        for text in examples
    ]
    used = set()
    for section in sections:
        notify_channels, errors, warnings = read_section(tmp_path, section)
        assert (errors, warnings) == ([], [])
        used |= {channel.keys.type for channel in notify_channels}
    assert used == set(TYPES)


HOOK = {"TYPE": "webhook", "URL": "https://x.example/a"}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({}, r":3: NOTIFY.it.TYPE is missing \| Choose from: email, webhook"),
        ({"TYPE": "pigeon"}, r":4: NOTIFY.it.TYPE: 'pigeon': unknown type of channel \| Choose"),
        ({"TYPE": 7}, r":4: NOTIFY.it.TYPE: unknown type"),
        ([], r":3: NOTIFY.it: must be an object \| For example"),
        ({**HOOK, "UTL": 1}, r":6: NOTIFY.it.UTL: unknown key \| Did you mean URL\?"),
        ({"TYPE": "webhook"}, r"NOTIFY.it.URL is required"),
        ({**HOOK, "URL": ""}, r":5: NOTIFY.it.URL: is empty"),
        ({**HOOK, "URL": "ftp://x/y"}, r":5: NOTIFY.it.URL: must begin with http"),
        ({**HOOK, "URL": "http://u:pw@x/y"}, r":5: NOTIFY.it.URL: URL contains a user name"),
        ({**HOOK, "URL": "http://x/\r\nEvil: 1"}, r":5: NOTIFY.it.URL: not a URL"),
        ({**HOOK, "ON": "succes"}, r":6: NOTIFY.it.ON: 'succes': unknown outcome \| Choose"),
        ({**HOOK, "ON": []}, r":6: NOTIFY.it.ON: is empty"),
        ({**HOOK, "TIMEOUT": "1h"}, r":6: NOTIFY.it.TIMEOUT: must be more than 0"),
        ({**HOOK, "TEMPLATE": "x"}, r":6: NOTIFY.it.TEMPLATE: not a JSON object"),
        ({**HOOK, "TEMPLATE": {"a": ["{host}"]}}, r":6: NOTIFY.it.TEMPLATE: \{host\}: unkn"),
        ({**HOOK, "HEADERS": {"A b": "x"}}, r":6: NOTIFY.it.HEADERS: 'A b': not a header"),
        ({**HOOK, "HEADERS": {"A": "x\r\nB: y"}}, r":6: NOTIFY.it.HEADERS: 'A': not a header"),
        ({**HOOK, "HEADERS": {"Host": "x"}}, r":6: NOTIFY.it.HEADERS: 'Host': not a header"),
        ({**MAIL, "TO": "a@b\nBcc: c@d"}, r":5: NOTIFY.it.TO: 'Bcc:': not a mail address"),
        ({**MAIL, "FROM": "Me <a@b>"}, r":6: NOTIFY.it.FROM: 'Me <a@b>': not a mail address"),
        ({**MAIL, "SMTP_HOST": "a b"}, r":7: NOTIFY.it.SMTP_HOST: 'a b': not the name of"),
        ({**MAIL, "SMTP_PORT": 70000}, r":7: NOTIFY.it.SMTP_PORT: 70000: not a port"),
        ({**MAIL, "SMTP_SECURITY": "ssl"}, r":7: NOTIFY.it.SMTP_SECURITY: 'ssl' is not one of st"),
        ({**MAIL, "USER": "me"}, r":7: NOTIFY.it.USER: USER and PASSWORD belong together"),
        ({"TYPE": "ntfy", "URL": "https://ntfy.sh/"}, r":5: NOTIFY.it.URL: has no topic"),
        ({"TYPE": "apprise", "URL": "telegram"}, r":5: NOTIFY.it.URL: not a URL of Apprise"),
    ],
)  # fmt: skip
def test_a_wrong_channel_is_one_error_and_the_others_are_told(
    tmp_path: Path, keys: Any, says: str
) -> None:
    section = {"it": keys, "good": HOOK, "__note": "a comment"}
    notify_channels, errors, _ = read_section(tmp_path, section)
    assert len(errors) == 1
    assert re.search(says, errors[0]), errors[0]
    assert "\n" not in errors[0]
    assert [channel.name for channel in notify_channels] == ["good"]
    readable = notify.readable(Files(insecure=True).merged(tmp_path / "conf.json"))
    assert [channel.name for channel in readable] == ["good"]


def test_channels_are_merged_with_those_of_an_included_file(tmp_path: Path) -> None:
    """Key by key; TEMPLATE is one value."""
    shared = {"it": {**HOOK, "ON": "all", "TEMPLATE": {"a": "{status}", "b": "1"}}, "more": HOOK}
    including = {"it": {"ON": "failure", "TEMPLATE": {"c": "{hint}"}}}
    (tmp_path / "shared.json").write_text(json.dumps({"NOTIFY": shared}))
    (tmp_path / "conf.json").write_text(json.dumps({"INCLUDE": "shared.json", "NOTIFY": including}))
    notify_channels, errors = notify.take(Files(insecure=True).merged(tmp_path / "conf.json"), [])
    assert (errors, [channel.name for channel in notify_channels]) == ([], ["it", "more"])
    assert notify_channels[0].keys.on == ("failure",)
    assert notify_channels[0].keys.posted() == {"c": "{hint}"}  # type: ignore[attr-defined]


def test_a_section_that_is_not_an_object_is_named(tmp_path: Path) -> None:
    (tmp_path / "conf.json").write_text(json.dumps({"NOTIFY": []}))
    with pytest.raises(ConfigError, match="NOTIFY: a section must be an object") as caught:
        Files(insecure=True).merged(tmp_path / "conf.json")
    assert caught.value.hint == 'For example: "NOTIFY": {"mail": {"TYPE": "email", ...}}'


@pytest.mark.parametrize("name", ["brt", "", "a b", "x" * 51, "a/b"])
def test_a_name_that_no_channel_may_have(tmp_path: Path, name: str) -> None:
    _, errors, _ = read_section(tmp_path, {name: HOOK})
    assert "invalid name of a channel" in errors[0]


def test_channels_under_another_name_are_not_skipped(tmp_path: Path) -> None:
    path = tmp_path / "conf.json"
    path.write_text(json.dumps({"NOTIFI": {"it": HOOK}, "NOTIFY": {"ACTION": "execute"}}))
    merged = Files(insecure=True).merged(path)
    notify_channels, errors = notify.take(merged, [])
    assert (notify_channels, [error.hint for error in errors]) == ((), ["Rename it to NOTIFY."])
    assert list(merged) == ["NOTIFI", "NOTIFY"]  # one with ACTION is a section


def test_secrets_are_masked_and_named(tmp_path: Path) -> None:
    url = "https://chat.example/services/T0123456789abcdef0/x?key=0123456789abcdefXYZ"
    notify_channels, _, warnings = read_section(
        tmp_path,
        {
            "hook": {**HOOK, "URL": url, "HEADERS": {"X-Key": "s3cr3t-header"}, "TOKEN": "t0ken-x"},
            "mail": {**MAIL, "USER": "u", "PASSWORD": "pa55-word"},
        },
    )
    descriptions = [channel.description() for channel in notify_channels]
    assert descriptions == [
        "webhook to https://chat.example on all",
        "email to a@example.com by localhost:25 (none) on problems",
    ]
    secrets = ("T0123456789abcdef0", "0123456789abcdefXYZ", "s3cr3t-header", "t0ken-x", "pa55-word")
    for text in secrets:
        assert masking.text(f"a {text} b") == "a *** b"
    assert [line.partition("NOTIFY.")[2] for line in warnings] == [
        "hook.TOKEN: secret in the config; use env:NAME or file:/path instead",
        "mail.PASSWORD: secret in the config; use env:NAME or file:/path instead",
    ]


# --- texts


@pytest.mark.parametrize("size", [500_000, 10_000, 9_999, 10_001, 0])
def test_the_last_bytes_of_a_log_begin_a_line(size: int) -> None:
    """Issue 17, C37."""
    line = "2026-11-23 03:00:00,000 - ncbackup - INFO - \u00e4 file\n"
    log = (line * (size // len(line.encode()) + 1))[-size:] if size else ""
    cut = summary.tail(log, 10_000)
    assert len(cut.encode()) <= 10_000
    assert log.rstrip("\n").endswith(cut)
    assert len(cut) == len(log.rstrip("\n")) or cut.startswith("2026-11-23")
    assert not size >= 10_000 or len(cut.encode()) > 10_000 - 2 * len(line.encode())


def test_a_line_that_is_too_long_keeps_its_beginning() -> None:
    assert summary.tail("first\n" + "\u20ac" * 9_000 + "\n", 100) == "\u20ac" * 33


def test_a_mail_says_what_failed_what_it_means_and_what_to_do() -> None:
    report = document(text="access denied for backup@localhost")
    assert (
        summary.subject(report) == "[srv-1] backup failed: DB: access denied for backup@localhost"
    )
    text = summary.text(report)
    for part in (
        "Backup of srv-1: failed (exit code 1)",
        "Runs that were stored earlier are unchanged.",
        "error: DB: access denied for backup@localhost\n  hint: Grant it.",
        "Next: Follow the hints above",
        "DB  failed",
    ):
        assert part in text


def test_every_status_has_its_words() -> None:
    for status in Status:
        report = document(status)
        assert summary.subject(report).startswith("[srv-1] backup ")
        assert summary.text(report).endswith("\n")
    restored = summary.text(document(Status.OK, action="restore"))
    assert "Restore of srv-1: succeeded" in restored
    assert "Everything was restored." in restored


# --- mail


@pytest.mark.needs("aiosmtpd")
@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_a_mail_arrives(tmp_path: Path, certificate: Certificate, security: str) -> None:
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)
    login = {"USER": USER, "PASSWORD": f"file:{password}", "CA_FILE": str(certificate.file)}
    with receivers.mail_server(security, certificate.context) as box:
        keys = {**MAIL, "TO": ["a@example.com", "c@example.com"], "SMTP_PORT": box.port}
        keys |= {"SMTP_HOST": "127.0.0.1", "SMTP_SECURITY": security}
        channel = one(tmp_path, **keys, **(login if security != "none" else {}))
        evil = document(text="x\r\nBcc: evil@example.com\r\n\r\nbody \u20ac \udc80")
        mail = Email(channel.keys)  # type: ignore[arg-type]
        message = mail.message(evil, "a log line\n.\n" * 3)
        for _ in range(2):  # a repeated attempt
            mail.send(message, SHORT)
    first, second = box.mails
    assert first["Message-ID"] == second["Message-ID"]
    assert set(first.keys()) >= {"Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted"}
    assert (first["Bcc"], first["To"]) == (None, "a@example.com, c@example.com")
    assert first["Subject"].startswith("[srv-1] backup failed: DB: x")
    assert box.envelopes[0].rcpt_tos == ["a@example.com", "c@example.com"]
    assert box.logins == ([] if security == "none" else [USER, USER])
    body = first.get_content().replace("\r\n", "\n")
    assert body.replace("\n", "") == message["body"].replace("\n", "")
    assert body.endswith("The end of the log:\n" + "a log line\n.\n" * 3)
    assert first.get_content_type() == "text/plain"


@pytest.mark.needs("aiosmtpd")
def test_a_mail_goes_to_those_whom_the_server_takes(tmp_path: Path) -> None:
    with receivers.mail_server() as box:
        box.reject = "550 no such user here"
        keys = {**MAIL, "SMTP_HOST": "127.0.0.1", "SMTP_PORT": box.port}
        some = one(tmp_path, **{**keys, "TO": "a@example.com nobody@example.com"})
        mail = Email(some.keys)  # type: ignore[arg-type]
        mail.send(mail.message(document(), ""), SHORT)
        assert box.envelopes[0].rcpt_tos == ["a@example.com"]
        none = Email(one(tmp_path, **{**keys, "TO": "nobody@example.com"}).keys)  # type: ignore[arg-type]
        with pytest.raises(DeliveryError, match="550 no such user here") as caught:
            none.send(none.message(document(), ""), SHORT)
    assert (caught.value.again, caught.value.doubt) == (False, Doubt.REFUSED)


def failing_mail(fault: str, folder: Path, certificate: Certificate) -> DeliveryError:
    """The error of a mail to a server with a fault."""
    keys: dict[str, Any] = {**MAIL, "SMTP_HOST": "127.0.0.1", "SMTP_SECURITY": "starttls"}
    keys |= {"CA_FILE": str(certificate.file), "USER": USER, "PASSWORD": "wrong password"}
    if fault == "untrusted":
        del keys["CA_FILE"]

    def sent(port: int) -> DeliveryError:
        mail = Email(one(folder, **keys, SMTP_PORT=port).keys)  # type: ignore[arg-type]
        with pytest.raises(DeliveryError) as caught:
            mail.send(mail.message(document(), ""), SHORT)
        return caught.value

    if fault in ("silent", "banner only"):
        with receivers.silent_server(b"" if fault == "silent" else b"220 hello\r\n") as port:
            return sent(port)
    if fault == "closed":
        return sent(1)
    if fault == "no reply ends":
        with receivers.silent_server(b"220-" + b"x" * 500 + b"\r\n220-more\r\n") as port:
            return sent(port)
    security = "none" if fault in ("no STARTTLS", "plain text") else "starttls"
    if fault == "plain text":
        keys["SMTP_SECURITY"] = "tls"
    with receivers.mail_server(security, certificate.context) as box:
        error = sent(box.port)
    assert box.mails == []
    return error


@pytest.mark.needs("aiosmtpd")
@pytest.mark.parametrize(
    ("fault", "says", "again"),
    [
        ("closed", "refused", True),
        ("silent", "timed out|not complete", True),
        ("banner only", "timed out|not complete", True),
        ("no reply ends", "timed out|not complete", True),
        ("no STARTTLS", "server offers no starttls", False),
        ("untrusted", "certificate of the server: self.signed", False),
        ("plain text", "127.0.0.1:[0-9]+: the server does not speak TLS on this port", False),
        ("login", "login rejected: 535", False),
    ],
)
def test_a_mail_server_that_fails(
    tmp_path: Path, certificate: Certificate, fault: str, says: str, again: bool
) -> None:
    """Issue 17, C36."""
    began = time.monotonic()
    error = failing_mail(fault, tmp_path, certificate)
    assert time.monotonic() - began < 20
    assert re.search(says, str(error), re.I), error
    assert (error.again, error.doubt) == (again, Doubt.UNSENT)
    assert "wrong password" not in str(error)


# --- delivery to several channels


def all_of_them(folder: Path, web: str, **more: Any) -> tuple[NotifyChannel, ...]:
    """One channel of each type of HTTP, told of everything."""
    section: dict[str, dict[str, Any]] = {
        "hook": {"TYPE": "webhook", "URL": f"{web}/hook"},
        "chat": {"TYPE": "webhook", "URL": f"{web}/c", "TEMPLATE": {"t": ["{outcome}: {summary}"],
                 "code": "{exit_code}", "n": 1}},
        "monitor": {"TYPE": "ping", "URL": f"{web}/ping/{CHECK}"},
        "phone": {"TYPE": "ntfy", "ON": "all", "URL": f"{web}/topic", "TOKEN": "tk_1234567890"},
    }  # fmt: skip
    section = {name: {**keys, **more} for name, keys in section.items()}
    notify_channels, errors, _ = read_section(folder, section)
    assert errors == []
    return notify_channels


def delivered(
    folder: Path, notify_channels: tuple[NotifyChannel, ...], report: Document, tries: int = 2
) -> dict[str, str]:
    general = General("srv-1", message_config_wait=Duration(0.0))
    recipients = channels.configured(general, notify_channels)
    return delivery.deliver(recipients, report, "log\n", folder, tries)


def test_what_each_receiver_gets(web: Receiver, tmp_path: Path) -> None:
    report = document(text="\u20ac" * 5_000)
    results = delivered(tmp_path, all_of_them(tmp_path, web.url), report)
    assert results == dict.fromkeys(("hook", "chat", "monitor", "phone"), "delivered")
    requests = {request.path: request for request in web.accepted}
    assert len(web.requests) == len(web.accepted) == 4
    assert requests["/hook"].json == report
    chat = requests["/c"].json
    assert (chat["t"][0][:14], chat["code"], chat["n"]) == ("failure: [srv-", 1, 1)
    assert requests["/"].json["topic"] == "topic"
    assert requests["/"].json["priority"] == 4
    assert requests["/"].headers["authorization"] == "Bearer tk_1234567890"
    assert f"/ping/{CHECK}/1" in requests
    assert not list((tmp_path / "reports").iterdir())


@pytest.mark.parametrize("status", Status)
def test_each_outcome_is_told_once(web: Receiver, tmp_path: Path, status: Status) -> None:
    section = {
        word: {"TYPE": "webhook", "URL": f"{web.url}/{word}", "ON": word}
        for word in (*(outcome.value for outcome in Outcome), "all", "problems")
    }
    notify_channels, _, _ = read_section(tmp_path, section)
    results = delivered(tmp_path, notify_channels, document(status))
    outcome = summary.outcome(document(status))
    expected = {outcome.value, "all"}
    expected |= {"problems"} if outcome is not Outcome.SUCCESS else set()
    assert results == dict.fromkeys(expected, "delivered")
    assert sorted(request.path[1:] for request in web.requests) == sorted(expected)


def test_a_monitor_joins_start_and_end(web: Receiver, tmp_path: Path) -> None:
    notify_channels = all_of_them(tmp_path, web.url)
    general = General("srv-1", message_config_wait=Duration(0.0))
    recipients = channels.configured(general, notify_channels)
    announcement = delivery.Announcement()
    start = start_document("20261123_030000", "srv-1", BEGIN, RunOrigin())
    announcement.begin(recipients, start)
    announcement.finish()
    log = "2026 a line\n" * 50_000
    delivery.deliver(recipients, document(Status.INCOMPLETE), log, None)
    first, last = (request for request in web.requests if request.path.startswith("/ping"))
    assert (first.path, last.path) == (f"/ping/{CHECK}/start", f"/ping/{CHECK}/3")
    assert first.form == last.form == {"rid": [ping.run_uuid("srv-1", "20261123_030000")]}
    assert len(last.body) <= 10_000
    subject, _, lines = receivers.kept(last).partition("\n")
    assert subject.startswith("[srv-1] backup incomplete")
    assert set(lines.splitlines()) == {"2026 a line"}
    assert len(lines) > 9_800


@pytest.mark.parametrize("answer", ["down", "redirect", "hang", "endless"])
@pytest.mark.fault(
    "a receiver of notifications fails, redirects, hangs, or answers without end",
    "the other channels get theirs, in a bounded time",
)
def test_a_server_that_fails_costs_a_bounded_time(
    web: Receiver, tmp_path: Path, answer: str
) -> None:
    """Issue 17, C36. A ping is not kept: a monitor counts the time of arrival."""
    web.answer = answer
    began = time.monotonic()
    results = delivered(tmp_path, all_of_them(tmp_path, web.url, TIMEOUT="0.5"), document())
    assert time.monotonic() - began < 20
    assert results == {"hook": "kept", "chat": "kept", "phone": "kept", "monitor": "lost"}
    assert not [request for request in web.requests if request.path == "/elsewhere"]


def test_an_untrusted_certificate_is_not_talked_to(
    tmp_path: Path, certificate: Certificate
) -> None:
    with receivers.receiver(context=certificate.context) as web:
        results = delivered(tmp_path, all_of_them(tmp_path, web.url), document())
        assert set(results.values()) == {"kept", "lost"}
        assert web.requests == []


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("self-signed", "certificate of the server: self.signed certificate"),
        ("expired", "certificate of the server: certificate has expired"),
        ("other address", "certificate of the server: IP address mismatch"),
        ("plain text", "the server does not speak TLS on this port"),
    ],
)
def test_tls_that_fails_is_one_line_with_server_and_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, says: str
) -> None:
    address = "127.0.0.9" if fault == "other address" else "127.0.0.1"
    server_certificate = receivers.certificate(tmp_path, address, -1 if fault == "expired" else 1)
    if fault != "self-signed":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server_certificate.file))
    with receivers.receiver(
        context=None if fault == "plain text" else server_certificate.context
    ) as web:
        url = web.url.replace("http://", "https://")
        with pytest.raises(DeliveryError) as caught:
            requests_utils.post_body(url, b"{}", {}, SHORT)
        assert web.requests == []
    assert re.match(rf"{url.partition('//')[2]}: {says}", str(caught.value))
    assert (caught.value.again, caught.value.doubt) == (False, Doubt.UNSENT)
    assert "\n" not in str(caught.value)


def test_all_attempts_of_a_channel_end_within_its_budget(tmp_path: Path) -> None:
    """A mail server that is silent, or answers slowly, prolongs a run by that time alone."""
    with receivers.silent_server(b"220 hello\r\n") as port:
        keys = {**MAIL, "SMTP_HOST": "127.0.0.1", "SMTP_PORT": port, "SMTP_SECURITY": "none"}
        channel = one(tmp_path, **keys, TIMEOUT="0.4")
        general = General("srv-1", message_config_wait=Duration(300.0))
        (recipient,) = channels.configured(general, [channel]).values()
        assert (recipient.limits.budget, recipient.first_wait) == (60.0, 5.0)
        limits = replace(recipient.limits, budget=1.0)
        quick = replace(recipient, limits=limits, first_wait=0.2)
        began = time.monotonic()
        assert delivery.deliver({"it": quick}, document(), "", None) == {"it": "lost"}
        assert 0.4 < time.monotonic() - began < 3.0


def test_what_was_kept_is_sent_with_the_next_run(web: Receiver, tmp_path: Path) -> None:
    notify_channels = all_of_them(tmp_path, web.url)
    web.answer = "down"
    delivered(tmp_path, notify_channels, document(), 1)
    web.answer = "good"
    web.requests.clear()
    results = delivered(tmp_path, notify_channels, document(Status.OK, run_id="20261124_030000"))
    assert set(results.values()) == {"delivered"}
    statuses = [request.json["status"] for request in web.requests if request.path == "/hook"]
    assert statuses == ["failed", "ok"]
    pings = [request.path[-2:] for request in web.requests if request.path.startswith("/ping")]
    assert pings == ["/0"]


def test_reports_of_a_channel_that_left_the_config_go_after_30_days(
    web: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notify_channels = all_of_them(tmp_path, web.url)
    web.answer = "down"
    delivered(tmp_path, notify_channels, document(), 1)
    web.answer = "good"
    before = sorted((tmp_path / "reports").iterdir())
    hook = [channel for channel in notify_channels if channel.name == "hook"]
    delivered(tmp_path, tuple(hook), document(Status.OK))
    remaining = sorted((tmp_path / "reports").iterdir())
    assert (len(before), len(remaining)) == (3, 2)
    os.utime(remaining[0], times=(0, 0))
    delivered(tmp_path, tuple(hook), document(Status.OK))
    assert sorted((tmp_path / "reports").iterdir()) == remaining[1:]
    assert f"{remaining[0]}: its channel is no longer in the config, removed" in caplog.text


def test_a_channel_that_hangs_does_not_delay_the_others(tmp_path: Path) -> None:
    with receivers.receiver("hang") as slow, receivers.receiver() as fast:
        section = {
            "slow": {"TYPE": "webhook", "URL": f"{slow.url}/x", "TIMEOUT": "2"},
            "fast": {"TYPE": "webhook", "URL": f"{fast.url}/x"},
        }
        notify_channels, _, _ = read_section(tmp_path, section)
        moments: list[float] = []
        handle = fast.handle

        def timed(handler: BaseHTTPRequestHandler) -> None:
            moments.append(time.monotonic())
            handle(handler)

        fast.handle = timed  # type: ignore[method-assign]
        assert delivered(tmp_path, notify_channels, document(), 1) == {
            "slow": "kept",
            "fast": "delivered",
        }
        assert moments[0] < time.monotonic() - 0.5


def test_a_bug_in_a_channel_changes_nothing_else(
    web: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(ping.Ping, "send", broken)
    results = delivered(tmp_path, all_of_them(tmp_path, web.url), document())
    assert results == {
        "hook": "delivered", "chat": "delivered", "phone": "delivered", "monitor": "lost"
    }  # fmt: skip


def test_a_secret_that_cannot_be_read_is_named(
    web: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notify_channels = all_of_them(tmp_path, web.url, URL="file:/nonexistent/url")
    assert set(delivered(tmp_path, notify_channels, document()).values()) == {"kept", "lost"}
    assert "secret file:/nonexistent/url cannot be read" in caplog.text
    assert web.requests == []


@pytest.mark.needs("apprise")
def test_apprise(web: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = one(tmp_path, TYPE="apprise", URL=f"json{web.url[4:]}/x", ON="all", TIMEOUT=20)
    assert delivered(tmp_path, (channel,), document()) == {"it": "delivered"}
    assert web.accepted[0].json["title"].startswith("[srv-1] backup failed")
    assert web.accepted[0].json["type"] == "failure"
    web.answer = "down"
    assert delivered(tmp_path, (channel,), document(), 1) == {"it": "kept"}
    broken = tmp_path / "broken.py"
    broken.write_text("raise MemoryError")
    service = AppriseService(AppriseKeys(type="apprise", url=Secret("json://127.0.0.1:1/x")))
    message = {"title": "t", "body": "b", "kind": "info"}
    with monkeypatch.context() as changed:
        changed.setattr(apprise_service, "_PROCESS", str(broken))
        with pytest.raises(DeliveryError, match="code 1: MemoryError") as caught:
            service.send(message, Limits())
    assert caught.value.doubt is Doubt.AMBIGUOUS
    with receivers.receiver("endless") as other:
        channel = one(tmp_path, TYPE="apprise", URL=f"json{other.url[4:]}/x", ON="all", TIMEOUT=3)
        assert delivered(tmp_path, (channel,), document(), 1) != {"it": "delivered"}
    monkeypatch.setitem(sys.modules, "apprise", None)
    (line,) = notify_checks.tested([channel])
    assert line.text.endswith("NOTIFY.it: apprise: the package apprise is not installed")
    assert line.hint == "Install it: .venv/bin/pip install apprise"


# --- the test of the channels


@pytest.mark.needs("aiosmtpd")
def test_the_test_sends_nothing(web: Receiver, tmp_path: Path, certificate: Certificate) -> None:
    with receivers.mail_server("starttls", certificate.context) as box:
        mail = {**MAIL, "SMTP_HOST": "127.0.0.1", "SMTP_PORT": box.port, "USER": USER}
        mail |= {"SMTP_SECURITY": "starttls", "CA_FILE": str(certificate.file)}
        section = {
            "good": {**mail, "PASSWORD": PASSWORD},
            "wrong": {**mail, "PASSWORD": "wrong password"},
            "hook": {"TYPE": "webhook", "URL": f"{web.url}/x"},
            "gone": {"TYPE": "ping", "URL": "http://127.0.0.1:1/x"},
            "unknown": {"TYPE": "ntfy", "URL": "http://no-such-host.invalid/topic"},
            "unset": {"TYPE": "webhook", "URL": "env:NO_SUCH_VARIABLE"},
        }
        notify_channels, _, _ = read_section(tmp_path, section)
        lines = notify_checks.tested(notify_channels)
    texts = [f"{line.level.value} {line.text}" for line in lines]
    assert texts[0].startswith("ok good: logged in as backup@example.com at 127.0.0.1:")
    assert re.match(r"BAD .*conf.json:\d+: NOTIFY.wrong: 127.*login rejected: 535", texts[1])
    assert texts[2].startswith("ok hook: 127.0.0.1:")
    assert re.match(r"WARN .*NOTIFY.gone: 127.0.0.1:1: .*refused", texts[3])
    assert re.match(r"WARN .*NOTIFY.unknown: no-such-host.invalid:80: ", texts[4])
    assert re.match(r"BAD .*NOTIFY.unset: secret env:NO_SUCH_VARIABLE is not set", texts[5])
    assert (box.mails, web.requests) == ([], [])


@pytest.mark.parametrize(
    ("host", "security", "port"),
    [("localhost", "none", 25), ("::1", "none", 25), ("mail.example.com", "starttls", 587)],
)
def test_only_this_machine_gets_mail_without_encryption(
    host: str, security: str, port: int
) -> None:
    keys = EmailKeys(type="email", to=("a@b",), from_="a@b", smtp_host=host)
    assert (keys.security.value, keys.port) == (security, port)
