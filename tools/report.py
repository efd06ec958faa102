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
from tools.outcome import Outcome
from tools.result import Status

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

    def __init__(self, address: str, state: Path | None, first_wait: float) -> None:
        """state: None where nothing may be kept; first_wait: seconds before the second try."""
        self.address = address
        self.spool = None if state is None else state / _SPOOL
        self.first_wait = first_wait

    def deliver(self, fields: Mapping[str, str], tries: int = 5, *, waiting: bool = True) -> str:
        """Send what waits (unless another run may be doing so), then this one.

        Gives "delivered"; or, where that failed, "kept", or "lost" where nothing may be kept.
        """
        try:
            if self.spool is None:
                self._post(fields, tries)
                return "delivered"
            own = _kept(fields, self.spool)
            for report in sorted(self.spool.glob("*.json")) if waiting else [own]:
                self._send(report, tries)
        except (requests_utils.DeliveryError, OSError) as error:
            then = "lost" if self.spool is None else "kept for the next run"
            logger.error("the report is %s: %s", then, error)
            return "lost" if self.spool is None else "kept"
        return "delivered"

    def _send(self, kept: Path, tries: int) -> None:
        """One that waits; what another run has sent meanwhile is sent."""
        try:
            fields = json.loads(kept.read_text(encoding="utf-8"))
            acknowledged(fields["srvname"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            logger.error("%s is no report: put aside", kept)
            kept.rename(kept.with_suffix(".bad"))
            return
        self._post(fields, tries)
        kept.unlink(missing_ok=True)

    def _post(self, fields: Mapping[str, str], tries: int) -> None:
        answer = requests_utils.post_form(
            self.address,
            fields,
            accept=acknowledged(fields["srvname"]),
            tries=tries,
            first_wait=self.first_wait,
            say=lambda line: logger.warning("%s", line),
        )
        logger.info("report delivered: %s", answer)


def _kept(fields: Mapping[str, str], spool: Path) -> Path:
    """The report as a file, before it is sent: not even a kill while sending loses it."""
    filesystem_handling.make_folder(spool)
    place = spool / f"{fields['run_id']}-{uuid.uuid4().hex[:8]}.json"
    with filesystem_handling.create(place) as write:
        write(json.dumps(fields).encode())
    return place
