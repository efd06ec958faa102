"""A generated tree for benchmarks: always the same bytes, made once and kept."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

_COUNT = 4000
_SHARES = (("text", 0.6), ("binary", 0.25), ("random", 0.15))  # of the bytes
_PER_FOLDER = 200


def make(megabytes: int, files: int) -> Path:
    """Return a folder of so many MB in so many files, made in the temporary folder if missing."""
    top = Path(tempfile.gettempdir()) / f"nc-backup-benchmark-{megabytes}-{files}"
    done = top / "done"
    if done.exists():
        return top / "tree"
    chance = random.Random(20160531)  # noqa: S311  (the same tree every time, no secret)
    sources = {
        "text": _text(chance),
        "binary": _binary(chance),
        "random": chance.randbytes(8 << 20),
    }
    kinds = [kind for kind, _ in _SHARES]
    weights = [share for _, share in _SHARES]
    sizes = _sizes(chance, megabytes << 20, files)
    for number, size in enumerate(sizes):
        kind = chance.choices(kinds, weights)[0]
        folder = top / "tree" / f"{number // (_PER_FOLDER * 20):02}" / f"{number // _PER_FOLDER:04}"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{number:06}.{kind}").open("wb") as file:
            remaining = size
            while remaining > 0:
                start = chance.randrange(len(sources[kind]))
                remaining -= file.write(sources[kind][start : start + remaining])
    done.touch()
    return top / "tree"


def _sizes(chance: random.Random, total: int, files: int) -> list[int]:
    """Many small files and a few large ones, as in real trees (log-normal)."""
    raw = [chance.lognormvariate(0, 2) for _ in range(files)]
    scale = total / sum(raw)
    return [round(size * scale) for size in raw]


def _text(chance: random.Random) -> bytes:
    vocabulary = [
        "".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(_COUNT)
    ]
    return " ".join(chance.choices(vocabulary, k=1 << 20)).encode()


def _binary(chance: random.Random) -> bytes:
    """Return records of a fixed shape, half of them random, like a file of a database."""
    return b"".join(
        number.to_bytes(8, "little") + b"\0" * 16 + chance.randbytes(24)
        for number in range(1 << 17)
    )
