"""The store of Aliyun OSS: objects of a bucket, by the package oss2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from storage import account_checks, bucket_keys, oss_account, oss_checks
from storage.bucket_keys import MIB, PLAINTEXT, BucketOptions, Keys
from storage.keys import Address
from storage.oss_account import DEFAULT_FILE
from storage.oss_blocks import OssBlocks
from storage.oss_client import Client
from tools.base import log
from tools.base.errors import BackupError, ConfigError
from tools.base.finding import Finding
from tools.base.log import logger
from tools.flow import store
from tools.flow.block_store import BlockStore
from tools.flow.retries import Retries
from tools.modules.options import option

_PARALLEL = 4  # parts that are sent at a time
_MEMORY = 64 << 20  # bytes of all parts in memory
_CLASSES = ("Standard", "IA", "Archive", "ColdArchive", "DeepColdArchive")


@dataclass(frozen=True)
class Options(BucketOptions):
    """The keys of a section with DESTINATION oss."""

    aliyun_credentials: Path | None = option(
        "oss: file with access_id, access_key, host and bucket; default: the variables "
        f"OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET, else `{DEFAULT_FILE}`",
        default=None,
    )
    endpoint: str = option("oss: server; default: `host` of ALIYUN_CREDENTIALS", default="")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bucket_name:
            oss_account.check_bucket(self.bucket_name, "")
        if self.endpoint:
            oss_account.endpoint(self.endpoint, "ENDPOINT")
        if self.storage_class and self.storage_class not in _CLASSES:
            raise ConfigError(
                f"STORAGE_CLASS: {self.storage_class!r}: no class of OSS",
                f"Use one of {', '.join(_CLASSES)}.",
            )

    @property
    def location(self) -> str:
        """Return the folder and its server, for comparison with other sections."""
        server = self.endpoint or str(self.aliyun_credentials or "")
        at = f" at {server}" if server else ""
        return f"{self.url(self.bucket_name or '(that of the credentials)')}{at}"

    def url(self, bucket: str) -> str:
        """Return oss://BUCKET/PREFIX, without a slash at its end."""
        return "/".join(filter(None, (f"oss://{bucket}", self.prefix.strip("/"))))


class OssStore(BlockStore):
    """Objects of a bucket: parts are sent several at a time, each one retried."""

    def __init__(self, backend: OssBlocks, retries: Retries, *, memory: int | None = None) -> None:
        """Let up to `memory` bytes of small objects wait; None for one part."""
        waiting = backend.block_size if memory is None else memory
        super().__init__(backend, retries, parallel=_PARALLEL, memory=waiting, total=_MEMORY)
        self._backend_of_oss = backend

    def versioning(self) -> bool:
        """See Versioned."""
        return self.retries.call(str(self), self._backend_of_oss.removal.versioning)

    def remove_versions(self, names: Sequence[str]) -> int:
        """See Versioned."""

        def again(call: Callable[[], None]) -> None:
            self.retries.call(", ".join(names[:1]), call)

        checked = list(map(store.check_name, names))
        return self._backend_of_oss.removal.remove_versions(checked, again)

    def may_remove(self, host: str) -> bool:
        """See Probed."""
        name = account_checks.name_in(host)
        removal = self._backend_of_oss.removal
        return self.retries.call(str(self), lambda: removal.allowed(name))

    def note(self) -> str:
        """See Noted: whether objects can be replaced."""
        refuted = self._backend_of_oss.guard.proofs.is_refuted
        return f"create-only {store.CreateOnly.LISTED.value}" if refuted else ""


def open_store(options: Options) -> store.Store:
    """Return the store; nothing is sent yet. Raises ConfigError."""
    client = _client(options)
    connection = client.connection
    log.always("%s: %s", client, connection.about())
    if connection.account.endpoint.is_exposed:
        logger.warning("%s: %s", client, PLAINTEXT)
    return OssStore(_blocks(options, client), Retries(options.retry_wait))


def _client(options: Options) -> Client:
    return Client(options, lambda account: options.url(account.bucket))


def _blocks(options: Options, client: Client) -> OssBlocks:
    return OssBlocks(
        client,
        prefix=options.prefix,
        block_size=options.part_size * MIB,
        storage_class=options.storage_class,
    )


def test(options: Options) -> Sequence[Finding]:
    """Return what was found about the bucket. Raises BackupError where it cannot be listed."""
    client = _client(options)
    blocks = _blocks(options, client)
    next(iter(blocks.folders()), None)
    connection = client.connection
    return [
        Finding(f"{client}: {connection.about()}"),
        *oss_checks.connection(client, connection.account.endpoint),
        *oss_checks.versioning(client),
        *oss_checks.retention(client),
        *oss_checks.lifecycle(client, Keys(options.prefix).folder(options.hostname)),
        *account_checks.of_bucket(blocks, options.hostname),
        *account_checks.clock(client, client.ahead),
    ]


def describe(options: Options) -> str:
    """Return where the objects of this host lie, for messages."""
    bucket = options.bucket_name
    if not bucket:
        try:
            bucket = oss_account.of(options).bucket
        except BackupError:
            bucket = "bucket of ALIYUN_CREDENTIALS"
    return f"{options.url(bucket)}/{options.hostname}"


def keys_of(address: Address) -> dict[str, str]:
    """Return the keys of a store by its address: oss://BUCKET/PREFIX. Raises ConfigError."""
    return bucket_keys.keys_of("oss", address, "ENDPOINT")


if TYPE_CHECKING:
    _: type[store.Store] = OssStore
    _noted: type[store.Noted] = OssStore
    _versioned: type[store.Versioned] = OssStore
    _probed: type[store.Probed] = OssStore
