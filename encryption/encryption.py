#!/usr/bin/env python3
"""Encrypt what compression left, in parts; decrypt it again (-d); make a key (--KEYGEN)."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from tools.base import launcher

    launcher.start(__file__)

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain

from encryption import age, formats, keys, openssl, parts, payload, provider, scrypt
from tools import date_str_utils, filesystem_handling
from tools.base import finding
from tools.base.errors import ConfigError, StageError
from tools.base.finding import Finding
from tools.base.result import Made, Result, Status
from tools.base.secret import Secret
from tools.flow import stream
from tools.flow.item import Stage
from tools.modules import executable
from tools.modules.options import Paths, Words, option

_LEFT = (
    "Remove the files named in the warnings after this run is stored; otherwise the next run "
    "encrypts them again."
)
_KEY_FILE = Path("/etc/nc-backup-py/key_file")


class Format(Enum):
    """The formats that can be written; both are read, whatever is named here."""

    AGE = "age"
    OPENSSL = "openssl"


@dataclass(frozen=True)
class Options:
    """The keys of the section, and of the commands beside it."""

    key_file: Path = option(
        "age identities, age recipients, or a password of the old format", default=_KEY_FILE
    )
    file_size: int = option("size of one part, in MiB", default=1024, least=1, unit="MiB")
    targets: Paths = option(
        "files and folders to encrypt, default WORK_FOLDER/compressed; with -d: one part, "
        "or the common beginning of the names of all parts",
        default=(),
        aliases=("OBJECTIVES",),
    )
    destination: Path | None = option(
        "folder for the parts, default WORK_FOLDER/encrypted; with -d: the file to write",
        default=None,
    )
    remove_targets: bool = option(
        "remove the originals after they are encrypted",
        default=True,
        aliases=("REMOVE_OBJECTIVES",),
    )
    format: Format = option("`age`, or `openssl` for the old format", default=Format.AGE)
    recipients: Words = option("additional age recipients (age1... or age1pq1...)", default=())
    passphrase: Secret = option("encrypt with a passphrase instead of KEY_FILE", default=Secret(""))
    work_folder: Path = option("folder for temporary files", default=Path("/opt/backup"))
    decrypt: bool = option("decrypt", default=False, flag="-d")
    keygen: bool = option("create KEY_FILE", default=False, flag="--KEYGEN")
    post_quantum: bool = option(
        "with --KEYGEN: a post-quantum key; age 1.3 or later reads its files",
        default=False,
        flag="--POST_QUANTUM",
    )
    export: bool = option(
        "write the age identity that is derived from an old KEY_FILE to DESTINATION",
        default=False,
        flag="--EXPORT",
    )

    def __post_init__(self) -> None:
        if self.post_quantum and not self.keygen:
            raise ConfigError(
                "POST_QUANTUM is used with --KEYGEN only",
                "To encrypt with a post-quantum key, put it into KEY_FILE.",
            )
        if self.passphrase and (self.recipients or self.format is Format.OPENSSL):
            raise ConfigError(
                "PASSPHRASE cannot be combined with RECIPIENTS or FORMAT openssl",
                "Remove one of them.",
            )
        if self.recipients and self.format is Format.OPENSSL:
            raise ConfigError(
                "RECIPIENTS cannot be used with FORMAT openssl",
                "Remove RECIPIENTS, or set FORMAT to age.",
            )


def work(options: Options) -> Result:
    """Do what the options ask for."""
    if options.keygen:
        return _keygen(options)
    if options.export:
        return _export(options)
    return _decrypt(options) if options.decrypt else _encrypt(options)


def _keygen(options: Options) -> Result:
    public = keys.generate(options.key_file, post_quantum=options.post_quantum)
    return Result(
        Status.OK,
        f"created {options.key_file}\nrecipient (public key): {public}\n"
        "Store a copy of the key file on another machine: without it no backup can be decrypted.\n"
        "Better: keep only the recipient on this server and the key file elsewhere.",
        files=(str(options.key_file),),
    )


def _export(options: Options) -> Result:
    """Write the identity to a file, never to the terminal, whose output ends in logs."""
    identity, *_ = keys.identities(keys.read(options.key_file, keys.Use.DECRYPT), options.key_file)
    if options.destination is None:
        raise ConfigError(
            "--DESTINATION is required",
            "Set --DESTINATION to the file that the identity is written to.",
        )
    public = keys.save(identity, options.destination)
    return Result(Status.OK, f"wrote the identity for {public} to {options.destination}")


@dataclass(frozen=True)
class _Way:
    """How files are encrypted.

    stage:  from the chunks of a file to those of the encrypted one
    ending: of the names
    said:   what is to be told of the key or the format
    kept:   whether these parts are what `stage` would make of so many bytes
    """

    stage: Callable[[stream.Chunks], Iterator[bytes]]
    ending: str
    said: str
    kept: Callable[[Sequence[Path], int], bool]


def _way(options: Options) -> _Way:
    provider.current()  # a missing library is reported before anything is read
    if options.passphrase:
        secret = scrypt.Passphrase(options.passphrase.reveal())
        return _Way(lambda chunks: age.encrypt(chunks, [secret]), ".age", "", _kept_age([]))
    found = keys.read(options.key_file)
    if options.format is Format.OPENSSL:
        password = keys.password(found, options.key_file, keys.Use.ENCRYPT)
        return _Way(
            lambda chunks: openssl.encrypt(chunks, password),
            ".crypt",
            openssl.UNAUTHENTICATED,
            _never,
        )
    said = ""
    if found.derived:
        said = (
            f"KEY_FILE {options.key_file} is a password of the old format: an age key is derived "
            "from it. Create an age key (--KEYGEN) for new backups and keep the old file for "
            "existing ones"
        )
    everyone = keys.recipients(found, options.key_file, options.recipients)
    kept = _kept_age(found.identities)
    return _Way(lambda chunks: age.encrypt(chunks, everyone), ".age", said, kept)


def _never(_files: Sequence[Path], _size: int) -> bool:
    return False


def _kept_age(identities: Sequence[age.Identity]) -> Callable[[Sequence[Path], int], bool]:
    """Whether parts are an age file of the right size, for these identities where there are any."""

    def kept(files: Sequence[Path], size: int) -> bool:
        try:
            header = age.header_size(stream.joined(files), identities)
        except StageError:
            return False
        return sum(map(_size, files)) == header + int(payload.sealed_size(size))

    return kept


def _size(path: Path) -> int:
    return path.stat().st_size


def _encrypt(options: Options) -> Result:
    """Encrypt every file below the targets; remove them when all are done."""
    targets = options.targets or (options.work_folder / "compressed",)
    destination = options.destination or options.work_folder / "encrypted"
    files = _named(targets, destination)
    way = _way(options)
    filesystem_handling.make_folder(destination)
    progress = stream.Progress()
    made: list[Path] = []
    trail: list[Made] = []
    kept = 0
    for name, file in files.items():
        there = _already(destination, name + way.ending, file, way)
        tally = stream.Tally()
        if there:
            kept += 1
            stream.drained(tally(stream.read(file)))
        else:
            chunks = stream.flow(stream.read(file), tally, progress, way.stage)
            size = options.file_size * parts.MIB
            there = parts.write(chunks, destination, name + way.ending, size)
        made += there
        into = tuple(map(str, there))
        trail.append(Made((str(file),), into, options.format.value, tally.size, tally.sha256))
    left = _remove(files.values()) if options.remove_targets else ()
    size = sum(map(_size, made))
    count = date_str_utils.count
    text = f"{count(len(files), 'file')} in {count(len(made), 'part')}"
    said = [f"{text}, {date_str_utils.human_size(size)}"]
    said += [f"{kept} of them were already encrypted by an interrupted run"] if kept else []
    warned = (*left, way.said) if way.said else left
    return Result(
        Status.UNCLEAN if left else Status.OK,
        "; ".join(said),
        hint=_LEFT if left else "",
        files=tuple(map(str, made)),
        items=len(files),
        bytes=size,
        warnings=warned,
        trail=tuple(trail),
    )


def stage(options: Options) -> Stage:
    """The stage for a streamed run, with the size of its parts."""
    way = _way(options)
    return Stage(
        options.format.value,
        way.ending,
        way.stage,
        size=options.file_size * parts.MIB,
        said=way.said,
    )


def backward(name: str, options: Options) -> Callable[[stream.Chunks], Iterator[bytes]]:
    """The inverse of a stage of this module, by its name in the manifest."""
    return _opener(options, old=name == Format.OPENSSL.value)


def _already(folder: Path, stem: str, source: Path, way: _Way) -> list[Path]:
    """The whole set that a run left which died before it removed the source; else nothing.

    It may have been stored, and a store takes no other bytes under the same name. Only a set
    newer than the last change of the source, and of the size that follows from it, counts.
    """
    found = parts.parts_of(folder, stem)
    if not found or sorted(found) != list(range(len(found))):
        return []
    files = list(found.values())
    status = source.stat()
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    newer = all(path.stat().st_mtime_ns >= changed for path in files)
    return files if newer and way.kept(files, status.st_size) else []


def _remove(files: Iterable[Path]) -> tuple[str, ...]:
    """Remove the sources; a line for each that stayed."""
    left = []
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            left.append(f"{file}: cannot be removed: {(error.strerror or '').lower()}")
    return tuple(left)


def _named(targets: Paths, destination: Path) -> dict[str, Path]:
    """The files to encrypt by the names of their sets.

    A name that several files bear is told apart by the folders below the target.
    """
    found: dict[Path, str] = {}  # by the file, the name that is its alone
    into = destination.resolve()
    for target in targets:
        if not target.exists():
            raise StageError(
                f"TARGETS: {target}: no such file or directory",
                "Set TARGETS to what the earlier sections wrote.",
            )
        real = target.resolve()
        if real == into or real in into.parents:
            raise ConfigError(
                f"DESTINATION: {destination} is inside TARGETS ({target})",
                "Set DESTINATION to a folder outside of TARGETS.",
            )
        for file in filesystem_handling.files_below(target):
            below = file.relative_to(target.parent) if target.name else file
            found.setdefault(file.resolve(), "%2F".join(below.parts))
    if not found:
        where = ", ".join(map(str, targets))
        raise StageError(
            f"no files to encrypt in {where}",
            "Set TARGETS to the folder that the earlier sections wrote to.",
        )
    many = Counter(file.name for file in found)
    named: dict[str, Path] = {}
    for file, long in found.items():
        name = file.name if many[file.name] == 1 else long
        if name in named:
            raise StageError(
                f"two files would both be encrypted as {long}", f"Rename {named[name]} or {file}."
            )
        named[name] = file
    return named


def _decrypt(options: Options) -> Result:
    """Decrypt one part or many into one file, which appears when its last byte is verified."""
    if not options.targets or options.destination is None:
        raise ConfigError(
            "-d requires --OBJECTIVES and --DESTINATION", "Run with --help to list the keys."
        )
    objective = Path(" ".join(map(str, options.targets)))  # one path, though spaces part a list
    stem, files = parts.find(objective, formats.MAGICS)
    target = options.destination
    if target.is_dir():
        target /= stem.removesuffix(".age").removesuffix(".crypt")
    if target.exists() or target.is_symlink():
        raise ConfigError(f"DESTINATION: {target}: file exists", "Choose a new file name.")
    if not target.parent.is_dir():
        raise ConfigError(
            f"DESTINATION: {target.parent}: not a directory", f"Create it: mkdir -p {target.parent}"
        )
    chunks = stream.joined(files)
    first = next(chunks, b"")
    old = formats.is_old(first, files[0])
    opened = _opener(options, old=old)
    if old:
        parts.check_sizes(files)
    try:
        # not synced: it can be decrypted again at any time
        with filesystem_handling.create(target, durable=False) as write:
            for chunk in stream.flow(chain([first], chunks), stream.Progress(), opened):
                write(chunk)
    except StageError as trouble:
        raise parts.explain(trouble, files, stem, old=old) from None
    size = date_str_utils.human_size(_size(target))
    said = f"; {openssl.UNAUTHENTICATED}" if old else ""
    if old and (following := parts.next_missing(files, stem)) is not None:
        said += f"; the last part is as long as a whole one: is there a {following.name}?"
    return Result(
        Status.OK,
        f"{target}: {size} decrypted from {date_str_utils.count(len(files), 'part')}{said}",
        files=(str(target),),
        items=1,
        bytes=_size(target),
    )


def _opener(options: Options, *, old: bool) -> Callable[[stream.Chunks], Iterator[bytes]]:
    """Return the stage that decrypts."""
    provider.current()  # a missing library is reported before anything is read
    if options.passphrase:
        secret = options.passphrase.reveal()
        if old:
            return lambda chunks: openssl.decrypt(chunks, secret.encode())
        return lambda chunks: age.decrypt(chunks, [scrypt.Passphrase(secret)])
    found = keys.read(options.key_file, keys.Use.DECRYPT)
    if old:
        password = keys.password(found, options.key_file)
        return lambda chunks: openssl.decrypt(chunks, password)
    identities = keys.identities(found, options.key_file)
    return lambda chunks: age.decrypt(chunks, identities)


def test(options: Options) -> Sequence[str | Finding]:
    """Whether the key is there and fits the format."""
    way = _way(options)
    where = "a passphrase" if options.passphrase else str(options.key_file)
    line = f"encryption: {options.format.value}, {where}"
    return (line, finding.warning(way.said)) if way.said else (line,)


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.run(Options, work, argv)
