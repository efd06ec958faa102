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
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._direction = ""
        self._left = 0
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self, direction: str, after: int) -> None:
        """Reset the connection that carries the byte number `after` from now on."""
        with self._lock:
            self._direction, self._left = direction, after

    def close(self) -> None:
        """Accept no more."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                for source, target, direction in ((near, far, UP), (far, near, DOWN)):
                    words = (source, target, direction)
                    threading.Thread(target=self._pass_on, args=words, daemon=True).start()

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
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.shutdown(socket.SHUT_RDWR)
                one.close()

    def _allowed(self, direction: str, size: int) -> int:
        """Return how many of the next bytes are passed on."""
        with self._lock:
            if direction != self._direction:
                return size
            self._left -= size
            if self._left > 0:
                return size
            self._direction = ""
            self.cuts += 1
            return self._left + size
