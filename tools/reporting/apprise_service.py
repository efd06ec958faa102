"""Any service of Apprise as a report channel; the optional package is imported when it is used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import requests_utils
from tools.base import foreign, foreign_json
from tools.base.errors import BackupError, ConfigError, in_words
from tools.config.notify_keys import AppriseKeys, Outcome
from tools.reporting import summary
from tools.reporting.channel import Channel, Message
from tools.reporting.document import Document
from tools.requests_utils import DeliveryError, Doubt, Limits

_MISSING = "the package apprise is not installed"
_INSTALL = "Install it: .venv/bin/pip install apprise"
_PROCESS = str(Path(__file__).with_name("apprise_process.py"))
_MOST = 30_000  # bytes; each service cuts or splits what is too long for it
_KINDS = {Outcome.SUCCESS: "success", Outcome.START: "info", Outcome.INCOMPLETE: "warning"}
_KINDS |= {Outcome.UNCLEAN: "warning", Outcome.CANCELLED: "warning"}


class AppriseService:
    """Hands a title and a text to Apprise, in a process that ends with the attempt."""

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
        opened(self._keys)
        request = {"url": self._keys.url.reveal().strip(), **message}
        try:
            done = subprocess.run(
                [sys.executable, "-I", _PROCESS],
                input=json.dumps(request).encode(),
                capture_output=True,
                timeout=limits.whole,
                check=False,
            )
        except subprocess.TimeoutExpired:
            late = f"response not complete after {limits.whole:.0f} s"
            raise DeliveryError(late, doubt=Doubt.AMBIGUOUS) from None
        except OSError as error:  # no memory, no further process
            raise DeliveryError(in_words(error)[0], doubt=Doubt.UNSENT) from None
        _check(done)
        return f"sent to {self._keys.target()}"


def _check(done: subprocess.CompletedProcess[bytes]) -> None:
    """Raise DeliveryError unless the process says that the service took it."""
    try:
        answer = foreign_json.load(done.stdout)
        sent, reason = bool(answer["sent"]), str(answer.get("reason", ""))
    except (ValueError, TypeError, KeyError, AttributeError):  # killed: it may have been sent
        last = foreign.decoded(done.stderr).strip().rpartition("\n")[2]
        text = f"Apprise ended with exit code {done.returncode}: {last}"
        raise DeliveryError(requests_utils.printable(text), doubt=Doubt.AMBIGUOUS) from None
    if not sent:
        text = requests_utils.printable(reason or "the service did not take it")
        raise DeliveryError(text, doubt=Doubt.REFUSED)


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
