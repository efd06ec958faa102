"""Any service of Apprise as a report channel; the optional package is imported when it is used."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tools import requests_utils
from tools.base import foreign
from tools.base.errors import BackupError, ConfigError
from tools.config.notify_keys import AppriseKeys, Outcome
from tools.reporting import summary
from tools.reporting.channel import Channel, Message
from tools.reporting.document import Document
from tools.requests_utils import DeliveryError, Doubt, Limits

_MISSING = "the package apprise is not installed"
_INSTALL = "Install it: .venv/bin/pip install apprise"
_MOST = 30_000  # bytes; each service cuts or splits what is too long for it
_KINDS = {Outcome.SUCCESS: "success", Outcome.START: "info", Outcome.INCOMPLETE: "warning"}
_KINDS |= {Outcome.UNCLEAN: "warning", Outcome.CANCELLED: "warning"}


class AppriseService:
    """Hands a title and a text to Apprise."""

    def __init__(self, keys: AppriseKeys) -> None:
        self._keys = keys

    def message(self, document: Document, log: str) -> dict[str, str]:
        """Return title, text and the kind of notification."""
        raw = summary.clean(summary.text(document)).encode()[:_MOST]
        return {
            "title": summary.clean(summary.subject(document)),
            "body": raw.decode("utf-8", "ignore"),
            "kind": _KINDS.get(summary.outcome(document), "failure"),
        }

    def send(self, message: Message, limits: Limits) -> str:
        """Make one attempt. Raises DeliveryError; ConfigError for an invalid URL."""
        service = opened(self._keys)
        reasons = _Reasons()

        def notify() -> str:
            logger = logging.getLogger("apprise")
            logger.addHandler(reasons)
            try:
                good = service.notify(
                    body=message["body"],
                    title=message["title"],
                    notify_type=message["kind"],
                    body_format="text",
                )
            finally:
                logger.removeHandler(reasons)
            if not good:
                trouble = reasons.last or "the service did not take it"
                raise DeliveryError(requests_utils.printable(trouble), doubt=Doubt.REFUSED)
            return f"sent to {self._keys.target()}"

        return requests_utils.bounded(notify, limits)


class _Reasons(logging.Handler):
    """Keeps the last warning of Apprise: what it returns is only whether it failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = foreign.line(record.getMessage())


def opened(keys: AppriseKeys) -> Any:  # noqa: ANN401  (of an optional package)
    """Return Apprise with this one URL.

    Raises BackupError without the package, ConfigError for a URL that it does not know.
    """
    try:
        import apprise
    except ImportError:
        raise BackupError(f"apprise: {_MISSING}", _INSTALL) from None
    service = apprise.Apprise()
    if not service.add(keys.url.reveal().strip()):
        raise ConfigError("URL: not a URL that Apprise knows", "See its list of services.")
    return service


if TYPE_CHECKING:
    _: type[Channel] = AppriseService
