"""Facts of items: typed for each kind, read from manifests of both versions, wrong ones named."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.base.errors import ManifestError
from tools.catalog import manifest
from tools.flow import facts
from tools.flow.facts import (
    BinlogFacts,
    FileFacts,
    MongoFacts,
    MysqlFacts,
    OpenldapFacts,
    PhysicalFacts,
)
from tools.flow.item_record import Part
from tools.flow.item_record import StoredItem as Item
from tools.modules import registry

PART = Part("20260101_030000.X.000", 1, "0" * 64)
EXAMPLES = (
    MysqlFacts(
        "8.0", "mysqldump 8.0", {"sql_mode": "ANSI"}, {"host": "db", "port": 3306, "port[a]": 1},
        binlog_file="bin.000001", binlog_position=4, time="2026-01-01 03:00:00",
        excluded=("a b", "c"), longest_statement=0,
    ),
    BinlogFacts("bin.000001", "bin.000002", 7, "2026-01-01 03:00:00", "ROW", created=(1, 2),
                encrypted=("bin.000001",), anew=True),
    PhysicalFacts(1 << 63, run="20260101_030000", full="20260101_030000"),
    OpenldapFacts(0, "dc=a"),
    MongoFacts(databases=("a", "b"), documents=2),
)  # fmt: skip


def item(kind: str, facts: dict[str, Any]) -> Item:
    return Item("X", "3306/shop", kind, "", (), (PART,), facts=facts)


def check(kind: str, facts: dict[str, Any]) -> None:
    registry.kind(kind).facts.of(item(kind, facts))


def test_every_kind_of_item_has_facts_of_its_own() -> None:
    used = [kind.facts for kind in registry.KINDS.values()]
    assert len(set(used)) == len(used)


@pytest.mark.parametrize("one", EXAMPLES, ids=lambda one: type(one).__name__)
def test_what_is_written_is_read(one: facts.Facts) -> None:
    assert type(one).from_json(json.loads(json.dumps(one.to_json()))) == one


def test_version_1_of_the_manifest_has_texts() -> None:
    old = {
        "first": "bin.000001", "last": "bin.000002", "last_size": "123", "format": "ROW",
        "until": "2026-01-01 03:00:00", "created": "1767236400 1767236401",
        "encrypted": "bin.000001 bin.000002", "anew": "yes",
    }  # fmt: skip
    facts = BinlogFacts.of(item("mysql-binlogs", old))
    assert (facts.last_size, facts.anew) == (123, True)
    assert facts.created == (1767236400, 1767236401)
    assert facts.encrypted == ("bin.000001", "bin.000002")
    assert facts.to_json()["last_size"] == 123


@pytest.mark.fault("a fact of an item that is unknown, missing or ill-typed", "named, exit 1")
@pytest.mark.parametrize(
    ("kind", "facts", "names"),
    [
        ("mysql", {"sever": "8"}, "sever is unknown"),
        ("mysql", {"server": 8}, "server is not a text"),
        ("mysql", {"binlog_file": "b.1", "time": "2026-01-01 00:00:00"}, "binlog_position is mi"),
        ("mysql", {"binlog_file": "b.1", "binlog_position": 4}, "time is not a time"),
        ("mysql", {"binlog_position": "4x"}, "binlog_position is not a number"),
        ("mysql", {"binlog_position": -1}, "binlog_position is not a number"),
        ("mysql", {"binlog_position": True}, "binlog_position is not a number"),
        ("mysql", {"binlog_position": 1 << 64}, "binlog_position is not a number"),
        ("mysql", {"variable.sql_mode": []}, "variable.sql_mode is not a text"),
        ("mysql", {"excluded": {}}, "excluded is not a list"),
        ("mysql-binlogs", {}, "first is missing"),
        ("mysql-physical", {"to_lsn": 1, "full": "20261301_000000"}, "full is not a run id"),
        ("mongo", {"documents": None}, "documents is not a number"),
    ],
)
def test_a_wrong_fact_is_named(kind: str, facts: dict[str, Any], names: str) -> None:
    with pytest.raises(ManifestError, match=f"X/3306/shop: invalid fact in the manifest: {names}"):
        check(kind, facts)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(st.sampled_from(sorted(registry.KINDS)), st.data())
def test_any_facts_are_read_or_rejected(kind: str, data: st.DataObject) -> None:
    names = [one.name for one in dataclasses.fields(registry.kind(kind).facts)] or ["x"]
    facts = data.draw(st.dictionaries(st.sampled_from(names), JSON))
    message = ""
    try:
        check(kind, facts)
    except ManifestError as error:
        message = str(error)
    assert not message or "invalid fact in the manifest" in message


def test_what_a_user_defined_source_says_is_kept() -> None:
    assert registry.kind("file").facts is FileFacts
    check("file", {"anything": [1]})


def test_a_manifest_of_version_1_has_base_as_a_fact() -> None:
    base = "20260101_030000"
    newest = manifest.Manifest("h", "20260102_030000", "", "", "streamed", "ok", ())
    old = json.loads(newest.to_json())
    part = {"name": "20260102_030000.X.3306.000", "size": 1, "sha256": "0" * 64}
    one = {
        "section": "X", "name": "3306", "kind": "mysql-physical", "ending": "", "stages": [],
        "parts": [part], "size": None, "sha256": None, "form": "parts", "warnings": [],
        "facts": {"to_lsn": "99", "base": base, "run": "20260102_030000", "full": base},
    }  # fmt: skip
    raw = json.dumps({**old, "version": 1, "base": base, "items": [one]}).encode()
    current = manifest.read(raw, "x")
    assert current.base == base
    assert current.items[0].base == base
    assert PhysicalFacts.of(current.items[0]).to_lsn == 99
    new = json.loads(current.to_json())
    assert (new["version"], "base" in new, new["items"][0]["base"]) == (2, False, base)
