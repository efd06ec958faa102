"""The end of a run: its report to all recipients, and its metrics."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tools.base.errors import BackupError
from tools.base.log import RunLog, logger
from tools.base.result import Status, worst
from tools.base.run_result import RunResult
from tools.config.loading import ReportSettings
from tools.engine import state
from tools.reporting import channels, delivery, document, metrics, terminal

_TRIES_AFTER_SIGNAL = 1  # of a report: the run was asked to end


def send(
    result: RunResult, settings: ReportSettings, run_log: RunLog
) -> tuple[RunResult, dict[str, str]]:
    """Send the report, write the metrics; return the result, and the deliveries by channel.

    Whatever happens to the report, the result of the backup stays what it is: at worst one that
    is good becomes UNREPORTED.
    """
    if not settings.enabled:
        return result, {}
    private = _private_folder(result, settings.work_folder)
    _write_metrics(result, settings, private, {})  # sending may take long, or be killed
    interrupted = result.status in (Status.INTERRUPTED, Status.TERMINATED)
    deliveries = delivery.deliver(
        channels.configured(settings.general, settings.channels),
        document.run_document(result),
        "\n".join([run_log.tail(), *terminal.table_lines(result)]),
        private,
        tries=_TRIES_AFTER_SIGNAL if interrupted else delivery.TRIES,
        resend=bool(result.sections),  # only the run that held the lock sends what waits
    )
    if document.worst(deliveries) in ("kept", "lost"):
        result = dataclasses.replace(result, status=worst((result.status, Status.UNREPORTED)))
    if deliveries:
        _write_metrics(result, settings, private, deliveries)
    return result, deliveries


def _write_metrics(
    result: RunResult, settings: ReportSettings, private: Path | None, deliveries: dict[str, str]
) -> None:
    file = settings.general.metrics_file
    if file is not None:
        run_document = document.run_document(result)
        metrics.write(file, run_document, result.origin.config_file, private, deliveries)


def _private_folder(result: RunResult, work_folder: Path | None) -> Path | None:
    """Return the folder of the spool; None if it cannot be used.

    A run that was rejected does not create it: what root creates would lock out the user of the
    backup.
    """
    if work_folder is None:
        return None
    try:
        if result.status is Status.REFUSED:
            return state.owned_folder(work_folder)
        return state.folder(work_folder)
    except (OSError, BackupError) as error:
        logger.error("report: cannot keep it in WORK_FOLDER: %s", error)
        return None
