"""Signed manifests: SSHSIG that OpenSSH reads, known signers, numbers of runs (issue 14 A)."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.system import System
from tools.base.errors import ConfigError
from tools.base.result import Status
from tools.catalog import ed25519, location, signers, sshsig, writer_key
from tools.catalog.location import Source
from tools.catalog.memory import Memory
from tools.catalog.signers import Signers
from tools.catalog.sshsig import SignatureFormatError
from tools.config import loading
from tools.config.declarations import General
from tools.config.model import Config
from tools.engine import run

SEED = bytes(range(32))
SPACE = writer_key.NAMESPACE
MESSAGE = b'{"run": 1}\n'
LIBRARIES = (ed25519.Cryptography, ed25519.Pycryptodome)


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    loaded = request.param()
    monkeypatch.setattr(ed25519, "library", lambda: loaded)
    return loaded


# --- signatures


def test_a_vector_of_rfc_8032(library: Any) -> None:
    """RFC 8032 7.1, test 2."""
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert library.public(seed) == public
    assert library.sign(seed, b"\x72") == signature
    assert library.verify(public, signature, b"\x72")
    assert not library.verify(public, signature, b"\x73")
    assert not library.verify(bytes(32), signature, b"\x72")


@pytest.mark.needs("ssh-keygen")
def test_openssh_reads_our_signatures_and_we_read_its_own(library: Any, tmp_path: Path) -> None:
    public = library.public(SEED)
    allowed, sig = tmp_path / "allowed", tmp_path / "sig"
    allowed.write_text(writer_key.allowed_signer("srv-1", public) + "\n")
    sig.write_bytes(sshsig.sign(SEED, MESSAGE, SPACE))
    check: list[str | Path] = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        allowed,
        "-I",
        "srv-1",
        "-n",
        SPACE,
        "-s",
        sig,
    ]
    assert b"Good" in subprocess.run(check, input=MESSAGE, capture_output=True, check=True).stdout
    assert subprocess.run(check, input=b"x", capture_output=True, check=False).returncode != 0
    key, text = tmp_path / "key", tmp_path / "text"
    text.write_bytes(MESSAGE)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    make: list[str | Path] = ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", SPACE, text]
    subprocess.run(make, check=True, stderr=subprocess.DEVNULL)
    theirs = sshsig.signer((tmp_path / "text.sig").read_bytes(), MESSAGE, SPACE)
    algorithm, blob, _comment = (tmp_path / "key.pub").read_text().split(" ", 2)
    assert theirs == sshsig.public_key(algorithm, blob)


def test_what_is_no_signature_is_refused() -> None:
    good = sshsig.sign(SEED, MESSAGE, SPACE)
    assert sshsig.signer(good, MESSAGE, SPACE) == ed25519.library().public(SEED)
    assert sshsig.signer(good, MESSAGE + b" ", SPACE) is None
    with pytest.raises(SignatureFormatError, match="another purpose"):
        sshsig.signer(good, MESSAGE, "file")
    refused = 0
    places = [at for at, byte in enumerate(good) if byte != ord("\n")]
    for at in places:
        bad = bytearray(good)
        bad[at] ^= 1
        try:
            refused += sshsig.signer(bytes(bad), MESSAGE, SPACE) is None
        except SignatureFormatError:
            refused += 1
    assert refused >= len(places) - 2  # the last bits of the base64 may stand for nothing
    for text in (b"", b"x", good[:100], good * 2, b"\xff" * 300, good[:80] + b"\n" * 70000):
        with pytest.raises(SignatureFormatError):
            sshsig.signer(text, MESSAGE, SPACE)


# --- who may sign


def line(options: str = "", host: str = "srv-1", seed: bytes = SEED) -> str:
    public = sshsig.public_line(ed25519.library().public(seed))
    return f"{host} {options + ' ' if options else ''}{public} a comment"


def read(tmp_path: Path, *lines: str) -> Signers:
    path = tmp_path / "allowed_signers"
    path.write_text("\n".join(lines))
    return Signers(tuple(signers.of_file(path, "SIGNERS")))


@pytest.mark.parametrize(
    ("options", "host", "day", "problem"),
    [
        ("", "srv-1", 1, ""),
        (f'namespaces="{SPACE}"', "srv-1", 1, ""),
        (f'namespaces="file,{SPACE}"', "srv-*", 1, ""),
        ('namespaces="nc-backup-*"', "a,srv-?", 1, ""),
        ("", "*,!srv-1", 1, "key of another host"),
        ("", "srv-2", 1, "key of another host"),
        ("", "srv-[1]", 1, "key of another host"),  # no pattern for OpenSSH
        ('valid-before="20260115Z"', "srv-1", 14, ""),
        ('valid-before="20260115Z"', "srv-1", 15, "the end of its signer"),
        ('valid-after="202601150000Z",valid-before="20260120Z"', "srv-1", 14, "the start"),
        ('valid-after="20260115000000Z"', "srv-1", 15, ""),
    ],
)
def test_an_allowed_signers_line(
    tmp_path: Path, options: str, host: str, day: int, problem: str
) -> None:
    known_signers = read(tmp_path, "# a comment", "", line(options, host))
    when = datetime(2026, 1, day, tzinfo=timezone.utc)
    assert problem in known_signers.problem(ed25519.library().public(SEED), "srv-1", when)
    assert bool(problem) == bool(
        known_signers.problem(ed25519.library().public(SEED), "srv-1", when)
    )
    assert "unknown key" in known_signers.problem(bytes(32), "srv-1", when)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (line("cert-authority"), "cert-authority: not supported"),
        (line('valid-before="soon"'), "soon: invalid time"),
        (line('valid-before="20261332"'), "invalid time"),
        (line("a,,b"), "invalid options"),
        ("srv-1 ssh-ed25519", "not an allowed_signers line"),
        ("srv-1 ssh-ed25519 AA%A", "not Base64"),
        ("srv-1 ssh-ed25519 AAAA", "truncated"),
        ("\x1b[31m", "not an allowed_signers line"),
        (line('namespaces="file"'), "no signer for"),
        ("", "no signer for"),
    ],
)
def test_bad_lines_are_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert says in str(caught.value)
    assert str(tmp_path / "allowed_signers") in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.needs("ssh-keygen")
@pytest.mark.parametrize(
    "host", ["srv-1", "my server", 'a"b', "a,b", "a*", "!x", "#1", "säule", "[1]"]
)
def test_any_host_name_fits_into_a_line(tmp_path: Path, host: str) -> None:
    """A space, a comma or a * means something else in allowed_signers."""
    public = ed25519.library().public(SEED)
    text = writer_key.allowed_signer(host, public)
    known_signers = read(tmp_path, text)
    when = datetime.now(timezone.utc)
    assert known_signers.problem(public, host, when) == ""
    assert "another host" in known_signers.problem(public, f"{host}, other", when)
    sig = tmp_path / "sig"
    sig.write_bytes(sshsig.sign(SEED, MESSAGE, SPACE))
    check: list[str | Path] = ["ssh-keygen", "-Y", "verify", "-I", host]
    check += ["-f", tmp_path / "allowed_signers"]
    done = subprocess.run([*check, "-n", SPACE, "-s", sig], input=MESSAGE, check=False)
    assert done.returncode == 0


# --- whole runs


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> System:
    new_system = System(tmp_path_factory.mktemp("signed"))
    (new_system.source / "a").write_text("one")
    new_system.configure(new_system.full_sections(), STREAM="True")
    assert new_system.result()["exit_code"] == 0
    (new_system.source / "a").write_text("two")
    assert new_system.result()["exit_code"] == 0
    return new_system


@pytest.fixture
def system(signed: System, tmp_path: Path) -> System:
    """The same two runs in a store of their own, and the same config."""
    copy = System(tmp_path)
    copy.conf = signed.conf
    copy.key, copy.writer_key, copy.source = signed.key, signed.writer_key, signed.source
    shutil.copytree(signed.store, copy.store)
    copy.general = {
        **signed.general,
        "LOCAL_BACKUP": str(copy.store),
        "WORK_FOLDER": str(copy.work),
    }
    copy.configure(copy.full_sections(), STREAM="True")
    return copy


def manifests(system: System) -> list[Path]:
    return sorted((system.store / "srv-test").glob("*.manifest.json"))


@pytest.mark.needs("ssh-keygen")
def test_the_recovery_sheet_checks_the_signature(system: System, tmp_path: Path) -> None:
    newest = manifests(system)[-1]
    sheet = newest.with_name(newest.name.replace(".manifest.json", ".RECOVERY.txt"))
    text = sheet.read_text()
    start = text.index("    echo ")
    commands = text[start : text.index("\n\n", start)]
    script = f"TARGET={tmp_path}; cd {newest.parent}; {commands}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert "Good" in done.stdout
    assert (
        json.loads(newest.read_text())["recovery"] == hashlib.sha256(sheet.read_bytes()).hexdigest()
    )


def test_runs_are_numbered_and_name_the_one_before(system: System) -> None:
    first, second = (json.loads(path.read_text()) for path in manifests(system))
    assert (first["sequence"], second["sequence"]) == (1, 2)
    assert first["previous"] == []
    assert second["previous_run"] == first["run_id"]
    assert len(second["previous"]) == 1


def refused(system: System, says: str, *arguments: str) -> None:
    """A restore of latest fails in one clear line and writes nothing."""
    out = system.folder / "out"
    text = system.restore("--restore", "latest", "--destination", str(out), *arguments, code=1)
    assert says in text
    assert text.count("error:") == 1
    assert not out.exists()


def content(system: System, *arguments: str) -> str:
    out = system.restored(*arguments)
    return (out / "FILESET" / system.source.relative_to("/") / "a").read_text()


def test_an_honest_run_is_restored(system: System) -> None:
    assert content(system) == "two"


@pytest.mark.fault("a manifest without a signature in a store of signed runs", "never restored")
def test_a_newer_run_without_a_signature_is_not_taken(system: System) -> None:
    newest = manifests(system)[-1]
    newest.with_name(newest.name + ".sig").unlink()
    assert "not trusted" in system.restore("--list", code=1)
    refused(system, "is newer, and not trusted")
    first = manifests(system)[0].name[:15]
    out = system.folder / "older"
    system.restore("--restore", first, "--destination", str(out))
    assert (out / "FILESET" / system.source.relative_to("/") / "a").read_text() == "one"
    text = system.restore("--verify", newest.name[:15], "--allow-unsigned", code=1)
    assert "not older than the first signed run" in text


@pytest.mark.fault("a manifest that was altered after it was signed", "never restored")
def test_an_altered_manifest_is_refused(system: System) -> None:
    for path in manifests(system):
        path.write_text(path.read_text().replace('"ok"', '"ok" '))
    refused(system, "does not match its signature")
    refused(system, "does not match its signature", "--allow-unsigned")


@pytest.mark.fault("a run that was signed with an unknown key", "never restored")
def test_another_signer_is_refused_until_it_is_named(system: System, tmp_path: Path) -> None:
    writer_key.create(tmp_path / "other", "srv-test")
    key = writer_key.read(tmp_path / "other")
    for path in manifests(system):
        path.with_name(path.name + ".sig").write_bytes(key.sign(path.read_bytes()))
    refused(system, "signed by an unknown key")
    named = tmp_path / "signers"
    named.write_text(writer_key.allowed_signer("srv-test", key.public))
    assert content(system, "--signer", str(named)) == "two"


@pytest.mark.fault("runs of a host that did not sign yet", "restored with --allow-unsigned only")
def test_old_runs_need_a_word(system: System) -> None:
    for path in (system.store / "srv-test").glob("*.sig"):
        path.unlink()
    refused(system, "not signed")
    assert content(system, "--allow-unsigned") == "two"
    text = system.restore("--verify", "latest", "--allow-unsigned")
    assert "is not signed by a known signer" in text
    assert "ok, not signed" in system.restore("--list")


@pytest.mark.fault("the newest run was removed from a store", "named, in every run until accepted")
def test_a_rollback_is_found(system: System) -> None:
    assert system.result()["exit_code"] == 0
    newest = manifests(system)[-1].name[:15]
    for path in (system.store / "srv-test").glob(f"{newest}*"):
        path.unlink()
    refused(system, "number 2, and number 3 was stored")
    state = system.work / ".nc-backup-py"
    remembered = (state / "sequence.json").rename(system.folder / "sequence.json")
    assert content(system) == "two"  # another machine does not know it
    refused(system, "number 2, and number 3 was stored", "--newest", "3")
    remembered.rename(state / "sequence.json")
    for _ in range(2):
        outcome = system.result()
        assert outcome["exit_code"] == 3
        assert "number 3 was stored here" in outcome["stderr"]
    assert system.result("--accept-rollback")["exit_code"] == 0
    assert system.result()["exit_code"] == 0
    assert json.loads(manifests(system)[-2].read_text())["accepted_rollback"] is True


@pytest.mark.fault("a recovery sheet with other commands", "found by verify")
def test_an_altered_sheet_is_found(system: System) -> None:
    sheet = max((system.store / "srv-test").glob("*.RECOVERY.txt"))
    sheet.write_text(sheet.read_text().replace("age -d", "id; age -d"))
    for arguments in (("latest",), ("all",), ("latest", "--level", "presence")):
        assert "do not run the commands in it" in system.restore("--verify", *arguments, code=1)
    sheet.unlink()
    assert "no such file" in system.restore("--verify", "latest", code=1)
    assert content(system) == "two"


@pytest.mark.fault("an old run under the name of a new one", "never restored")
def test_a_replayed_run_is_refused(system: System) -> None:
    first = manifests(system)[0].name[:15]
    for path in list((system.store / "srv-test").glob(f"{first}*")):
        shutil.copy(path, path.with_name(path.name.replace(first, "20991231_000000")[:200]))
        shutil.copy(path, path.with_name(path.name.replace(first, first[:-1] + "x")))
    assert content(system) == "two"
    later = f"{int(first[:8])}_235959"
    for path in list((system.store / "srv-test").glob(f"{first}*")):
        shutil.copy(path, path.with_name(path.name.replace(first, later)))
    refused(system, "is the manifest of")
    assert "is the manifest of" in system.restore("--verify", later, code=1)


def test_the_key_is_in_no_backup(system: System) -> None:
    inside = system.source / "etc"
    inside.mkdir(exist_ok=True)
    key = inside / "writer.key"
    writer_key.create(key, "srv-test")
    system.configure(system.full_sections(), STREAM="True", WRITER_KEY=str(key))
    system.result()
    out = system.restored()
    names = {path.name for path in out.rglob("*")}
    assert "a" in names
    assert "writer.key" not in names
    shutil.rmtree(inside)


@pytest.mark.fault("the number of a run that is stored cannot be remembered", "exit 3, stored")
def test_a_number_that_cannot_be_remembered(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored is never reported as not stored."""

    def reach(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "sequence.json")

    monkeypatch.setattr(Memory, "reach", reach)
    loaded = loading.load(system.conf)
    result = run.perform(loaded, loaded.sections, None)
    assert result.status is Status.INCOMPLETE
    assert "could not be remembered: sequence.json: no space left" in str(result.sections)
    assert "manifest could not be stored" not in str(result.sections)
    assert len(manifests(system)) == 3


def test_signers_that_others_can_change_stop_the_run(system: System, tmp_path: Path) -> None:
    named = tmp_path / "signers"
    named.write_text(line())
    named.chmod(0o666)
    system.configure(system.full_sections(), STREAM="True", SIGNERS=str(named))
    done = system.run("-r")
    assert done.returncode == 2
    assert "SIGNERS" in done.stderr


def test_a_key_that_others_can_read_stops_the_run(system: System) -> None:
    system.writer_key.chmod(0o644)
    try:
        done = system.run("-r")
    finally:
        system.writer_key.chmod(0o600)
    assert done.returncode == 2
    assert "WRITER_KEY" in done.stderr
    assert "chmod" in done.stderr


def test_without_a_config_the_key_of_this_machine_is_that_of_the_host_that_it_names(
    tmp_path: Path,
) -> None:
    """`restore.py --local-backup` on the server itself: not "the key of another host"."""
    path = tmp_path / "writer.key"
    writer_key.create(path, "web 1")
    public = writer_key.read(path).public
    now = datetime.now(timezone.utc)
    general = General("unknown", writer_key=path)
    config = Config(tmp_path / "arguments", general, {}, ())
    known_signers = location.trust_of(config, Source(local_backup=tmp_path)).signers
    assert not known_signers.problem(public, "web 1", now)
    assert "of another host" in known_signers.problem(public, "db1", now)
    configured = location.trust_of(config, Source(config=tmp_path / "conf.json")).signers
    assert "of another host" in configured.problem(public, "web 1", now)
    path.write_text("\n".join(one for one in path.read_text().split("\n") if one[:1] != "#"))
    unnamed = dataclasses.replace(config, general=dataclasses.replace(general, hostname="db1"))
    known_signers = location.trust_of(
        unnamed, Source(local_backup=tmp_path, hostname="db1")
    ).signers
    assert not known_signers.problem(
        public, "db1", now
    )  # a file without the line: as --hostname says


def test_what_is_remembered_survives_a_file_that_cannot_be_read_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next rollback of another store would go unseen."""
    memory = Memory(tmp_path)
    memory.keep("sequence.json", "a", [3, "signer"])
    before = (tmp_path / "sequence.json").read_bytes()

    def fails(*_arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdopen", fails)
        with pytest.raises(OSError, match="Input/output error"):
            memory.keep("sequence.json", "b", [4, "signer"])
    assert (tmp_path / "sequence.json").read_bytes() == before
