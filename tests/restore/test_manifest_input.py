"""A manifest is an input: what is wrong in it costs one item, in one line (issue 14 B)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from benchmarks import mutations
from benchmarks.mutation_lab import HOST, RUNS, Lab, manifest_of
from restore import listing, verifying
from tests.system import System, execute
from tools.base import project
from tools.base.errors import BackupError, ConfigError, ManifestError
from tools.catalog import leftovers, location, manifest, readback, selection
from tools.catalog.catalog import Catalog
from tools.catalog.history import History
from tools.catalog.readback import StoredRun
from tools.catalog.trust import Trust
from tools.config import loading
from tools.engine.user_modules import ForRestore
from tools.flow.memory_store import MemoryStore

STREAMED, STAGED = RUNS[0], RUNS[1]
LIST = json.loads((project.ROOT / "docs/restore-list.schema.json").read_text(encoding="utf-8"))
Objects = dict[str, bytes]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


def edited(lab: Lab, run: str, edit: Callable[[dict[str, Any]], None]) -> Objects:
    """The unsigned runs, with one manifest changed; --allow-unsigned believes it."""
    objects = dict(lab.unsigned)
    document = json.loads(objects[manifest_of(run)])
    edit(document)
    objects[manifest_of(run)] = json.dumps(document).encode()
    return objects


def results(lab: Lab, objects: Objects, run: str) -> dict[str, str]:
    """For each item of a run why it is refused; "" where it is given out as it was stored."""
    backup_location = lab.location(objects, signed=False)
    chosen = selection.select_run(backup_location.catalog(), selection.Preference(), run)
    return {item.label: result(lab, backup_location, one, item) for one, item in chosen.pairs}


def result(lab: Lab, backup_location: location.BackupLocation, run: StoredRun, item: Any) -> str:
    try:
        verifying.check_item(run, item)
        readback.require_parts(run, [item])
        content = b"".join(
            readback.read_item(run, item, backup_location.inverse_stage, lambda _size: None)
        )
    except BackupError as error:
        return str(error)
    assert (item.kind, content) == lab.honest[run.run_id, item.label]
    return ""


@pytest.mark.fault(
    "500 seeded mutations of manifests and stored objects, signed and unsigned",
    "no traceback, nothing wrong is restored, nothing under a wrong name, kind or run",
)
@pytest.mark.slow
def test_seeded_mutations(tmp_path: Path) -> None:
    """Issue 14 B: the part of `python3 benchmarks/mutations.py` that runs each time."""
    summary = mutations.mutations(mutations.Task(500, 2, str(tmp_path)))
    assert not summary.wrong
    assert summary.cases == 500
    assert min(summary.outcomes[f"item: {one}"] for one in ("given out", "refused", "restored")) > 2


WIDE = "20260101_030000".translate({ord(n): 0xFF10 + int(n) for n in "0123456789"})
PART = {"name": f"{STREAMED}.WWW.tar.zst.age.000", "size": 7, "sha256": "0" * 64}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown kind": ({"kind": "fileret"}, "unknown kind 'fileret'"),
    "unknown stage": ({"stages": ["zstd", "age", "rot13"]}, "unknown stage 'rot13'"),
    "a source as a filter": ({"stages": ["own:MYSQL", "age"]}, "unknown stage 'own:MYSQL'"),
    "not encrypted": ({"stages": ["zstd"]}, "not encrypted"),
    "parts of another item": ({"parts": [PART]}, "belongs to another run or item"),
    "parts of another run": (
        {"parts": [{**PART, "name": f"{RUNS[2]}.ETC.tar.zst.age.000"}]},
        "belongs to another run or item",
    ),
    "a manifest as a part": (
        {"parts": [{**PART, "name": f"{STREAMED}.manifest.json"}]},
        "is not the name of a part",
    ),
    "a part elsewhere": ({"parts": [{**PART, "name": f"../{HOST}/x"}]}, "name: "),
    "a negative size": ({"size": -1}, "size: -1 is not a size"),
    "a size of 2^63": ({"size": 1 << 63}, "is not a size"),
    "a size of 2^64": ({"size": 1 << 64}, "number out of range"),
    "a part of 2^63 bytes": ({"parts": [{**PART, "size": 1 << 63}]}, "is not a size"),
    "a negative duration": ({"seconds": -0.5}, "seconds: -0.5 is not a duration"),
    "a duration of a century": ({"seconds": 4e9}, "is not a duration"),
    "a duration that is not a number": ({"seconds": True}, "is not a duration"),
    "an infinite duration": ({"seconds": float("inf")}, "number out of range"),
    "NUL in its name": ({"name": "a\0b"}, "name: "),
    "half of a surrogate pair in its name": ({"name": "\ud800"}, "surrogate"),
    "half of a surrogate pair in a warning": ({"warnings": ["\ud800"]}, "surrogate"),
    "a control character in its kind": ({"kind": "file\x1b[2J"}, "kind: "),
    "a control character in a stage": ({"stages": ["zstd", "age\n"]}, "stages: "),
    "digits that are not ASCII": ({"base": WIDE}, "base: "),
    "a base that is no time": ({"base": "20261301_030000"}, "base: "),
    "no parts": ({"parts": []}, "without parts"),
    "no kind": ({"kind": None}, "kind: "),
}


@pytest.mark.fault("a bad item in a manifest", "refused in one line; other items are restored")
@pytest.mark.parametrize("case", BAD)
def test_a_bad_item_costs_only_itself(lab: Lab, case: str) -> None:
    edit, says = BAD[case]
    texts = results(lab, edited(lab, STREAMED, lambda one: one["items"][0].update(edit)), STREAMED)
    refused = {label: text for label, text in texts.items() if text}
    assert len(texts) == 4
    ((label, text),) = refused.items()
    assert says in text
    assert "\n" not in text
    assert text.isprintable()
    if "name" not in edit and not case.startswith("a source"):
        assert text.startswith(f"run {STREAMED}: {label}: ")


def test_two_items_of_one_name_and_two_of_one_part_are_refused(lab: Lab) -> None:
    def same_name(document: dict[str, Any]) -> None:
        document["items"].append(document["items"][0])

    def same_part(document: dict[str, Any]) -> None:
        document["items"][1]["parts"] = document["items"][0]["parts"]

    texts = results(lab, edited(lab, STREAMED, same_name), STREAMED)
    assert [label for label, text in texts.items() if "duplicate item" in text] == ["ETC"]
    texts = results(lab, edited(lab, STAGED, same_part), STAGED)
    assert [label for label, text in texts.items() if "duplicate part" in text] == ["ETC", "WWW"]


def test_a_staged_item_does_not_take_the_parts_of_another_run(lab: Lab) -> None:
    """Names of staged parts may be anything, but not those of a run that is there."""
    other = json.loads(lab.unsigned[manifest_of(RUNS[0])])["items"][0]
    objects = edited(lab, STAGED, lambda one: one["items"].__setitem__(0, other))
    texts = results(lab, objects, STAGED)
    assert f"is a part of run {RUNS[0]}" in texts["ETC"]
    assert [text for text in texts.values() if not text] == [""] * 3


def test_a_plaintext_that_is_far_larger_than_what_is_stored_is_no_warning(tmp_path: Path) -> None:
    """Sparse disks are honest: more than 2,000 times the stored bytes."""
    system = System(tmp_path)
    with (system.source / "disk").open("wb") as file:
        file.truncate(64 << 20)
    (system.source / "disk").write_bytes(bytes(64 << 20))
    system.configure(system.short(), STREAM="True")
    assert system.result()["status"] == "ok"
    item = system.manifest()["items"][0]
    assert item["size"] > 2000 * sum(part["size"] for part in item["parts"])
    assert "warning" not in system.restore("--verify", "latest")


# --- lists, clean-up, later runs


@pytest.mark.fault("a bad manifest, or a bad item in one", "--list shows all runs, one line each")
def test_a_bad_manifest_hides_no_other(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    def bad(document: dict[str, Any]) -> None:
        document.update(
            program="x\x1b[2J", machine_name="a\nerror: b", missing=["M/a\x1b\nerror: c"]
        )
        document["items"][0].update(name="a\nerror: d\x1b]0;x", size=-1)
        document["items"][2].update(name="a\nerror: e\x1b", notes=["\x1b[1m\nerror: f"])

    objects = edited(lab, STAGED, bad)
    objects[manifest_of(RUNS[2])] = b'{"items": ["\x1b]0;title\x07\nerror: g'
    backup_location = lab.location(objects, signed=False)
    assert listing.print_runs(backup_location, as_json=False) == 1
    listing.print_selection(
        selection.select_run(backup_location.catalog(), selection.Preference(), STAGED)
    )
    output = capsys.readouterr().out
    assert not set(output) & set(map(chr, range(32))) - {"\n"}
    assert not [line for line in output.splitlines() if line.startswith("error")]
    header, *lines = output.splitlines()[:4]
    assert [line[:15] for line in (header, *lines)] == [f"{'run':15}", *RUNS]
    assert ("unreadable" in lines[0], "unreadable: ETC/a" in lines[1]) == (False, True)
    assert "unreadable: srv-1" in lines[2]
    assert listing.print_runs(backup_location, as_json=True) == 1
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, LIST)
    problems = [item["problem"] for item in document["runs"][1]["items"]]
    assert "size: -1" in problems[0]
    assert problems[1:] == [None] * 3


def test_an_item_without_a_section_makes_its_run_unreadable(lab: Lab) -> None:
    """It might be any item that the run should have: `latest` must not take an older one."""
    objects = edited(lab, RUNS[2], lambda one: one["items"][0].update(section="\ud800"))
    catalog = lab.location(objects, signed=False).catalog()
    with pytest.raises(ManifestError, match="item 1 has no section"):
        catalog.manifest(RUNS[2])
    with pytest.raises(ManifestError, match=f"run {RUNS[2]} of {HOST} is newer, and unreadable"):
        selection.select_run(catalog, selection.Preference(), "latest")


def test_latest_does_not_take_an_older_copy_of_a_bad_item(lab: Lab) -> None:
    objects = edited(lab, RUNS[2], lambda one: one["items"][0].update(size=-1))
    catalog = lab.location(objects, signed=False).catalog()
    chosen = selection.select_run(catalog, selection.Preference(), "latest")
    assert {run.run_id for run, _item in chosen.pairs} == {RUNS[2]}


def test_a_later_run_goes_on_and_removes_nothing_of_it(lab: Lab) -> None:
    objects = edited(lab, STREAMED, lambda one: one["items"][0].update(size=-1))
    memory = lab.location(objects, signed=False).store
    assert isinstance(memory, MemoryStore)
    catalog = Catalog(memory, HOST, Trust(everybody=True))
    assert History(catalog).newest_item("ETC", "") is not None
    marked = dict(objects)
    marked[f"{HOST}/{STREAMED}.UNFINISHED"] = b"{}"
    catalog = Catalog(lab.location(marked, signed=False).store, HOST, Trust(everybody=True))
    with pytest.raises(ManifestError, match="size: -1"):
        leftovers.remove_crashed_runs(catalog, "20990101_000000", 0.0)
    assert {entry.name for entry in catalog.store.entries(HOST)} == set(marked)


# --- encryption


def config(tmp_path: Path, *, stream: str = "True", **sections: Any) -> location.BackupLocation:
    system = System(tmp_path)
    system.store.mkdir()
    (system.store / HOST).mkdir()
    chosen = {name: one for name, one in {**system.short(), **sections}.items() if one}
    path = system.configure(chosen, STREAM=stream)
    source = location.Source(path)
    return location.open_location(loading.load(path), source, ForRestore(tmp_path))


LOCAL = execute("storage", DESTINATION="local")


@pytest.mark.parametrize(
    ("stream", "sections", "expected"),
    [
        ("True", {}, True),
        ("True", {"ENCRYPTION": None}, False),
        ("False", {}, True),
        ("False", {"ENCRYPTION": None, "STORAGE_LOCAL": None}, False),
        ("False", {"STORAGE_LOCAL": {**LOCAL, "PARAMETERS": {"TARGETS": "/srv/dumps"}}}, False),
    ],
)
def test_whether_a_config_encrypts_all_that_it_stores(
    tmp_path: Path, stream: str, sections: dict[str, Any], expected: bool
) -> None:
    storage = sections.get("STORAGE_LOCAL")
    if storage:
        storage["PARAMETERS"]["DESTINATION"] = "local"
    if sections.get("STORAGE_LOCAL", LOCAL) is None:
        sections["STORAGE_LOCAL"] = execute(
            "storage", DESTINATION="local", TARGETS=str(tmp_path / "work/compressed")
        )
    assert config(tmp_path, stream=stream, **sections).encrypted_only is expected


def test_a_section_that_is_no_filter_is_no_stage(tmp_path: Path) -> None:
    backup_location = config(tmp_path)
    for name in ("FILESET", "ENCRYPTION", "STORAGE_LOCAL", "NOWHERE"):
        with pytest.raises(ConfigError, match=f"unknown stage 'own:{name}'"):
            backup_location.inverse_stage(f"own:{name}")


@pytest.mark.fault(
    "a run that is not encrypted, though the config encrypts or a key is given",
    "its items are rejected, unless --allow-unencrypted is given",
)
def test_an_item_that_is_not_encrypted_is_refused_where_it_should_be(system: System) -> None:
    """An honest config without encryption is restored as it was, though a key file exists."""
    (system.source / "a").write_text("a")
    sections = system.short()
    plain = {name: one for name, one in sections.items() if name != "ENCRYPTION"}
    system.configure(plain, STREAM="True")
    assert system.result()["exit_code"] == 0
    run = manifest.run_of(next((system.store / "srv-test").glob("*.manifest.json")).name)
    system.restored()
    system.restore("--verify", "latest")
    key = ("--key-file", str(system.key))
    out = system.folder / "out"
    where = ("--destination", str(out))
    text = system.restore("--restore", "latest", *where, *key, code=1)
    assert f"run {run}: FILESET: not encrypted" in text
    assert "hint: The config encrypts, or a key was given" in text
    assert not list(out.rglob("a"))
    system.configure(sections, STREAM="True")
    for arguments in (
        ("--verify", "latest", "--level", "presence"),
        ("--restore", run, "--dry-run"),
    ):
        assert "not encrypted" in system.restore(*arguments, code=1)
    system.restore("--list")
    system.restored("--allow-unencrypted", *key)
