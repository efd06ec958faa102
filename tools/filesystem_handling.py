"""Files and folders: written atomically, never over another, checked for permissions."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shlex
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.base import permissions, removal
from tools.base.errors import BackupError, in_words

_libc = ctypes.CDLL(None, use_errno=True)
PART = ".part-"  # stands in every temporary name
_LONGEST = 200  # bytes of a name in a temporary one: a name has at most 255
Write = Callable[[bytes], None]
_LEAST_FREE = 1 << 20  # bytes: less is what a failed program left
LOOP = "is a symbolic link that leads to itself"
_MOUNTS = (Path("/mnt"), Path("/media"), Path("/run/media"))  # where disks get mounted (FHS)


def is_temporary(name: str) -> bool:
    """Return whether a name is a temporary one of `create`."""
    return name.startswith(".") and PART in name


@contextlib.contextmanager
def create(
    path: Path, *, durable: bool = True, check: Callable[[Path], None] | None = None
) -> Iterator[Write]:
    """Write a new file that gets its name only when the block has ended well.

    Gives the function that writes to it. Written under a temporary name beside it (O_EXCL,
    0600), synced, then linked without replacing anything, and the folder synced;
    `durable=False` leaves the syncs out, for work files. `check` is called with the temporary
    name before the file gets its own, and may raise. On any exception nothing is left.
    Raises FileExistsError where the name is taken, OSError naming the path where the disk
    is full or broken.
    """
    with staged(path) as unfinished:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with naming(path):
            try:
                yield lambda chunk: write_all(descriptor, chunk)
                if durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        if check is not None:
            check(unfinished)
        publish(unfinished, path)
    if durable:
        sync_folder(path.parent)


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; a file under it is removed at the end."""
    temporary_path = temporary(path)
    try:
        yield temporary_path
    finally:
        temporary_path.unlink(missing_ok=True)


def temporary(path: Path) -> Path:
    """Return a new temporary name beside `path`, as long as a name may be at most."""
    begin = os.fsdecode(os.fsencode(path.name)[:_LONGEST])
    return path.with_name(f".{begin}{PART}{uuid.uuid4().hex[:8]}")


def write_all(descriptor: int, chunk: bytes | memoryview) -> None:
    """Write every byte: write(2) may write less than it was given."""
    unwritten = memoryview(chunk)
    while unwritten:
        unwritten = unwritten[os.write(descriptor, unwritten) :]


def publish(temporary: Path, path: Path, folder: int | None = None) -> None:
    """Give a finished file its name without ever replacing another.

    Where the file system knows no hard links (FAT, some FUSE), the name is checked and
    then taken by a rename. folder: a descriptor of the folder of both; None: their paths count
    """
    old, new = (one if folder is None else one.name for one in (temporary, path))
    conflict = FileExistsError(17, "exists already, and nothing is overwritten", str(path))
    try:
        os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        raise conflict from None
    except OSError:
        if is_taken(new, folder):
            raise conflict from None
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)


def is_taken(name: str | Path, folder: int | None = None) -> bool:
    """Return whether a name is one of a file, or of a broken link. folder: see `publish`

    Raises OSError where that cannot be told: what may be there must not be replaced.
    """
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def sync_file_system(folder: Path) -> None:
    """Write everything in the file system of a folder to its disk (syncfs(2)). Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that its names survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the path to an OSError that has none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
        raise


def make_folder(folder: Path) -> Path:
    """Return the folder; create it (0700, with parents) if it is missing."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def remove(path: Path) -> None:
    """Remove one file or one tree; a missing one is not an error.

    Raises BackupError for a path so short that it can only be a mistake.
    """
    if len(path.absolute().parts) <= 2:  # noqa: PLR2004  (/ and /opt: never a work folder)
        raise BackupError(f"{path} is not removed: it is too near to /")
    removal.tree(path)


def files_below(target: Path) -> Iterator[Path]:
    """Return every finished regular file below a folder, or the file itself, sorted by name."""
    pending = [target]
    while pending:  # folders may be nested deeper than functions
        path = pending.pop()
        if path != target and (path.name.startswith(".") or path.is_symlink()):
            continue  # temporary or private
        if path.is_dir():
            pending += sorted(path.iterdir(), reverse=True)
        elif path.is_file():
            yield path


def entries_below(
    folder: Path,
    *,
    enter: Callable[[os.DirEntry[str]], bool] = lambda _folder: True,
    problem: Callable[[OSError], None] | None = None,
) -> Iterator[os.DirEntry[str]]:
    """Return every entry below a folder, at any depth; links are not followed.

    enter:   whether to go into a folder
    problem: gets the error of a folder that cannot be listed; None: it is raised. A folder that
             has vanished is no error.
    """
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as listed:
                entries = list(listed)
        except FileNotFoundError:
            continue
        except OSError as error:
            if problem is None:
                raise
            problem(error)
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and enter(entry):
                pending.append(entry.path)
            yield entry


def exists(path: Path) -> bool:
    """Return whether a path exists, if only as a broken link.

    Raises OSError where that cannot be told: what may be there must not be written anew.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def nearest(path: Path) -> Path:
    """Return the path, or the nearest one above it that exists, if only as a broken link."""
    while not os.path.lexists(path):  # False too where a folder above is closed
        path = path.parent
    return path


def looping_link(path: Path) -> Path | None:
    """Return the first link of a path that leads to itself, maybe by others; None for none."""
    for one in (*reversed(path.parents), path):
        try:
            one.stat()
        except OSError as error:
            return one if error.errno == errno.ELOOP else None
    return None


def missing_folder(folder: Path) -> tuple[str, str]:
    """Return why a path is not a folder, naming what blocks it, and a hint that is safe."""
    other = "Choose another path."
    try:
        folder.stat()
    except PermissionError:
        return f"{folder}: permission denied", "Choose a folder that this user can enter."
    except (FileNotFoundError, NotADirectoryError):
        existing = nearest(folder)
        if existing.is_dir():
            return f"{folder}: no such directory", f"Create it: mkdir -p {shlex.quote(str(folder))}"
        if existing.is_symlink() and not existing.exists():
            return f"{existing}: is a broken symbolic link", other
        return f"{existing}: not a directory", other
    except OSError as error:
        link = looping_link(folder)
        return f"{link}: {LOOP}" if link else in_words(error)[0], other
    return f"{folder}: not a directory", other


def unmounted(folder: Path) -> bool:
    """Return whether a path lies where disks get mounted, and on the disk of the system itself."""
    real = Path(os.path.realpath(folder))
    on_root = nearest(real).stat().st_dev == Path("/").stat().st_dev
    return on_root and any(real.is_relative_to(mount_folder) for mount_folder in _MOUNTS)


def is_full(path: Path) -> bool:
    """Return whether this user can write less than 1 MiB or no new file there. Raises OSError."""
    usage = os.statvfs(nearest(path))
    blocks = usage.f_bfree if os.geteuid() == 0 else usage.f_bavail
    return blocks * usage.f_frsize < _LEAST_FREE or (usage.f_files > 0 and usage.f_favail == 0)


def free_percent(path: Path) -> float:
    """Return the free space in percent of the file system of `path` or its nearest parent."""
    usage = os.statvfs(nearest(path))
    return 100.0 * usage.f_bavail / max(1, usage.f_blocks - usage.f_bfree + usage.f_bavail)


def insecure(path: Path) -> str:
    """Return why another user could change `path`, and the command that fixes it; "" if none."""
    problem = permissions.of_code(path)
    return f"{problem}: {problem.hint}" if problem else ""
