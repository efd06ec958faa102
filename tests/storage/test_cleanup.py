"""Clean-up of real servers: what is removed is gone, and the truth about what that has freed."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest

from cleanup import cleaning
from cleanup.cleaning import Order
from cleanup.policy import Rules
from cleanup.remembered import Remembered
from storage.local_store import LocalStore
from storage.s3_blocks import S3Blocks
from storage.s3_store import S3Store
from storage.ssh_objects import SshStore
from storage.ssh_session import Session
from tests import s3_servers, stored_runs
from tests.s3_servers import GUARDED
from tests.sshd import sshd
from tests.storage import rclone_stores, s3_stores, test_removal
from tools.base.result import Result, Status
from tools.catalog import readback
from tools.catalog.catalog import Catalog
from tools.catalog.memory import Memory
from tools.catalog.trust import Trust
from tools.flow import store

HOST = "srv-test"
ORDER = Order(Rules(last=2, minimum=1), acts=True)


def filled(target: store.Store) -> list[str]:
    """Store six runs of two items; return their ids."""
    run_ids = []
    for second in range(6):
        run_id = stored_runs.run_id(stored_runs.days_ago(0.01) + timedelta(seconds=second))
        items = [stored_runs.item(run_id, "A"), stored_runs.item(run_id, "B")]
        stored_runs.put(target, dataclasses.replace(stored_runs.run(run_id, items), host=HOST))
        run_ids.append(run_id)
    return run_ids


def clean(target: store.Store, **order: object) -> Result:
    catalog = Catalog(target, HOST, Trust(everybody=True))
    remembered = Remembered(Memory(None), "s3", HOST)
    return cleaning.clean(catalog, Order(**{**vars(ORDER), **order}), remembered)[0]


def runs(target: store.Store) -> list[str]:
    return list(Catalog(target, HOST, Trust()).run_ids)


def opened(policy: str) -> S3Store:
    """The store of an account that has one of conf/policies."""
    client = s3_stores.client(s3_servers.guarded(policy), prefix=GUARDED, hostname=HOST)
    return S3Store(S3Blocks(client, s3_stores.PART), s3_stores.NO_WAIT)


def test_a_bucket_and_an_account_that_may_not_delete() -> None:
    target = opened("clean-up")
    for entry in list(target.entries(HOST)):
        target.remove([entry.name])
    run_ids = filled(opened("add-only"))
    result = clean(opened("add-only"))
    assert result.status is Status.OK
    assert cleaning.KEEPS in result.message
    assert clean(opened("add-only"), by_hand=True, really=True).status is Status.UNCLEAN
    assert runs(target) == run_ids
    assert "4 runs removed, 2 runs left" in clean(target).message
    assert runs(target) == run_ids[-2:]
    assert len(list(target.entries(HOST))) == 2 * 4


@pytest.mark.parametrize("versions", [False, True])
def test_a_versioned_bucket(versions: bool) -> None:
    target, client, bucket = test_removal.versioned()
    run_ids = filled(target)
    before = len(client.list_object_versions(Bucket=bucket)["Versions"])
    result = clean(target, versions=versions)
    assert result.status is Status.OK
    assert ("freed 0 B now" in result.message) is not versions
    assert runs(target) == run_ids[-2:]
    after = len(client.list_object_versions(Bucket=bucket)["Versions"])
    assert (after < before) is versions


def test_a_locked_bucket() -> None:
    target, _client, _bucket = test_removal.versioned(
        object_lock_mode="COMPLIANCE", object_lock_days=2
    )
    run_ids = filled(target)
    result = clean(target, versions=True)
    assert result.status is Status.OK
    assert "4 runs may not be removed yet" in result.message
    assert runs(target) == run_ids


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("ssh", marks=pytest.mark.needs("sshd")),
        pytest.param("rclone", marks=pytest.mark.needs("rclone")),
    ],
)
def test_daily_runs_of_an_account_and_of_a_remote(tmp_path: Path, kind: str) -> None:
    """Their files are as old as their runs; benchmarks/cleanup.py does the same with 400 runs."""
    run_ids: list[str] = []
    for day in range(20, 0, -1):
        moment = stored_runs.days_ago(day)
        run_ids.append(stored_runs.run_id(moment))
        base = None if day % 7 == 0 or len(run_ids) == 1 else run_ids[-2]
        items = [stored_runs.item(run_ids[-1], "A", base=base), stored_runs.item(run_ids[-1], "B")]
        whole = dataclasses.replace(stored_runs.run(run_ids[-1], items), host=HOST)
        stored_runs.put(LocalStore(tmp_path), whole)
        stored_runs.age(tmp_path / HOST, moment, run_ids[-1])
    target: store.Store
    if kind == "ssh":
        target = SshStore(Session(sshd().server()), str(tmp_path))
    else:
        target = rclone_stores.opened(f":local:{tmp_path}")
    rules = Rules(daily=3, weekly=2, minimum=1)
    plan = clean(target, rules=rules, acts=False)
    assert runs(target) == run_ids
    result = clean(target, rules=rules)
    assert (result.status, plan.status) == (Status.OK, Status.OK)
    remaining = runs(target)
    assert remaining[-3:] == run_ids[-3:]
    assert len(remaining) == 20 - result.items < 17
    assert {path.name[:15] for path in (tmp_path / HOST).iterdir()} == set(remaining)
    assert clean(target, rules=rules).items == 0
    catalog = Catalog(target, HOST, Trust(everybody=True))
    for run_id in remaining:
        run = catalog.manifest(run_id)
        assert not readback.missing_parts(readback.StoredRun(catalog, run), run.items)
