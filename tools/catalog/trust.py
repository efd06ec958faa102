"""Which manifests are trusted: those that a known signer has signed (DESIGN 7)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from tools.base import foreign
from tools.base.errors import BackupError, ConfigError, ManifestError
from tools.base.log import logger
from tools.catalog import ed25519, rotation, signers, sshsig, writer_key
from tools.catalog.signers import Signer, Signers
from tools.catalog.sshsig import SignatureFormatError
from tools.config.declarations import General

ENDING = ".sig"  # of the signature beside a manifest
_ALTERED = "The manifest or its signature was altered. Use the copy in another store (--store)."
_UNKNOWN = (
    "If you know this signer, name it with --signer FILE or SIGNERS, or add its line "
    '("# signer: ...", in key_file of its server) to the key file.'
)
_ENDED = "If the store is a copy, copy it again with the times of its files (cp -a, rsync -t)."
_UNSIGNED = "If you trust all who can write to the store, use --allow-unsigned."


class UntrustedError(ManifestError):
    """A manifest that no known signer has signed.

    unsigned: --allow-unsigned may accept it
    altered:  it does not match the signature beside it, or that is none
    """

    def __init__(self, message: str, hint: str, *, unsigned: bool, altered: bool = False) -> None:
        super().__init__(message, hint)
        self.unsigned = unsigned
        self.altered = altered


@dataclass(frozen=True)
class Signature:
    """The signature of a manifest: the file, and when the store took it."""

    content: bytes
    when: datetime


@dataclass(frozen=True)
class Trust:
    """Whose manifests are trusted.

    signers:        the known signers
    allow_unsigned: whether runs made before signing are trusted too
    everybody:      whether nothing is checked: a host that does not sign, in its own runs
    """

    signers: Signers = field(default_factory=Signers)
    allow_unsigned: bool = False
    everybody: bool = False

    def signer(self, name: str, host: str, content: bytes, signature: Signature | None) -> str:
        """Return the fingerprint of the known signer of a manifest.

        name: that of the manifest, for errors
        Raises UntrustedError where there is none.
        """
        digest = hashlib.sha512(content).digest()
        return self.signer_of_digest(name, host, digest, signature)

    def signer_of_digest(
        self, name: str, host: str, digest: bytes, signature: Signature | None
    ) -> str:
        """Return the same of a manifest of which only the SHA-512 is known."""
        if signature is None:
            raise UntrustedError(f"{name}: not signed", _UNSIGNED, unsigned=True)
        if not self.signers:
            hint = f"{_UNKNOWN} {_UNSIGNED}"
            raise UntrustedError(f"{name}: no signer is known", hint, unsigned=True)
        try:
            public = sshsig.signer_of_digest(signature.content, digest, writer_key.NAMESPACE)
        except SignatureFormatError as error:
            raise UntrustedError(
                f"{name}{ENDING}: {error}", _ALTERED, unsigned=False, altered=True
            ) from None
        if public is None:
            text = f"{name}: does not match its signature"
            raise UntrustedError(text, _ALTERED, unsigned=False, altered=True)
        problem = self.signers.problem(public, host, signature.when)
        if problem:
            hint = _ENDED if self.signers.names(public, host) else _UNKNOWN
            raise UntrustedError(f"{name}: {problem}", hint, unsigned=True)
        return sshsig.fingerprint(public)

    def knows(self, signer: str) -> bool:
        """Return whether runs of a signer are trusted.

        signer: its fingerprint; "" for runs that nobody has signed
        """
        if self.everybody:
            return True
        if not signer:
            return self.allow_unsigned and not self.signers
        return any(sshsig.fingerprint(one.public) == signer for one in self.signers.all)

    def following(
        self, host: str, links: Iterable[tuple[str, Callable[[], bytes], Signature]]
    ) -> Trust:
        """Return the same with the signers that known ones have named as their successors.

        links: name, statement and signature of each, oldest first. A statement that claims to be
        of somebody unknown is not even read: anyone may have put thousands into the store.
        """
        trust = self
        for name, read, signature in links:
            try:
                claimed = sshsig.claimed_key(signature.content, writer_key.NAMESPACE)
                if not trust.signers.names(claimed, host):
                    continue
                statement = read()
                trust.signer(name, host, statement, signature)
                more = signers.of_text(rotation.line_of(statement, host), name)
            except (BackupError, OSError, ValueError):
                continue  # of an unknown signer, or no statement
            trust = dataclasses.replace(trust, signers=trust.signers.also(more, host))
        return trust

    def judged(
        self, problem: UntrustedError, is_older: Callable[[], bool]
    ) -> UntrustedError | None:
        """Return why a manifest with this problem is not trusted; None if it is trusted anyway.

        is_older: asked whether the run claims to be older than the first signed one
        """
        if self.everybody:
            return None
        if not (problem.unsigned and self.allow_unsigned):
            return problem
        if not self.signers or is_older():
            return None
        return UntrustedError(
            f"{problem}; the run is not older than the first signed run",
            "Do not restore it: anyone who can write to the store may have made it.",
            unsigned=False,
        )


def known_signers(
    general: General, key_file: Path | None, signer_file: Path | None = None
) -> Signers:
    """Return the signers that a config, its key file and --signer name, and this host's own.

    Raises ConfigError, also where the package that checks signatures is missing.
    """
    listed: list[Signer] = []
    if signer_file is not None:
        listed += signers.of_file(signer_file, "--signer")
    if general.signers is not None:
        listed += signers.of_file(general.signers, "SIGNERS")
    if key_file is not None:
        listed += signers.in_comments(key_file)
    try:
        of_host = _signers_of_host(general)
    except ConfigError as error:
        if not listed:
            raise
        of_host = []  # a restore does not need it: another file names the signer
        logger.warning("%s", error)
    if listed or of_host:
        ed25519.library()  # a missing package is reported before anything is read
    return Signers(tuple(listed)).also(of_host, general.hostname)


def _signers_of_host(general: General) -> list[Signer]:
    """Return the signers of this host: the key that it has and those that led to it.

    None where the file is missing or of another user.
    """
    try:
        foreign.beginning(general.writer_key, 0)
    except OSError:
        return []
    key = writer_key.read(general.writer_key)
    signed = [
        sshsig.signer(one.signature, one.statement, writer_key.NAMESPACE) for one in key.links
    ]
    keys = [key.public, *filter(None, signed)]
    lines = [writer_key.allowed_signer(general.hostname, public) for public in keys]
    return signers.of_text("\n".join(lines), "WRITER_KEY")
