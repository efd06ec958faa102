"""The flows of the fault sweep: each a command, the lab where it works, and its oracle."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import fault_checks, fault_setup, fault_stores
from benchmarks.fault_lab import BackupLab, Flow
from tools.base import project


def _backup(lab: BackupLab) -> list[str]:
    return [sys.executable, str(project.ROOT / "backup.py"), "-r", "-c", str(lab.conf)]


def _restore(lab: BackupLab, *arguments: str) -> list[str]:
    return [
        sys.executable,
        str(project.ROOT / "restore/restore.py"),
        "-c",
        str(lab.conf),
        *arguments,
    ]


def _restoring(lab: BackupLab) -> list[str]:
    return _restore(lab, "--restore", "latest", "--destination", str(lab.out))


def _decrypting(lab: BackupLab) -> list[str]:
    program = str(project.ROOT / "encryption/encryption.py")
    return [sys.executable, program, *lab.decrypting(lab.out)]


FLOWS: dict[str, Flow[Any]] = {
    flow.name: flow
    for flow in (
        Flow("streamed", BackupLab, _backup, fault_checks.after_run),
        Flow("staged", BackupLab, _backup, fault_checks.after_run, stream="False"),
        Flow("sqlite", BackupLab, _backup, fault_checks.after_run, source="SQLITE"),
        Flow("decrypt", BackupLab, _decrypting, fault_checks.after_decryption, backup=False),
        Flow(
            "verify",
            BackupLab,
            lambda lab: _restore(lab, "--verify", "all"),
            fault_checks.always,
            backup=False,
        ),
        Flow("restore", BackupLab, _restoring, fault_checks.after_restore, backup=False),
        *fault_stores.FLOWS,
        *fault_setup.FLOWS,
    )
}
