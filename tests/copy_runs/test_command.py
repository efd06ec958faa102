"""copy_runs.py as a user calls it."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from copy_runs import arguments, command
from copy_runs.output import Outcome
from storage.local_store import LocalStore
from tests import starter
from tests.copy_runs.signed_store import FIRST, HOST, SECOND, Runs, contents_of
from tests.system import System, execute
from tools.base import project
from tools.base.errors import ConfigError

PROGRAM = str(project.ROOT / "copy_runs/copy_runs.py")
PAGE = (project.ROOT / "docs/copy.md").read_text(encoding="utf-8")
SCHEMA = json.loads((project.ROOT / "docs/copy.schema.json").read_text(encoding="utf-8"))


def copy(*argv: str | Path, code: int = 0) -> str:
    """Call copy_runs.py; it must end with this code. Return what it printed."""
    done = starter.run([PROGRAM, *map(str, argv)], os.environ, timeout=120)
    text = (done.stdout + done.stderr).decode("utf-8", "surrogateescape")
    assert done.returncode == code, text
    assert "Traceback" not in text
    return text


def objects(folder: Path) -> dict[str, bytes]:
    """All objects of the host in a local store."""
    return {path.name: path.read_bytes() for path in (folder / "srv-test").iterdir()}


@pytest.fixture
def two(system: System) -> System:
    """A config with two local stores: STORAGE_LOCAL, and OFFSITE in the folder `offsite`."""
    (system.source / "a").write_text("one")
    offsite = str(system.folder / "offsite")
    second = execute("storage", DESTINATION="local", LOCAL_BACKUP=offsite)
    system.configure(system.short(OFFSITE=second), STREAM="True")
    return system


def test_a_store_that_missed_runs_is_filled_up(two: System) -> None:
    """The next run names the command, and after it no run raises an alarm."""
    offsite = two.folder / "offsite"
    assert two.result()["exit_code"] == 0
    offsite.rename(two.folder / "away")
    offsite.write_text("not mounted")
    missed = two.result()["run_id"]
    offsite.unlink()
    (two.folder / "away").rename(offsite)
    assert two.result()["exit_code"] == 0
    (line,) = re.findall(r"To copy them: python3 (\S+) (.*)$", two.log.read_text(), re.M)
    assert line == (PROGRAM, f"-c {two.conf} --catch-up")
    argv = shlex.split(line[1])
    dry_run = copy(*argv, "--dry-run")
    assert f"{missed}  srv-test  {offsite}" in dry_run
    assert "1 run would be copied" in dry_run
    assert "1 run copied" in copy(*argv)
    assert "0 runs copied" in copy(*argv)
    assert objects(offsite) == objects(two.store)
    first, other = (folder / f"srv-test/{missed}.manifest.json" for folder in (offsite, two.store))
    assert abs(first.stat().st_mtime - other.stat().st_mtime) < 2
    result = two.result()
    assert (result["exit_code"], result["stderr"]) == (0, "")
    two.restore("--verify", "all", "--store", "OFFSITE")


@pytest.mark.fault("another disk lies in the place of a store", "nothing is copied, exit 1")
def test_the_commands_of_the_page(two: System) -> None:
    """In their order, with their paths below a temporary folder; then with another disk."""
    assert two.result()["exit_code"] == 0
    shutil.rmtree(two.folder / "offsite/srv-test")
    (two.folder / "second-disk").mkdir()
    (two.folder / "signers").write_text(two.signer + "\n")
    places = {
        "/etc/nc-backup-py/conf.json": str(two.conf),
        "/mnt/backup-disk": str(two.store),
        "/mnt/second-disk": str(two.folder / "second-disk"),
        "--signer key_file": f"--signer {two.folder}/signers",
    }
    tried = 0
    for text in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S):
        for line in text.splitlines():
            here = functools.reduce(lambda old, pair: old.replace(*pair), places.items(), line)
            program, *argv = shlex.split(here)[1:]
            assert str(project.ROOT / program) == PROGRAM
            copy(*argv)
            tried += 1
    assert tried == 5
    for folder in ("offsite", "second-disk"):
        assert objects(two.folder / folder) == objects(two.store)
    shutil.rmtree(two.folder / "offsite")
    (two.folder / "offsite").mkdir()
    between = ("-c", str(two.conf), "--from", "STORAGE_LOCAL", "--to", "OFFSITE")
    assert "store marker nc-backup-py.store/id.json: no such file" in copy(*between, code=1)
    assert "OFFSITE: " in copy("-c", str(two.conf), "--catch-up", code=1)
    assert not list((two.folder / "offsite").iterdir())


# --- with arguments alone


@pytest.fixture
def disks(tmp_path: Path) -> Runs:
    """A signed store on one disk, with an unsigned run and those of two hosts; an empty one."""
    runs = Runs(tmp_path)
    store = LocalStore(tmp_path / "one")
    runs.add(store, FIRST, signed=False)
    runs.add(store, SECOND)
    (tmp_path / "two").mkdir()
    (tmp_path / "signers").write_text(runs.line + "\n")
    return runs


def arguments_for(folder: Path) -> list[str]:
    stores = ["--from", f"local://{folder}/one", "--to", f"local://{folder}/two"]
    return [*stores, "--signer", f"{folder}/signers"]


def document(*argv: str, code: int) -> dict[str, Any]:
    """The output of --json."""
    output: dict[str, Any] = json.loads(copy(*argv, "--json", code=code).splitlines()[0])
    jsonschema.validate(output, SCHEMA)
    assert output["exit_code"] == code
    return output


def test_the_result_as_text_and_as_json(disks: Runs, tmp_path: Path) -> None:
    argv = arguments_for(tmp_path)
    dry_run = document(*argv, "--dry-run", code=3)
    assert not list((tmp_path / "two").iterdir())
    text = copy(*argv, "--dry-run", code=3)
    assert re.search(rf"^{SECOND} +{HOST} .* ok +7 .*would be copied: 7 objects", text, re.M)
    assert f"warning: run {FIRST} of {HOST}: {HOST}/{FIRST}.manifest.json: not signed" in text
    assert "copy: incomplete, 1 run would be copied, 7 objects, 840 B, 0 there already" in text
    done = document(*argv, code=3)
    unsigned, signed = done["runs"]
    assert (unsigned["status"], signed["status"]) == ("incomplete", "ok")
    assert "not signed" in unsigned["message"]
    assert "--allow-unsigned" in unsigned["hint"]
    assert [one["bytes"] for one in dry_run["runs"]] == [one["bytes"] for one in done["runs"]]
    assert document(*argv, "--allow-unsigned", code=0)["status"] == "ok"
    assert "0 runs copied, 0 objects, 0 B, 2 there already" in copy(*argv, code=0)
    one, two = LocalStore(tmp_path / "one"), LocalStore(tmp_path / "two")
    assert contents_of(one) == contents_of(two)


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ([], "--from and --to are required"),
        (["--from", "A"], "--from and --to are required"),
        (["--catch-up", "--to", "A"], "--catch-up cannot be combined with --to"),
        (["--catch-up", "--runs", "newest"], "--catch-up cannot be combined with --runs"),
        (["--from", "A", "--to", "B", "--runs", "newest", FIRST], "neither missing, newest, all"),
        (["--from", "A", "--to", "B", "--runs", "yesterday"], "neither missing, newest, all"),
        (["--from", "A", "--to", "s3://B"], "no config given"),
    ],
)
def test_arguments_that_contradict_each_other(
    argv: list[str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arguments, "CONF", Path("/nowhere/conf.json"))
    with pytest.raises(ConfigError, match=re.escape(problem)):
        arguments.check(arguments.read(argv))


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--to", "local://{}/one"], "--from and --to are one store"),
        (["--to", "local://{}/none"], "not a directory"),
        (["--from", "local://{}/two", "--to", "local://{}/one"], "no runs"),
        (["--from", "ftp://{}"], "--from: ftp://: unknown type of store"),
        (["--hostname", "srv-9"], "Choose a host with --hostname: srv-1"),
        (["--runs", "20200101_000000"], "no run 20200101_000000 of host srv-1"),
    ],
)
def test_stores_and_runs_that_are_not_there(
    disks: Runs, tmp_path: Path, argv: list[str], problem: str
) -> None:
    more = [word.format(tmp_path) for word in argv]
    options = arguments.read([*arguments_for(tmp_path), *more])
    arguments.check(options)
    with pytest.raises(ConfigError) as raised:
        command.perform(options, tmp_path, Outcome())
    assert problem in f"{raised.value} {raised.value.hint}"
