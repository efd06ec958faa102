"""The contract of a report channel: a way in which the result of a run leaves this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tools.config.notify_keys import Outcome
from tools.reporting.document import Document
from tools.requests_utils import Limits

Message = Mapping[str, str]


class Channel(Protocol):
    """Renders the document of a run, and makes one attempt to deliver what it rendered.

    Retries, the spool and time limits over all attempts are not its business: `delivery` does
    them for every channel. The calls of one channel come one after another: `message` from the
    main thread, `send` possibly from another one.
    """

    def message(self, document: Document, log: str) -> Message:
        """Return what is sent: called once per run, and kept until it was delivered.

        document: of the run (docs/run.schema.json), or of its start (`start_document`) for a
        channel whose ON has `start`, secrets masked; log: the newest lines of the run's log and the
        closing table, at most 64 KiB, secrets masked.
        """

    def send(self, message: Message, limits: Limits) -> str:
        """Make one attempt within `limits`, and return how it went, for the log ("sent to X").

        message: from `message`, possibly of an earlier version of this program. Raises
        DeliveryError, which says whether another attempt can help and whether this one may have
        arrived; ConfigError where a secret cannot be had.
        """


@dataclass(frozen=True)
class Recipient:
    """A channel as a config uses it.

    key:      its name in the spool
    label:    how lines of the log call it
    outcomes: those that it gets
    keep:     whether a report that was not delivered is worth sending with the next run
    first_wait: seconds before the second attempt
    """

    key: str
    label: str
    channel: Channel
    outcomes: frozenset[Outcome]
    first_wait: float
    keep: bool = True
    limits: Limits = Limits()  # noqa: RUF009  (it is frozen)
