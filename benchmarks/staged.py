#!/usr/bin/env python3
"""A staged run against the same work by standard programs: time, memory, start-up.

    python3 benchmarks/staged.py [--size MB] [--files N] [--runs N]

Needs age, zstd, openssl and tar. The tree is kept in the temporary folder.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import tree as tree_of
from tools.base import project
from tools.catalog import writer_key

ROOT = project.ROOT
PART = 100  # MB of one part
# the code is compiled once, as in a release that setup.py installs
_COMPILED = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


@dataclass(frozen=True)
class Measured:
    """Seconds and processor seconds of each run; the highest memory of any process, in MB."""

    seconds: tuple[float, ...]
    peak: float
    cpu: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        """Return the median of the seconds."""
        return statistics.median(self.seconds)


def measure(command: list[str], runs: int, before: Callable[[], None]) -> Measured:
    """Run a command so many times; `before` each of them, untimed."""
    seconds = []
    cpu = []
    peak = 0.0
    for _ in range(runs):
        before()
        os.sync()
        began = time.monotonic()
        # a process of its own asks for the peak of all its descendants (getrusage(2))
        code = (
            "import resource, subprocess, sys\n"
            "code = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL).returncode\n"
            "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
            "print()\n"
            "print(used.ru_utime + used.ru_stime, used.ru_maxrss)\n"
            "sys.exit(code)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *command],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env=_COMPILED,
        )
        seconds.append(time.monotonic() - began)
        if done.returncode != 0:
            sys.exit(f"{command[:4]} ended with exit code {done.returncode}")
        used, most = done.stdout.split()[-2:]
        cpu.append(float(used))
        peak = max(peak, int(most) / 1024)
    return Measured(tuple(seconds), peak, tuple(cpu))


class Bench:
    """The place where everything is measured, and what is measured there."""

    def __init__(self, tree: Path, folder: Path, runs: int) -> None:
        self.tree = tree
        self.folder = folder
        self.runs = runs
        self.out = folder / "out"
        self.key = folder / "key_file"
        encryption = str(ROOT / "encryption/encryption.py")
        keygen = [sys.executable, encryption, "--KEYGEN", "--KEY_FILE", str(self.key)]
        subprocess.run(keygen, check=True, capture_output=True)
        keygen_output = subprocess.run(
            ["age-keygen", "-y", self.key], check=True, capture_output=True, text=True
        )
        self.recipient = keygen_output.stdout.strip()
        self.encryption = [sys.executable, encryption, "--HOME_FOLDER", str(ROOT)]
        self.writer_key = folder / "writer.key"
        writer_key.create(self.writer_key, "benchmark")
        self.signer = folder / "signer"
        public = writer_key.read(self.writer_key).public
        self.signer.write_text(writer_key.allowed_signer("benchmark", public))
        self.conf = self._conf()

    def _conf(self, **general: str) -> Path:
        sections = {
            "GENERAL": {
                "HOSTNAME": "benchmark",
                "WORK_FOLDER": str(self.out / "work"),
                "LOCAL_BACKUP": str(self.out / "store"),
                "HOME_FOLDER": str(ROOT),
                "LOG_FOLDER": str(self.folder / "log"),
                "WRITER_KEY": str(self.writer_key),
                "ALLOW_ROOT": "True",
                "DISK_SPACE_CHECK": "False",
                **general,
            },
            "FILESET": _execute("filesbackup", FILESET_INCLUDE=str(self.tree)),
            "COMPRESSION": _execute("compression"),
            "ENCRYPTION": _execute("encryption", KEY_FILE=str(self.key), FILE_SIZE=str(PART)),
            "STORAGE": _execute("storage", DESTINATION="local"),
        }
        conf = self.folder / "conf.json"
        conf.write_text(json.dumps(sections), encoding="utf-8")
        conf.chmod(0o600)
        return conf

    def clear(self) -> None:
        """Make an empty folder for results."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()

    def of(self, *command: str, before: Callable[[], None] | None = None) -> Measured:
        """Measure a command."""
        return measure(list(command), self.runs, before or self.clear)

    def shell(self, line: str) -> Measured:
        """Measure a pipeline; its words are this benchmark's own."""
        return self.of("bash", "-c", f"set -eo pipefail; cd {self.out}; {line}")

    def staged(self) -> Measured:
        """Measure the staged run."""
        return self.of(sys.executable, str(ROOT / "backup.py"), "-r", "-c", str(self.conf))

    def pipeline(self) -> Measured:
        """Measure (a), the best that standard programs can do."""
        below = self.tree.relative_to("/")
        return self.shell(
            f"tar -C / -c {below} | zstd -3 -T0 -q | age -r {self.recipient} "
            f"| split -b {PART}M - p."
        )

    def documented(self) -> Measured:
        """Measure (b), the steps of the documented system, each from file to file."""
        below = self.tree.relative_to("/")
        return self.shell(
            f"tar czCf / {self.out}/1.tar.gz {below}; "
            f"tar czCf {self.out} {self.out}/2.tar.gz 1.tar.gz; "
            f"openssl enc -e -aes-256-cbc -md md5 -pass file:{self.key} -in 2.tar.gz -out 3 "
            f"2>/dev/null; split -b {PART}M 3 p.; mkdir store; cp p.* store/"
        )


def _execute(name: str, **parameters: str) -> dict[str, object]:
    return {"ACTION": "execute", "NAME": name, "PARAMETERS": parameters}


def _flow(bench: Bench) -> list[tuple[str, Measured]]:
    return [
        ("staged run, backup.py -r", bench.staged()),
        ("(a) tar, zstd -3 -T0, age, split in a pipe", bench.pipeline()),
        ("(b) tar czf, tar czf, openssl, split, cp", bench.documented()),
    ]


def _encryption(bench: Bench, plain: Path) -> list[tuple[str, Measured]]:
    """Measure both directions of the stage alone, on one file that does not compress."""
    size = str(max(1, plain.stat().st_size >> 20) + 1)
    ours, theirs = bench.folder / "ours", bench.folder / "plain.age"
    where = ["--KEY_FILE", str(bench.key), "--DESTINATION"]
    arguments = [*where, str(ours), "--TARGETS", str(plain), "--REMOVE_TARGETS", "False"]

    def no_ours() -> None:
        shutil.rmtree(ours, ignore_errors=True)

    encrypted = bench.of(*bench.encryption, *arguments, "--FILE_SIZE", size, before=no_ours)
    by_age = bench.of("age", "-r", bench.recipient, "-o", str(theirs), str(plain))
    (part,) = ours.iterdir()
    back = [*where, str(bench.out), "--OBJECTIVES", str(part)]
    decrypted = bench.of(*bench.encryption, "-d", *back)
    age_back = bench.of("age", "-d", "-i", str(bench.key), "-o", str(bench.out / "o"), str(theirs))
    return [
        ("encryption.py", encrypted),
        ("age -r", by_age),
        ("encryption.py -d", decrypted),
        ("age -d", age_back),
    ]


def _table(rows: list[tuple[str, Measured]], against: dict[int, tuple[int, ...]]) -> None:
    print("| What | Median, s | Peak of a process, MB | Ratio of times |\n|---|---|---|---|")
    for number, (name, measured) in enumerate(rows):
        ratios = [
            f"{measured.median / rows[other][1].median:.2f} x {rows[other][0]}"
            for other in against.get(number, ())
        ]
        print(f"| {name} | {measured.median:.2f} | {measured.peak:.0f} | {', '.join(ratios)} |")
    print(flush=True)


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="A staged run against standard programs.")
    parser.add_argument("--size", type=int, default=1100, help="MB of the tree")
    parser.add_argument("--files", type=int, default=40_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(argv)
    tree = tree_of.make(options.size, options.files)
    with tempfile.TemporaryDirectory(prefix="nc-backup-benchmark-") as folder:
        bench = Bench(tree, Path(folder), options.runs)
        print(f"{options.files} files, {options.size} MB, {os.cpu_count()} processors, ", end="")
        print(f"{options.runs} runs each\n", flush=True)
        _table(_flow(bench), {0: (1, 2)})
        plain = Path(folder) / "plain"
        with plain.open("wb") as file:
            for _ in range(options.size):
                file.write(os.urandom(1 << 20))
        _table(_encryption(bench, plain), {0: (1,), 2: (3,)})
        dry = [sys.executable, str(ROOT / "backup.py"), "-n", "-c", str(bench.conf)]
        _table([("backup.py -n", bench.of(*dry))], {})
    return 0
