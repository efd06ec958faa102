"""Real receivers of notifications: a mail server, and a server of HTTP that is strict.

What the HTTP server takes is what the real ones take: Healthchecks knows its check by a UUID, the
events start, fail, log and 0 to 255, and a `rid` that is a UUID; it keeps 10 kB of a body. ntfy
takes JSON with a topic on its root, and a message of at most 4,096 bytes.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import socket
import ssl
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from tests.mail_server import Mailbox

USER, PASSWORD = "backup@example.com", "correct horse battery"
CHECK = "5bf66975-d4c7-4bf5-bcc8-b8d8a82ea278"
_KEPT = 10_000  # bytes of a ping's body
_MOST_NTFY = 4_096


@dataclass(frozen=True)
class Request:
    """One request as it came: `form` of its query."""

    method: str
    path: str
    form: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """Answers as `answer` says: "good", "down", "redirect", "hang" or "endless"."""

    def __init__(self, answer: str = "good", context: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.accepted: list[Request] = []
        self._released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.handle(self)

            do_GET = do_POST  # noqa: N815  (its name)

            def log_message(self, *args: object) -> None:
                """Stay quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        scheme = "http"
        if context is not None:
            scheme = "https"
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"{scheme}://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        size = int(handler.headers.get("Content-Length", 0))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        form = parse_qs(parts.query, keep_blank_values=True)
        request = Request(handler.command, parts.path, form, headers, handler.rfile.read(size))
        self.requests.append(request)
        if self.answer == "hang":
            self._released.wait(30)
            return
        status, text = judged(request) if self.answer in ("good", "endless") else (500, "down")
        if self.answer == "redirect":
            status = 302
        if status == 200:
            self.accepted.append(request)
        handler.send_response(status)
        handler.send_header("Location", "/elsewhere")
        handler.end_headers()
        handler.wfile.write(text.encode())
        while self.answer == "endless" and not self._released.wait(0.02):
            handler.wfile.write(b"more ")

    def close(self) -> None:
        self._released.set()
        self._http.shutdown()
        self._http.server_close()


def judged(request: Request) -> tuple[int, str]:
    """Return status and text of the answer of the real service."""
    if request.path.startswith("/ping/"):
        return _ping(request)
    if request.path == "/":
        return _ntfy(request)
    if request.method != "POST":
        return 405, "method not allowed"
    return (200, "ok") if _is_json(request) else (400, "invalid_payload")


def _ping(request: Request) -> tuple[int, str]:
    match = re.fullmatch(r"/ping/([0-9a-f-]{36})(/start|/fail|/log|/\d{1,3})?", request.path)
    if not match or match[1] != CHECK:
        return 404, "(not found)"
    code = (match[2] or "/0")[1:]
    if code.isdigit() and int(code) > 255:
        return 400, "invalid url format"
    for rid in request.form.get("rid", []):
        try:
            if str(uuid.UUID(rid)) != rid:
                raise ValueError(rid)
        except ValueError:
            return 400, "invalid uuid format"
    return 200, "OK"


def kept(request: Request) -> str:
    """What Healthchecks keeps of the body of a ping."""
    return request.body[:_KEPT].decode()


def _ntfy(request: Request) -> tuple[int, str]:
    if not _is_json(request):
        return 400, "invalid request: request body must be message JSON"
    message = request.json
    good = re.fullmatch(r"[-_A-Za-z0-9]{1,64}", str(message.get("topic")))
    if not good or message.get("priority") not in (1, 2, 3, 4, 5):
        return 400, "invalid request"
    if len(message["message"].encode()) > _MOST_NTFY:
        return 413, "message too large"
    authorized = request.headers.get("authorization") in ("Bearer tk_1234567890", None)
    return (200, "{}") if authorized else (401, "unauthorized")


def _is_json(request: Request) -> bool:
    try:
        return isinstance(request.json, dict)
    except ValueError:
        return False


@contextmanager
def receiver(answer: str = "good", context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver on a free port."""
    opened = Receiver(answer, context)
    try:
        yield opened
    finally:
        opened.close()


# --- mail


@contextmanager
def mail_server(security: str = "none", context: ssl.SSLContext | None = None) -> Iterator[Mailbox]:
    """A mail server: "starttls" and "tls" want a login, "none" offers neither."""
    from tests import mail_server  # aiosmtpd is installed for one Python only

    with mail_server.opened(security, context) as mailbox:
        yield mailbox


@contextmanager
def silent_server(first: bytes = b"") -> Iterator[int]:
    """A server that accepts, sends `first`, and is silent; give its port."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(30)
        held = []

        def accept() -> None:
            while not ended.is_set():
                try:
                    connection = listening.accept()[0]
                except OSError:
                    return
                held.append(connection)
                connection.sendall(first)

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        ended.set()
        for connection in held:
            connection.close()


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1 and localhost, which is its own authority."""

    file: Path
    context: ssl.SSLContext


def certificate(folder: Path, address: str = "127.0.0.1", days: int = 1) -> Certificate:
    """A new certificate for this machine, or for another address. days: until its end."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(address))]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, private = folder / "certificate.pem", folder / "private.pem"
    file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, private)
    return Certificate(file, context)
