"""The document of a run as text for people: a subject, what it means, what to do next."""

from __future__ import annotations

from collections.abc import Iterator

from tools.base import foreign
from tools.base.result import Status
from tools.config.notify_keys import OF_STATUS, Outcome
from tools.date_str_utils import count, human_size, human_time
from tools.reporting.document import STARTED, Document

_LONGEST_SUBJECT = 160  # characters
_MOST_PROBLEMS = 50
_OUTCOME_TEXTS = {
    Outcome.START: "started",
    Outcome.SUCCESS: "succeeded",
    Outcome.UNCLEAN: "stored, clean-up failed",
    Outcome.INCOMPLETE: "incomplete",
    Outcome.FAILURE: "failed",
    Outcome.LOCKED: "not started: another run is in progress",
    Outcome.CONFIG: "not started: invalid config",
    Outcome.CANCELLED: "cancelled",
}
_MEANING = {
    Outcome.START: "The run has begun.",
    Outcome.SUCCESS: "Everything was stored.",
    Outcome.UNCLEAN: "Everything was stored. What should have been removed is still there.",
    Outcome.INCOMPLETE: "The run was stored. What is named below is missing from it, or needs "
    "attention.",
    Outcome.FAILURE: "What the failed sections should have stored is missing from this run. "
    "Runs that were stored earlier are unchanged.",
    Outcome.LOCKED: "Nothing was stored by this run: another one was still in progress.",
    Outcome.CONFIG: "Nothing was started and nothing was stored.",
    Outcome.CANCELLED: "A signal stopped the run before its end. What had not been stored by then "
    "is missing from it.",
}
_NEXT = {
    Outcome.UNCLEAN: "Follow the hints above, so that the disk or the store does not fill up.",
    Outcome.INCOMPLETE: "Follow the hints above. Until then each run lacks the same.",
    Outcome.FAILURE: "Follow the hints above, check with backup.py -t, then run the backup again.",
    Outcome.LOCKED: "Check whether the other run still works (its log), or whether it hangs.",
    Outcome.CONFIG: "Follow the hints above, check with backup.py -t, then run the backup again.",
    Outcome.CANCELLED: "Run the backup again.",
}
_RESTORED = {
    Outcome.SUCCESS: "Everything was restored.",
    Outcome.INCOMPLETE: "What is named below was not restored.",
    Outcome.FAILURE: "Not everything was restored.",
}


def outcome(document: Document) -> Outcome:
    """Return the outcome that a document of a run tells."""
    status = document["status"]
    return Outcome.START if status == STARTED else OF_STATUS[Status(status)]


def subject(document: Document) -> str:
    """Return host, outcome and the first problem as one line of at most 160 characters."""
    event = outcome(document)
    line = f"[{document['hostname'] or 'unknown'}] {document['action']} {_OUTCOME_TEXTS[event]}"
    problems = document["problems"]
    if problems and event is not Outcome.LOCKED:
        line += f": {_problem(problems[0])}"
    line = foreign.line(line)
    return line if len(line) <= _LONGEST_SUBJECT else f"{line[: _LONGEST_SUBJECT - 4]} ..."


def text(document: Document) -> str:
    """Return what happened, what it means and what to do next, then sections and stores."""
    return "\n\n".join("\n".join(lines) for lines in _paragraphs(document) if lines) + "\n"


def tail(log: str, most: int) -> str:
    """Return the last lines of a text, whole, in at most so many bytes of UTF-8.

    A last line that alone is larger keeps its beginning.
    """
    raw = clean(log).encode().rstrip(b"\n")
    if len(raw) <= most:
        return foreign.decoded(raw)
    end = raw[-most:]
    is_line = raw[-most - 1 : -most] == b"\n"  # the cut is at the beginning of a line
    after = 0 if is_line else end.find(b"\n") + 1
    if after or is_line:
        return end[after:].decode("utf-8", "ignore")
    last = raw[raw.rfind(b"\n") + 1 :]
    return last[:most].decode("utf-8", "ignore")


def clean(text: str) -> str:
    """Return a text that can be written in UTF-8: bytes of names that are not are escaped."""
    return foreign.decoded(text.encode("utf-8", "backslashreplace"))


def _paragraphs(document: Document) -> Iterator[list[str]]:
    event = outcome(document)
    code = document["exit_code"]
    ended = f" (exit code {code})" if code is not None else ""
    yield [
        f"{document['action'].title()} of {document['hostname']}: {_OUTCOME_TEXTS[event]}{ended}"
    ]
    restored = document["action"] != "backup"
    yield [_RESTORED.get(event, "") if restored else _MEANING[event]]
    yield [f"note: {line}" for line in document["notices"]]
    yield list(_problem_lines(document))
    yield [] if restored or event not in _NEXT else [f"Next: {_NEXT[event]}"]
    yield list(_facts(document))
    yield list(_sections(document))
    yield list(_stores(document))


def _problem(problem: Document) -> str:
    section = problem["section"]
    return f"{section}: {problem['text']}" if section else str(problem["text"])


def _problem_lines(document: Document) -> Iterator[str]:
    problems = document["problems"]
    hints: set[str] = set()
    for problem in problems[:_MOST_PROBLEMS]:
        yield f"{problem['level']}: {_problem(problem)}"
        if problem["hint"] and problem["hint"] not in hints:
            yield "  hint: " + problem["hint"].replace("\n", "\n        ")
        hints.add(problem["hint"])
    if len(problems) > _MOST_PROBLEMS:
        yield f"({len(problems) - _MOST_PROBLEMS} more)"


def _facts(document: Document) -> Iterator[str]:
    yield f"Run:      {document['run_id']}"
    yield f"Begin:    {document['begin']}"
    if document["end"] is not None:
        yield f"Duration: {human_time(document['seconds'])}"
        yield f"Size:     {document['size']}"
    if document["machine"]["name"]:
        yield f"Machine:  {document['machine']['name']}"
    yield f"Program:  {document['program']}"


def _sections(document: Document) -> Iterator[str]:
    sections = document["sections"]
    if sections:
        yield "Sections:"
    width = max((len(entry["name"]) for entry in sections), default=0)
    for entry in sections:
        took = human_time(entry["seconds"])
        yield f"  {entry['name']:{width}}  {entry['status']:10}  {took:>10}  {entry['message']}"


def _stores(document: Document) -> Iterator[str]:
    stores = document["stores"]
    if stores:
        yield "Stores:"
    for store in stores:
        held = f"{count(store['items'], 'item')}, {human_size(store['bytes'])}"
        state = held if store["manifest"] else "this run cannot be restored from it"
        yield f"  {store['section']} ({store['kind']}): {state}"
