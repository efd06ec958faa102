"""What restore.py says of itself: what a backup lacks, what is missing here, what was left."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from restore import arguments, command
from restore.restoring import Done
from tests.system import System, wait_for
from tools.base import project

PROGRAM = str(project.ROOT / "restore/restore.py")


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> System:
    """A system with one run; tests copy its store and never change it."""
    system = System(tmp_path_factory.mktemp("made"))
    (system.source / "a file").write_text("x")
    (system.source / "random").write_bytes(os.urandom(100))
    system.configure(system.full_sections(), STREAM="True")
    assert system.result()["exit_code"] == 0
    return system


@pytest.fixture
def system(backed_up: System, tmp_path: Path) -> System:
    copy = System(tmp_path)
    copy.source.rmdir()
    copy.source = backed_up.source
    shutil.copytree(backed_up.store, copy.store)
    shutil.copy(backed_up.key, copy.key)
    shutil.copy(backed_up.writer_key, copy.writer_key)
    copy.configure(copy.full_sections(), STREAM="True")
    return copy


def change(system: System, how: Callable[[dict[str, Any]], None]) -> None:
    system.rewrite(how)


def out(system: System) -> list[str]:
    return ["--destination", str(system.folder / "out")]


# --- incomplete stays incomplete (issue 11, A8)


def lacking(document: dict[str, Any]) -> None:
    document["status"] = "incomplete"
    document["items"][0]["warnings"] = [f"/etc/{n}: permission denied" for n in range(9)]


@pytest.mark.parametrize("level", ["presence", "sha256", "full"])
def test_verify_says_what_was_never_in_the_run(system: System, level: str) -> None:
    """Issue 11 A8: it said "ok, can be restored", exit 0."""
    change(system, lacking)
    text = system.restore("--verify", "latest", "--level", level, code=3)
    assert "/etc/0: permission denied" in text
    assert "4 more of 9" in text
    assert "--show" in text
    both = system.restore("--verify", "latest", "--level", level, "--json", code=3)
    document = json.loads(both.splitlines()[0])
    assert document["status"] == "incomplete"
    assert "/etc/0" in json.dumps(document["sections"][0]["warnings"])


def test_restore_says_it_as_well_and_only_of_what_was_asked_for(system: System) -> None:
    """Issue 11 A8: it said "ok"; files that nobody asked for are not named."""
    change(system, lacking)
    assert "/etc/0: permission denied" in system.restore(
        "--restore", "latest", *out(system), code=3
    )
    assert (system.folder / "out/FILESET").is_dir()
    where = ["--destination", str(system.folder / "some"), "--path", f"{system.source}/a file"]
    assert "permission denied" not in system.restore("--restore", "latest", *where)


def test_show_names_all_of_it(system: System) -> None:
    """Issue 11 A8: warnings and notes of each item."""

    def how(document: dict[str, Any]) -> None:
        lacking(document)
        document["items"][0]["notes"] = ["/var/x: changed while it was read"]

    change(system, how)
    text = system.restore("--show", "latest")
    assert text.count("permission denied") == 9
    assert "note: FILESET: /var/x: changed" in text


def test_an_item_that_a_store_does_not_hold_is_named(system: System) -> None:
    """Issue 11 A8: `missing` of the manifest, exit 3."""
    change(system, lambda document: document.update(missing=["MYSQL/3306/shop"]))
    run_id = json.loads(system.restore("--list", "--json"))["runs"][0]["run_id"]
    assert "MYSQL/3306/shop" in system.restore("--verify", run_id, code=3)
    assert "MYSQL/3306/shop" in system.restore("--restore", run_id, *out(system), code=3)
    assert "MYSQL" not in system.restore("--verify", run_id, "--section", "FILESET")


# --- manifests that somebody edited (issue 11, A9)


@pytest.mark.parametrize("kind", ["zstd", "fileret", ""])
def test_an_unknown_kind_is_refused_and_costs_no_other_item(system: System, kind: str) -> None:
    """Issue 11 A9: it was taken for a plain file, exit 0."""

    (part,) = (system.store / "srv-test").glob("*.age.000")
    other = part.name.replace("FILESET", "FILESET.odd")
    shutil.copy(part, part.with_name(other))

    def how(document: dict[str, Any]) -> None:
        first = document["items"][0]
        part = {**first["parts"][0], "name": other}
        document["items"].insert(0, {**first, "name": "odd", "kind": kind, "parts": [part]})

    change(system, how)
    for command_line in (["--verify", "latest"], ["--restore", "latest", *out(system)]):
        text = system.restore(*command_line, code=1)
        assert "FILESET/odd: unknown kind" in text
        assert "Traceback" not in text
    assert (system.folder / "out/FILESET").is_dir()


@pytest.mark.parametrize(
    "edit",
    [
        {"name": "a\0b"},
        {"section": "\ud800"},
        {"ending": "\0"},
        {"size": 10**400},
        {"parts": [{"name": "x", "size": 10**400, "sha256": "0" * 64}]},
    ],
)
def test_an_impossible_manifest_hides_no_other_run(system: System, edit: dict[str, Any]) -> None:
    """Issue 11 A9: tracebacks, and --list showed no run at all."""
    (good,) = (system.store / "srv-test").glob("*.manifest.json")
    bad = good.with_name("20200101_000000.manifest.json")
    document = json.loads(good.read_text())
    document.update(run_id="20200101_000000", sequence=0)
    document["items"][0].update(edit)
    system.sign(bad, json.dumps(document))
    text = system.restore("--list", code=1)
    assert good.name.partition(".")[0] in text
    assert "unreadable" in text
    assert "invalid manifest" in system.restore("--verify", "20200101_000000", code=1)
    assert "invalid manifest" in system.restore("--verify", "all", code=1)
    system.restore("--restore", "latest", *out(system))


def test_a_name_that_no_file_can_have_is_found_by_verify(system: System) -> None:
    """Issue 11 A9: verify said ok, and the restore failed."""

    def how(document: dict[str, Any]) -> None:
        document["mode"] = "staged"  # names of its parts may be any
        document["items"][0].update(name="n" * 300)

    change(system, how)
    for command_line in (["--verify", "latest"], ["--restore", "latest", *out(system)]):
        assert "not usable as a file name" in system.restore(*command_line, code=1)


def test_control_characters_of_a_manifest_do_not_reach_the_terminal(system: System) -> None:
    """Trials 2: a status with ESC was printed as it is."""
    change(system, lambda document: document.update(status="ok\x1b[2J"))
    assert "\x1b" not in system.restore("--list", code=1)
    change(system, lambda document: document.update(status="ok", program="x\x1b[2J"))
    assert "\\x1b" in system.restore("--show", "latest")


# --- what is missing here


def test_a_missing_key_file_ends_it_before_anything_begins(system: System) -> None:
    """Issue 11 A14b: it advised to make a new key, which opens no existing backup."""
    key = ["--key-file", str(system.folder / "nowhere")]
    for command_line in (
        ["--restore", "latest", *out(system)],
        ["--verify", "latest"],
        ["--restore", "latest", "--dry-run"],
    ):
        text = system.restore(*command_line, *key, code=2)
        assert "nowhere: no such file or directory" in text
        assert "KEYGEN" not in text
        assert "new key" in text
    assert not (system.folder / "out").exists()
    system.restore("--verify", "latest", "--level", "sha256", *key)


def test_the_usual_key_file_is_named(system: System) -> None:
    """Issue 11 A14b: without --key-file the usual one is taken, and that is said."""
    where = ["--local-backup", str(system.store), "--allow-unsigned"]
    command = [sys.executable, PROGRAM, *where, "--verify", "latest"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "without --key-file /etc/nc-backup-py/key_file is used" in done.stderr


def test_missing_packages_are_one_line(system: System, tmp_path: Path) -> None:
    """Issue 11 A3: README's bare-machine restore was a traceback of 45 lines."""
    copy = tmp_path / "code"
    ignored = shutil.ignore_patterns(".venv*", ".git", "tests", ".hypothesis", "__pycache__")
    shutil.copytree(project.ROOT, copy, ignore=ignored)
    bare = [sys._base_executable, "-I", "-S"]  # type: ignore[attr-defined]
    where = ["--local-backup", str(system.store), "--key-file", str(system.key)]
    for command_line in (["--verify", "latest"], ["--restore", "latest", *out(system)]):
        command = [*bare, str(copy / "restore/restore.py"), *where, *command_line]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert "error: the Python packages boto3, cryptography" in done.stderr
        assert "zstandard are missing" in done.stderr
        assert f"hint: python3 {copy}/setup.py env" in done.stderr
        assert "RECOVERY.txt" in done.stderr
        assert "Traceback" not in done.stderr
    keygen = [str(copy / "encryption/encryption.py"), "--KEYGEN", "--KEY_FILE", str(tmp_path / "k")]
    done = subprocess.run([*bare, *keygen], capture_output=True, text=True, check=False)
    assert "packages boto3, cryptography" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


# --- the command line


def test_without_config_and_store_the_usual_config_is_meant() -> None:
    """Issue 11 E (trials A15): restore.py has the default of backup.py."""
    if Path("/etc/nc-backup-py/conf.json").exists():
        pytest.skip("this machine has a config")
    done = subprocess.run(
        [sys.executable, PROGRAM, "--list"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "/etc/nc-backup-py/conf.json: no such file or directory" in done.stderr


def test_a_dry_run_that_matches_nothing_is_an_error(system: System) -> None:
    """Issue 11 E: exit 2, as the restore itself."""
    text = system.restore("--restore", "latest", "--dry-run", "--path", "/nowhere", code=2)
    assert "no file matches /nowhere" in text
    path = f"{system.source}/a file"
    text = system.restore("--restore", "latest", "--dry-run", "--path", path, "--path", "/nowhere")
    assert "nothing matches --path /nowhere" in text
    done = system.restore(
        "--restore", "latest", *out(system), "--path", path, "--path", "/no", code=3
    )
    assert "nothing matches --path /no" in done


@pytest.mark.parametrize("pattern", ["/srv/[z-a]", "/srv/[]", "[[:letters:]]"])
def test_a_bad_pattern_is_one_line(system: System, pattern: str) -> None:
    """Issue 11 E (trials 7 C4): exit 2, no traceback, nothing begun."""
    text = system.restore("--restore", "latest", *out(system), "--path", pattern, code=2)
    assert "invalid pattern" in text
    assert not (system.folder / "out").exists()


def test_a_dry_run_warns_of_a_small_destination(system: System) -> None:
    """Issue 11 E (trials 7 C6)."""
    change(system, lambda document: document["items"][0].update(size=1 << 60, sha256=None))
    text = system.restore("--restore", "latest", "--dry-run", *out(system), code=1)
    assert "free, " in text


def test_output_onto_a_full_disk_is_an_error(system: System) -> None:
    """Trials 4, item 24: the output was lost, exit 0, not a word."""
    for command_line in (["--list"], ["--show", "latest"], ["--verify", "latest", "--json"]):
        command = [sys.executable, PROGRAM, "-c", str(system.conf), *command_line]
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                command, stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == 1
        assert "error: standard output: no space left on device" in done.stderr


@pytest.mark.needs("root")
def test_verify_by_another_user_says_what_root_can_restore() -> None:
    """Issue 11 A9: each verify of the user of the backup was incomplete for its owners."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.uid = 12345
        archive.addfile(entry)
    code = (
        "import os, sys; "
        "from restore import unpack as f; os.seteuid(54321); "
        "print(f.verify(iter([sys.stdin.buffer.read()]), '.tar').warnings())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=raw.getvalue(),
        capture_output=True,
        check=True,
        cwd=project.ROOT,
    )
    assert done.stdout == b"()\n"


@pytest.mark.needs("setpriv", "root")
def test_a_device_that_may_not_be_made_costs_nothing_else(tmp_path: Path) -> None:
    """Issue 11 A10: root without CAP_MKNOD, as in a container; exit 3, the device is named."""
    system = System(tmp_path)
    (system.source / "file").write_text("x")
    os.mknod(system.source / "device", 0o020666, os.makedev(1, 3))
    os.utime(system.source / "file", (-1_000_000_000, -1_000_000_000))
    system.configure(system.full_sections(), STREAM="True")
    assert system.result()["exit_code"] == 0
    command = [
        "setpriv",
        "--bounding-set",
        "-mknod",
        "--inh-caps",
        "-mknod",
        sys.executable,
        PROGRAM,
    ]
    where = ["-c", str(system.conf), "--restore", "latest", *out(system)]
    done = subprocess.run([*command, *where], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "device: mknod failed: operation not permitted" in done.stderr
    assert "implausibly" not in done.stderr
    back = system.folder / "out/FILESET" / system.source.relative_to("/")
    assert (back / "file").read_text() == "x"
    assert not (back / "device").exists()


def test_a_cancelled_restore_says_what_is_left(tmp_path: Path) -> None:
    """Issue 11 E: "cancelled: nothing was left" was said though a whole item was left."""
    system = System(tmp_path)
    (system.source / "file").write_text("x")
    other = tmp_path / "other"
    other.mkdir()
    (other / "random").write_bytes(os.urandom(200 << 20))
    sections = system.full_sections()
    second = {**sections["FILESET"], "PARAMETERS": {"FILESET_INCLUDE": str(other)}}
    system.configure(
        {"FILESET": sections.pop("FILESET"), "SECOND": second, **sections}, STREAM="True"
    )
    assert system.result()["exit_code"] == 0
    command = [sys.executable, PROGRAM, "-c", str(system.conf), "--restore", "latest", *out(system)]
    going = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(system.folder / "out", ".nc-restore-*/SECOND")
    going.send_signal(signal.SIGINT)
    stderr = going.communicate(timeout=60)[1]
    assert going.returncode == 130
    assert f"cancelled: FILESET restored to {system.folder}/out and kept; " in stderr
    assert [path.name for path in (system.folder / "out").iterdir()] == ["FILESET"]


def test_what_a_killed_restore_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """Issue 11 A10: .nc-restore-* of the destination held all of the plain data."""
    system = System(tmp_path)
    (system.source / "random").write_bytes(os.urandom(200 << 20))
    system.configure(system.full_sections(), STREAM="True")
    assert system.result()["exit_code"] == 0
    command = [sys.executable, PROGRAM, "-c", str(system.conf), "--restore", "latest", *out(system)]
    going = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    until = time.monotonic() + 20
    while not list((system.folder / "out").glob(".nc-restore-*/FILESET")):
        assert time.monotonic() < until
        time.sleep(0.01)
    going.kill()
    going.wait()
    assert list(tmp_path.glob("nc-restore-*"))
    done = subprocess.run(command, check=False, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 0
    assert [path.name for path in (system.folder / "out").iterdir()] == ["FILESET"]
    assert not list(tmp_path.glob("nc-restore-*"))


@pytest.mark.parametrize(
    ("restored", "in_part", "message"),
    [
        ([], "", "nothing was restored; the unfinished item was removed"),
        (["A"], "", "A restored to /to and kept; the unfinished item was removed"),
        (["A"], "A", "A restored to /to and kept; the unfinished item was removed"),
        ([], "B", "B was being moved into /to and may be there in part: restore it again with"),
        (["A"], "B", "A restored to /to and kept; B was being moved into /to and may be there"),
    ],
)
def test_a_cancelled_restore_names_what_may_be_there(
    restored: list[str], in_part: str, message: str
) -> None:
    options = arguments.read(["--restore", "latest", "--destination", "/to"])
    text = command._cancelled(options, Done(restored, in_part))
    assert text.startswith(f"cancelled: {message}"), text
