"""The one place that knows what must not be shown, and takes it out of every text that is."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

STARS = "***"
_SECRETIVE = re.compile(
    r"(PASS(WORD|PHRASE|WD)?|PWD|SECRET|TOKEN|CREDENTIALS?|ACCESS_KEY|API_KEY|PRIVATE_KEY|AUTH)$",
    re.I,
)
_IN_TEXT = re.compile(
    r"(AGE-SECRET-KEY-1[0-9A-Z]+)"
    r"|((?<=://)[^/@\s:]*:[^/@\s]+(?=@))"
    r"|((?<=authorization: )[^\r\n]+)"
    r"|((?<=x-amz-security-token: )[^\r\n]+)"
    r"|((?<=X-Amz-Signature=)[^&\s]+)"
    r"|((?<=X-Amz-Credential=)[^&\s]+)",
    re.I,
)
_LEAST = 4  # shorter texts would turn every log into stars
_known: set[str] = set()


def add(secret: str) -> None:
    """From now on mask this text, and its base64, URL-quoted and JSON-quoted forms."""
    for line in {secret, secret.strip(), *secret.splitlines()}:
        if len(line) < _LEAST:
            continue
        raw = line.encode("utf-8", "surrogateescape")
        _known.update(
            (
                line,
                quote(raw),
                quote(raw, safe=""),
                quote_plus(raw),
                json.dumps(line)[1:-1],
                repr(line)[1:-1],
            )
        )
        _known.add(base64.b64encode(raw).decode().rstrip("="))


def text(shown: str) -> str:
    """The text with every known secret, and all that looks like one, replaced by stars."""
    for secret in sorted(_known, key=len, reverse=True):
        shown = shown.replace(secret, STARS)
    return _IN_TEXT.sub(STARS, shown)


def secretive(key: str) -> bool:
    """Whether a key's name says that its value is a secret (a path to one is none)."""
    return bool(_SECRETIVE.search(key)) and not key.upper().endswith(("_PATH", "_FILE"))


def command(argv: Iterable[str]) -> str:
    """An argument list as it may be shown: quoted for reading, secrets masked."""
    shown = []
    hide = False
    for word in argv:
        reference = word.startswith(("env:", "file:"))
        shown.append(STARS if hide and word and not reference else shlex.quote(word))
        hide = word.startswith("--") and secretive(word[2:])
    return text(" ".join(shown))
