#!/usr/bin/env python3
"""Encrypt what compression left, in parts; decrypt it again (-d); make a key (--KEYGEN)."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # spawned by path: look from the root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools import venv

    venv.enter()

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING

from tools import date_str_utils, filesystem_handling, module, plugin, stream
from tools.errors import ConfigError, StageError
from tools.options import Paths, Words, option
from tools.result import Result, Status
from tools.secret import Secret

if TYPE_CHECKING:
    from encryption import age, keys, openssl, parts

_KEY_FILE = Path("/etc/nc-backup-py/key_file")


class Format(Enum):
    """The formats that can be written; both are read, whatever is named here."""

    AGE = "age"
    OPENSSL = "openssl"


@dataclass(frozen=True)
class Options:
    """The keys of the section, and of the commands beside it."""

    key_file: Path = option("an age identity, recipients, or an old password", default=_KEY_FILE)
    file_size: int = option("MiB of one part", default=1024, least=1)
    targets: Paths = option(
        "files and folders to encrypt, default WORK_FOLDER/compressed; with -d one part, "
        "or how the names of all parts begin",
        default=(),
        aliases=("OBJECTIVES",),
    )
    destination: Path | None = option(
        "folder of the parts, default WORK_FOLDER/encrypted; with -d the file to make", default=None
    )
    remove_targets: bool = option(
        "remove what has been encrypted", default=True, aliases=("REMOVE_OBJECTIVES",)
    )
    format: Format = option("`age`, or `openssl` for the old format", default=Format.AGE)
    recipients: Words = option("more age recipients (age1...)", default=())
    passphrase: Secret = option("a passphrase instead of KEY_FILE", default=Secret(""))
    work_folder: Path = option("temporary work", default=Path("/opt/backup"))
    decrypt: bool = option("decrypt", default=False, flag="-d")
    keygen: bool = option("make a new KEY_FILE", default=False, flag="--KEYGEN")
    export: bool = option(
        "write the age identity of an old KEY_FILE into DESTINATION", default=False, flag="--EXPORT"
    )


def work(options: Options) -> Result:
    """Do what the options ask for."""
    _load()
    if options.keygen:
        return _keygen(options)
    if options.export:
        return _export(options)
    return _decrypt(options) if options.decrypt else _encrypt(options)


def _load() -> None:
    """Load the rooms of this module: their library costs time that `backup.py -n` need not pay."""
    names = ("age", "keys", "openssl", "parts")
    globals().update({name: plugin.load(f"encryption/{name}.py") for name in names})


def _keygen(options: Options) -> Result:
    public = keys.generate(options.key_file)
    return Result(
        Status.OK,
        f"{options.key_file} is made. Public key (recipient): {public}\n"
        "Store a copy of the key file away from this machine: without it no backup can be read.\n"
        "Better still: leave only the recipient here, and keep the key file elsewhere.",
        files=(str(options.key_file),),
    )


def _export(options: Options) -> Result:
    found = keys.identities(keys.read(options.key_file), options.key_file)
    if options.destination is None:
        raise ConfigError(
            "--DESTINATION is required", "The file that the identity is written into."
        )
    public = keys.save(found[0], options.destination)
    return Result(Status.OK, f"{options.destination} opens what was encrypted for {public}")


def _stage(options: Options) -> tuple[Callable[[stream.Chunks], Iterator[bytes]], str, str]:
    """The stage that encrypts, the ending of its files, and what is to be said of the key."""
    if options.passphrase:
        if options.recipients or options.format is Format.OPENSSL:
            raise ConfigError(
                "PASSPHRASE: goes with neither RECIPIENTS nor FORMAT openssl", "Leave one out."
            )
        secret = age.Passphrase(options.passphrase.reveal())
        return lambda chunks: age.encrypt(chunks, [secret]), ".age", ""
    found = keys.read(options.key_file)
    if options.format is Format.OPENSSL:
        secret_text = keys.password(found, options.key_file)
        return lambda chunks: openssl.encrypt(chunks, secret_text), ".crypt", openssl.UNSIGNED
    said = ""
    if found.derived:
        said = "an age key is derived from the old password in KEY_FILE; better make one (--KEYGEN)"
    everyone = keys.recipients(found, options.key_file, options.recipients)
    return lambda chunks: age.encrypt(chunks, everyone), ".age", said


def _encrypt(options: Options) -> Result:
    """Encrypt every file below the targets; remove them when all are done."""
    targets = options.targets or (options.work_folder / "compressed",)
    destination = options.destination or options.work_folder / "encrypted"
    files = _files(targets)
    stage, ending, said = _stage(options)
    filesystem_handling.make_folder(destination)
    progress = stream.Progress()
    made: list[Path] = []
    for file in files:
        chunks = stream.flow(stream.read(file), progress, stage)
        made += parts.write(chunks, destination, file.name + ending, options.file_size * parts.MIB)
    if options.remove_targets:
        for file in files:
            file.unlink()
    size = sum(path.stat().st_size for path in made)
    message = f"{len(files)} files in {len(made)} parts, {date_str_utils.human_size(size)}"
    return Result(
        Status.OK,
        f"{message}; {said}" if said else message,
        files=tuple(map(str, made)),
        items=len(files),
        bytes=size,
    )


def _files(targets: Paths) -> list[Path]:
    found: dict[str, Path] = {}
    for target in targets:
        if not target.exists():
            raise StageError(
                f"TARGETS: {target} does not exist", "Name what the sections before wrote."
            )
        for file in filesystem_handling.files_below(target):
            if file.name in found:
                raise StageError(
                    f"two files to encrypt are called {file.name}", "Give each its own name."
                )
            found[file.name] = file
    if not found:
        where = ", ".join(map(str, targets))
        raise StageError(
            f"nothing to encrypt in {where}", "Did the sections before write elsewhere?"
        )
    return list(found.values())


def _decrypt(options: Options) -> Result:
    """Decrypt one part or many into one file, which appears when its last byte is verified."""
    if len(options.targets) != 1 or options.destination is None:
        raise ConfigError("-d needs --OBJECTIVES (one) and --DESTINATION", "--help lists the keys.")
    stem, files = parts.find(options.targets[0])
    target = options.destination
    if target.is_dir():
        target /= stem.removesuffix(".age").removesuffix(".crypt")
    chunks = stream.joined(files)
    first = next(chunks, b"")
    whole = chain([first], chunks)
    old = first.startswith(openssl.MAGIC)
    if not old and not first.startswith(age.MAGIC[: max(1, len(first))]):
        raise StageError(
            f"{files[0]} is in no known format", "It begins neither as age nor as OpenSSL does."
        )
    plain = _opened(options, whole, old=old)
    progress = stream.Progress()
    tally = stream.Tally()
    with filesystem_handling.create(target) as write:
        for chunk in stream.flow(plain, progress, tally):
            write(chunk)
    size = date_str_utils.human_size(tally.size)
    said = f"; {openssl.UNSIGNED}" if old else ""
    return Result(
        Status.OK, f"{target}: {size} from {len(files)} parts{said}", files=(str(target),)
    )


def _opened(options: Options, chunks: Iterator[bytes], *, old: bool) -> Iterator[bytes]:
    """The stage that decrypts what the first bytes say."""
    if options.passphrase and not old:
        yield from age.decrypt(chunks, [age.Passphrase(options.passphrase.reveal())])
        return
    found = keys.read(options.key_file)
    if old:
        yield from openssl.decrypt(chunks, keys.password(found, options.key_file))
    else:
        yield from age.decrypt(chunks, keys.identities(found, options.key_file))


def test(options: Options) -> tuple[str, ...]:
    """Whether the key is there and fits the format."""
    _load()
    _stage(options)
    where = "a passphrase" if options.passphrase else str(options.key_file)
    return (f"encrypts as {options.format.value} with {where}",)


if __name__ == "__main__":
    sys.exit(module.run(Options, work))
