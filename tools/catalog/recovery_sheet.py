"""The recovery sheet: how one run is restored with stock programs, and nothing of ours."""

from __future__ import annotations

import shlex

from tools.base import masking
from tools.catalog.manifest import Manifest
from tools.date_str_utils import human_size
from tools.flow.item_record import StoredItem as Item
from tools.modules import registry

_MOST_PARTS = 200  # names that one command lists; more are joined by a loop
_PACKED = {".gz": "gzip -dc", ".bz2": "bzip2 -dc", ".xz": "xz -dc", ".zst": "zstd -dc"}
_HEAD = """\
How to restore run {run_id} of {host} without nc-backup-py
{line}

It began {begin} and ended {end} (UTC): {status}. {count}, {size} stored.
You need: the parts that are named below, the key file, and these programs: {programs}.

Paste this into a shell (bash), once, with your own three places:

    STORE=.                      # the folder that this file lies in
    KEY=/path/to/key_file        # an age identity (post-quantum: age 1.3), or the old password
    TARGET=./restored            # a new folder

    mkdir -p "$TARGET" && TARGET=$(cd "$TARGET" && pwd) && cd "$STORE" && set -o pipefail

Then each item that you want. A command that does not say "restored" has failed: trust nothing
of what it wrote. As root, tar gives owners back; as another user it cannot.
"""


def sheet(made: Manifest) -> str:
    """The text for one manifest. No secret stands in it."""
    title = f"How to restore run {made.run_id} of {made.host} without nc-backup-py"
    programs = sorted({word for item in made.items for word in _programs(item)} | {"cat", "bash"})
    head = _HEAD.format(
        run_id=made.run_id,
        host=made.host,
        line="=" * len(title),
        begin=made.begin,
        end=made.end,
        status=made.status,
        count=f"{len(made.items)} item{'' if len(made.items) == 1 else 's'}",
        size=human_size(made.size),
        programs=", ".join(programs),
    )
    lines = [head]
    for number, item in enumerate(made.items, 1):
        lines += _item(number, item)
    if made.missing:
        lines += ["", "This store does not hold: " + ", ".join(made.missing) + "."]
    return "\n".join(lines) + "\n"


def _programs(item: Item) -> list[str]:
    return [command.split()[0] for command in (*_steps(item), _end(item))]


def _item(number: int, item: Item) -> list[str]:
    stages = ", ".join(item.stages) or "none"
    about = f"{len(item.parts)} part{'' if len(item.parts) == 1 else 's'}"
    lines = [
        f"{number}. {masking.text(_plain(item.called))} ({item.kind}; {about}, "
        f"{human_size(item.stored)}; stages: {stages})",
        "",
    ]
    commands = [_joined(item), *_steps(item), _end(item)]
    lines += ["    " + " \\\n      | ".join(commands) + ' && echo "restored"']
    if item.sha256 is not None:
        lines += ["", f"   Its data before the first stage has the SHA-256 {item.sha256}."]
    if load := registry.kind(item.kind).load:
        name = item.name.partition("/")[2]
        words = {"file": _file(item), "name": shlex.quote(name), "quoted": _quoted(name)}
        words["number"] = shlex.quote(item.name)
        lines += ["", "   Into a server: " + load.format(**words)]
    if base := item.facts.get("base"):
        lines += [
            f"   It was added to that of run {base}: prepare that one first, then this one with",
            "   --incremental-dir=FOLDER, where it was unpacked.",
        ]
    for warning in item.warnings[:10]:
        lines += [f"   Not in it: {_plain(warning)}"]
    return [*lines, ""]


def _plain(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _joined(item: Item) -> str:
    """The parts in their order: by name, or counted up where there are many."""
    names = [part.name for part in item.parts]
    stem = names[0].removesuffix("000")
    counted = [f"{stem}{number:03}" for number in range(len(names))]
    if len(names) > _MOST_PARTS and names == counted:
        quoted = shlex.quote(stem)
        return (
            f"for n in $(seq 0 {len(names) - 1}); do "
            f'cat -- {quoted}"$(printf %03d "$n")" || exit 1; done'
        )
    return "cat -- " + " ".join(shlex.quote(name) for name in names)


def _steps(item: Item) -> list[str]:
    """What undoes the stages, last one first."""
    found = [
        registry.STAGES[stage].undo
        if stage in registry.STAGES
        else f"YOUR-PROGRAM-OF-{shlex.quote(stage)} --DIRECTION backward"
        for stage in reversed(item.stages)
    ]
    packed = next((undo for ending, undo in _PACKED.items() if item.ending.endswith(ending)), None)
    return [*found, packed] if packed and registry.kind(item.kind).archive else found


def _end(item: Item) -> str:
    """What takes the plain data."""
    if registry.kind(item.kind).archive:
        return 'tar -x -p --numeric-owner --acls --xattrs --xattrs-include="*" -C "$TARGET" -f -'
    return f"cat > {_file(item)}"


def _file(item: Item) -> str:
    """The file that an item becomes which is no fileset."""
    return f'"$TARGET"/{shlex.quote(item.called.replace("/", "_") + item.ending)}'


def _quoted(name: str) -> str:
    """A command of SQL that makes the database, as one word."""
    return shlex.quote("CREATE DATABASE `" + name.replace("`", "``") + "`")
