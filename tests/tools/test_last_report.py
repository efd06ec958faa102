"""The report of a run that could not start: every channel, and servers that mean no good."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jsonschema
import pytest

from tests.brt import ReportServer
from tools.base import last_report, project
from tools.base.last_config import one_line

PROBLEM = "/opt/nc-backup-py/.venv lacks requests"
SECRET = "tk_3cret"


class Receiver:
    """An HTTP server that keeps what is posted to it, and answers with one status."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.posts.append((self.path, dict(self.headers), body))
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Stay quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    new_receiver = Receiver()
    yield new_receiver
    new_receiver.http.shutdown()
    new_receiver.http.server_close()


class Mail(socketserver.StreamRequestHandler):
    """A mail server of RFC 5321 that takes one mail, and knows no extension."""

    mails: list[str]

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline().decode():
            if line.upper().startswith("DATA"):
                self.wfile.write(b"354 go on\r\n")
                self.mails.append("".join(iter(lambda: self.rfile.readline().decode(), ".\r\n")))
            self.wfile.write(b"221 bye\r\n" if line.upper().startswith("QUIT") else b"250 ok\r\n")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_report, "_PAUSES", ())
    monkeypatch.setattr(last_report, "_LONGEST", 2.0)


def sent(folder: Path, *argv: str, **config: object) -> None:
    path = folder / "conf.json"
    path.write_text(json.dumps({"GENERAL": {"HOSTNAME": "srv-x1"}, **config}))
    last_report.send([*(argv or ("-r",)), "-c", str(path)], PROBLEM)


def test_each_channel_gets_it(
    tmp_path: Path, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "token"
    token.write_text(SECRET + "\n")
    topic = tmp_path / "topic"
    topic.write_text(f"{receiver.url}/geheim-topic\n")
    hook = {"TYPE": "webhook", "URL": f"{receiver.url}/hook", "TOKEN": f"file:{token}"}
    template = {"text": "{summary}", "code": "{exit_code}", "as_is": "{unknown}"}
    channels = {
        "hook": hook,
        "chat": {"TYPE": "webhook", "URL": f"{receiver.url}/chat", "TEMPLATE": template},
        "monitor": {"TYPE": "ping", "URL": f"{receiver.url}/check"},
        "phone": {"TYPE": "ntfy", "URL": f"file:{topic}", "USER": "me", "PASSWORD": "pass-word"},
        "quiet": {"TYPE": "ping", "URL": f"{receiver.url}/quiet", "ON": ["success"]},
    }
    sent(tmp_path, NOTIFY=channels)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"report: {name}: delivered" for name in ("chat", "hook", "monitor", "phone")]
    posts = {path.partition("?")[0]: (headers, body) for path, headers, body in receiver.posts}
    assert set(posts) == {"/hook", "/chat", "/check/1", "/geheim-topic"}
    assert posts["/hook"][0]["Authorization"] == f"Bearer {SECRET}"
    document = json.loads(posts["/hook"][1])
    schema = json.loads((project.ROOT / "docs/run.schema.json").read_text())
    jsonschema.validate(document, schema)
    assert (document["status"], document["problems"][0]["text"]) == ("failed", PROBLEM)
    summary = f"[srv-x1] backup failed: {PROBLEM}"
    assert json.loads(posts["/chat"][1]) == {"text": summary, "code": 1, "as_is": "{unknown}"}
    assert posts["/geheim-topic"][0]["Title"] == summary


def test_a_mail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Mail.mails = []
    with socketserver.TCPServer(("127.0.0.1", 0), Mail) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        channel = {"TYPE": "email", "TO": ["a@x.org", "b@x.org"], "FROM": "c@x.org"}
        channel |= {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(server.server_address[1])}
        sent(tmp_path, NOTIFY={"mail": channel})
    assert capsys.readouterr().err == "report: mail: delivered\n"
    assert "Subject: [srv-x1] backup failed: " in Mail.mails[0]
    assert "To: a@x.org, b@x.org" in Mail.mails[0]


def test_neither_login_nor_mail_goes_to_a_server_without_encryption(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Mail.mails = []
    with socketserver.TCPServer(("127.0.0.1", 0), Mail) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        channel = {"TYPE": "email", "TO": "a@x.org", "FROM": "c@x.org", "SMTP_HOST": "127.0.0.1"}
        channel |= {"SMTP_PORT": str(server.server_address[1]), "SMTP_SECURITY": "starttls"}
        sent(tmp_path, NOTIFY={"mail": channel})
    assert (
        "report: mail: not delivered: 127.0.0.1: SMTPNotSupportedError" in capsys.readouterr().err
    )
    assert Mail.mails == []


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["redirect", "other", "down", "hang"])
def test_only_the_documented_answer_counts(
    answer: str, tmp_path: Path, server: ReportServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [answer]
    general = {"HOSTNAME": "srv-x1", "MESSAGE_CONFIG_COMMAND": server.url}
    sent(tmp_path, GENERAL=general)
    server.released.set()
    error = capsys.readouterr().err
    assert error.startswith("report: report server: ")
    assert "delivered" not in error.replace("not delivered", "")
    assert len(server.forms) == 1


def test_a_redirect_is_not_followed(
    tmp_path: Path, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.status = 307
    receiver.headers["Location"] = f"{receiver.url}/elsewhere"
    sent(tmp_path, NOTIFY={"hook": {"TYPE": "webhook", "URL": f"{receiver.url}/hook"}})
    assert [path for path, _, _ in receiver.posts] == ["/hook"]
    assert "returned 307; redirects are not followed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"a": {"TYPE": "ping", "URL": "file:///etc/passwd"}}, "URL must begin with https://"),
        (
            {"a": {"TYPE": "ping", "URL": "env:NOT_SET_HERE"}},
            "the variable NOT_SET_HERE is not set",
        ),
        ({"a": {"TYPE": "ping"}}, "'URL' is missing"),
        ({"a": {"TYPE": "email", "TO": 3}}, "not delivered"),
        ({"a": {"TYPE": "ping", "URL": "http://127.0.0.1:1/\r\nx: y"}}, "not delivered"),
        ({"a": {"TYPE": ["ping"]}, "b": 3, "c": {"TYPE": "ping", "ON": 5}}, "has no channel"),
        ({"ACTION": "execute", "NAME": "user_module"}, "has no channel"),
        ({"a": {"TYPE": "webhook", "URL": f"http://127.0.0.1:1/{SECRET}"}}, "Connection refused"),
        ({"a": {"TYPE": "webhook", "URL": f"http://127.0.0.1:1/ {SECRET}"}}, "must not contain"),
        ({"a": {"TYPE": "ping", "URL": f"http://127.0.0.1:{SECRET}/"}}, "not valid"),
        (
            {"a": {"TYPE": "ntfy", "URL": "http://127.0.0.1:1/t", "TOKEN": f"x\r{SECRET}"}},
            "Authorization: holds a line break",
        ),
    ],
)
def test_a_bad_channel_is_one_line(
    channels: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent(tmp_path, NOTIFY=channels)
    error = capsys.readouterr().err
    assert error.startswith("report: ")
    assert message in error
    assert SECRET not in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"GENERAL": 3, "NOTIFY": 4}', "\udcff", "[" * 9**5]
)
def test_a_config_that_is_none_is_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf.json").write_text(text, errors="surrogateescape")
    last_report.send(["-r", "-c", str(tmp_path / "conf.json")], PROBLEM)
    error = capsys.readouterr().err
    assert error.startswith("report: not sent: ")
    assert error.count("\n") == 1


def test_what_others_could_have_written_is_not_believed(
    tmp_path: Path, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    """The config, what it includes, and files of secrets."""
    channel = {"TYPE": "ping", "URL": f"{receiver.url}/check"}
    (tmp_path / "part.json").write_text(json.dumps({"NOTIFY": {"a": channel}}))
    (tmp_path / "part.json").chmod(0o666)
    sent(tmp_path, INCLUDE=["part.json"])
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "token").chmod(0o666)
    sent(tmp_path, NOTIFY={"a": {**channel, "TYPE": "ntfy", "TOKEN": f"file:{tmp_path}/token"}})
    (tmp_path / "conf.json").chmod(0o666)
    last_report.send(["-r", "-c", str(tmp_path / "conf.json")], PROBLEM)
    first, second, third = capsys.readouterr().err.splitlines()
    assert "has no channel" in first
    assert "token is writable by everybody" in second
    assert "conf.json is writable by everybody" in third
    for name in ("part.json", "conf.json"):
        (tmp_path / name).chmod(0o644)
    sent(tmp_path, INCLUDE="part.json")
    assert len(receiver.posts) == 1


@pytest.mark.parametrize("arguments", ["-t", "-n", "--version", "-t -v"])
def test_only_a_run_is_reported(
    arguments: str, tmp_path: Path, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    sent(tmp_path, *arguments.split(), NOTIFY={"a": {"TYPE": "ping", "URL": receiver.url}})
    assert capsys.readouterr().err == ""
    assert receiver.posts == []


def test_an_answer_that_never_ends_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte at a time is no silence: the whole has a limit."""
    monkeypatch.setattr(last_report, "_LONGEST", 0.5)
    stop = threading.Event()

    class Dripping(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not stop.wait(0.05):
                self.wfile.write(b"x")
                self.wfile.flush()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dripping) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        sent(tmp_path, NOTIFY={"a": {"TYPE": "ping", "URL": url}})
        stop.set()
        server.shutdown()
    assert capsys.readouterr().err == "report: a: no answer in 0 s\n"


def test_no_character_steers_a_terminal() -> None:
    assert one_line("a\x1b[31m\x9b\u2067\u200e\né") == "a?[31m????é"
