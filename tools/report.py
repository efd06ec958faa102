"""The report to the backup reporting tool: made from the outcome, really acknowledged, never lost.

The form and the acknowledgement are those of the documented server (docs/report.md).
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from tools import filesystem_handling, mask, requests_utils
from tools.log import REPORTED, logger
from tools.result import Status
from tools.run import Outcome

METHOD = "ncscript-py"
_FIELD = 4096  # characters of any field but the log
_SPOOL = "reports"
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
        "size": _clean(outcome.size, _FIELD),
        "log": _clean(log, REPORTED),
        "error": _clean(error, _FIELD),
        "destination": _clean(", ".join(outcome.destinations), _FIELD),
        "run_id": outcome.run_id,
    }


def _clean(text: str, most: int) -> str:
    """The last `most` characters, secrets masked, control characters shown as ?."""
    return _UNPRINTABLE.sub("?", mask.text(text))[-most:]


def acknowledged(hostname: str) -> Callable[[str], bool]:
    """Whether an answer is the documented one for this very server, with its number."""
    name = re.escape(hostname)
    wanted = re.compile(
        rf"New Backup result added for server:\s*{name}\.\s*This backup ID is:\s*\d+", re.I
    )
    return lambda answer: wanted.search(answer) is not None


class Reporter:
    """Delivers reports to one address; what cannot be delivered waits in the spool folder."""

    def __init__(self, address: str, state: Path, first_wait: float) -> None:
        """address: "" where no report is wanted; first_wait: seconds before the second try."""
        self.address = address
        self.spool = state / _SPOOL
        self.first_wait = first_wait

    def deliver(self, fields: Mapping[str, str], tries: int = 5, *, waiting: bool = True) -> str:
        """Send what waits (unless another run may be doing so), then this one.

        Gives "delivered", "kept", or "none" without an address.
        """
        if not self.address:
            return "none"
        own = self._keep(fields)
        try:
            for kept in self.waiting() if waiting else [own]:
                self._send(kept, tries)
        except (requests_utils.DeliveryError, OSError) as error:
            logger.error("the report is kept for the next run: %s", error)
            return "kept"
        return "delivered"

    def waiting(self) -> list[Path]:
        """The reports that could not be delivered yet, oldest first."""
        return sorted(self.spool.glob("*.json"))

    def _keep(self, fields: Mapping[str, str]) -> Path:
        """Into the spool first, so that not even a kill while sending loses it."""
        filesystem_handling.make_folder(self.spool)
        place = self.spool / f"{fields['run_id']}-{uuid.uuid4().hex[:8]}.json"
        with filesystem_handling.create(place) as write:
            write(json.dumps(fields).encode())
        return place

    def _send(self, kept: Path, tries: int) -> None:
        try:
            fields = json.loads(kept.read_text(encoding="utf-8"))
            accept = acknowledged(fields["srvname"])
        except (ValueError, KeyError, TypeError):
            logger.error("%s is no report: put aside", kept)
            kept.rename(kept.with_suffix(".bad"))
            return
        answer = requests_utils.post_form(
            self.address,
            fields,
            accept=accept,
            tries=tries,
            first_wait=self.first_wait,
            say=lambda line: logger.warning("%s", line),
        )
        kept.unlink()
        logger.info("report delivered: %s", answer)
