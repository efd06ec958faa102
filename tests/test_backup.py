"""Whole runs of backup.py, spawned as a user or cron does it, against real parts."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import forking
from tests.brt import ReportServer
from tests.system import System, execute, wait_for
from tools.engine import state

SHELL_SIGNS = "a b  c'd\"e$(id)`id`;|&<>*?[x]{y}~!#%^\\n\\ -x --Y =\t$HOME é"


def dead(process_id: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_a_whole_run_is_stored_reported_and_read_by_the_stock_tools(
    system: System, server: ReportServer
) -> None:
    (system.source / "a file.txt").write_text("hello\n")
    (system.source / "big").write_bytes(os.urandom(3 << 20))
    system.configure(system.full_sections(), MESSAGE_CONFIG_COMMAND=server.url)
    done = system.run(**{forking.REALLY: "1"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    names = system.stored()
    assert [name.rpartition(".")[2] for name in names] == [f"{n:03}" for n in range(len(names))]
    assert len(names) >= 3
    parts = " ".join(str(system.store / "srv-test" / name) for name in names)
    listed = subprocess.run(
        ["bash", "-c", f"set -o pipefail; cat {parts} | age -d -i {system.key} | zstd -d | tar t"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    root = str(system.source).lstrip("/")
    assert f"{root}/a file.txt" in listed.splitlines()
    (form,) = server.forms
    assert form["srvname"] == "srv-test"
    assert form["result"] == "0"
    assert form["bckmethod"] == "ncscript-py"
    assert form["size"].endswith(" MB")
    assert form["error"] == ""
    assert form["destination"] == "local"
    leftovers = [
        p for p in system.work.rglob("*") if p.is_file() and p.parent.name != ".nc-backup-py"
    ]
    assert leftovers == []


def test_values_with_every_shell_sign_arrive_unchanged_in_three_languages(system: System) -> None:
    out = system.folder
    system.module("sh", f'printf "%s\\0" "$@" > {out}/sh.out', "sh.sh")
    system.module("pl", f'open F, ">", "{out}/pl.out"; print F join("\\0", @ARGV), "\\0";', "pl.pl")
    system.module(
        "py", f"import sys; open('{out}/py.out','w').write(chr(0).join(sys.argv[1:])+chr(0))"
    )
    parameters = {"VALUE": SHELL_SIGNS, "DASH": "-r", "NUMBER": 7, "YES": True, "LIST": ["a", "b"]}
    system.configure(
        {
            "SH": {**execute("sh", **parameters), "EXECUTE_WITH": "bash", "EXECUTABLE": "sh.sh"},
            "PL": {**execute("pl", **parameters), "EXECUTE_WITH": "perl", "EXECUTABLE": "pl.pl"},
            "PY": execute("py", **parameters),
            "FLAT": {
                **execute("sh", A="-avz", B=SHELL_SIGNS),
                "EXECUTE_WITH": "bash",
                "EXECUTABLE": "flat.sh",
                "PARAMETERS_MODE": "flat",
            },
        }
    )
    system.module("sh", f'printf "%s\\0" "$@" > {out}/flat.out', "flat.sh")
    assert system.result()["status"] == "ok"
    for name in ("sh", "pl", "py"):
        arguments = (out / f"{name}.out").read_bytes().decode().split("\0")[:-1]
        pairs = dict(zip(arguments[::2], arguments[1::2], strict=True))
        assert pairs["--VALUE"] == SHELL_SIGNS
        assert (pairs["--DASH"], pairs["--NUMBER"]) == ("-r", "7")
        assert (pairs["--YES"], pairs["--LIST"]) == ("True", "a b")
        assert pairs["--HOSTNAME"] == "srv-test"
        assert arguments.index("--VALUE") < arguments.index("--HOSTNAME")
    flat = (out / "flat.out").read_bytes().decode().split("\0")[:-1]
    assert flat == ["-avz", SHELL_SIGNS]


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [("exit 0", "ok", 0), ("exit 3", "incomplete", 3), ("exit 5", "unclean", 5)]
    + [(f"exit {n}", "failed", 1) for n in (1, 2, 4, 7, 11, 130, 143)]
    + [("kill -9 $$", "failed", 1), ("kill -TERM $$", "failed", 1)],
)
def test_the_exit_code_of_a_module_counts_and_unknown_means_failure(
    system: System, code: str, status: str, exit_code: int
) -> None:
    system.module("own", f"echo about to end; {code}", "own.sh")
    section = {**execute("own"), "EXECUTE_WITH": "bash", "EXECUTABLE": "own.sh"}
    system.configure({"OWN": section})
    result = system.result()
    assert (result["status"], result["exit_code"]) == (status, exit_code)
    if "kill" in code:
        assert "SIG" in result["sections"][0]["message"]
    if status == "failed":
        assert "about to end" in result["sections"][0]["hint"]


def test_a_result_file_tells_more_and_the_worse_of_the_two_counts(system: System) -> None:
    result_json = (
        '{"status": "incomplete", "message": "two left out", "warnings": ["x", "y"], "new": 1}'
    )
    system.module("own", f"echo '{result_json}' > $NC_BACKUP_RESULT", "own.sh")
    system.module("own", 'echo \'{"status": "ok"\' > $NC_BACKUP_RESULT', "cut.sh")
    section = {**execute("own"), "EXECUTE_WITH": "bash"}
    system.configure(
        {"OWN": {**section, "EXECUTABLE": "own.sh"}, "CUT": {**section, "EXECUTABLE": "cut.sh"}}
    )
    first, cut = system.result()["sections"]
    assert (first["status"], first["message"], first["warnings"]) == (
        "incomplete",
        "two left out",
        ["x", "y"],
    )
    assert cut["status"] == "failed"
    assert "NC_BACKUP_RESULT" in cut["message"]


def test_needs_and_on_error(system: System) -> None:
    system.module("bad", "raise SystemExit(1)")
    system.module("good", "print('fine')")
    system.configure(
        {
            "A": execute("bad"),
            "B": {**execute("good"), "NEEDS": ["A"]},
            "C": execute("good"),
            "D": {**execute("bad"), "ON_ERROR": "stop"},
            "E": execute("good"),
        }
    )
    sections = {entry["name"]: entry for entry in system.result()["sections"]}
    assert sections["B"]["message"] == "not run: it needs A, which failed"
    assert sections["C"]["status"] == "ok"
    assert "ON_ERROR" in sections["E"]["message"]


def test_only_and_skip(system: System) -> None:
    system.module("good", "print('fine')")
    system.configure({name: execute("good") for name in ("A", "B", "C")})
    assert [s["name"] for s in system.result("--only", "B")["sections"]] == ["B"]
    assert [s["name"] for s in system.result("--skip", "B")["sections"]] == ["A", "C"]
    wrong = system.run("-r", "--only", "X")
    assert wrong.returncode == 2
    assert "X" in wrong.stderr
    assert "A, B, C" in wrong.stderr


def test_a_hanging_module_is_ended_with_its_whole_group(system: System) -> None:
    pids = system.folder / "pids"
    text = f"trap '' TERM; sleep 300 & echo $! $$ > {pids}; wait; sleep 300"
    system.module("own", text, "own.sh")
    section = {**execute("own"), "EXECUTE_WITH": "bash", "EXECUTABLE": "own.sh", "TIMEOUT": "1s"}
    system.configure({"OWN": section})
    result = system.result()
    assert result["status"] == "failed"
    assert "TIMEOUT" in result["sections"][0]["message"]
    assert all(dead(int(pid)) for pid in pids.read_text().split())


def test_max_runtime_ends_the_run(system: System) -> None:
    system.module("slow", "import time; time.sleep(300)")
    system.configure({"A": execute("slow"), "B": execute("slow")}, MAX_RUNTIME="1s")
    first, second = system.result()["sections"]
    assert "MAX_RUNTIME" in first["message"]
    assert second["message"] == "not run: MAX_RUNTIME is over"


def test_a_module_that_floods_both_outputs_is_drained_and_the_log_stays_bounded(
    system: System,
) -> None:
    system.module(
        "own",
        "import sys\nfor i in range(300000):\n print('o' * 50); sys.stderr.write('e' * 50 + '\\n')",
    )
    system.configure({"OWN": execute("own")})
    assert system.run("-r", "-l", "info").returncode == 0
    assert system.log.stat().st_size < 4 << 20
    assert "more output is left out" in system.log.read_text()


def test_a_child_that_holds_the_pipe_does_not_hold_the_run(system: System) -> None:
    pid = system.folder / "pid"
    system.module("own", f"sleep 300 & echo $! > {pid}", "own.sh")
    system.configure({"OWN": {**execute("own"), "EXECUTE_WITH": "bash", "EXECUTABLE": "own.sh"}})
    began = time.monotonic()
    assert system.run().returncode == 0
    assert time.monotonic() - began < 60
    assert dead(int(pid.read_text()))
    assert "left a program running" in system.log.read_text()


@pytest.mark.fault(
    "a daemon of a section in a staged run keeps its output open", "it is not waited for, exit 3"
)
def test_a_daemon_that_holds_the_pipe_is_named(system: System) -> None:
    pid = system.folder / "pid"
    system.module("own", f"setsid sleep 300 & echo $! > {pid}", "own.sh")
    system.configure({"OWN": {**execute("own"), "EXECUTE_WITH": "bash", "EXECUTABLE": "own.sh"}})
    try:
        result = system.result()
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    assert result["exit_code"] == 3
    assert "still runs and holds its output" in json.dumps(result)


PLUGIN = """
class Own:
    def __init__(self, parameters, logger): self.parameters = parameters; self.logger = logger
    def config_plugin(self): pass
    def works_execution(self): {work}
    def output(self): return {output}
"""


@pytest.mark.parametrize(
    ("work", "output", "status", "says"),
    [
        ("pass", "(0, 'done', '')", "ok", "done"),
        ("pass", "(1, '', 'broken')", "failed", "broken"),
        ("pass", "(11, '', 'odd')", "failed", "odd"),
        ("pass", "123456", "ok", "120.56 KB"),
        ("pass", "None", "failed", "NoneType"),
        ("pass", "('0', '', '')", "failed", "tuple"),
        ("raise ValueError('boom')", "(0, '', '')", "failed", "ValueError: boom"),
        ("import sys; sys.exit(0)", "(0, '', '')", "failed", "sys.exit"),
        ("import os; os._exit(0)", "(0, '', '')", "failed", "without a result"),
        ("import os; os.kill(os.getpid(), 9)", "(0, '', '')", "failed", "SIGKILL"),
        ("self.logger.warning('odd: %s', self.parameters['X'])", "(0, '', '')", "ok", ""),
    ],
)
def test_plugins(system: System, work: str, output: str, status: str, says: str) -> None:
    system.module("own", PLUGIN.format(work=work, output=output))
    section = {"ACTION": "load", "FROM": "own", "FILENAME": "own", "CLASS": "Own"}
    system.configure({"OWN": {**section, "PARAMETERS": {"X": SHELL_SIGNS, "L": [1, {"a": 2}]}}})
    result = system.result()
    assert result["status"] == status
    assert says in result["sections"][0]["message"]
    if "logger" in work:
        assert f" - ncbackup - WARNING - WARNING: odd: {SHELL_SIGNS}"[:60] in system.log.read_text()


def test_a_plugin_imports_installed_packages_before_our_folders(system: System) -> None:
    """Issue 12, 1: `import redis` of a plugin is not the folder redis/ of this project."""
    (system.home / "redis").unlink(missing_ok=True)
    system.module("redis", "MARK = 'the package'\n", "__init__.py")
    system.module(
        "own",
        PLUGIN.format(work="import redis; self.mark = redis.MARK", output="(0, self.mark, '')"),
    )
    section = {"ACTION": "load", "FROM": "own", "FILENAME": "own", "CLASS": "Own"}
    system.configure({"OWN": section})
    assert system.result()["sections"][0]["message"] == "the package"


@pytest.mark.parametrize("name", ["Missing", "Half"])
def test_a_plugin_without_its_class_or_its_methods_fails(system: System, name: str) -> None:
    system.module("own", "class Half:\n    def output(self): return (0, '', '')\n")
    section = {"ACTION": "load", "FROM": "own", "FILENAME": "own", "CLASS": name}
    system.configure({"OWN": section})
    result = system.result()
    assert result["status"] == "failed"
    assert "Traceback" not in result["stderr"]


def test_a_failed_source_is_never_stored_and_the_others_are(system: System) -> None:
    (system.source / "a").write_text("a")
    sections = system.full_sections()
    text = 'mkdir -p "$4/own"; echo half > "$4/own/dump.sql"; exit 1'
    system.module("own", text, "own.sh")
    section = {**execute("own", X="1", WORK_FOLDER=str(system.work)), "EXECUTE_WITH": "bash"}
    system.configure({"OWN": {**section, "EXECUTABLE": "own.sh"}, **sections})
    result = system.result()
    assert result["status"] == "failed"
    assert [s["status"] for s in result["sections"]] == ["failed", "ok", "ok", "ok", "ok", "ok"]
    assert not [name for name in system.stored() if "dump" in name]
    assert [name for name in system.stored() if ".tar.zst.age.000" in name]


def test_a_stage_that_fails_stops_what_needs_it(system: System) -> None:
    (system.source / "a").write_text("a")
    sections = system.full_sections()
    system.key.unlink()
    system.configure(sections)
    result = system.result()
    by_name = {entry["name"]: entry for entry in result["sections"]}
    assert by_name["ENCRYPTION"]["status"] == "failed"
    assert str(system.key) in by_name["ENCRYPTION"]["message"]
    assert by_name["STORAGE_LOCAL"]["message"] == "not run: it needs ENCRYPTION, which failed"
    assert system.stored() == []


def test_sources_are_kept_until_every_store_has_confirmed_and_stored_by_the_next_run(
    system: System,
) -> None:
    (system.source / "a").write_text("a")
    second = system.folder / "second"
    sections = system.full_sections(
        SECOND=execute("storage", DESTINATION="local", LOCAL_BACKUP=str(second))
    )
    second.write_text("a file where a folder should be")
    system.configure(sections)
    first = system.result()
    assert first["status"] == "failed"
    assert len(system.stored()) == 1
    assert list((system.work / "encrypted").iterdir()), "removed although a store had failed"
    second.unlink()
    assert system.result()["status"] == "ok"
    assert len(system.stored()) == 2
    assert sorted(p.name for p in (second / "srv-test").glob("*.age.*")) == system.stored()
    assert not list((system.work / "encrypted").glob("*"))


def test_two_runs_at_once_one_runs_the_other_exits_11_and_both_are_reported(
    system: System, server: ReportServer
) -> None:
    going, enough = system.folder / "going", system.folder / "enough"
    waits = f"touch {going}; until [ -e {enough} ]; do sleep 0.1; done"
    system.module("own", waits, "own.sh")
    section = {**execute("own"), "EXECUTE_WITH": "bash", "EXECUTABLE": "own.sh"}
    system.configure({"OWN": section}, MESSAGE_CONFIG_COMMAND=server.url)
    first = subprocess.Popen(system.command("-r"))
    wait_for(going)
    second = system.run()
    assert second.returncode == 11
    assert "another run is in progress" in second.stderr
    assert "hint: Wait until it ends. Do not delete " in second.stderr
    skipped = system.run("-r", "--if-busy", "skip")
    assert skipped.returncode == 0
    enough.touch()
    assert first.wait(60) == 0
    assert sorted(form["result"] for form in server.forms) == ["0", "1"]
    assert any("another run" in form["error"] for form in server.forms)
    assert len({form["run_id"] for form in server.forms}) == 2


def test_starts_of_one_second_have_run_ids_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        run_ids = list(pool.map(state.claimed_run_id, [tmp_path] * 3))
    assert len(set(run_ids)) == 3


def test_a_refused_run_has_a_run_id_of_its_own(system: System, server: ReportServer) -> None:
    system.module("good", "print('fine')")
    for section in ({"ACTION": "fly"}, execute("good"), {"ACTION": "fly"}):
        system.configure({"A": section}, MESSAGE_CONFIG_COMMAND=server.url)
        system.run()
    # the first could keep nothing: there was no work folder yet
    assert len({form["run_id"] for form in server.forms[1:]}) == 2


def test_after_kill_9_the_lock_is_free_and_the_next_run_works_unaided(system: System) -> None:
    (system.source / "big").write_bytes(os.urandom(2 << 20))
    going = system.folder / "going"
    sections = system.full_sections()
    system.module("own", f"echo $$ > {going}.new; mv {going}.new {going}; exec sleep 300", "own.sh")
    section = {**execute("own"), "EXECUTE_WITH": "bash", "EXECUTABLE": "own.sh"}
    system.configure({**sections, "OWN": section})
    first = subprocess.Popen(system.command("-r"))
    wait_for(going)
    first.kill()
    first.wait()
    os.kill(int(going.read_text()), signal.SIGKILL)  # the orphan
    system.configure(sections)
    assert system.result()["status"] == "ok"
    assert all(".part-" not in name for name in system.stored())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_children_and_is_reported(
    system: System, server: ReportServer, number: int, code: int
) -> None:
    pid = system.folder / "pid"
    system.module("own", f"echo $$ > {pid}.tmp; mv {pid}.tmp {pid}; sleep 300", "own.sh")
    section = {**execute("own"), "EXECUTE_WITH": "bash", "EXECUTABLE": "own.sh"}
    system.configure({"OWN": section}, MESSAGE_CONFIG_COMMAND=server.url)
    run = subprocess.Popen(system.command("-r"), stderr=subprocess.PIPE)
    wait_for(pid)
    run.send_signal(number)
    assert run.wait(30) == code
    assert dead(int(pid.read_text()))
    assert server.forms[0]["result"] == "1"
    assert "cancelled" in server.forms[0]["error"]


@pytest.mark.parametrize("kind", ["down", "redirect", "other"])
def test_a_report_that_is_not_acknowledged_is_kept_and_sent_first_by_the_next_run(
    system: System, server: ReportServer, kind: str
) -> None:
    system.module("good", "print('fine')")
    system.configure({"A": execute("good")}, MESSAGE_CONFIG_COMMAND=server.url)
    server.answers = [kind]
    done = system.run()
    assert done.returncode == 4
    assert "report not delivered" in done.stderr
    spool = system.work / ".nc-backup-py" / "reports"
    assert [path.stat().st_mode & 0o777 for path in spool.iterdir()] == [0o600]
    first = server.forms[-1]["run_id"]
    server.answers = ["good"]
    assert system.run().returncode == 0
    assert server.accepted[0]["run_id"] == first
    assert len(server.accepted) == 2
    assert list(spool.iterdir()) == []


def test_a_config_error_is_reported_once_the_address_is_known(
    system: System, server: ReportServer
) -> None:
    system.configure({"A": {"ACTION": "fly"}}, MESSAGE_CONFIG_COMMAND=server.url)
    done = system.run()
    assert done.returncode == 2
    assert "conf.json" in done.stderr
    assert "Traceback" not in done.stderr
    (form,) = server.forms
    assert (form["srvname"], form["result"]) == ("srv-test", "1")
    assert "ACTION" in form["error"]


def test_secrets_stand_nowhere(system: System, server: ReportServer) -> None:
    planted = [f"s3cr3t-{number}-\"x'y" for number in range(12)]
    for number in (0, 1):
        (system.folder / f"secret{number}").write_text(planted[number] + "\n")
    argv_file = system.folder / "argv"
    text = (
        f"tr '\\0' '\\n' < /proc/$$/cmdline > {argv_file}; env >> {argv_file}.env\n"
        'echo "I got $MY_SECRET and $OTHER"; echo "$MY_SECRET" >&2; cat "${4#file:}"; exit 1'
    )
    system.module("own", text, "own.sh")
    work = (
        "self.logger.error(self.parameters['PASSWORD']); raise ValueError(self.parameters['TOKEN'])"
    )
    system.module("plug", PLUGIN.format(work=work, output="0"))
    parameters = {"SECRET": "env:MY_SECRET", "PASSPHRASE": f"file:{system.folder}/secret0"}
    section = {**execute("own", **parameters), "EXECUTE_WITH": "bash", "EXECUTABLE": "own.sh"}
    load = {"ACTION": "load", "FROM": "plug", "FILENAME": "plug", "CLASS": "Own"}
    secrets = {"PASSWORD": planted[4], "TOKEN": planted[5], "MONGO_PWD": planted[6]}
    (system.source / "a").write_text("a")
    encryption = execute("encryption", PASSPHRASE=planted[7])
    sections = {**system.full_sections(), "ENCRYPTION": encryption}
    del sections["STORAGE_LOCAL"]
    system.configure(
        {"OWN": section, "PLUG": {**load, "PARAMETERS": secrets}, **sections},
        MESSAGE_CONFIG_COMMAND=server.url,
    )
    environment = {"MY_SECRET": planted[2], "OTHER": planted[3]}
    runs = [system.run("-r", "-l", "debug", "--json", **environment)]
    runs += [system.run("-n", **environment), system.run("-t", **environment)]
    texts = [done.stdout + done.stderr for done in runs]
    texts += [system.log.read_text(), argv_file.read_text(), json.dumps(server.forms)]
    texts += [
        p.read_text(errors="replace")
        for p in (system.work / ".nc-backup-py").rglob("*")
        if p.is_file()
    ]
    for text in texts:
        assert "s3cr3t" not in text
    assert planted[3] not in Path(f"{argv_file}.env").read_text(), "a variable that nobody named"
    assert planted[2] in Path(f"{argv_file}.env").read_text()


def test_under_cron(system: System) -> None:
    (system.source / "a").write_text("a")
    system.configure(system.full_sections())
    environment = {"PATH": "/usr/bin:/bin"}
    command_line = " ".join(system.command("-r"))
    for closing, umask in (("<&-", "000"), (">&-", "077"), ("<&- >&- 2>&-", "000")):
        command = ["bash", "-c", f"umask {umask}; {command_line} {closing}"]
        done = subprocess.run(command, env=environment, cwd="/", check=False, capture_output=True)
        assert done.returncode == 0, done.stderr
    for path in (system.store / "srv-test").iterdir():
        assert path.stat().st_mode & 0o077 == 0


def test_a_lost_reader_of_the_output_is_no_failure(system: System) -> None:
    system.module("good", "print('fine')")
    system.configure({"A": execute("good")})
    command_line = " ".join(system.command("-r", "--json"))
    command = ["bash", "-c", f"{command_line} | true; exit ${{PIPESTATUS[0]}}"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_dry_run_changes_nothing_and_shows_the_commands(system: System) -> None:
    system.configure(system.full_sections())
    before = sorted(system.folder.rglob("*"))
    done = system.run("-n")
    assert done.returncode == 0
    assert "filesbackup.py" in done.stdout
    assert f"--FILESET_INCLUDE {system.source}" in done.stdout
    assert sorted(system.folder.rglob("*")) == before


def test_test_finds_what_is_missing_and_changes_nothing(system: System) -> None:
    (system.source / "a").write_text("a")
    system.configure(system.full_sections())
    before = sorted(system.folder.rglob("*"))
    good = system.run("-t")
    assert good.returncode == 0, good.stderr
    system.key.unlink()
    bad = system.run("-t")
    assert bad.returncode == 1
    assert str(system.key) in bad.stderr
    assert sorted({*system.folder.rglob("*"), system.key}) == before


def test_on_a_terminal_there_is_a_summary(system: System) -> None:
    (system.source / "a").write_text("a")
    system.configure(system.full_sections())
    master, slave = pty.openpty()
    done = subprocess.Popen(system.command("-r"), stdout=slave, stderr=slave, stdin=slave)
    os.close(slave)
    text = b""
    try:
        while chunk := os.read(master, 65536):
            text += chunk
    except OSError:
        assert text, "a terminal got nothing"
    assert done.wait(60) == 0
    assert b"STORAGE_LOCAL" in text
    os.close(master)


@pytest.mark.needs("root")
def test_root_is_refused_unless_told_and_leaves_nothing_that_is_roots(
    system: System, server: ReportServer
) -> None:
    """A log or a folder of root's would lock the user of the backup out of every later run."""
    system.module("good", "print('fine')")
    system.configure({"A": execute("good")}, ALLOW_ROOT="False", MESSAGE_CONFIG_COMMAND=server.url)
    done = system.run()
    assert done.returncode == 2
    assert "root" in done.stderr
    (form,) = server.forms
    assert form["result"] == "1"
    assert "root" in form["error"]
    assert not system.work.exists()
    assert not system.log.exists()


def test_a_run_that_could_store_nothing_is_rejected_and_reported(
    system: System, server: ReportServer
) -> None:
    """Issue 11 A1: a run without a source or a store never reports success."""
    (system.source / "a").write_text("a")
    system.configure(system.full_sections(), MESSAGE_CONFIG_COMMAND=server.url)
    for skipped in ("STORAGE_LOCAL", "FILESET"):
        result = system.result("--skip", skipped)
        assert (result["status"], result["exit_code"], result["sections"]) == ("refused", 2, [])
        assert server.forms[-1]["result"] == "1"
    assert not system.work.exists()


def test_a_run_of_checks_alone_has_nothing_to_store(system: System) -> None:
    qa = {"ACTION": "load", "FROM": "qa", "FILENAME": "qa", "CLASS": "QA"}
    system.configure(system.full_sections(QA=qa))
    assert system.result("--only", "QA")["exit_code"] == 0


def test_a_refused_config_does_not_touch_the_reports_that_wait(
    system: System, server: ReportServer
) -> None:
    system.module("good", "print('fine')")
    system.configure({"A": execute("good")}, MESSAGE_CONFIG_COMMAND=server.url)
    server.answers = ["redirect"]
    assert system.run().returncode == 4
    waiting = server.forms[0]["run_id"]
    server.answers = ["good"]
    system.configure({"A": {"ACTION": "fly"}}, MESSAGE_CONFIG_COMMAND=server.url)
    assert system.run().returncode == 2
    assert [form["run_id"] for form in server.accepted] != [waiting]
    assert len(server.accepted) == 1
    system.configure({"A": execute("good")}, MESSAGE_CONFIG_COMMAND=server.url)
    assert system.run().returncode == 0
    assert server.accepted[1]["run_id"] == waiting


def test_the_log_has_each_error_of_a_section_once(system: System) -> None:
    """Issue 13 B1: a module's own output repeated what its result says."""
    system.configure(system.full_sections(ENCRYPTION=execute("encryption", KEY_FILE="/not/there")))
    assert system.run("-r", "-l", "INFO").returncode == 1
    lines = system.log.read_text().splitlines()
    assert len([line for line in lines if "/not/there: no such file" in line]) == 1
    assert len([line for line in lines if "64.00 KB in " in line]) == 1
