"""What gives rights to others is not restored from a run without a known signer (issue 14, D)."""

from __future__ import annotations

import contextlib
import io
import stat
import tarfile
from pathlib import Path

import pytest

from restore import archive_checks, tar_reader
from tests.restore.test_archives import make
from tests.restore.test_tar_fuzz import refusal
from tests.system import System, execute
from tools.base.errors import BackupError

STRANGER = tar_reader.Rules(privileged=True, special=False)
USER = tar_reader.Rules(privileged=False, special=False)


def test_special_entries_of_a_stranger_are_refused() -> None:
    """Issue 14: device nodes, set-id bits of files and capabilities; all of them are counted."""
    raw = make(
        {"name": "plain", "content": b"x"},
        {"kind": "folder", "name": "group", "mode": 0o2775},
        {"kind": "device", "name": "group/dev\n", "devmajor": 8},
        {"name": "group/su", "content": b"x", "mode": 0o4755},
        {"kind": "link", "name": "group/again", "linkname": "group/su", "mode": 0o4755},
        {"name": "group/sg", "content": b"x", "mode": 0o2755},
        {"name": "ping", "pax": {"SCHILY.xattr.security.capability": "x"}},
        {"kind": "device", "name": "last", "devmajor": 8},
        {"kind": "device", "name": "lost", "devmajor": 8},
    )
    message = refusal(raw, STRANGER)
    assert "no known signer" in message
    assert "(6): group/dev\\n, group/su, group/sg, ping, last and 1 more" in message
    assert refusal(raw) == ""


def test_nothing_special_reaches_tar() -> None:
    """Issue 14: not even for the time until the item is refused."""
    raw = make({"name": "a"}, {"name": "su", "content": b"x", "mode": 0o4755}, {"name": "b"})
    out = b""
    with contextlib.suppress(BackupError):
        for chunk in archive_checks.check_archive(iter([raw]), STRANGER):
            out += chunk
    with tarfile.open(fileobj=io.BytesIO(out + bytes(1024))) as archive:
        assert archive.getnames() == ["a", "b"]


def test_special_entries_count_only_where_they_are_wanted() -> None:
    raw = make({"name": "a/f"}, {"name": "su", "content": b"x", "mode": 0o4755})
    patterns = archive_checks.Patterns(["/a"])
    out = b"".join(archive_checks.check_archive(iter([raw]), STRANGER, selects=patterns))
    assert b"a/f" in out
    assert b"su\0" not in out


def test_an_ordinary_user_gets_the_rest() -> None:
    """They are left out and named anyway: it is no refusal."""
    raw = make({"name": "su", "content": b"x", "mode": 0o4755})
    members: list[tar_reader.Member] = []
    for _ in archive_checks.check_archive(iter([raw]), USER, members.append):
        pass
    assert [(member.name, member.mode, bool(member.unsafe)) for member in members] == [
        (b"su", 0o755, True)
    ]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    new_system = System(tmp_path_factory.mktemp("special"))
    (new_system.source / "plain").write_text("x")
    (new_system.source / "su").write_text("x")
    (new_system.source / "su").chmod(0o4755)
    fileset = execute("filesbackup", FILESET_INCLUDE=str(new_system.source))
    new_system.configure(
        {"A": fileset, "STORAGE_LOCAL": execute("storage", DESTINATION="local")}, STREAM="True"
    )
    assert new_system.result()["exit_code"] == 0
    return new_system


def restored(system: System, out: Path, *arguments: str, code: int = 0) -> str:
    """What a restore with these words says."""
    where = ("--restore", "latest", "--destination", str(out))
    store = ("--local-backup", str(system.store), "--hostname", "srv-test")
    return system.restore_bare(*store, *arguments, *where, code=code)


def signer(system: System) -> tuple[str, str]:
    file = system.folder / "signers"
    file.write_text(system.signer + "\n")
    return ("--signer", str(file))


@pytest.mark.needs("root")
@pytest.mark.fault(
    "setuid files in a run of an unknown signer", "refused, also when unsigned is allowed"
)
def test_setuid_of_a_stranger_needs_a_word(system: System, tmp_path: Path) -> None:
    """Issue 14: refused with --allow-unsigned too; nothing of the item is put in place."""
    text = restored(system, tmp_path / "no", "--allow-unsigned", code=1)
    assert "no known signer" in text
    assert f"(1): {str(system.source)[1:]}/su" in text
    assert "--allow-special" in text
    assert not list((tmp_path / "no").rglob("*"))
    store = ("--local-backup", str(system.store), "--hostname", "srv-test", "--allow-unsigned")
    assert "no known signer" in system.restore_bare(*store, "--verify", "latest", code=1)
    system.restore_bare(*store, "--verify", "latest", "--allow-special")
    dry = system.restore_bare(*store, "--restore", "latest", "--dry-run", code=1)
    assert "su (not restored: from a run without a known signer (--allow-special))" in dry
    some = ("--path", f"{system.source}/plain")
    restored(system, tmp_path / "some", "--allow-unsigned", *some)


@pytest.mark.needs("root")
def test_setuid_comes_back_with_the_word_and_from_a_known_signer(
    system: System, tmp_path: Path
) -> None:
    """Issue 14: an honest run is restored as before."""
    for name, arguments in (
        ("word", ("--allow-unsigned", "--allow-special")),
        ("known", signer(system)),
    ):
        restored(system, tmp_path / name, *arguments)
        back = tmp_path / name / "A" / system.source.relative_to("/") / "su"
        assert stat.S_IMODE(back.stat().st_mode) == 0o4755
