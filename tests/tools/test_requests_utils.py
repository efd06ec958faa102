from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.brt import ReportServer
from tools import report, requests_utils
from tools.errors import ConfigError
from tools.requests_utils import DeliveryError

FORM = {"srvname": "srv.1", "result": "0"}


@pytest.fixture
def server() -> Iterator[ReportServer]:
    opened = ReportServer()
    yield opened
    opened.close()


def post(url: str, waits: list[float], tries: int = 5) -> str:
    accept = report.acknowledged("srv.1")
    return requests_utils.post_form(url, FORM, accept=accept, tries=tries, sleep=waits.append)


def test_acknowledged_at_once(server: ReportServer) -> None:
    waits: list[float] = []
    assert "backup ID is: 1" in post(server.url, waits)
    assert waits == []
    assert server.forms == [FORM]


@pytest.mark.parametrize("first", ["down", "other"])
def test_tried_again_with_growing_waits(server: ReportServer, first: str) -> None:
    waits: list[float] = []
    server.answers = [first, first, first, "good"]
    post(server.url, waits)
    assert len(server.forms) == 4
    assert waits[0] < waits[1] < waits[2]


def test_five_tries_and_no_more(server: ReportServer) -> None:
    waits: list[float] = []
    server.answers = ["down"]
    with pytest.raises(DeliveryError, match="answers 500"):
        post(server.url, waits)
    assert (len(server.forms), len(waits)) == (5, 4)


def test_a_redirect_is_not_followed_and_not_tried_again(server: ReportServer) -> None:
    server.answers = ["redirect"]
    with pytest.raises(DeliveryError, match="redirects"):
        post(server.url, [])
    assert len(server.forms) == 1


def test_a_server_that_hangs_is_given_up(
    server: ReportServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_utils, "_READ", 0.3)
    server.answers = ["hang"]
    with pytest.raises(DeliveryError, match="Timeout"):
        post(server.url, [], tries=2)
    assert len(server.forms) == 2


def test_a_server_that_trickles_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests_utils, "_TRY", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def trickle() -> None:
            connection, _ = listening.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            try:
                while True:
                    connection.sendall(b"x" * 1024)
                    threading.Event().wait(0.05)
            except OSError:
                connection.close()

        threading.Thread(target=trickle, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(DeliveryError, match=r"does not end|no acknowledgement"):
            post(url, [], tries=1)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(DeliveryError, match="ConnectionError"):
        post(f"http://127.0.0.1:{port}/", [], tries=1)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x/y", "http://", "x", "https://u:p@host/"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="MESSAGE_CONFIG_COMMAND") as caught:
        post(url, [])
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        ("New Backup result added for server: srv.1. This backup ID is: 7.", True),
        ("<p>New Backup result added for server: srv.1.\nThis backup ID is: 12345.</p>", True),
        ("New Backup result added for server: srvx1. This backup ID is: 7.", False),
        ("New Backup result added for server: other. This backup ID is: 7.", False),
        ("New Backup result added for server: srv.1. This backup ID is: .", False),
        ("ok", False),
        ("", False),
    ],
)
def test_what_counts_as_acknowledged(answer: str, good: bool) -> None:
    assert report.acknowledged("srv.1")(answer) is good


def test_an_answer_is_shown_without_what_could_harm_a_log() -> None:
    assert (
        requests_utils.shown("a\x1b[31m\nb" + "x" * 500) == ("a [31m b" + "x" * 500)[:200] + " ..."
    )
