"""What honest operators do to signers, and what must not become an alarm or a refusal (14 A)."""

from __future__ import annotations

import errno
import json
import os
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from encryption import key_commands
from storage.local_store import LocalStore
from tests.system import System
from tools import filesystem_handling
from tools.base.errors import ConfigError
from tools.catalog import markers, rotation, signers, writer_key
from tools.catalog.catalog import Catalog
from tools.catalog.memory import Memory, Reached
from tools.catalog.rotation import Link
from tools.catalog.signers import Signers
from tools.catalog.trust import Signature, Trust, UntrustedError
from tools.config import loading
from tools.engine import general_checks, state

NOT_SIGNED = "was signed, and this run is not"


@pytest.fixture
def system(tmp_path: Path) -> System:
    new_system = System(tmp_path)
    (new_system.source / "a").write_text("one")
    new_system.configure(new_system.short(), STREAM="True")
    return new_system


def test_signing_begins_and_the_key_is_lost(system: System) -> None:
    """The first signed run is no rollback, and neither is the first of a new key."""
    key = system.writer_key.rename(system.folder / "later")
    assert system.result()["exit_code"] == 0
    key.rename(system.writer_key)
    assert system.result()["exit_code"] == 0
    assert system.result()["exit_code"] == 0
    system.restored()
    system.writer_key.unlink()
    for _ in range(2):
        outcome = system.result()
        assert outcome["exit_code"] == 3
        assert NOT_SIGNED in outcome["stderr"]
    system.signer = writer_key.create(system.writer_key, "srv-test")
    with system.key.open("a") as file:
        file.write(f"{writer_key.SIGNER}{system.signer}\n")
    assert system.result()["exit_code"] == 0
    assert system.result()["exit_code"] == 0
    system.restored()


def test_a_new_machine_with_a_new_key_goes_on(system: System) -> None:
    """Its numbers go on where those of the lost machine ended, and its signer is in the log."""
    system.general["MACHINE_ID"] = "old"
    system.configure(system.short(), STREAM="True")
    for _ in range(2):
        assert system.result()["exit_code"] == 0
    shutil.rmtree(system.work)
    system.writer_key.unlink()
    signer = writer_key.create(system.writer_key, "srv-test")
    system.configure(system.short(), STREAM="True", MACHINE_ID="new")
    outcome = system.result()
    assert outcome["exit_code"] == 3
    assert "After a move nothing is to be done for new runs" in outcome["stderr"]
    assert signer in system.log.read_text()
    assert system.result()["exit_code"] == 0
    numbers = [json.loads(path.read_text())["sequence"] for path in manifests(system)]
    assert numbers == [1, 2, 3, 4]
    system.writer_key.unlink()
    system.key.write_text(
        "\n".join(line for line in system.key.read_text().split("\n") if "signer" not in line)
    )
    assert "ok, signer not known" in system.restore("--list")


@pytest.mark.fault("forged runs of other machines", "each run warns and goes on")
def test_forged_machines_stop_no_backup(system: System) -> None:
    assert system.result()["exit_code"] == 0
    (path,) = manifests(system)
    forged = {**json.loads(path.read_text()), "machine": "x"}
    for run in ("20200101_000000", later()):
        text = json.dumps({**forged, "run_id": run}).replace(forged["run_id"], run)
        path.with_name(f"{run}.manifest.json").write_text(text)
    for _ in range(2):
        outcome = system.result()
        assert outcome["exit_code"] == 3
        assert "It is not signed" in outcome["stderr"]


def manifests(system: System) -> list[Path]:
    return sorted((system.store / "srv-test").glob("*.manifest.json"))


def later() -> str:
    """Return the id of a run that begins in an hour."""
    return (datetime.now(timezone.utc) + timedelta(hours=1)).strftime("%Y%m%d_%H%M%S")


def test_a_renamed_host_is_restored(system: System) -> None:
    """Though the key file names its key for the old name only."""
    assert system.result()["exit_code"] == 0
    system.configure(system.short(), STREAM="True", HOSTNAME="srv-new")
    assert system.result()["exit_code"] == 0
    system.restored()
    system.writer_key.unlink()
    text = system.restore("--verify", "latest", code=1)
    assert "signed by the key of another host" in text
    assert "missing" not in text


@pytest.mark.fault("a number of a run that no run can have", "it counts for nothing")
def test_an_impossible_number_counts_for_nothing(system: System) -> None:
    """A host that does not sign: the next run would have had a number that nobody reads."""
    system.writer_key.unlink()
    assert system.result()["exit_code"] == 0
    (path,) = manifests(system)
    path.chmod(0o600)
    path.write_text(json.dumps({**json.loads(path.read_text()), "sequence": (1 << 63) - 1}))
    (system.work / ".nc-backup-py/sequence.json").unlink()
    assert system.result()["exit_code"] == 0
    system.restore("--verify", "all", "--allow-unsigned")


def test_a_restore_does_not_need_the_writer_key(system: System) -> None:
    assert system.result()["exit_code"] == 0
    system.writer_key.write_text("damaged\n")
    assert "WRITER_KEY" in system.restore("--verify", "latest")
    system.key.write_text(
        "\n".join(line for line in system.key.read_text().split("\n") if "signer" not in line)
    )
    assert "WRITER_KEY" in system.restore("--verify", "latest", code=2)


def test_disks_that_take_turns_share_the_numbers(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.reach("a" * 32, "srv", "config", Reached(5, "signer"))
    memory.reach("b" * 32, "srv", "config", Reached(6))
    memory.reach("c" * 32, "srv", "other", Reached(9))
    memory.reach("c" * 32, "other srv", "config", Reached(8))
    assert memory.highest("srv", "config") == 6
    assert memory.reached("a" * 32, "srv", "config") == Reached(5, "signer")


@pytest.mark.parametrize("spoiled", [7, [0, ""], [1], ["1", ""], None, {}])
def test_a_spoiled_memory_knows_nothing(tmp_path: Path, spoiled: object) -> None:
    (tmp_path / "sequence.json").write_text(json.dumps({"id srv config": spoiled}))
    assert Memory(tmp_path).reached("id", "srv", "config") == Reached()
    assert Memory(tmp_path).highest("srv", "config") == 0


def test_two_runs_that_store_one_statement(tmp_path: Path) -> None:
    """Two configs of a host after a rotation: the list of the slower one lacks the statement."""
    local = LocalStore(tmp_path)
    slow = Catalog(local, "srv", Trust())
    assert not slow.sizes
    link = Link(rotation.next_name(()), b"statement", b"signature")
    for catalog in (Catalog(local, "srv", Trust()), slow):
        markers._store_link(catalog, link)
    assert (tmp_path / "srv" / link.name).read_bytes() == b"statement"


def test_a_file_of_signers_from_another_system(tmp_path: Path) -> None:
    line = writer_key.create(tmp_path / "writer.key", "srv")
    path = tmp_path / "signers"
    path.write_bytes(f"\ufeff{line}\r\n".encode())
    (signer,) = signers.of_file(path, "SIGNERS")
    assert signer.signs_for("srv")
    path.write_text(f"{line}\n" + "#" * (1 << 20))
    with pytest.raises(ConfigError, match="larger"):
        signers.of_file(path, "SIGNERS")
    path.write_text(f"# comment\n\n{writer_key.SIGNER}{line}\n{writer_key.SIGNER}srv\n")
    with pytest.raises(ConfigError, match=r"signers:4: not an allowed_signers line"):
        signers.in_comments(path)


def test_a_key_file_names_its_signers(tmp_path: Path) -> None:
    """A new key names its signer in KEY_FILE and in the identity beside it, and either can be
    given as a file of signers."""
    path = tmp_path / "key_file"
    identity = tmp_path / "key_file.identity"
    for one in (path, identity):
        key_commands.create(one, post_quantum=False)
    created = key_commands.create_writer(tmp_path / "writer.key", "srv", path)
    assert f"It was added to {path} and {identity} as a comment." in created.details
    for one in (path, identity):
        (signer,) = signers.of_file(one, "--signer")
        assert signer.signs_for("srv")


@pytest.mark.fault("a full disk while the signer is noted in KEY_FILE", "KEY_FILE is unchanged")
def test_part_of_a_line_never_stays_in_a_key_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key_file"
    key_commands.create(path, post_quantum=False)
    before = path.read_bytes()

    def full(descriptor: int, chunk: bytes) -> None:
        os.write(descriptor, chunk[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(filesystem_handling, "write_all", full)
        assert not key_commands._noted(path, "srv ssh-ed25519 AAAA")
    assert path.read_bytes() == before


def test_a_rotated_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "safe").mkdir(mode=0o700)
    real, link = tmp_path / "safe/writer.key", tmp_path / "writer.key"
    first = writer_key.create(real, "srv")
    link.symlink_to(real)
    second = writer_key.rotate(link, "srv")
    assert link.is_symlink()
    assert first != second
    assert writer_key.allowed_signer("srv", writer_key.read(real).public) == second


def test_a_copy_without_times_is_named(tmp_path: Path) -> None:
    """After a break-in, the time of each signature counts: an honest copy must keep it."""
    key = tmp_path / "writer.key"
    line = writer_key.create(key, "srv")
    limited = line.replace("srv ", 'srv valid-before="20260101Z",', 1)
    signed = Signature(writer_key.read(key).sign(b"run"), datetime.now(timezone.utc))
    trust = Trust(Signers(tuple(signers.of_text(limited, "test"))))
    with pytest.raises(UntrustedError, match="stored after 2026-01-01") as caught:
        trust.signer("run", "srv", b"run", signed)
    assert "cp -a" in caught.value.hint
    other = Trust(Signers(tuple(signers.of_text(line, "test"))))
    with pytest.raises(UntrustedError, match="another host") as caught:
        other.signer("run", "other", b"run", signed)
    assert "--signer" in caught.value.hint


def test_a_lost_key_is_put_back_before_a_new_one_is_made(system: System) -> None:
    """The memory of stores tells that there was a key: its command is then no fix."""
    config = loading.load(system.conf)
    system.writer_key.unlink()
    (finding,) = general_checks._signing(config)
    assert finding.fix
    Memory(state.folder(system.work)).reach("s", "srv-test", "c", Reached(3, "SHA256:abc"))
    (finding,) = general_checks._signing(config)
    assert "this host has signed runs (SHA256:abc)" in finding.text
    assert finding.hint.startswith("Put the file back from a copy. Only if there is none, create")
    assert not finding.fix


def test_a_key_that_cannot_be_looked_up_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run would be stored unsigned, which no restore trusts."""
    path = tmp_path / "writer.key"
    assert writer_key.is_missing(path)

    def broken(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as failing:
        failing.setattr(Path, "lstat", broken)
        assert not writer_key.is_missing(path)
