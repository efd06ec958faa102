"""The account of Aliyun OSS: its documented file, the environment, the endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from storage import oss_account, oss_store
from storage.keys import Address
from storage.oss_store import Options
from tools.base import masking
from tools.base.errors import ConfigError
from tools.modules.options import fill

SECRET = "x0Secret0Of0Thirty0Characters0"
# As the documented program left it, with what people have added.
DOCUMENTED = f"""\ufeff[INFO]: Start to config AliYun Open Storage Service.
# Backup Host is determined automatically.
access_id = "LTAI5tOfTheFile"   # of the RAM user
[OSSCredentials]
Host: storage.aliyun.com
this line has no value
ACCESS_KEY\t=\t{SECRET}
= nothing
bucket=from-the-file
[options]
retry_times = 15
multi-upload = on        # if the backup file size is more than 100MB
""".replace("\n", "\r\n")


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "alioss.conf"
    path.write_bytes(text.encode())
    path.chmod(mode)
    return path


def options(path: Path | None, **keys: str) -> Options:
    defaults = {"HOSTNAME": "srv", "DESTINATION": "oss"}
    defaults |= {"ALIYUN_CREDENTIALS": str(path)} if path else {}
    return fill(Options, {**defaults, **keys})


def test_the_documented_file(tmp_path: Path) -> None:
    """With lines outside sections, comments, and lines that are none of it."""
    path = written(tmp_path, DOCUMENTED)
    account = oss_account.of(options(path, ENDPOINT="oss-cn-hangzhou-internal.aliyuncs.com"))
    assert (account.key_id, account.secret, account.token) == ("LTAI5tOfTheFile", SECRET, "")
    assert account.bucket == "from-the-file"
    assert account.region == "cn-hangzhou"
    assert account.endpoint.url == "https://oss-cn-hangzhou-internal.aliyuncs.com"
    assert SECRET not in repr(account)
    assert masking.text(f"key {SECRET}") == "key ***"


def test_the_section_comes_before_the_file(tmp_path: Path) -> None:
    path = written(
        tmp_path, DOCUMENTED.replace("storage.aliyun.com", "oss-cn-beijing.aliyuncs.com")
    )
    keys = {"BUCKET_NAME": "of-the-section", "REGION": "oss-cn-shanghai"}
    account = oss_account.of(options(path, **keys))
    assert (account.bucket, account.region) == ("of-the-section", "cn-shanghai")
    assert account.endpoint.host == "oss-cn-beijing.aliyuncs.com"


def test_the_names_of_ossutil(tmp_path: Path) -> None:
    text = (
        "[Credentials]\nlanguage=EN\nendpoint=oss-eu-central-1.aliyuncs.com\n"
        f"accessKeyID=LTAIx\naccessKeySecret={SECRET}\nstsToken=a-token\n"
    )
    account = oss_account.of(options(written(tmp_path, text), BUCKET_NAME="bucket"))
    assert (account.key_id, account.secret, account.token) == ("LTAIx", SECRET, "a-token")
    assert account.region == "eu-central-1"


def test_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the section names no file; bucket and host are then those of the default file."""
    monkeypatch.setenv("OSS_ACCESS_KEY_ID", "LTAIenvironment")
    monkeypatch.setenv("OSS_ACCESS_KEY_SECRET", SECRET)
    default = written(tmp_path, DOCUMENTED)
    monkeypatch.setattr(oss_account, "DEFAULT_FILE", default)
    account = oss_account.of(options(None, ENDPOINT="oss-cn-beijing.aliyuncs.com"))
    assert (account.key_id, account.source, account.bucket) == (
        *("LTAIenvironment", "environment", "from-the-file"),
    )
    named = oss_account.of(options(default, ENDPOINT="oss-cn-beijing.aliyuncs.com"))
    assert named.key_id == "LTAI5tOfTheFile"
    monkeypatch.delenv("OSS_ACCESS_KEY_ID")
    account = oss_account.of(options(None, ENDPOINT="oss-cn-beijing.aliyuncs.com"))
    assert account.key_id == "LTAI5tOfTheFile"


HOST = "host = oss-cn-beijing.aliyuncs.com\n"
KEYS = f"access_id = LTAIx\naccess_key = {SECRET}\n"


@pytest.mark.parametrize(
    ("text", "keys", "says", "hint"),
    [
        (f"access_key={SECRET}\n{HOST}", {}, "access_id is missing", "access_id = "),
        (f"access_id=LTAIx\n{HOST}", {}, "access_key is missing", "access_key = "),
        ("", {}, "access_id is missing", "RAM user"),
        (KEYS, {"BUCKET_NAME": "bucket"}, "host is missing", "Set ENDPOINT"),
        (KEYS + HOST, {}, "BUCKET_NAME: is missing", "name of the bucket"),
        (KEYS + HOST + "bucket = Some/Bucket", {}, "'Some/Bucket': not the name", "PREFIX"),
        (KEYS + "host = storage.aliyun.com", {"BUCKET_NAME": "bucket"}, "no longer answers",
         "oss-cn-hangzhou.aliyuncs.com"),
        (f"access_id=LTAIx\naccess_key={SECRET} and\x00more\n{HOST}", {}, "control character",
         "one line"),
    ],
)  # fmt: skip
def test_what_a_file_lacks(
    tmp_path: Path, text: str, keys: dict[str, str], says: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        oss_account.of(options(written(tmp_path, text), **keys))
    assert says in str(caught.value)
    assert hint in caught.value.hint
    assert SECRET not in str(caught.value)


def test_a_file_that_others_can_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ALIYUN_CREDENTIALS: .*everybody"):
        oss_account.of(options(written(tmp_path, DOCUMENTED, 0o644)))


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.conf: no such file") as caught:
        oss_account.of(options(tmp_path / "none.conf"))
    assert "OSS_ACCESS_KEY_ID" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "url", "region", "internal", "other"),
    [
        ("oss-cn-hangzhou.aliyuncs.com", "https://oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou",
         False, "oss-cn-hangzhou-internal.aliyuncs.com"),
        ("http://oss-cn-shenzhen-internal.aliyuncs.com/",
         "http://oss-cn-shenzhen-internal.aliyuncs.com", "cn-shenzhen", True,
         "oss-cn-shenzhen.aliyuncs.com"),
        ("oss.aliyuncs.com", "https://oss.aliyuncs.com", "cn-hangzhou", False,
         "oss-internal.aliyuncs.com"),
        ("vpc100-oss-cn-hangzhou.aliyuncs.com", "https://vpc100-oss-cn-hangzhou.aliyuncs.com",
         "cn-hangzhou", False, "vpc100-oss-cn-hangzhou-internal.aliyuncs.com"),
        ("cn-hangzhou.oss.aliyuncs.com", "https://cn-hangzhou.oss.aliyuncs.com", "cn-hangzhou",
         False, ""),
        ("oss-accelerate.aliyuncs.com", "https://oss-accelerate.aliyuncs.com", "", False, ""),
        ("bucket.oss-us-west-1.aliyuncs.com", "https://oss-us-west-1.aliyuncs.com", "us-west-1",
         False, "oss-us-west-1-internal.aliyuncs.com"),
        ("http://10.0.0.5:9000", "http://10.0.0.5:9000", "", False, ""),
        ("oss.example.org", "https://oss.example.org", "", False, ""),
    ],
)  # fmt: skip
def test_endpoints(text: str, url: str, region: str, internal: bool, other: str) -> None:
    endpoint = oss_account.endpoint(text, "ENDPOINT", "bucket")
    assert (endpoint.url, endpoint.region, endpoint.internal, endpoint.other) == (
        url,
        region,
        internal,
        other,
    )


@pytest.mark.parametrize(
    ("text", "exposed"),
    [
        ("http://oss-cn-hangzhou.aliyuncs.com", True),
        ("http://oss-cn-hangzhou-internal.aliyuncs.com", False),
        ("oss-cn-hangzhou.aliyuncs.com", False),
        ("http://10.0.0.5:9000", False),
    ],
)
def test_plain_http_inside_aliyun_passes_no_public_network(text: str, exposed: bool) -> None:
    assert oss_account.endpoint(text, "ENDPOINT").is_exposed is exposed


@pytest.mark.parametrize(
    "text",
    ["ftp://oss.example.org", "https://", "oss.example.org/path", "https://u:p@oss.example.org",
     "oss example", "https://oss.example.org:99999", "s3.oss-cn-hangzhou.aliyuncs.com", "a\nb",
     "https://oss.example.org?a=b", "storage.aliyun.com", "http://["],
)  # fmt: skip
def test_endpoints_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        options(None, ENDPOINT=text)
    assert str(caught.value).startswith("ENDPOINT: ")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"BUCKET_NAME": "oss://bucket"}, "BUCKET_NAME: 'oss://bucket'"),
        ({"BUCKET_NAME": "Bucket"}, "BUCKET_NAME: 'Bucket'"),
        ({"PREFIX": "a/../b"}, "PREFIX"),
        ({"STORAGE_CLASS": "GLACIER"}, "STORAGE_CLASS"),
        ({"PART_SIZE": "1000"}, "PART_SIZE"),
        ({"PART_SIZE": "4"}, "PART_SIZE"),
        ({"READ_TIMEOUT": "0"}, "READ_TIMEOUT"),
    ],
)
def test_keys_that_are_rejected(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        options(None, **keys)


def test_an_address() -> None:
    address = Address.parse("bucket/servers/a", "oss-cn-hangzhou.aliyuncs.com")
    keys = {"BUCKET_NAME": "bucket", "PREFIX": "servers/a"}
    assert oss_store.keys_of(address) == {**keys, "ENDPOINT": "oss-cn-hangzhou.aliyuncs.com"}
    for text in ("", "user@bucket/a", "bucket:80/a"):
        with pytest.raises(ConfigError, match="oss:// needs a bucket"):
            oss_store.keys_of(Address.parse(text))


def test_where_the_objects_lie(tmp_path: Path) -> None:
    """The bucket may stand in the file alone; a message needs it before the file is there."""
    path = written(tmp_path, DOCUMENTED)
    keys = {"PREFIX": "/a/b/", "ENDPOINT": "oss-cn-beijing.aliyuncs.com"}
    assert oss_store.describe(options(path, **keys)) == "oss://from-the-file/a/b/srv"
    missing = oss_store.describe(options(tmp_path / "none", **keys))
    assert missing == "oss://bucket of ALIYUN_CREDENTIALS/a/b/srv"
    assert oss_store.describe(options(None, BUCKET_NAME="given")) == "oss://given/srv"
