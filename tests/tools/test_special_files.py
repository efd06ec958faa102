"""Issue 13 A6, C4: a FIFO in the place of a configured file is an error, and is not waited for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from encryption import key_file
from restore import arguments
from tools.base import lock, log
from tools.base.errors import BackupError
from tools.base.secret import Secret
from tools.catalog import signers, writer_key


def _lock(path: Path) -> None:
    with lock.hold(path):
        pass


def _restore(path: Path) -> None:
    argv = ["--local-backup", "/nowhere", "--list", "--key-file", str(path)]
    arguments.check(arguments.read(argv))


@pytest.mark.fault("a FIFO in the place of a key, a secret, a lock or the log", "one line, no wait")
@pytest.mark.parametrize(
    "read",
    [
        key_file.read,
        writer_key.read,
        lambda path: signers.of_file(path, "SIGNERS"),
        lambda path: Secret(f"file:{path}").reveal(),
        _lock,
        _restore,
    ],
    ids=["KEY_FILE", "WRITER_KEY", "SIGNERS", "secret", "lock", "--key-file"],
)
def test_a_fifo_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    with pytest.raises((BackupError, OSError), match=r"regular file"):
        read(fifo)


def test_a_log_that_is_a_fifo_goes_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "x.log")
    log.begin(tmp_path / "x.log", "INFO", 1, 1)
    assert "cannot open log file" in capsys.readouterr().err


def test_a_key_file_that_is_missing_is_named_first(tmp_path: Path) -> None:
    """Not "no signer is known", whose hint is to trust everybody."""
    with pytest.raises(BackupError, match=r"--key-file: .*: no such file or directory"):
        _restore(tmp_path / "gone")
