"""Whether a server keeps objects from being overwritten: proven by a probe, never assumed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable

from storage.create_only import PROBE, Proofs
from storage.s3_checksums import Part
from storage.s3_client import Client
from storage.s3_errors import ChecksumRefusedError, ConditionRefusedError, ConflictError
from storage.s3_listing import Listing
from storage.s3_sender import Condition, Sender
from tools.base.errors import StoreError, TakenError, TransientError
from tools.flow.block_backend import Upload

_FIRST, _SECOND = b"probe\n", b"a second object was accepted\n"
_IF_NEW: Condition = {"IfNoneMatch": "*"}
_ATTEMPTS = 2  # of a completion whose connection is closed


class Guard:
    """Keeps `publish` from replacing an object: by the server, else by listing the name before."""

    def __init__(self, client: Client, sender: Sender, listing: Listing) -> None:
        self._client = client
        self._sender = sender
        self._listing = listing
        self.proofs = Proofs(client, self.probe_put, self._probe_complete)

    def before_put(self, name: str) -> Condition:
        """Return the condition of a PutObject. Raises TakenError where the name is listed."""
        return self._condition(name, proven=self.proofs.put())

    def before_upload(self) -> None:
        """Probe the completion of uploads, before bytes are sent for nothing."""
        self.proofs.complete()

    def before_complete(self, name: str) -> Condition:
        """Return the condition of a completion. Raises TakenError where the name is listed."""
        return self._condition(name, proven=self.proofs.complete())

    def _condition(self, name: str, *, proven: bool) -> Condition:
        if proven:
            return _IF_NEW
        if self._listing.entry(name) is not None:
            raise TakenError(f"{name}: object exists with different content")
        return {}

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
