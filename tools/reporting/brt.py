"""The report to the backup reporting tool: made from the outcome, really acknowledged, never lost.

The form and the acknowledgement are those of the documented server (docs/report.md).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tools import requests_utils
from tools.base import masking
from tools.base.log import REPORTED, logger
from tools.base.result import Status
from tools.base.run_result import Outcome
from tools.reporting.spool import UNSURE, Spool
from tools.requests_utils import Doubt

METHOD = "ncscript-py"
_FIELD = 4096  # characters of any field but the log
_SPOOL = "reports"
_STEP = 1024
_ABOVE = "PEZY"  # the units beyond the largest that the server knows, TB
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(B|[PEZY])B?")
_ACKNOWLEDGED = re.compile(r"(New Backup result added)\s+(for server:)", re.I)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff]")


def form(outcome: Outcome, log: str) -> dict[str, str]:
    """The fields of MANUAL, and `run_id`, by which the server can drop repeats.

    `result` is 0 for a run that ended well and stored all, 1 for any other. Every field is
    bounded, printable and masked.
    """
    good = outcome.status is Status.OK
    error = "" if good else "; ".join(outcome.troubles()) or outcome.status.value
    return {
        "srvname": _clean(outcome.hostname, _FIELD),
        "result": "0" if good else "1",
        "bckmethod": METHOD,
        "size": _clean(_size(outcome.size), _FIELD),
        "log": _clean(log, REPORTED),
        "error": _clean(error, _FIELD),
        "destination": _clean(", ".join(outcome.destinations), _FIELD),
        "run_id": outcome.run_id,
    }


def _clean(text: str, most: int) -> str:
    """The last `most` characters, secrets masked, control characters shown as ?.

    The server shows what it got before it acknowledges it: no field may look like that.
    """
    unlike = _ACKNOWLEDGED.sub(r"\1 (quoted) \2", masking.text(text))
    return _UNPRINTABLE.sub("?", unlike)[-most:]


def _size(text: str) -> str:
    """A size in the units that the server knows: it takes bytes for KB, and no PB."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        return text
    number, unit = float(found[1]), found[2]
    if unit == "B":
        return f"{number / _STEP:.2f} KB"
    above = _ABOVE.find(unit) + 1
    return f"{number * _STEP**above:.2f} TB" if above else text


def acknowledged(hostname: str) -> Callable[[str], bool]:
    """Whether an answer is the documented one for this very server, with its number."""
    name = re.escape(hostname)
    wanted = re.compile(
        rf"New Backup result added for server:\s*{name}\.\s*This backup ID is:\s*\d+", re.I
    )
    return lambda answer: wanted.search(answer) is not None


class Reporter:
    """Delivers reports to one address; what cannot be delivered waits in the spool folder."""

    def __init__(self, address: str, state: Path | None, first_wait: float) -> None:
        """state: None where nothing may be kept; first_wait: seconds before the second try."""
        self.address = address
        self.spool = None if state is None else Spool(state / _SPOOL)
        self.first_wait = first_wait

    def deliver(self, fields: Mapping[str, str], tries: int = 5, *, waiting: bool = True) -> str:
        """Send what waits (unless another run may be doing so), then this one.

        Gives "delivered"; or, where that failed, "kept", or "lost" where it will not be sent
        again. One that is refused does not keep the next ones from being sent; where there is
        no server, none is tried after the first.
        """
        if self.spool is None:
            try:
                self._post(fields, tries)
            except requests_utils.DeliveryError as error:
                logger.error("the report is lost: %s", error)
                return "lost"
            return "delivered"
        try:
            own = self.spool.keep(fields)
            return self._send_all(self.spool, own, tries, waiting=waiting)
        except OSError as error:
            logger.error("the report is kept for the next run: %s", error)
            return "kept"

    def _send_all(self, spool: Spool, own: Path, tries: int, *, waiting: bool) -> str:
        until = time.monotonic() + requests_utils.Limits().budget
        for kept in spool.reports() if waiting else [own]:
            budget = until - time.monotonic()
            if budget <= 0:
                break
            try:
                self._send(spool, kept, tries, budget)
            except requests_utils.DeliveryError as error:
                what = "the report" if kept == own else f"the report {kept.name}"
                aside = spool.exhausted(kept)
                then = f"not sent again (see {aside})" if aside else "kept for the next run"
                logger.error("%s is %s: %s", what, then, error)
                if error.doubt is Doubt.UNSENT:
                    break
        if own.exists():
            return "kept"
        return "lost" if own.with_suffix(UNSURE).exists() else "delivered"

    def _send(self, spool: Spool, kept: Path, tries: int, budget: float) -> None:
        """One that waits; what another run has sent meanwhile is sent."""
        fields = spool.read(kept)
        if fields is None:
            return
        self._post(
            fields,
            tries,
            limits=requests_utils.Limits(budget=budget),
            before=lambda: spool.begin(kept),
            after=lambda doubt: spool.settle(kept, doubt),
        )
        spool.remove(kept)

    def _post(self, fields: Mapping[str, str], tries: int, **more: Any) -> None:  # noqa: ANN401  (of post_form)
        answer = requests_utils.post_form(
            self.address,
            fields,
            accept=acknowledged(fields["srvname"]),
            tries=tries,
            first_wait=self.first_wait,
            say=lambda line: logger.warning("%s", line),
            **more,
        )
        logger.info("report delivered: %s", answer)
