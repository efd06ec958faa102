"""The result of a run as a JSON document (docs/run.schema.json).

Every report channel renders this document, and `--json` prints it. It may leave the machine: it
holds no secret, and no path beyond those that messages name.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tools.base import masking
from tools.base.result import Status
from tools.base.run_result import (
    ItemResult,
    RunOrigin,
    RunProblem,
    RunResult,
    SectionResult,
    StoreResult,
)

VERSION = 1
STARTED = "started"  # status in the document of a start
_DELIVERIES = ("none", "delivered", "kept", "lost")  # from good to bad
_BESIDE = ("stage", "store")  # of a streamed run: they work beside the sources

Document = dict[str, Any]  # a JSON object


def run_document(result: RunResult) -> Document:
    """Return the document of a run: times in UTC, seconds, bytes, secrets masked at any depth."""
    document: Document = {
        "version": VERSION,
        "action": result.action,
        "run_id": result.run_id,
        "hostname": result.hostname,
        "program": result.origin.program,
        "machine": {"id": result.origin.machine, "name": result.origin.machine_name},
        "config": _config(result.origin),
        "mode": result.mode or None,
        "begin": _stamp(result.begin),
        "end": _stamp(result.end),
        "seconds": round(result.seconds, 3),
        "status": result.status.value,
        "exit_code": result.status.exit_code,
        "message": result.message,
        "hint": result.hint,
        "notices": list(result.notices),
        "size": result.size,
        "bytes": result.stored,
        "destinations": list(result.destinations),
        "problems": [_problem(problem) for problem in result.problems()],
        "sections": [_section(section, result) for section in result.sections],
        "stores": [_store(store) for store in result.stores],
        "items": [_item(item) for item in result.items],
    }
    masked: Document = masking.structure(document)
    return masked


def start_document(run_id: str, hostname: str, begin: datetime, origin: RunOrigin) -> Document:
    """Return the document of a run that begins: status `started`, what is not known yet empty."""
    document = run_document(
        RunResult(run_id, hostname, begin, 0.0, Status.OK, origin=origin),
    )
    unknown = dict.fromkeys(("end", "seconds", "exit_code", "size", "bytes"))
    return {**document, "status": STARTED, **unknown}


def worst(deliveries: Mapping[str, str]) -> str:
    """Return the worst delivery of the channels; "none" if there is no channel."""
    return max(deliveries.values(), key=_DELIVERIES.index, default="none")


def local_document(result: RunResult, deliveries: Mapping[str, str]) -> Document:
    """Return the document with what only this machine should see: paths, delivery of reports.

    deliveries: by channel: "delivered", "kept" or "lost"
    """
    document = run_document(result)
    document["config"]["file"] = result.origin.config_file
    document["report"] = worst(deliveries)
    document["reports"] = dict(deliveries)
    for entry, section in zip(document["sections"], result.sections, strict=True):
        entry["files"] = list(section.result.files)
        entry["removable"] = list(section.result.removable)
    masked: Document = masking.structure(document)
    return masked


def _stamp(moment: datetime) -> str:
    """Return a time in UTC as ISO 8601, to the second."""
    return moment.isoformat(timespec="seconds")


def _config(origin: RunOrigin) -> Document:
    return {"id": origin.config_id, "sha256": origin.config_sha256}


def _problem(problem: RunProblem) -> Document:
    return {
        "level": "error" if problem.error else "warning",
        "section": problem.section or None,
        "text": problem.text,
        "hint": problem.hint,
    }


def _section(section: SectionResult, run: RunResult) -> Document:
    begin, end = _times(section, run)
    return {
        "name": section.name,
        "kind": section.kind,
        "status": section.result.status.value,
        "message": section.result.message,
        "hint": section.result.hint,
        "warnings": list(section.result.warnings),
        "begin": _stamp(begin),
        "end": _stamp(end),
        "seconds": round(section.seconds, 3),
        "items": section.result.items,
        "bytes": section.result.bytes,
        "size": section.result.size,
    }


def _times(section: SectionResult, run: RunResult) -> tuple[datetime, datetime]:
    """Return when a section began and ended: stages and stores of a streamed run as its sources."""
    beside = run.mode == "streamed" and section.kind in _BESIDE
    sources = [other for other in run.sections if other.kind == "source"] if beside else []
    spans = sources or [section]
    begin = min(span.started_at for span in spans)
    return max(begin, run.begin), max(span.ended_at for span in spans)


def _store(store: StoreResult) -> Document:
    return {
        "section": store.section,
        "kind": store.kind,
        "status": store.status.value,
        "manifest": store.manifest,
        "sequence": store.sequence,
        "signer": store.signer or None,
        "items": store.items,
        "parts": store.parts,
        "bytes": store.bytes,
        "missing": list(store.missing),
    }


def _item(item: ItemResult) -> Document:
    return {
        "section": item.section,
        "name": item.name,
        "kind": item.kind,
        "size": item.size,
        "stored_size": item.stored_size,
        "seconds": item.seconds,
        "warnings": list(item.warnings),
    }
