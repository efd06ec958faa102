"""A program that root runs as another user: its time and what is kept of its output are bounded."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator

_CHUNK = 1 << 16  # bytes


class TooMuchError(Exception):
    """The program has printed more than is allowed."""


def output(process: subprocess.Popen[bytes], seconds: float, most: int) -> tuple[bytes, bytes]:
    """Return what a program prints until its end: standard output, the end of standard error.

    process: leads a session of its own, and its group is killed where it does not end by itself;
    both are pipes. Raises TooMuchError for more than `most` bytes on standard output,
    subprocess.TimeoutExpired where somebody holds the pipes longer than `seconds`.
    """
    pipes = (process.stdout, process.stderr)
    numbers = [pipe.fileno() for pipe in pipes if pipe is not None]
    outputs = {number: bytearray() for number in numbers}
    try:
        for number, chunk in _chunks(process, numbers, seconds):
            outputs[number] += chunk
            if len(outputs[number]) > most:
                if number == numbers[0]:
                    raise TooMuchError
                del outputs[number][: -most // 2]
        process.wait(seconds)
    finally:
        _end(process)
    return bytes(outputs[numbers[0]]), bytes(outputs[numbers[1]])


def _chunks(
    process: subprocess.Popen[bytes], numbers: list[int], seconds: float
) -> Iterator[tuple[int, bytes]]:
    """Yield what comes out of pipes, by their descriptors. Raises subprocess.TimeoutExpired."""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for number in numbers:
            selector.register(number, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(process.args, seconds)
            for key, _events in ready:
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fd)
                yield key.fd, chunk


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the group of a program that nobody has waited for, and close its pipes."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
