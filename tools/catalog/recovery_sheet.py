"""The recovery sheet: how to restore one run with stock programs alone."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from tools.base import masking
from tools.catalog import rotation
from tools.catalog.manifest import Manifest, name_of
from tools.catalog.writer_key import NAMESPACE
from tools.date_str_utils import count, human_size
from tools.flow import codecs, forms
from tools.flow.item_record import StoredItem as Item
from tools.modules import registry

_MAX_WARNINGS = 10  # of an item
_PRESENT = ("postgres", "template1")  # databases that every PostgreSQL server has
_DECOMPRESS_COMMANDS = {".gz": "gzip -dc", ".bz2": "bzip2 -dc", ".xz": "xz -dc", ".zst": "zstd -dc"}
_HEAD = """\
How to restore run {run_id} of {host} without nc-backup-py
{line}

Run started {begin}, finished {end} (UTC): {status}. {items}, {size} stored.
You need the parts listed below, the key file, and these programs: {programs}.

Paste this into bash once, and adjust the three paths:

    STORE=.                      # the folder of this file
    KEY=/path/to/key_file        # {key}
    TARGET=./restored            # a new folder

    mkdir -p "$TARGET" && TARGET=$(cd "$TARGET" && pwd) && cd "$STORE" && set -o pipefail

Then run the commands of each item that you need. If a command does not print "restored", do not
use its output. Run tar as root to restore owners.
"""
_DERIVED = """
age cannot read a key file that is a password of the old system. Write its identity to a file first,
where nc-backup-py runs: encryption/encryption.py --EXPORT --KEY_FILE OLD --DESTINATION NEW
"""
_KEYS = {"age": "age identity (post-quantum: age 1.3)", "openssl": "the old password file"}
_SIGNED = """
The manifest of this run is signed. Anyone who can write to the store can also write this file, so
compare the signer with the one that you kept elsewhere (key file, report, config). Then check that
it prints "Good":

    echo {signer} > "$TARGET"/allowed_signers
    ssh-keygen -Y verify -f "$TARGET"/allowed_signers -I {host} -n {namespace} \\
      -O verify-time={when} -s {manifest}.sig < {manifest}
"""
_PARTS = """
This compares all parts with the manifest. It prints "unchanged", or names each part that is missing
or was changed:

    awk -F'"' '$3 != ": " {{key = ""; next}} $2 == "sha256" && key == "name" {{print $4 "  " value}}
      {{key = $2; value = $4}}' {manifest} | sha256sum -c --quiet && echo "unchanged"
"""
_SUCCESSOR = """
An earlier signer named this one. Skip this if you kept the signer above. If you kept only the line
of an earlier one, put that line alone into allowed_signers. Then, for each statement from there on,
check that it prints "Good", and add the line in it:

"""
_STATEMENT = """\
    ssh-keygen -Y verify -f "$TARGET"/allowed_signers -I {host} -n {namespace} \\
      -O verify-time={when} -s {name}.sig < {name}
"""


def sheet(run: Manifest, signer: str = "", links: Sequence[str] = ()) -> str:
    """Return the text for one manifest. It contains no secret.

    signer: the line of allowed_signers for its signature; "" where it is not signed
    links: the statements about successors that led to this signer, oldest first
    """
    title = f"How to restore run {run.run_id} of {run.host} without nc-backup-py"
    parts = any(item.parts for item in run.items)
    used = {word for item in run.items for word in _programs(item)} | {"cat", "bash"}
    programs = sorted(used | ({"awk", "sha256sum"} if parts else set()))
    head = _HEAD.format(
        run_id=run.run_id,
        host=run.host,
        line="=" * len(title),
        begin=run.begin,
        end=run.end,
        status=run.status,
        items=count(len(run.items), "item"),
        size=human_size(run.size),
        programs=", ".join(programs),
        key=" or ".join(_KEYS[one] for one in _KEYS if one in programs) or "not needed",
    )
    lines = [
        head
        + (_DERIVED if "age" in programs else "")
        + (_signed(run, signer, links) if signer else "")
        + (_PARTS.format(manifest=shlex.quote(name_of(run.run_id))) if parts else "")
    ]
    for number, item in enumerate(run.items, 1):
        lines += _item(number, item)
    if run.missing:
        lines += ["", "Not in this store: " + ", ".join(run.missing)]
    return "\n".join(lines) + "\n"


def _signed(run: Manifest, signer: str, links: Sequence[str]) -> str:
    """Return how to check the signature, at the time of the run: its signer may end later."""
    host = shlex.quote(run.host)
    text = _SIGNED.format(
        signer=shlex.quote(signer),
        host=host,
        namespace=NAMESPACE,
        when=re.sub(r"[^0-9Z]", "", run.end),
        manifest=shlex.quote(name_of(run.run_id)),
    )
    statements = [
        _STATEMENT.format(
            host=host, namespace=NAMESPACE, when=rotation.verify_time(name), name=name
        )
        for name in links
    ]
    return text + (_SUCCESSOR + "".join(statements) if statements else "")


def _programs(item: Item) -> list[str]:
    return [command.split()[0] for command in (*_decode_commands(item), _final_command(item))]


def _item(number: int, item: Item) -> list[str]:
    stages = ", ".join(item.stages) or "none"
    lines = [
        f"{number}. {masking.text(_printable(item.label))} "
        f"({item.kind}; {count(len(item.parts), 'part')}, "
        f"{human_size(item.stored)}; stages: {stages})",
        "",
    ]
    read = forms.of(item.form).commands(item, _decode_commands(item))
    commands = [*read, _reading_all(item, _final_command(item))]
    lines += ["    " + " \\\n      | ".join(commands) + ' && echo "restored"']
    if item.sha256 is not None:
        lines += ["", f"   SHA-256 of the data before the first stage: {item.sha256}"]
    elif codecs.has_checksum(item.stages):
        lines += ["", "   zstd -d compares the data with the checksum that its frame contains."]
    if load := registry.kind(item.kind).load:
        name = item.name.partition("/")[2]
        values = {"file": _file(item), "name": shlex.quote(name), "quoted": _create(name)}
        values["createdb"] = (
            "" if name in _PRESENT else f"createdb -T template0 -- {values['name']} && "
        )
        values["number"] = shlex.quote(item.name)
        lines += ["", "   Load into a server: " + load.format(**values)]
    if item.base:
        lines += [
            f"   Incremental: prepare the backup of run {item.base} first, then this one with",
            "   --incremental-dir=FOLDER (the folder it was unpacked to).",
        ]
    for warning in item.warnings[:_MAX_WARNINGS]:
        lines += [f"   Not included: {_printable(warning)}"]
    if len(item.warnings) > _MAX_WARNINGS:
        lines += [f"   and {len(item.warnings) - _MAX_WARNINGS} more: see the manifest"]
    return [*lines, ""]


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text)


def _decode_commands(item: Item) -> list[str]:
    """Return the command for the inverse of each stage, the last stage first."""
    commands = [
        registry.STAGES[stage].undo
        if stage in registry.STAGES
        else f"YOUR-PROGRAM-OF-{shlex.quote(stage)} --DIRECTION backward"
        for stage in reversed(item.stages)
    ]
    packed = next(
        (undo for ending, undo in _DECOMPRESS_COMMANDS.items() if item.ending.endswith(ending)),
        None,
    )
    return [*commands, packed] if packed and registry.kind(item.kind).archive else commands


def _final_command(item: Item) -> str:
    """Return the command that takes the plaintext."""
    if registry.kind(item.kind).archive:
        return 'tar -x -p --numeric-owner --acls --xattrs --xattrs-include="*" -C "$TARGET" -f -'
    return f"cat > {_file(item)}"


def _reading_all(item: Item, command: str) -> str:
    """Return the final command so that it reads to the end of its input.

    tar ends after its end mark: the program before it could not write the padding, and that would
    look like a failed restore.
    """
    return f"{{ {command} && cat > /dev/null; }}" if registry.kind(item.kind).archive else command


def _file(item: Item) -> str:
    """Return the file for an item that is no archive."""
    return f'"$TARGET"/{shlex.quote(item.label.replace("/", "_") + item.ending)}'


def _create(name: str) -> str:
    """Return the SQL that creates the database, quoted for the shell."""
    return shlex.quote("CREATE DATABASE `" + name.replace("`", "``") + "`")
