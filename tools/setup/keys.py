"""The keys: what encrypts, what decrypts, and what signs.

The nightly run needs only the recipient, in key_file, which its group can read. The private key,
key_file.identity, is for a restore: root alone can read it, and an operator may take it away.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tools import filesystem_handling
from tools.base import foreign
from tools.base.errors import BackupError
from tools.base.finding import Finding, warning
from tools.setup import configuration, environment, files, programs, releases
from tools.setup.folders import Access
from tools.setup.installation import (
    CODE,
    CONFIG,
    IDENTITY_FILE,
    KEY_FILE,
    WRITER_KEY,
    Installation,
)
from tools.setup.steps import Step

_RECIPIENTS = Access(0o640, group=True)
_IDENTITY = Access(0o600)
_WRITER = Access(0o600, user=True, group=True)
_PUBLIC = re.compile(r"^# public key: (age1[0-9a-z]+)$", re.M)
_RECIPIENT = re.compile(r"^age1[0-9a-z]+", re.M)
_PRIVATE = re.compile(r"^AGE-SECRET-KEY-\S+$", re.M)
_SIGNER = re.compile(r"^# signer: \S+ (.+)$", re.M)
_HOST = re.compile(r"[A-Za-z0-9._-]+")
_AGE = re.compile(r"age1|AGE-SECRET-KEY-", re.I)
_LARGEST = 1 << 24  # bytes of a config or key file
_KEYGEN = "encryption/encryption.py"


def steps(installation: Installation) -> Iterator[Step]:
    """Yield the steps that create missing keys, and set owners and modes of all.

    Not with --prefix: machines that get the same package must not share a key.
    """
    if not installation.real:
        return
    key, identity, writer = map(installation.at, (KEY_FILE, IDENTITY_FILE, WRITER_KEY))
    unused = not _uses_default_key(installation)
    yield Step(
        subject=str(identity),
        action=f"create a private key, {_IDENTITY}",
        reason=lambda: "" if unused or _exists(key, identity) else "there is no key",
        perform=lambda: _create_identity(installation, identity),
    )
    yield files.access_step(IDENTITY_FILE, _IDENTITY, installation)
    yield Step(
        subject=str(key),
        action=f"write the public key of {identity.name}, {_RECIPIENTS}",
        reason=lambda: "" if unused or _exists(key) else "there is no key file",
        perform=lambda: _write_recipient(installation, identity, key),
    )
    yield files.access_step(KEY_FILE, _RECIPIENTS, installation)
    host = configuration.hostname(installation)
    yield Step(
        subject=str(writer),
        action=f"create the key that signs the backups of {host}, {_WRITER}",
        reason=lambda: "" if _exists(writer) or not host else "there is none",
        perform=lambda: _create_writer(installation, writer, host),
    )
    yield files.access_step(WRITER_KEY, _WRITER, installation)
    yield _host_step(installation, writer)
    for path, access in ((identity, _IDENTITY), (key, _RECIPIENTS)):
        yield _signer_step(installation, path, access)


def _signer_step(installation: Installation, path: Path, access: Access) -> Step:
    """Return the step that notes the signer in a key file: a restore trusts no other.

    Once more where HOSTNAME was changed: a restore trusts a key only for the hosts that it names.
    """

    def missing() -> str:
        signer, text = _signer(installation), _text(path)
        return signer if signer and _AGE.search(text) and signer not in text else ""

    def perform() -> None:
        text = _text(path)
        end = "" if text.endswith("\n") else "\n"
        content = f"{text}{end}{missing()}\n"
        files.write(path, content.encode("utf-8", "surrogateescape"), access, installation)
        if path == installation.at(IDENTITY_FILE) and _SIGNER.search(text):
            installation.notice(f"Copy {path} to the other machine again: without the new line")
            installation.notice("a restore there does not trust the runs of this server.")

    return Step(
        subject=str(path),
        action="add the signer of this server as a comment",
        reason=lambda: "it does not name the signer of this server" if missing() else "",
        perform=perform,
    )


def _host_step(installation: Installation, writer: Path) -> Step:
    """Return the step that writes a changed HOSTNAME into the signing key.

    A rotation is rejected where the key names another host. A link is not followed: the user of
    the backup may have put it there, in a folder of an older system.
    """

    def renamed() -> str:
        """Return the text with the name of today; "" if it has that, or there is no key."""
        if writer.is_symlink():
            return ""
        text, signer = _text(writer), _signer(installation)
        return "" if signer in text else _SIGNER.sub(lambda _old: signer, text, count=1)

    def perform() -> None:
        content = renamed().encode("utf-8", "surrogateescape")
        files.write(writer, content, _WRITER, installation)

    return Step(
        subject=str(writer),
        action="write the HOSTNAME of the config into it",
        reason=lambda: "it names another host" if renamed() else "",
        perform=perform,
    )


def identity_findings(installation: Installation) -> Iterator[Finding]:
    """Yield warnings where the private key is still on this machine, and where it is an old one."""
    path, key = map(installation.at, (IDENTITY_FILE, KEY_FILE))
    if not path.exists():
        return
    yield warning(
        f"{path}: the private key is on this machine: its root can decrypt every backup",
        "Copy it to another machine, and try the copy there (restore.py --verify latest). Then "
        "remove it here.",
    )
    public, recipients = set(_PUBLIC.findall(_text(path))), _RECIPIENT.findall(_text(key))
    if public and recipients and public.isdisjoint(recipients):
        yield warning(
            f"{path}: decrypts no new backup: {key} names other recipients",
            f"Add the private key of {recipients[0]} to it, or move it to another place.",
        )


def _exists(*paths: Path) -> bool:
    return any(map(filesystem_handling.exists, paths))


def _text(path: Path) -> str:
    """Return the text of a file; "" if there is none. Raises OSError if it cannot be read."""
    try:
        return foreign.content(path, _LARGEST).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""


def _signer(installation: Installation) -> str:
    """Return the line of the signer, for HOSTNAME of the config; "" where there is no key."""
    match = _SIGNER.search(_text(installation.at(WRITER_KEY)))
    host = configuration.hostname(installation)
    if match is None or not _HOST.fullmatch(host):
        return match[0] if match else ""
    return f"# signer: {host} {match[1]}"


def _uses_default_key(installation: Installation) -> bool:
    """Return whether the config, where there is one, encrypts with the default key file."""
    text = _text(installation.at(CONFIG))
    named = re.findall(r'"(?:KEY_FILE|PASSPHRASE)"\s*:\s*"([^"]*)"', text)
    encrypts = re.search(r'"NAME"\s*:\s*"encryption"', text) is not None
    return not text or KEY_FILE in named or (encrypts and not named)


def _keygen(installation: Installation, *arguments: str | Path) -> str:
    """Run the program that creates keys, of the release that is current."""
    release = releases.current(installation)
    if release is None:
        raise BackupError(f"{installation.at(CODE)}: no release is installed")
    python = str(release.path / ".venv/bin/python")
    program = str(release.path / _KEYGEN)
    command = [python, environment.ISOLATED, program, "--KEYGEN", *map(str, arguments)]
    return programs.run(command, "the key could not be created")


def _create_identity(installation: Installation, identity: Path) -> None:
    """Create the private key, and have it shown at the end, to a person alone."""
    if _exists(installation.at(WRITER_KEY)):
        installation.notice(
            f"warning: {identity}: earlier backups of this server need the key that was lost\n"
            f"hint: If there is a copy of it, add it to {identity}."
        )
    _keygen(installation, "--KEY_FILE", identity)
    installation.notice("")
    installation.notice(f"Copy {identity} to another machine NOW. Without it nobody can restore")
    installation.notice("your backups. Once you have the copy, you may remove it here: an intruder")
    installation.notice("then cannot read earlier backups (docs/install.md, The keys).")
    secret = _PRIVATE.search(_text(identity))
    if secret and sys.stdout.isatty():
        installation.notice(f"It is shown this once:\n\n    {secret[0]}\n")


def _write_recipient(installation: Installation, identity: Path, key: Path) -> None:
    public = _PUBLIC.search(_text(identity))
    if public is None:
        raise BackupError(
            f"{identity}: has no line '# public key: age1...'",
            f"Write the recipient (age1...) into {key}.",
        )
    about = f"# This server encrypts for this recipient; {IDENTITY_FILE} decrypts."
    signers = [match[0] for match in _SIGNER.finditer(_text(identity))]  # of an earlier server
    content = "\n".join((about, public[1], *signers, ""))
    files.write(key, content.encode("utf-8", "surrogateescape"), _RECIPIENTS, installation)


def _create_writer(installation: Installation, writer: Path, host: str) -> None:
    """Create the key that signs. Its signer is noted by a step of its own."""
    names = ("--HOSTNAME", host, "--KEY_FILE", os.devnull)
    _keygen(installation, "--WRITER", "--WRITER_KEY", writer, *names)
    _WRITER.apply(writer, installation)
