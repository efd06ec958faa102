"""Streamed runs as a user makes them: the same config, the same archive, and every fault said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.filesets import difficult, facts
from tests.system import System, execute, peak, wait_for
from tools.base.result import Status
from tools.catalog import store_identity
from tools.config import loading
from tools.config.model import Section
from tools.engine.section_runner import Context
from tools.engine.streamed import Streamed

STORE = """\
place={store}; mkdir -p "$place"
while [ $# -gt 0 ]; do declare "${{1#--}}=$2"; shift 2; done
case "${{DIRECTION:-forward}}" in
  list) cd "$place/$NAME" 2>/dev/null && stat -c '%s %n' -- *; true;;
  backward) cat -- "$place/$NAME";;
  forward) cd "$place"; mkdir -p "${{NAME%/*}}"; cat > "$NAME.new"; mv "$NAME.new" "$NAME";;
esac
"""
FILTER = """\
binmode STDIN; binmode STDOUT; my %given = @ARGV;
my $by = ($given{'--DIRECTION'} // '') eq 'backward' ? -3 : 3;
while (read(STDIN, my $part, 65536)) {
  print join '', map { chr((ord($_) + $by) % 256) } split //, $part
}
"""


def restored_path(out: Path, source: Path, section: str = "FILESET") -> Path:
    return out / section / source.relative_to("/")


def own_files(system: System) -> list[Path]:
    return [p for p in system.work.rglob("*") if p.is_file() and p.stat().st_size > 1 << 20]


@pytest.mark.needs("root", "setfacl", "setfattr")
def test_one_config_staged_and_streamed_gives_back_everything(system: System) -> None:
    system.source.rmdir()
    tree = difficult(system.source)
    subprocess.run(["setfacl", "-m", "u:1234:rw", str(tree / "plain")], check=True)
    subprocess.run(["setfattr", "-n", "user.note", "-v", "kept", str(tree / "empty")], check=True)
    os.chown(tree / "link", 1234, 5678, follow_symlinks=False)
    (tree / "set").write_text("id")
    (tree / "set").chmod(0o6755)
    before = facts(tree)
    for stream in ("False", "True"):
        system.configure(system.full_sections(), STREAM=stream)
        result = system.result()
        assert result["exit_code"] == 0, result
        assert result["size"].endswith("KB")
        back = restored_path(system.restored(), tree)
        assert facts(back) == before
        assert (back / "plain").stat().st_ino == (back / "hard").stat().st_ino
        assert (back / "sparse").stat().st_blocks < 1000
    assert "streamed" in system.restore("--show", "latest")
    assert not own_files(system)


def test_what_is_streamed_is_read_by_the_stock_tools(system: System) -> None:
    (system.source / "a").write_bytes(os.urandom(3 << 20))
    system.configure(system.full_sections(), STREAM="True")
    assert system.result()["exit_code"] == 0
    names = system.stored()
    run_id = names[0].partition(".")[0]
    assert names == [f"{run_id}.FILESET.tar.zst.age.{n:03}" for n in range(len(names))]
    assert len(names) == 4
    records = {"manifest.json", "manifest.json.sig", "RECOVERY.txt"}
    assert set(system.names()) - set(names) == {f"{run_id}.{one}" for one in records}


# tar has ended before the padding of its archive comes
_SLOW_END = """
zstd() {
    local plain; plain=$(mktemp) && command zstd "$@" > "$plain"
    head -c -20480 "$plain"; sleep 0.3; tail -c 20480 "$plain"; local said=$?
    rm "$plain"; return $said
}
"""


@pytest.mark.needs("age", "zstd")
@pytest.mark.parametrize("stream", ["True", "False"])
def test_the_recovery_sheet_pasted_into_a_shell_restores(system: System, stream: str) -> None:
    (system.source / "it's a file").write_bytes(os.urandom(3 << 20))
    sections = system.full_sections()
    if stream == "True":
        sections = {"OWN": system.script("own", "seq 100000", "source"), **sections}
    system.configure(sections, STREAM=stream)
    assert system.result()["exit_code"] == 0
    (sheet,) = (system.store / "srv-test").glob("*.RECOVERY.txt")
    text = sheet.read_text()
    assert "AGE-SECRET" not in text
    target = system.folder / "by hand"
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    places = (f"STORE='{sheet.parent}'", f"KEY='{system.key}'", f"TARGET='{target}'")
    script = "\n".join([*places, _SLOW_END, *lines[3:]])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    good, *others = done.stdout.splitlines()
    assert good.startswith("Good")
    assert set(others) == {"unchanged", "restored"}
    back = target / system.source.relative_to("/")
    assert facts(back) == facts(system.source)
    if stream == "True":
        assert (target / "OWN").read_text().splitlines()[-1] == "100000"
        return
    part = next(sheet.parent.glob("*.age.000"))
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    begin = next(i for i, line in enumerate(lines) if line.startswith("awk "))
    compare = "\n".join(lines[begin : begin + 2])
    done = subprocess.run(
        ["bash", "-c", compare], cwd=sheet.parent, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{part.name}: FAILED\n"


def test_a_bash_source_a_perl_filter_and_a_bash_store(system: System) -> None:
    folder = system.folder / "own store"
    system.configure(
        {
            "NUMBERS": system.script("numbers", "seq 1 300000", "source"),
            "ADD": system.script("add", FILTER, "filter", perl=True),
            "COMPRESSION": execute("compression"),
            "OWN": system.script("keep", STORE.format(store=f"'{folder}'"), "store"),
        },
        STREAM="True",
    )
    result = system.result()
    assert result["exit_code"] == 0, result
    names = sorted(path.name for path in (folder / "srv-test").iterdir())
    run_id = result["run_id"]
    assert names == [
        f"{run_id}.NUMBERS.ADD.zst.000",
        f"{run_id}.RECOVERY.txt",
        f"{run_id}.UNFINISHED",  # it is never asked to remove anything
        f"{run_id}.manifest.json",
        f"{run_id}.manifest.json.sig",
    ]
    assert "can be restored" in system.restore("--verify", "latest")
    out = system.restored()
    assert (out / "NUMBERS").read_text() == "".join(f"{n}\n" for n in range(1, 300001))
    assert "ok" in system.restore("--list")


def test_two_stores_get_one_read(system: System) -> None:
    reads = system.folder / "reads"
    second = execute("storage", DESTINATION="local", LOCAL_BACKUP=str(system.folder / "second"))
    system.configure(
        {
            "OWN": system.script("own", f"echo read >> {reads}; seq 100000", "source"),
            "STORAGE_LOCAL": execute("storage", DESTINATION="local"),
            "SECOND": second,
        },
        STREAM="True",
    )
    assert system.result()["exit_code"] == 0
    assert reads.read_text() == "read\n"
    for store in ("STORAGE_LOCAL", "SECOND"):
        assert (system.restored("--store", store) / "OWN").exists()


@pytest.mark.fault(
    "a store that fails beside one that works", "exit 1; the other holds a whole run"
)
@pytest.mark.needs("root")
def test_a_full_store_does_not_stop_the_other(system: System) -> None:
    (system.source / "big").write_bytes(os.urandom(5 << 20))
    small = system.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], check=True)
    try:
        full = execute("storage", DESTINATION="local", LOCAL_BACKUP=str(small))
        system.configure(system.full_sections(FULL=full), STREAM="True")
        result = system.result()
        assert result["exit_code"] == 1
        by_name = {entry["name"]: entry for entry in result["sections"]}
        assert by_name["FULL"]["status"] == "failed"
        assert "No space left" in by_name["FULL"]["message"]
        assert str(small) in by_name["FULL"]["message"]
        assert by_name["STORAGE_LOCAL"]["status"] == by_name["FILESET"]["status"] == "ok"
        names = {str(p.relative_to(small)) for p in small.rglob("*") if p.is_file()}
        assert {name for name in names if ".UNFINISHED" not in name} == {store_identity.MARKER}
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert system.manifest()["status"] == "ok"
    assert facts(restored_path(system.restored(), system.source)) == facts(system.source)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(
            "head -c 3000000 /dev/urandom; exit 7",
            "ended with exit code 7",
            marks=pytest.mark.fault("a source dies after half", "exit 1, nothing of it visible"),
        ),
        pytest.param(
            "head -c 3000000 /dev/urandom; kill -9 $$",
            "was ended by SIGKILL (out of memory?",
            marks=pytest.mark.fault("a source is killed", "exit 1 naming the signal"),
        ),
        pytest.param(
            "exit 0",
            "gave nothing",
            marks=pytest.mark.fault("a source gives nothing and exits 0", "exit 1"),
        ),
        (
            """echo '{"status": "failed", "message": "odd"}' > $NC_BACKUP_RESULT; seq 9""",
            "odd",
        ),
    ],
)
def test_a_source_that_fails_is_not_stored(system: System, text: str, says: str) -> None:
    system.configure(
        {
            "BAD": system.script("bad", text, "source"),
            "GOOD": system.script("good", "seq 1000", "source"),
            "STORAGE_LOCAL": execute("storage", DESTINATION="local"),
        },
        STREAM="True",
    )
    result = system.result()
    assert result["exit_code"] == 1
    by_name = {entry["name"]: entry for entry in result["sections"]}
    assert by_name["BAD"]["status"] == "failed"
    assert says in by_name["BAD"]["message"]
    assert by_name["GOOD"]["status"] == by_name["STORAGE_LOCAL"]["status"] == "ok"
    assert [name.split(".")[1] for name in system.stored()] == ["GOOD"]
    run = system.manifest()
    assert run["missing"] == ["BAD"]
    assert "lacks BAD" in system.restore("--list")
    assert "no complete run" in system.restore("--verify", "latest", code=2)


@pytest.mark.fault("tar exits 0 after half an archive", "exit 1, nothing of it visible")
def test_half_an_archive_with_exit_code_0_is_not_stored(system: System) -> None:
    (system.source / "big").write_bytes(os.urandom(2 << 20))
    fake = system.folder / "tar"
    fake.write_text('#!/bin/bash\n/bin/tar "$@" | head -c 1000000\n')
    fake.chmod(0o755)
    sections = system.full_sections()
    sections["FILESET"]["PARAMETERS"]["TAR_COMMAND"] = f"{fake} cCf /"
    system.configure(sections, STREAM="True")
    result = system.result()
    assert result["exit_code"] == 1
    assert "stops before its end" in result["sections"][0]["message"]
    assert system.stored() == []


def test_the_documented_tar_command_streams_and_is_not_compressed_twice(system: System) -> None:
    (system.source / "a").write_text("a" * 100000)
    sections = system.full_sections()
    sections["FILESET"]["PARAMETERS"]["TAR_COMMAND"] = "/bin/tar czCf /"
    system.configure(sections, STREAM="True")
    assert system.result()["exit_code"] == 0
    (name,) = system.stored()
    assert name.endswith(".FILESET.tar.gz.age.000")
    assert "can be restored" in system.restore("--verify", "latest")
    assert (restored_path(system.restored(), system.source) / "a").read_text() == "a" * 100000


@pytest.mark.fault("a filter fails, or leaves input unread", "exit 1, nothing of it visible")
@pytest.mark.parametrize(
    ("text", "says"),
    [("cat; exit 5", "ended with exit code 5"), ("head -c 100; exec 0<&-; exit 0", "unread")],
)
def test_a_filter_that_fails(system: System, text: str, says: str) -> None:
    system.configure(
        {
            "OWN": system.script("own", "head -c 9000000 /dev/urandom", "source"),
            "BAD": system.script("bad", text, "filter"),
            "STORAGE_LOCAL": execute("storage", DESTINATION="local"),
        },
        STREAM="True",
    )
    result = system.result()
    assert result["exit_code"] == 1
    assert says in result["sections"][0]["message"]
    assert system.stored() == []


@pytest.mark.fault("a source fails before a user-defined store", "the store sees no end of input")
def test_a_store_sees_the_end_only_when_all_before_it_succeeded(system: System) -> None:
    folder = system.folder / "own store"
    system.configure(
        {
            "BAD": system.script("bad", "head -c 3000000 /dev/urandom; exit 7", "source"),
            "OWN": system.script("keep", STORE.format(store=f"'{folder}'"), "store"),
        },
        STREAM="True",
    )
    assert system.result()["exit_code"] == 1
    names = [path.name for path in (folder / "srv-test").iterdir()]
    assert not [name for name in names if ".BAD" in name and not name.endswith(".new")]
    assert not [name for name in names if "manifest" in name]


def test_files_that_a_module_leaves_are_not_silently_lost(system: System) -> None:
    user_section = system.script(
        "own", f"mkdir -p {system.work}/own; echo data > {system.work}/own/dump"
    )
    (system.source / "a").write_text("a")
    system.configure({"OWN": user_section, **system.full_sections()}, STREAM="True")
    result = system.result()
    assert result["exit_code"] == 1
    assert "a streamed run does not store" in result["sections"][0]["message"]


def test_parallel_items_flow_at_once(system: System) -> None:
    """Each source ends only when the other has begun."""
    text = "touch {0}/{1}; until [ -e {0}/{2} ]; do sleep 0.05; done; seq 1000"
    there = system.folder
    system.configure(
        {
            "ONE": system.script("one", text.format(there, "one.began", "two.began"), "source"),
            "TWO": system.script("two", text.format(there, "two.began", "one.began"), "source"),
            "STORAGE_LOCAL": execute("storage", DESTINATION="local"),
        },
        STREAM="True",
        PARALLEL="2",
    )
    assert system.result()["exit_code"] == 0
    assert len(system.stored()) == 2


def test_a_source_waits_for_what_it_needs(system: System) -> None:
    two = {**system.script("two", "seq 1000", "source"), "NEEDS": ["ONE"]}
    system.configure(
        {
            "ONE": system.script("one", "exit 1", "source"),
            "TWO": two,
            "STORAGE_LOCAL": execute("storage", DESTINATION="local"),
        },
        STREAM="True",
        PARALLEL="2",
    )
    result = system.result()
    assert "it needs ONE" in result["sections"][1]["message"]
    assert system.names() == []


@pytest.mark.fault("nothing comes from a source any more", "it is ended, exit 1")
@pytest.mark.parametrize(
    ("general", "section", "says"),
    [
        ({"STALL_TIMEOUT": "1"}, {}, "STALL_TIMEOUT"),
        ({}, {"TIMEOUT": "1"}, "its TIMEOUT of 1 s"),
        ({"MAX_RUNTIME": "1"}, {}, "MAX_RUNTIME"),
    ],
)
def test_a_source_that_hangs_is_ended(
    system: System, general: dict[str, str], section: dict[str, str], says: str
) -> None:
    user_section = {**system.script("own", "seq 10; exec sleep 300", "source"), **section}
    stores = {"STORAGE_LOCAL": execute("storage", DESTINATION="local")}
    system.configure({"OWN": user_section, **stores}, STREAM="True", **general)
    result = system.result()
    assert result["exit_code"] == 1
    assert says in result["sections"][0]["message"]
    assert system.names() == []


_STORE_OF_ONE_BYTE = STORE.replace(
    "forward)", "forward) case $NAME in *.000) head -c 1 > /dev/null; exit;; esac;"
)
_DAEMON = "setsid sleep 300 & echo $! > {pid}; "


@pytest.mark.parametrize(
    ("role", "program", "says"),
    [
        ("source", _DAEMON + "seq 10", "keeps its output open"),
        ("filter", "exec sleep 300", "its TIMEOUT of 2 s"),
        ("filter", _DAEMON + "cat", "keeps its output open"),
        ("store", _STORE_OF_ONE_BYTE, "left a part of its input unread"),
    ],
)
def test_a_module_that_could_hold_the_run(
    system: System, role: str, program: str, says: str
) -> None:
    """Trials W4 and B1: daemons, a filter that reads nothing, a store that ends before its input.

    The source pauses once for longer than a program may linger.
    """
    pid = system.folder / "pid"
    text = program.format(pid=pid, store=system.store)
    gives = "head -c 3000000 /dev/zero; sleep 1.5; head -c 3000000 /dev/zero"
    source = system.script("own", text if role == "source" else gives, "source")
    sections = {"OWN": {**source, "TIMEOUT": "2s"} if "TIMEOUT" in says else source}
    if role != "source":
        sections["OTHER"] = system.script("other", text, role)
    stores = {} if role == "store" else {"STORAGE_LOCAL": execute("storage", DESTINATION="local")}
    system.configure({**sections, **stores}, STREAM="True")
    try:
        result = system.result()
    finally:
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGKILL)
    assert result["exit_code"] == 1
    assert says in json.dumps(result)
    assert [name for name in system.names() if not name.endswith(".UNFINISHED")] == []


@pytest.mark.fault("SIGTERM while an item flows", "exit 143, no manifest, nothing left")
def test_terminated_it_leaves_nothing(system: System) -> None:
    going = system.folder / "going"
    user_section = system.script("own", f"seq 1000000; touch {going}; exec sleep 300", "source")
    system.configure({"OWN": user_section, **system.full_sections()}, STREAM="True")
    run = subprocess.Popen([*system.command("-r"), "--json"], stdout=subprocess.PIPE)
    wait_for(going)
    run.send_signal(signal.SIGTERM)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 143
    assert json.loads(output)["status"] == "terminated"
    assert system.names() == []
    assert system.result("--only", "STORAGE_LOCAL", "--only", "FILESET")["status"] == "incomplete"


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "kept"),
    [
        ("incomplete", 0, 3, "warnings"),
        ("unclean", 0, 5, ""),
        ("ok", 5, 5, ""),
        ("ok", 0, 0, "notes"),
    ],
)
def test_the_message_of_a_source_is_never_dropped(
    system: System, status: str, code: int, exit_code: int, kept: str
) -> None:
    """Trials 7 A4: `unclean` was exit 0 without a word, the message of `incomplete` was dropped."""
    result_json = f'{{"status": "{status}", "message": "2 of 3 mailboxes"}}'
    text = f"echo data; echo '{result_json}' > \"$NC_BACKUP_RESULT\"; exit {code}"
    sections = system.full_sections()
    del sections["FILESET"]
    system.configure({"OWN": system.script("own", text, "source"), **sections}, STREAM="True")
    result = system.result()
    assert result["exit_code"] == exit_code, result["stderr"]
    (section,) = (one for one in result["sections"] if one["name"] == "OWN")
    assert section["warnings"] == ([] if kept == "notes" else ["2 of 3 mailboxes"])
    if kept:
        assert system.manifest()["items"][0][kept] == ["2 of 3 mailboxes"]


@pytest.mark.parametrize(("status", "code"), [("unclean", 5), ("incomplete", 1), ("failed", 1)])
def test_the_result_of_a_filter_counts(system: System, status: str, code: int) -> None:
    """Trials 7 A4: the result of a filter or a store was never read."""
    result_json = f'{{"status": "{status}", "message": "half of it"}}'
    system.configure(
        {
            "OWN": system.script("own", "echo data", "source"),
            "MOD": system.script(
                "mod", f"cat; echo '{result_json}' > \"$NC_BACKUP_RESULT\"", "filter"
            ),
            "STORAGE_LOCAL": execute("storage", DESTINATION="local"),
        },
        STREAM="True",
    )
    result = system.result()
    assert result["exit_code"] == code
    if code == 5:
        assert "MOD: half of it" in system.log.read_text()
        (filter_,) = (one for one in result["sections"] if one["name"] == "MOD")
        assert (filter_["status"], filter_["warnings"]) == ("unclean", ["half of it"])
    else:
        assert "MOD (mod.sh): half of it" in str(result["sections"])


def test_what_a_store_says_of_each_part_is_shown_once(system: System) -> None:
    result_json = '{"status": "unclean", "message": "old parts stay", "warnings": ["slow"]}'
    text = STORE.format(store=f"'{system.folder / 'own store'}'")
    (system.source / "large").write_bytes(os.urandom(3 << 20))
    sections = system.full_sections()
    del sections["STORAGE_LOCAL"]
    text = f"echo '{result_json}' > \"$NC_BACKUP_RESULT\"\n{text}"
    system.configure({**sections, "OWN": system.script("keep", text, "store")}, STREAM="True")
    result = system.result()
    assert result["exit_code"] == 5, result["stderr"]
    store = next(one for one in result["sections"] if one["name"] == "OWN")
    assert (store["status"], store["warnings"]) == ("unclean", ["old parts stay", "slow"])
    assert "can be restored" in system.restore("--verify", "latest")


def test_an_incomplete_source_is_stored_and_says_so(system: System) -> None:
    result_json = '{"status": "incomplete", "message": "", "warnings": ["row 7 is missing"]}'
    system.configure(
        {
            "OWN": system.script(
                "own", f"echo '{result_json}' > $NC_BACKUP_RESULT; seq 9; exit 3", "source"
            ),
            "STORAGE_LOCAL": execute("storage", DESTINATION="local"),
        },
        STREAM="True",
    )
    result = system.result()
    assert result["exit_code"] == 3
    assert system.manifest()["items"][0]["warnings"] == ["row 7 is missing"]
    out = system.folder / "out"
    text = system.restore("--restore", "latest", "--destination", str(out), code=3)
    assert "row 7 is missing" in text
    assert (out / "OWN").read_text().startswith("1\n")


def test_memory_is_bounded_whatever_the_size(system: System) -> None:
    """(benchmarks/streamed.py sends 20 GiB through; here it is three times the limit.)"""
    zeros = system.script("zeros", "head -c 350M /dev/zero", "source")
    noise = system.script("noise", "head -c 250M /dev/urandom", "source")
    sections = system.full_sections()
    del sections["FILESET"]
    system.configure({"ZEROS": zeros, "NOISE": noise, **sections}, STREAM="True")
    assert peak(*system.command("-r")) < 200 << 10
    assert not own_files(system)


@pytest.mark.fault("a user-defined store fails", "exit 1, no manifest in it")
def test_a_store_of_the_users_own_that_fails(system: System) -> None:
    system.configure(
        {
            "OWN": system.script("own", "seq 100000", "source"),
            "BAD": system.script(
                "bad", "cat > /dev/null; echo 'disk is full' >&2; exit 1", "store"
            ),
            "STORAGE_LOCAL": execute("storage", DESTINATION="local"),
        },
        STREAM="True",
    )
    result = system.result()
    assert result["exit_code"] == 1
    by_name = {entry["name"]: entry for entry in result["sections"]}
    assert by_name["BAD"]["status"] == "failed"
    assert by_name["STORAGE_LOCAL"]["status"] == "ok"


@pytest.mark.fault("a store program whose list is empty or wrong", "exit 1, and nothing is sent")
@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("true", "its list lacks srv-test/"),
        ("exit 1", "ended with exit code 1"),
        ("stat -c '%s 2026-01-01 %n' -- *", "its list lacks srv-test/"),
        ("echo total 5", "'total 5' is not a line of a list"),
    ],
)
def test_a_store_program_is_asked_for_its_list(system: System, listed: str, message: str) -> None:
    """Issue 13 C7: what it does not list cannot be restored."""
    folder = system.folder / "own store"
    program = STORE.format(store=f"'{folder}'").replace("stat -c '%s %n' -- *", listed)
    user_section = system.script("keep", program, "store")
    source = system.script("numbers", "seq 1 3000", "source")
    system.configure({"NUMBERS": source, "OWN": user_section}, STREAM="True")
    result = system.result()
    assert result["exit_code"] == 1
    assert message in result["stderr"]
    assert "Traceback" not in result["stderr"]
    assert not list((folder / "srv-test").glob("*NUMBERS*"))
    assert not result["stores"][0]["manifest"]


@pytest.mark.fault("a store program that lists only some files", "exit 1, it does not hold the run")
@pytest.mark.parametrize("hidden", ["*.000", "*.json"])
def test_a_store_program_that_hides_files(system: System, hidden: str) -> None:
    """Issue 13 C7: parts and manifest are looked up in its list as well."""
    folder = system.folder / "own store"
    program = STORE.format(store=f"'{folder}'").replace("%n' -- *", f"%n' -- !({hidden})")
    user_section = system.script("keep", f"shopt -s extglob\n{program}", "store")
    source = system.script("numbers", "seq 1 3000", "source")
    system.configure({"NUMBERS": source, "OWN": user_section}, STREAM="True")
    result = system.result()
    assert result["exit_code"] == 1
    assert "the manifest could not be stored" in result["sections"][-1]["message"]
    assert "--DIRECTION list" in result["stderr"]
    assert not result["stores"][0]["manifest"]


@pytest.mark.fault("a store that takes no marker, and parts later", "exit 1, nothing is stored")
@pytest.mark.parametrize("stream", ["True", "False"])
def test_a_store_that_took_no_marker_takes_nothing(system: System, stream: str) -> None:
    """Issue 13 A3: a quota, or a share that is read-only for a moment."""
    (system.source / "a").write_text("a")
    folder = system.store / "srv-test"
    folder.parent.mkdir()
    folder.write_text("in the way")
    later = system.script("later", f"rm {folder}; mkdir {folder}")
    system.configure({"LATER": later, **system.full_sections()}, STREAM=stream)
    result = system.result()
    assert result["exit_code"] == 1
    assert system.names() == []
    assert system.result()["exit_code"] == 1  # the section LATER fails now
    assert bool(system.stored())


@pytest.mark.parametrize("failing", ["COMPRESSION", "ENCRYPTION"])
def test_a_stage_that_cannot_begin(system: System, failing: str) -> None:
    """Issue 13: found by the sweep: the folder of its result cannot be created."""
    config = loading.load(system.configure(system.full_sections(), STREAM="True"))

    def context(section: Section) -> Context:
        if section.name == failing:
            raise PermissionError(13, "Permission denied", "folder")
        return Context(config, "20260101_000000", system.folder)

    flows = Streamed(config.sections, context)
    source = next(entry for entry in config.sections if entry.kind == "source")
    assert failing in flows.run([source], None)[source.name].message
    failed = {
        entry.name: flows.result_of(entry).status
        for entry in config.sections
        if entry.kind == "stage"
    }
    expected = dict.fromkeys(("COMPRESSION", "ENCRYPTION"), Status.OK)
    assert failed == {**expected, failing: Status.FAILED}


@pytest.mark.fault("a store takes parts but no manifest", "exit 1, the sources are kept")
@pytest.mark.parametrize("stream", ["True", "False"])
def test_without_a_manifest_a_store_does_not_hold_the_run(system: System, stream: str) -> None:
    (system.source / "a").write_text("a")
    system.configure(system.full_sections(), STREAM=stream)
    folder = system.store / "srv-test"
    folder.mkdir(parents=True)
    watch = system.script("watch", f"mkdir {folder}/$NC_BACKUP_RUN_ID.manifest.json")
    system.configure({"WATCH": watch, **system.full_sections()}, STREAM=stream)
    result = system.result()
    assert result["exit_code"] == 1
    assert "the manifest could not be stored" in result["sections"][-1]["message"]
    assert bool(list((system.work / "encrypted").glob("*"))) if stream == "False" else True
