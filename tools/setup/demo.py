"""setup.py demo: a backup and its restore in a temporary folder, compared byte for byte."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.base import foreign_json
from tools.base.errors import BackupError
from tools.date_str_utils import count

ROOT = Path(__file__).resolve().parents[2]
_EXAMPLE = ROOT / "conf/examples/local.json"
_FOLDERS = ("docs", "tools", "conf", "encryption")  # of the project: real files
_HOLE = 8 << 20  # bytes of the sparse file
_NANOSECONDS = 1_600_000_000_123_456_789  # a time that only the POSIX format keeps whole
_TAIL = 5  # lines of a failed program that are shown


def demo(python: Path) -> int:
    """Back up, verify, restore and compare. Raises BackupError at the first difference."""
    folder = Path(tempfile.mkdtemp(prefix="nc-backup-demo-")).resolve()
    source, restored = folder / "source", folder / "restored"
    key, conf = folder / "key_file", folder / "conf.json"
    print(f"demo folder: {folder}")
    _make_source(source)
    print(
        f"1. {len(_tree_snapshot(source))} files and folders in {source}, some with unusual names"
    )
    keygen: list[str | Path] = [
        python,
        ROOT / "encryption/encryption.py",
        "--KEYGEN",
        "--KEY_FILE",
        key,
    ]
    _run(keygen)
    _run([*keygen, "--WRITER", "--WRITER_KEY", folder / "writer.key", "--HOSTNAME", "demo"])
    print(f"2. created an age key, {key}, and a key that signs the runs (mode 0600)")
    _configure(conf, folder, source, key)
    _run([python, ROOT / "backup.py", "-r", "-c", conf])
    item = _stored(folder / "store")
    print(f"3. backup.py -r -c {conf}: streamed run, {count(len(item['parts']), 'encrypted part')}")
    restore: list[str | Path] = [python, ROOT / "restore/restore.py", "-c", conf]
    print(f"4. restore.py -c {conf} --list:")
    print(textwrap.indent(_run([*restore, "--list"]).rstrip(), "   "))
    _run([*restore, "--verify", "latest"])
    print("5. restore.py --verify latest: all parts read, decrypted, decompressed and checked")
    _run([*restore, "--restore", "latest", "--destination", restored])
    print(f"6. restore.py --restore latest --destination {restored}")
    _compare(source, restored / "FILESET" / source.relative_to("/"))
    print("   contents, modes, times, owners, links and sparse files are identical")
    _restore_with_stock_tools(folder, item, key)
    print(
        "\nNext: sudo python3 setup.py installs it on this server, with keys, a config to edit\n"
        "and a nightly schedule (README.md; --dry-run only prints the steps).\n"
        f"{conf} is the config of this demo.\n"
        f"{folder}/store/demo/*.RECOVERY.txt shows how to restore without this program.\n"
        f"Remove the demo with: rm -r {folder}"
    )
    return 0


def _run(command: Sequence[str | Path]) -> str:
    """Return the standard output of a program. Raises BackupError with its last lines."""
    done = subprocess.run(
        command,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        command_start = [str(word) for word in command[:3]]
        last_lines = (done.stderr or done.stdout).strip().split("\n")[-_TAIL:]
        raise BackupError(
            f"demo failed: {' '.join(command_start)} exited with code {done.returncode}",
            hint=" | ".join(last_lines),
        )
    return done.stdout


def _make_source(source: Path) -> None:
    """Create a folder with parts of this project and with files that are difficult to back up."""
    source.mkdir()
    for name in _FOLDERS:
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=unwanted, symlinks=True)
    odd = source / "odd names"
    odd.mkdir()
    for name in ("two  spaces", "-rf", "quote'\"$(id)`;&", "line\nbreak", "ünï", "*"):
        (odd / name).write_text(f"the file {name!r}\n", encoding="utf-8")
    raw = os.fsencode(odd) + b"/not utf-8 \xff\xfe"
    os.close(os.open(raw, os.O_CREAT | os.O_WRONLY, 0o640))
    (odd / "hard link").hardlink_to(odd / "-rf")
    (odd / "symbolic link").symlink_to("two  spaces")
    (odd / "link to nowhere").symlink_to("/does not exist")
    (odd / "empty folder").mkdir(mode=0o700)
    (odd / "random").write_bytes(os.urandom(3 << 20))  # so that there are several parts
    with (odd / "sparse").open("wb") as sparse:
        sparse.truncate(_HOLE)
        sparse.seek(_HOLE // 2)
        sparse.write(b"in the middle of nothing")
    # only root gets a set-id bit back: another user would hand out rights that were not his
    (odd / "-rf").chmod(0o4751 if os.geteuid() == 0 else 0o751)
    os.utime(odd / "two  spaces", ns=(_NANOSECONDS, _NANOSECONDS))


def _configure(conf: Path, folder: Path, source: Path, key: Path) -> None:
    """Write the example config with the paths of the demo."""
    config: dict[str, Any] = foreign_json.load(_EXAMPLE.read_bytes())
    general = config["GENERAL"]
    general |= {
        "HOSTNAME": "demo",
        "WORK_FOLDER": str(folder / "work"),
        "LOCAL_BACKUP": str(folder / "store"),
        "HOME_FOLDER": str(ROOT),
        "LOG_FOLDER": str(folder / "backup.log"),
        "WRITER_KEY": str(folder / "writer.key"),
    }
    for reporting in ("MESSAGE_CONFIG_COMMAND", "MESSAGE_CONFIG_METHOD"):
        general.pop(reporting, None)
    if os.geteuid() == 0:
        general["ALLOW_ROOT"] = "True"
        print('running as root: the demo sets "ALLOW_ROOT": "True"; real backups run as ncbackup')
    filled = {
        "filesbackup": {"FILESET_INCLUDE": [str(source)], "FILESET_EXCLUDE": []},
        "compression": {},
        "encryption": {"KEY_FILE": str(key), "FILE_SIZE": "1"},
        "storage": {},
    }
    config.pop("$schema", None)  # names a file beside the example
    for section in (entry for entry in config.values() if isinstance(entry, dict)):
        if section.get("NAME") in filled:
            # the other folders of the example are those of a real installation
            parameters = section.setdefault("PARAMETERS", {})
            for name in ("TARGETS", "OBJECTIVES", "LOCAL_BACKUP"):
                parameters.pop(name, None)
            if section["NAME"] != "storage":
                parameters.pop("DESTINATION", None)
            parameters |= filled[section["NAME"]]
        elif isinstance(section.get("PARAMETERS"), dict):
            section["PARAMETERS"].pop("TARGETS", None)
    conf.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    conf.chmod(0o600)


def _stored(store: Path) -> dict[str, Any]:
    """Return the one item of the one run in the store, from its manifest."""
    manifests = list(store.glob("demo/*.manifest.json"))
    if len(manifests) != 1:
        raise BackupError(f"demo failed: {len(manifests)} manifests in {store}, expected 1")
    (item,) = foreign_json.load(manifests[0].read_bytes())["items"]
    return dict(item)


def _tree_snapshot(top: Path) -> dict[bytes, tuple[object, ...]]:
    """Return everything that must be restored, by its name below the top."""
    snapshot: dict[bytes, tuple[object, ...]] = {}
    inodes: dict[tuple[int, int], bytes] = {}
    for folder, folders, files in os.walk(os.fsencode(top)):
        for name in sorted([*folders, *files]):
            path = os.path.join(folder, name)  # noqa: PTH118  (bytes: a name may be no text)
            about = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(about.st_mode):
                content = os.readlink(path)  # noqa: PTH115  (bytes, as above)
            elif stat.S_ISREG(about.st_mode):
                with open(path, "rb") as file:  # noqa: PTH123  (bytes, as above)
                    content = file.read()
            below = os.path.relpath(path, os.fsencode(top))
            same = inodes.setdefault((about.st_dev, about.st_ino), below)
            hole = about.st_blocks * 512 < about.st_size // 2 and about.st_size >= _HOLE
            owner = (about.st_uid, about.st_gid)
            snapshot[below] = (about.st_mode, owner, about.st_mtime_ns, content, same, hole)
    return snapshot


def _compare(source: Path, restored: Path) -> None:
    before, after = _tree_snapshot(source), _tree_snapshot(restored)
    for name, facts in before.items():
        if after.get(name) != facts:
            raise BackupError(f"demo failed: {os.fsdecode(name)!r} differs after the restore")
    if extra := set(after) - set(before):
        raise BackupError(
            f"demo failed: {os.fsdecode(min(extra))!r} was restored but is not in the source"
        )


def _restore_with_stock_tools(folder: Path, item: dict[str, Any], key: Path) -> None:
    """Print the standard programs that restore the run; run them and compare, if installed.

    folder: of the demo. Raises BackupError if the result differs.
    """
    names = [part["name"] for part in item["parts"]]
    pattern = f"{shlex.quote(str(folder / 'store/demo' / names[0].removesuffix('000')))}*"
    command = f"cat {pattern} | age -d -i {shlex.quote(str(key))} | zstd -d | tar x"
    print(f"7. without nc-backup-py: {command}")
    missing = [name for name in ("age", "zstd") if shutil.which(name) is None]
    if missing:
        print(f"   (not run: {' and '.join(missing)} not installed)")
        return
    source, restored = folder / "source", folder / "restored-by-tar"
    restored.mkdir()
    _run(["sh", "-c", f"{command} -p -C {shlex.quote(str(restored))}"])
    _compare(source, restored / source.relative_to("/"))
    print("   the same files, all identical")
