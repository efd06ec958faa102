"""Whether a server keeps objects from being overwritten: proven by a probe, never assumed."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable

from storage.s3_checksums import Part
from storage.s3_client import Client
from storage.s3_errors import ChecksumRefusedError, ConditionRefusedError, ConflictError
from storage.s3_listing import Listing
from storage.s3_sender import Condition, Sender
from tools.base import log
from tools.base.errors import StoreError, TakenError, TransientError
from tools.flow import store
from tools.flow.block_backend import Upload
from tools.flow.store import CreateOnly

PROBE = f"{store.OWN_FOLDER}/create-only-probe"
_FIRST, _SECOND = b"probe\n", b"a second object was accepted\n"
_IF_NEW: Condition = {"IfNoneMatch": "*"}
_ATTEMPTS = 2  # of a completion whose connection is closed


class Guard:
    """Keeps `publish` from replacing an object: by the server, else by listing the name before.

    Each of the two calls that publish is probed before it is first used. The probe is one object
    that stays, so that a later run needs one call, and no right to delete.
    """

    def __init__(self, client: Client, sender: Sender, listing: Listing) -> None:
        self._client = client
        self._sender = sender
        self._listing = listing
        self._lock = threading.Lock()
        self._put: bool | None = None
        self._complete: bool | None = None

    @property
    def create_only(self) -> CreateOnly:
        """See Store: PROBED where every call that was used has been proven."""
        proven = True in (self._put, self._complete) and not self.is_refuted
        return CreateOnly.PROBED if proven else CreateOnly.LISTED

    @property
    def is_refuted(self) -> bool:
        """Whether a probe has shown that the server replaces objects."""
        return False in (self._put, self._complete)

    def before_put(self, name: str) -> Condition:
        """Return the condition of a PutObject. Raises TakenError where the name is listed."""
        with self._lock:
            if self._put is None:
                self._put = self._told("PutObject", self.probe_put())
        return self._condition(name, proven=self._put)

    def before_upload(self) -> None:
        """Probe the completion of uploads, before bytes are sent for nothing."""
        with self._lock:
            if self._complete is None:
                self._complete = self._told("CompleteMultipartUpload", self._probe_complete())

    def before_complete(self, name: str) -> Condition:
        """Return the condition of a completion. Raises TakenError where the name is listed."""
        self.before_upload()
        return self._condition(name, proven=bool(self._complete))

    def _condition(self, name: str, *, proven: bool) -> Condition:
        if proven:
            return _IF_NEW
        if self._listing.entry(name) is not None:
            raise TakenError(f"{name}: object exists with different content")
        return {}

    def _told(self, operation: str, proven: bool) -> bool:
        how = CreateOnly.PROBED if proven else CreateOnly.LISTED
        log.always("%s: create-only (%s): %s", self._client, operation, how.value)
        return proven

    def probe_put(self) -> bool:
        """Return whether the server refuses to put the probe again; put it where it is missing."""

        def put() -> None:
            self._put_probe(_IF_NEW)

        return self._is_refused(put) or self._is_refused(put)

    def _put_probe(self, condition: Condition) -> None:
        digest = hashlib.sha256(_FIRST).hexdigest()
        self._sender.put(PROBE, _FIRST, digest, condition)

    def _probe_complete(self) -> bool:
        """Return whether the server refuses to complete an upload of the name of the probe."""
        if self._listing.entry(PROBE) is None:
            self._ensure_probe()
        upload = self._sender.begin(PROBE)
        try:
            part = self._sender.part(upload, 1, _SECOND)
            return self._is_refused(lambda: self._complete_probe(upload, part))
        finally:
            with contextlib.suppress(StoreError, OSError):
                self._client.call("abort_multipart_upload", PROBE, **self._sender.of(upload))

    def _ensure_probe(self) -> None:
        """Put the probe; by a condition where that is known, as policies may demand it."""
        try:
            self._put_probe(_IF_NEW)
        except (TakenError, ConflictError):
            return
        except (ConditionRefusedError, ChecksumRefusedError):
            self._put_probe({})

    def _complete_probe(self, upload: Upload, part: Part) -> None:
        """Complete an upload; a server that closes the connection instead has refused it."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._sender.complete(upload, [part], _IF_NEW)
                return
            except TransientError as error:
                entry = self._listing.entry(PROBE)
                replaced = entry is not None and entry.get("Size") == len(_SECOND)
                if replaced:
                    return
                if attempt == _ATTEMPTS:
                    raise TakenError(str(error)) from error

    def _is_refused(self, publish: Callable[[], None]) -> bool:
        try:
            publish()
        except (TakenError, ConflictError):
            return True
        except (ConditionRefusedError, ChecksumRefusedError):  # the latter also for 501
            return False
        return False
