"""restore.py as a user calls it: what is listed, verified, restored, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import jsonschema
import pytest

from tests.brt import ReportServer
from tests.filesets import facts
from tests.system import System
from tools.base import project

PROGRAM = str(project.ROOT / "restore/restore.py")


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> System:
    """A system with two streamed runs in its store; tests copy it and never change it."""
    system = System(tmp_path_factory.mktemp("made"))
    (system.source / "a file").write_text("first")
    (system.source / "folder").mkdir(mode=0o750)
    (system.source / "folder/random").write_bytes(os.urandom(3 << 20))
    system.configure(system.full_sections(), STREAM="True")
    assert system.result()["exit_code"] == 0
    (system.source / "a file").write_text("second")
    assert system.result()["exit_code"] == 0
    return system


@pytest.fixture
def system(backed_up: System, tmp_path: Path) -> System:
    """The same, with a store of its own that may be harmed."""
    copy = System(tmp_path)
    copy.source.rmdir()
    copy.source = backed_up.source
    shutil.copytree(backed_up.store, copy.store)
    shutil.copy(backed_up.key, copy.key)
    shutil.copy(backed_up.writer_key, copy.writer_key)
    copy.configure(copy.full_sections(), STREAM="True")
    return copy


def runs(system: System) -> list[str]:
    return [entry["run_id"] for entry in json.loads(system.restore("--list", "--json"))["runs"]]


def back(system: System, out: Path) -> Path:
    return out / "FILESET" / system.source.relative_to("/")


def parts(system: System) -> list[Path]:
    """The parts of the newer run."""
    last = runs(system)[-1]
    return sorted((system.store / "srv-test").glob(f"{last}.*.age.*"))


def nothing_restored(system: System, says: str, *arguments: str, code: int = 1) -> str:
    """A restore that fails, says why, and leaves nothing."""
    out = system.folder / "out"
    text = system.restore("--restore", "latest", "--destination", str(out), *arguments, code=code)
    assert says in text
    assert not out.exists()
    return text


# --- what is there


def test_the_list_names_what_users_ask_for(system: System) -> None:
    table = system.restore("--list").splitlines()
    assert table[0].split() == ["run", "host", "age", "result", "items", "size", "base"]
    assert len(table) == 3
    assert "srv-test" in table[1]
    (_, newer) = json.loads(system.restore("--list", "--json"))["runs"]
    assert newer["result"] == "ok"
    assert [item["section"] for item in newer["items"]] == ["FILESET"]
    assert newer["size"] > 3 << 20
    assert newer["base"] is None


def test_the_list_as_json_is_a_documented_document(system: System) -> None:
    """Issue 12, 8: versioned, UTC, bytes; what is missing, warnings; unreadable runs as well."""
    schema = json.loads((project.ROOT / "docs/restore-list.schema.json").read_text())
    first, second = sorted((system.store / "srv-test").glob("*.manifest.json"))
    altered = json.loads(second.read_text())
    lacks = {"status": "incomplete", "missing": ["MYSQL/3306/shop"], "warnings": ["MYSQL: down"]}
    system.sign(second, json.dumps({**altered, **lacks}))
    first.write_text("{")
    text = system.restore("--list", "--json", code=1)
    document = json.loads(text.splitlines()[0])
    jsonschema.validate(document, schema)
    unreadable, run = document["runs"]
    assert unreadable["begin"] is None
    assert unreadable["items"] is None
    assert "manifest" in unreadable["error"]
    assert (run["status"], run["missing"], run["warnings"]) == tuple(lacks.values())
    assert run["complete"] is False
    assert run["items"][0]["stages"] == ["zstd", "age"]
    assert document["created"] >= run["end"] >= run["begin"]


def test_one_run_is_shown(system: System) -> None:
    first = runs(system)[0]
    assert "zstd age" in system.restore("--show", first)
    assert json.loads(system.restore("--show", first, "--json"))["run_id"] == first


def test_a_bare_machine_needs_the_store_and_the_key_alone(system: System) -> None:
    store = ["--local-backup", str(system.store), "--key-file", str(system.key)]
    out = system.folder / "bare"
    command = [sys.executable, PROGRAM, *store]
    by_url = [sys.executable, PROGRAM, "--store", f"local://{system.store}", *store[2:]]
    for argv in (command, by_url):
        listed = subprocess.run([*argv, "--list"], capture_output=True, text=True, check=True)
        assert "srv-test" in listed.stdout
    subprocess.run([*command, "--restore", "latest", "--destination", str(out)], check=True)
    assert facts(back(system, out)) == facts(system.source)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--store", "local:///no/such"], "/no/such: not a directory"),
        (["--store", "gopher://x"], "gopher://: unknown type of store"),
        (["--store", "local://me:secret@x/"], "not an address of a store"),
        (["--endpoint", "https://s3.example.org"], "--endpoint requires --store"),
    ],
)
def test_a_store_that_cannot_be_meant_is_one_line(
    system: System, arguments: list[str], says: str
) -> None:
    text = system.restore(*arguments, "--list", code=2)
    assert says in text
    assert "secret" not in text


def test_a_date_means_the_newest_run_at_or_before_it(system: System) -> None:
    first, second = runs(system)
    stamp = f"{first[:4]}-{first[4:6]}-{first[6:8]} {first[9:11]}:{first[11:13]}:{first[13:]}"
    assert (back(system, system.restored(run=stamp)) / "a file").read_text() == "first"
    day = f"{second[:4]}-{second[4:6]}-{second[6:8]}"
    assert (back(system, system.restored(run=day)) / "a file").read_text() == "second"
    text = system.restore(
        "--restore", "2001-01-01", "--destination", str(system.folder / "x"), code=2
    )
    assert "no complete run of host srv-test at or before 2001-01-01" in text
    assert "not a run ID or a date" in system.restore("--verify", "yesterday", code=2)


def test_latest_means_the_newest_good_one(system: System) -> None:
    system.rewrite(lambda document: document.update(status="failed"))
    assert (back(system, system.restored()) / "a file").read_text() == "first"
    named = system.restored(run=runs(system)[1])
    assert (back(system, named) / "a file").read_text() == "second"


# --- into where


def test_owner_of_the_destination_alone_and_nothing_overwritten(system: System) -> None:
    out = system.folder / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    text = system.restore("--restore", "latest", "--destination", str(out), code=2)
    assert "directory not empty" in text
    assert sorted(path.name for path in out.iterdir()) == ["mine"]
    system.restore("--restore", "latest", "--destination", str(out), "--overwrite")
    assert (out / "mine").read_text() == "mine"
    (back(system, out) / "a file").write_text("altered")
    system.restore("--restore", "latest", "--destination", str(out), "--overwrite")
    assert (back(system, out) / "a file").read_text() == "second"
    assert sorted(path.name for path in out.iterdir()) == ["FILESET", "mine"]


@pytest.mark.fault(
    "restore into a symbolic link, a file, a folder without parent", "refused, exit 2"
)
def test_odd_destinations_are_refused(system: System) -> None:
    real = system.folder / "real"
    real.mkdir()
    link = system.folder / "link"
    link.symlink_to(real)
    for destination, says in (
        (link, "symbolic link"),
        (system.key, "not a directory"),
        (system.folder / "none/there", "none: no such directory"),
    ):
        text = system.restore("--restore", "latest", "--destination", str(destination), code=2)
        assert says in text
    assert list(real.iterdir()) == []


@pytest.mark.fault(
    "a link in the destination leads elsewhere, --overwrite", "refused, never followed"
)
def test_overwriting_never_follows_a_link(system: System) -> None:
    out, elsewhere = system.folder / "out", system.folder / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / "FILESET").symlink_to(elsewhere)
    arguments = ("--destination", str(out), "--overwrite")
    assert "of another type" in system.restore("--restore", "latest", *arguments, code=1)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.fault("restore into a full disk", "exit 1, nothing left")
@pytest.mark.needs("root")
def test_a_full_disk_leaves_nothing(system: System) -> None:
    mount_point = system.folder / "small"
    mount_point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount_point)], check=True)
    try:
        out = mount_point / "out"
        text = system.restore("--restore", "latest", "--destination", str(out), code=1)
        assert "no space left" in text.lower()
        assert f"warning: {mount_point}: 1.00 MB free, " in text
        assert list(mount_point.iterdir()) == []
    finally:
        subprocess.run(["umount", str(mount_point)], check=True)


def test_a_dry_run_lists_and_writes_nothing(system: System) -> None:
    out = system.folder / "out"
    text = system.restore("--restore", "latest", "--dry-run", "--destination", str(out))
    assert "a file" in text
    assert "-rw" in text
    assert not out.exists()


def test_single_files_by_glob(system: System) -> None:
    top = str(system.source)
    out = system.restored("--path", f"{top}/a*")
    assert sorted(p.name for p in back(system, out).iterdir()) == ["a file"]
    out = system.restored("--path", f"{top}/folder")
    assert (back(system, out) / "folder/random").exists()
    assert (back(system, out) / "folder").stat().st_mode & 0o777 == 0o750
    assert not (back(system, out) / "a file").exists()
    nothing_restored(system, "matches", "--path", "/nothing/**", code=2)


def test_items_and_sections_by_name(system: System) -> None:
    assert (system.restored("--section", "FILESET") / "FILESET").is_dir()
    text = nothing_restored(system, "no item other", "--item", "other", code=2)
    assert "Choose from: FILESET" in text


def test_a_restore_has_a_report_of_its_own(system: System, server: ReportServer) -> None:
    system.configure(system.full_sections(), STREAM="True", MESSAGE_CONFIG_COMMAND=server.url)
    system.restored()
    (form,) = server.forms
    assert form["bckmethod"] == "ncscript-py-restore"
    assert form["result"] == "0"
    system.rewrite(lambda document: document["items"][0].update(sha256="0" * 64))
    nothing_restored(system, "differs from what was backed up")
    assert server.forms[1]["result"] == "1"
    assert "differs from what was backed up" in server.forms[1]["error"]


@pytest.mark.needs("root")
def test_without_root_it_says_what_it_could_not_set(system: System) -> None:
    source = system.folder / "other"
    source.mkdir()
    (source / "theirs").write_text("x")
    os.chown(source / "theirs", 1234, 1234)
    (source / "set").write_text("x")
    (source / "set").chmod(0o4755)
    sections = system.full_sections()
    sections["FILESET"]["PARAMETERS"]["FILESET_INCLUDE"] = str(source)
    shutil.rmtree(system.store)
    system.configure(sections, STREAM="True")
    assert system.result()["exit_code"] == 0
    for folder in (system.folder, *system.folder.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    subprocess.run(["chmod", "-R", "a+rX", str(system.store)], check=True)
    os.chown(system.key, 65534, 65534)
    out = system.folder / "open" / "out"
    out.parent.mkdir()
    os.chown(out.parent, 65534, 65534)
    arguments = ["--local-backup", str(system.store), "--key-file", str(system.key)]
    verified = as_nobody([*arguments, "--verify", "latest"], system.folder, 0)  # writes nothing
    assert "can be restored" in verified
    assert "warning" not in verified
    output = as_nobody(
        [*arguments, "--restore", "latest", "--destination", str(out)], system.folder, 3
    )
    assert "entries of other owners" in output
    assert "set-user-ID" in output
    restored = out / "FILESET" / source.relative_to("/")
    assert (restored / "set").stat().st_mode & 0o7777 == 0o755
    assert (restored / "theirs").stat().st_uid == 65534


def as_nobody(arguments: list[str], folder: Path, code: int) -> str:
    """restore.py in a process that has given up being root; what it said.

    (The interpreter may lie where only root can start it, so it is not started anew.)
    """
    from restore import command as program

    output = folder / "said"
    child = os.fork()
    if not child:
        try:
            sys.stdout = sys.stderr = output.open("w")
            program.main([*arguments[:4], "--verify", "latest"])  # imports what it needs later
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os._exit(program.main(arguments))
        except BaseException:  # noqa: BLE001  (a fork must never come back into the tests)
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(99)
    _, status = os.waitpid(child, 0)
    text = output.read_text(errors="replace")
    assert os.waitstatus_to_exitcode(status) == code, text
    return text
