"""What is damaged, missing or forged in a store is found before anything comes of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, execute

LEVELS = ("presence", "sha256", "full")


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> System:
    """A system with two runs of several parts; tests copy its store and never change it."""
    system = System(tmp_path_factory.mktemp("made"))
    (system.source / "random").write_bytes(os.urandom((3 << 20) + 17))
    system.configure(system.full_sections(), STREAM="True")
    for _ in range(2):
        assert system.result()["exit_code"] == 0
    return system


@pytest.fixture
def system(backed_up: System, tmp_path: Path) -> System:
    copy = System(tmp_path)
    shutil.copytree(backed_up.store, copy.store)
    shutil.copy(backed_up.key, copy.key)
    shutil.copy(backed_up.writer_key, copy.writer_key)
    copy.configure(copy.full_sections(), STREAM="True")
    return copy


def newer(system: System) -> list[Path]:
    """The parts of the newer run."""
    folder = system.store / "srv-test"
    last = sorted(folder.glob("*.manifest.json"))[-1].name.partition(".")[0]
    return sorted(folder.glob(f"{last}.*.age.*"))


def manifest(system: System) -> Path:
    return sorted((system.store / "srv-test").glob("*.manifest.json"))[-1]


def missing(system: System) -> None:
    newer(system)[1].unlink()


def first_missing(system: System) -> None:
    newer(system)[0].unlink()


def last_missing(system: System) -> None:
    newer(system)[-1].unlink()


def longer(system: System) -> None:
    with newer(system)[1].open("ab") as file:
        file.write(b"x")


def shorter(system: System) -> None:
    with newer(system)[-1].open("r+b") as file:
        file.truncate(newer(system)[-1].stat().st_size - 1)


def empty(system: System) -> None:
    newer(system)[2].write_bytes(b"")


def swapped(system: System) -> None:
    one, two = newer(system)[0], newer(system)[1]
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def doubled(system: System) -> None:
    newer(system)[2].write_bytes(newer(system)[1].read_bytes())


def of_another_run(system: System) -> None:
    folder = system.store / "srv-test"
    first = sorted(folder.glob("*.manifest.json"))[0].name.partition(".")[0]
    other = sorted(folder.glob(f"{first}.*.age.*"))[1]
    newer(system)[1].write_bytes(other.read_bytes())


def flipped(system: System, part: int, at: int) -> None:
    path = newer(system)[part]
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def flipped_first(system: System) -> None:
    flipped(system, 0, 40)


def flipped_last(system: System) -> None:
    flipped(system, -1, -1)


# What is done to the newer run, and the first level of --verify that finds it.
HARMS: list[Any] = [
    pytest.param(
        harm, level, says, marks=pytest.mark.fault(fault, "found; a restore writes nothing")
    )
    for harm, level, says, fault in (
        (missing, "presence", "no such part", "a part is missing"),
        (first_missing, "presence", "no such part", "the first part is missing"),
        (last_missing, "presence", "no such part", "the last part is missing"),
        (longer, "presence", "bytes, expected", "a part is one byte longer"),
        (shorter, "presence", "bytes, expected", "the last part is one byte shorter"),
        (empty, "presence", "0 bytes, expected", "a part has no bytes"),
        (swapped, "sha256", "SHA-256 mismatch", "two parts are swapped"),
        (doubled, "sha256", "SHA-256 mismatch", "a part is there twice"),
        (of_another_run, "sha256", "SHA-256 mismatch", "a part is of another run"),
        (
            flipped_first,
            "sha256",
            "SHA-256 mismatch",
            "one bit of the header is flipped",
        ),
        (
            flipped_last,
            "sha256",
            "SHA-256 mismatch",
            "one bit of the last chunk is flipped",
        ),
    )
]


@pytest.mark.parametrize(("harm", "level", "says"), HARMS)
def test_harm_is_found_and_nothing_comes_of_it(
    system: System, harm: Callable[[System], None], level: str, says: str
) -> None:
    harm(system)
    for tried in LEVELS:
        detected = LEVELS.index(tried) >= LEVELS.index(level)
        text = system.restore("--verify", "latest", "--level", tried, code=1 if detected else 0)
        assert (says in text) is detected
    out = system.folder / "out"
    assert says in system.restore("--restore", "latest", "--destination", str(out), code=1)
    assert not out.exists()
    assert "1 items" not in system.restore("--verify", "all", code=1)


def test_a_run_that_is_whole_passes_every_level(system: System) -> None:
    for level in LEVELS:
        assert "ok" in system.restore("--verify", "all", "--level", level)


def test_the_last_line_names_the_run_that_is_not_whole(system: System) -> None:
    """It named the newest run, which was whole."""
    folder = system.store / "srv-test"
    first, *later = sorted(one.name.partition(".")[0] for one in folder.glob("*.manifest.json"))
    assert later
    part = next(folder.glob(f"{first}*.000"))
    part.write_bytes(part.read_bytes()[:-1])
    assert f"run {first}: failed" in system.restore("--verify", "all", code=1)


def change(system: System, how: Callable[[dict[str, Any]], None]) -> None:
    system.rewrite(how)


def _part(document: dict[str, Any], **fields: Any) -> None:
    document["items"][0]["parts"][1].update(fields)


FORGED: list[Any] = [
    pytest.param(how, says, marks=pytest.mark.fault(f"a manifest {fault}", "refused by name"))
    for how, says, fault in (
        (lambda g: g.update(version=3), "manifest version 3", "of a newer version"),
        (
            lambda g: g.update(version="1"),
            "invalid manifest (version)",
            "with a version that is a text",
        ),
        (lambda g: _part(g, name="../../etc/passwd"), "is not valid", "with .. in a part's name"),
        (lambda g: _part(g, name="/etc/passwd"), "is not valid", "with an absolute part"),
        (
            lambda g: _part(g, name=g["items"][0]["parts"][0]["name"]),
            "duplicate",
            "with a part twice",
        ),
        (lambda g: _part(g, size=-1), "is not a size", "with a size below zero"),
        (lambda g: _part(g, size=True), "is not a size", "with a size that is none"),
        (lambda g: _part(g, sha256="0"), "is not valid", "with half a digest"),
        (
            lambda g: g["items"][0].update(parts=[]),
            "item without parts",
            "with an item without parts",
        ),
        (lambda g: g["items"][0].update(form="other"), "unknown form", "with a form not known"),
        (lambda g: g["items"].append(g["items"][0]), "duplicate", "with an item twice"),
        (lambda g: g.pop("items"), "'items' is missing", "without items"),
        (lambda g: g.update(run_id="20200101_000000"), "manifest of", "of another run"),
        (lambda g: g.update(host="other"), "manifest of", "of another host"),
    )
]


@pytest.mark.parametrize(("how", "says"), FORGED)
def test_a_forged_manifest_is_refused(
    system: System, how: Callable[[dict[str, Any]], None], says: str
) -> None:
    change(system, how)
    name = manifest(system).name.partition(".")[0]
    out = system.folder / "out"
    text = system.restore("--restore", name, "--destination", str(out), code=1)
    assert says in text
    assert name in text
    assert not out.exists()
    listed = system.restore("--list", code=1)
    assert says in listed
    assert " ok " in listed  # the other run is still there to be restored
    system.restore("--restore", "latest", "--destination", str(out), code=1)
    older = min(path.name for path in manifest(system).parent.glob("*.manifest.json"))[:15]
    assert "ok" in system.restore("--restore", older, "--destination", str(out))


@pytest.mark.fault("a manifest cut at any place", "refused by name")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_cut_manifest_is_refused(system: System, share: float) -> None:
    path = manifest(system)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    text = system.restore("--show", path.name.partition(".")[0], code=1)
    assert "incomplete manifest" in text


@pytest.mark.fault("a manifest whose digest or size of the data was altered", "found, nothing left")
def test_the_data_must_be_what_was_backed_up(system: System) -> None:
    out = system.folder / "out"
    arguments = ("--restore", "latest", "--destination", str(out))
    for key, value, message in (
        ("sha256", "0" * 64, "differs from what was backed up"),
        ("size", 1 << 40, f"bytes, expected {1 << 40}"),
        ("size", 1, ": longer than 1 bytes"),
    ):
        change(system, lambda document: document["items"][0].update({key: value}))  # noqa: B023
        assert message in system.restore(*arguments, code=1)
        assert not out.exists()


@pytest.mark.fault("the wrong key", "said so, nothing left")
def test_the_wrong_key_is_said(system: System) -> None:
    system.key.unlink()
    system.keygen()
    out = system.folder / "out"
    text = system.restore("--restore", "latest", "--destination", str(out), code=1)
    assert "wrong key" in text
    assert not out.exists()
    assert "ok" in system.restore("--verify", "latest", "--level", "sha256")


@pytest.mark.fault("damage in the last chunk of an item that is one file", "nothing under its name")
def test_a_file_appears_only_when_its_last_byte_is_verified(system: System) -> None:
    shutil.rmtree(system.store)
    sections = {
        "OWN": system.script("own", "head -c 3000000 /dev/urandom", "source"),
        "ENCRYPTION": execute("encryption", KEY_FILE=str(system.key), FILE_SIZE="1"),
        "STORAGE_LOCAL": execute("storage", DESTINATION="local"),
    }
    system.configure(sections, STREAM="True")
    assert system.result()["exit_code"] == 0
    part = sorted((system.store / "srv-test").glob("*.age.*"))[-1]
    raw = bytearray(part.read_bytes())
    raw[-1] ^= 1
    part.write_bytes(raw)
    out = system.folder / "out"
    system.restore("--restore", "latest", "--destination", str(out), code=1)
    assert not out.exists()
