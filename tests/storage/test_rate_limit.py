"""LIMIT_UPLOAD and LIMIT_DOWNLOAD: one total for all stores of a process. No test waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from restore import arguments
from storage import storage
from storage.keys import StorageKeys
from storage.local_store import LocalStore
from tests.system import System, execute
from tools.base import lock
from tools.base.errors import ConfigError, TransientError
from tools.catalog import location
from tools.config import loading, model
from tools.engine import section_runner
from tools.engine.user_modules import ForRestore
from tools.flow import rate_limit, store, task
from tools.flow.memory_store import MemoryStore
from tools.flow.rate_limit import Bucket, RateLimited
from tools.flow.retries import Retries
from tools.flow.retrying_store import Retrying, retries_itself
from tools.flow.stalls import Watched
from tools.flow.store import Store
from tools.flow.task import StoppedError, Task
from tools.modules import options

KIB = 1024


class Clock:
    """A clock that only moves while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def bucket(self, rate: float) -> Bucket:
        """Return a bucket that lives by this clock."""
        return Bucket(rate, clock=lambda: self.now, wait=self.wait)

    def wait(self, seconds: float) -> None:
        """Let the time pass."""
        self.now += seconds


def read(target: Store, name: str, end: int | None = None) -> int:
    return sum(map(len, target.get(name, 0, end)))


def test_all_stores_share_one_rate_in_each_direction() -> None:
    clock = Clock()
    upload, download = clock.bucket(100 * KIB), clock.bucket(50 * KIB)
    one, other = (RateLimited(MemoryStore(), upload, download) for _ in range(2))
    store.store_object(one, "srv/x", [bytes(KIB)] * 500)
    assert clock.now == pytest.approx(5.0)
    store.store_object(other, "srv/x", [bytes(500 * KIB)])
    assert clock.now == pytest.approx(10.0)
    assert read(other, "srv/x", 300 * KIB) == 300 * KIB
    assert clock.now == pytest.approx(16.0)
    clock.now += 100  # time that was not used is not made up for
    store.store_object(one, "srv/y", [bytes(100 * KIB)])
    assert clock.now == pytest.approx(117.0)


def test_large_chunks_pass_in_small_pieces() -> None:
    """A connection that gets a megabyte every minute would be cut."""
    pieces = list(Clock().bucket(80 * KIB).pace([bytes(range(256)) * 4 * KIB]))
    assert b"".join(pieces) == bytes(range(256)) * 4 * KIB
    assert max(map(len, pieces)) == 10 * KIB


def test_only_one_direction_is_limited() -> None:
    clock = Clock()
    target = RateLimited(MemoryStore(), None, clock.bucket(10 * KIB))
    store.store_object(target, "srv/x", [bytes(KIB)])
    assert clock.now == 0
    assert read(target, "srv/x") == KIB
    assert clock.now == pytest.approx(0.1)


def test_what_is_sent_again_counts_again() -> None:
    clock, failing = Clock(), [TransientError("cut")] * 2

    def fault(call: str, _name: str) -> None:
        if call == "put end" and failing:
            raise failing.pop()

    inner = RateLimited(MemoryStore(fault), clock.bucket(100 * KIB), None)
    store.store_object(Retrying(inner, Retries(0, lambda _line: None)), "srv/x", [bytes(100 * KIB)])
    assert clock.now == pytest.approx(3.0)


def test_a_store_that_retries_itself_does_so_within_a_limit() -> None:
    class Persistent(MemoryStore):
        retries = Retries(0)

    assert retries_itself(RateLimited(Persistent(), None, None))
    assert not retries_itself(RateLimited(MemoryStore(), None, None))


@pytest.mark.parametrize("network", [True, False])
def test_a_local_disk_is_not_limited(
    tmp_path: Path, network: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "on_network", lambda folder: network and folder == tmp_path)
    target = rate_limit.limited(LocalStore(tmp_path), 5 * KIB, None)
    assert isinstance(target, RateLimited) == network
    assert store.folder_of(target) == tmp_path


def test_without_limits_nothing_is_wrapped() -> None:
    target = MemoryStore()
    assert rate_limit.limited(target, None, None) is target


def test_waiting_is_no_stall_and_ends_with_its_task() -> None:
    work, clock = Task(), Clock()
    work.moved = -1.0

    def sleep(seconds: float) -> None:
        clock.now += seconds
        if clock.now >= 50:
            work.stop("MAX_RUNTIME is over")

    with task.entered(work), pytest.raises(StoppedError, match="MAX_RUNTIME"):
        rate_limit.wait(3600, lambda: clock.now, sleep)
    assert 50 <= clock.now < 51
    assert work.moved > -1.0


def sections(system: System, **stores: Any) -> dict[str, Any]:
    """The sections of a small config."""
    source = execute("filesbackup", FILESET_INCLUDE=str(system.source))
    return {"FILESET": source, "STORAGE_LOCAL": execute("storage"), **stores}


def buckets(target: Store) -> tuple[Bucket | None, Bucket | None]:
    """The buckets of an open store."""
    limited = target
    while isinstance(limited, Retrying | Watched):
        limited = limited.inner
    assert isinstance(limited, RateLimited)
    return limited._upload, limited._download


def test_the_limits_of_general_hold_for_all_stores_of_a_run_and_a_restore(system: System) -> None:
    """Streamed runs, restores and copies open stores by `location.opened`."""
    command = {"DESTINATION": "command", "UPLOAD_COMMAND_TEMPLATE": "true %(file)s"}
    chosen = sections(
        system,
        ONE=execute("storage", **command),
        TWO=execute("storage", **command),
        OWN=execute("storage", **command, LIMIT_UPLOAD="2M"),
    )
    system.configure(chosen, LIMIT_UPLOAD="5M", LIMIT_DOWNLOAD="500K")
    config = loading.load(system.conf)
    stores = {one.name: one for one in config.sections if one.kind == "store"}
    one, two, with_limit = (
        buckets(location.opened(stores[n], config)) for n in ("ONE", "TWO", "OWN")
    )
    assert one == two
    assert None not in one
    assert (with_limit[0] is one[0], with_limit[1] is one[1]) == (False, True)
    local = location.opened(stores["STORAGE_LOCAL"], config)
    assert isinstance(local, Retrying)
    assert isinstance(local.inner, LocalStore)


@pytest.mark.parametrize("section", ["", "ONE"])
def test_the_limits_of_arguments_win(
    system: System, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    """Also for a store that is named by its URL, without a config."""
    monkeypatch.setattr(lock, "on_network", lambda _folder: True)
    options = ["--list", "--limit-download", "2M"]
    if section:
        section_limits = execute("storage", LOCAL_BACKUP=str(system.folder), LIMIT_DOWNLOAD="3M")
        system.configure(
            sections(system, ONE=section_limits), LIMIT_DOWNLOAD="500K", LIMIT_UPLOAD="1M"
        )
        options += ["-c", str(system.conf), "--store", section]
    else:
        options += ["--store", f"local://{system.folder}", "--hostname", "srv"]
    source = arguments.source(arguments.read(options))
    config = location.load_config(source)
    target = location.open_location(config, source, ForRestore(system.folder)).store
    upload, download = buckets(target)
    assert (upload is not None, download is not None) == (bool(section), True)
    assert download is rate_limit._shared("download", 2 << 20)


@pytest.mark.parametrize("value", ["fast", "1023", "0", "-5M", "5MB", f"{'9' * 400}T"])
def test_bad_limits_of_arguments(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        arguments.read(["--list", f"--limit-download={value}"])
    assert "not a size of at least 1K (500K, 5M, 1G)" in capsys.readouterr().err


def test_a_staged_run_passes_the_limits_on(system: System) -> None:
    """Each storage is a process, one after the other: each has the whole rate."""
    system.configure(sections(system), LIMIT_UPLOAD="5M", LIMIT_DOWNLOAD=4096)
    config = loading.load(system.conf)
    section = next(one for one in config.sections if one.kind == "store")
    argv = section_runner.command(section, config).argv
    for filled in (options.parse(storage.Options, argv[2:]), model.filled(section, config)):
        assert isinstance(filled, StorageKeys)
        assert (filled.limit_upload, filled.limit_download) == (5 << 20, 4096)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("fast", "LIMIT_UPLOAD: 'fast' is not a size (4096, 500K, 5M, 1G)"),
        ("5", "LIMIT_UPLOAD: 5 is less than 1024"),
        ("0", "LIMIT_UPLOAD: 0 is less than 1024"),
        ("-5M", "LIMIT_UPLOAD: '-5M' is not a size"),
        ("5MB", "LIMIT_UPLOAD: '5MB' is not a size"),
    ],
)
def test_bad_limits(system: System, value: str, problem: str) -> None:
    system.configure(sections(system), LIMIT_UPLOAD=value)
    with pytest.raises(ConfigError) as caught:
        loading.load(system.conf)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "bytes_"), [("4096", 4096), ("500K", 512000), ("1.5m", 3 << 19), (" 1 G ", 1 << 30)]
)
def test_sizes(text: str, bytes_: int) -> None:
    assert options.size(text) == bytes_
