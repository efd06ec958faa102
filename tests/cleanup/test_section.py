"""CLEANUP as a section of a run, and cleanup.py by hand: what is removed is what may go."""

from __future__ import annotations

import os
from typing import Any

import pytest

from storage import local_store
from tests import starter, stored_runs
from tests.system import System, execute
from tools.base import project
from tools.catalog import identity, manifest, writer_key
from tools.catalog.memory import Memory
from tools.engine import state

HOST = "srv-test"


def older(system: System, days: int, **fields: Any) -> list[str]:
    """Store signed runs of the last days, as this config made them; return their ids."""
    local = local_store.LocalStore(system.store)
    key = writer_key.read(system.writer_key)
    folder = system.store / HOST
    created = []
    for day in range(days, 0, -1):
        moment = stored_runs.days_ago(day)
        created.append(stored_runs.run_id(moment))
        items = [stored_runs.item(created[-1], "FILESET")]
        run = stored_runs.run(created[-1], items, **fields)
        config_id = identity.config_id(system.conf)
        run = manifest.Manifest(**{**vars(run), "host": HOST, "config_id": config_id})
        stored_runs.put(local, run, key=key)
        stored_runs.age(folder, moment, created[-1])
    return created


def by_hand(system: System, *arguments: str, code: int = 0, bare: bool = False) -> str:
    """Run cleanup.py with this config; it must end with this code. Return what it printed."""
    program = str(project.ROOT / "cleanup/cleanup.py")
    config = () if bare else ("-c", str(system.conf))
    done = starter.run([program, *config, *arguments], os.environ, timeout=120)
    text = (done.stdout + done.stderr).decode()
    assert done.returncode == code, text
    assert "Traceback" not in text
    return text


def runs(system: System) -> list[str]:
    """The ids of the runs in the store."""
    return [run for name in system.names() if (run := manifest.run_of(name))]


def section(result: dict[str, Any], name: str = "CLEANUP") -> dict[str, Any]:
    """The result of one section."""
    (entry,) = [one for one in result["sections"] if one["name"] == name]
    return dict(entry)


def cleaning(system: System, **keys: Any) -> None:
    """Write a config with a CLEANUP section."""
    (system.source / "file").write_text("content")
    system.configure(system.short(CLEANUP=execute("cleanup", **keys)), STREAM="True")


def test_a_run_cleans_up_when_everything_is_stored(system: System) -> None:
    cleaning(system, KEEP_DAILY="3")
    old = older(system, 10)
    result = system.result()
    assert (result["exit_code"], section(result)["status"]) == (0, "ok")
    assert "8 runs removed, 3 runs left" in section(result)["message"]
    assert runs(system) == [*old[-2:], result["run_id"]]
    assert not [name for name in system.names() if name.startswith(old[0])]
    system.restore("--verify", "latest")


def test_a_failed_section_is_no_failed_backup(system: System) -> None:
    """A manifest that cannot be used stops clean-up: exit code 5, and the run is there."""
    cleaning(system, KEEP_DAILY="3")
    old = older(system, 6)
    spoiled = system.store / HOST / manifest.name_of(old[0])
    spoiled.chmod(0o600)
    spoiled.write_text("{")
    result = system.result()
    entry = section(result)
    assert (result["exit_code"], entry["status"]) == (5, "unclean")
    assert f"run {old[0]}: " in entry["message"]
    assert runs(system) == [*old, result["run_id"]]
    text = by_hand(system, "--discard", old[0])
    assert "3 runs would be removed" in text
    assert f"run {old[0]} no longer stops clean-up" in text
    by_hand(system, "--confirm", "--yes-really")
    assert runs(system) == [old[0], *old[4:], result["run_id"]]


def test_a_store_without_the_manifest_of_this_run_is_not_cleaned_up(system: System) -> None:
    (system.source / "file").write_text("content")
    not_a_folder = system.folder / "second"
    not_a_folder.write_text("no folder")
    second = execute("storage", DESTINATION="local", LOCAL_BACKUP=str(not_a_folder))
    second["REQUIRED"] = "False"
    rules = execute("cleanup", KEEP_DAILY="3")
    system.configure(system.short(SECOND=second, CLEANUP=rules), STREAM="False")
    old = older(system, 10)
    result = system.result()
    assert result["exit_code"] == 3
    message = section(result)["message"]
    assert "STORAGE_LOCAL: 8 runs removed" in message
    assert "SECOND: not cleaned up: it has no manifest of this run" in message
    assert runs(system) == [*old[-2:], result["run_id"]]


def test_by_hand(system: System) -> None:
    """The plan by default; --confirm acts; pins; a store without a config."""
    cleaning(system, KEEP_DAILY="3")
    old = older(system, 10)
    text = by_hand(system)
    assert "7 runs would be removed, 3 runs left" in text
    assert "Nothing was removed." in text
    assert runs(system) == old
    by_hand(system, "--pin", old[0])
    assert "pinned" in by_hand(system)
    assert "pinned" in system.restore("--list")
    text = by_hand(system, "--confirm", code=5)
    assert "more than half of the good runs" in text
    assert "hint: If that is meant, add --yes-really." in text
    assert "6 runs removed" in by_hand(system, "--confirm", "--yes-really")
    assert runs(system) == [old[0], *old[-3:]]
    assert "is not pinned any longer" in by_hand(system, "--unpin", old[0])
    bare = ("--local-backup", str(system.store), "--keep-last", "1", "--minimum", "1")
    assert "no run is signed by a known signer" in by_hand(system, *bare, bare=True, code=5)
    signers = system.folder / "signers"
    signers.write_text(f"{system.signer}\n")
    with_signer = (*bare, "--signer", str(signers), "--confirm", "--yes-really")
    assert "3 runs removed, 1 run left" in by_hand(system, *with_signer, bare=True)
    assert runs(system) == old[-1:]
    text = by_hand(system, "--pin", "20200101_000000", code=2)
    assert "no run 20200101_000000 of host srv-test" in text
    text = by_hand(system, "--discard", old[-1], code=2)
    assert "can be read, and does not stop clean-up" in text
    text = by_hand(system, "--hostname", "srv-tset")
    assert "0 runs left" in text
    assert "hint: Check --hostname, and whether the disk is mounted." in text
    system.store.rename(system.folder / "away")
    for arguments in ((), ("--confirm",), ("--pin", old[-1])):
        text = by_hand(system, *arguments, code=1)
        assert f"{system.store}: no such file or directory" in text
        assert "Mount the disk" in text
    assert not system.store.exists()
    system.store.mkdir()  # where its disk is mounted
    Memory(state.folder(system.work)).remember(f"{system.store} srv-test", "0" * 32)
    for text in (by_hand(system, code=1), system.restore("--list", code=1)):
        assert f"{system.store}: store marker nc-backup-py.store/id.json: no such file" in text
    assert by_hand(system, "--minimum", "0", code=2).startswith("error: --minimum: 0 is less than")


def test_the_test_of_a_section(system: System) -> None:
    """-t: what would go now, and that LAST alone protects from nothing."""
    cleaning(system, KEEP_LAST="3")
    older(system, 10)
    done = system.run("-t")
    assert done.returncode == 0, done.stderr
    assert "CLEANUP: STORAGE_LOCAL: 7 runs would be removed, 3 runs left" in done.stdout
    assert "KEEP_LAST is the only rule" in done.stderr
    assert len(runs(system)) == 10


def test_an_item_that_has_failed_for_long_comes_first_in_the_report(system: System) -> None:
    (system.source / "file").write_text("content")
    sections = {"GONE": execute("filesbackup", FILESET_INCLUDE=str(system.folder / "none"))}
    rules = execute("cleanup", KEEP_DAILY="3")
    system.configure({**sections, **system.short(CLEANUP=rules)}, STREAM="True")
    old = older(system, 40)
    local = local_store.LocalStore(system.store)
    run = stored_runs.run(stored_runs.run_id(stored_runs.days_ago(40.5)), [])
    item = stored_runs.item(run.run_id, "GONE")
    fields = {"host": HOST, "items": (item,), "config_id": identity.config_id(system.conf)}
    stored_runs.put(
        local, manifest.Manifest(**{**vars(run), **fields}), key=writer_key.read(system.writer_key)
    )
    stored_runs.age(system.store / HOST, stored_runs.days_ago(40.5), run.run_id)
    result = system.result()
    assert result["exit_code"] == 1
    assert section(result)["status"] == "ok"
    (line,) = result["notices"]
    assert line.startswith("CLEANUP: GONE has no good copy since")
    assert runs(system) == [run.run_id, *old[-2:], result["run_id"]]


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"BUCKET": "b"}, "no store of this config has the bucket b"),
        ({}, "no KEEP rule is set"),
    ],
)
def test_a_section_that_removes_nothing_says_why(
    system: System, keys: dict[str, str], why: str
) -> None:
    from cleanup import cleanup
    from tools.modules import options

    keep = {"KEEP": '{"DAILY": {"NUMBER": "7"}}'} if keys else {}
    cleaning(system)
    cleanup_options = options.fill(
        cleanup.Options, {**keys, **keep, "CONF": str(system.conf), "ALLOW_ROOT": "True"}
    )
    result = cleanup.work(cleanup_options)
    assert (result.status.value, result.message) == ("ok", f"nothing is removed: {why}")


def test_the_documented_bucket_chooses_the_store() -> None:
    from cleanup import stores
    from tools.config import loading

    path = project.ROOT / "conf/examples/several-stores.json"
    config = loading.load(path, insecure=True)
    sections = stores.named(config, "")
    chosen, why = stores.of_bucket(config, sections, "backups-of-acme", "servers/srv-web1/")
    assert ([entry.name for entry in chosen], why) == (["STORAGE_S3"], "")
    chosen, why = stores.of_bucket(config, sections, "backups-of-acme", "srv-web1/")
    assert chosen == []
    assert "PREFIX srv-web1/ is not the folder of this host in STORAGE_S3" in why
