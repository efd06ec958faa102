"""Delivery of reports through every channel that is configured, with retries and a spool."""

from __future__ import annotations

import time
from pathlib import Path

from tools import requests_utils
from tools.base.errors import BackupError
from tools.base.log import logger
from tools.config.declarations import General
from tools.reporting import channels
from tools.reporting.channel import Channel, Message
from tools.reporting.document import Document
from tools.reporting.spool import UNSURE, Entry, Spool
from tools.requests_utils import DeliveryError, Doubt, Limits

FOLDER = "reports"  # of the spool, in the private folder of WORK_FOLDER
TRIES = 5


class SpooledChannel:
    """A channel whose reports wait in the spool until they were delivered."""

    def __init__(self, name: str, channel: Channel, spool: Spool | None, first_wait: float) -> None:
        """spool: None if nothing may be kept; first_wait: seconds before the second attempt."""
        self._name = name
        self._channel = channel
        self._spool = spool
        self._first_wait = first_wait

    def deliver(
        self, document: Document, log: str, tries: int = TRIES, *, resend: bool = True
    ) -> str:
        """Send what waits (if `resend`), then this report.

        Return "delivered", "kept" if the next run sends it, or "lost" if nothing sends it again.
        A report that is rejected does not keep the next ones from being sent; without a
        connection none is tried after the first.
        """
        message = self._channel.message(document, log)
        path = self._spooled(Entry(self._name, message, document))
        if self._spool is None or path is None:
            return self._deliver_unspooled(message, tries)
        try:
            return self._send_all(self._spool, path, tries, resend=resend)
        except OSError as error:
            logger.error("report kept; the next run sends it: %s", error)
            return "kept"

    def _spooled(self, entry: Entry) -> Path | None:
        """Return the file of a report in the spool; None if it cannot be kept."""
        try:
            return None if self._spool is None else self._spool.add(entry)
        except OSError as error:
            logger.error("report: cannot keep it: %s", error)
            return None

    def _deliver_unspooled(self, message: Message, tries: int) -> str:
        try:
            line = self._retried(message, tries)
        except DeliveryError as error:
            logger.error("report lost: %s", error)
            return "lost"
        logger.info("%s", line)
        return "delivered"

    def _send_all(self, spool: Spool, own: Path, tries: int, *, resend: bool) -> str:
        until = time.monotonic() + Limits().budget
        for path in spool.waiting(self._name) if resend else [own]:
            budget = until - time.monotonic()
            if budget <= 0:
                break
            try:
                self._send(spool, path, tries, budget)
            except DeliveryError as error:
                label = "report" if path == own else f"report {path.name}"
                unsure = spool.exhausted(path)
                then = f"not sent again (see {unsure})" if unsure else "kept; the next run sends it"
                logger.error("%s %s: %s", label, then, error)
                if error.doubt is Doubt.UNSENT:
                    break
        if own.exists():
            return "kept"
        return "lost" if own.with_suffix(UNSURE).exists() else "delivered"

    def _send(self, spool: Spool, path: Path, tries: int, budget: float) -> None:
        """Send one report that waits; another run may have sent it meanwhile."""
        entry = spool.read(path)
        if entry is None:
            return
        line = self._retried(entry.message, tries, budget, (spool, path))
        logger.info("%s", line)
        spool.remove(path)

    def _retried(
        self,
        message: Message,
        tries: int,
        budget: float | None = None,
        spooled: tuple[Spool, Path] | None = None,
    ) -> str:
        """Send a message, up to `tries` times, and return the channel's line for the log."""
        return requests_utils.retried(
            lambda limits: self._channel.send(message, limits),
            tries=tries,
            first_wait=self._first_wait,
            limits=Limits() if budget is None else Limits(budget=budget),
            say=lambda line: logger.warning("report: %s", line),
            before=lambda: spooled is None or spooled[0].begin(spooled[1]),
            after=lambda doubt: None if spooled is None else spooled[0].settle(spooled[1], doubt),
        )


def deliver(
    general: General,
    document: Document,
    log: str,
    folder: Path | None,
    tries: int = TRIES,
    *,
    resend: bool = True,
) -> dict[str, str]:
    """Deliver the report of a run through every channel, and return the results by channel.

    folder: private folder in which reports wait; None if nothing may be kept
    """
    spool = None if folder is None else Spool(folder / FOLDER)
    results = {}
    for name, channel in channels.configured(general).items():
        sender = SpooledChannel(name, channel, spool, general.message_config_wait)
        try:
            results[name] = sender.deliver(document, log, tries, resend=resend)
        except (OSError, BackupError) as error:  # the other channels still get theirs
            logger.error("report: cannot create or store it: %s", error)
            results[name] = "lost"
    return results
