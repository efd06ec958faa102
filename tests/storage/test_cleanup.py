"""Clean-up of real servers: what is removed is gone, and the truth about what that has freed."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from cleanup import cleaning
from cleanup.cleaning import Order
from cleanup.policy import Rules
from cleanup.remembered import Remembered
from storage.s3_blocks import S3Blocks
from storage.s3_store import S3Store
from tests import s3_servers, stored_runs
from tests.s3_servers import GUARDED
from tests.storage import s3_stores, test_removal
from tools.base.result import Result, Status
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
