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


def filled(place: store.Store) -> list[str]:
    """Store six runs of two items; return their ids."""
    made = []
    for second in range(6):
        run_id = stored_runs.run_id(stored_runs.days_ago(0.01) + timedelta(seconds=second))
        items = [stored_runs.item(run_id, "A"), stored_runs.item(run_id, "B")]
        stored_runs.put(place, dataclasses.replace(stored_runs.run(run_id, items), host=HOST))
        made.append(run_id)
    return made


def clean(place: store.Store, **order: object) -> Result:
    catalog = Catalog(place, HOST, Trust(everybody=True))
    remembered = Remembered(Memory(None), "s3", HOST)
    return cleaning.clean(catalog, Order(**{**vars(ORDER), **order}), remembered)[0]


def runs(place: store.Store) -> list[str]:
    return list(Catalog(place, HOST, Trust()).run_ids)


def opened(policy: str) -> S3Store:
    """The store of an account that has one of conf/policies."""
    client = s3_stores.client(s3_servers.guarded(policy), prefix=GUARDED, hostname=HOST)
    return S3Store(S3Blocks(client, s3_stores.PART), s3_stores.NO_WAIT)


def test_a_bucket_and_an_account_that_may_not_delete() -> None:
    place = opened("clean-up")
    for entry in list(place.entries(HOST)):
        place.remove([entry.name])
    made = filled(opened("add-only"))
    result = clean(opened("add-only"))
    assert result.status is Status.OK
    assert cleaning.KEEPS in result.message
    assert clean(opened("add-only"), by_hand=True, really=True).status is Status.UNCLEAN
    assert runs(place) == made
    assert "4 runs removed, 2 runs left" in clean(place).message
    assert runs(place) == made[-2:]
    assert len(list(place.entries(HOST))) == 2 * 4


@pytest.mark.parametrize("versions", [False, True])
def test_a_versioned_bucket(versions: bool) -> None:
    place, client, bucket = test_removal.versioned()
    made = filled(place)
    before = len(client.list_object_versions(Bucket=bucket)["Versions"])
    result = clean(place, versions=versions)
    assert result.status is Status.OK
    assert ("freed 0 B now" in result.message) is not versions
    assert runs(place) == made[-2:]
    after = len(client.list_object_versions(Bucket=bucket)["Versions"])
    assert (after < before) is versions


def test_a_locked_bucket() -> None:
    place, _client, _bucket = test_removal.versioned(
        object_lock_mode="COMPLIANCE", object_lock_days=2
    )
    made = filled(place)
    result = clean(place, versions=True)
    assert result.status is Status.OK
    assert "4 runs may not be removed yet" in result.message
    assert runs(place) == made


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("ssh", marks=pytest.mark.needs("sshd")),
        pytest.param("rclone", marks=pytest.mark.needs("rclone")),
    ],
)
def test_daily_runs_of_an_account_and_of_a_remote(tmp_path: Path, kind: str) -> None:
    """Their files are as old as their runs; benchmarks/cleanup.py does the same with 400 runs."""
    made: list[str] = []
    for day in range(20, 0, -1):
        moment = stored_runs.days_ago(day)
        made.append(stored_runs.run_id(moment))
        base = None if day % 7 == 0 or len(made) == 1 else made[-2]
        items = [stored_runs.item(made[-1], "A", base=base), stored_runs.item(made[-1], "B")]
        whole = dataclasses.replace(stored_runs.run(made[-1], items), host=HOST)
        stored_runs.put(LocalStore(tmp_path), whole)
        stored_runs.age(tmp_path / HOST, moment, made[-1])
    place: store.Store
    if kind == "ssh":
        place = SshStore(Session(sshd().server()), str(tmp_path))
    else:
        place = rclone_stores.opened(f":local:{tmp_path}")
    rules = Rules(daily=3, weekly=2, minimum=1)
    plan = clean(place, rules=rules, acts=False)
    assert runs(place) == made
    result = clean(place, rules=rules)
    assert (result.status, plan.status) == (Status.OK, Status.OK)
    left = runs(place)
    assert left[-3:] == made[-3:]
    assert len(left) == 20 - result.items < 17
    assert {path.name[:15] for path in (tmp_path / HOST).iterdir()} == set(left)
    assert clean(place, rules=rules).items == 0
    catalog = Catalog(place, HOST, Trust(everybody=True))
    for run_id in left:
        run = catalog.manifest(run_id)
        assert not readback.missing_parts(readback.StoredRun(catalog, run), run.items)
