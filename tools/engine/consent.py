"""The confirmations that a run can be given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Consent:
    """What the operator has confirmed on the command line."""

    store: bool = False  # --accept-store
    host: bool = False  # --adopt-host
    shrink: bool = False  # --accept-shrink
    rollback: bool = False  # --accept-rollback
