"""CLEANUP as a section of a run, and cleanup.py by hand: what is removed is what may go."""

from __future__ import annotations

import os
from typing import Any

from storage import local_store
from tests import starter, stored_runs
from tests.system import System, execute
from tools.base import project
from tools.catalog import identity, manifest, writer_key

HOST = "srv-test"


def older(system: System, days: int, **fields: Any) -> list[str]:
    """Store signed runs of the last days, as this config made them; return their ids."""
    place = local_store.LocalStore(system.store)
    key = writer_key.read(system.writer_key)
    folder = system.store / HOST
    made = []
    for day in range(days, 0, -1):
        moment = stored_runs.days_ago(day)
        made.append(stored_runs.run_id(moment))
        items = [stored_runs.item(made[-1], "FILESET")]
        run = stored_runs.run(made[-1], items, **fields)
        config_id = identity.config_id(system.conf)
        run = manifest.Manifest(**{**vars(run), "host": HOST, "config_id": config_id})
        stored_runs.put(place, run, key=key)
        stored_runs.age(folder, moment, made[-1])
    return made


def by_hand(system: System, *words: str, code: int = 0, bare: bool = False) -> str:
    """Run cleanup.py with this config; it must end with this code. Return what it printed."""
    program = str(project.ROOT / "cleanup/cleanup.py")
    config = () if bare else ("-c", str(system.conf))
    done = starter.run([program, *config, *words], os.environ, timeout=120)
    text = (done.stdout + done.stderr).decode()
    assert done.returncode == code, text
    assert "Traceback" not in text
    return text


def runs(system: System) -> list[str]:
    """The ids of the runs in the store."""
    return [run for name in system.names() if (run := manifest.run_of(name))]


def section(result: dict[str, Any], name: str = "CLEANUP") -> dict[str, Any]:
    """The result of one section."""
    (found,) = [one for one in result["sections"] if one["name"] == name]
    return dict(found)


def cleaning(system: System, **keys: Any) -> None:
    """Write a config with a CLEANUP section."""
    (system.source / "file").write_text("content")
    system.configure(system.short(CLEANUP=execute("cleanup", **keys)), STREAM="True")


def test_a_run_cleans_up_when_everything_is_stored(system: System) -> None:
    cleaning(system, KEEP_DAILY="3")
    old = older(system, 10)
    result = system.result()
    assert (result["exit_code"], section(result)["status"]) == (0, "ok")
    assert "8 runs removed, 3 runs stay" in section(result)["message"]
    assert runs(system) == [*old[-2:], result["run_id"]]
    assert not [name for name in system.names() if name.startswith(old[0])]
    system.restore("--verify", "latest")
    again = section(system.result())["message"]
    assert "0 runs removed" in again
