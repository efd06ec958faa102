"""The backup reporting tool (BRT) as a report channel (docs/report.md)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from tools import requests_utils
from tools.base import masking
from tools.base.log import REPORTED
from tools.config.declarations import General
from tools.reporting.channel import Channel, Message
from tools.reporting.document import Document
from tools.requests_utils import Limits

_METHODS = {"backup": "ncscript-py", "restore": "ncscript-py-restore"}  # by action
_MAX_FIELD = 4096  # characters of any field but the log
_STEP = 1024
_ABOVE = "PEZY"  # the units beyond the largest that the server knows, TB
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(B|[PEZY])(?:B)?")
_ACKNOWLEDGED = re.compile(r"(New Backup result added)\s+(for server:)", re.I)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff]")


class BackupReportingTool:
    """Posts a form to the documented server, which acknowledges it by name and number."""

    def __init__(self, url: str) -> None:
        self._url = url

    def message(self, document: Document, log: str) -> dict[str, str]:
        """Return the form fields of MANUAL, and `run_id`, by which the server can drop repeats.

        `result` is 0 if everything was stored, else 1. Every field is bounded, printable, masked.
        """
        error = "; ".join(map(_problem_line, document["problems"])) or document["status"]
        lines = "".join(f"note: {line}\n" for line in document["notices"])
        notices = _clean(lines, _MAX_FIELD)
        return {
            "srvname": _clean(document["hostname"], _MAX_FIELD),
            "result": "0" if document["exit_code"] == 0 else "1",
            "bckmethod": _METHODS[document["action"]],
            "size": _clean(_size(document["size"]), _MAX_FIELD),
            "log": notices + _clean(log, REPORTED - len(notices)),
            "error": "" if document["exit_code"] == 0 else _clean(error, _MAX_FIELD),
            "destination": _clean(", ".join(document["destinations"]), _MAX_FIELD),
            "run_id": document["run_id"],
        }

    def send(self, message: Message, limits: Limits) -> str:
        """Post the form once. Raises DeliveryError."""
        accept = acknowledgement_check(message["srvname"])
        answer = requests_utils.post_form(self._url, message, accept=accept, limits=limits)
        return f"delivered: {answer}"


def from_general(general: General) -> BackupReportingTool | None:
    """Return the channel, or None without MESSAGE_CONFIG_COMMAND."""
    url = general.message_config_command
    return BackupReportingTool(url) if url else None


def acknowledgement_check(hostname: str) -> Callable[[str], bool]:
    """Return a check for the documented answer, which names this very server and a number."""
    name = re.escape(hostname)
    pattern = re.compile(
        rf"New Backup result added for server:\s*{name}\.\s*This backup ID is:\s*\d+", re.I
    )
    return lambda answer: pattern.search(answer) is not None


def _problem_line(problem: Document) -> str:
    section, text = problem["section"], problem["text"]
    return f"{section}: {text}" if section else str(text)


def _clean(text: str, length: int) -> str:
    """Return the last `length` characters, secrets masked, control characters replaced by ?.

    The server prints what it got before it acknowledges it: no field may look like an
    acknowledgement.
    """
    quoted = _ACKNOWLEDGED.sub(r"\1 (quoted) \2", masking.text(text))
    return _UNPRINTABLE.sub("?", quoted)[-length:]


def _size(text: str) -> str:
    """Return a size in units that the server knows: it takes B for KB, and has no PB."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        return text
    number, unit = float(match[1]), match[2]
    if unit == "B":
        return f"{number / _STEP:.2f} KB"
    above = _ABOVE.find(unit) + 1
    return f"{number * _STEP**above:.2f} TB" if above else text


if TYPE_CHECKING:
    _: type[Channel] = BackupReportingTool
