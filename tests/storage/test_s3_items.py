"""Items in buckets of S3: of more parts than an object may have, and in a cold class."""

from __future__ import annotations

import os

import pytest

from storage.s3_blocks import S3Blocks
from tests.s3_servers import BUCKET, S3Server
from tests.storage.bad_s3 import Answer, BadS3, Request, error
from tests.storage.s3_fault_kinds import PART
from tests.storage.s3_stores import opened
from tests.system import System, execute
from tests.tools import test_forms

MIB = 1 << 20


def test_an_item_of_more_parts_than_an_object_may_have(
    bad: BadS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CASES C6: an upload of 140 GiB ends, and the next object begins."""
    monkeypatch.setattr(S3Blocks, "max_blocks", 3)
    target = opened(bad)
    done, _ = test_forms.stored([target])
    whole, rest = divmod(len(test_forms.CONTENT), 3 * PART)
    assert [part.size for part in done.item.parts] == [3 * PART] * whole + [rest]
    assert max(request.number for request in bad.seen if request.operation == "UploadPart") == 3
    assert test_forms.back(done.item, target) == test_forms.CONTENT


@pytest.mark.fault(
    "the parts of a run lie in a cold storage class",
    "it is listed and shown; a restore names what must be thawed, exit 1, and asks once",
)
def test_a_run_in_a_cold_storage_class(system: System, bad: BadS3) -> None:
    """CASES C14: manifests, signatures, recovery sheets and markers stay STANDARD."""
    (system.source / "file").write_bytes(os.urandom(3 * MIB))
    cold: set[str] = set()

    def fault(_server: BadS3, request: Request, _count: int) -> Answer | None:
        if request.headers.get("x-amz-storage-class") == "GLACIER":
            cold.add(request.key)
        if request.operation == "GetObject" and request.key in cold:
            return error(403, "InvalidObjectState")
        return None

    bad.fault = fault
    server = S3Server(bad.endpoint)
    keys = {"BUCKET_NAME": BUCKET, "ENDPOINT_URL": bad.endpoint, "STORAGE_CLASS": "GLACIER"}
    sections = system.short(STORAGE=execute("storage", DESTINATION="s3", **keys))
    del sections["STORAGE_LOCAL"]
    system.configure(sections, STREAM="True")
    result = system.result(**server.environment)
    assert result["exit_code"] == 0, result
    assert len(cold) == 4
    assert all(key.rpartition(".")[2].startswith("00") for key in cold)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        assert "ok" in system.restore("--list")
        assert "FILESET" in system.restore("--show", "latest")
        before = len(bad.seen)
        output = system.restore(
            "--restore", "latest", "--destination", str(system.folder / "out"), code=1
        )
    (cold_key,) = (r.key for r in bad.seen[before:] if r.operation == "GetObject" and r.key in cold)
    assert "must be thawed first" in output
    assert f"aws s3api restore-object --bucket {BUCKET} --key {cold_key} " in output
