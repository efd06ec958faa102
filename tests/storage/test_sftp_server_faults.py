"""The ssh store on an sftp server that does what real servers have been seen to do wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from storage import ssh_sftp, ssh_shell
from storage.ssh_command import Server
from storage.ssh_objects import SshStore
from storage.ssh_protocol import FSYNC, HARDLINK, STATVFS, Kind, text
from storage.ssh_session import Session
from tests.storage.fake_sftp import FakeSftp
from tools.base.errors import StoreError, TakenError, TransientError
from tools.flow import store
from tools.flow.retries import is_transient

ALL = (HARDLINK, FSYNC, STATVFS)
Opened = Callable[..., SshStore]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Give a store on such a server."""

    def make(fake: FakeSftp, small: int = 1 << 20) -> SshStore:
        monkeypatch.setattr(ssh_sftp, "Link", fake.link)
        monkeypatch.setattr(ssh_shell, "Link", fake.link)
        return SshStore(Session(Server("fake")), "/store", small=small)

    return make


@pytest.mark.fault("sftp server whose rename overwrites", "rejected, old bytes kept; -t says so")
def test_a_rename_that_overwrites(opened: Opened) -> None:
    fake = FakeSftp(overwrites=True)
    target, other = opened(fake), opened(fake)
    target.put("srv/x", [b"first"])
    store.store_object(other, "srv/x", [b"second"])
    with pytest.raises(TakenError):
        target.publish(["srv/x"])
    target.discard(["srv/x"])
    assert fake.files == {b"/store/srv/x": b"second"}
    assert target.create_only is store.CreateOnly.LISTED
    assert "nothing is overwritten by our own listing only" in target.tried("srv")
    assert fake.files == {b"/store/srv/x": b"second"}


@pytest.mark.fault("file system without hard links behind sftp", "renamed after a look")
def test_a_file_system_without_hard_links(opened: Opened) -> None:
    fake = FakeSftp(*ALL, hard_links=False)
    target = opened(fake)
    store.store_object(target, "srv/x", [b"first"])
    assert fake.files == {b"/store/srv/x": b"first"}
    assert target.create_only is store.CreateOnly.LISTED


@pytest.mark.fault("server keeps other bytes than were sent", "read-back mismatch, nothing kept")
@pytest.mark.parametrize("small", [0, 1 << 20])
def test_other_bytes(opened: Opened, small: int) -> None:
    fake = FakeSftp(*ALL)
    fake.faults[Kind.READ] = lambda answer: answer[:-1] + b"?" if answer[0] == Kind.DATA else None
    target = opened(fake, small)
    with pytest.raises(StoreError, match="read-back mismatch"):
        target.put("srv/x", [b"content"])
    assert fake.files == {}


def test_lost_bytes(opened: Opened) -> None:
    fake = FakeSftp(*ALL)

    def shorter(_answer: bytes) -> None:
        for content in fake.files.values():
            del content[-1:]

    fake.faults[Kind.WRITE] = shorter
    with pytest.raises(StoreError, match="read-back mismatch"):
        opened(fake).put("srv/x", [b"content"])
    assert fake.files == {}


@pytest.mark.fault(
    "sftp answers only 'Failure' on a full disk", "the line says full, and what is left"
)
def test_a_full_disk(opened: Opened) -> None:
    fake = FakeSftp(*ALL)
    fake.free = 5
    with pytest.raises(StoreError, match=r"ssh://fake/store: disk full: 5 B free"):
        opened(fake).put("srv/x", [b"content"])
    assert fake.files == {}


@pytest.mark.fault("clock of the ssh server is wrong", "ages by its own clock")
@pytest.mark.parametrize("skew", [-7200.0, 7200.0])
def test_ages_by_the_clock_of_the_server(opened: Opened, skew: float) -> None:
    target = opened(FakeSftp(*ALL, skew=skew))
    store.store_object(target, "srv/x", [b"content"])
    (entry,) = target.entries("srv")
    assert -2 < entry.age < 60


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (b"", TransientError, "was cut"),
        (b"\x65", StoreError, "not a packet of sftp"),
        (b"\x65\xff\xff\xff\xff\0\0\0\0", StoreError, "an answer to no request"),
        (bytes(2 << 20), StoreError, "not a packet of sftp"),
    ],
)
def test_answers_that_are_none(
    opened: Opened, answer: bytes, error: type[StoreError], says: str
) -> None:
    fake = FakeSftp(*ALL)
    fake.faults[Kind.STAT] = lambda _answer: answer
    target = opened(fake)
    with pytest.raises(error, match=says):
        target.put("srv/x", [b"content"])
    fake.faults.clear()
    store.store_object(target, "srv/x", [b"content"])  # by another login
    assert fake.logins == 2


def store_and_list(target: SshStore) -> None:
    store.store_object(target, "srv/x", [b"content"])
    list(target.entries("srv"))


@pytest.mark.parametrize("kind", [Kind.OPEN, Kind.STAT, Kind.FSTAT, Kind.READ, Kind.OPENDIR])
def test_answers_of_the_wrong_kind_or_too_short(opened: Opened, kind: Kind) -> None:
    for body in (bytes([Kind.NAME]), bytes([kind]), bytes([Kind.ATTRS]), bytes([Kind.HANDLE])):
        fake = FakeSftp(*ALL)
        target = opened(fake)
        store.store_object(target, "srv/y", [b"content"])

        def replaced(answer: bytes, body: bytes = body) -> bytes:
            return body + answer[1:5]

        fake.faults[kind] = replaced
        with pytest.raises(StoreError):
            store_and_list(target)
        assert b"/store/srv/x" not in fake.files or kind is Kind.OPENDIR


@pytest.mark.fault("sftp reads shorter pieces than were asked for", "the rest is asked for")
def test_short_reads(opened: Opened) -> None:
    fake = FakeSftp(*ALL)
    target = opened(fake)
    content = bytes(range(256)) * 1000
    store.store_object(target, "srv/x", [content])

    def shorter(answer: bytes) -> bytes | None:
        data = answer[9:]
        if answer[0] != Kind.DATA or len(data) < 100:
            return None
        return answer[:5] + text(data[: len(data) // 2])

    fake.faults[Kind.READ] = shorter
    assert b"".join(target.get("srv/x")) == content
    assert b"".join(target.get("srv/x", 1000, 70_000)) == content[1000:70_000]


@pytest.mark.fault("connection cut while an object is published", "its content is compared")
def test_a_publication_whose_answer_is_lost(opened: Opened) -> None:
    fake = FakeSftp(*ALL)
    target = opened(fake)
    target.put("srv/x", [b"content"])
    fake.faults[Kind.EXTENDED] = lambda _answer: b""
    with pytest.raises(TransientError):
        target.publish(["srv/x"])
    fake.faults.clear()
    target.publish(["srv/x"])
    assert fake.files == {b"/store/srv/x": b"content"}


@pytest.mark.fault("sftp server that lists a folder without end", "an error, memory is bounded")
def test_a_folder_without_end(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_sftp, "_MOST", 100)
    fake = FakeSftp(*ALL)
    target = opened(fake)
    store.store_object(target, "srv/x", [b"content"])
    fake.faults[Kind.READDIR] = lambda answer: bytes([Kind.NAME]) + answer[1:5] + bytes(4)
    with pytest.raises(StoreError, match="the listing does not end"):
        list(target.entries("srv"))


@pytest.mark.fault("a first packet of sftp with a length that is none", "an error at once")
@pytest.mark.parametrize("size", range(5))
def test_a_first_packet_of_no_length(opened: Opened, size: int) -> None:
    fake = FakeSftp(*ALL)
    fake.hello = size.to_bytes(4, "big") + bytes([Kind.VERSION]) + (3).to_bytes(4, "big")
    with pytest.raises(StoreError, match="not a packet of sftp"):
        list(opened(fake).entries("srv"))


@pytest.mark.fault("sftp server that stands, and answers nothing", "an error after 30 minutes")
def test_a_silent_server(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeSftp(*ALL)
    target = opened(fake)
    store.store_object(target, "srv/x", [b"content"])
    fake.silent = True
    monkeypatch.setattr(ssh_sftp, "_SILENT", 0.0)
    with pytest.raises(StoreError, match="no answer from the server") as raised:
        list(target.entries("srv"))
    assert not is_transient(raised.value)  # after half an hour: not five times that
