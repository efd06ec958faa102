"""Sources that take several servers: one that cannot be reached does not cost the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from tools.base import crash, finding
from tools.base.errors import BackupError, in_words
from tools.base.finding import Finding
from tools.flow import reachability
from tools.flow.item import Item

T = TypeVar("T")
KIND = "server"  # of an item that stands for a server and is never stored


@dataclass(frozen=True)
class Configured(Generic[T]):
    """One server of a config, not asked yet.

    label:   how messages name it ("port 3306")
    connect: asks the server; raises BackupError or OSError where it does not answer
    """

    label: str
    connect: Callable[[], T]


def label(port: int | None, host: str = "") -> str:
    """Return how messages name a server; no port means the one that its clients use."""
    name = "the default port" if port is None else f"port {port}"
    return f"{name} of {host}" if host else name


def items(
    servers: Iterable[Configured[T]], items_of: Callable[[T], Iterable[Item]]
) -> tuple[Item, ...]:
    """Return the items of every server.

    A server that cannot be asked becomes an item whose `read` raises the error, so that the
    section fails, names the server, and stores the items of the others.
    """
    collected: list[Item] = []
    for server in servers:
        try:
            connected = reachability.waited(server.label, server.connect)
            collected.extend(items_of(connected))
        except Exception as error:  # noqa: BLE001  (see crash.reportable)
            collected.append(_unavailable(server.label, crash.reportable(error)))
    return tuple(collected)


def test(
    servers: Iterable[Configured[T]], findings_of: Callable[[T], Iterable[str | Finding]]
) -> tuple[str | Finding, ...]:
    """Return the findings of every server for `backup.py -t`; a BAD one where one fails."""
    collected: list[str | Finding] = []
    for server in servers:
        try:
            collected.extend(findings_of(server.connect()))
        except Exception as caught:  # noqa: BLE001  (see crash.reportable)
            problem, hint = in_words(crash.reportable(caught))
            fix = getattr(caught, "fix", "")
            collected.append(finding.bad(f"{server.label}: {problem}", hint, fix))
    return tuple(collected)


def _unavailable(label: str, error: BackupError | OSError) -> Item:
    def read() -> Iterator[bytes]:
        raise error
        yield b""  # makes this a generator, as every `read` is

    return Item(label, KIND, lambda _head: "", read)
