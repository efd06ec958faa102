"""Encrypt what compression wrote, in parts; decrypt it (-d); create a key (--KEYGEN)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from pathlib import Path

from encryption import (
    age,
    age_payload,
    formats,
    key_checks,
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
from tools.flow.progress import Progress
from tools.modules import executable, work_folder
from tools.modules import targets as work_targets
from tools.modules.options import Paths, Strings, option
from tools.modules.work_store import WorkFolder, WorkStore, parts_of

_UNREMOVABLE = (
    "Remove the files named in the warnings after this run is stored; otherwise the next run "
    "encrypts them again."
)
_KEY_FILE = Path("/etc/nc-backup-py/key_file")
_WRITER_KEY = Path("/etc/nc-backup-py/writer.key")


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
    recipients: Strings = option("additional age recipients (age1... or age1pq1...)", default=())
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

    writer: bool = option(
        "with --KEYGEN: create WRITER_KEY, to sign the manifests of this server",
        default=False,
        flag="--WRITER",
    )
    rotate: bool = option(
        "with --WRITER: replace WRITER_KEY with a new key, signed with the old one",
        default=False,
        flag="--ROTATE",
    )
    writer_key: Path = option("with --WRITER: the file", default=_WRITER_KEY)
    hostname: str = option("with --WRITER: HOSTNAME of the backups", default="")

    def __post_init__(self) -> None:
        if self.writer and not self.keygen:
            raise ConfigError("WRITER is used with --KEYGEN only")
        if self.rotate and not self.writer:
            raise ConfigError("ROTATE is used with --KEYGEN --WRITER only")
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
    if options.writer:
        return key_commands.create_writer(
            options.writer_key, options.hostname, options.key_file, rotate=options.rotate
        )
    if options.keygen:
        return key_commands.create(options.key_file, post_quantum=options.post_quantum)
    if options.export:
        return key_commands.export(options.key_file, options.destination)
    return _decrypt(options) if options.decrypt else _encrypt(options)


@dataclass(frozen=True)
class _Encryptor:
    """How files are encrypted.

    is_complete: whether parts are what `stage` makes of so many bytes
    """

    stage: Stage
    is_complete: Callable[[Sequence[Path], int], bool]


def _make_encryptor(options: Options) -> _Encryptor:
    provider.current()  # a missing library is reported before anything is read
    size = options.file_size * part_files.MIB
    if options.passphrase:
        secret = scrypt.Passphrase(options.passphrase.reveal())
        stage = Stage("age", ".age", lambda chunks: age.encrypt(chunks, [secret]), size=size)
        return _Encryptor(stage, _complete_age([]))
    keys = key_file.read(options.key_file)
    if options.format is Format.OPENSSL:
        password = key_file.password(keys, options.key_file, key_file.Use.ENCRYPT)
        stage = Stage(
            "openssl",
            ".crypt",
            lambda chunks: openssl_format.encrypt(chunks, password),
            size=size,
            notice=openssl_format.UNAUTHENTICATED,
        )
        return _Encryptor(stage, lambda _files, _size: False)
    recipients = key_file.recipients(keys, options.key_file, options.recipients)
    stage = Stage(
        "age",
        ".age",
        lambda chunks: age.encrypt(chunks, recipients),
        size=size,
        notice=_derived_notice(options.key_file) if keys.is_derived else "",
    )
    return _Encryptor(stage, _complete_age(keys.identities))


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
    """Let each item below the targets flow into parts; remove the originals after all of them."""
    targets = options.targets or (options.work_folder / "compressed",)
    destination = options.destination or options.work_folder / "encrypted"
    folder = WorkFolder()
    sets = _unique_names(targets, destination, folder)
    encryptor = _make_encryptor(options)
    store = WorkStore(destination)
    written: list[Path] = []
    kept = 0
    for name, files in sets.items():
        target = name + encryptor.stage.ending
        there = part_files.find_parts(destination, target)
        if _is_kept(there, files, encryptor):
            kept += 1
            folder.adopt([*there.values()], files, [encryptor.stage])
            written += there.values()
            continue
        if any(map(folder.entry, there.values())):  # another item, which waits to be stored
            target, there = f"{work_folder.run_id()}.{target}", {}
        written += folder.pass_on(
            files, store, parts_of(target), encryptor.stage, [*there.values()]
        )
    sources = [file for files in sets.values() for file in files]
    unremovable = _remove(sources, folder) if options.remove_targets else ()
    size = sum(map(_size, written))
    count = date_str_utils.count
    text = f"{count(len(sources), 'file')} in {count(len(written), 'part')}"
    message = [f"{text}, {date_str_utils.human_size(size)}"]
    message += [f"{kept} of them were already encrypted by an interrupted run"] if kept else []
    notice = encryptor.stage.notice
    return Result(
        Status.UNCLEAN if unremovable else Status.OK,
        "; ".join(message),
        hint=_UNREMOVABLE if unremovable else "",
        files=tuple(map(str, written)),
        items=len(sets),
        bytes=size,
        warnings=(*unremovable, notice) if notice else unremovable,
    )


def stage(options: Options) -> Stage:
    """Return the stage, with the size of its parts."""
    return _make_encryptor(options).stage


def backward(name: str, options: Options) -> Callable[[stream.Chunks], Iterator[bytes]]:
    """Return the inverse of a stage of this module, by its name in the manifest."""
    return _decryptor(options, old=name == Format.OPENSSL.value)


def _is_kept(parts: Mapping[int, Path], files: Sequence[Path], encryptor: _Encryptor) -> bool:
    """Return whether parts are the complete set of a run that was killed before it removed `files`.

    They may have been stored, and a store rejects other bytes under the same name. They must be
    newer than the last change of the source and have the size that follows from the source.
    """
    if not parts or list(parts) != list(range(len(parts))):
        return False
    states = [file.stat() for file in files]
    changed = max(max(state.st_mtime_ns, state.st_ctime_ns) for state in states)
    newer = all(path.stat().st_mtime_ns >= changed for path in parts.values())
    size = sum(state.st_size for state in states)
    return newer and encryptor.is_complete([*parts.values()], size)


def _remove(files: Iterable[Path], folder: WorkFolder) -> tuple[str, ...]:
    """Remove the sources; return a warning for each that cannot be removed."""
    warnings = []
    for file in files:
        try:
            folder.remove([file])
        except OSError as error:
            warnings.append(f"{file}: cannot be removed: {(error.strerror or '').lower()}")
    return tuple(warnings)


def _unique_names(
    targets: Paths, destination: Path, folder: WorkFolder
) -> dict[str, Sequence[Path]]:
    """Return the files of each item to encrypt, by the name of its set.

    If several have the same name, the folders below the target are put before it.
    """
    into = destination.resolve()
    for target in targets:
        real = target.resolve()
        if real == into or real in into.parents:
            raise ConfigError(
                f"DESTINATION: {destination} is inside TARGETS ({target})",
                "Set DESTINATION to a folder outside of TARGETS.",
            )
    names = {
        entry.path.resolve(): "%2F".join(entry.name.parts)
        for entry in work_targets.files(targets, StageError)
    }
    if not names:
        where = ", ".join(map(str, targets))
        raise StageError(
            f"no files to encrypt in {where}",
            "Set TARGETS to the folder that the earlier sections wrote to.",
        )
    recorded, others = folder.sets(names)
    sets = [*recorded, *([file] for file in others)]
    short = [work_folder.name_of(files) for files in sets]
    many = Counter(short)
    named: dict[str, Sequence[Path]] = {}
    for files, name in zip(sets, short, strict=True):
        long = name if many[name] == 1 else work_folder.bounded(names[files[0]])
        if long in named:
            raise StageError(
                f"two files would both be encrypted as {long}",
                f"Rename {named[long][0]} or {files[0]}.",
            )
        named[long] = files
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
        problem, hint = filesystem_handling.missing_folder(target.parent)
        raise ConfigError(f"DESTINATION: {problem}", hint)
    chunks = stream.joined(files)
    first = next(chunks, b"")
    old = formats.is_old(first, files[0])
    stage = _decryptor(options, old=old)
    if old:
        part_files.check_sizes(files)
    try:
        # not synced: it can be decrypted again at any time
        with filesystem_handling.create(target, durable=False) as write:
            for chunk in stream.flow(chain([first], chunks), Progress(), stage):
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
    keys = key_file.read_private(options.key_file)
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
    notice = encryptor.stage.notice
    secret = [] if options.passphrase else key_checks.identity(options.key_file)
    return (line, *secret, *([finding.warning(notice)] if notice else []))


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    return executable.run(Options, work, argv)
