"""setup.py, run by root, in places where another user has put something."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.base import environments
from tools.base.errors import BackupError, ConfigError
from tools.catalog.memory import Memory, Reached
from tools.setup import (
    adopt,
    arguments,
    checking,
    configuration,
    environment,
    files,
    folders,
    installing,
    keys,
    later_wheels,
    locked_packages,
    newer_python,
    old_cron,
    plans,
    programs,
    purging,
    releases,
    schedule,
    steps,
)
from tools.setup.installation import CONFIG, CONFIG_FOLDER, KEY_FILE, Installation

AS_ROOT = pytest.mark.needs("root")
NOBODY = 65534
FREE = folders.Access(0o640)
LINE = "0 3 * * * true backup.py -r -c /etc/nc-backup-py/conf.json\n"


def below(prefix: Path) -> Installation:
    return Installation(prefix, Path(sys.executable), prefix=prefix)


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """The layout below a folder, but with owners, as in the running system."""
    monkeypatch.setattr(Installation, "real", True)
    return below(tmp_path)


@AS_ROOT
def test_a_link_in_the_place_of_a_file_is_followed_only_if_root_made_it(
    tmp_path: Path, real: Installation
) -> None:
    """The config folder of the documented system belonged to the user of the backup."""
    target, link = tmp_path / "sudoers", tmp_path / "etc/nc-backup-py/conf.json"
    target.touch(mode=0o600)
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    step = files.access_step(CONFIG, FREE, real)
    os.lchown(link, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="is a symbolic link that others than root"):
        step.perform()
    os.lchown(link, 0, 0)
    link.parent.chmod(0o777)  # others could replace it
    with pytest.raises(ConfigError, match="is a symbolic link that others than root"):
        step.perform()
    link.parent.chmod(0o755)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert steps.perform([step]) == 1
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert steps.perform([step]) == 0


def test_a_hard_link_gets_no_other_owner_or_mode(tmp_path: Path) -> None:
    shadow, named = tmp_path / "shadow", tmp_path / "writer.key"
    shadow.touch(mode=0o600)
    named.hardlink_to(shadow)
    with pytest.raises(ConfigError, match=r"writer\.key: has 2 names"):
        FREE.apply(named, below(tmp_path))
    assert stat.S_IMODE(shadow.stat().st_mode) == 0o600


@AS_ROOT
def test_files_that_another_user_could_write_are_named(tmp_path: Path, real: Installation) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
        os.chown(tmp_path / name, NOBODY, NOBODY)
        files.set_access(tmp_path / name, FREE, real)
    files.set_access(tmp_path / "a", FREE, real)
    (notice,) = real.notices
    assert notice.startswith(f"warning: {tmp_path}: nobody owned files in it")


@pytest.mark.parametrize("path", [CONFIG, KEY_FILE])
def test_a_fifo_in_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, real: Installation, path: str
) -> None:
    template = tmp_path / "conf/conf.json"
    template.parent.mkdir()
    template.write_text('{"GENERAL": {"HOSTNAME": "x"}}')
    real.at(CONFIG_FOLDER).mkdir(parents=True)
    os.mkfifo(real.at(path))
    with pytest.raises(OSError, match="not a regular file"):
        configuration.hostname(real) if path == CONFIG else keys._text(real.at(path))


@pytest.mark.parametrize("kind", ["fifo", "link", "large"])
def test_the_memory_of_the_backup_does_not_stop_a_restore_by_root(
    tmp_path: Path, kind: str
) -> None:
    """It lies in a folder of the user of the backup: what another one put there is replaced."""
    memory, path = Memory(tmp_path), tmp_path / "sequence.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 1 << 40)
    assert memory.reached("id", "srv", "config") == Reached()
    memory.reach("id", "srv", "config", Reached(7))
    assert memory.reached("id", "srv", "config") == Reached(7)


def test_copies_go_only_into_a_folder_that_root_has_made(tmp_path: Path) -> None:
    adopted, old = below(tmp_path), tmp_path / "crontab"
    old.write_text("of somebody")
    adopt._save(adopted, old)
    (first,) = tmp_path.glob("etc/nc-backup-py/*")
    for entry in first.iterdir():
        entry.unlink()
    first.rmdir()
    first.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    adopt._save(adopted, old)
    second = first.with_name(f"{first.name}.1")
    (copy,) = second.iterdir()
    assert not list((tmp_path / "elsewhere").iterdir())
    planted = copy.with_name(f"{copy.name}.1")
    planted.symlink_to(tmp_path / "evil")
    adopt._save(adopted, old)
    assert not (tmp_path / "evil").exists()
    assert copy.with_name(f"{copy.name}.2").read_text() == "of somebody"
    assert stat.S_IMODE(second.stat().st_mode) == 0o700


def test_a_line_of_cron_of_any_user_keeps_setup_from_nothing(tmp_path: Path) -> None:
    system = below(tmp_path)
    crontab = tmp_path / "var/spool/cron/crontabs/alice"
    crontab.parent.mkdir(parents=True)
    crontab.write_text(LINE)
    assert not schedule._without(system)
    assert adopt.schedule_of(system) == ""
    assert not list(adopt.cron_steps(system))
    (finding,) = adopt.findings(system)
    assert "crontabs/alice:1: " in finding.text
    assert finding.hint.endswith("crontab -u alice -e")
    crontab.with_name("root").write_text(LINE)
    assert [line.path.name for line in old_cron.lines(system)] == ["root"]
    assert schedule._without(system)


def test_names_with_escape_codes_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "opt/backup/\x1b]0;evil\x07"
    store.mkdir(parents=True)
    (store / "x.manifest.json").touch()
    monkeypatch.setattr(plans, "UNINSTALL", (purging.steps,))
    options = arguments.Arguments("uninstall", prefix=str(tmp_path), purge=True)
    assert installing.uninstall(options) == 0
    output = capsys.readouterr().out
    assert "\\x1b]0;evil\\x07" in output
    assert output.replace("\n", "").isprintable()


@AS_ROOT
def test_root_installs_below_no_folder_of_another_user(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    for verb in ("install", "uninstall"):
        with pytest.raises(ConfigError, match="belongs to another user"):
            installing.installation(arguments.Arguments(verb, prefix=str(tmp_path)))


@AS_ROOT
def test_no_other_user_can_hold_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "_LOCK", str(tmp_path / "lock"))
    with installing._alone(Installation(tmp_path, tmp_path)):
        assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").symlink_to("other")
    with (
        pytest.raises(OSError, match="symbolic links"),
        installing._alone(Installation(tmp_path, tmp_path)),
    ):
        pass


# --- the code


def clone(folder: Path) -> Installation:
    source = folder / "clone"
    source.mkdir()
    for name in ("pyproject.toml", "backup.py"):
        (source / name).write_text('version = "1"\n')
        (source / name).chmod(0o644)
    return Installation(source, Path(sys.executable), prefix=folder)


def test_a_key_in_a_clone_is_not_published(tmp_path: Path) -> None:
    installed = clone(tmp_path)
    for number in range(5):
        (installed.source / f"key_{number}").touch(mode=0o600)
    with pytest.raises(ConfigError, match="cannot read key_0, key_1, key_2, 2 more, but") as caught:
        releases._build(installed, "1", "")
    assert caught.value.hint.endswith("--yes")
    (installed.source / "pyproject.toml").chmod(0o600)  # with umask 077 all is closed
    releases._confirm_private(installed)


def test_any_name_of_a_file_in_a_clone(tmp_path: Path) -> None:
    installed = clone(tmp_path)
    before = releases.code_digest(installed.source)
    Path(os.fsdecode(os.fsencode(installed.source) + b"/a\xff\n\x1b.py")).touch()
    os.mkfifo(installed.source / "fifo")
    assert releases.code_digest(installed.source) != before


def test_code_that_changes_while_it_is_copied_is_not_installed(tmp_path: Path) -> None:
    installed = clone(tmp_path)
    folder = installed.at("/var/lib/nc-backup-py-releases")
    folder.mkdir(parents=True)
    with pytest.raises(BackupError, match="was changed while it was copied"):
        releases._build(installed, "1", "the digest that was announced")
    assert not list(folder.iterdir())


# --- Python and pip


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, where another user has put modules; each leaves a mark when it runs."""
    for name in ("venv", "ensurepip", "pip", "compileall", "argparse"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "ran"


def test_no_module_of_the_current_folder_is_run(planted: Path) -> None:
    python = Path(sys.executable)
    assert environment.version(python) == f"3.{sys.version_info[1]}"
    assert environment._runs(python)
    assert not planted.exists()
    assert environment._succeeds([str(python), "-m", "pip"])  # not isolated
    assert planted.exists()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that are started; nothing is."""
    lines: list[list[str]] = []

    def run(command: Any, *_more: object, **_options: object) -> Any:
        lines.append(list(map(str, command)))
        return subprocess.CompletedProcess(command, 0, "3.12", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(programs, "run", lambda command, *_: run(command) and "")
    return lines


def test_every_python_that_root_starts_is_isolated(
    tmp_path: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With packages from wheels alone: a source distribution is built with any setuptools."""
    monkeypatch.setattr(later_wheels, "fetch", lambda _v, _l, _w, download: download("x", []) or "")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / "requirements.lock").touch()
    locked_packages.install(below(tmp_path), tmp_path, "/final", None)
    assert len(started) >= 7
    assert all(line[1] == "-I" for line in started)
    pips = [line for line in started if line[2:4] == ["-m", "pip"]]
    assert [line[4] for line in pips] == ["download", "install", "download"]
    assert all({"--require-hashes", "--only-binary=:all:"} <= set(line) for line in pips)


def test_a_python_that_another_user_could_change_is_the_last_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    private, other = "/home/alice/python3", "/usr/bin/python3.11"
    unsafe = {private: "belongs to another user"}
    monkeypatch.setattr(sys, "_base_executable", private)
    monkeypatch.setattr(newer_python, "candidates", lambda: [other])
    monkeypatch.setattr(newer_python, "is_new", lambda _one: True)
    monkeypatch.setattr(environment, "closed_folder", lambda _one: None)
    monkeypatch.setattr(environments, "unsafe", lambda path: unsafe.get(path, ""))
    assert installing.python("install") == Path(other)
    unsafe.clear()
    assert installing.python("install") == Path(private)


@AS_ROOT
def test_the_user_of_the_backup_gets_no_terminal_of_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could type into one (TIOCSTI)."""
    (tmp_path / "backup.py").write_text("import os; print(os.getsid(0) == os.getpid())\n")
    monkeypatch.setattr(checking, "CODE", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)  # run as this user
    assert checking._run(pwd.getpwnam("nobody")).stdout == b"True\n"
