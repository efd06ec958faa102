"""The contract of a report channel: a way in which the result of a run leaves this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tools.reporting.document import Document
from tools.requests_utils import Limits

Message = Mapping[str, str]


class Channel(Protocol):
    """Renders the document of a run, and makes one attempt to deliver what it rendered.

    Retries, the spool and time limits over all attempts are not its business: `delivery` does
    them for every channel. All calls come from one thread.
    """

    def message(self, document: Document, log: str) -> Message:
        """Return what is sent: called once per run, and kept until it was delivered.

        document: of the run (docs/run.schema.json), secrets masked; log: the newest lines of the
        run's log and the closing table, at most 64 KiB, secrets masked.
        """

    def send(self, message: Message, limits: Limits) -> str:
        """Make one attempt within `limits`, and return a line for the log.

        message: from `message`, possibly of an earlier version of this program. Raises
        DeliveryError, which says whether another attempt can help and whether this one may have
        arrived.
        """
