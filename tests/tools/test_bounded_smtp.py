"""A mail server that answers without end."""

from __future__ import annotations

import contextlib
import smtplib
import socketserver
import threading
import time

import pytest

from tools import requests_utils
from tools.base.bounded_smtp import BoundedSMTP
from tools.config.notify_keys import EmailKeys
from tools.reporting.smtp_mail import Email
from tools.requests_utils import DeliveryError, Limits


class Endless(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"220-more\r\n" * 1000)


def test_an_answer_without_end_is_left() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        host, port = server.server_address[:2]
        try:
            with pytest.raises(smtplib.SMTPServerDisconnected, match="more than 1048576 bytes"):
                BoundedSMTP(str(host), port, timeout=5)
        finally:
            server.shutdown()


class Slow(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"2")
                time.sleep(0.02)


def test_a_greeting_that_never_ends_is_left_in_time() -> None:
    """Also by the thread that reads it."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        port = int(server.server_address[1])
        keys = EmailKeys(type="email", to=("a@b",), from_="a@b", smtp_port=port)
        try:
            with pytest.raises(DeliveryError, match="not complete"):
                Email(keys).login(Limits(whole=0.3))
            for thread in threading.enumerate():
                if thread.name == requests_utils.ATTEMPT:
                    thread.join(5)
                    assert not thread.is_alive()
        finally:
            server.shutdown()
