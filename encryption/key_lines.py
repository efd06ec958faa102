"""The lines of an age key file: keys of each kind, and keys of unsupported kinds."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from encryption import hybrid, x25519
from tools.base import foreign, masking
from tools.base.errors import ConfigError

_QUOTES = "\"'`\u201c\u201d\u2018\u2019"
_WIDE = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
         (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))  # fmt: skip
# How keys of unsupported kinds begin, in upper case; the first that fits counts.
_KINDS = (
    (r"AGE-PLUGIN-", "identity of an age plugin (AGE-PLUGIN-...)"),
    (r"AGE1(?!PQ1)[A-Z0-9-]+1", "recipient of an age plugin"),
    (r"(SSH-|ECDSA-SHA2|SK-SSH-)", "SSH public key"),
    (r"-----BEGIN AGE ENCRYPTED", "key file that is encrypted with a passphrase"),
    (r"-----BEGIN", "PEM key"),
)
_PQ_RECIPIENT = "AGE1PQ1"
_PQ_IDENTITY = "AGE-SECRET-KEY-PQ-1"
# Not a word that happens to hold "age1": so many characters of a recipient follow.
_RECIPIENT = re.compile(r"age1(pq1)?[ac-hj-np-z02-9]{20}", re.I)


@dataclass(frozen=True)
class Unsupported:
    """A key of an unsupported kind, and its line."""

    line: int
    kind: str

    @property
    def recipient(self) -> bool:
        """Return whether it is a public key."""
        return "recipient" in self.kind or self.kind.startswith("SSH")


Key = x25519.Identity | x25519.Recipient | hybrid.Identity | hybrid.Recipient


def decoded(raw: bytes) -> str:
    r"""Return the text of a key file without its byte order mark, each line ended by \n.

    Raises ConfigError for UTF-16 and UTF-32, and for bytes that are not text.
    """
    for mark, name in _WIDE:
        if raw.startswith(mark):
            raise ConfigError(f"is {name} text", _convert(name))
    if b"\0" in raw:
        for odd, name in ((1, "UTF-16LE"), (0, "UTF-16BE")):
            if set(raw[odd::2]) == {0}:
                raise ConfigError("is UTF-16 text", _convert(name))
        raise ConfigError("is not a text file", "Use the key file of the backup.")
    text = raw.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    return text.replace("\r\n", "\n").replace("\r", "\n")  # as Windows and old Macs end lines


def _convert(name: str) -> str:
    return f"Save it as UTF-8: iconv -f {name} -t UTF-8 KEY_FILE > NEW, and chmod 0600 NEW."


def is_age(text: str) -> bool:
    """Return whether a text contains a part of an age key, in any case and at any position."""
    return "AGE1" in text.upper() or holds_key(text)


def holds_key(text: str) -> bool:
    """Return the same, but False for a password that happens to contain "age1"."""
    secret = re.search(r"AGE-(SECRET-KEY|PLUGIN)-", text, re.I)
    return bool(secret or _RECIPIENT.search(text)) or _foreign(text) is not None


def _foreign(text: str) -> str | None:
    """Return the kind of the first line that begins like an unsupported key."""
    kinds = (_kind(clean(line)) for line in foreign.lines(text))
    return next((kind for kind in kinds if kind is not None), None)


def clean(line: str) -> str:
    """Return a line without white space and quotes around it."""
    return line.strip().strip(_QUOTES).strip()


def _kind(word: str) -> str | None:
    """Return the kind of an unsupported key; None for any other word."""
    upper = word.upper()
    return next((kind for begin, kind in _KINDS if re.match(begin, upper)), None)


def parse(text: str) -> list[Key | Unsupported]:
    """Return the keys, one a line; lines that begin with # are comments.

    Raises ConfigError with the number of a line that is not a key; never shows the line.
    """
    keys: list[Key | Unsupported] = []
    in_block = False
    for number, line in enumerate(foreign.lines(text), 1):
        word = clean(line)
        if not word or word.startswith("#") or in_block:
            in_block = in_block and not word.startswith("-----END")
            continue
        in_block = word.startswith("-----BEGIN")
        try:
            keys.append(_key(word, number))
        except ConfigError as error:
            raise ConfigError(f"{number}: {error}", error.hint) from None
    return keys


def _key(word: str, number: int) -> Key | Unsupported:
    if (kind := _kind(word)) is not None:
        if "identity" in kind:
            masking.add(word)
        return Unsupported(number, kind)
    if word.upper().startswith("AGE-SECRET-KEY-"):
        masking.add(word)
        post_quantum = word.upper().startswith(_PQ_IDENTITY)
        return hybrid.Identity.parse(word) if post_quantum else x25519.Identity.parse(word)
    return _recipient(word)


def _recipient(word: str) -> x25519.Recipient | hybrid.Recipient:
    post_quantum = word.upper().startswith(_PQ_RECIPIENT)
    return hybrid.Recipient.parse(word) if post_quantum else x25519.Recipient.parse(word)


def recipient(text: str) -> x25519.Recipient | hybrid.Recipient:
    """Return a recipient of the key RECIPIENTS. Raises ConfigError, naming an unsupported kind."""
    word = clean(text)
    if word.upper().startswith("AGE-"):
        masking.add(word)
    if (kind := _kind(word)) is not None:
        raise ConfigError(
            f"RECIPIENTS: {kind} is not supported", "Use an age recipient (age1... or age1pq1...)."
        )
    try:
        return _recipient(word)
    except ConfigError as error:
        raise ConfigError(f"RECIPIENTS: {error}", error.hint) from None
