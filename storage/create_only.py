"""What a store of buckets knows of create-only: each call that publishes is proven by a probe."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tools.base import log
from tools.flow import store
from tools.flow.store import CreateOnly

PROBE = f"{store.OWN_FOLDER}/create-only-probe"


class Proofs:
    """Whether the server keeps the two calls that publish from replacing an object.

    Each is probed before it is first used. The probe is one object that stays, so that a later
    run needs one call, and no right to delete.
    """

    def __init__(
        self, subject: object, put: Callable[[], bool], complete: Callable[[], bool]
    ) -> None:
        """Prepare the probes; none runs yet.

        subject: the store, for the log. put, complete: probe a call, and return what it shows
        """
        self._subject = subject
        self._probes = {"PutObject": put, "CompleteMultipartUpload": complete}
        self._outcomes: dict[str, bool] = {}
        self._lock = threading.Lock()

    @property
    def create_only(self) -> CreateOnly:
        """See Store: PROBED where every call that was used has been proven."""
        proven = bool(self._outcomes) and not self.is_refuted
        return CreateOnly.PROBED if proven else CreateOnly.LISTED

    @property
    def is_refuted(self) -> bool:
        """Return whether a probe has shown that the server replaces objects."""
        return False in self._outcomes.values()

    def put(self) -> bool:
        """Return whether PutObject is proven."""
        return self._proven("PutObject")

    def complete(self) -> bool:
        """Return whether CompleteMultipartUpload is proven."""
        return self._proven("CompleteMultipartUpload")

    def _proven(self, operation: str) -> bool:
        with self._lock:
            if operation not in self._outcomes:
                proven = self._probes[operation]()
                how = CreateOnly.PROBED if proven else CreateOnly.LISTED
                log.always("%s: create-only (%s): %s", self._subject, operation, how.value)
                self._outcomes[operation] = proven
            return self._outcomes[operation]
