#!/usr/bin/env python3
"""The S3 store against AWS's own program on a server of this machine: time, CPU, memory.

    python3 benchmarks/s3.py [--size MB] [--runs N] [--only upload|small|list|cuts] [--aws PROGRAM]

Starts a SeaweedFS of its own. PROGRAM is `aws` (pip install awscli into a venv of its own).
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import os
import random
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks import staged
from benchmarks.streamed import incompressible, shown, signed_runs
from storage import s3_store
from storage.s3_options import Options
from tests import s3_servers
from tests.cutting_proxy import DOWN, UP, CuttingProxy
from tests.s3_servers import BUCKET
from tools.base import project
from tools.catalog import writer_key
from tools.flow import store, stream
from tools.flow.retries import Retries
from tools.flow.retrying_store import Retrying
from tools.modules.options import Duration

_SMALL, _SIZE = 1_000, 4 << 10
_THREADS = 8
_CUTS, _CUT, _SEED = 100, 33 << 20, 15  # stores, bytes of the object in each


def _store(endpoint: str, prefix: str, wait: float = 5.0) -> store.Store:
    return s3_store.open_store(
        Options(
            hostname="srv",
            bucket_name=BUCKET,
            prefix=prefix,
            endpoint_url=endpoint,
            retry_wait=Duration(wait),
        )
    )


def _upload(endpoint: str, prefix: str, path: str) -> None:
    """Store standard input, or the files of a folder, as a run does."""
    target = _store(endpoint, prefix)
    if path == "-":
        pieces = iter(lambda: sys.stdin.buffer.read(stream.CHUNK), b"")
        store.store_object(target, "srv/stream", stream.content(pieces))
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        files = sorted(Path(path).iterdir())
        list(pool.map(lambda f: store.store_object(target, f"srv/{f.name}", stream.read(f)), files))


class Bench:
    """Pairs of our upload and that of AWS's program, each to a prefix of its own."""

    def __init__(self, aws: str, runs: int) -> None:
        self.server = s3_servers.seaweedfs()
        self.aws = aws
        self.runs = runs
        os.environ.update(self.server.environment, AWS_DEFAULT_REGION="us-east-1")

    def ours(self, path: str) -> str:
        """Our command."""
        prefix = f"ours-{uuid.uuid4().hex}"
        program = f"{sys.executable} {project.ROOT}/benchmarks/s3.py"
        return f"{program} --child {self.server.endpoint} {prefix} {path}"

    def theirs(self, source: str) -> str:
        """Return the command of AWS."""
        return (
            f"{self.aws} --endpoint-url {self.server.endpoint} s3 cp --only-show-errors {source} "
            f"s3://{BUCKET}/theirs-{uuid.uuid4().hex}"
        )

    def pair(self, title: str, ours: str, theirs: str, source: str = "") -> None:
        """Measure both in turn and show them. source: what is piped into them"""
        measured: tuple[list[staged.Measured], list[staged.Measured]] = ([], [])
        for _ in range(self.runs):
            for number, command in enumerate((ours, theirs)):
                unique = command.replace("ours-", f"ours-{uuid.uuid4().hex}")
                unique = unique.replace("theirs-", f"theirs-{uuid.uuid4().hex}")
                piped = f"set -eo pipefail; {source}{unique}"
                measured[number].append(staged.measure(["bash", "-c", piped], 1, self.clear))
        shown(title, *measured)

    def clear(self) -> None:
        """Remove what earlier runs have stored: the server keeps all on one disk."""
        client = self.server.client()
        page = client.list_objects_v2(Bucket=BUCKET).get("Contents")
        while page:
            keys = [{"Key": entry["Key"]} for entry in page]
            client.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})
            page = client.list_objects_v2(Bucket=BUCKET).get("Contents")

    def upload(self, megabytes: int) -> None:
        """Measure one stream of unknown length."""
        file = incompressible(megabytes) / "random"
        title = f"stream of {megabytes} MB / aws s3 cp -"
        self.pair(title, self.ours("-"), self.theirs("-") + "/stream", f"cat {file} | ")

    def small(self) -> None:
        """Measure many small objects."""
        folder = Path(tempfile.mkdtemp(prefix="nc-backup-benchmark-"))
        for number in range(_SMALL):
            (folder / f"{number:04}").write_bytes(os.urandom(_SIZE))
        title = f"{_SMALL} objects of 4 KB / aws s3 cp --recursive"
        self.pair(title, self.ours(str(folder)), self.theirs(f"--recursive {folder}"))
        shutil.rmtree(folder)

    def listing(self) -> None:
        """Measure --list of a bucket with many signed runs."""
        self.clear()
        folder = Path(tempfile.mkdtemp(prefix="nc-backup-benchmark-"))
        path = folder / "writer.key"
        writer_key.create(path, "benchmark")
        key = writer_key.read(path)
        target = _store(self.server.endpoint, "runs")
        runs = [(f"benchmark/{name}", content) for name, content in signed_runs(key)]
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda one: store.store_object(target, one[0], [one[1]]), runs))
        signer = folder / "signer"
        signer.write_text(writer_key.allowed_signer("benchmark", key.public))
        address = ["--store", f"s3://{BUCKET}/runs", "--endpoint", self.server.endpoint]
        program = str(project.ROOT / "restore/restore.py")
        command = [sys.executable, program, *address, "--list", "--signer", str(signer)]
        done = staged.measure(command, self.runs, lambda: None)
        cpu = sum(done.cpu) / len(done.cpu)
        count = len(runs) // 2
        print(
            f"--list of {count} signed runs: {done.median:.2f} s, {cpu:.2f} CPU, {done.peak:.0f} MB"
        )
        shutil.rmtree(folder)

    def cuts(self) -> None:
        """Cut connections at random bytes, half of them in either direction."""
        proxy = CuttingProxy(int(self.server.endpoint.rpartition(":")[2]))
        rng = random.Random(_SEED)  # noqa: S311  (no secret)
        content = os.urandom(_CUT)
        for number in range(_CUTS):
            target = Retrying(_store(proxy.endpoint, f"cuts/{number}", 0), Retries(0))
            direction = (UP, DOWN)[number % 2]
            proxy.cut(direction, rng.randrange(1, _CUT + 20_000 if direction == UP else 20_000))
            for name, part in (("x", content), ("y", content[:1000])):
                store.store_object(target, f"srv/{name}", [part])
                if b"".join(target.get(f"srv/{name}")) != part:
                    sys.exit(f"cut {number}: srv/{name} is not what was stored")
        print(f"{proxy.cuts} connections cut in {_CUTS} stores: every object is whole")
        self.clear()


def main(argv: Sequence[str]) -> int:
    """Run the benchmarks; return the exit code."""
    if argv[:1] == ["--child"]:
        _upload(*argv[1:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", type=int, default=2_000, help="MB of the stream")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", choices=("", "upload", "small", "list", "cuts"))
    parser.add_argument("--aws", default=shutil.which("aws") or "aws")
    options = parser.parse_args(argv)
    os.environ["NC_TEST_WEED_VOLUME"] = "2048"
    print("load:", *os.getloadavg())
    bench = Bench(options.aws, options.runs)
    for name, work in {
        "upload": lambda: bench.upload(options.size),
        "small": bench.small,
        "list": bench.listing,
        "cuts": bench.cuts,
    }.items():
        if options.only in ("", name):
            work()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
