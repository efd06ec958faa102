"""Several stores in one run: each has its own result, and REQUIRED says what counts as stored."""

from __future__ import annotations

from typing import Any

import pytest

from tests.filesets import facts
from tests.system import System, execute
from tools.base.errors import ConfigError
from tools.config import loading

STREAMED = pytest.mark.parametrize("streamed", ["True", "False"], ids=["streamed", "staged"])


def second(system: System, *, good: bool, **more: Any) -> dict[str, Any]:
    """A further local store; a bad one is a file where its folder should be."""
    folder = system.folder / "second"
    if not good:
        folder.write_text("no folder")
    store = execute("storage", DESTINATION="local", LOCAL_BACKUP=str(folder))
    return {"SECOND": {**store, **more}}


@STREAMED
def test_each_store_has_its_own_result(system: System, streamed: str) -> None:
    (system.source / "file").write_text("content")
    system.configure({**system.full_sections(), **second(system, good=False)}, STREAM=streamed)
    result = system.result()
    by_name = {section["name"]: section["status"] for section in result["sections"]}
    assert (result["exit_code"], by_name["STORAGE_LOCAL"], by_name["SECOND"]) == (1, "ok", "failed")
    assert facts(system.restored() / "FILESET" / system.source.relative_to("/")) == facts(
        system.source
    )


@pytest.mark.fault(
    "a store that is not required fails",
    "exit 3, it is named; the run counts as stored, and its sources are removed",
)
@STREAMED
def test_a_store_that_is_not_required(system: System, streamed: str) -> None:
    (system.source / "file").write_text("content")
    stores = {**system.full_sections(), **second(system, good=False, REQUIRED="False")}
    system.configure(stores, STREAM=streamed)
    result = system.result()
    (failed,) = [section for section in result["sections"] if section["name"] == "SECOND"]
    assert (result["exit_code"], failed["status"]) == (3, "incomplete")
    assert failed["message"].startswith("not required, and failed: ")
    assert failed["hint"]
    assert not list(system.work.glob("encrypted/*"))
    system.restore("--verify", "latest")


@STREAMED
def test_a_run_that_no_store_holds_has_failed(system: System, streamed: str) -> None:
    (system.source / "file").write_text("content")
    stores = {**system.full_sections(), **second(system, good=False, REQUIRED="False")}
    del stores["STORAGE_LOCAL"]
    system.configure(stores, STREAM=streamed)
    assert system.result()["exit_code"] == 1


def test_only_a_store_is_required(system: System) -> None:
    sections = system.full_sections()
    sections["FILESET"]["REQUIRED"] = "False"
    system.configure(sections)
    with pytest.raises(ConfigError, match=r"FILESET.REQUIRED: is a key of stores"):
        loading.load(system.conf)
