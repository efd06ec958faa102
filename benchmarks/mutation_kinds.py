"""What mutations.py does to manifests and objects."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from benchmarks.mutation_lab import RUNS, Lab, manifest_of

Objects = dict[str, bytes]
_VALUES: tuple[Any, ...] = (
    None, True, False, [], {}, 0, 1, -1, 7, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) + 1,
    -(1 << 63), 1.5, 1e300, float("inf"), float("nan"), "", "x", "\0", "a\0b", "\x1b[2J",
    "a\nerror: b", "\ud800", "\udcff", "\u202e", "..", "../x", "/etc/passwd", "a/b",
    "fileset", "file", "mysql",
    "mysql-users", "postgres-roles", "mysql-physical", "mysql-binlogs", "zstd", "gzip", "age",
    "openssl", "own:ETC", "own:../x", "own:", "ETC", "WWW", "MYSQL", "EARLIER", "3306/shop",
    "staged", "streamed", "ok", "failed", "0" * 64, "A" * 64, "99980101_000000", "20261301_000000",
    "\u0662\u0660\u0662\u0666\u0660\u0661\u0660\u0661_\u0660\u0663\u0660\u0660\u0660\u0660",
    "x" * 5000, ["zstd"], ["age"], ["zstd", "age", "age"], ["own:ETC", "age"], [1], [[]], [None],
    {"a": 1}, {"tar": 1}, {"base": "20260101_030000"}, {"server": "10"}, [[[[[[]]]]]],
)  # fmt: skip


def altered(lab: Lab, rng: random.Random, *, signed: bool) -> tuple[Objects, list[str]]:
    """Return the objects of a store after one to three mutations, and what these were."""
    objects = dict(lab.objects if signed else lab.unsigned)
    done = []
    for _time in range(rng.choice((1, 1, 1, 2, 3))):
        how = rng.choice(_IN_MANIFEST if rng.random() < 0.7 else _IN_OBJECTS)  # noqa: PLR2004
        how(objects, rng)
        done.append(how.__name__.strip("_"))
    return objects, done


# --- in a manifest


def _manifest(objects: Objects, rng: random.Random) -> tuple[str, Any]:
    """Return a manifest's name, and its value; None where it is none any more."""
    name = manifest_of(rng.choice(RUNS))
    try:
        record = json.loads(objects[name])
    except (KeyError, ValueError, RecursionError):
        record = None
    is_manifest = isinstance(record, dict) and isinstance(record.get("items"), list)
    return name, record if is_manifest else None


def _write(objects: Objects, name: str, record: Any) -> None:  # noqa: ANN401  (any JSON value)
    objects[name] = json.dumps(record).encode()


def _fields(value: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401  (any JSON value)
    """Return every container and key of a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    fields: list[tuple[Any, Any]] = []
    for key in keys:
        fields.append((value, key))
        if isinstance(value[key], dict | list):
            fields += _fields(value[key])
    return fields


def _edited(
    edit: Callable[[Any, random.Random], None], objects: Objects, rng: random.Random
) -> None:
    name, record = _manifest(objects, rng)
    if record is not None:
        edit(record, rng)
        _write(objects, name, record)


def value_replaced(objects: Objects, rng: random.Random) -> None:
    """Put any value in the place of another."""

    def edit(record: Any, rng: random.Random) -> None:  # noqa: ANN401
        container, key = rng.choice(_fields(record))
        container[key] = rng.choice(_VALUES)

    _edited(edit, objects, rng)


def item_value_replaced(objects: Objects, rng: random.Random) -> None:
    """Put any value into one field of an item, or of a part."""

    def edit(record: Any, rng: random.Random) -> None:  # noqa: ANN401
        items = [one for one in record["items"] if isinstance(one, dict) and one]
        if items:
            container, key = rng.choice(_fields(rng.choice(items)))
            container[key] = rng.choice(_VALUES)

    _edited(edit, objects, rng)


def key_changed(objects: Objects, rng: random.Random) -> None:
    """Remove an entry, or repeat one of a list."""

    def edit(record: Any, rng: random.Random) -> None:  # noqa: ANN401
        container, key = rng.choice(_fields(record))
        if isinstance(container, list) and rng.random() < 0.5:  # noqa: PLR2004
            container.append(json.loads(json.dumps(container[key])))
        else:
            del container[key]

    _edited(edit, objects, rng)


def value_nudged(objects: Objects, rng: random.Random) -> None:
    """Change a number by one, or one character of a text."""

    def edit(record: Any, rng: random.Random) -> None:  # noqa: ANN401
        container, key = rng.choice(_fields(record))
        old = container[key]
        if type(old) is int:
            container[key] = old + rng.choice((-1, 1))
        elif isinstance(old, str) and old:
            at = rng.randrange(len(old))
            container[key] = old[:at] + rng.choice("0123456789abcdefZ./\0\x1b") + old[at + 1 :]

    _edited(edit, objects, rng)


def values_swapped(objects: Objects, rng: random.Random) -> None:
    """Swap a field of two items: parts, names, kinds, digests; of one run or of two."""
    (one, first), (other, second) = _manifest(objects, rng), _manifest(objects, rng)
    if first is None or second is None:
        return
    if one == other:
        second = first
    items = [rng.choice(record["items"] or [None]) for record in (first, second)]
    if not all(isinstance(item, dict) for item in items):
        return
    keys = ("parts", "name", "section", "kind", "sha256", "size", "stages", "facts", "ending")
    for key in rng.sample(keys, rng.choice((1, 1, 2, 3, 5))):
        if key in items[0] and key in items[1]:
            items[0][key], items[1][key] = items[1][key], items[0][key]
    _write(objects, one, first)
    _write(objects, other, second)


def item_moved(objects: Objects, rng: random.Random) -> None:
    """Copy an item of one run into another."""
    (_one, first), (other, second) = _manifest(objects, rng), _manifest(objects, rng)
    if first is not None and second is not None and first["items"]:
        at = rng.randrange(len(second["items"]) + 1)
        second["items"][at : at + rng.randrange(2)] = [rng.choice(first["items"])]
        _write(objects, other, second)


def manifest_moved(objects: Objects, rng: random.Random) -> None:
    """Put the manifest of one run in the place of another, with a changed id or not."""
    one, other = rng.sample(RUNS, 2)
    text = objects.get(manifest_of(one), b"")
    if rng.random() < 0.5:  # noqa: PLR2004
        text = text.replace(f'"run_id": "{one}"'.encode(), f'"run_id": "{other}"'.encode())
    if rng.random() < 0.3:  # noqa: PLR2004
        text = text.replace(one.encode(), other.encode())
    objects[manifest_of(other)] = text


def text_damaged(objects: Objects, rng: random.Random) -> None:
    """Flip a bit of a manifest's text, cut it, or repeat a piece of it."""
    name = manifest_of(rng.choice(RUNS))
    _damage(objects, name, rng)


def duplicate_key(objects: Objects, rng: random.Random) -> None:
    """Give an object of the manifest one key twice."""
    name = manifest_of(rng.choice(RUNS))
    keys = (b'"name": ', b'"kind": ', b'"run_id": ', b'"sha256": ', b'"stages": ', b'"items": ')
    key = rng.choice(keys)
    value = json.dumps(rng.choice(_VALUES)).encode()
    objects[name] = objects.get(name, b"").replace(key, key + value + b", " + key, 1)


# --- in the objects


def _damage(objects: Objects, name: str, rng: random.Random) -> None:
    old = objects.get(name) or b"x"
    at = rng.randrange(len(old))
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: old[:at],
        lambda: old[:at] + bytes([old[at] ^ (1 << rng.randrange(8))]) + old[at + 1 :],
        lambda: old[:at] + old[at // 2 : at] + old[at:],
        lambda: old + rng.randbytes(rng.randrange(1, 9)),
        lambda: old[:at] + old[at + 1 :],
        lambda: b"",
    )
    objects[name] = rng.choice(ways)()


def object_damaged(objects: Objects, rng: random.Random) -> None:
    """Flip a bit of any object, cut it, empty it or add to it."""
    if objects:
        _damage(objects, rng.choice(sorted(objects)), rng)


def objects_swapped(objects: Objects, rng: random.Random) -> None:
    """Swap the contents of two objects: of items, of runs, of manifests, of signatures."""
    if len(objects) > 1:
        one, other = rng.sample(sorted(objects), 2)
        objects[one], objects[other] = objects[other], objects[one]


def like_swapped(objects: Objects, rng: random.Random) -> None:
    """Swap two objects of the same kind."""
    ending = rng.choice((".age.000", ".age.001", ".manifest.json", ".sig", ".RECOVERY.txt"))
    names = [name for name in sorted(objects) if name.endswith(ending)]
    if len(names) > 1:
        one, other = rng.sample(names, 2)
        objects[one], objects[other] = objects[other], objects[one]


def object_removed(objects: Objects, rng: random.Random) -> None:
    """Remove an object."""
    if objects:
        del objects[rng.choice(sorted(objects))]


_IN_MANIFEST = (
    value_replaced, item_value_replaced, item_value_replaced, key_changed, value_nudged,
    values_swapped, values_swapped, item_moved, manifest_moved, text_damaged, duplicate_key,
)  # fmt: skip
_IN_OBJECTS = (object_damaged, objects_swapped, like_swapped, object_removed)
