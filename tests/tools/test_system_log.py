"""LOG_TO: what syslog and the journal get, and that a dead socket costs a run nothing."""

from __future__ import annotations

import logging
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tools.base import log, masking, system_log
from tools.base.errors import ConfigError
from tools.config.declarations import General


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket as a daemon of the system has it."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiving:
        receiving.bind(str(path))
        receiving.settimeout(2)
        yield receiving


def begun(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *targets: str, level: str = "INFO"
) -> None:
    """A log whose sockets lie in a folder."""
    monkeypatch.setattr(system_log.Syslog.__init__, "__defaults__", (folder / "log",))
    monkeypatch.setattr(system_log.Journald.__init__, "__defaults__", (folder / "journal",))
    log.begin(folder / "x.log", level, 1, 1, targets=targets)


def entry(datagram: bytes) -> dict[str, str]:
    """The fields of an entry, read as the journal does."""
    fields = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, separator, value = line.partition(b"=")
        if not separator:
            (size,) = struct.unpack("<Q", datagram[:8])
            value, datagram = datagram[8 : 8 + size], datagram[8 + size :]
            assert datagram[:1] == b"\n"
            datagram = datagram[1:]
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name)
        fields[name.decode()] = value.decode()
    return fields


def test_syslog_gets_a_datagram_for_each_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masking.add("hunter2-syslog")
    with listening(tmp_path / "log") as daemon:
        begun(tmp_path, monkeypatch, "syslog", level="WARNING")
        log.logger.info("not for a log of warnings")
        log.logger.error("password hunter2-syslog\nand \x1b more \udc80")
        log.always("run %s", "1")
        lines = [daemon.recv(1 << 16).decode() for _ in range(3)]
    head = rf"nc-backup-py\[{os.getpid()}\]: "
    assert re.fullmatch(rf"<27>{head}ERROR - password \*\*\*", lines[0])
    assert re.fullmatch(rf"<27>{head}    and \\x1b more \\x80", lines[1])
    assert re.fullmatch(rf"<30>{head}INFO - run 1", lines[2])
    assert not (tmp_path / "x.log").exists()


def test_the_journal_gets_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(tmp_path / "journal") as daemon:
        begun(tmp_path, monkeypatch, "file", "journald")
        log.of_run("20261123_030000", "srv-1")
        log.logger.warning("two\nlines, and MESSAGE=\u20ac")
        log.logger.critical("x" * 200_000)
        first, second = entry(daemon.recv(1 << 18)), entry(daemon.recv(1 << 18))
    assert first == {
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "nc-backup-py",
        "SYSLOG_PID": str(os.getpid()),
        "NC_BACKUP_RUN_ID": "20261123_030000",
        "NC_BACKUP_HOSTNAME": "srv-1",
        "MESSAGE": "two\n    lines, and MESSAGE=\u20ac",
    }
    assert (second["PRIORITY"], len(second["MESSAGE"])) == ("2", 60_000)
    assert "two\n    lines" in (tmp_path / "x.log").read_text()


@pytest.mark.parametrize("fault", ["missing", "closed", "full", "a file"])
@pytest.mark.fault("the socket of syslog or journald is dead or full", "the run goes on")
def test_a_dead_socket_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    path = tmp_path / "log"
    if fault == "a file":
        path.write_text("x")
    with listening(tmp_path / "held") as daemon:  # nobody reads it
        if fault == "full":
            (tmp_path / "held").rename(path)
        if fault == "closed":
            (tmp_path / "held").rename(path)
            daemon.close()
        begun(tmp_path, monkeypatch, "syslog", "file")
        began = time.monotonic()
        for number in range(300):
            log.logger.info("line %d", number)
        assert time.monotonic() - began < 15  # each line waits 0.2 s where nothing is paused
    errors = capsys.readouterr().err
    assert errors.count("warning: cannot write to the log: ") == 1
    assert "Traceback" not in errors
    assert "line 299" in (tmp_path / "x.log").read_text()


def test_a_daemon_that_was_restarted_gets_the_next_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    with listening(path):
        begun(tmp_path, monkeypatch, "syslog")
        log.logger.info("first")
    with listening(path) as daemon:
        log.logger.info("second")
        assert daemon.recv(1000).endswith(b"second")


def test_the_socket_is_closed_with_its_handler(tmp_path: Path) -> None:
    with listening(tmp_path / "log") as daemon:
        handler = system_log.Syslog(tmp_path / "log")
        handler.emit(logging.makeLogRecord({"msg": "x", "levelno": logging.INFO}))
        assert daemon.recv(100).startswith(b"<30>")
        handler.close()
        assert handler._socket is None


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(ConfigError, match="LOG_TO: 'journal': unknown target") as caught:
        General("srv", log_to=("file", "journal"))
    assert caught.value.hint == "Choose from: file, syslog, journald."


def test_a_target_that_does_not_listen_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_log, "JOURNAL", tmp_path / "no")
    assert system_log.missing(("file", "journald")) == [
        f"LOG_TO: journald: {tmp_path / 'no'}: no such socket"
    ]
