"""Pings to a monitor (Healthchecks and what speaks its protocol) as a report channel.

https://healthchecks.io/docs/http_api/: the start and the end of a run have one run ID (`rid`, a
UUID); the end is /0 to /255, where 0 is success. Instances keep 10 kB of a body by default.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from tools import requests_utils
from tools.config.notify_keys import PingKeys
from tools.reporting import summary
from tools.reporting.channel import Channel, Message
from tools.reporting.document import Document
from tools.requests_utils import Limits

MOST = 10_000  # bytes of a body
_PLAIN = {"Content-Type": "text/plain; charset=utf-8"}


class Ping:
    """Posts the start of a run, and its exit code."""

    def __init__(self, keys: PingKeys) -> None:
        self._keys = keys

    def message(self, document: Document, log: str) -> dict[str, str]:
        """Return what follows the URL, the run ID, and the body."""
        code = document["exit_code"]
        return {
            "event": "start" if code is None else str(code),
            "rid": run_uuid(document["hostname"], document["run_id"]),
            "body": _body(document, log),
        }

    def send(self, message: Message, limits: Limits) -> str:
        """Ping once. Raises DeliveryError."""
        address = ping_address(self._keys.address(), message["event"], message["rid"])
        requests_utils.post_body(address, message["body"].encode(), _PLAIN, limits)
        return f"sent to {self._keys.target()}"


def run_uuid(hostname: str, run_id: str) -> str:
    """Return the ID by which a monitor joins the start and the end of a run."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"nc-backup-py:{hostname}/{run_id}"))


def ping_address(url: str, event: str, rid: str) -> str:
    """Return the URL of a ping; a query of the URL itself stays."""
    parts = urlsplit(url)
    query = "&".join(filter(None, (parts.query, f"rid={rid}")))
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{event}", query=query))


def _body(document: Document, log: str) -> str:
    """Return the summary and the last lines of the log, at most MOST bytes."""
    first = summary.clean(summary.subject(document)) + "\n"
    return first + summary.tail(log, MOST - len(first.encode()))


if TYPE_CHECKING:
    _: type[Channel] = Ping
