"""The template of the config and the keys, as files: what is written, and when."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tools import filesystem_handling
from tools.base import project
from tools.setup import configuration, files, keys, steps
from tools.setup.folders import Access
from tools.setup.installation import CONFIG, IDENTITY_FILE, KEY_FILE, WRITER_KEY, Installation

RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kudv8nfasp5d4rh"
SIGNER = '# signer: srv namespaces="nc-backup-manifest" ssh-ed25519 AAAAC3Nza'


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    """A prefix with the folder of the config."""
    (tmp_path / "etc/nc-backup-py").mkdir(parents=True)
    return Installation(project.ROOT, Path("/"), tmp_path)


def test_the_template_is_written_only_where_there_is_no_config(installed: Installation) -> None:
    assert steps.perform(configuration.steps(installed)) == 1
    path = installed.at(CONFIG)
    assert path.stat().st_mode & 0o777 == 0o640
    assert configuration.hostname(installed) == ""  # that of the template: a package has no name
    path.write_text('{"GENERAL": {"HOSTNAME": "mine"}}')
    assert steps.perform(configuration.steps(installed)) == 0
    assert configuration.hostname(installed) == "mine"
    path.write_text("{ no JSON")
    assert configuration.hostname(installed) == ""


@pytest.mark.parametrize(
    ("machine", "named"),
    [("srv-web-1", "srv-web-1"), ("a.example.org", "a"), ("localhost", ""), ("-x", ""), ("", "")],
)
def test_the_name_of_the_machine(monkeypatch: pytest.MonkeyPatch, machine: str, named: str) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: machine)
    assert configuration._machine_name() == named
    template = json.loads(configuration._filled(Installation(project.ROOT, Path("/"))))
    assert template["GENERAL"]["HOSTNAME"] == named or "srv-nc-template-host-config"
    assert "/etc" in template["FILESET"]["PARAMETERS"]["FILESET_INCLUDE"]


def test_a_package_gets_no_keys(installed: Installation) -> None:
    assert list(keys.steps(installed)) == []


@pytest.mark.parametrize(
    ("config", "uses"),
    [
        ("", True),
        ('{"A": {"NAME": "encryption"}}', True),
        (f'{{"A": {{"NAME": "encryption", "PARAMETERS": {{"KEY_FILE": "{KEY_FILE}"}}}}}}', True),
        ('{"A": {"NAME": "encryption", "PARAMETERS": {"KEY_FILE": "/root/key"}}}', False),
        ('{"A": {"NAME": "encryption", "PARAMETERS": {"PASSPHRASE": "env:P"}}}', False),
        ('{"A": {"NAME": "storage"}}', False),
    ],
)
def test_a_key_is_created_only_if_the_config_uses_it(
    installed: Installation, config: str, uses: bool
) -> None:
    if config:
        installed.at(CONFIG).write_text(config)
    assert keys._uses_default_key(installed) is uses


@pytest.mark.parametrize("name", [KEY_FILE, IDENTITY_FILE])
def test_the_signer_is_noted_once(installed: Installation, name: str) -> None:
    path = installed.at(name)
    step = keys._signer_step(installed, path, Access(0o640))
    assert step.reason() == ""  # neither file is there
    installed.at(WRITER_KEY).write_text(f"{SIGNER}\nAGE-SECRET-KEY-1X\n")
    path.write_text("a password of the old format")
    assert step.reason() == ""  # a comment would become a part of it
    path.write_text(RECIPIENT)
    assert step.reason() == "it does not name the signer of this server"
    step.perform()
    assert path.read_text() == f"{RECIPIENT}\n{SIGNER}\n"
    assert step.reason() == ""
    installed.at(CONFIG).write_text('{"GENERAL": {"HOSTNAME": "renamed"}}')  # later
    step.perform()
    assert path.read_text().endswith(f"{SIGNER}\n{SIGNER.replace('srv', 'renamed')}\n")
    assert step.reason() == ""
    assert bool(installed.notices) is (name == IDENTITY_FILE)  # the copy elsewhere lacks the line


def test_a_changed_hostname_reaches_the_signing_key(installed: Installation) -> None:
    """Otherwise a rotation is rejected."""
    writer = installed.at(WRITER_KEY)
    step = keys._host_step(installed, writer)
    assert step.reason() == ""  # there is none
    writer.write_text(f"# created: now\n{SIGNER}\n# rotation: a b c\nAGE-SECRET-KEY-1X\n")
    assert step.reason() == ""  # no config says otherwise
    installed.at(CONFIG).write_text('{"GENERAL": {"HOSTNAME": "renamed"}}')
    assert step.reason() == "it names another host"
    before = writer.read_text()
    step.perform()
    assert writer.read_text() == before.replace("signer: srv", "signer: renamed")
    assert step.reason() == ""
    writer.rename(other := writer.with_name("other"))
    other.write_text(before)
    writer.symlink_to(other)
    assert step.reason() == ""


def test_an_identity_that_decrypts_no_new_backup_is_named(installed: Installation) -> None:
    identity, key = installed.at(IDENTITY_FILE), installed.at(KEY_FILE)
    key.write_text("age1new\n")
    assert list(keys.identity_findings(installed)) == []
    identity.write_text("AGE-SECRET-KEY-1X\n")  # nobody says for which recipient
    assert len(list(keys.identity_findings(installed))) == 1
    identity.write_text("# public key: age1old\nAGE-SECRET-KEY-1X\n")
    _here, old = keys.identity_findings(installed)
    assert old.text == f"{identity}: decrypts no new backup: {key} names other recipients"
    identity.write_text("# public key: age1old\n# public key: age1new\nAGE-SECRET-KEY-1X\n")
    assert len(list(keys.identity_findings(installed))) == 1


def test_a_recipient_comes_from_its_identity(installed: Installation) -> None:
    """A run that was killed between the two files is finished by the next."""
    identity, key = installed.at(IDENTITY_FILE), installed.at(KEY_FILE)
    identity.write_text(f"# public key: {RECIPIENT}\nAGE-SECRET-KEY-1X\n{SIGNER}\n")
    keys._write_recipient(installed, identity, key)
    assert key.read_text().splitlines()[1:] == [RECIPIENT, SIGNER]  # of an earlier server as well
    assert "AGE-SECRET" not in key.read_text()
    assert key.stat().st_mode & 0o777 == 0o640


def test_a_file_is_written_whole_or_not_at_all(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = installed.at(CONFIG)
    path.write_text("before")

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(filesystem_handling, "write_all", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, b"after", Access(0o640), installed)
    assert [file.read_text() for file in path.parent.iterdir()] == ["before"]
