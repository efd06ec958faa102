from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from urllib3.util.ssltransport import SSLTransport

from tests.brt import ReportServer
from tools import requests_utils
from tools.base import watched_sockets
from tools.base.errors import ConfigError
from tools.reporting import brt
from tools.requests_utils import DeliveryError, Doubt, Limits

FORM = {"srvname": "srv.1", "result": "0"}


@pytest.fixture
def server() -> Iterator[ReportServer]:
    new_server = ReportServer()
    yield new_server
    new_server.close()


def post(url: str, waits: list[float], tries: int = 5, **limits: float) -> str:
    def attempt(limits: Limits) -> str:
        accept = brt.acknowledgement_check("srv.1")
        return requests_utils.post_form(url, FORM, accept=accept, limits=limits)

    return requests_utils.retried(attempt, tries=tries, limits=Limits(**limits), sleep=waits.append)


def attempts() -> bool:
    """Whether a thread of an attempt is still there after a moment."""
    threads = [one for one in threading.enumerate() if one.name == requests_utils.ATTEMPT]
    for thread in threads:
        thread.join(5)
    return any(thread.is_alive() for thread in threads)


@contextlib.contextmanager
def raw(*answers: bytes, then: str = "close") -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives each connection the next answer, byte for byte, then `then`."""
    requests: list[bytes] = []
    over = threading.Event()

    def serve(connection: socket.socket, answer: bytes) -> None:
        with connection, contextlib.suppress(OSError):
            request = b""
            while not request.endswith(b"result=0"):  # else closing resets the connection
                if not (piece := connection.recv(65536)):
                    return
                request += piece
            requests.append(request)
            connection.sendall(answer)
            if then == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            while then == "trickle" and not over.wait(0.02):
                connection.sendall(b"x")
            while then == "continue" and not over.wait(0.02):
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def listen() -> None:
        with contextlib.suppress(OSError):
            for number in itertools.count():
                answer = answers[min(number, len(answers) - 1)]
                threading.Thread(
                    target=serve, args=(listening.accept()[0], answer), daemon=True
                ).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/", requests
        over.set()


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
    with pytest.raises(DeliveryError, match="returned 500"):
        post(server.url, waits)
    assert (len(server.forms), len(waits)) == (5, 4)


def test_a_redirect_is_not_followed_and_not_tried_again(server: ReportServer) -> None:
    server.answers = ["redirect"]
    with pytest.raises(DeliveryError, match="redirects"):
        post(server.url, [])
    assert len(server.forms) == 1


def test_the_content_of_a_redirect_is_not_read() -> None:
    """Memory would be full long before it ends."""
    begin = b"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:9/\r\n\r\n" + b"x" * 4096
    with raw(begin, then="trickle") as (url, _), pytest.raises(DeliveryError, match="redirects"):
        post(url, [], tries=1, whole=5)


def test_an_answer_that_makes_no_sense_may_follow_a_form_that_arrived() -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nxx\r\n"
    with raw(answer) as (url, _), pytest.raises(DeliveryError, match="not understood") as caught:
        post(url, [], tries=1)
    assert caught.value.doubt is Doubt.AMBIGUOUS


def test_a_connection_through_a_proxy_with_tls_is_shut_down() -> None:
    """It is no socket: urllib3 wraps one that has TLS itself."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wrapped: Any = SSLTransport.__new__(SSLTransport)
        wrapped.socket = ours
        watched_sockets.shut_down(wrapped)
        assert theirs.recv(1) == b""


def test_a_server_that_hangs_is_given_up(server: ReportServer) -> None:
    server.answers = ["hang"]
    with pytest.raises(DeliveryError, match="timed out"):
        post(server.url, [], tries=2, read=0.3)
    assert len(server.forms) == 2


@pytest.mark.parametrize(
    ("begin", "then"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", "trickle"),
        (b"HTTP/1.1 200 OK\r\nX-Pad: ", "trickle"),
        (b"", "trickle"),
        (b"", "continue"),
    ],
)
def test_a_server_that_trickles_for_ever_is_given_up(begin: bytes, then: str) -> None:
    """In the body, in a header, in the first line: always a byte before the time is up."""
    with raw(begin, then=then) as (url, requests):
        with pytest.raises(DeliveryError, match=r"not complete after|too slow"):
            post(url, [], tries=2, whole=0.5)
        assert len(requests) == 2
        assert not attempts()


@pytest.mark.parametrize(
    ("code", "tries"),
    [
        (400, 1),
        (403, 1),
        (404, 1),
        (408, 3),
        (425, 3),
        (429, 3),
        (500, 3),
        (503, 3),
        (201, 1),
        (204, 1),
        (301, 1),
        (307, 1),
        (399, 1),
    ],
)
def test_which_codes_are_tried_again(code: int, tries: int) -> None:
    good = b"New Backup result added for server: srv.1. This backup ID is: 7."
    answer = b"HTTP/1.1 %d x\r\nLocation: /y\r\nConnection: close\r\n\r\n" % code + good
    with raw(answer) as (url, requests):
        with pytest.raises(DeliveryError, match=str(code)):
            post(url, [], tries=3)
        assert len(requests) == tries


def test_a_connection_that_is_reset_is_tried_again() -> None:
    waits: list[float] = []
    with raw(b"", then="reset") as (url, requests):
        with pytest.raises(DeliveryError, match=r"127.0.0.1:\d+: connection (reset|aborted)"):
            post(url, waits, tries=3)
        assert (len(requests), len(waits)) == (3, 2)


def test_no_answer_is_longer_than_its_bound() -> None:
    good = b"New Backup result added for server: srv.1. This backup ID is: 7."
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (1 << 20) + good
    with (
        raw(answer) as (url, _),
        pytest.raises(DeliveryError, match="unexpected response") as caught,
    ):
        post(url, [], tries=1)
    assert len(str(caught.value)) < 300


def test_the_budget_ends_the_tries_early(server: ReportServer) -> None:
    server.answers = ["down"]
    waits: list[float] = []
    with pytest.raises(DeliveryError, match="returned 500"):
        post(server.url, waits, budget=10.0)
    assert len(server.forms) == 2, "5 s fit into 10 s, 15 s do not"


def test_no_credentials_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hidden\n")
    monkeypatch.setenv("NETRC", str(netrc))
    refused = b"HTTP/1.1 404 x\r\nConnection: close\r\n\r\n"
    with raw(refused) as (url, requests), pytest.raises(DeliveryError):
        post(url, [], tries=1)
    assert b"authorization" not in requests[0].lower()


def test_the_key_of_another_address_is_named() -> None:
    with pytest.raises(ConfigError, match="OTHER_KEY"):
        requests_utils.post_form("x", FORM, accept=bool, key="OTHER_KEY")


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(DeliveryError, match=f"127.0.0.1:{port}: connection refused"):
        post(f"http://127.0.0.1:{port}/", [], tries=1)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://x/y",
        "http://",
        "x",
        "https://u:p@host/",
        "https://u@host/",
        "http://[::1",
        "http://h:99999/",
        "http://h:x/",
        "http://h:0/",
        "http://a b/",
        "http://h\n/",
    ],
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
    assert brt.acknowledgement_check("srv.1")(answer) is good


def test_an_answer_is_shown_without_what_could_harm_a_log() -> None:
    assert (
        requests_utils.printable("a\x1b[31m\n\u202eb" + "x" * 500)
        == ("a [31m b" + "x" * 500)[:200] + " ..."
    )


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 200, "got more than 100 headers"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * (1 << 17), "got more than 65536 bytes"),
        (b"a" * (1 << 17), "got more than 65536 bytes"),
    ],
)
def test_a_flood_of_headers_is_one_line(answer: bytes, says: str) -> None:
    with raw(answer) as (url, _), pytest.raises(DeliveryError, match=says) as caught:
        post(url, [], tries=1)
    assert str(caught.value).startswith("127.0.0.1:")
    assert len(str(caught.value)) < 300
