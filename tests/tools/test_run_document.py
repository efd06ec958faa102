"""The JSON document of a run: what docs/run.schema.json says, of runs that end in every way."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.brt import ReportServer
from tests.system import System, execute, wait_for
from tools.base import masking, project
from tools.base.result import Result, Status
from tools.base.run_result import ItemResult, RunOrigin, RunResult, SectionResult, StoreResult
from tools.reporting.document import local_document, run_document, worst

SCHEMA = json.loads((project.ROOT / "docs/run.schema.json").read_text())
# What --json had before documents had a version: scripts of users read it.
OLD_KEYS = {
    *("run_id", "hostname", "begin", "end", "seconds", "status", "exit_code", "message", "hint"),
    *("size", "bytes", "destinations", "report", "sections"),
}
OLD_SECTION_KEYS = {
    *("name", "seconds", "status", "message", "hint", "files", "items", "bytes", "warnings"),
    *("removable", "size"),
}


def undescribed(value: Any, schema: dict[str, Any]) -> Iterator[str]:
    """The keys of a document that its schema does not describe."""
    schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if isinstance(value, dict) and "properties" in schema:
        for key, entry in value.items():
            if key not in schema["properties"]:
                yield key
            else:
                yield from undescribed(entry, schema["properties"][key])
    for entry in value if isinstance(value, list) else ():
        yield from undescribed(entry, schema["items"])


def check(document: dict[str, Any]) -> dict[str, Any]:
    """Check a document against the schema, both ways, and that all old keys are there."""
    jsonschema.validate(document, SCHEMA)
    assert not list(undescribed(document, SCHEMA))
    assert set(document) >= OLD_KEYS
    assert all(set(section) >= OLD_SECTION_KEYS for section in document["sections"])
    return document


def result(system: System, *arguments: str) -> dict[str, Any]:
    """The document of a run, as --json prints it, checked."""
    done = system.run("-r", "--json", *arguments)
    document = check(json.loads(done.stdout))
    assert document["exit_code"] == done.returncode
    return document


STREAMS = pytest.mark.parametrize("stream", ["True", "False"], ids=["streamed", "staged"])


@STREAMS
def test_a_good_run(system: System, stream: str) -> None:
    (system.source / "a").write_text("content " * 1000)
    system.configure(system.full_sections(), STREAM=stream)
    document = result(system)
    assert (document["version"], document["action"], document["status"]) == (1, "backup", "ok")
    assert document["mode"] == ("streamed" if stream == "True" else "staged")
    assert (document["problems"], document["report"], document["reports"]) == ([], "none", {})
    assert document["config"]["file"] == str(system.conf)
    manifest = system.manifest()
    assert document["config"]["id"] == manifest["config_id"]
    assert document["config"]["sha256"] == manifest["config"]
    assert document["machine"] == {"id": manifest["machine"], "name": manifest["machine_name"]}
    (item,) = document["items"]
    assert (item["section"], item["name"], item["kind"]) == ("FILESET", "", "fileset")
    assert item["size"] == manifest["items"][0]["size"]
    sizes = [part["size"] for part in manifest["items"][0]["parts"]]
    assert item["stored_size"] == sum(sizes)
    (store,) = document["stores"]
    assert store == {
        "section": "STORAGE_LOCAL",
        "kind": "local",
        "status": "ok",
        "manifest": True,
        "sequence": manifest["sequence"],
        "signer": system.signer,
        "items": 1,
        "parts": len(sizes),
        "bytes": sum(sizes),
        "missing": [],
    }
    kinds = {section["name"]: section["kind"] for section in document["sections"]}
    assert kinds["FILESET"] == "source"
    assert kinds["STORAGE_LOCAL"] == "store"
    for section in document["sections"]:
        assert document["begin"] <= section["begin"] <= section["end"] <= document["end"]


@STREAMS
def test_a_failed_run(system: System, stream: str) -> None:
    """A database fails, the files are stored: the document says what the store lacks."""
    (system.source / "a").write_text("content")
    broken = {"ACTION": "load", "FROM": "sqlite", "FILENAME": "sqlite", "CLASS": "SQLiteBackup"}
    parameters = {"DATABASES": str(system.folder / "none.db")}
    system.configure(
        {"LITE": {**broken, "PARAMETERS": parameters}, **system.full_sections()}, STREAM=stream
    )
    document = result(system)
    assert (document["status"], document["exit_code"]) == ("failed", 1)
    (problem,) = [entry for entry in document["problems"] if entry["section"] == "LITE"]
    assert problem["level"] == "error"
    assert problem["text"]
    (store,) = document["stores"]
    assert (store["manifest"], store["status"], store["items"]) == (True, "failed", 1)
    assert [item["section"] for item in document["items"]] == ["FILESET"]
    if stream == "True":
        assert store["missing"] == [f"LITE{system.folder}/none.db"]


def test_a_store_that_fails(system: System) -> None:
    """One store of two cannot be used: nothing is hidden behind the other one."""
    (system.source / "a").write_text("content")
    (system.folder / "file").write_text("")
    second = execute("storage", DESTINATION="local", LOCAL_BACKUP=str(system.folder / "file"))
    system.configure(system.full_sections(SECOND=second), STREAM="True")
    document = result(system)
    by_name = {store["section"]: store for store in document["stores"]}
    assert by_name["STORAGE_LOCAL"]["manifest"] is True
    assert by_name["SECOND"]["manifest"] is False
    assert by_name["SECOND"]["status"] == "failed"
    assert by_name["SECOND"]["missing"] == ["FILESET"]


@STREAMS
def test_an_incomplete_run(system: System, stream: str) -> None:
    (system.source / "a").write_text("content")
    (system.source / "empty").mkdir()
    fileset = execute("filesbackup", FILESET_INCLUDE=f"{system.source} {system.source}/empty")
    system.configure(system.full_sections(FILESET=fileset), STREAM=stream)
    document = result(system)
    assert (document["status"], document["exit_code"]) == ("incomplete", 3)
    assert {entry["level"] for entry in document["problems"]} == {"warning"}
    assert "empty" in document["problems"][0]["text"]
    assert "empty" in document["items"][0]["warnings"][0]
    assert document["stores"][0]["status"] == "incomplete"


def test_a_locked_run(system: System) -> None:
    system.configure(system.full_sections())
    private = system.work / ".nc-backup-py"
    private.mkdir(parents=True, mode=0o700)
    with (private / "lock").open("w") as lock:
        (private / "lock").chmod(0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        document = result(system)
    assert (document["status"], document["exit_code"], document["sections"]) == ("locked", 11, [])
    assert (document["stores"], document["mode"]) == ([], None)
    assert document["problems"][0]["section"] is None


def test_a_refused_run(system: System, server: ReportServer) -> None:
    system.configure({"A": {"ACTION": "fly"}}, MESSAGE_CONFIG_COMMAND=server.url)
    document = result(system)
    assert (document["status"], document["exit_code"]) == ("refused", 2)
    assert (document["hostname"], document["report"]) == ("srv-test", "delivered")
    assert document["reports"] == {"brt": "delivered"}
    system.conf.write_text("{")
    document = result(system)
    assert (document["exit_code"], document["hostname"], document["report"]) == (2, "", "none")


def test_a_cancelled_run(system: System) -> None:
    pid = system.folder / "pid"
    section = system.script("own", f"echo $$ > {pid}.tmp; mv {pid}.tmp {pid}; sleep 300")
    system.configure({"OWN": section})
    run = subprocess.Popen(system.command("-r", "--json"), stdout=subprocess.PIPE)
    wait_for(pid)
    run.send_signal(signal.SIGTERM)
    document = check(json.loads(run.communicate(timeout=60)[0]))
    assert (document["status"], document["exit_code"]) == ("terminated", 143)


def test_a_restore_and_a_verification(system: System) -> None:
    (system.source / "a").write_text("content")
    system.configure(system.full_sections(), STREAM="True")
    run_id = result(system)["run_id"]
    out = system.folder / "out"
    for action, arguments in (
        ("verify", ("--verify", "latest")),
        ("restore", ("--restore", "latest", "--destination", str(out))),
    ):
        text = system.restore(*arguments, "--json").splitlines()[0]
        document = check(json.loads(text))
        assert (document["action"], document["run_id"], document["exit_code"]) == (
            action,
            run_id,
            0,
        )
        assert [section["kind"] for section in document["sections"]] == ["item"]


def test_what_is_sent_has_no_path_of_its_own() -> None:
    """Paths that only --json has: of the config, of what was written, of what was removed."""
    of_section = Result(Status.OK, "fine", files=("/private/a",), removable=("/private/b",))
    begin = datetime(2026, 11, 23, tzinfo=timezone.utc)
    result = RunResult(
        "20261123_000000", "srv", begin, 1.0, Status.OK,
        sections=(SectionResult("A", "source", of_section),),
        origin=RunOrigin(config_file="/private/conf.json", config_id="1"),
    )  # fmt: skip
    sent = run_document(result)
    jsonschema.validate(sent, SCHEMA)
    assert "/private" not in json.dumps(sent)
    assert json.dumps(local_document(result, {})).count("/private") == 3


def test_secrets_are_masked_at_any_depth() -> None:
    """In every text of the document, and in a text that holds JSON with an unknown secret."""
    masking.add("hunter2-document")
    text = "x hunter2-document y"
    held = '{"deep": [{"password": "unknown-to-all"}]}'
    begin = datetime(2026, 11, 23, tzinfo=timezone.utc)
    broken = Result(Status.FAILED, text, text, (text,), warnings=(text, held), size=text)
    result = RunResult(
        "20261123_000000", text, begin, 1.0, Status.FAILED, message=text, hint=text,
        sections=(SectionResult(text, "source", broken),), destinations=(text,),
        stores=(StoreResult(text, text, Status.FAILED, False, missing=(text,)),),
        items=(ItemResult(text, text, text, 1, 1, (text, held)),),
        origin=RunOrigin(text, "", text, text, text, text),
    )  # fmt: skip
    masked = json.dumps(local_document(result, {"brt": "lost"}))
    assert "hunter2" not in masked
    assert "unknown-to-all" not in masked
    assert masked.count("***") > 20


@pytest.mark.parametrize(
    ("deliveries", "expected"),
    [
        ({}, "none"),
        ({"a": "delivered"}, "delivered"),
        ({"a": "delivered", "b": "kept"}, "kept"),
        ({"a": "lost", "b": "kept"}, "lost"),
    ],
)
def test_the_worst_delivery_counts(deliveries: dict[str, str], expected: str) -> None:
    assert worst(deliveries) == expected


def test_a_crash_is_a_document_too(
    system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tools.commands import backup
    from tools.engine import run

    def crash(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(run, "perform", crash)
    path: Path = system.configure(system.full_sections())
    assert backup.main(["-r", "--json", "-c", str(path)]) == 1
    document = check(json.loads(capsys.readouterr().out))
    assert document["message"] == "internal error: ZeroDivisionError: by zero"
    assert document["hostname"] == "srv-test"
