"""Delivery of reports through every channel that is configured, with retries and a spool."""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tools import requests_utils
from tools.base.errors import BackupError
from tools.base.log import logger
from tools.reporting.channel import Channel, Message, Recipient
from tools.reporting.document import Document
from tools.reporting.spool import UNSURE, Entry, Spool
from tools.reporting.summary import outcome
from tools.requests_utils import DeliveryError, Doubt, Limits

FOLDER = "reports"  # of the spool, in the private folder of WORK_FOLDER
TRIES = 5
_FORGET = 30 * 86400.0  # seconds that a report of a channel without a config waits
_GRACE = 5.0  # seconds for a thread to end after its last attempt


class SpooledChannel:
    """A channel whose reports wait in the spool until they were delivered.

    result: "delivered", "kept" if the next run sends it, or "lost" if nothing sends it again
    """

    def __init__(self, recipient: Recipient, spool: Spool | None) -> None:
        """Send reports to a recipient. spool: None if nothing may be kept"""
        self.result = "lost"
        self._recipient = recipient
        self._channel = recipient.channel
        self._spool = spool if recipient.keep else None
        self._message: Message = {}
        self._kept_at: Path | None = None
        self._waiting: list[Path] = []

    def deliver(
        self, document: Document, log: str, tries: int = TRIES, *, resend: bool = True
    ) -> str:
        """Send what waits (if `resend`), then this report; return the result."""
        self.prepare(document, log, resend=resend)
        self.send(tries)
        return self.result

    def prepare(self, document: Document, log: str, *, resend: bool) -> None:
        """Render this report, and put it into the spool. Raises OSError, BackupError.

        resend: whether `send` sends what waits as well
        """
        self._message = self._channel.message(document, log)
        if self._spool is None:
            return
        try:
            self._kept_at = self._spool.add(Entry(self._recipient.key, self._message, document))
        except OSError as error:
            logger.error("%s: cannot keep it: %s", self._recipient.label, error)
            return
        self.result = "kept"
        self._waiting = self._spool.waiting(self._recipient.key) if resend else [self._kept_at]

    def send(self, tries: int) -> None:
        """Send what waits, then this report.

        A report that is rejected does not keep the next ones from being sent, but they have one
        attempt each; without a connection none is tried after the first.
        """
        if self._spool is None or self._kept_at is None:
            self._send_unspooled(tries)
            return
        try:
            self.result = self._send_all(self._spool, self._kept_at, tries)
        except OSError as error:
            self._log("kept; the next run sends it", error)

    def _log(self, action: str, error: Exception) -> None:
        logger.error("%s %s: %s", self._recipient.label, action, error)

    def _send_unspooled(self, tries: int) -> None:
        try:
            line = self._retried(self._message, tries, self._recipient.limits)
        except DeliveryError as error:
            self._log("lost", error)
            return
        logger.info("%s %s", self._recipient.label, line)
        self.result = "delivered"

    def _send_all(self, spool: Spool, current: Path, tries: int) -> str:
        until = time.monotonic() + self._recipient.limits.budget
        for path in self._waiting:
            budget = until - time.monotonic()
            if budget <= 0:
                break
            try:
                self._send(spool, path, tries, budget)
            except DeliveryError as error:
                name = "" if path == current else f"{path.name} "
                unsure = spool.exhausted(path)
                then = f"not sent again (see {unsure})" if unsure else "kept; the next run sends it"
                self._log(f"{name}{then}", error)
                if error.doubt is Doubt.UNSENT:
                    break
                tries = 1  # the others need not wait for a server that does not take one
        if current.exists():
            return "kept"
        return "lost" if current.with_suffix(UNSURE).exists() else "delivered"

    def _send(self, spool: Spool, path: Path, tries: int, budget: float) -> None:
        """Send one report that waits; another run may have sent it meanwhile."""
        entry = spool.read(path)
        if entry is None:
            return
        limits = dataclasses.replace(self._recipient.limits, budget=budget)
        line = self._retried(entry.message, tries, limits, (spool, path))
        logger.info("%s %s", self._recipient.label, line)
        spool.remove(path)

    def _retried(
        self,
        message: Message,
        tries: int,
        limits: Limits,
        spooled: tuple[Spool, Path] | None = None,
    ) -> str:
        """Send a message, up to `tries` times, and return the channel's line for the log."""
        return requests_utils.retried(
            lambda limits: _attempt(self._channel, message, limits),
            tries=tries,
            first_wait=self._recipient.first_wait,
            limits=limits,
            say=lambda line: logger.warning("%s: %s", self._recipient.label, line),
            before=lambda: spooled is None or spooled[0].begin(spooled[1]),
            after=lambda doubt: None if spooled is None else spooled[0].settle(spooled[1], doubt),
        )


def _attempt(channel: Channel, message: Message, limits: Limits) -> str:
    """Make one attempt. Raises DeliveryError, also for a message that this channel never made."""
    try:
        return channel.send(message, limits)
    except BackupError as error:
        raise requests_utils.undeliverable(error) from None
    except (KeyError, ValueError) as error:  # in the spool, of another version
        trouble = f"the report that was kept cannot be read: {error}"
        raise DeliveryError(trouble, again=False, doubt=Doubt.REFUSED) from None


def deliver(
    recipients: Mapping[str, Recipient],
    document: Document,
    log: str,
    folder: Path | None,
    tries: int = TRIES,
    *,
    resend: bool = True,
) -> dict[str, str]:
    """Deliver the report of a run to whom it concerns, and return the results by channel.

    All reports are in the spool before the first is sent. The channels send at the same time:
    none waits for another one.
    folder: private folder in which reports wait; None if nothing may be kept
    resend: whether what waits is sent as well
    """
    spool = None if folder is None else Spool(folder / FOLDER)
    event = outcome(document)
    senders = {
        name: SpooledChannel(recipient, spool)
        for name, recipient in recipients.items()
        if event in recipient.outcomes
    }
    ready = [
        sender
        for sender in senders.values()
        if _guarded(functools.partial(sender.prepare, document, log, resend=resend))
    ]
    if spool is not None and resend:
        _guarded(functools.partial(_forget, spool, recipients))
    longest = max((one.limits.budget for one in recipients.values()), default=0.0)
    _together([functools.partial(sender.send, tries) for sender in ready], longest)
    return {name: sender.result for name, sender in senders.items()}


def _forget(spool: Spool, recipients: Mapping[str, Recipient]) -> None:
    """Remove old reports of channels that the config no longer has: nothing would send them."""
    for path in spool.abandoned({one.key for one in recipients.values()}, _FORGET):
        logger.warning("%s: its channel is no longer in the config, removed", path)
        spool.remove(path)


class Announcement:
    """The start of a run, told to the channels that want it while the run goes on."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._longest = 0.0

    def begin(self, recipients: Mapping[str, Recipient], document: Document) -> None:
        """Send it, once to each, in threads: no channel delays the run."""
        event = outcome(document)
        chosen = [one for one in recipients.values() if event in one.outcomes]
        self._longest = max((one.limits.whole for one in chosen), default=0.0)
        self._threads = _started([functools.partial(_announce, one, document) for one in chosen])

    def finish(self) -> None:
        """Wait until all attempts have ended: the end must not arrive before the start."""
        _join(self._threads, self._longest)


def _announce(recipient: Recipient, document: Document) -> None:
    """Make one attempt; what is late is worth nothing."""
    try:
        message = recipient.channel.message(document, "")
        line = _attempt(recipient.channel, message, recipient.limits)
    except DeliveryError as error:
        logger.warning("%s: start not sent: %s", recipient.label, error)
    else:
        logger.info("%s: start %s", recipient.label, line)


def _together(works: Sequence[Callable[[], None]], seconds: float) -> None:
    """Do several things at the same time; give up what takes longer. One alone is done here."""
    if len(works) == 1:
        _guarded(works[0])
    else:
        _join(_started(works), seconds + Limits().whole)


def _started(works: Sequence[Callable[[], None]]) -> list[threading.Thread]:
    """Start a thread for each; where the system allows no further one, it is done here."""
    threads = []
    for work in works:
        thread = threading.Thread(target=_guarded, args=(work,), daemon=True)
        try:
            thread.start()
        except RuntimeError:
            _guarded(work)
        else:
            threads.append(thread)
    return threads


def _join(threads: Sequence[threading.Thread], seconds: float) -> None:
    until = time.monotonic() + seconds + _GRACE
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


def _guarded(work: Callable[[], None]) -> bool:
    """Return whether no error was raised: none of a report may change the result of a run."""
    try:
        work()
    except (OSError, BackupError) as error:  # the other channels still get theirs
        logger.error("report: cannot create or store it: %s", error)
        return False
    except Exception:  # noqa: BLE001  (a bug of a channel is logged, and the run goes on)
        logger.critical("%s", traceback.format_exc())
        return False
    return True
