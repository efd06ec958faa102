"""ntfy as a report channel. https://docs.ntfy.sh/publish/#publish-as-json"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from tools import requests_utils
from tools.config.notify_keys import NtfyKeys, Outcome
from tools.reporting import summary
from tools.reporting.channel import Channel, Message
from tools.reporting.document import Document
from tools.reporting.webhook import bearer
from tools.requests_utils import Limits

_MOST = 3_900  # bytes of a message; one of more than 4,096 would become an attachment
_DEFAULT_PRIORITY = 3
_PRIORITIES = {Outcome.FAILURE: 4, Outcome.CONFIG: 4, Outcome.SUCCESS: 2, Outcome.START: 2}
_TAGS = {Outcome.SUCCESS: "white_check_mark", Outcome.START: "arrow_forward"}


class Ntfy:
    """Publishes to a topic, as JSON: headers could not hold every character."""

    def __init__(self, keys: NtfyKeys) -> None:
        self._keys = keys

    def message(self, document: Document, log: str) -> dict[str, str]:
        """Return title, text, priority and tag."""
        event = summary.outcome(document)
        raw = summary.clean(summary.text(document)).encode()[:_MOST]
        return {
            "title": summary.clean(summary.subject(document)),
            "message": raw.decode("utf-8", "ignore"),
            "priority": str(_PRIORITIES.get(event, _DEFAULT_PRIORITY)),
            "tag": _TAGS.get(event, "warning"),
        }

    def send(self, message: Message, limits: Limits) -> str:
        """Publish it once. Raises DeliveryError."""
        parts = urlsplit(self._keys.address())
        folder, _, topic = parts.path.rstrip("/").rpartition("/")
        posted = {
            "topic": unquote(topic),
            "title": message["title"],
            "message": message["message"],
            "priority": int(message["priority"]),
            "tags": [message["tag"]],
        }
        server = urlunsplit(parts._replace(path=f"{folder}/", query=parts.query))
        headers = {"Content-Type": "application/json", **self._login()}
        requests_utils.post_body(server, json.dumps(posted).encode(), headers, limits)
        return f"sent to {self._keys.target()}"

    def _login(self) -> dict[str, str]:
        if self._keys.token:
            return bearer(self._keys.token)
        if not self._keys.user:
            return {}
        pair = f"{self._keys.user}:{self._keys.password.reveal()}".encode()
        encoded = str(base64.b64encode(pair), "ascii", "replace")
        return {"Authorization": f"Basic {encoded}"}


if TYPE_CHECKING:
    _: type[Channel] = Ntfy
