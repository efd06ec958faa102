"""Encrypt what compression wrote, in parts; decrypt it (-d); create a key (--KEYGEN)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from pathlib import Path

from encryption import (
    age,
    age_payload,
    formats,
    key_commands,
    key_file,
    openssl_format,
    part_files,
    provider,
    scrypt,
)
from tools import date_str_utils, filesystem_handling
from tools.base import finding
from tools.base.errors import ConfigError, StageError
from tools.base.finding import Finding
from tools.base.result import Result, Status
from tools.base.secret import Secret
from tools.flow import stream
from tools.flow.item import Stage
from tools.flow.item_record import Part
from tools.modules import executable, work_folder
from tools.modules import targets as work_targets
from tools.modules.options import Paths, Words, option
from tools.modules.work_folder import WorkFolder, applied

_UNREMOVABLE = (
    "Remove the files named in the warnings after this run is stored; otherwise the next run "
    "encrypts them again."
)
_KEY_FILE = Path("/etc/nc-backup-py/key_file")


class Format(Enum):
    """The formats that can be written; both are always read."""

    AGE = "age"
    OPENSSL = "openssl"


@dataclass(frozen=True)
class Options:
    """The keys of the section and of the other commands."""

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
        return key_commands.create(options.key_file, post_quantum=options.post_quantum)
    if options.export:
        return key_commands.export(options.key_file, options.destination)
    return _decrypt(options) if options.decrypt else _encrypt(options)


@dataclass(frozen=True)
class _Encryptor:
    """How files are encrypted.

    stage:       from the chunks of a file to those of the encrypted file
    suffix:      of the names
    notice:      a warning about the key or the format; "" for none
    is_complete: whether parts are what `stage` makes of so many bytes
    """

    stage: Callable[[stream.Chunks], Iterator[bytes]]
    suffix: str
    notice: str
    is_complete: Callable[[Sequence[Path], int], bool]


def _make_encryptor(options: Options) -> _Encryptor:
    provider.current()  # a missing library is reported before anything is read
    if options.passphrase:
        secret = scrypt.Passphrase(options.passphrase.reveal())
        return _Encryptor(
            lambda chunks: age.encrypt(chunks, [secret]), ".age", "", _complete_age([])
        )
    keys = key_file.read(options.key_file)
    if options.format is Format.OPENSSL:
        password = key_file.password(keys, options.key_file, key_file.Use.ENCRYPT)
        return _Encryptor(
            lambda chunks: openssl_format.encrypt(chunks, password),
            ".crypt",
            openssl_format.UNAUTHENTICATED,
            lambda _files, _size: False,
        )
    recipients = key_file.recipients(keys, options.key_file, options.recipients)
    return _Encryptor(
        lambda chunks: age.encrypt(chunks, recipients),
        ".age",
        _derived_notice(options.key_file) if keys.is_derived else "",
        _complete_age(keys.identities),
    )


def _derived_notice(path: Path) -> str:
    return (
        f"KEY_FILE {path} is a password of the old format: an age key is derived from it. Create "
        "an age key (--KEYGEN) for new backups and keep the old file for existing ones"
    )


def _complete_age(identities: Sequence[age.Identity]) -> Callable[[Sequence[Path], int], bool]:
    """Return a check for parts: an age file of the right size, for one of any identities."""

    def is_complete(files: Sequence[Path], size: int) -> bool:
        try:
            header = age.header_size(stream.joined(files), identities)
        except StageError:
            return False
        return sum(map(_size, files)) == header + age_payload.sealed_size(size)

    return is_complete


def _size(path: Path) -> int:
    return path.stat().st_size


def _encrypt(options: Options) -> Result:
    """Encrypt every file below the targets; remove the originals after all are encrypted."""
    targets = options.targets or (options.work_folder / "compressed",)
    destination = options.destination or options.work_folder / "encrypted"
    files = _unique_names(targets, destination)
    encryptor = _make_encryptor(options)
    filesystem_handling.make_folder(destination)
    progress = stream.Progress()
    folder = WorkFolder()
    written: list[Path] = []
    kept = 0
    for name, file in files.items():
        target = destination / (name + encryptor.suffix)
        paths = _existing_parts(destination, target.name, file, encryptor)
        if paths:
            kept += 1
            item = applied(folder.item(file), options.format.value, work_folder.measured(file))
            folder.adopt(paths, item, folder.run_of(file))
        else:
            chunks = progress(folder.read(file))
            paths = _write(stream.flow(chunks, encryptor.stage), file, target, options, folder)
        written += paths
    unremovable = _remove(files.values(), folder) if options.remove_targets else ()
    size = sum(map(_size, written))
    count = date_str_utils.count
    text = f"{count(len(files), 'file')} in {count(len(written), 'part')}"
    message = [f"{text}, {date_str_utils.human_size(size)}"]
    message += [f"{kept} of them were already encrypted by an interrupted run"] if kept else []
    warnings = (*unremovable, encryptor.notice) if encryptor.notice else unremovable
    return Result(
        Status.UNCLEAN if unremovable else Status.OK,
        "; ".join(message),
        hint=_UNREMOVABLE if unremovable else "",
        files=tuple(map(str, written)),
        items=len(files),
        bytes=size,
        warnings=warnings,
    )


def _write(
    chunks: stream.Chunks, file: Path, target: Path, options: Options, folder: WorkFolder
) -> list[Path]:
    """Write the encrypted chunks of a file into parts; return them.

    target: their name without the number. A set of another item under this name waits to be
    stored: the new one gets the run id in front.
    """
    if folder.entry(target.with_name(f"{target.name}.000")) is not None:
        target = target.with_name(f"{work_folder.run_id()}.{target.name}")

    def record(found: Sequence[Part]) -> None:
        item = applied(folder.item(file), options.format.value, folder.measured(file))
        item = dataclasses.replace(item, parts=tuple(found))
        folder.record(target.parent, item, folder.run_of(file))

    size = options.file_size * part_files.MIB
    return part_files.write(chunks, target.parent, target.name, size, record)


def stage(options: Options) -> Stage:
    """Return the stage for a streamed run, with the size of its parts."""
    encryptor = _make_encryptor(options)
    return Stage(
        options.format.value,
        encryptor.suffix,
        encryptor.stage,
        size=options.file_size * part_files.MIB,
        notice=encryptor.notice,
    )


def backward(name: str, options: Options) -> Callable[[stream.Chunks], Iterator[bytes]]:
    """Return the inverse of a stage of this module, by its name in the manifest."""
    return _decryptor(options, old=name == Format.OPENSSL.value)


def _existing_parts(folder: Path, stem: str, source: Path, encryptor: _Encryptor) -> list[Path]:
    """Return the complete set of a run that was killed before it removed the source, or nothing.

    It may have been stored, and a store rejects other bytes under the same name. The set must be
    newer than the last change of the source and have the size that follows from the source.
    """
    found = part_files.find_parts(folder, stem)
    if not found or sorted(found) != list(range(len(found))):
        return []
    files = list(found.values())
    status = source.stat()
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    newer = all(path.stat().st_mtime_ns >= changed for path in files)
    return files if newer and encryptor.is_complete(files, status.st_size) else []


def _remove(files: Iterable[Path], folder: WorkFolder) -> tuple[str, ...]:
    """Remove the sources; return a warning for each that cannot be removed."""
    warnings = []
    for file in files:
        try:
            folder.remove([file])
        except OSError as error:
            warnings.append(f"{file}: cannot be removed: {(error.strerror or '').lower()}")
    return tuple(warnings)


def _unique_names(targets: Paths, destination: Path) -> dict[str, Path]:
    """Return the files to encrypt, by the names of their sets.

    If several files have the same name, the folders below the target are put before it.
    """
    found: dict[Path, str] = {}  # by the file, the name that is its alone
    into = destination.resolve()
    for target in targets:
        real = target.resolve()
        if real == into or real in into.parents:
            raise ConfigError(
                f"DESTINATION: {destination} is inside TARGETS ({target})",
                "Set DESTINATION to a folder outside of TARGETS.",
            )
    for entry in work_targets.files(targets, StageError):
        found[entry.path.resolve()] = "%2F".join(entry.name.parts)
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
    """Decrypt parts to one file, which appears after its last byte is verified."""
    if not options.targets or options.destination is None:
        raise ConfigError(
            "-d requires --OBJECTIVES and --DESTINATION", "Run with --help to list the keys."
        )
    objective = Path(" ".join(map(str, options.targets)))  # one path, though spaces part a list
    stem, files = part_files.resolve_objective(objective, formats.MAGICS)
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
    stage = _decryptor(options, old=old)
    if old:
        part_files.check_sizes(files)
    try:
        # not synced: it can be decrypted again at any time
        with filesystem_handling.create(target, durable=False) as write:
            for chunk in stream.flow(chain([first], chunks), stream.Progress(), stage):
                write(chunk)
    except StageError as error:
        raise part_files.diagnose(error, files, stem, old=old) from None
    size = date_str_utils.human_size(_size(target))
    notice = f"; {openssl_format.UNAUTHENTICATED}" if old else ""
    following = part_files.next_missing(files, stem) if old else None
    if following is not None:
        notice += f"; the last part has the size of a full part: is there a {following.name}?"
    return Result(
        Status.OK,
        f"{target}: {size} decrypted from {date_str_utils.count(len(files), 'part')}{notice}",
        files=(str(target),),
        items=1,
        bytes=_size(target),
    )


def _decryptor(options: Options, *, old: bool) -> Callable[[stream.Chunks], Iterator[bytes]]:
    """Return the stage that decrypts."""
    provider.current()  # a missing library is reported before anything is read
    if options.passphrase:
        secret = options.passphrase.reveal()
        if old:
            return lambda chunks: openssl_format.decrypt(chunks, secret.encode())
        return lambda chunks: age.decrypt(chunks, [scrypt.Passphrase(secret)])
    keys = key_file.read(options.key_file, key_file.Use.DECRYPT)
    if old:
        password = key_file.password(keys, options.key_file)
        return lambda chunks: openssl_format.decrypt(chunks, password)
    identities = key_file.identities(keys, options.key_file)
    return lambda chunks: age.decrypt(chunks, identities)


def test(options: Options) -> Sequence[str | Finding]:
    """Check that the key exists and fits the format."""
    encryptor = _make_encryptor(options)
    where = "a passphrase" if options.passphrase else str(options.key_file)
    line = f"encryption: {options.format.value}, {where}"
    return (line, finding.warning(encryptor.notice)) if encryptor.notice else (line,)


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.run(Options, work, argv)
