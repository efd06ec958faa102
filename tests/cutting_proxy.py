"""A proxy of TCP that cuts one connection after so many bytes, in one direction."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

UP, DOWN = "up", "down"  # to the server, and from it
_BLOCK = 4096
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST


class CuttingProxy:
    """Passes bytes on. After `cut` the connection that carries the byte at this place is reset."""

    def __init__(self, port: int) -> None:
        """port: of the server on this machine"""
        self._target = ("127.0.0.1", port)
        self._lock = threading.Lock()
        self._direction = ""
        self._bytes_left = 0
        self._for_good = False
        self._sockets: list[socket.socket] = []
        self.cuts = 0
        self.port = 0
        self.reopen()

    def reopen(self) -> None:
        """Accept connections, again on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self, direction: str, after: int, *, for_good: bool = False) -> None:
        """Reset the connection that carries the byte number `after` from now on.

        for_good: reset all of them and accept no more, as if the server had been killed
        """
        with self._lock:
            self._direction, self._bytes_left, self._for_good = direction, after, for_good

    def close(self) -> None:
        """Accept no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which ends accept()
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                for source, target, direction in ((near, far, UP), (far, near, DOWN)):
                    arguments = (source, target, direction)
                    threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(_BLOCK):
                passed = self._allowed(direction, len(block))
                target.sendall(block[:passed])
                if passed < len(block):
                    break
            else:
                target.shutdown(socket.SHUT_WR)
                return
        with self._lock:
            all_of_them, self._for_good = self._for_good and not self._direction, False
        if all_of_them:
            self.close()
        for one in (source, target, *(self._sockets if all_of_them else ())):
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.shutdown(socket.SHUT_RDWR)
                one.close()

    def _allowed(self, direction: str, size: int) -> int:
        """Return how many of the next bytes are passed on."""
        with self._lock:
            if direction != self._direction:
                return size
            self._bytes_left -= size
            if self._bytes_left > 0:
                return size
            self._direction = ""
            self.cuts += 1
            return self._bytes_left + size
