"""Items in the work folder: what a killed run or a power cut leaves of them is never a backup."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, next_second
from tools import filesystem_handling
from tools.base.errors import BackupError, Cancelled
from tools.base.result import Status
from tools.catalog import manifest
from tools.config import loading
from tools.engine import run
from tools.flow import item_record
from tools.flow.item_record import StoredItem
from tools.modules import work_folder, work_store


@pytest.fixture
def system(tmp_path: Path) -> System:
    new = System(tmp_path)
    (new.source / "a").write_bytes(bytes(range(256)) * (3 << 12))
    return new


def sections(system: System) -> dict[str, Any]:
    """A whole run whose data stay as large as they are."""
    config: dict[str, Any] = system.full_sections()
    config["COMPRESSION"]["PARAMETERS"] = {"ALGORITHM": "none"}
    return config


def records(system: System) -> list[Path]:
    return sorted((system.work / ".nc-backup-py/items").glob("*"))


def waiting_files(system: System) -> list[Path]:
    """The files that wait in the work folder."""
    return sorted(path for path in system.work.glob("[!.]*/*") if path.is_file())


def interrupted(system: System, folder: str) -> None:
    """A run that ends when it has filled this folder."""
    config = sections(system)
    nowhere = {"files": "COMPRESSION", "compressed": "ENCRYPTION"}.get(folder)
    if nowhere is not None:
        config[nowhere]["PARAMETERS"]["DESTINATION"] = "/dev/null/x"
    system.configure(config)
    if nowhere is None:
        system.store.write_text("a file where the store should be")
    assert system.run("-r").returncode == 1
    system.configure(sections(system))
    if nowhere is None:
        system.store.unlink()
    assert {path.parent.name for path in waiting_files(system)} == {folder}


@pytest.mark.fault(
    "a signal during the removal of files that are stored", "the next run removes the others"
)
@pytest.mark.parametrize("after", [None, 0, 2])
def test_an_interrupted_removal_does_not_block_later_runs(
    system: System, monkeypatch: pytest.MonkeyPatch, after: int | None
) -> None:
    """None: before it has begun; what the store holds already counts as stored then."""
    loaded = loading.load(system.configure(sections(system)))
    real = Path.unlink
    removed: list[Path] = []

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if ".age." in path.name and path.parent == system.work / "encrypted":
            if len(removed) == after:
                raise Cancelled(15)
            removed.append(path)
        real(path, missing_ok=missing_ok)

    def remove(_entry: work_folder.WorkItem) -> None:
        raise Cancelled(15)

    if after is None:
        monkeypatch.setattr(work_folder, "remove", remove)
    else:
        monkeypatch.setattr(Path, "unlink", unlink)
    assert run.perform(loaded, loaded.sections, None).status is Status.TERMINATED
    assert len(waiting_files(system)) == 4 - (after or 0), waiting_files(system)
    before = len(system.stored())
    result = system.result()
    assert result["exit_code"] == 0, result
    assert waiting_files(system) == records(system) == []
    assert len(system.stored()) == 2 * before
    assert "can be restored" in system.restore("--verify", "latest")


@pytest.mark.fault(
    "a power cut leaves a file of a staged run short or empty",
    "exit 3, named, moved aside; all others are stored",
)
@pytest.mark.parametrize(("folder", "size"), [("files", 0), ("compressed", 1000), ("encrypted", 0)])
def test_a_short_file_is_not_stored(system: System, folder: str, size: int) -> None:
    interrupted(system, folder)
    with waiting_files(system)[-1].open("r+b") as file:
        file.truncate(size)
    result = system.result()
    assert result["exit_code"] == 3, result
    assert f"has {size} bytes instead of" in json.dumps(result)
    assert [item["section"] for item in system.manifest()["items"]] == ["FILESET"]
    assert waiting_files(system) == records(system) == []
    assert "can be restored" in system.restore("--verify", "latest")
    assert system.result()["exit_code"] == 0


@pytest.mark.fault(
    "a power cut leaves other bytes in a file of a staged run",
    "exit 3, named, moved aside; all others are stored",
)
def test_other_bytes_after_a_restart_of_the_machine_are_not_stored(system: System) -> None:
    interrupted(system, "encrypted")
    part = waiting_files(system)[-1]
    part.write_bytes(bytes(part.stat().st_size))
    (path,) = records(system)
    path.write_text(path.read_text().replace('"boot": "', '"boot": "earlier '))
    result = system.result()
    assert result["exit_code"] == 3, result
    assert f"{part} holds other bytes than were written" in json.dumps(result)
    assert [item["section"] for item in system.manifest()["items"]] == ["FILESET"]


@pytest.mark.fault(
    "a user-defined module gives its files the same names every night", "every run is stored"
)
def test_a_file_of_the_same_name_is_stored_every_night(system: System) -> None:
    """Issue 12, item 6: also where one of the runs could not reach its store."""
    write = "mkdir -p {0}/own && printf %s $NC_BACKUP_RUN_ID > {0}/own/+dump.sql.gz"
    system.configure({"OWN": system.script("own", write.format(system.work)), **sections(system)})
    runs = [system.result()["run_id"]]
    hidden = system.store.rename(system.store.with_name("hidden"))
    system.store.write_text("a file where the store should be")
    assert system.run("-r").returncode == 1
    system.store.unlink()
    hidden.rename(system.store)
    for _ in range(2):
        result = system.result()
        assert result["exit_code"] == 0, result
        runs.append(result["run_id"])
    for run_id in runs:
        restored = system.restored("--section", "OWN", run=run_id)
        assert (restored / "OWN/own/+dump.sql.gz").read_text() == run_id
    (path,) = system.restored("--item", "+dump.sql.gz", run=runs[1]).rglob("EARLIER/*")
    assert runs[0] < path.read_text() < runs[1]


@pytest.mark.fault(
    "other bytes are read of a file of a staged run than were written",
    "exit 1, it is not stored; the next run moves it aside: exit 3, then 0",
)
def test_other_bytes_do_not_fail_every_later_run(system: System) -> None:
    interrupted(system, "encrypted")
    part = waiting_files(system)[-1]
    part.write_bytes(bytes(part.stat().st_size))
    for code in (1, 3, 0):
        loaded = loading.load(system.conf)
        done = run.perform(loaded, loaded.sections, None)
        assert done.status.exit_code == code, done.problem_lines()
        assert ("other bytes" in str(done.problem_lines())) == (code > 0)
    assert waiting_files(system) == records(system) == []


def test_an_unreadable_file_is_no_whole_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 12, item 6: a bad block in the work folder does not end the run."""
    (tmp_path / "x").write_text("x")
    items = tmp_path / "items"
    work_folder.adopt(items, [tmp_path / "x"], StoredItem("S", "x", "file", "", (), ()), "r")

    def bad(_path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(work_folder, "measured", bad)
    assert work_folder.settle(items) == []
    (path,) = items.iterdir()
    path.write_text(path.read_text().replace('"boot": "', '"boot": "earlier '))
    ((_, why),) = work_folder.settle(items)
    assert why == f"{tmp_path / 'x'} cannot be read: input/output error"


@pytest.mark.parametrize("encrypted", [True, False])
def test_any_name_of_a_file_is_restored_equal(system: System, encrypted: bool) -> None:
    """Issue 12, item 6: names that look like parts or manifests, or of the greatest length."""
    control = [
        f"20260101_000000{end}" for end in (manifest.ENDING, manifest.RECOVERY, ".UNFINISHED")
    ]
    names = [
        *control,
        "a.age.000",
        "a.age.001",
        "b.age.001",
        "c.zst.age.000",
        "n\nl.age.001",
        "z" * 255,
    ]
    quoted = " ".join(f"$'{name}'" for name in names).replace("\n", "\\n")
    write = f'cd {system.work}/own; for name in {quoted}; do printf %s "$name" > "$name"; done'
    section = system.script("own", f"mkdir -p {system.work}/own; {write}")
    config = {"OWN": section, **sections(system)}
    if not encrypted:
        del config["COMPRESSION"], config["ENCRYPTION"]
        config["STORAGE_LOCAL"]["PARAMETERS"]["TARGETS"] = [f"{system.work}/own"]
        del config["FILESET"], config["SIZE"]
    system.configure(config)
    result = system.result()
    assert result["exit_code"] == 0, result
    restored = system.restored("--section", "OWN")
    assert sorted(path.name for path in restored.rglob("*") if path.is_file()) == sorted(names)
    assert all(path.read_text() == path.name for path in restored.rglob("*") if path.is_file())


@pytest.mark.fault(
    "files of a staged run change between two of its sections", "nothing of them is stored"
)
def test_other_bytes_within_a_run_are_not_stored(system: System) -> None:
    spoil = "for f in {}/encrypted/*; do printf x | dd of=$f bs=1 seek=99 conv=notrunc; done"
    section = system.script("own", f"{spoil.format(system.work)} 2>/dev/null; exit 1")
    config = sections(system)
    store = config.pop("STORAGE_LOCAL")
    system.configure({**config, "OWN": section, "STORAGE_LOCAL": store})
    assert system.run("-r").returncode == 1
    assert system.stored() == []


@pytest.mark.fault(
    "the names of an earlier run are taken in the store", "stored under names of this run"
)
def test_a_name_that_is_taken_does_not_block_later_runs(system: System) -> None:
    interrupted(system, "encrypted")
    first = waiting_files(system)[0].name
    folder = system.store / "srv-test"
    folder.mkdir(parents=True)
    (folder / first).write_text("of another machine")
    result = system.result()
    assert result["exit_code"] == 0, result
    assert (folder / first).read_text() == "of another machine"
    assert (folder / f"{result['run_id']}.{first}").exists()
    assert waiting_files(system) == records(system) == []
    assert "can be restored" in system.restore("--verify", "latest")
    restored = system.restored("--section", "EARLIER")
    assert [path.read_bytes() for path in restored.rglob("a")] == [
        (system.source / "a").read_bytes()
    ]


def test_records_are_private_and_do_not_lie_beside_the_files(system: System) -> None:
    interrupted(system, "encrypted")
    (path,) = records(system)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert len(json.loads(path.read_text())["item"]["sha256"]) == 64
    assert not [name for name in (system.work / "encrypted").iterdir() if ".age." not in name.name]


def test_files_of_a_user_defined_module_are_recorded(system: System) -> None:
    note = "mkdir -p {0}/notes; head -c 2000 /dev/zero > {0}/notes/$NC_BACKUP_RUN_ID.txt"
    section = system.script("own", note.format(system.work))
    system.configure({"OWN": section, **sections(system)})
    system.store.write_text("a file where the store should be")
    assert system.run("-r").returncode == 1
    items = [json.loads(path.read_text())["item"] for path in records(system)]
    assert {item["section"] for item in items} == {"FILESET", "OWN"}
    assert {item["kind"]: item["size"] for item in items}["file"] == 2000


def test_unfinished_files_of_ended_processes_are_removed(tmp_path: Path) -> None:
    living = f".x.part-pid-{os.getppid()}"
    for name in (living, f".x.part-pid-{os.getpid()}", ".x.part-pid-4194305", ".x.part-1a2b3c4d"):
        (tmp_path / name).touch()
    store = work_store.WorkStore(tmp_path)
    assert store.put("x", [b"x"]).size == 1
    store.publish(["x"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.part-1a2b3c4d", living, "x"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"5", b"\xff", b'{"folder": 1}', b'["/x", 5]', b"[" * 99_999, None]
)
def test_records_that_are_none_are_named(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.json", "a.json.done", "a.refused"):
        if content is None:
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_bytes(content)
    for read in (work_folder.settle, work_folder.items_by_file, work_folder.refused):
        with pytest.raises((BackupError, OSError), match=r"a\.(json|refused)\b"):
            read(tmp_path)
    assert "a.json.done" in caplog.text
    problems = work_folder.unreadable(tmp_path)
    assert {path.name for path in problems} == {"a.json", "a.refused"}
    assert all(str(path) in why for path, why in problems.items())


@pytest.mark.fault(
    "a record in the work folder is found damaged at the beginning of a run",
    "what it describes is moved aside and named, exit 3; the rest is stored",
)
@pytest.mark.parametrize(
    ("folder", "ending", "content"),
    [
        ("files", ".json", b""),
        ("files", ".refused", None),
        ("encrypted", ".json", b'{"folder": "/x"}'),
        ("encrypted", ".json", None),
        ("encrypted", ".refused", b""),
    ],
)
def test_a_file_whose_record_is_damaged_is_not_stored(
    system: System, folder: str, ending: str, content: bytes | None
) -> None:
    interrupted(system, folder)
    waiting = waiting_files(system)
    with waiting[0].open("r+b") as file:  # what only the record can tell
        file.truncate(waiting[0].stat().st_size // 2)
    for record in records(system):
        named = record.with_suffix(ending)
        record.unlink()
        if content is None:
            named.mkdir()
        else:
            named.write_bytes(content)
    result = system.result()
    assert result["exit_code"] == 3
    (step,) = (one for one in result["sections"] if one["name"] == "STORAGE_LOCAL")
    assert {path.name for path in waiting} <= {
        Path(line.split()[0]).name for line in step["warnings"] if "may be cut short" in line
    }
    assert {item["section"] for item in system.manifest()["items"]} == {"FILESET"}
    assert not any(path.exists() for path in waiting)
    next_second()
    assert system.result()["exit_code"] == 0
    assert records(system) == []


@pytest.mark.fault(
    "nothing says any more what a killed section had written",
    "every file without a record is moved aside and named, exit 3",
)
def test_a_damaged_note_of_a_killed_section(system: System) -> None:
    system.configure(sections(system))
    for folder in ("files", ".nc-backup-py"):
        (system.work / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    (system.work / "files" / "own.tar").write_bytes(b"begun")
    (system.work / ".nc-backup-py/section-began.json").write_bytes(b"{")
    result = system.result()
    assert result["exit_code"] == 3
    assert "own.tar may be cut short" in str(result["sections"])
    assert {item["section"] for item in system.manifest()["items"]} == {"FILESET"}
    next_second()
    assert system.result()["exit_code"] == 0


def test_long_names_lead_from_a_record_to_its_files(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 150)
    folder.mkdir()
    parts = [folder / f"{'y' * 90}.age.{number:03}" for number in range(3)]
    for path in (*parts, folder / "other"):
        path.write_bytes(b"x")
    item = StoredItem("S", "y", "file", "", ("encryption",), ())
    work_folder.adopt(tmp_path / "items", parts, item, "r")
    (record,) = (tmp_path / "items").iterdir()
    assert work_folder.described(record, folder.iterdir()) == parts
    assert work_folder.described(record, ()) == []  # the name had to be cut
    short = tmp_path / "z"
    short.write_bytes(b"x")
    work_folder.adopt(tmp_path / "other", [short], StoredItem("S", "z", "file", "", (), ()), "r")
    (record,) = (tmp_path / "other").iterdir()
    assert work_folder.described(record, ()) == [short]


@pytest.mark.fault(
    "a record in the work folder that cannot be read during a run",
    "the section that needs it fails, and names it; a later run stores the file",
)
def test_a_record_that_cannot_be_read_makes_no_item_of_an_earlier_run(system: System) -> None:
    """Sweep of faults: ENOMEM for one read; exit 0, and the fileset was in the run as EARLIER."""
    config = sections(system)
    text = f"cd {system.work}/.nc-backup-py/items; rm *.json; mkdir %s.json"
    name = item_record.quoted(str(system.work / "files" / "x"))
    section = {"OWN": system.script("own", text % name)}
    system.configure({"FILESET": config.pop("FILESET"), **section, **config})
    result = system.result()
    assert result["exit_code"] == 1
    failed = {step["name"]: step for step in result["sections"]}
    assert f"{name}.json" in failed["COMPRESSION"]["message"]
    assert failed["STORAGE_LOCAL"]["status"] == "failed"
    system.configure(sections(system))
    assert system.result()["exit_code"] in (0, 3)
    assert {item["section"] for item in system.manifest()["items"]} == {"FILESET", "EARLIER"}


def test_a_record_without_files_is_forgotten(tmp_path: Path) -> None:
    folder, items = tmp_path / "files", tmp_path / "items"
    folder.mkdir()
    (folder / "x").write_text("x")
    work_folder.adopt(items, [folder / "x"], StoredItem("S", "x", "file", "", (), ()), "r")
    assert work_folder.settle(items) == []
    (folder / "x").unlink()
    assert work_folder.settle(items) == []
    assert list(items.iterdir()) == []


def test_a_removal_that_stays_impossible_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = tmp_path / "items"
    (tmp_path / "x").write_text("x")
    work_folder.adopt(items, [tmp_path / "x"], StoredItem("S", "x", "file", "", (), ()), "r")
    (entry,) = work_folder.items_by_file(items).values()

    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlink)
        with pytest.raises(PermissionError):
            work_folder.remove(entry)
        assert work_folder.settle(items) == []
    assert work_folder.settle(items) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items"]
    assert list(items.iterdir()) == []


def failing(system: System, code: int = 1) -> dict[str, Any]:
    """A run whose user-defined source leaves a file and ends with this code."""
    text = f"mkdir -p {system.work}/dumps/a; echo {code} > {system.work}/dumps/a/own; exit {code}"
    return {"OWN": system.script("own", text), **sections(system)}


@pytest.mark.fault(
    "what a failed source left cannot be moved aside",
    "exit 1, all others are stored; no later run stores it",
)
@pytest.mark.parametrize("elsewhere", ["no rename", "another file system", "no permission"])
def test_what_a_failed_source_left_is_never_stored(
    system: System, monkeypatch: pytest.MonkeyPatch, elsewhere: str
) -> None:
    loaded = loading.load(system.configure(failing(system)))
    real, make_folder = Path.rename, filesystem_handling.make_folder

    def rename(path: Path, target: Path) -> Path:
        if path.name == "own" and (elsewhere == "no rename" or "failed" in target.parts):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(path))
        return real(path, target)

    def make(folder: Path) -> Path:
        if elsewhere == "no permission" and "failed" in folder.parts:
            raise PermissionError(13, "Permission denied", str(folder))
        return make_folder(folder)

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(filesystem_handling, "make_folder", make)
    dump = system.work / "dumps/a/own"
    for _ in range(2):
        done = run.perform(loaded, loaded.sections, None)
        failed = [step.name for step in done.sections if step.result.status is Status.FAILED]
        assert failed == ["OWN"], done.problem_lines()
        assert [item.section for item in done.items] == ["FILESET"]
        assert dump.exists() == (elsewhere == "no rename")
    monkeypatch.undo()
    loaded = loading.load(system.configure(failing(system, code=0)))
    done = run.perform(loaded, loaded.sections, None)
    assert {item.section for item in done.items} == {"OWN", "FILESET"}
    assert list((system.work / "dumps").rglob("*")) == []


@pytest.mark.fault("kill -9 while a user-defined source writes its files", "they are not stored")
def test_what_a_killed_source_left_is_never_stored(system: System) -> None:
    flag, dump = system.folder / "flag", f"{system.work}/dumps/$NC_BACKUP_RUN_ID"
    text = f"mkdir -p {system.work}/dumps; echo half > {dump}\n"
    text += f"[ -e {flag} ] || {{ touch {flag}; kill -9 $PPID; exit; }}; echo whole > {dump}"
    system.configure({"OWN": system.script("own", text), **sections(system)})
    assert system.run("-r").returncode == -9
    result = system.result()
    assert result["exit_code"] == 0, result
    names = {item["section"]: item["name"] for item in system.manifest()["items"]}
    assert names == {"FILESET": "", "OWN": f"dumps/{result['run_id']}"}
    assert waiting_files(system) == []


def test_a_file_that_cannot_be_recorded_fails_its_section_alone(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    def adopt(*_arguments: object) -> None:
        raise PermissionError(13, "Permission denied", "own")

    monkeypatch.setattr(work_folder, "adopt", adopt)
    loaded = loading.load(system.configure(failing(system, code=0)))
    done = run.perform(loaded, loaded.sections, None)
    assert [step.name for step in done.sections if step.result.status is Status.FAILED] == ["OWN"]
    assert [item.section for item in done.items] == ["FILESET"]


def test_an_encrypted_set_of_a_user_defined_module_is_one_item(system: System) -> None:
    folder = system.work / "dumps"
    text = f"mkdir -p {folder}; printf age-encryption.org/v1 > {folder}/x.age.000; "
    system.configure({
        "OWN": system.script("own", f"{text} printf rest > {folder}/x.age.001"),
        **sections(system),
    })  # fmt: skip
    assert system.result()["exit_code"] == 0
    (item,) = [item for item in system.manifest()["items"] if item["section"] == "OWN"]
    assert item["stages"] == ["age"]
    restored = system.restored("--section", "OWN")
    assert [path.read_text() for path in restored.rglob("*.age*")] == ["age-encryption.org/v1rest"]


def test_hidden_files_of_ended_runs_are_removed_but_not_those_of_a_store(system: System) -> None:
    stored, waiting = system.work / "store/h/.x.part-1", system.work / "dumps/a/.x.part-2"
    for path in (stored, waiting):
        path.parent.mkdir(parents=True)
        path.touch()
    loaded = loading.load(
        system.configure(system.full_sections(), LOCAL_BACKUP=f"{system.work}/a/../store")
    )
    assert run.perform(loaded, loaded.sections, None).status is Status.OK
    assert stored.exists()
    assert not waiting.exists()
