"""UPLOAD_COMMAND: parts are uploaded by a program, everything else by the store itself."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from storage import s3_checksums
from storage.bucket_keys import is_record
from storage.local_store import LocalStore
from storage.s3_blocks import S3Blocks
from storage.s3_checksums import Expected
from storage.s3_options import Options
from tools import os_works
from tools.base.errors import StoreError, TakenError, TransientError
from tools.base.log import logger
from tools.flow import process, store, stream
from tools.flow.block_backend import Held
from tools.flow.block_store import BlockStore
from tools.flow.retries import Retries, SelfRetrying
from tools.flow.store import StoredObject, StoreEntry
from tools.flow.store_wrappers import Wrapping

_FOLDER = Path(".nc-backup-py")  # the private folder of runs in WORK_FOLDER
_NAMED = {  # keys of the section as variables of AWS's programs
    "endpoint_url": "AWS_ENDPOINT_URL_S3",
    "profile": "AWS_PROFILE",
    "region": "AWS_DEFAULT_REGION",
    "ca_bundle": "AWS_CA_BUNDLE",
}


def tested(options: Options) -> str:
    """Return what was found about the program. Raises StoreError where there is none."""
    arguments = shlex.split(options.upload_command)
    if not arguments or shutil.which(arguments[0]) is None:
        raise StoreError(
            f"UPLOAD_COMMAND: {arguments[0] if arguments else '(empty)'}: command not found",
            "Install it, or set its absolute path; without the key the built-in upload is used.",
        )
    return f"UPLOAD_COMMAND: {arguments[0]} exists; only a run can test the upload"


class CommandUploads(Wrapping):
    """A store of which the parts are files in WORK_FOLDER until a program has uploaded them.

    The server is asked afterwards: size and checksum must be those of the file. The program may
    replace an object, so each name is looked up before.
    """

    create_only = store.CreateOnly.LISTED

    def __init__(self, inner: BlockStore, backend: S3Blocks) -> None:
        super().__init__(inner)
        self._backend = backend
        self._options = backend.client.options
        self.retries: Retries = inner.retries
        digest = hashlib.sha256(self._options.url.encode()).hexdigest()[:16]
        self._waiting = LocalStore(self._options.work_folder / _FOLDER / f"s3-upload-{digest}")
        self._put: dict[str, StoredObject] = {}
        self._env = self._environment()

    def _environment(self) -> dict[str, str]:
        variables = {
            variable: str(getattr(self._options, key) or "") for key, variable in _NAMED.items()
        }
        return os_works.environment(
            {variable: value for variable, value in variables.items() if value},
            [variable for variable in os.environ if variable.startswith("AWS_")],
            proxies=True,
        )

    def note(self) -> str:
        """See Noted."""
        return f"uploaded by {shlex.split(self._options.upload_command)[0]}"

    def put(self, name: str, chunks: Iterable[bytes]) -> StoredObject:
        """See Store: what waits is proven by the disk, and what was uploaded by `publish`."""
        if is_record(name):
            return super().put(name, chunks)
        self._waiting.remove([name])  # of a killed upload
        stored = self._waiting.put(name, chunks)
        self._put[name] = stored
        return stored

    def publish(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            if name not in self._put:
                super().publish([name])
                continue
            self._waiting.publish([name])
            self._publish(self._put[name])
            self._waiting.remove([name])
            del self._put[name]

    def _publish(self, stored: StoredObject) -> None:
        expected = _expected(stored, self._waiting.get(stored.name))
        held = self._held(stored, expected)
        if held is Held.OTHER:
            raise TakenError(f"{stored.name}: object exists with different content")
        if held is Held.ABSENT:
            self.retries.call(stored.name, lambda: self._upload(stored.name))
            held = self.retries.call(stored.name, lambda: self._held(stored, expected))
        if held is not Held.OURS:
            raise StoreError(
                f"{self}: {stored.name}: UPLOAD_COMMAND succeeded, and the server holds "
                f"{'no such object' if held is Held.ABSENT else 'other bytes'}",
                "Check that it uploads to the bucket, PREFIX and ENDPOINT_URL of this section.",
            )

    def _upload(self, name: str) -> None:
        """Run the program. Raises TransientError where it fails."""
        url = f"s3://{self._options.bucket_name}/{self._backend.keys.of(name)}"
        command = shlex.split(self._options.upload_command)
        output = process.output(
            [*command, str(self._waiting.folder / name), url],
            notice=lambda line: logger.info("%s: %s", self, line),
            env=self._env,
            failure=TransientError,
            name=f"UPLOAD_COMMAND ({command[0]})",
        )
        stream.drained(output)

    def _held(self, stored: StoredObject, expected: Expected) -> Held:
        """Compare what the server holds with the file; it is read where nothing else tells."""
        answer = self._backend.described(stored.name)
        if answer is None:
            return Held.ABSENT
        held = expected.compared(answer)
        if held is not Held.UNKNOWN:
            return held
        read = stream.content(self.get(stored.name))
        stream.drained(read)
        same = (read.size, read.sha256) == (stored.size, stored.sha256)
        return Held.OURS if same else Held.OTHER

    def discard(self, names: Sequence[str]) -> None:
        """See Store."""
        for name in names:
            if self._put.pop(name, None) is not None:
                self._waiting.discard([name])
                self._waiting.remove([name])
        super().discard(names)

    def unfinished(self, folder: str) -> Iterator[StoreEntry]:
        """See Store."""
        yield from super().unfinished(folder)
        yield from self._waiting.unfinished(folder)

    def remove(self, names: Sequence[str]) -> None:
        """See Store."""
        super().remove(names)
        self._waiting.remove(names)


def _expected(stored: StoredObject, chunks: Iterable[bytes]) -> Expected:
    """Return what the server must say of a file."""
    crc = 0
    md5 = hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        crc = s3_checksums.crc32_of(chunk, crc)
        md5.update(chunk)
    digest = s3_checksums.sha256(stored.sha256)
    return Expected(stored.size, s3_checksums.crc32(crc), digest, md5.hexdigest())


if TYPE_CHECKING:
    _: type[store.Store] = CommandUploads
    _persistent: type[SelfRetrying] = CommandUploads
    _noted: type[store.Noted] = CommandUploads
