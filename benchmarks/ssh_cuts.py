#!/usr/bin/env python3
"""The ssh store behind a connection that is cut at random bytes, in either direction.

    python3 benchmarks/ssh_cuts.py [--runs N] [--seed N] [--kind KIND]

Each run stores three objects of 3 MB through three cuts, and reads them back. KIND is an account of
tests/sshd.py. Ends with 1 where an object is not whole, or a name is left.
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

import argparse
import dataclasses
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence

from storage.ssh_objects import SshStore
from storage.ssh_session import Session
from tests.sshd import sshd
from tests.storage.test_ssh_store import Cut, Proxy
from tools.base.errors import BackupError
from tools.flow import store
from tools.flow.retries import Retries
from tools.flow.retrying_store import Retrying

_SIZE = 3 << 20
_CUTS = 3


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", default="login shell")
    chosen = parser.parse_args(argv)
    chance = random.Random(chosen.seed)  # noqa: S311  (no secret)
    resumed: list[str] = []
    bad = 0
    for number in range(chosen.runs):
        cuts = [_cut(chance) for _ in range(_CUTS)]
        with tempfile.TemporaryDirectory(prefix="nc-bench-ssh-") as folder:
            problems = list(_run(Path(folder), chosen.kind, cuts, resumed.append))
        bad += len(problems)
        for problem in problems:
            print(f"run {number}: cuts {cuts}: {problem}")
    print(
        f"{chosen.runs} runs, {chosen.runs * _CUTS} cuts, {len(resumed)} within an object: "
        f"{bad} problems"
    )
    return 1 if bad else 0


def _cut(chance: random.Random) -> Cut:
    """Return after how many bytes of the client, or of the server, a connection is cut."""
    if chance.random() < 0.5:  # noqa: PLR2004  (each direction as often)
        return int(10 ** chance.uniform(2.5, 6.9)), None
    return None, int(10 ** chance.uniform(2.5, 5))


def _run(folder: Path, kind: str, cuts: Sequence[Cut], say: Callable[[str], None]) -> Iterator[str]:
    """Yield what is wrong after objects were stored through these cuts."""
    proxy = Proxy(sshd().ports[kind], *cuts)
    session = Session(dataclasses.replace(sshd().server(kind), port=proxy.port))
    inner = SshStore(session, str(folder / "store"), retries=Retries(0, say))
    outer = Retrying(inner, Retries(0, lambda _line: None))
    content = os.urandom(_SIZE)
    for name in ("srv/1", "srv/2", "srv/3"):
        try:
            store.store_object(outer, name, _chunks(content))
            if b"".join(outer.get(name)) != content:
                yield f"{name}: other bytes are read"
        except BackupError as error:
            yield f"{name}: {error}"
    outer.remove([entry.name for entry in outer.unfinished("srv")])
    leftovers = list(outer.unfinished("srv"))
    if leftovers:
        yield f"left: {leftovers}"
    session.close()
    proxy.close()


def _chunks(content: bytes) -> Iterator[bytes]:
    for at in range(0, len(content), 100_000):
        yield content[at : at + 100_000]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
