"""A source of one folder and a store of one file and one row, as docs/adding-a-module.md says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system import execute
from tests.test_docs import ADDING, fences, sections_of_the_guide
from tools.base import project
from tools.catalog import writer_key

_UNWANTED = shutil.ignore_patterns(".*", "__pycache__", "benchmarks")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, in which the guide has been followed."""
    copy = tmp_path_factory.mktemp("checkout") / "copy"
    shutil.copytree(project.ROOT, copy, ignore=_UNWANTED)
    (copy / "ledger").mkdir()
    (copy / "ledger/ledger.bash").write_text(fences(ADDING, "bash")[1])
    (store,) = [text for text in fences(ADDING, "python") if "class DatabaseStore" in text]
    (copy / "storage/database_store.py").write_text(store)
    (row,) = [
        text for text in fences(ADDING, "python") if text.startswith("    from storage import")
    ]
    table = copy / "storage/storage.py"
    text = table.read_text()
    old = text[text.index("    from storage import") :].split("    }\n")[0] + "    }\n"
    without = re.sub(r" +database_store,\n| +.database.: database_store,\n", "", row)
    assert old == without  # the guide shows the table as it is, and one row more
    table.write_text(text.replace(old, row))
    suite = copy / "tests/storage/test_store_contract.py"
    text = suite.read_text()
    begin = "STORES: dict[str, Callable[[Path], Open]] = {\n"
    assert text.count(begin) == 1
    line = '    "database": lambda folder: lambda: DatabaseStore(folder / "store.db"),\n'
    imported = "from storage.database_store import DatabaseStore\nfrom storage.local_store"
    text = text.replace(begin, begin + line).replace("from storage.local_store", imported)
    suite.write_text(text)
    return copy


def run(
    checkout: Path, *arguments: str | Path, code: int = 0, cwd: str = "/"
) -> subprocess.CompletedProcess[str]:
    """A Python program of the copy; it must end with this code."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=checkout if cwd == "" else cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_a_new_source_and_a_new_store_run_and_restore(checkout: Path, tmp_path: Path) -> None:
    sections = sections_of_the_guide()
    database = tmp_path / "backup.db"
    archive: dict[str, Any] = sections["ARCHIVE"]
    archive["PARAMETERS"]["DATABASE"] = str(database)
    config = {
        "GENERAL": {
            "HOSTNAME": "srv-test",
            "HOME_FOLDER": str(checkout),
            "WORK_FOLDER": str(tmp_path / "work"),
            "LOG_FOLDER": str(tmp_path / "log"),
            "ALLOW_ROOT": "True",
            "WRITER_KEY": str(tmp_path / "writer.key"),
            "STREAM": "True",
        },
        "LEDGER": sections["LEDGER"],
        "COMPRESSION": execute("compression"),
        "ARCHIVE": archive,
    }
    writer_key.create(tmp_path / "writer.key", "srv-test")
    (tmp_path / "log").mkdir()
    conf = tmp_path / "conf.json"
    conf.write_text(json.dumps(config))
    conf.chmod(0o600)
    assert (
        f"{database} can be used" in run(checkout, checkout / "backup.py", "-t", "-c", conf).stdout
    )
    result = json.loads(run(checkout, checkout / "backup.py", "-r", "--json", "-c", conf).stdout)
    assert result["exit_code"] == 0
    restore: list[str | Path] = [checkout / "restore/restore.py", "-c", conf]
    assert "LEDGER" in run(checkout, *restore, "--verify", "latest").stdout
    run(checkout, *restore, "--restore", "latest", "--destination", tmp_path / "out")
    lines = (tmp_path / "out/LEDGER").read_text().splitlines()
    assert (lines[0], lines[-1], len(lines)) == (
        "date,account,amount", "2026-01-01,1000,10.00", 1001,
    )  # fmt: skip


def test_the_keys_of_the_new_store_are_those_of_the_section(checkout: Path) -> None:
    arguments = ("--HOSTNAME", "srv", "--DESTINATION", "database")
    done = run(checkout, checkout / "storage/storage.py", *arguments, code=2)
    assert "DATABASE is required with DESTINATION database" in done.stderr
    assert "--DATABASE" in run(checkout, checkout / "storage/storage.py", "--help").stdout


def test_the_new_store_passes_the_suite_of_all_stores(checkout: Path) -> None:
    arguments = ("-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-k", "database")
    done = run(checkout, *arguments, "tests/storage/test_store_contract.py", cwd="")
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 40
