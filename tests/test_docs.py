"""The docs say what is: their tables, paths, links, commands and examples are tried."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from restore import arguments
from storage import storage
from tests import fault_table, system
from tools.base import project
from tools.base.result import Status
from tools.catalog import writer_key
from tools.config import declarations, loading
from tools.modules import key_tables, loader, registry

ROOT = project.ROOT
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
EXAMPLES = sorted(path.name for path in (ROOT / "conf/examples").iterdir())
STREAMED = ("LEDGER", "LABEL", "VAULT")  # sections of the guide for a streamed run
ADDING = (ROOT / "docs/adding-a-module.md").read_text(encoding="utf-8")


def named(path: Path) -> str:
    """How a page is called in the id of a test."""
    return str(path.relative_to(ROOT))


def fences(text: str, language: str) -> list[str]:
    """What stands between ```language and ```."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


@pytest.mark.parametrize("name", sorted(registry.MODULES))
def test_the_page_of_a_module_holds_its_keys(name: str) -> None:
    page = ROOT / "docs/modules" / f"{Path(name).stem}.md"
    tables = re.findall(r"(?:^\|.*\n)+", page.read_text(encoding="utf-8"), re.M)
    assert key_tables.table(loader.declared(name).Options) + "\n" in tables


def test_the_page_of_the_config_holds_every_key() -> None:
    page = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    sections = key_tables.table(declarations.SectionKeys)
    for table in (key_tables.table(declarations.General), sections.replace("FROM_", "FROM")):
        assert table.replace("CLASS_", "CLASS") in page


def test_no_page_of_a_module_that_is_not_there() -> None:
    pages = {path.stem for path in (ROOT / "docs/modules").glob("*.md")}
    stores = {f"storage-{name}" for name in storage.destinations()}
    assert pages - stores == {Path(name).stem for name in registry.MODULES}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    ours = [link for link in links if not link.startswith("http")]
    assert not [link for link in ours if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_paths_of_the_tree_exist(page: Path) -> None:
    """`folder/file` and `python3 folder/file.py`, where the folder is one of ours."""
    text = page.read_text(encoding="utf-8")
    tops = "|".join(sorted(p.name for p in ROOT.iterdir() if p.is_dir() and p.name[0] != "."))
    paths = set(re.findall(rf"`((?:{tops})/[\w./-]*)`", text))
    paths |= set(re.findall(r"^python3? ([\w./][\w./-]*)", text, re.M))
    missing = [path for path in paths if not path.startswith("/") and not (ROOT / path).exists()]
    of_reader = {
        "inventory/inventory.bash",
        "storage/database_store.py",
    }  # what the reader is to write
    assert not set(missing) - of_reader


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_explained(name: str) -> None:
    assert f"`{name}`" in (ROOT / "docs/examples.md").read_text(encoding="utf-8")


def test_exit_codes_are_those_of_the_code() -> None:
    text = (ROOT / "docs/exit-codes.md").read_text(encoding="utf-8")
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.M)} == {
        status.exit_code for status in Status
    }


def test_the_table_of_faults_is_that_of_the_tests() -> None:
    """Made anew by: pytest --collect-only -q --faults."""
    table = fault_table.table()
    assert len(table.splitlines()) > 60
    assert table in (ROOT / "docs/reliability.md").read_text(encoding="utf-8")


def test_every_dependency_has_its_reason() -> None:
    text = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    listed = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    arrays = re.findall(r"^(?:dependencies|dev) = \[(.*)\]$", listed, re.M)
    names = re.findall(r'"([\w-]+)', " ".join(arrays))
    assert len(arrays) == 2
    assert not [name for name in names if not re.search(rf"\b{re.escape(name)}\b", text)]


def test_the_config_of_the_readme_is_good(tmp_path: Path) -> None:
    (text,) = fences((ROOT / "README.md").read_text(encoding="utf-8"), "json")
    config = tmp_path / "conf.json"
    config.write_text(text)
    config.chmod(0o600)
    names = [section.name for section in loading.load(config).sections]
    assert names == ["FILESET", "COMPRESSION", "ENCRYPTION", "STORAGE_LOCAL"]


def commands_of_the_readme() -> list[str]:
    """Every command line of the README, its continuation lines joined, comments cut off."""
    text = "\n".join(fences((ROOT / "README.md").read_text(encoding="utf-8"), "sh"))
    lines = text.replace("\\\n", " ").splitlines()
    return [line.partition("   #")[0].strip() for line in lines if line.strip()]


def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    """Issue 12, 9: ours, in their order, with their paths below a temporary folder.

    Those of the system (git, useradd, chown ...) are not ours to try; a database and a bucket need
    a server, so the arguments of those restores are only read.
    """
    whole = system.System(tmp_path)
    (whole.source / "etc/nginx").mkdir(parents=True)
    (whole.source / "etc/nginx/site").write_text("server {}")
    locations = {
        "/etc/nc-backup-py": str(tmp_path),
        "/mnt/backup-disk": str(whole.store),
        "/root/key_file": str(whole.key),
        "/srv/": f"{tmp_path}/srv/",
        "/etc/nginx": f"{whole.source}/etc/nginx",
    }
    (text,) = fences((ROOT / "README.md").read_text(encoding="utf-8"), "json")
    sections = json.loads(text)
    sections["FILESET"]["PARAMETERS"]["FILESET_INCLUDE"] = str(whole.source)
    sections["ENCRYPTION"]["PARAMETERS"]["KEY_FILE"] = str(whole.key)
    general = {**whole.general, "HOSTNAME": "srv-web-1", "STREAM": "True"}
    whole.configure({**sections, "GENERAL": general})
    whole.writer_key.unlink()  # as setup.py makes the keys
    whole.keygen()
    signer = writer_key.create(whole.writer_key, "srv-web-1")
    with whole.key.open("a") as file:
        file.write(f"{writer_key.SIGNER}{signer}\n")
    tried = []
    for line in commands_of_the_readme():
        ours = line.removeprefix("runuser -u ncbackup -- ")
        if not ours.startswith("python3 ") or "setup.py" in ours:
            continue
        for location, here in locations.items():
            ours = ours.replace(location, here)
        program, *tokens = shlex.split(ours)[1:]
        tried.append(tokens[0] if program == "backup.py" else program)
        if "--to-host" in tokens:
            assert arguments.read(tokens).to_host == "127.0.0.1"
            continue
        if "--endpoint" in tokens:
            assert arguments.read(tokens).store == "s3://backups-of-acme/servers"
            continue
        if "--destination" in tokens:
            shutil.rmtree(tmp_path / "srv", ignore_errors=True)
            (tmp_path / "srv").mkdir()
        done = subprocess.run(
            [sys.executable, str(ROOT / program), *tokens],
            cwd="/", capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (line, done.stderr)
    assert tried[:3] == ["-t", "-n", "-r"]
    assert tried.count("restore/restore.py") == 7


def test_the_changelog_names_the_version() -> None:
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version
    assert f"\n## {version[1]}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def sections_of_the_guide() -> dict[str, Any]:
    """What the guide shows of conf.json."""
    entries = [json.loads(f"{{{text}}}") for text in fences(ADDING, "json") if "ACTION" in text]
    return {name: section for entry in entries for name, section in entry.items()}


@pytest.mark.needs("perl")
def test_the_streamed_modules_of_the_guide_run_and_restore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = tmp_path / "vault"
    monkeypatch.setenv("VAULT", str(vault))
    whole = system.System(tmp_path)
    whole.module("ledger", fences(ADDING, "bash")[1], "ledger.bash")
    whole.module("label", fences(ADDING, "perl")[1], "label.pl")
    whole.module("vault", fences(ADDING, "bash")[2], "vault.bash")
    sections = sections_of_the_guide()
    flow = {name: sections[name] for name in ("LEDGER", "LABEL")}
    flow |= {"COMPRESSION": system.execute("compression"), "VAULT": sections["VAULT"]}
    whole.configure(flow, STREAM="True")
    result = whole.result()
    assert result["exit_code"] == 0, result
    assert not list(vault.rglob(".*"))
    back = whole.restored() / "LEDGER"
    assert back.read_text().startswith("date,account,amount\n2026-01-01,1,10.00\n")
    assert len(back.read_text().splitlines()) == 1001


@pytest.mark.needs("perl")
def test_the_modules_of_the_guide_run(tmp_path: Path) -> None:
    """Bash, perl, Python and a class, each with the section that the guide gives it."""
    whole = system.System(tmp_path)
    whole.module("inventory", fences(ADDING, "bash")[0], "inventory.bash")
    whole.module("title", fences(ADDING, "perl")[0], "title.pl")
    whole.module("notes", fences(ADDING, "python")[0])
    whole.module("greeting", fences(ADDING, "python")[-1])
    sections = sections_of_the_guide()
    assert set(sections) == {"INVENTORY", "TITLE", "GREETING", "ARCHIVE", *STREAMED}
    staged = {name: sections[name] for name in ("INVENTORY", "TITLE", "GREETING")}
    whole.configure({**staged, "NOTES": system.execute("notes", TEXT="as it stands: $(id)")})
    result = whole.result()
    assert result["exit_code"] == 0, result
    (note,) = (whole.work / "notes").iterdir()
    assert note.read_text() == "as it stands: $(id)"
    (listed,) = (whole.work / "inventory").iterdir()
    assert listed.name.endswith(".mounts.txt")
    assert listed.stat().st_size
