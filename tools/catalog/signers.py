"""Who may sign manifests: lines of OpenSSH's allowed_signers (ssh-keygen(1), ALLOWED SIGNERS).

Lines for another purpose, or with keys of another kind than Ed25519, are skipped: they allow
nothing here. A line with an option that is not understood is rejected.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from tools.base import foreign
from tools.base.errors import ConfigError
from tools.catalog import sshsig, writer_key
from tools.catalog.sshsig import SignatureFormatError

_KIND = re.compile(r"(?:ssh|ecdsa|sk|webauthn)-.+")
_OPTION = re.compile(r'([A-Za-z-]+)(?:="([^"]*)")?(?:,|$)')
_TIME_FORMS = ("%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S")
_MAX_BYTES = 1 << 20
_KEY_FILE = re.compile(r"^(?:age1|AGE-SECRET-KEY-)", re.M | re.I)
_FORM = 'Use a line such as: srv-1 namespaces="nc-backup-manifest" ssh-ed25519 AAAA...'


@dataclass(frozen=True)
class Signer:
    """One key that may sign.

    principals: patterns of the hosts that it signs for
    public:     32 bytes
    after, before: the time in which its signatures count; None for no limit
    """

    principals: str
    public: bytes
    after: datetime | None = None
    before: datetime | None = None

    def signs_for(self, host: str) -> bool:
        """Return whether the key may sign for a host (PATTERNS of ssh_config(5))."""
        matches = False
        for pattern in self.principals.split(","):
            # a bracket is no pattern for OpenSSH
            if fnmatch.fnmatchcase(host, pattern.removeprefix("!").replace("[", "[[]")):
                if pattern.startswith("!"):
                    return False
                matches = True
        return matches

    def problem(self, when: datetime) -> str:
        """Return why a signature of this time does not count; "" if it does."""
        if self.before is not None and when >= self.before:
            return f"stored after {self.before:%Y-%m-%d %H:%M:%S} UTC, the end of its signer"
        if self.after is not None and when < self.after:
            return f"stored before {self.after:%Y-%m-%d %H:%M:%S} UTC, the start of its signer"
        return ""


@dataclass(frozen=True)
class Signers:
    """All keys that may sign."""

    all: tuple[Signer, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.all)

    def problem(self, public: bytes, host: str, when: datetime) -> str:
        """Return why a signature of this key, host and time does not count; "" if it does.

        The limits of all lines of a key count: a key file may name it without the limit that
        it was given later, in SIGNERS.
        """
        of_key = [one for one in self.all if one.public == public]
        if not of_key:
            return f"signed by an unknown key ({sshsig.fingerprint(public)})"
        of_host = [one for one in of_key if one.signs_for(host)]
        if not of_host:
            return f"signed by the key of another host ({sshsig.fingerprint(public)})"
        return next(filter(None, (one.problem(when) for one in of_host)), "")

    def names(self, public: bytes, host: str) -> bool:
        """Return whether a key is known for a host, whatever its time."""
        return any(one.public == public and one.signs_for(host) for one in self.all)

    def also(self, more: Iterable[Signer], host: str) -> Signers:
        """Return these and more, without keys that are known for a host: their limits count.

        A key that is known for another name alone is added: the host was renamed.
        """
        public = {one.public for one in self.all if one.signs_for(host)}
        return Signers((*self.all, *(one for one in more if one.public not in public)))


def of_file(path: Path, key: str) -> list[Signer]:
    """Return the signers in a file of allowed_signers lines, or in the comments of a key file.

    key: names the file in errors. Raises ConfigError, also where no line is for manifests.
    """
    try:
        raw = foreign.beginning(path, _MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise ConfigError(f"{key}: {path}: {reason}", _FORM) from None
    if len(raw) > _MAX_BYTES:  # the limits of signers may stand at its end
        raise ConfigError(f"{key}: {path}: larger than {_MAX_BYTES} bytes", _FORM)
    text = raw.decode("utf-8-sig", "surrogateescape")
    signers = of_text(_comments(text) if _KEY_FILE.search(text) else text, f"{key}: {path}")
    if not signers:
        raise ConfigError(f"{key}: {path}: no signer for {writer_key.NAMESPACE}", _FORM)
    return signers


def of_text(text: str, origin: str) -> list[Signer]:
    """Return the signers in allowed_signers lines. Raises ConfigError, naming the origin."""
    return list(_parsed(foreign.lines(text), origin))


def in_comments(path: Path) -> list[Signer]:
    """Return the signers that the comments of a key file name; none where it cannot be read."""
    try:
        raw = foreign.beginning(path, _MAX_BYTES)
    except OSError:
        return []  # the reader of the key reports why
    return of_text(_comments(raw.decode("utf-8-sig", "surrogateescape")), str(path))


def _comments(text: str) -> str:
    """Return the signers in the comments of a key file, with blank lines for all other lines."""
    mark = writer_key.SIGNER
    lines = foreign.lines(text)
    return "\n".join(line.removeprefix(mark) if line.startswith(mark) else "" for line in lines)


def _parsed(lines: Iterable[str], origin: str) -> Iterator[Signer]:
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            if (signer := _signer(text)) is not None:
                yield signer
        except (ValueError, SignatureFormatError) as error:
            raise ConfigError(
                f"{origin}:{number}: {foreign.printable(str(error))}", _FORM
            ) from None


def _signer(text: str) -> Signer | None:
    """Return the signer of a line; None if it is for something else. Raises ValueError."""
    principals, *rest = _tokens(text)
    written = "" if rest and _KIND.fullmatch(rest[0]) else rest.pop(0) if rest else ""
    if len(rest) < 2 or not _KIND.fullmatch(rest[0]):  # noqa: PLR2004  (kind and key)
        raise ValueError("not an allowed_signers line")
    kind, key = rest[:2]
    options = _options(written)
    spaces = options.pop("namespaces", writer_key.NAMESPACE)
    after, before = (_time(options.pop(key, "")) for key in ("valid-after", "valid-before"))
    if options:
        raise ValueError(f"{next(iter(options))}: not supported")
    patterns = spaces.split(",")
    is_for_manifests = any(
        fnmatch.fnmatchcase(writer_key.NAMESPACE, pattern) for pattern in patterns
    )
    if kind != sshsig.ALGORITHM or not is_for_manifests:
        return None
    return Signer(principals.strip('"'), sshsig.public_key(kind, key), after, before)


def _tokens(text: str) -> list[str]:
    """Return the words of a line; white space between quotes separates none."""
    tokens = [""]
    quoted = False
    for character in text:
        quoted ^= character == '"'
        if character.isspace() and not quoted:
            tokens.append("")
        else:
            tokens[-1] += character
    return [word for word in tokens if word]


def _options(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _OPTION.match(text, at)
        if match is None or match[1].lower() in options:
            raise ValueError("invalid options")
        options[match[1].lower()] = match[2] or ""
        at = match.end()
    return options


def _time(text: str) -> datetime | None:
    """Return a time of valid-after or valid-before: local, or UTC with a Z at its end."""
    if not text:
        return None
    digits = text.removesuffix("Z")
    for form in _TIME_FORMS:
        try:
            moment = datetime.strptime(digits, form)  # noqa: DTZ007  (its zone follows)
        except ValueError:
            continue
        if moment.strftime(form) == digits:
            utc = moment.replace(tzinfo=timezone.utc) if text.endswith("Z") else moment
            return utc.astimezone(timezone.utc)
    raise ValueError(f"{text}: invalid time")
