"""The store `s3`: a bucket of Amazon S3 or of a server that speaks its protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from storage import account_checks, bucket_keys, s3_checks, s3_command
from storage.bucket_keys import PLAINTEXT, is_public_plaintext
from storage.keys import Address
from storage.s3_blocks import S3Blocks
from storage.s3_client import Client
from storage.s3_options import Options
from storage.s3_prefetch import Prefetcher
from tools.base import log
from tools.base.finding import Finding
from tools.base.log import logger
from tools.flow import store
from tools.flow.block_store import BlockStore
from tools.flow.copies import Choosing
from tools.flow.retries import Retries, SelfRetrying
from tools.flow.store import StoredObject

__all__ = ["Options", "S3Store", "describe", "keys_of", "open_store", "test"]
_MEMORY = 64 << 20  # bytes of parts in memory
_PARALLEL = 4  # parts that are sent at a time


class S3Store(BlockStore):
    """Objects of a bucket: parts are sent several at a time, each one retried."""

    def __init__(self, backend: S3Blocks, retries: Retries, *, memory: int | None = None) -> None:
        """Let up to `memory` bytes of small objects wait; None for one part."""
        waiting = backend.block_size if memory is None else memory
        super().__init__(backend, retries, parallel=_PARALLEL, memory=waiting, total=_MEMORY)
        self.backend = backend
        self._prefetcher = Prefetcher(backend)

    def prefetch(self, names: Sequence[str]) -> None:
        """See Prefetching."""
        self._prefetcher.begin(names)

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Store."""
        coming = self._prefetcher.get(name) if (start, end) == (0, None) else None
        return super().get(name, start, end) if coming is None else coming

    def choose(self, stored: StoredObject) -> None:
        """See Choosing: in a bucket that keeps versions, an older one where the newest differs."""
        self.retries.call(stored.name, lambda: self.backend.versions.choose(stored))

    def holds(self, stored: StoredObject) -> bool:
        """See Choosing."""
        return self.retries.call(stored.name, lambda: self.backend.versions.holds(stored))

    def versioning(self) -> bool:
        """See Versioned."""
        return self.retries.call(str(self), self.backend.removal.versioning)

    def remove_versions(self, names: Sequence[str]) -> int:
        """See Versioned."""

        def again(call: Callable[[], None]) -> None:
            self.retries.call(", ".join(names[:1]), call)

        return self.backend.removal.remove_versions(list(map(store.check_name, names)), again)

    def may_remove(self, host: str) -> bool:
        """See Probed."""
        name = account_checks.name_in(host)
        return self.retries.call(str(self), lambda: self.backend.removal.allowed(name))

    def note(self) -> str:
        """See Noted: the server that is used, and whether it replaces objects."""
        return s3_checks.note(self.backend)


def open_store(options: Options) -> store.Store:
    """Return the store. Raises ConfigError or StoreError where there are no credentials."""
    client = Client(options)
    log.always("%s: %s", client, client.connection.about())
    if is_public_plaintext(client.connection.endpoint):
        logger.warning("%s: %s", client, PLAINTEXT)
    backend = S3Blocks(client)
    blocks = S3Store(backend, Retries(options.retry_wait))
    return s3_command.CommandUploads(blocks, backend) if options.upload_command else blocks


def test(options: Options) -> Sequence[Finding]:
    """Return what was found about the bucket. Raises StoreError where it cannot be used."""
    command = (s3_command.tested(options),) if options.upload_command else ()
    return (*s3_checks.tested(S3Blocks(Client(options))), *map(Finding, command))


def describe(options: Options) -> str:
    """Return where the objects of this host lie, for messages."""
    return f"{options.url}/{options.hostname}"


def keys_of(address: Address) -> dict[str, str]:
    """Return the keys of a store by its address: s3://BUCKET/PREFIX. Raises ConfigError."""
    return bucket_keys.keys_of("s3", address, "ENDPOINT_URL")


if TYPE_CHECKING:
    _: type[store.Store] = S3Store
    _persistent: type[SelfRetrying] = S3Store
    _noted: type[store.Noted] = S3Store
    _versioned: type[store.Versioned] = S3Store
    _prefetching: type[store.Prefetching] = S3Store
    _probed: type[store.Probed] = S3Store
    _choosing: type[Choosing] = S3Store
