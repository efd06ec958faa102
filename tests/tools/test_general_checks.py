"""What `-t` finds about GENERAL: each finding provoked, and each absent where all is well."""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tools.base import fixes
from tools.base.finding import Finding, Level
from tools.catalog import location, writer_key
from tools.config.declarations import General
from tools.config.model import Config
from tools.engine import general_checks, guard


def general(folder: Path, **more: object) -> General:
    base = General(
        "srv",
        work_folder=folder / "work",
        log_folder=folder / "log",
        allow_root=True,
        writer_key=folder / "writer.key",
        disk_space_threshold=0.0,
    )
    return dataclasses.replace(base, **more)  # type: ignore[arg-type]


def findings(settings: General, folder: Path) -> list[Finding]:
    config = Config(folder / "conf.json", settings, {}, ())
    return [one for one in general_checks.tested(config) if guard.ROOT_ALLOWED not in one.text]


def problems(settings: General, folder: Path) -> list[Finding]:
    return [one for one in findings(settings, folder) if one.level is not Level.OK]


@pytest.fixture
def signed(tmp_path: Path) -> General:
    writer_key.create(tmp_path / "writer.key", "srv")
    return general(tmp_path)


def test_a_good_system_has_no_finding(signed: General, tmp_path: Path) -> None:
    assert problems(signed, tmp_path) == []
    texts = [one.text for one in findings(signed, tmp_path)]
    assert any("the signer is: srv namespaces=" in text for text in texts)


def test_the_command_for_a_missing_writer_key_makes_it(tmp_path: Path) -> None:
    settings = general(tmp_path, writer_key=tmp_path / "a key's file")
    (finding,) = problems(settings, tmp_path)
    assert finding.level is Level.WARN
    subprocess.run(shlex.split(finding.fix), check=True, capture_output=True, cwd="/")
    assert problems(settings, tmp_path) == []


def test_a_writer_key_that_others_can_read(signed: General, tmp_path: Path) -> None:
    signed.writer_key.chmod(0o644)
    (finding,) = problems(signed, tmp_path)
    assert (finding.level, "everybody" in finding.text) == (Level.BAD, True)
    subprocess.run(["sh", "-c", finding.fix], check=True)
    assert problems(signed, tmp_path) == []


def test_a_key_file_that_names_the_signer_for_another_host(
    signed: General, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HOSTNAME was changed after the installation: a restore elsewhere has the key file alone."""
    key_file, public = tmp_path / "key_file", writer_key.read(signed.writer_key).public
    monkeypatch.setattr(location, "key_file_of", lambda _config: key_file)
    mark = writer_key.SIGNER
    key_file.write_text(f"{mark}{writer_key.allowed_signer('vm', public)}\n")
    (finding,) = problems(signed, tmp_path)
    assert finding.level is Level.WARN
    key_file.write_text(key_file.read_text() + mark + finding.hint.partition(mark)[2])
    assert problems(signed, tmp_path) == []


def test_a_signer_that_a_restore_would_not_trust(signed: General, tmp_path: Path) -> None:
    our_line = writer_key.allowed_signer("srv", writer_key.read(signed.writer_key).public)
    listed = tmp_path / "signers"
    settings = dataclasses.replace(signed, signers=listed)
    listed.write_text(our_line.replace("namespaces", 'valid-before="20200101",namespaces') + "\n")
    (finding,) = problems(settings, tmp_path)
    assert finding.level is Level.BAD
    assert "a restore would not trust the next run" in finding.text
    writer_key.create(tmp_path / "other.key", "srv")
    other = writer_key.allowed_signer("srv", writer_key.read(tmp_path / "other.key").public)
    listed.write_text(other + "\n")
    (finding,) = problems(settings, tmp_path)
    assert (finding.level, our_line in finding.hint) == (Level.WARN, True)
    listed.write_text(our_line + "\n")
    assert problems(settings, tmp_path) == []


@pytest.mark.parametrize(("threshold", "level"), [(0.0, None), (100.0, Level.WARN)])
def test_space_in_the_work_folder(
    signed: General, tmp_path: Path, threshold: float, level: Level | None
) -> None:
    settings = dataclasses.replace(signed, disk_space_threshold=threshold)
    assert [one.level for one in problems(settings, tmp_path)] == ([level] if level else [])


@pytest.mark.needs("root", "mount")
def test_space_in_the_folder_of_the_log(signed: General, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    try:
        (finding,) = problems(signed, tmp_path)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert (finding.level, "LOG_FOLDER" in finding.text) == (Level.WARN, True)


@pytest.mark.needs("root")
def test_folders_that_cannot_be_made(
    signed: General, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_arguments, **_keywords: False)
    both = problems(signed, tmp_path)
    assert [one.level for one in both] == [Level.BAD, Level.BAD]
    subprocess.run(["sh", "-c", both[0].fix], check=True)
    assert (tmp_path / "work").stat().st_mode & 0o777 == 0o700
    assert not problems(signed, tmp_path)[0].fix  # a folder that exists may serve others as well


@pytest.mark.needs("root")
def test_a_file_of_root_is_opened_to_the_group_of_the_backup_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "conf.json"
    path.touch(mode=0o600)
    assert fixes.let_read(path) == ""
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setattr(os, "getegid", lambda: 65534)
    quoted = shlex.quote(str(path))
    assert fixes.let_read(path) == f"sudo chgrp nogroup {quoted} && sudo chmod 0640 {quoted}"
    assert fixes.let_read(tmp_path) == ""
    assert fixes.let_read(tmp_path / "missing") == ""
