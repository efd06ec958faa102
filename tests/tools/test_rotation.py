"""Planned rotation of WRITER_KEY: whoever knows an earlier signer finds the newest (14 A3)."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.system import System
from tools.base import project
from tools.base.errors import ConfigError
from tools.catalog import rotation, signers, writer_key
from tools.catalog.signers import Signers
from tools.catalog.trust import Signature, Trust

HOST = "srv-test"


@pytest.fixture
def system(tmp_path: Path) -> System:
    """A run of each of two keys, the second one named by the first."""
    new_system = System(tmp_path)
    (new_system.source / "a").write_text("one")
    new_system.configure(new_system.full_sections(), STREAM="True")
    assert new_system.result()["exit_code"] == 0
    output = rotated(new_system)
    assert "signer: srv-test" in output
    (new_system.source / "a").write_text("two")
    assert new_system.result()["exit_code"] == 0
    return new_system


def rotated(system: System) -> str:
    """Rotate the key by the documented command; the key file does not get to know it."""
    program = str(project.ROOT / "encryption/encryption.py")
    command = [
        *(sys.executable, program, "--KEYGEN", "--WRITER", "--ROTATE", "--HOSTNAME", HOST),
        *("--WRITER_KEY", str(system.writer_key), "--KEY_FILE", str(system.folder / "none")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def restored(system: System, *arguments: str) -> str:
    """What a machine restores that knows the first signer alone."""
    out = system.restored(*arguments)
    return (out / "FILESET" / system.source.relative_to("/") / "a").read_text()


def elsewhere(system: System) -> None:
    """From now on this is another machine: it has no writer key and no state folder."""
    system.writer_key.rename(system.folder / "moved.key")
    (system.work / ".nc-backup-py").rename(system.folder / "moved.state")


def test_the_newest_signer_is_found(system: System) -> None:
    assert system.writer_key.stat().st_mode & 0o7777 == 0o600
    elsewhere(system)
    assert restored(system) == "two"


def test_a_statement_of_somebody_else_names_nobody(system: System) -> None:
    folder = system.store / HOST
    (statement,) = folder.glob("*.signer.json")
    forged = system.folder / "forged.key"
    writer_key.create(forged, HOST)
    content = statement.read_bytes()
    statement.with_name(statement.name + ".sig").write_bytes(writer_key.read(forged).sign(content))
    elsewhere(system)
    text = system.restore(
        "--restore", "latest", "--destination", str(system.folder / "out"), code=1
    )
    assert "signed by an unknown key" in text


@pytest.mark.needs("ssh-keygen")
def test_ssh_keygen_follows_the_sheet(system: System, tmp_path: Path) -> None:
    """Both runs and the statement, by the commands of RECOVERY.txt, from the first line alone."""
    folder = system.store / HOST
    sheets = sorted(folder.glob("*.RECOVERY.txt"))
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(system.signer.replace("srv-test ", 'srv-test valid-before="20990101",', 1))
    first, statement, second = (
        command for sheet in sheets for command in _commands(sheet.read_text())
    )

    def verify(command: str) -> str:
        script = f"TARGET={tmp_path}; cd {folder}; {command}"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
        return done.stdout

    assert "Good" in verify(first)
    assert "Good" not in verify(second)
    assert "Good" in verify(statement)
    (link,) = folder.glob("*.signer.json")
    with allowed.open("a") as file:
        file.write("\n" + rotation.line_of(link.read_bytes(), HOST) + "\n")
    assert "Good" in verify(second)


def _commands(sheet: str) -> list[str]:
    """The ssh-keygen commands of a sheet; that of a statement before that of the manifest."""
    blocks = sheet.split("    ssh-keygen ")[1:]
    commands = ["ssh-keygen " + "\n".join(block.split("\n")[:2]) for block in blocks]
    return commands[::-1]


def test_two_rotations_and_a_new_store(system: System) -> None:
    rotated(system)
    shutil.rmtree(system.store)
    assert system.result("--accept-store")["exit_code"] == 0
    assert len(list((system.store / HOST).glob("*.signer.json"))) == 2
    elsewhere(system)
    assert restored(system) == "two"


def test_a_key_is_not_rotated_to_another_host(tmp_path: Path) -> None:
    """No restore would follow: the old key is known for its own host alone."""
    path = tmp_path / "writer.key"
    writer_key.create(path, HOST)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=f"it is the key of the host {HOST}, not of srv-web-1"):
        writer_key.rotate(path, "srv-web-1")
    assert path.read_bytes() == before
    path.write_text(path.read_text().replace(f"signer: {HOST} ", "signer: srv-web-1 "))
    assert writer_key.rotate(path, "srv-web-1").startswith("srv-web-1 ")


# --- whom a statement makes known


def rotated_key(path: Path) -> tuple[str, writer_key.WriterKey]:
    """The line of a first key, and the key that replaced it."""
    line = writer_key.create(path, HOST)
    writer_key.rotate(path, HOST)
    return line, writer_key.read(path)


def followed(key: writer_key.WriterKey, when: datetime, *lines: str) -> Signers:
    trust = Trust(Signers(tuple(signers.of_text("\n".join(lines), "x"))))
    links = [
        (
            one.name,
            functools.partial(bytes, one.statement),
            Signature(one.signature, when + timedelta(seconds=at)),
        )
        for at, one in enumerate(key.links)
    ]
    return trust.following(HOST, links).signers


def test_a_stolen_key_names_nobody_after_its_end(tmp_path: Path) -> None:
    line, key = rotated_key(tmp_path / "key")
    limited = line.replace(f"{HOST} ", f'{HOST} valid-before="20260101Z",', 1)
    end = datetime(2026, 1, 1, tzinfo=timezone.utc)
    for lines in ([limited], [line, limited]):  # the key file knows it without the limit
        assert len(followed(key, end, *lines).all) == len(lines)
        assert len(followed(key, end - timedelta(days=1), *lines).all) == len(lines) + 1


def test_a_statement_lifts_no_limit(tmp_path: Path) -> None:
    line, key = rotated_key(tmp_path / "key")
    new = writer_key.allowed_signer(HOST, key.public)
    limited = new.replace(f"{HOST} ", f'{HOST} valid-before="20260101Z",', 1)
    now = datetime.now(timezone.utc)
    trust = followed(key, now, line, limited)
    assert "the end of its signer" in trust.problem(key.public, HOST, now)


def test_a_statement_for_another_host_names_nobody(tmp_path: Path) -> None:
    line, key = rotated_key(tmp_path / "key")
    anywhere = line.replace(HOST, "*", 1)
    content = rotation.statement("srv-other", writer_key.allowed_signer(HOST, bytes(range(32))))
    trust = Trust(Signers(tuple(signers.of_text(anywhere, "x"))))
    links = [("x", lambda: content, Signature(key.sign(content), datetime.now(timezone.utc)))]
    assert trust.following(HOST, links).signers == trust.signers


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "key"
    rotated_key(path)
    text = path.read_text()
    path.write_text(text.replace("# rotation: 2", "# rotation: x"))
    with pytest.raises(ConfigError, match="damaged rotation comment"):
        writer_key.read(path)
    path.write_text(text.replace(".signer.json ", ".signer.json !"))
    with pytest.raises(ConfigError, match="not Base64"):
        writer_key.read(path)
    for content in (b"", b"[]", b"{" * 20_000, rotation.statement("other", "x"), b'{"a": NaN}'):
        with pytest.raises(ValueError, match=r"."):
            rotation.line_of(content, HOST)
