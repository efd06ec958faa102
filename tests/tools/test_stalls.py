"""A store that is silent ends a restore, a copy and a staged run: nobody waits for ever."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system import System, execute
from tools.base import project
from tools.flow import stalls, task
from tools.flow.memory_store import MemoryStore
from tools.flow.task import StoppedError, Task

KERNEL = """
import sys, time
from tools.flow import stalls, task
task.GRACE = 0.2
stalls.watched(0.2, lambda: time.sleep(60))
"""


class Silent(MemoryStore):
    """Answers nothing; its waits ask `check` now and then, as those of the real ones."""

    def get(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        yield from super().get(name, start, end)
        while True:
            task.current().check()
            time.sleep(0.01)


def test_a_call_without_an_answer_is_stopped() -> None:
    with task.entered(Task()):
        store = stalls.watched(0.3, Silent)
        store.put("h/a", [b"x"])
        store.publish(["h/a"])
        chunks = store.get("h/a")
        assert next(chunks) == b"x"
        with pytest.raises(StoppedError, match=r"not answered for 0\.3 s \(STALL_TIMEOUT\)"):
            next(chunks)
        with pytest.raises(StoppedError):
            store.publish(["h/a"])  # it is not asked again


def test_a_slow_user_of_a_store_is_none_of_its_faults() -> None:
    def slow() -> Iterator[bytes]:
        for _ in range(2):
            time.sleep(0.5)
            yield b"x"

    with task.entered(Task()):
        store = stalls.watched(0.3, MemoryStore)
        store.put("h/a", slow())
        store.publish(["h/a"])
        for _chunk in store.get("h/a"):
            time.sleep(0.5)
        store.remove(["h/a"])


def test_bytes_that_move_are_no_silence() -> None:
    def opened() -> MemoryStore:
        for _ in range(5):
            time.sleep(0.15)
            task.current().touch()
        return MemoryStore()

    list(stalls.watched(0.3, opened).folders())


@pytest.mark.fault(
    "a store on a mount that does not answer, in a restore", "it ends after STALL_TIMEOUT"
)
def test_a_wait_inside_the_kernel_ends_the_program() -> None:
    command = [sys.executable, "-c", KERNEL]
    done = subprocess.run(
        command, cwd=project.ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the store has not answered for 0.2 s (STALL_TIMEOUT)\n")
    assert "hint: Check the server or the mount" in done.stderr


def command_store(system: System) -> dict[str, Any]:
    """A section that stores by commands, which wait with parts once `quiet` is there."""
    quiet, folder = system.folder / "quiet", system.folder / "far"
    folder.mkdir()
    waits = f"case %(file)s in *.age.*) test -e {quiet} && exec sleep 300;; esac"
    programs = {
        "UPLOAD": f"bash -c '{waits}; cat > {folder}/%(file)s'",
        "DOWNLOAD": f"bash -c '{waits}; cat {folder}/%(file)s'",
    }
    keys = {f"{name}_COMMAND_TEMPLATE": command for name, command in programs.items()}
    return execute("storage", DESTINATION="command", **keys)


@pytest.mark.fault(
    "a store that takes no more data, in a staged run and in a restore",
    "they end after STALL_TIMEOUT; the next run stores what waits",
)
def test_a_staged_run_and_a_restore_end(system: System) -> None:
    (system.source / "file").write_text("content")
    sections = {**system.short(), "STORAGE_LOCAL": command_store(system)}
    system.configure(sections)
    assert system.result()["exit_code"] == 0
    quiet = system.folder / "quiet"
    quiet.touch()
    system.configure(sections, STALL_TIMEOUT="2s")
    result = system.result()
    assert result["exit_code"] == 1
    message = result["sections"][-1]["message"]
    assert "not answered for 2 s (STALL_TIMEOUT)" in message, message
    output = system.restore(
        "--restore", "latest", "--destination", str(system.folder / "out"), code=1
    )
    assert "not answered for 2 s (STALL_TIMEOUT)" in output
    assert not (system.folder / "out/FILESET").exists()
    quiet.unlink()
    system.configure(sections)
    assert system.result()["exit_code"] == 0
