#!/usr/bin/env python3
"""Databases streamed into a local store against their own dump programs: time, CPU, memory.

    python3 benchmarks/databases.py [--size MB] [--runs N] [--only WORD]

Needs MariaDB, PostgreSQL, age and zstd; starts the servers for itself, on free ports. Each pair
is measured in turn; the ratio is that of the medians.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks import staged
from benchmarks.streamed import Streamed, shown
from tests.servers import MariaDB, Postgres, program
from tools.base import project

ROOT = project.ROOT
_SMALL = 200  # databases
_MB = 4200  # rows of a table of one MB, about
# Rows that compress as those of a shop do.
_MARIADB = """
SET sql_log_bin = 0;
CREATE TABLE t (id INT PRIMARY KEY, at DATETIME, who VARCHAR(60), what TEXT, price DECIMAL(9,2));
INSERT INTO t SELECT seq, FROM_UNIXTIME(1500000000 + seq * 7), CONCAT('customer ', MD5(seq % 5000)),
    REPEAT(CONCAT('order of ', seq % 977, ' things, ', MD5(seq), '; '), 4), seq % 9999 / 7
    FROM seq_1_to_{}
"""
_POSTGRES = """
CREATE TABLE t AS SELECT n AS id, to_timestamp(1500000000 + n * 7) AS at,
    'customer ' || md5((n % 5000)::text) AS who,
    repeat('order of ' || n % 977 || ' things, ' || md5(n::text) || '; ', 4) AS what,
    (n % 9999) / 7.0 AS price
    FROM generate_series(1, {}) AS n
"""


class Databases(Streamed):
    """Streamed runs of one section of databases."""

    def section(self, name: str, section: dict[str, Any], **general: str) -> None:
        """Write the config: this section instead of files."""
        config = json.loads(self._conf(**general).read_text(encoding="utf-8"))
        del config["FILESET"]
        whole = {"GENERAL": config.pop("GENERAL"), name: section, **config}
        self.conf.write_text(json.dumps(whole), encoding="utf-8")

    def run(self) -> list[str]:
        """Return the command of a run."""
        return [sys.executable, str(ROOT / "backup.py"), "-r", "-c", str(self.conf)]

    def theirs(self, dump: str) -> str:
        """Return the pipe of standard programs."""
        return f"{dump} | zstd -3 -T0 -q | age -r {self.recipient} | split -b {staged.PART}M - p."


def _mysql(server: MariaDB, **more: str) -> dict[str, Any]:
    login = {"MY_INSTANCES": str(server.port), "CREDENTIAL_PATH": str(server.credentials)}
    section = {"ACTION": "execute", "NAME": "mysql_backup", "EXECUTABLE": "mysql_dump.py"}
    return {**section, "PARAMETERS": {**login, "BINLOG_DAYS": "0", **more}}


def _filled(server: MariaDB, name: str, megabytes: int) -> None:
    """Create a database of so many MB."""
    server.sql(f"CREATE DATABASE {name}")
    server.sql(_MARIADB.format(megabytes * _MB), name)


def mariadb(folder: Path, size: int, runs: int, only: str) -> None:
    """Measure one large database, four at once, many small ones."""
    server = MariaDB()
    try:
        bench = Databases(folder, folder, runs)
        dump = f"mariadb-dump --defaults-extra-file={server.credentials} --port={server.port} "
        dump += "--single-transaction --quick --routines --triggers --events --hex-blob "
        dump += "--master-data=2 --default-character-set=utf8mb4"
        if only in ("", "mariadb"):
            _filled(server, "large", size)
            bench.section("MYSQL", _mysql(server))
            title = f"MariaDB, {size} MB / mariadb-dump | zstd -3 -T0 | age | split"
            bench.pair(title, bench.run(), bench.theirs(f"{dump} large"))
            server.sql("DROP DATABASE large")
        if only in ("", "parallel"):
            for number in range(4):
                _filled(server, f"quarter{number}", size // 4)
            parallel(bench, server)
            for number in range(4):
                server.sql(f"DROP DATABASE quarter{number}")
        if only in ("", "small"):
            small(bench, server, dump)
    finally:
        server.stop()


def parallel(bench: Databases, server: MariaDB) -> None:
    """Measure PARALLEL 1 against 2, in turn."""
    measured: tuple[list[staged.Measured], list[staged.Measured]] = ([], [])
    for _ in range(bench.runs):
        for number, processes in enumerate(("1", "2")):
            bench.section("MYSQL", _mysql(server), PARALLEL=processes)
            measured[number].append(staged.measure(bench.run(), 1, bench.clear))
    shown("MariaDB, four databases, PARALLEL 1 / PARALLEL 2", *measured)


def small(bench: Databases, server: MariaDB, dump: str) -> None:
    """Measure what a database costs besides its dump program."""
    for number in range(_SMALL):
        server.sql(f"CREATE DATABASE s{number}; CREATE TABLE s{number}.t (i INT)")
    bench.section("MYSQL", _mysql(server))
    line = f"for n in $(seq 0 {_SMALL - 1}); do {dump} s$n > $n.sql; done"
    ours, theirs = [], []
    for _ in range(bench.runs):
        ours.append(staged.measure(bench.run(), 1, bench.clear).median)
        theirs.append(bench.shell(line).median)
    more = (statistics.median(ours) - statistics.median(theirs)) / _SMALL
    print(
        f"{_SMALL} small databases: {statistics.median(ours):.2f} s, the dump program alone "
        f"{statistics.median(theirs):.2f} s: {more:.3f} s a database above it",
        flush=True,
    )


def postgres(folder: Path, size: int, runs: int) -> None:
    """Measure one large database."""
    server = Postgres()
    try:
        server.sql("CREATE DATABASE large")
        server.sql(_POSTGRES.format(size * _MB), "large")
        bench = Databases(folder, folder, runs)
        section = {"ACTION": "load", "FROM": "postgres", "FILENAME": "postgres"}
        where = {"HOST": "127.0.0.1", "PORT": str(server.port), "USER": "postgres"}
        parameters = {**where, "PASSFILE": str(server.pgpass), "EXCLUDE_DB": "postgres"}
        bench.section("POSTGRES", {**section, "CLASS": "PostgresBackup", "PARAMETERS": parameters})
        dump = f"PGPASSFILE={server.pgpass} {program('pg_dump')} -h 127.0.0.1 -p {server.port} "
        title = f"PostgreSQL, {size} MB / pg_dump -Fc -Z0 | zstd -3 -T0 | age | split"
        bench.pair(title, bench.run(), bench.theirs(f"{dump} -U postgres -w -Fc -Z0 large"))
    finally:
        server.stop()


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1000, help="MB of rows")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", help="mariadb, parallel, small or postgres")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="nc-backup-bench-") as name:
        for folder in ("mariadb", "postgres"):
            Path(name, folder).mkdir()
        if options.only != "postgres":
            mariadb(Path(name, "mariadb"), options.size, options.runs, options.only)
        if options.only in ("", "postgres"):
            postgres(Path(name, "postgres"), options.size, options.runs)
    return 0
