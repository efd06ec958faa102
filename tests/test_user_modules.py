"""What a user-defined module says or does fails its own section at most."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, execute

RESULT = "$NC_BACKUP_RESULT"
# Commands of bash, each of which writes something else than a result.
NO_RESULTS = {
    "LATIN": r"""printf '{"status":"ok","message":"caf\xe9"}' > R""",
    "DEEP": r"""printf '[%.0s' {1..100000} > R""",
    "INFINITY": """echo '{"status":"ok","message":"","items":Infinity}' > R""",
    "RANGE": """echo '{"status":"ok","message":"","bytes":1e999}' > R""",
    "DIGITS": """(printf '{"status":"ok","items":'; printf '9%.0s' {1..5000}; echo '}') > R""",
    "SQUARED": """echo '{"status":"ok","message":"","items":"²"}' > R""",
    "NEGATIVE": """echo '{"status":"ok","message":"","items":-1}' > R""",
    "NULLS": """echo '{"status":null}' > R""",
    "OBJECT": """echo '{"status":"ok","message":{}}' > R""",
    "TEXT": """echo '{"status":"incomplete","message":"","warnings":"one"}' > R""",
    "HALF": r"""echo '{"status":"ok","message":"\ud800"}' > R""",
    "PIPE": "mkfifo R",
    "FOLDER": "mkdir R",
}
CONTROL = "\x1b[2J\r\x9b\x7f\u202e\u2028 é\nerror: FAKE"
ESCAPED = r"\x1b[2J\r\x9b\x7f\u202e\u2028 é\nerror: FAKE"


def module(system: System, name: str, text: str, stream: str = "") -> dict[str, Any]:
    return system.script(
        name.lower(), text.replace("> R", f"> {RESULT}").replace(" R", f" {RESULT}"), stream
    )


def by_name(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {section["name"]: section for section in result["sections"]}


@pytest.mark.fault("a user-defined module writes no result but junk", "that section fails alone")
@pytest.mark.parametrize("stream", ["True", "False"])
def test_junk_instead_of_a_result_fails_that_section_alone(system: System, stream: str) -> None:
    junk = {name: module(system, name, text) for name, text in NO_RESULTS.items()}
    if stream == "True":
        sources = ("LATIN", "DEEP", "INFINITY")
        junk |= {
            f"{name}_SOURCE": module(system, f"{name}_s", f"seq 9; {NO_RESULTS[name]}", "source")
            for name in sources
        }
    (system.source / "data").write_text("x")
    system.configure({**junk, **system.full_sections()}, STREAM=stream)
    result = system.result()
    sections = by_name(result)
    assert result["exit_code"] == 1
    assert {sections[name]["status"] for name in system.full_sections()} == {"ok"}
    for name in junk:
        assert sections[name]["status"] == "failed", name
        assert "NC_BACKUP_RESULT: invalid result file" in sections[name]["message"], name
    assert "Traceback" not in result["stderr"]
    assert [item["section"] for item in system.manifest()["items"]] == ["FILESET"]


@pytest.mark.parametrize("stream", ["True", "False"])
def test_what_a_module_says_is_escaped_and_bounded(system: System, stream: str) -> None:
    """Issue 13 C5: no module forges a line of the log or sends codes to a terminal."""
    warnings = [CONTROL, *(f"w{number}" for number in range(3000))]
    result_json = json.dumps({"status": "incomplete", "message": CONTROL, "warnings": warnings})
    (system.folder / "told").write_text(result_json)
    (system.folder / "lines").write_bytes(
        f"warning: \x1b[2J\u2028\x85\0{'y' * 100_000}\nwarning: caf".encode() + b"\xe9\n"
    )
    text = f"cat {system.folder}/told > R; cat {system.folder}/lines >&2; seq 9"
    sections = {
        "CHECK": module(system, "check", text),
        "SRC": module(system, "src", text, "source"),
        "STORAGE_LOCAL": execute("storage", DESTINATION="local"),
    }
    if stream == "False":
        del sections["SRC"]["STREAM"]
    system.configure(sections, STREAM=stream)
    result = system.result()
    for name in ("CHECK", "SRC"):
        section = by_name(result)[name]
        assert section["status"] == "incomplete"
        assert len(section["warnings"]) == 1000
        assert section["warnings"][0] == ESCAPED
    log = system.log.read_text(encoding="utf-8")
    for output in (result["stderr"], log, json.dumps(result, ensure_ascii=False)):
        assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", output)
        assert not re.search("^error: FAKE", output, re.MULTILINE)
    assert r"WARNING - warning: \x1b[2J\u2028\x85\x00yyy" in log
    assert r"caf\xe9" in log
    assert all(
        re.match(r"\d{4}-\d\d-\d\d \d\d:|    ", line) for line in log.rstrip("\n").split("\n")
    )


@pytest.mark.parametrize("stream", ["source", "filter", "store"])
def test_a_failure_names_its_own_section_and_file(system: System, stream: str) -> None:
    """Issue 13 C6: never the interpreter, never the source for a filter."""
    bad = {
        "source": "seq 9; echo 'error: FAKE' >&2; echo 'error: FAKE' >&2; exit 9",
        "filter": "cat >/dev/null; exit 9",
        "store": "cat >/dev/null; exit 9",
    }
    good = {"source": "seq 9", "filter": "cat", "store": "cat >/dev/null"}
    roles = {"SRC": "source", "FIL": "filter", "STO": "store"}
    sections = {
        name: module(system, name, (bad if role == stream else good)[role], role)
        for name, role in roles.items()
    }
    system.configure(
        {**sections, "STORAGE_LOCAL": execute("storage", DESTINATION="local")}, STREAM="True"
    )
    result = system.result()
    assert not re.search("^error: FAKE", result["stderr"], re.MULTILINE)
    text = json.dumps(result["sections"])
    (name,) = (name for name, role in roles.items() if role == stream)
    assert f"{name} ({name.lower()}.sh) ended with exit code 9" in text
    assert "bash ended" not in text


def test_a_streamed_source_is_unclean_or_incomplete_with_its_own_words(system: System) -> None:
    """What a source writes as its result is never dropped."""
    unclean = '{"status": "unclean", "message": "snapshot stays"}'
    incomplete = '{"status": "incomplete", "message": "2 of 3 mailboxes"}'
    system.configure(
        {
            "UNC": module(system, "unc", f"echo '{unclean}' > R; seq 9", "source"),
            "STORAGE_LOCAL": execute("storage", DESTINATION="local"),
        },
        STREAM="True",
    )
    result = system.result()
    assert result["exit_code"] == 5
    assert "warning: UNC: snapshot stays" in result["stderr"]
    system.module("unc", f"echo '{incomplete}' > $NC_BACKUP_RESULT; seq 9", "unc.sh")
    result = system.result()
    assert result["exit_code"] == 3
    assert "2 of 3 mailboxes" in result["stderr"]
    (path,) = (system.store / "srv-test").glob(f"{result['run_id']}*.manifest.json")
    assert json.loads(path.read_text())["items"][0]["warnings"] == ["2 of 3 mailboxes"]


def test_a_list_of_a_store_with_any_bytes(system: System) -> None:
    """A line of a store's list that is not SIZE NAME fails that store alone."""
    vault = r"""
while (( $# >= 2 )); do declare "${1#--}=$2"; shift 2; done
name=$VAULT/$NAME
case ${DIRECTION:-forward} in
    list) [[ $NAME != srv-test ]] || printf '\xc2\xb2 name\n' ;;
    backward) cat "$name" ;;
    forward) mkdir -p "${name%/*}"; cat > "$name" ;;
esac"""
    section = {
        **module(system, "vault", vault, "store"),
        "PARAMETERS": {"VAULT": str(system.folder)},
    }
    system.configure({**system.full_sections(), "VAULT": section}, STREAM="True")
    (system.source / "data").write_text("x")
    result = system.result()
    sections = by_name(result)
    assert (sections["VAULT"]["status"], sections["STORAGE_LOCAL"]["status"]) == ("failed", "ok")
    assert "VAULT (vault.sh): '² name' is not a line of a list" in sections["VAULT"]["message"]


def program(system: System, name: str, text: str | bytes, mode: int = 0o755) -> dict[str, str]:
    """A section of an executable file without EXECUTE_WITH."""
    path = system.home / name / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return {"ACTION": "execute", "NAME": name, "EXECUTABLE": name}


def test_a_program_without_execute_with_is_started_directly(system: System) -> None:
    """A script with another #! line than Python's, and a binary; -t names what cannot start."""
    good = {
        "SCRIPT": program(
            system, "script", "#!/bin/bash\necho warning: ${BASH_VERSION:?} started\n"
        ),
        "ENV": program(
            system, "env", '#!/usr/bin/env -S perl -w\nprint "warning: perl started\\n";\n'
        ),
        "BINARY": program(system, "binary", Path("/bin/true").read_bytes()),
        "SNAKE": program(
            system, "snake", "#!/usr/bin/python2.3\nprint('warning: snake started')\n", 0o644
        ),
    }
    bad = {
        "GONE": program(system, "gone", "#!/no/such/shell\n"),
        "RETURN": program(system, "return", "#!/bin/bash\r\necho\r\n"),
        "CLOSED": program(system, "closed", "#!/bin/bash\necho\n", 0o644),
        "BROKEN": {"ACTION": "load", "FROM": "broken", "FILENAME": "broken", "CLASS": "Broken"},
        "LONG": {
            **execute("long", VALUE="x" * 200_000),
            "EXECUTABLE": "long.sh",
            "EXECUTE_WITH": "bash",
        },
    }
    system.module("broken", "class Broken:\n  def")
    system.module("long", "true", "long.sh")
    system.configure({**good, **bad})
    tested = system.run("-t")
    assert "binary/binary can be started" in tested.stdout
    for line in (
        "GONE: .*#! line: /no/such/shell: no such file or directory",
        "RETURN: .*the #! line ends with a carriage return",
        "CLOSED: .*closed/closed: not executable",
        "BROKEN: .*broken.py:2: not valid Python",
        "LONG: .*VALUE: argument of 200000 bytes",
    ):
        assert re.search(f"^BAD  {line}", tested.stderr, re.MULTILINE), tested.stderr
    result = system.result()
    sections = by_name(result)
    assert {sections[name]["status"] for name in good} == {"ok"}
    assert {sections[name]["status"] for name in bad} == {"failed"}
    log = system.log.read_text()
    for word in ("perl started", "snake started"):
        assert word in log
    hints = {name: sections[name]["hint"] for name in bad}
    assert "interpreter that the first line" in hints["GONE"]
    assert "may execute" in hints["CLOSED"]
    assert "131071" in hints["LONG"]
    assert "LONG (long.sh): bash cannot be started" in sections["LONG"]["message"]


PLUGIN = """
import threading
class Own:
    def __init__(self, parameters, logger): self.parameters = parameters
    def config_plugin(self): pass
    def works_execution(self): {work}
    def output(self): return {output}
"""
PLUGINS = {
    "OWNFILES": (
        "from plugin_ownfiles.texts import HELLO; self.text = HELLO",
        "(0, self.text, '')",
    ),
    "REDIS": ("import redis; self.text = redis.__file__", "(0, self.text, '')"),
    "THREADS": (
        "threading.Thread(target=lambda: (threading.main_thread().join(), "
        "open(self.parameters['FILE'], 'w').close())).start()",
        "(0, 'started', '')",
    ),
    "BYTES": ("pass", r"(0, b'caf\xe9\x1b', '')"),
    "MANY": ("pass", "(3, 'x' * 5_000_000, '')"),
    "NAN": ("pass", "float('nan')"),
    "INF": ("pass", "float('inf')"),
    "HUGE": ("pass", "10 ** 5000"),
    "CODE": ("pass", "(10 ** 5000, '', '')"),
    "INTERRUPT": ("raise KeyboardInterrupt", "0"),
    "NAMELESS": (
        "raise type('E', (Exception,), {{'__str__': lambda self: 1 / 0}})()".replace(
            "{{", "{"
        ).replace("}}", "}"),
        "0",
    ),
}


def test_plugins_import_run_and_fail_alone(system: System) -> None:
    """What docs/adding-a-module.md says of a plugin's imports and threads, and odd outputs."""
    sections = {}
    for name, (work, output) in PLUGINS.items():
        file = f"plugin_{name.lower()}"
        system.module(file, PLUGIN.format(work=work, output=output))
        sections[name] = {"ACTION": "load", "FROM": file, "FILENAME": file, "CLASS": "Own"}
    system.module("plugin_ownfiles", "HELLO = 'hello'\n", "texts.py")
    marker = system.folder / "thread"
    sections["THREADS"]["PARAMETERS"] = {"FILE": str(marker)}  # type: ignore[assignment]
    system.configure(sections)
    results = by_name(system.result())
    messages = {name: section["message"] for name, section in results.items()}
    assert messages["OWNFILES"] == "hello"
    assert messages["REDIS"].endswith("redis/__init__.py")
    assert "site-packages" not in messages["REDIS"]  # it is not installed for the tests
    assert marker.exists()
    assert messages["BYTES"] == r"caf\xe9\x1b"
    assert messages["MANY"].endswith("more characters)")
    good = {"OWNFILES", "REDIS", "THREADS", "BYTES"}
    assert {name for name in results if results[name]["status"] == "ok"} == good
    for name in ("NAN", "INF", "HUGE"):
        assert "size that is not a number of bytes" in messages[name]
    assert "the plugin Own raised KeyboardInterrupt" in messages["INTERRUPT"]
    assert messages["NAMELESS"].endswith("raised E")
    assert "Traceback" not in "".join(section["hint"] for section in results.values())


@pytest.mark.parametrize("backward", ["head -c 100", "tr a b"])
def test_a_filter_that_does_not_undo_its_work_is_named(system: System, backward: str) -> None:
    """Issue 13: the hint blamed the store alone. No line about a marker that cannot be removed."""
    text = "if [[ $* == *backward* ]]; then BACK; else cat; fi".replace("BACK", backward)
    vault = """
while (( $# >= 2 )); do declare "${1#--}=$2"; shift 2; done
cd "$VAULT"
case ${DIRECTION:-forward} in
    list) for one in $(ls -d "$NAME"/* || true); do echo "$(stat -c %s "$one") $one"; done ;;
    backward) cat "$NAME" ;;
    forward) mkdir -p "${NAME%/*}"; cat > "$NAME" ;;
esac"""
    (system.folder / "vault").mkdir()
    parameters = {"PARAMETERS": {"VAULT": str(system.folder / "vault")}}
    sections = system.full_sections()
    order = {"FILESET": sections.pop("FILESET"), "FIL": module(system, "fil", text, "filter")}
    own_store = {**module(system, "vault", vault, "store"), **parameters}
    system.configure({**order, **sections, "VAULT": own_store}, STREAM="True")
    (system.source / "data").write_text("x")
    result = system.result()
    assert result["exit_code"] == 0, result
    assert "run marker not removed" not in system.log.read_text()
    output = system.restore("--verify", "latest", code=1)
    assert "look for an error in the filter FIL (--DIRECTION backward)" in output
