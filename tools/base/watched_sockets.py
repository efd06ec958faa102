"""Sockets that another thread can shut down, so that nobody waits for a server for ever."""

from __future__ import annotations

import contextlib
import http.client
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import requests


def shut_down(sock: socket.socket) -> None:
    """End the wait of another thread for a socket; TLS is not shut down."""
    of_tls_in_tls = getattr(sock, "socket", sock)  # urllib3 wraps it, by a proxy with TLS
    with contextlib.suppress(OSError):  # it may have ended meanwhile
        socket.socket.shutdown(of_tls_in_tls, socket.SHUT_RDWR)


class WatchedSockets:
    """The sockets of one attempt, by which another thread ends it.

    http.client waits for ever behind a server that sends `100 Continue` for ever: each of its
    bytes comes in time.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._over = False

    def response(self, sock: socket.socket, method: str = "") -> http.client.HTTPResponse:
        """Return the response that will be read from a socket, as http.client makes it."""
        self._sockets.append(sock)
        if self._over:  # it was connected after that
            self.end()
        return http.client.HTTPResponse(sock, method=method or None)

    def watch(self, opened: requests.Session) -> None:
        """Have the connections of a session make their responses here."""
        from requests.adapters import HTTPAdapter

        class Watched(HTTPAdapter):
            def get_connection_with_tls_context(adapter, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401, N805
                pool: Any = super().get_connection_with_tls_context(*arguments, **options)
                attributes = {"response_class": self.response}
                pool.ConnectionCls = type("Watched", (pool.ConnectionCls,), attributes)
                return pool

        for scheme in ("http://", "https://"):
            opened.mount(scheme, Watched())

    def end(self) -> None:
        """End every wait for a response, also those that begin later."""
        self._over = True
        for sock in self._sockets:
            shut_down(sock)
