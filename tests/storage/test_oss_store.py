"""The store of Aliyun OSS: signatures, proofs, create-only, listings, what `-t` says."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from storage import crc64, oss_store
from storage.crc_sums import CRC64
from storage.oss_blocks import OssBlocks
from storage.oss_client import Body, Client
from storage.oss_store import OssStore
from tests import oss_server
from tests.oss_bucket import Answer, Object, Request
from tests.oss_server import KEY_ID, SECRET, Handler, OssServer, Proceed
from tests.storage import oss_stores
from tests.storage.oss_cases import damaged, says
from tools.base import project
from tools.base.errors import ConfigError, StoreError, TakenError
from tools.base.finding import Level
from tools.flow import store
from tools.flow.retries import Retries
from tools.flow.retrying_store import Retrying
from tools.flow.store import CreateOnly

pytestmark = pytest.mark.needs("oss2")
QUIET = Retries(0, say=lambda _line: None)
LARGE = bytes(range(256)) * 14
BLOCK = 1_000


@pytest.fixture
def oss() -> OssServer:
    """The server of this process."""
    return oss_stores.server()


def opened(folder: Path, bucket: str, **keys: str) -> OssStore:
    options = oss_stores.options(folder, bucket, **keys)
    client = Client(options, lambda account: options.url(account.bucket))
    of_class = options.storage_class
    return OssStore(OssBlocks(client, prefix="", block_size=BLOCK, storage_class=of_class), QUIET)


# --- checksums


def test_the_crc_is_that_of_oss() -> None:
    """The check value of CRC-64/XZ; that of parts together is that of the whole."""
    compiled = crc64.compiled()
    assert compiled is not None
    assert compiled(b"123456789") == 0x995DC9BBDF1939FA
    for cuts in ((0, 5, 5, 9), (0, 1, 3_000, len(LARGE)), (0, len(LARGE))):
        content = LARGE[: cuts[-1]]
        pieces = [content[one:other] for one, other in itertools.pairwise(cuts)]
        parts = [(compiled(piece), len(piece)) for piece in pieces]
        assert CRC64.whole(parts) == compiled(content)
    assert CRC64.whole([]) == 0


def test_without_compiled_code_each_part_has_an_md5(
    oss: OssServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python alone would take a minute for a part; the whole is compared with the server's CRC."""
    name, bucket = oss.bucket(min_part=1)
    seen: list[bool] = []

    def observed(handler: Handler, _request: object, proceed: Proceed) -> Answer:
        seen.append("Content-MD5" in handler.headers)
        return proceed()

    with monkeypatch.context() as patch:
        patch.setattr(crc64, "compiled", lambda: None)
        target = opened(tmp_path, name)
    store.store_object(target, "srv/before", [LARGE])
    oss.script("UploadPart", observed, times=3)
    oss.script("UploadPart", damaged)
    store.store_object(target, "srv/x", [LARGE])
    assert bucket.objects["srv/x"].content == LARGE
    assert seen == [True] * 3


def test_only_the_version_that_was_made_is_removed_again(oss: OssServer, tmp_path: Path) -> None:
    """In a bucket with versions, where the name may have had an object before."""
    name, bucket = oss.bucket()
    target = opened(tmp_path, name)
    store.store_object(target, "srv/before", [b"content"])
    before = set(bucket.objects)
    queries: list[object] = []

    def observed(_handler: Handler, request: Request, proceed: Proceed) -> Answer:
        queries.append(request.query)
        return proceed()

    def spoiled(_handler: Handler, request: Request, proceed: Proceed) -> Answer:
        proceed()
        bucket.objects[request.key] = Object(b"spoiled")
        return Answer(200, b"", {**Object(b"spoiled").headers, "x-oss-version-id": "CAEQ1"})

    oss.script("PutObject", spoiled)
    oss.script("DeleteObject", observed)
    with pytest.raises(StoreError, match="other bytes"):
        store.store_object(target, "srv/x", [b"content"])
    assert queries == [{"versionId": "CAEQ1"}]
    assert set(bucket.objects) == before
    oss.script("PutObject", spoiled)
    oss.script("DeleteObject", says(403, "AccessDenied"))
    with pytest.raises(StoreError, match="different content"):
        store.store_object(target, "srv/y", [b"content"])


def test_a_body_is_sent_in_pieces() -> None:
    """One call for a whole part would have to end within the time limit of one answer."""
    body = Body(bytearray(b"0123456789"))
    assert len(body) == 10
    assert [body.read(4), body.read(4), body.read(4), body.read(4)] == [
        b"0123",
        b"4567",
        b"89",
        b"",
    ]
    assert b"".join(Body(b"0123456789")) == Body(b"0123456789").read() == b"0123456789"


# --- credentials


@pytest.mark.parametrize(("region", "version"), [("cn-hangzhou", "OSS4-HMAC-SHA256"), ("", "OSS")])
def test_the_signature_is_v4_where_the_region_is_known(
    oss: OssServer, tmp_path: Path, region: str, version: str
) -> None:
    name, bucket = oss.bucket(min_part=1, page=1)
    target = opened(tmp_path, name, **({"REGION": region} if region else {"REGION": ""}))
    store.store_object(target, "srv/a b.000", [LARGE])
    store.store_object(target, "srv/c", [b"small"])
    assert [one.name for one in target.entries("srv")] == ["srv/a b.000", "srv/c"]
    target.remove(["srv/c"])
    assert b"".join(target.get("srv/a b.000", 5)) == LARGE[5:]
    assert oss.signatures == {version}
    assert "srv/c" not in bucket.objects


@pytest.mark.fault(
    "temporary credentials of Aliyun OSS expire",
    "they are read again; the same ones are an error that names the key",
)
def test_expired_credentials_are_read_again(oss: OssServer, tmp_path: Path) -> None:
    """A token that another program renews in the file; the same one again is an error."""
    name, bucket = oss.bucket(min_part=1)
    oss.secrets["STS.first"], oss.tokens["STS.first"] = SECRET, "token-1"
    token = {"access_id": "STS.first", "sts_token": "token-1"}
    target = opened(tmp_path, name)
    path = tmp_path / "alioss.conf"
    oss_server.credentials(tmp_path, oss, name, **token)
    target = OssStore(_blocks(path), QUIET)
    store.store_object(target, "srv/before", [LARGE])
    oss.tokens["STS.first"] = "token-2"
    oss_server.credentials(tmp_path, oss, name, **{**token, "sts_token": "token-2"})
    store.store_object(target, "srv/x", [LARGE])
    assert bucket.objects["srv/x"].content == LARGE
    oss.tokens["STS.first"] = "token-3"
    with pytest.raises(StoreError, match=r"credentials expired \(the access key ...irst"):
        store.store_object(target, "srv/y", [LARGE])


def _blocks(path: Path) -> OssBlocks:
    from tools.modules.options import fill

    settings = {"HOSTNAME": "srv", "DESTINATION": "oss", "ALIYUN_CREDENTIALS": str(path)}
    options = fill(oss_store.Options, {**settings, "REGION": oss_server.REGION})
    return OssBlocks(Client(options, lambda account: account.bucket), prefix="", block_size=BLOCK)


def test_a_password_of_netrc_is_not_sent(
    oss: OssServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """requests would put it in the place of the signature."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    name, _ = oss.bucket()
    store.store_object(opened(tmp_path, name), "srv/x", [b"content"])


def test_an_internal_endpoint_that_cannot_be_reached(tmp_path: Path) -> None:
    """No name of it exists for other machines; here its resolution is refused at once."""
    path = oss_server.credentials(tmp_path, oss_stores.server(), "bucket")
    options = oss_stores.options(
        tmp_path, "bucket", ENDPOINT="oss-cn-none-internal.aliyuncs.com", CONNECT_TIMEOUT="0.2"
    )
    assert path.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTPS_PROXY", "")
        patch.setattr("socket.getaddrinfo", _unknown)
        with pytest.raises(StoreError, match="oss-cn-none-internal") as caught:
            oss_store.test(options)
    assert "only inside Aliyun" in caught.value.hint
    assert "oss-cn-none.aliyuncs.com" in caught.value.hint


def _unknown(*_arguments: object, **_more: object) -> None:
    import socket

    raise socket.gaierror(-2, "Name or service not known")


# --- create-only


@pytest.mark.fault(
    "a bucket of Aliyun OSS with versioning ignores forbid-overwrite",
    "names are listed before, and the result says so",
)
def test_a_bucket_with_versions_is_told(oss: OssServer, tmp_path: Path) -> None:
    """It ignores forbid-overwrite: names are listed before, and the result says so."""
    name, bucket = oss.bucket(min_part=1)
    bucket.versioning = "Enabled"
    target = opened(tmp_path, name)
    store.store_object(target, "srv/small", [b"first"])
    store.store_object(target, "srv/large", [LARGE])
    assert target.create_only is CreateOnly.LISTED
    assert target.note() == "create-only by our own listing only"
    for one, content in (("srv/small", b"second"), ("srv/large", LARGE[::-1])):
        with pytest.raises(TakenError, match="different content"):
            store.store_object(opened(tmp_path, name), one, [content])
    assert bucket.objects["srv/small"].content == b"first"
    assert bucket.objects["srv/large"].content == LARGE
    assert bucket.uploads == {}


def test_create_only_is_proven_once_for_each_call(oss: OssServer, tmp_path: Path) -> None:
    name, bucket = oss.bucket(min_part=1)
    target = opened(tmp_path, name)
    store.store_object(target, "srv/small", [b"first"])
    assert target.create_only is CreateOnly.PROBED
    assert oss.requests == ["PutObject"] * 3
    store.store_object(target, "srv/large", [LARGE])
    assert target.create_only is CreateOnly.PROBED
    assert target.note() == ""
    assert bucket.uploads == {}
    oss.requests.clear()
    store.store_object(opened(tmp_path, name), "srv/other", [b"of a later run"])
    assert oss.requests == ["PutObject"] * 2


def test_a_probe_that_is_not_allowed(oss: OssServer, tmp_path: Path) -> None:
    """Credentials for the folder of one host: its backups are stored, and nothing is claimed."""
    name, bucket = oss.bucket()
    oss.script("PutObject", says(403, "AccessDenied"))
    target = opened(tmp_path, name)
    store.store_object(target, "srv/x", [b"content"])
    assert target.create_only is CreateOnly.LISTED
    assert set(bucket.objects) == {"srv/x"}


def test_the_storage_class_is_that_of_parts_alone(oss: OssServer, tmp_path: Path) -> None:
    name, bucket = oss.bucket(min_part=1)
    target = opened(tmp_path, name, STORAGE_CLASS="IA")
    for one in ("srv/1.x.000", "srv/1.x.001", "srv/1.manifest.json", "srv/1.manifest.json.sig"):
        store.store_object(target, one, [LARGE if one.endswith("001") else b"small"])
    classes = {key: one.storage_class for key, one in bucket.objects.items()}
    assert {key for key, one in classes.items() if one == "IA"} == {"srv/1.x.000", "srv/1.x.001"}


# --- reading


def test_a_download_goes_on_where_it_stopped(oss: OssServer, tmp_path: Path) -> None:
    """By a range of the same object; of another one nothing is read."""
    name, bucket = oss.bucket()
    content = bytes(range(251)) * 4_000
    bucket.objects["srv/x"] = Object(content)
    ranges: list[str] = []

    def shortened(handler: Handler, _request: Request, proceed: Proceed) -> Answer:
        ranges.append(handler.headers.get("Range", ""))
        answer = proceed()
        answer.headers["Content-Length"] = str(len(answer.body))
        answer.body = answer.body[:600_000]
        handler.close_connection = True
        return answer

    target = Retrying(opened(tmp_path, name), QUIET)
    oss.script("GetObject", shortened, times=2)
    assert b"".join(target.get("srv/x")) == content
    assert ranges[0] == ""
    assert ranges[1].startswith("bytes=")
    oss.script("GetObject", shortened)
    chunks = target.get("srv/x")
    assert content.startswith(next(chunks))
    bucket.objects["srv/x"] = Object(content[::-1])
    with pytest.raises(StoreError, match="has changed while it was read"):
        list(chunks)


# --- listing


def test_ten_thousand_runs(oss: OssServer, tmp_path: Path) -> None:
    name, bucket = oss.bucket()
    bucket.objects = {f"srv/{number:05}": Object(b"") for number in range(10_001)}
    target = opened(tmp_path, name)
    names = [one.name for one in target.entries("srv")]
    assert names == sorted(bucket.objects)
    oss.requests.clear()
    target.remove(names)
    assert bucket.objects == {}
    assert oss.requests == ["DeleteMultipleObjects"] * 11


# --- log and messages


def test_what_a_test_says(oss: OssServer, tmp_path: Path) -> None:
    name, bucket = oss.bucket()
    options = oss_stores.options(tmp_path, name, PREFIX="a")
    finding, proof, written, removing, clock = oss_store.test(options)
    assert written.text.endswith(": objects can be written")
    assert "objects can be removed" in removing.text
    assert "clock" in clock.text
    assert bucket.objects == {}
    assert "create-only: each run proves it with nc-backup-py.store/" in proof.text
    assert finding.level is Level.OK
    assert finding.text == (
        f"oss://{name}/a: endpoint {oss.url}, region cn-hangzhou, signature V4, access key "
        f"...{KEY_ID[-4:]} (from ALIYUN_CREDENTIALS: {options.aliyun_credentials})"
    )
    assert not {"PutObject", "CompleteMultipartUpload"} & set(oss.requests)
    bucket.versioning = "Suspended"
    assert [one.level for one in oss_store.test(options)[:2]] == [Level.OK, Level.WARN]
    oss.script("GetBucketVersioning", says(403, "AccessDenied"))
    assert [one.level for one in oss_store.test(options)[:2]] == [Level.OK, Level.OK]
    oss.script("ListObjectsV2", says(403, "AccessDenied"))
    with pytest.raises(StoreError, match="ListObjectsV2: access denied") as caught:
        oss_store.test(options)
    assert "oss:ListObjects" in caught.value.hint


def test_a_test_leaves_nothing_that_grows(oss: OssServer, tmp_path: Path) -> None:
    """A bucket that keeps versions, and an account that may not abort or remove them."""
    name, bucket = oss.bucket()
    options = oss_stores.options(tmp_path, name)
    bucket.versioning = "Enabled"
    oss_store.test(options)
    assert bucket.versions.entries == []
    forbidden = says(403, "AccessDenied")
    for operation in ("AbortMultipartUpload", "DeleteObject"):
        oss.script(operation, forbidden, times=2, skip=1 if operation == "DeleteObject" else 0)
    warnings = [one.text for one in oss_store.test(options) if one.level is Level.WARN]
    assert any("cannot be aborted: " in text for text in warnings)
    assert len(bucket.versions.entries) == len(bucket.uploads) == 1
    assert any("of an earlier test is still there" in one.text for one in oss_store.test(options))
    assert len(bucket.versions.entries) == len(bucket.uploads) == 1


def test_an_account_that_may_only_add(oss: OssServer, tmp_path: Path) -> None:
    options = oss_stores.options(tmp_path, oss.bucket()[0])
    oss.script("DeleteObject", says(403, "AccessDenied"), times=2)
    assert any("append-only: this account" in one.text for one in oss_store.test(options))
    assert oss_store.open_store(options).may_remove("srv") is False  # type: ignore[attr-defined]
    oss.script("InitiateMultipartUpload", says(403, "AccessDenied"), times=2)
    assert [one.level for one in oss_store.test(options)][2] is Level.BAD


def test_what_a_retention_policy_means(oss: OssServer, tmp_path: Path) -> None:
    name, bucket = oss.bucket()
    bucket.worm = "Locked"
    finding = oss_store.test(oss_stores.options(tmp_path, name))[2]
    assert finding.level is Level.OK
    assert "runs older than 30 days are not protected; 30 days of daily change" in finding.text
    bucket.worm = "InProgress"
    finding = oss_store.test(oss_stores.options(tmp_path, name))[2]
    assert finding.level is Level.WARN


_RULE = "<Rule><ID>old</ID><Prefix>{}</Prefix><Status>Enabled</Status>{}</Rule>"
_EXPIRES = "<Expiration><Days>30</Days></Expiration>"
_MOVES = "<Transition><Days>9</Days><StorageClass>{}</StorageClass></Transition>"
_ABORTS = "<AbortMultipartUpload><Days>{}</Days></AbortMultipartUpload>"
_TAGGED = "<Tag><Key>k</Key><Value>v</Value></Tag>"


@pytest.mark.parametrize(
    ("prefix", "rule", "level", "says"),
    [
        ("", _EXPIRES, Level.BAD, "removes backups"),
        ("a/srv/2026", _EXPIRES, Level.BAD, "removes backups"),
        ("a/other", _EXPIRES, None, ""),
        ("", _EXPIRES + _TAGGED, None, ""),
        ("a/", _MOVES.format("ColdArchive"), Level.BAD, "to ColdArchive"),
        ("a/", _MOVES.format("IA"), None, ""),
        ("", _ABORTS.format(3), Level.WARN, "after 3 days"),
        ("", _ABORTS.format(7), None, ""),
    ],
)
def test_rules_that_remove_backups(
    oss: OssServer, tmp_path: Path, prefix: str, rule: str, level: Level | None, says: str
) -> None:
    name, bucket = oss.bucket()
    bucket.rules = _RULE.format(prefix, rule)
    findings = oss_store.test(oss_stores.options(tmp_path, name, PREFIX="a"))[2:-3]
    assert [one.level for one in findings] == ([level] if level else [])
    assert all("the lifecycle rule old " in one.text and says in one.text for one in findings)
    bucket.rules = bucket.rules.replace("Enabled", "Disabled")
    assert len(oss_store.test(oss_stores.options(tmp_path, name, PREFIX="a"))) == 5


def test_without_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "oss2", None)
    with pytest.raises(ConfigError, match="needs the packages oss2") as caught:
        oss_store.open_store(oss_stores.options(tmp_path, "bucket"))
    assert "pip install oss2" in caught.value.hint


def test_a_run_without_oss_does_not_import_it(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from storage import storage\n"
        "from tools.modules.options import fill\n"
        f"given = {{'HOSTNAME': 'srv', 'LOCAL_BACKUP': {str(tmp_path)!r}}}\n"
        "storage.open_store(fill(storage.Options, given))\n"
        "print(sorted({'oss2', 'crcmod', 'Crypto', 'aliyunsdkcore'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
