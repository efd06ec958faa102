"""The manifest: what is written is read, as the schema in docs/ says; the rest is refused."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.system import System, execute
from tools.base import project
from tools.base.errors import ManifestError
from tools.catalog import manifest
from tools.catalog.manifest import Manifest
from tools.flow import item_record
from tools.flow.item_record import Part
from tools.flow.item_record import StoredItem as Item

SCHEMA = json.loads((project.ROOT / "docs/manifest.schema.json").read_text(encoding="utf-8"))
DIGEST = "0123456789abcdef" * 4
MANIFEST = Manifest(
    host="srv-1",
    run_id="20260101_030000",
    begin="2026-01-01T03:00:00Z",
    end="2026-01-01T03:10:00Z",
    mode="streamed",
    status="ok",
    items=(
        Item(
            "FILESET",
            "",
            "fileset",
            ".tar",
            ("zstd", "age"),
            (Part("20260101_030000.FILESET.tar.zst.age.000", 7, DIGEST),),
            9,
            DIGEST,
            facts={"tar": "1.34"},
            seconds=1.25,
        ),
    ),
    missing=("MYSQL/shop",),
    warnings=("FILESET: odd \udcff",),
    config=DIGEST,
)


def test_what_is_written_is_read() -> None:
    assert manifest.read(MANIFEST.to_json(), "x") == MANIFEST
    jsonschema.validate(json.loads(MANIFEST.to_json()), SCHEMA)
    without = dataclasses.replace(
        MANIFEST, items=(dataclasses.replace(MANIFEST.items[0], seconds=None),)
    )
    assert b"seconds" not in without.to_json()  # as earlier versions wrote it
    assert manifest.read(without.to_json(), "x") == without


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["True", "False"])
def test_real_runs_write_what_the_schema_says(tmp_path: Path, stream: str) -> None:
    system = System(tmp_path)
    (system.source / "a").write_bytes(os.urandom(2 << 20))
    system.configure(system.full_sections(), STREAM=stream)
    assert system.result()["exit_code"] == 0
    document = system.manifest()
    jsonschema.validate(document, SCHEMA)
    (item,) = document["items"]
    assert (item["section"], item["kind"], item["stages"]) == (
        "FILESET",
        "fileset",
        ["zstd", "age"],
    )
    assert "GNU tar" in item["facts"]["tar"]
    assert 0 < item["seconds"] < 60
    assert [part["name"] for part in item["parts"]] == system.stored()


def test_a_later_version_may_add_keys_and_nothing_is_lost() -> None:
    document = json.loads(MANIFEST.to_json())
    document["chain"] = {"new": True}
    document["items"][0]["parts"][0]["crc64"] = "x"
    assert manifest.read(json.dumps(document).encode(), "x") == MANIFEST


@pytest.mark.fault("1,000 altered manifests", "read or refused in one line, never a traceback")
@given(st.data())
def test_altered_manifests_are_read_or_refused_in_one_line(data: st.DataObject) -> None:
    """A value somewhere in it replaced by any JSON value, or a byte changed."""
    document: Any = json.loads(MANIFEST.to_json())
    node = document
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    values: st.SearchStrategy[Any] = (
        st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just([]) | st.just({})
    )
    node[key] = data.draw(values)
    raw = bytearray(json.dumps(document).encode())
    if data.draw(st.booleans()):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    message = "srv/x: "
    try:
        altered = manifest.read(bytes(raw), "srv/x")
        assert all("/" not in part.name for item in altered.items for part in item.parts)
    except ManifestError as error:
        message = str(error)
    assert message.startswith("srv/x: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b"7", b"[" * 100000, b"\xff", b'{"version": 1}']
)
def test_what_is_no_manifest(raw: bytes) -> None:
    with pytest.raises(ManifestError, match="x: "):
        manifest.read(raw, "x")


@given(st.text(min_size=1, max_size=200))
def test_quoted_names_are_names_of_files_and_differ(text: str) -> None:
    name = item_record.quoted(text)
    assert name
    assert len(name) <= 100
    assert not set(name) & set("/.\0\n ")
    assert item_record.quoted(text + "x") != name


def test_odd_names_are_percent_encoded() -> None:
    assert item_record.quoted("a b.c|ü") == "a%20b%2Ec%7C%C3%BC"
    assert item_record.quoted("shop-1_x") == "shop-1_x"


# --- what a staged run knows of its files


def items(system: System) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = system.manifest()["items"]
    return entries


def test_staged_files_of_own_modules_are_items_of_their_section(system: System) -> None:
    folder = system.work / "dumps"
    section = system.script(
        "own", f"mkdir -p {folder}; seq 1000 > {folder}/a.sql; echo b > {folder}/b.sql"
    )
    sections = {"OWN": section, **system.full_sections()}
    (system.source / "a").write_text("a")
    system.configure(sections)
    assert system.result()["exit_code"] == 0
    by_name = {(item["section"], item["name"]): item for item in items(system)}
    assert set(by_name) == {("OWN", "dumps/a.sql"), ("OWN", "dumps/b.sql"), ("FILESET", "")}
    assert by_name["OWN", "dumps/a.sql"]["size"] == len("".join(f"{n}\n" for n in range(1, 1001)))
    out = system.restored("--section", "OWN")
    assert (out / "OWN/dumps/b.sql").read_text() == "b\n"
    assert (out / "OWN/dumps/a.sql").read_text().endswith("1000\n")


def test_compressed_files_are_items_of_their_own(system: System) -> None:
    folder = system.work / "dumps"
    text = f"mkdir -p {folder}; for n in 1 2; do echo $n | gzip > {folder}/$n.gz; done"
    (system.source / "a").write_text("a")
    system.configure({"OWN": system.script("own", text), **system.full_sections()})
    assert system.result()["exit_code"] == 0
    stages = {item["name"]: item["stages"] for item in items(system)}
    assert stages == {"dumps/1.gz": ["age"], "dumps/2.gz": ["age"], "": ["zstd", "age"]}
    assert "can be restored" in system.restore("--verify", "latest", "--section", "OWN")


def test_a_run_without_stages_knows_its_digest(system: System) -> None:
    (system.source / "a").write_text("a")
    storage = execute("storage", DESTINATION="local", TARGETS=str(system.work / "files"))
    fileset = execute("filesbackup", FILESET_INCLUDE=str(system.source))
    system.configure({"FILESET": fileset, "STORAGE_LOCAL": storage})
    assert system.result()["exit_code"] == 0
    (item,) = items(system)
    assert (item["stages"], item["sha256"]) == ([], item["parts"][0]["sha256"])
    assert "ok" in system.restore("--verify", "latest")


@pytest.mark.fault(
    "a run dies before it stores; the next run stores its files",
    "stored with the size and the SHA-256 of their plaintext",
)
def test_what_an_earlier_run_left_is_known_by_its_record(system: System) -> None:
    (system.source / "a").write_bytes(os.urandom(2 << 20))
    system.configure(system.full_sections())
    system.store.write_text("a file where the store should be")
    assert system.run("-r").returncode == 1
    system.store.unlink()
    (system.source / "a").write_bytes(b"small")
    assert system.result()["exit_code"] == 0
    (item,) = (entry for entry in items(system) if entry["section"] != "FILESET")
    assert (item["section"], item["kind"]) == ("EARLIER", "fileset")
    assert (item["stages"], len(item["parts"])) == (["zstd", "age"], 3)
    assert item["size"] > 2 << 20
    assert len(item["sha256"]) == 64
    assert "no checksum" not in system.restore("--verify", "latest")
    restored = system.restored("--section", "EARLIER")
    assert [path.stat().st_size for path in restored.rglob("a")] == [2 << 20]


def test_the_digest_of_the_config_is_without_its_secrets(system: System) -> None:
    section = {**system.script("own", "true"), "PARAMETERS": {"X_PASSWORD": "first"}}
    digests = []
    for secret in ("first", "second"):
        section["PARAMETERS"]["X_PASSWORD"] = secret
        (system.source / "a").write_text("a")
        system.configure({"OWN": section, **system.full_sections()})
        assert system.result("--accept-rollback")["exit_code"] == 0
        digests.append(system.manifest()["config"])
        for path in (system.store / "srv-test").iterdir():
            path.unlink()
    assert digests[0] == digests[1]
    assert dataclasses.asdict(MANIFEST)["config"] != digests[0]
