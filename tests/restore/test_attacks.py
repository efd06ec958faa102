"""Ten attacks of somebody who can write to the store: none of them is restored (issue 14).

The runs before an attack stay restorable by their ids.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.system import System, execute, next_second
from tools.base import run_ids
from tools.catalog import writer_key

HOST = "srv-test"
Change = Callable[[dict[str, Any]], None]


class Attacked:
    """A machine that has made two runs, and what the attacker does to a copy of its store."""

    def __init__(self, system: System, store: Path) -> None:
        self.system = system
        self.folder = store / HOST
        keys = ("--key-file", str(system.key), "--hostname", HOST)
        self.arguments = ("--local-backup", str(store), *keys)

    @property
    def runs(self) -> list[str]:
        """The ids of all runs, oldest first."""
        return sorted(path.name[:15] for path in self.folder.glob("*.manifest.json"))

    def edit(self, run: str, change: Change) -> None:
        """Alter a manifest, not its signature."""
        path = self.folder / f"{run}.manifest.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    def copy(self, run: str, new: str) -> None:
        """The files of a run under another id, in its manifest too."""
        for path in list(self.folder.glob(f"{run}*")):
            shutil.copy(path, path.with_name(path.name.replace(run, new)))
        path = self.folder / f"{new}.manifest.json"
        path.write_text(path.read_text().replace(run, new))

    def forge(self, folder: Path, **sections: Any) -> str:
        """A run that the attacker makes on a machine of his own, for this host and config."""
        next_second()  # with an id of its own
        theirs = System(folder)
        theirs.general |= {"LOCAL_BACKUP": str(folder / "store")}
        ssh = theirs.source / "root/.ssh"
        ssh.mkdir(parents=True)
        (ssh / "authorized_keys").write_text("ssh-ed25519 AAAA attacker")
        (theirs.source / "sh").write_text("#!/bin/sh\n")
        (theirs.source / "sh").chmod(0o6755)
        fileset = execute("filesbackup", FILESET_INCLUDE=str(theirs.source))
        local = execute("storage", DESTINATION="local")
        theirs.configure({"A": fileset, **sections, "STORAGE_LOCAL": local}, STREAM="True")
        assert theirs.result()["exit_code"] == 0
        for path in (folder / "store" / HOST).iterdir():
            shutil.copy(path, self.folder)
        newest = self.runs[-1]
        honest = json.loads((self.folder / f"{self.runs[0]}.manifest.json").read_text())
        same = {key: honest[key] for key in ("machine", "machine_name", "config_id", "config_file")}
        self.edit(newest, lambda one: one.update(same, sequence=99))
        signed = self.folder / f"{newest}.manifest.json.sig"
        key = writer_key.read(theirs.writer_key)
        signed.write_bytes(key.sign((self.folder / signed.stem).read_bytes()))
        return newest


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> System:
    system = System(tmp_path_factory.mktemp("honest"))
    second = system.folder / "second"
    second.mkdir()
    sections = system.short(B=execute("filesbackup", FILESET_INCLUDE=str(second)))
    sections = {"A": sections.pop("FILESET"), "B": sections.pop("B"), **sections}
    system.configure(sections, STREAM="True")
    for text in ("one", "two"):
        (system.source / "a").write_text(text)
        (second / "b").write_text(text)
        assert system.result()["exit_code"] == 0
    return system


@pytest.fixture
def attacked(honest: System, tmp_path: Path) -> Attacked:
    copy = Attacked(honest, tmp_path / "store")
    shutil.copytree(honest.store, tmp_path / "store")
    return copy


# --- the attacks: each takes the store, and gives the run that it wants to be restored


def without_keys(attacked: Attacked, folder: Path) -> str:
    run = attacked.forge(folder)
    (attacked.folder / f"{run}.manifest.json.sig").unlink()
    return run


def with_the_recipient(attacked: Attacked, folder: Path) -> str:
    encryption = execute("encryption", KEY_FILE=str(attacked.system.key))
    return attacked.forge(folder, COMPRESSION=execute("compression"), ENCRYPTION=encryption)


def with_the_signature_of_another_run(attacked: Attacked, folder: Path) -> str:
    run = with_the_recipient(attacked, folder)
    old = attacked.folder / f"{attacked.runs[0]}.manifest.json.sig"
    shutil.copy(old, attacked.folder / f"{run}.manifest.json.sig")
    return run


def with_shell_commands(attacked: Attacked, folder: Path) -> str:
    run = without_keys(attacked, folder)

    def database(document: dict[str, Any]) -> None:
        (item,) = document["items"]
        item.update(kind="postgres-roles", name="5432", ending=".sql")

    attacked.edit(run, database)
    return run


def replayed(attacked: Attacked, _folder: Path) -> str:
    new = f"{attacked.runs[-1][:8]}_235959"
    attacked.copy(attacked.runs[0], new)
    return new


def swapped(attacked: Attacked, _folder: Path) -> str:
    run = attacked.runs[-1]
    first, second = (next(attacked.folder.glob(f"{run}.{name}.*")) for name in "AB")
    aside = first.rename(first.with_name("aside"))
    second.rename(first)
    aside.rename(second)
    return run


def without_an_item(attacked: Attacked, _folder: Path) -> str:
    attacked.edit(attacked.runs[-1], lambda document: document["items"].pop())
    return attacked.runs[-1]


def mixed(attacked: Attacked, _folder: Path) -> str:
    old, new = attacked.runs
    item = json.loads((attacked.folder / f"{old}.manifest.json").read_text())["items"][0]
    attacked.edit(new, lambda document: document["items"].__setitem__(0, item))
    return new


def far_future(attacked: Attacked, _folder: Path) -> str:
    attacked.copy(attacked.runs[0], "99980101_000000")
    return "99980101_000000"


def better_status(attacked: Attacked, _folder: Path) -> str:
    attacked.edit(attacked.runs[-1], lambda document: document.update(status="unstable"))
    return attacked.runs[-1]


Attack = Callable[[Attacked, Path], str]
ATTACKS: dict[Attack, str] = {
    without_keys: "not signed",
    with_the_recipient: "signed by an unknown key",
    with_the_signature_of_another_run: "does not match its signature",
    with_shell_commands: "not signed",
    replayed: "does not match its signature",
    swapped: "",
    without_an_item: "does not match its signature",
    mixed: "does not match its signature",
    far_future: "does not match its signature",
    better_status: "does not match its signature",
}


@pytest.mark.fault("ten attacks of one who can write to the store", "none is restored")
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda one: one.__name__)
def test_an_attack_is_refused(attacked: Attacked, attack: Attack, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    run = attack(attacked, tmp_path / "theirs")
    says = ATTACKS[attack]
    selectors = [run] if run_ids.in_future(run) else [run, "latest"]
    for selector in selectors:
        for options in ((), ("--allow-unsigned",)):
            out = tmp_path / "out"
            arguments = (
                *attacked.arguments,
                *options,
                "--restore",
                selector,
                "--destination",
                str(out),
            )
            text = attacked.system.restore_bare(*arguments, code=1)
            assert says in text
            assert not list(out.rglob("*")) or not says
            assert not list(out.rglob("authorized_keys"))
    attacked.system.restore_bare(*attacked.arguments, "--verify", run, code=1)


def test_the_same_honest_runs_are_restored(attacked: Attacked, tmp_path: Path) -> None:
    for run, text in zip((*attacked.runs, "latest"), ("one", "two", "two"), strict=True):
        out = tmp_path / run
        attacked.system.restore_bare(
            *attacked.arguments, "--restore", run, "--destination", str(out)
        )
        content = {path.name: path.read_text() for path in out.rglob("*") if path.is_file()}
        assert content == {"a": text, "b": text}
