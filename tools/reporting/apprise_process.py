"""One notification by Apprise, in a process of its own that can be ended.

Apprise reads the answer of a service into memory to its end, however long it is and whenever it
comes. Standard input is a JSON object with `url`, `title`, `body` and `kind`; standard output one
with `sent`, and `reason` where it was not.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
from typing import Any

_MEMORY = 1 << 28  # bytes of data: Apprise alone needs about 60 MB


class _Reasons(logging.Handler):
    """Keeps the last warning of Apprise: what it returns is only whether it failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


def _sent(message: dict[str, str]) -> dict[str, Any]:
    import apprise

    reasons = _Reasons()
    logging.getLogger("apprise").addHandler(reasons)
    service = apprise.Apprise()
    good = service.add(message["url"]) and service.notify(
        body=message["body"],
        title=message["title"],
        notify_type=message["kind"],
        body_format="text",
    )
    return {"sent": bool(good), "reason": reasons.last[:10_000]}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    output, sys.stdout = sys.stdout, sys.stderr  # what a service of Apprise prints is no result
    output.write(json.dumps(_sent(json.load(sys.stdin))))
