"""A mail server that answers without end."""

from __future__ import annotations

import contextlib
import smtplib
import socketserver
import threading

import pytest

from tools.base.bounded_smtp import BoundedSMTP


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
