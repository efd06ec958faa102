"""The figures of the last run for Prometheus, as a file of its node exporter (METRICS_FILE).

The text format: https://prometheus.io/docs/instrumenting/exposition_formats/. The times of the
last success are kept in the private folder of WORK_FOLDER and in the file itself: a run that
failed leaves them as they are.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tools import filesystem_handling, os_works
from tools.base import fixes, foreign, foreign_json, hung_mount
from tools.base.finding import Level, Line
from tools.base.log import logger
from tools.base.result import Status
from tools.reporting.document import Document

STATE = "last_success.json"  # in the private folder: times by series
_MOST = 1 << 20  # bytes of a file that is read back
_MOST_SERIES = 1000  # times that are kept: of stores that left the config as well
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_GOOD = (Status.OK, Status.UNREPORTED, Status.UNCLEAN)
_STORING = ("store", "")  # kinds of sections that can store: "" is a user-defined module
_RUN, _STORE = "nc_backup_last_success", "nc_backup_store_last_success"
_SECONDS = "_timestamp_seconds"
# Every metric, each a gauge, with its meaning.
METRICS = {
    "nc_backup_last_run_start_timestamp_seconds": "Time at which the last run began.",
    "nc_backup_last_run_end_timestamp_seconds": "Time at which the last run ended.",
    "nc_backup_last_run_duration_seconds": "Duration of the last run.",
    "nc_backup_last_run_exit_code": "Exit code of the last run (docs/exit-codes.md).",
    "nc_backup_last_run_status": "1 for the status of the last run, 0 for every other one.",
    "nc_backup_last_run_bytes": "Bytes that the fullest store took in the last run.",
    "nc_backup_last_run_items": "Items that the last run stored.",
    "nc_backup_last_run_problems": "Errors and warnings of the last run, by level.",
    f"{_RUN}{_SECONDS}": "Time at which the last run ended that stored everything.",
    "nc_backup_section_exit_code": "Exit code of a section in the last run.",
    "nc_backup_section_duration_seconds": "Duration of a section in the last run.",
    "nc_backup_section_items": "Items of a section in the last run.",
    "nc_backup_section_bytes": "Bytes of a section in the last run.",
    "nc_backup_store_exit_code": "Exit code of a store in the last run.",
    "nc_backup_store_items": "Items of the last run in a store.",
    "nc_backup_store_bytes": "Bytes of the last run in a store.",
    f"{_STORE}{_SECONDS}": "Time at which the last run ended that is complete in a store.",
    "nc_backup_report_delivered": "1 if a channel delivered the report of the last run, else 0.",
}


@dataclass(frozen=True)
class _Sample:
    """One value. series: the metric with its labels, as the file has it"""

    series: str
    value: float

    @property
    def metric(self) -> str:
        return self.series.partition("{")[0]


def _sample(metric: str, labels: Mapping[str, str], value: float) -> _Sample:
    written = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
    return _Sample(f"{metric}{{{written}}}", value)


def write(
    file: Path,
    document: Document,
    config_file: str,
    private: Path | None,
    deliveries: Mapping[str, str],
) -> None:
    """Replace METRICS_FILE by the figures of a run. What fails is a line of the log.

    config_file: a label, so that two configs of one host do not collide
    private: folder of the times of the last success; None where it cannot be used
    deliveries: of the report, by channel
    """
    base = {"hostname": str(document["hostname"]), "config": config_file}
    try:
        hung_mount.answer(file, lambda: _write(file, document, base, private, deliveries))
    except (OSError, ValueError) as error:
        logger.warning("METRICS_FILE %s not written: %s", file, _reason(error))


def tested(file: Path | None) -> list[Line]:
    """Return whether METRICS_FILE could be written (`-t`); nothing if there is none."""
    if file is None:
        return []
    folder = file.parent

    def look() -> bool:
        return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK, effective_ids=True)

    try:
        good = hung_mount.answer(file, look)
    except OSError as error:
        return [Line("GENERAL", f"METRICS_FILE: {_reason(error)}", Level.BAD)]
    if good:
        return [Line("GENERAL", f"METRICS_FILE {file} can be written")]
    user = os_works.user()
    text, hint = f"METRICS_FILE: {folder} is not writable", f"Let {user} write into this folder."
    fix = ""
    if not os.path.lexists(folder):
        fix = fixes.as_root(f"install -d -o {user} -m 0755 {shlex.quote(str(folder))}")
    return [Line("GENERAL", text, Level.BAD, hint, fix)]


def _write(
    file: Path,
    document: Document,
    base: Mapping[str, str],
    private: Path | None,
    deliveries: Mapping[str, str],
) -> None:
    kept = {**_of_file(file), **_of_state(private)}
    samples = [*_of_run(document, base), *_of_sections(document, base), *_of_stores(document, base)]
    samples += [
        _sample("nc_backup_report_delivered", {**base, "channel": name}, float(how == "delivered"))
        for name, how in deliveries.items()
    ]
    now = {sample.series: sample.value for sample in _successes(document, base)}
    _keep(private, {**kept, **now})
    samples += _last_successes(document, base, {**kept, **now})
    _replace(file, _text(samples).encode("utf-8", "backslashreplace"))


def _of_run(document: Document, base: Mapping[str, str]) -> Iterator[_Sample]:
    prefix = "nc_backup_last_run_"
    yield _sample(f"{prefix}start{_SECONDS}", base, _seconds(document["begin"]))
    yield _sample(f"{prefix}end{_SECONDS}", base, _seconds(document["end"]))
    yield _sample(f"{prefix}duration_seconds", base, document["seconds"])
    yield _sample(f"{prefix}exit_code", base, document["exit_code"])
    for status in Status:
        labels = {**base, "status": status.value}
        yield _sample(f"{prefix}status", labels, float(status.value == document["status"]))
    yield _sample(f"{prefix}bytes", base, document["bytes"])
    yield _sample(f"{prefix}items", base, len(document["items"]))
    for level in ("error", "warning"):
        number = sum(problem["level"] == level for problem in document["problems"])
        yield _sample(f"{prefix}problems", {**base, "level": level}, number)


def _of_sections(document: Document, base: Mapping[str, str]) -> Iterator[_Sample]:
    for section in document["sections"]:
        labels = {**base, "section": section["name"], "kind": section["kind"]}
        code = Status(section["status"]).exit_code
        yield _sample("nc_backup_section_exit_code", labels, code)
        yield _sample("nc_backup_section_duration_seconds", labels, section["seconds"])
        yield _sample("nc_backup_section_items", labels, section["items"])
        yield _sample("nc_backup_section_bytes", labels, section["bytes"])


def _of_stores(document: Document, base: Mapping[str, str]) -> Iterator[_Sample]:
    for store in document["stores"]:
        labels = _store_labels(store, base)
        code = Status(store["status"]).exit_code
        yield _sample("nc_backup_store_exit_code", labels, code)
        yield _sample("nc_backup_store_items", labels, store["items"])
        yield _sample("nc_backup_store_bytes", labels, store["bytes"])


def _store_labels(store: Document, base: Mapping[str, str]) -> dict[str, str]:
    return {**base, "store": store["section"], "kind": store["kind"]}


def _successes(document: Document, base: Mapping[str, str]) -> Iterator[_Sample]:
    """Give the times that this run moves: of the run and of each store that holds all of it."""
    end = _seconds(document["end"])
    stores = any(store["kind"] in _STORING for store in document["sections"])
    if Status(document["status"]) in _GOOD and stores:
        yield _sample(f"{_RUN}{_SECONDS}", base, end)
    for store in document["stores"]:
        if store["manifest"] and Status(store["status"]) in _GOOD:
            yield _sample(f"{_STORE}{_SECONDS}", _store_labels(store, base), end)


def _last_successes(
    document: Document, base: Mapping[str, str], times: Mapping[str, float]
) -> Iterator[_Sample]:
    """Give the times of the run, and of all stores of this config that are known."""
    series = _sample(f"{_RUN}{_SECONDS}", base, 0.0).series
    prefix = _sample(f"{_STORE}{_SECONDS}", base, 0.0).series.removesuffix("}")
    for name, value in times.items():
        if name == series or name.startswith(f"{prefix},"):
            yield _Sample(name, value)


def _text(samples: Iterable[_Sample]) -> str:
    """Return the file: the samples by metric, each with its meaning."""
    by_metric: dict[str, list[str]] = {}
    for sample in samples:
        by_metric.setdefault(sample.metric, []).append(f"{sample.series} {sample.value:.15g}")
    lines = []
    for metric, meaning in METRICS.items():
        if metric in by_metric:
            lines += [f"# HELP {metric} {meaning}", f"# TYPE {metric} gauge", *by_metric[metric]]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Return the value of a label: backslash, quote and line feed escaped, control characters not.

    They are replaced: no reader of the file needs them.
    """
    printable = foreign.printable(text, keep="\n")
    return printable.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


# --- what is kept


def _of_file(file: Path) -> dict[str, float]:
    """Return the times of the last success that a METRICS_FILE holds; none if it is broken."""
    times = {}
    for line in foreign.lines(foreign.decoded(_content(file))):
        series, _, value = line.rpartition(" ")
        ours = series.startswith((f"{_RUN}{_SECONDS}{{", f"{_STORE}{_SECONDS}{{"))
        if ours and _NUMBER.fullmatch(value):
            times[series] = float(value)
    return times


def _of_state(private: Path | None) -> dict[str, float]:
    """Return the same of the private folder."""
    if private is None:
        return {}
    try:
        value_by_series = foreign_json.load(_content(private / STATE), _MOST)
    except ValueError:
        return {}
    if not isinstance(value_by_series, dict):
        return {}
    return {
        series: float(value)
        for series, value in value_by_series.items()
        if isinstance(value, int | float) and math.isfinite(value) and value > 0
    }


def _content(file: Path) -> bytes:
    try:
        return foreign.content(file, _MOST)
    except OSError:
        return b""


def _keep(private: Path | None, times: Mapping[str, float]) -> None:
    if private is None:
        return
    newest = sorted(times.items(), key=lambda pair: pair[1])[-_MOST_SERIES:]
    try:
        _replace(private / STATE, json.dumps(dict(newest)).encode(), mode=0o600)
    except OSError as error:
        logger.warning("times of the last success not kept: %s", _reason(error))


def _replace(file: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace a file at once: a reader sees the old one or the new one."""
    with filesystem_handling.staged(file) as temporary:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, mode)
        try:
            os.fchmod(descriptor, mode)  # whatever the umask is
            filesystem_handling.write_all(descriptor, content)
        finally:
            os.close(descriptor)
        temporary.replace(file)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
