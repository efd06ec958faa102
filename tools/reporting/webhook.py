"""A webhook as a report channel: the document of a run, or an object of its fields (TEMPLATE)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tools import requests_utils
from tools.base import masking
from tools.base.errors import ConfigError
from tools.base.secret import Secret
from tools.config.notify_keys import FIELD, WebhookKeys
from tools.reporting import summary
from tools.reporting.channel import Channel, Message
from tools.reporting.document import Document
from tools.requests_utils import Limits

_JSON = {"Content-Type": "application/json"}
_MOST_LOG = 10_000  # bytes of the log in a TEMPLATE
# Fields of a TEMPLATE that are not keys of the document.
_DERIVED_FIELDS: Mapping[str, Callable[[Document], str]] = {
    "outcome": lambda document: summary.outcome(document).value,
    "summary": summary.subject,
    "text": summary.text,
}


class Webhook:
    """Posts JSON; any answer from 200 to 299 acknowledges it."""

    def __init__(self, keys: WebhookKeys) -> None:
        self._keys = keys

    def message(self, document: Document, log: str) -> dict[str, str]:
        """Return the text of the JSON that is posted."""
        template = self._keys.posted()
        posted = _filled(template, document, log) if template else document
        return {"json": json.dumps(posted)}

    def send(self, message: Message, limits: Limits) -> str:
        """Post it once. Raises DeliveryError."""
        address = self._keys.address()
        headers = {**_JSON, **self._headers()}
        requests_utils.post_body(address, message["json"].encode(), headers, limits)
        return f"sent to {self._keys.target()}"

    def _headers(self) -> dict[str, str]:
        """Return the headers, references resolved. Raises ConfigError."""
        headers = {}
        for name, value in self._keys.header_texts().items():
            headers[name] = Secret(value).reveal() if masking.reference(value) else value
            if not headers[name].isprintable():
                raise ConfigError(f"HEADERS: {name}: holds a line break or a control character")
        if self._keys.token:
            headers |= bearer(self._keys.token)
        return headers


def bearer(token: Secret) -> dict[str, str]:
    """Return the header that holds a token."""
    return {"Authorization": f"Bearer {token.reveal().strip()}"}


def _filled(template: Any, document: Document, log: str) -> Any:  # noqa: ANN401  (any JSON value)
    """Return the object with its texts filled; a text that is one field keeps the field's type."""
    if isinstance(template, dict):
        return {key: _filled(value, document, log) for key, value in template.items()}
    if isinstance(template, list):
        return [_filled(value, document, log) for value in template]
    if not isinstance(template, str):
        return template
    alone = FIELD.fullmatch(template)
    if alone:
        return _field(alone[1], document, log)
    return FIELD.sub(lambda match: _text(_field(match[1], document, log)), template)


def _field(name: str, document: Document, log: str) -> Any:  # noqa: ANN401  (any JSON value)
    if name == "log":
        return summary.tail(log, _MOST_LOG)
    return _DERIVED_FIELDS[name](document) if name in _DERIVED_FIELDS else document[name]


def _text(value: object) -> str:
    return "" if value is None else str(value)


if TYPE_CHECKING:
    _: type[Channel] = Webhook
