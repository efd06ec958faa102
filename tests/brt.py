"""A real HTTP server that answers as the documented report server does, or misbehaves."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs


class ReportServer:
    """Collects the reports posted to it; `answers` says how the next ones are answered.

    Like the documented server it prints what it got before it acknowledges it. Each answer is
    "good", "other" (200 with something else), "silent" (stored, printed, not acknowledged),
    "redirect", "down" (500) or "hang"; the last one counts for all that follow. Reports of the
    runs in `refused` are answered as "other" whatever `answers` says.
    """

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers) or ["good"]
        self.refused: set[str] = set()
        self.forms: list[dict[str, str]] = []
        self.accepted: list[dict[str, str]] = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                body = self.rfile.read(size).decode()
                form = {k: v[0] for k, v in parse_qs(body, keep_blank_values=True).items()}
                outer.forms.append(form)
                outer.answer(self, form)

            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"Please log in. This backup ID is: none")

            def log_message(self, *args: object) -> None:
                """Stay quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/backup/new"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, form: dict[str, str]) -> None:
        kind = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        text = "<html>Please log in</html>"
        if form.get("run_id") in self.refused:
            kind = "other"
        if kind == "hang":
            self.released.wait(60)
            return
        if kind in ("good", "silent"):
            self.accepted.append(form)
            text = _printed(form)
        if kind == "good":
            text += (
                f"New Backup result added for server: {form['srvname']}. "
                f"This backup ID is: {len(self.accepted)}."
            )
        request.send_response({"redirect": 302, "down": 500}.get(kind, 200))
        if kind == "redirect":
            request.send_header("Location", "/login")
        request.end_headers()
        request.wfile.write(text.encode())

    def close(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()


def _printed(form: dict[str, str]) -> str:
    """What PHP's print_r makes of an array."""
    lines = "".join(f"    [{key}] => {value}\n" for key, value in form.items())
    return f"Array\n(\n{lines})\n"
