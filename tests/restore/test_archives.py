"""For any archive, "verify ok" implies "restore ok": generated ones, honest and odd."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restore import archive_checks, tar_messages, tar_reader, unpack
from tools.base.errors import BackupError, StoreError

pytestmark = pytest.mark.needs("root")
_FORMS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}
_KINDS = {
    "file": tarfile.REGTYPE,
    "folder": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "fifo": tarfile.FIFOTYPE,
    "contiguous": tarfile.CONTTYPE,
}
LONG = "/".join(["d" * 200] * 21)


def make(*entries: dict[str, Any], form: str = "pax") -> bytes:
    """An archive of entries with kind, name, and what else a TarInfo has."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=_FORMS[form]) as archive:
        for given_entry in entries:
            entry = tarfile.TarInfo(given_entry["name"])
            entry.type = _KINDS[given_entry.get("kind", "file")]
            content = given_entry.get("content", b"")
            entry.size = len(content) if entry.type == tarfile.REGTYPE else 0
            for key in ("mode", "mtime", "uid", "gid", "linkname", "devmajor", "devminor"):
                setattr(entry, key, given_entry.get(key, getattr(entry, key)))
            entry.pax_headers = given_entry.get("pax", {})
            archive.addfile(entry, io.BytesIO(content) if entry.size else None)
    return raw.getvalue()


def verified(raw: bytes) -> tuple[str, ...]:
    """What verify says of an archive; an error is its only line."""
    try:
        return tuple(unpack.verify(iter([raw]), ".tar").warnings())
    except BackupError as error:
        return (f"error: {error}",)


def restored(raw: bytes, *patterns: str) -> tuple[tuple[str, ...], set[str]]:
    """What a restore says, and the names that came."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            lines = unpack.unpack(lambda: iter([raw]), ".tar", Path(folder), patterns).warnings()
        except BackupError as error:
            lines = (f"error: {error}",)
        came = {str(path.relative_to(folder)) for path in Path(folder).rglob("*")}
    return tuple(lines), came


# --- what a restore could not do, and verify passed (issue 11, A9)

LOST: dict[str, dict[str, Any]] = {  # named, and the rest comes: verify and restore are incomplete
    "a path of more than 4095 bytes": {"name": f"{LONG}/f"},
    "a name of more than 255 bytes": {"name": "n" * 256},
    "a symbolic link to 4096 bytes": {"kind": "symlink", "name": "l", "linkname": "t" * 4096},
    "a hard link to nothing": {"kind": "link", "name": "l", "linkname": "nothing"},
    "a hard link to itself": {"kind": "link", "name": "l", "linkname": "l"},
}
REFUSED: dict[str, dict[str, Any]] = {  # no backup ever holds it: nothing is taken over
    "mtime NaN": {"name": "f", "pax": {"mtime": "nan"}},
    "mtime beyond time_t": {"name": "f", "pax": {"mtime": "99999999999999999999"}},
    "atime that is a text": {"name": "f", "pax": {"atime": "x"}},
    "an owner of 2^32": {"name": "f", "pax": {"uid": str(2**32)}},
    "a device that no system has": {"kind": "device", "name": "f", "devmajor": 5000},
    "a sparse file of 2^62": {
        "name": "f",
        "pax": {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.name": "f",
            "GNU.sparse.size": str(2**62),
            "GNU.sparse.numblocks": "1",
            "GNU.sparse.map": f"{2**62},0",
        },
    },
    "a sparse map beyond its size": {
        "name": "f",
        "content": b"x" * 512,
        "pax": {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.name": "f",
            "GNU.sparse.size": "100",
            "GNU.sparse.numblocks": "1",
            "GNU.sparse.map": "0,512",
        },
    },
}


@pytest.mark.parametrize("case", LOST)
def test_what_no_system_can_create_is_named_and_the_rest_comes(case: str) -> None:
    """Issue 11 A9, A10: one such member never costs the others, and verify says it as well."""
    raw = make({"name": "before", "content": b"x"}, LOST[case], {"name": "after", "content": b"y"})
    lines, came = restored(raw)
    (line,) = lines
    assert line.startswith("cannot be restored: ")
    assert LOST[case]["name"][:100] in line
    assert came == {"before", "after"}
    assert verified(raw) == lines


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_backup_holds_is_refused_by_both(case: str) -> None:
    """Issue 11 A9: verify refuses what restore refuses, for the same reason."""
    raw = make({"name": "before"}, REFUSED[case])
    (error,), came = restored(raw)
    assert error.startswith("error: ")
    assert verified(raw) == (error,)
    assert not came


def test_a_hard_link_to_what_cannot_be_restored_is_named_as_well() -> None:
    """Issue 11 A9: its content lies under the name that is lost."""
    raw = make({"name": "n" * 256}, {"kind": "link", "name": "l", "linkname": "n" * 256})
    lines, came = restored(raw)
    assert len(lines) == 2
    assert "which cannot be restored" in lines[1]
    assert not came
    assert verified(raw) == lines


def test_a_long_name_that_ends_elsewhere_than_it_says_is_refused() -> None:
    """Issue 11 A9: GNU tar reads on to the NUL, so two readers would see two names."""
    raw = bytearray(make({"name": "benign" + "x" * 100}, form="gnu"))
    raw[124:136] = b"%011o\0" % 6
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    (error,) = verified(bytes(raw))
    assert "a long name does not end where it says" in error


ATTRIBUTES = {
    "no namespace": {"SCHILY.xattr.foo": "v"},
    "too large": {"SCHILY.xattr.user.x": "v" * 5000},
    "an ACL that is none": {"SCHILY.acl.access": "garbage"},
    "an ACL of nobody": {
        "SCHILY.acl.access": "user::rw-,user:no-such:rw-,group::r--,mask::rw-,other::r--"
    },
}


@pytest.mark.parametrize("case", ATTRIBUTES)
def test_attributes_that_cannot_be_set_are_named_by_both(case: str) -> None:
    """Issue 11 A10: an attribute or ACL that is refused was lost without a word, exit 0."""
    raw = make({"name": "f", "content": b"x", "pax": ATTRIBUTES[case]})
    lines, came = restored(raw)
    assert came == {"f"}
    assert lines[0].startswith("differs from the backup: f: ")
    assert verified(raw)[0].startswith("differs from the backup: f: ")


# --- the property

_names = st.lists(
    st.sampled_from(["a", "b", "c", "é", ".", "x" * 100, "y" * 255, "z" * 256, "new\nline", "\\n"]),
    min_size=1,
    max_size=4,
).map("/".join)
_long = st.integers(1, 21).map(lambda depth: "/".join(["d" * 200] * depth))
_times = st.one_of(st.integers(-(2**33), 2**34), st.floats(-1e9, 1e10, allow_nan=False))
_pax = st.dictionaries(
    st.sampled_from(["mtime", "atime", "uid", "size", "SCHILY.xattr.user.x", "SCHILY.xattr.odd",
                     "SCHILY.acl.access", "GNU.sparse.realsize", "GNU.sparse.map", "comment"]),
    st.sampled_from(["nan", "-1.5", "0", "17", str(2**32), "1e3", "user::rwx,group::r-x,other::--x",
                     "x"]),
    max_size=2,
)  # fmt: skip
_entries = st.fixed_dictionaries(
    {"kind": st.sampled_from(list(_KINDS)), "name": _names | _long},
    optional={
        "content": st.binary(max_size=1500),
        "mode": st.integers(0, 0o7777),
        "mtime": _times,
        "uid": st.integers(0, 2**21 - 1),
        "gid": st.integers(0, 2**21 - 1),
        "linkname": _names | st.just("t" * 4096),
        "devmajor": st.integers(0, 10),
        "pax": _pax,
    },
)


@pytest.mark.slow
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_entries, min_size=1, max_size=6), st.sampled_from(list(_FORMS)), st.data())
def test_verify_ok_implies_restore_ok(
    entries: list[dict[str, Any]], form: str, data: st.DataObject
) -> None:
    """Issue 11 A9: one code path; whatever verify lets through without a word comes back whole."""
    try:
        raw = bytearray(make(*entries, form=form))
    except (ValueError, UnicodeError, OverflowError):
        return  # the form cannot hold it
    if data.draw(st.booleans()):  # a header field of the first member, its checksum put right
        at = data.draw(st.sampled_from([100, 108, 116, 124, 136, 156, 157, 257, 329, 345]))
        raw[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
        raw[148:156] = b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw[:512])
    if not verified(bytes(raw)):
        assert restored(bytes(raw))[0] == ()


# --- single members that cannot be created (issue 11, A10)


def fake_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: str, code: int = 2) -> None:
    """A tar that unpacks, and then complains."""
    program = tmp_path / "bin/tar"
    program.parent.mkdir()
    stderr = "\n".join(lines)
    program.write_text(
        f"#!/bin/sh\n/bin/tar \"$@\" || exit 9\ncat >&2 <<'EOT'\n{stderr}\nEOT\nexit {code}\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def complained(tmp_path: Path, line: str, code: int = 2) -> tuple[str, ...]:
    """What becomes of a restore of the files a and b when tar says this."""
    with pytest.MonkeyPatch.context() as patch:
        fake_tar(tmp_path, patch, line.replace("tar: ", f"{tmp_path}/bin/tar: ", 1), code=code)
        return restored(make({"name": "a", "content": b"x"}, {"name": "b"}))[0]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("tar: a: Cannot mknod: Operation not permitted", "cannot be restored: a: mknod failed"),
        ("tar: a: Cannot open: File name too long", "a: cannot be created: file name too long"),
        ("tar: a: Cannot change ownership to uid 5, gid 5: Operation not permitted", "a: change"),
        ("tar: \\303\\251\\n: Cannot open: File name too long", "é\\n: cannot be created"),
    ],
)
def test_the_trouble_of_one_member_costs_no_other(tmp_path: Path, line: str, says: str) -> None:
    """Issue 11 A10: the rest is restored, and the member is named with its reason."""
    old = "tar: b: implausibly old time stamp 1938-04-24 22:13:20"
    (warning,) = complained(tmp_path, f"{old}\n{line}".replace(old + "\n", ""))
    assert says in warning
    assert "error" not in warning


@pytest.mark.parametrize(
    "line",
    [
        "tar: a: Cannot write: No space left on device",
        "tar: a: Cannot open: No space left on device",
        "tar: a: Wrote only 512 of 10240 bytes",
        "tar: a: Cannot open: Input/output error",
        "tar: Unexpected EOF in archive",
        "tar: Skipping to next header",
        "tar: something that nobody knows",
    ],
)
def test_a_line_of_an_unknown_kind_fails_all_of_it(tmp_path: Path, line: str) -> None:
    """Issue 11 A10: lost content is never taken for whole; the line itself is the reason."""
    (error,) = complained(tmp_path, line)
    assert error.startswith("error: tar ended with exit code 2: ")
    assert "no space left" in error or line.removeprefix("tar: ") in error


def test_a_contiguous_file_is_a_file() -> None:
    """Issue 11 A9: verify passed it without a word, and the restore was incomplete."""
    raw = make({"kind": "contiguous", "name": "f"})
    assert verified(raw) == ()
    assert restored(raw) == ((), {"f"})


def test_an_old_time_stamp_is_not_the_reason() -> None:
    """Issue 11 A10: the reason shown is the error, not an earlier warning of tar."""
    messages = tar_messages.Messages("tar")
    messages.take("tar: x: implausibly old time stamp 1938-04-24 22:13:20")
    messages.take("tar: x: Cannot write: No space left on device")
    messages.take("tar: Exiting with failure status due to previous errors")
    assert not messages.allowed(2)
    assert messages.error() == "x: Cannot write: No space left on device"


def test_messages_about_many_members_are_counted_and_not_kept() -> None:
    """Memory must not grow with each attribute that a destination does not know."""
    messages = tar_messages.Messages("tar")
    for number in range(3000):
        messages.take(f"tar: {number}: Cannot utime: Operation not permitted")
        messages.take(f"tar: {number}: Cannot mkfifo: Operation not permitted")
    assert messages.allowed(2)
    assert (messages.unset.count, messages.lost.count, len(messages.missing)) == (3000,) * 3
    assert {len(messages.unset.first), len(messages.lost.first)} == {100}
    assert (messages.partial, messages.of_others) == ([], [])


def test_a_warning_of_a_tar_that_ended_well_is_said(tmp_path: Path) -> None:
    """Issue 11 A10: a line that nobody knows is passed on, though the exit code is 0."""
    (warning,) = complained(tmp_path, "tar: something new", code=0)
    assert warning == "differs from the backup: something new"


def test_a_set_id_file_whose_owner_is_refused_loses_the_bit(tmp_path: Path) -> None:
    """Issue 11 A10: it would run as another user than was meant."""
    with pytest.MonkeyPatch.context() as patch:
        line = "a: Cannot change ownership to uid 5, gid 5: Operation not permitted"
        fake_tar(tmp_path, patch, f"{tmp_path}/bin/tar: {line}")
        out = tmp_path / "out"
        out.mkdir()
        raw = make({"name": "a", "mode": 0o4755, "content": b"x"})
        unpack.unpack(lambda: iter([raw]), ".tar", out, [])
    assert (out / "a").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("x\n/{0}: Cannot truncate: File too large\n", "foo.a"),
        ("x", "foo.\n/{0}: Cannot truncate: File too large\n"),
        ("a' extended attribute for file '/{0}", "foo.ownership"),
    ],
)
def test_no_name_forges_a_message_about_another_file(
    tmp_path: Path, name: str, attribute: str
) -> None:
    """GNU tar prints both names as they are; a file outside was removed, or lost its bits."""
    victim = tmp_path / "victim"
    victim.touch(0o755)
    victim.chmod(0o4755)
    inside = str(victim).lstrip("/")
    entry = {"name": name.format(inside), "pax": {f"SCHILY.xattr.{attribute.format(inside)}": "v"}}
    warnings, names = restored(make({"name": "b"}, entry))
    assert entry["name"] in names
    assert "not set" in warnings[0] and len(warnings) == 1  # noqa: PT018
    assert victim.stat().st_mode & 0o7777 == 0o4755


@pytest.mark.parametrize("kind", ["link", "folder of another user"])
def test_a_destination_whose_owner_replaces_the_staging_folder(tmp_path: Path, kind: str) -> None:
    """Root wrote an archive's files through a link that the owner of the destination put there."""
    etc = tmp_path / "etc"
    etc.mkdir()
    staging = tmp_path / "staging"
    staging.mkdir(0o700)

    def replace() -> None:
        staging.rename(tmp_path / "away")
        if kind == "link":
            staging.symlink_to(etc)
            os.chown(staging, 777, 777, follow_symlinks=False)
        else:
            staging.mkdir()
            os.chown(staging, 777, 777)

    def replaced() -> Iterator[bytes]:
        replace()
        return iter([make({"name": "passwd"})])

    unpack.unpack(replaced, ".tar", staging, [])
    assert (tmp_path / "away/passwd").exists()
    assert not (etc / "passwd").exists()
    with pytest.raises(StoreError):
        unpack.unpack(lambda: iter([make({"name": "passwd"})]), ".tar", staging, [])


def test_a_key_that_needs_more_than_a_line_of_messages_is_refused() -> None:
    """GNU tar prints it as it is, and the second part of a cut line would be one of its own."""
    (warning,) = verified(make({"name": "a", "pax": {"k" * 1000: "v"}}))
    assert "invalid extended header" in warning


def test_two_readers_that_differ_are_found(tmp_path: Path) -> None:
    """Issue 11 A9: tar must read the names that we saw, in unpacking and in verifying."""
    program = tmp_path / "bin/tar"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n/bin/tar "$@" | sed s/b/c/\n')
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        raw = make({"name": "a"}, {"name": "b"})
        assert verified(raw) == ("error: b: GNU tar reads another name",)
        assert restored(raw)[0] == verified(raw)


def test_an_old_time_stamp_is_no_trouble() -> None:
    """Issue 11 A10: tar writes the name of such a file as it is, line breaks and all."""
    raw = make({"name": "new\nline", "mtime": -1}, form="gnu")
    assert restored(raw) == ((), {"new\nline"})


# --- patterns


@pytest.mark.parametrize("pattern", ["[z-a]", "S/[]", "[[:letters:]]", "*.{a,b}", "a\\", "/", ""])
def test_a_bad_pattern_is_one_line(pattern: str) -> None:
    """Issue 11 E (trials 7 C4): re.error was a traceback."""
    with pytest.raises(BackupError, match="--path: "):
        archive_checks.Patterns([pattern])


def test_each_pattern_that_matches_nothing_is_named() -> None:
    """Issue 11 E (trials 7 A6): two of three files came, exit 0."""
    raw = make({"name": "a"}, {"name": "b"})
    lines, came = restored(raw, "a", "nowhere/**")
    assert came == {"a"}
    assert lines == ("nothing matches --path nowhere/**",)


def test_folders_that_only_stand_in_paths_are_open_to_others() -> None:
    """Trials 7 A2: they were made 0700, so nobody reached what lay below."""
    raw = make({"name": "srv/www/site/index", "content": b"x"})
    with tempfile.TemporaryDirectory() as folder:
        unpack.unpack(lambda: iter([raw]), ".tar", Path(folder), [])
        assert (Path(folder) / "srv/www").stat().st_mode & 0o777 == 0o755


def test_sparse_files_of_every_version_come_back(tmp_path: Path) -> None:
    """Issue 11 A9: maps are read by us as well, and honest ones pass."""
    with (tmp_path / "sparse").open("wb") as file:
        for at in (1, 3, 30, 31, 60):
            file.seek(at << 20)
            file.write(b"here" * 1000)
        file.truncate(64 << 20)
    (tmp_path / "sparse").chmod(0o4755)
    for options in (["--format=gnu"], *([f"--sparse-version={v}", "--format=posix"] for v in
                  ("0.0", "0.1", "1.0"))):  # fmt: skip
        argv = ["tar", "-c", "--sparse", *options, "-C", str(tmp_path), "sparse"]
        raw = subprocess.run(argv, check=True, capture_output=True).stdout
        assert verified(raw) == ()
        user = list(archive_checks.check_archive(iter([raw]), tar_reader.Rules()))
        with tarfile.open(fileobj=io.BytesIO(b"".join(user))) as archive:
            (entry,) = archive
            assert (entry.mode, entry.size) == (0o755, 64 << 20)
