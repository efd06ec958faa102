"""The store of commands: what real command lines do, and what is made of those that fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from storage import command_store
from storage.command_index import Index
from storage.command_template import Template
from tests.filesets import facts
from tests.system import System, execute
from tools.base.errors import ConfigError, StoreError
from tools.config import loading
from tools.flow import store
from tools.modules.options import fill

# As the documented config: a tool that copies the file %(OBJECTIVES)s/%(file)s.
UPLOAD = "install -D -m 0600 %(OBJECTIVES)s/%(file)s %(BUCKET)s/%(HOSTNAME)s/%(file)s"
DOWNLOAD = "cat %(BUCKET)s/%(HOSTNAME)s/%(file)s"
LIST = "find %(BUCKET)s/%(HOSTNAME)s -type f -printf '%%s %%f\\n'"
STREAMED = pytest.mark.parametrize("streamed", ["True", "False"], ids=["streamed", "staged"])


def section(folder: Path, **more: str) -> dict[str, Any]:
    return execute(
        "storage",
        DESTINATION="custom_command",
        UPLOAD_COMMAND_TEMPLATE=UPLOAD,
        ARGS_DICT=f"{{'BUCKET': '{folder}'}}",
        **more,
    )


def opened(folder: Path, **more: str) -> store.Store:
    defaults = {"HOSTNAME": "srv", "DESTINATION": "command", "WORK_FOLDER": str(folder / "work")}
    defaults |= {"UPLOAD_COMMAND_TEMPLATE": UPLOAD, "ARGS_DICT": f"{{'BUCKET': '{folder / 'b'}'}}"}
    defaults |= {"RETRY_WAIT": "0"}
    return command_store.open_store(fill(command_store.Options, {**defaults, **more}))


def test_the_commands_get_the_environment_of_the_section(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the check, in a run with the section of another source, and in a restore."""
    (system.source / "file").write_text("content")
    monkeypatch.setenv("VAULT", str(system.folder / "vault"))
    monkeypatch.setenv("AWS_PROFILE", "ours")
    lines = {
        "UPLOAD": "test $AWS_PROFILE && "
        "install -D -m 0600 %(OBJECTIVES)s/%(file)s $VAULT/%(HOSTNAME)s/%(file)s",
        "DOWNLOAD": "test $VAULT && cat $VAULT/%(HOSTNAME)s/%(file)s",
        "LIST": 'test $VAULT && find $VAULT/%(HOSTNAME)s -type f -printf "%%s %%f\\n"',
    }
    commands = {f"{key}_COMMAND_TEMPLATE": f"sh -c '{line}'" for key, line in lines.items()}
    stored = {**execute("storage", DESTINATION="command", LIST_EMPTY_CODE="1", **commands)}
    sections = {**system.full_sections(), "STORAGE_LOCAL": {**stored, "ENVIRONMENT": ["VAULT"]}}
    system.configure(sections, STREAM="True")
    assert system.run("-t").returncode == 0
    assert system.result()["exit_code"] == 0
    assert list((system.folder / "vault").glob("srv-test/*.manifest.json"))
    system.restore("--verify", "all")


@STREAMED
def test_the_documented_config_and_a_restore(system: System, streamed: str) -> None:
    (system.source / "file").write_text("content")
    bucket = system.folder / "bucket"
    commands = {"DOWNLOAD_COMMAND_TEMPLATE": DOWNLOAD, "LIST_COMMAND_TEMPLATE": LIST}
    sections = {
        **system.full_sections(),
        "STORAGE_CUSTOM": section(bucket, LIST_EMPTY_CODE="1", **commands),
    }
    del sections["STORAGE_LOCAL"]
    system.configure(sections, STREAM=streamed)
    for _ in range(2):
        result = system.result()
        assert result["exit_code"] == 0, result
    assert len(list(bucket.glob("srv-test/*.manifest.json"))) == 2
    system.restore("--verify", "all")
    back = system.restored() / "FILESET" / system.source.relative_to("/")
    assert facts(back) == facts(system.source)
    assert not list((system.work / ".nc-backup-py").glob("*load-*/*/*"))


def test_an_upload_alone_makes_good_runs_and_says_why_it_cannot_be_restored(
    system: System,
) -> None:
    (system.source / "file").write_text("content")
    bucket = system.folder / "bucket"
    sections = {**system.full_sections(), "STORAGE_CUSTOM": section(bucket)}
    del sections["STORAGE_LOCAL"]
    system.configure(sections, STREAM="True")
    for _ in range(3):
        result = system.result()
        assert (result["exit_code"], "WARN" in result["stderr"]) == (0, False), result["stderr"]
    assert len(json.loads(system.restore("--list", "--json"))["runs"]) == 3
    arguments = ("--restore", "latest", "--destination", str(system.folder / "out"))
    assert "DOWNLOAD_COMMAND_TEMPLATE" in system.restore(*arguments, code=1)


@pytest.mark.fault(
    "an upload command fails for a moment", "it is repeated from the file, five times in all"
)
def test_an_upload_that_fails_is_repeated(tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = f'echo x >> {count}; test "$(wc -l < {count})" -ge 3 && {UPLOAD}'
    target = opened(tmp_path, UPLOAD_COMMAND_TEMPLATE=f"sh -c '{script}'")
    store.store_object(target, "srv/x", [b"content"])
    assert (tmp_path / "b/srv/x").read_bytes() == b"content"
    target = opened(tmp_path, UPLOAD_COMMAND_TEMPLATE="sh -c 'echo disk full >&2; exit 4'")
    with pytest.raises(StoreError, match=r"exit code 4: .*disk full"):
        store.store_object(target, "srv/y", [b"content"])
    assert [entry.name for entry in target.entries("srv")] == []
    assert list(target.unfinished("srv")) == []
    count.unlink()
    target = opened(tmp_path, UPLOAD_COMMAND_TEMPLATE=f"sh -c 'echo x >> {count}; no-such-tool'")
    with pytest.raises(StoreError, match=r"exit code 127: .*no-such-tool"):
        store.store_object(target, "srv/y", [b"content"])
    assert count.read_text() == "x\n"  # another attempt would not find it either


@pytest.mark.fault(
    "an upload command says success, and the store holds other bytes",
    "the store fails, where there is a command to download",
)
@pytest.mark.parametrize("harm", ["truncate -s 1", "truncate -s 0", "rm"])
def test_what_was_uploaded_is_downloaded_and_compared(tmp_path: Path, harm: str) -> None:
    bad = f"sh -c '{UPLOAD} && {harm} %(BUCKET)s/%(HOSTNAME)s/%(file)s'"
    target = opened(tmp_path, UPLOAD_COMMAND_TEMPLATE=bad, DOWNLOAD_COMMAND_TEMPLATE=DOWNLOAD)
    with pytest.raises(StoreError):
        store.store_object(target, "srv/x", [b"content"])


def test_content_on_standard_input(tmp_path: Path) -> None:
    (tmp_path / "b/srv").mkdir(parents=True)
    template = "dd of=%(BUCKET)s/%(HOSTNAME)s/%(file)s status=none"
    target = opened(
        tmp_path, UPLOAD_COMMAND_TEMPLATE=template, DOWNLOAD_COMMAND_TEMPLATE=DOWNLOAD,
    )  # fmt: skip
    store.store_object(target, "srv/x", [b"con", b"tent"])
    assert b"".join(target.get("srv/x")) == b"content"


def test_a_shell_sees_nothing_of_a_name(tmp_path: Path) -> None:
    target = opened(tmp_path, DOWNLOAD_COMMAND_TEMPLATE=DOWNLOAD)
    name = "srv/$(touch harmed); rm -rf x"
    store.store_object(target, name, [b"content"])
    assert b"".join(target.get(name)) == b"content"
    assert (tmp_path / "b" / name).exists()


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ("12 x.000\n  7   a b\n", ["srv/a b", "srv/x.000"]),
        ("2026-01-01 10:00:00        12 x.000\n\n", ["srv/x.000"]),
        ("12;host/x.000\r\n", ["srv/x.000"]),
        ("", []),
    ],
)
def test_the_lists_of_common_tools(tmp_path: Path, lines: str, names: list[str]) -> None:
    (tmp_path / "list").write_text(lines)
    target = opened(
        tmp_path, LIST_COMMAND_TEMPLATE=f"cat {tmp_path}/list", DOWNLOAD_COMMAND_TEMPLATE=DOWNLOAD
    )
    assert [entry.name for entry in target.entries("srv")] == names


@pytest.mark.parametrize("text", ["x", "x 12", "99999999999999999999 x", "-1 x"])
def test_a_line_that_is_none_of_a_list(tmp_path: Path, text: str) -> None:
    (tmp_path / "list").write_text(text)
    target = opened(
        tmp_path, LIST_COMMAND_TEMPLATE=f"cat {tmp_path}/list", DOWNLOAD_COMMAND_TEMPLATE=DOWNLOAD
    )
    with pytest.raises(StoreError, match="is not a line of a list"):
        list(target.entries("srv"))


def test_a_list_that_fails_is_no_empty_list(tmp_path: Path) -> None:
    more = {"DOWNLOAD_COMMAND_TEMPLATE": DOWNLOAD, "LIST_COMMAND_TEMPLATE": "false"}
    with pytest.raises(StoreError, match="install -D ended with exit code 1"):
        list(opened(tmp_path, **more).entries("srv"))
    assert list(opened(tmp_path, **more, LIST_EMPTY_CODE="1").entries("srv")) == []
    more["LIST_COMMAND_TEMPLATE"] = "sh -c 'echo 1 x; exit 1'"
    with pytest.raises(StoreError, match="install -D ended with exit code 1"):
        list(opened(tmp_path, **more, LIST_EMPTY_CODE="1").entries("srv"))


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("put %(file)s %(nothing)s", r"%\(nothing\)s: unknown field"),
        ("put 100% %(file)s", "a percent sign that begins no field"),
        ("put %(file)999999999s", "a percent sign that begins no field"),
        ("put '%(file)s", "no closing quotation"),
        (" ", "is empty"),
    ],
)
def test_a_template_that_cannot_be_filled(system: System, template: str, says: str) -> None:
    store_section = section(system.folder / "b", DOWNLOAD_COMMAND_TEMPLATE=template)
    system.configure({**system.full_sections(), "STORAGE_CUSTOM": store_section})
    with pytest.raises(ConfigError, match=says) as caught:
        loading.load(system.conf)
    assert "STORAGE_CUSTOM" in str(caught.value)


@pytest.mark.parametrize("text", ["{'A': 1}", "[]", "__import__('os')", "{" * 5000, "{'A'"])
def test_args_dict_is_data(system: System, text: str) -> None:
    store_section = section(system.folder / "b")
    store_section["PARAMETERS"]["ARGS_DICT"] = text
    system.configure({**system.full_sections(), "STORAGE_CUSTOM": store_section})
    with pytest.raises(ConfigError, match="ARGS_DICT: not a dictionary of texts"):
        loading.load(system.conf)


def test_words_are_split_before_fields_are_filled() -> None:
    template = Template.parse("KEY", "put '%(a)s b' 50%% %(a)s", ("a",))
    assert template.filled({"a": "x y'z"}) == ["put", "x y'z b", "50%", "x y'z"]


def test_the_list_survives_a_power_cut_and_another_process(tmp_path: Path) -> None:
    file = tmp_path / "list.jsonl"
    one, other = Index(file), Index(file)
    one.add(store.StoredObject("srv/x", 1, "aa"), b"x")
    other.add(store.StoredObject("srv/y", 2, "bb"), None)
    with file.open("a") as cut:
        cut.write('{"name": "srv/z", "si')
    one.add(store.StoredObject("srv/v", 3, "cc"), None)
    other.remove("srv/y")
    for index in (one, other, Index(file)):
        assert [entry.name for entry in index.entries("srv")] == ["srv/v", "srv/x"]
    assert [json.loads(line)["name"] for line in file.read_text().splitlines()][-1] == "srv/y"
    file.write_text('{"name": 1}\nnonsense\n')
    with pytest.raises(StoreError, match=r"list.jsonl: byte 12: not a valid line"):
        Index(file).get("srv/x")
