"""Secrets: registered by value, and masked in every text that is shown or stored.

Secrets are known by value: `add` them before anything is shown. Besides, what looks like a
secret is masked: keys of age, passwords in URLs, values of secretive names.
"""

from __future__ import annotations

import ast
import base64
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

STARS = "***"
# The words of a key that make its value a secret, and the endings of a word that do.
_SECRET_WORDS = re.compile(
    r"PASS(WORDS?|WD|PHRASE)?|PWD?|PW|SECRETS?|TOKENS?|CREDENTIALS?|AUTH|BEARER|PSK|AUTHKEY"
)
_SECRET_ENDING = re.compile(
    r"(PASS(WORD|WD|PHRASE)?|PWD|PW|SECRET|TOKEN|CREDENTIALS?|(API|ACCESS|SECRET|PRIVATE)KEY)$"
)
_SECRET_KEY = re.compile(
    r"\b(ACCESS|ACCOUNT|AES|API|APP|APPLICATION|AUTH|CLIENT|ENCRYPTION|HMAC|MASTER|PRIVATE|SECRET"
    r"|SERVER|SERVICE|SHARED|SIGNING|SSH|STORAGE) KEY\b"
)
# What a key ends with whose value only tells where or how a secret is.
_NO_SECRET = re.compile(
    r"PATHS?|FILES?|FILENAME|FOLDER|DIR|DIRECTORY|NAME|URL|MODE|TYPE|TTL|COMMAND|PROGRAM|HOST"
    r"|PORT|LENGTH|PASSFILE|KEYFILE|DATABASE|DB|SOURCE|MECHANISM|METHOD"
)
# Documented keys whose value is a path, though their names are those of secrets.
_PATH_KEYS = ("ALIYUN_CREDENTIALS",)
# The end of a name. What stands before it must not be looked for: that takes quadratic time.
_NAME = r"(?:password|passwd|passphrase|pwd|secret|secret_?key|access_?key|api_?key)"
_IN_TEXT = re.compile(
    r"(AGE-(?:SECRET-KEY|PLUGIN)-(?:[0-9A-Z]{1,40}-){0,9}1[0-9A-Z]+)"
    r"|((?<=://)[^/@\s:\"']*:[^/\s\"']+(?=@))"
    r"|((?<=authorization: )[^\r\n]+)"
    r"|((?<=x-amz-security-token: )[^\r\n]+)"
    r"|((?<=X-Amz-Signature=)[^&\s]+)"
    r"|((?<=X-Amz-Credential=)[^&\s]+)",
    re.I,
)
_ASSIGNED = re.compile(rf"({_NAME}=)(?!\*\*\*)(\"[^\"\n]+\"|'[^'\n]+'|[^\s&;,\"']+)", re.I)
_IN_DICTIONARY = re.compile(
    rf"({_NAME}\\?[\"']\s*:\s*)(\"(?:[^\"\\\n]|\\.)+\"|'(?:[^'\\\n]|\\.)+')", re.I
)
# Each match of the patterns above has one of these.
_WORDS_IN_TEXT = ("age-", "://", "auth", "x-amz-")
_WORDS_OF_NAMES = ("pass", "pwd", "secret", "key")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(.*@)?([^/?#]*)(.*)", re.S)
_LEAST = 4  # a shorter secret is masked by its key alone: by value it would mask every text
_MOST_SPELLED = 256  # characters of a secret that is looked for in mixed spellings
_MOST_PARSED = 1 << 16
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#(?:39|x27);"}
_NO_VALUES = ("true", "false", "none", "null")
_secrets: set[str] = set()
_spelled: dict[str, re.Pattern[str]] = {}


def add(secret: str) -> None:
    """Register a secret: mask it from now on, in its usual spellings, and each of its lines.

    Known are base64, URL-quoted, JSON-, Python-, shell- and HTML-quoted forms. A text of less
    than 4 characters is not masked by its value.
    """
    for line in {secret, secret.strip(), *secret.split("\n"), *secret.split("\r\n")}:
        if len(line) < _LEAST or line.lower() in _NO_VALUES or line in _secrets:
            continue
        raw = line.encode("utf-8", "surrogateescape")
        _secrets.update(
            (
                line,
                quote(raw),
                quote(raw, safe=""),
                quote_plus(raw),
                json.dumps(line)[1:-1],
                json.dumps(line, ensure_ascii=False)[1:-1],
                repr(line)[1:-1],
                shlex.quote(line),
            )
        )
        _secrets.add(base64.b64encode(raw).decode().rstrip("="))
        if len(line) <= _MOST_SPELLED:
            _spelled[line] = re.compile("".join(map(_spellings, line)))


def _spellings(character: str) -> str:
    """Return a pattern for one character, however it is escaped."""
    raw = character.encode("utf-8", "surrogateescape")
    code = ord(character)
    spellings = [
        re.escape(character),
        "".join(f"%(?i:{byte:02x})" for byte in raw),
        rf"\\u(?i:{code:04x})",
        "".join(rf"\\x(?i:{byte:02x})" for byte in raw),
        "".join(rf"\\{byte:03o}" for byte in raw),
    ]
    if not character.isalnum():
        spellings.append(rf"\\+{re.escape(character)}")
    spellings += [_HTML[character]] if character in _HTML else []
    spellings += [r"\+"] if character == " " else []
    return f"(?:{'|'.join(spellings)})"


def text(content: str) -> str:
    """Return the text with every known secret, and what looks like one, replaced by stars."""
    for secret in sorted(_secrets, key=len, reverse=True):
        content = content.replace(secret, STARS)
    if any(escape in content for escape in "%\\&+"):
        for pattern in list(_spelled.values()):  # another thread may learn a secret
            content = pattern.sub(STARS, content)
    folded = content.casefold()  # to look for words is a hundred times faster than the patterns
    if any(word in folded for word in _WORDS_IN_TEXT):
        content = _IN_TEXT.sub(STARS, content)
    if any(word in folded for word in _WORDS_OF_NAMES):
        content = _ASSIGNED.sub(rf"\1{STARS}", content)
        content = _IN_DICTIONARY.sub(rf'\1"{STARS}"', content)
    return content


def quoted(value: str) -> str:
    """Return an invalid value of a key in quotes, for an error.

    Of a URL it shows scheme and host alone, of USER:PASSWORD@HOST the host: what people put
    into the wrong key is often the address of a webhook, or a login.
    """
    if url := _URL.fullmatch(value):
        scheme, login, host, path = url.groups()
        hidden = f"{path[0]}{STARS}" if path.strip("/") else path
        return repr(f"{scheme}{STARS + '@' if login else ''}{host}{hidden}")
    login, at, host = value.rpartition("@")
    return repr(f"{STARS}{at}{host}" if ":" in login else value)


def cut(content: str, at: int) -> int:
    """Return where a text can be cut, at most at this position, without splitting a secret."""
    for secret in sorted(_secrets, key=len, reverse=True):
        begin = content.rfind(secret, max(0, at - len(secret) + 1), at + len(secret) - 1)
        if 0 < begin < at < begin + len(secret):
            at = begin
    return at


def secretive(key: str) -> bool:
    """Return whether the value of a key is a secret, by its name (a path to one is not)."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).upper()
    parts = [word.rstrip("0123456789") for word in re.split(r"[^A-Z0-9]+", snake)]
    parts = [word for word in parts if word]
    if not parts or _NO_SECRET.fullmatch(parts[-1]) or key.upper() in _PATH_KEYS:
        return False
    named = any(_SECRET_WORDS.fullmatch(word) for word in parts)
    return named or bool(_SECRET_ENDING.search(parts[-1]) or _SECRET_KEY.search(" ".join(parts)))


def reference(value: str) -> bool:
    """Return whether a value only says where the secret is (env:NAME, file:/path)."""
    return value.startswith(("env:", "file:"))


def parsed(value: str) -> Any:  # noqa: ANN401  (whatever the text holds)
    """Return the dictionary or list that a text holds as JSON or Python literal, or None."""
    if value.lstrip()[:1] not in ("{", "[", "(") or len(value) > _MOST_PARSED:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value_read = read(value.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(value_read, dict | list | tuple):
            return value_read
    return None


def structure(value: Any, key: str = "") -> Any:  # noqa: ANN401  (any JSON value)
    """Return a copy of a JSON value with every secret replaced by stars, at any depth.

    What stands under a secretive key is a secret, known or not. It is for texts that people
    read; names by which something is found must not go through it.
    """
    return _structure(value, hidden=secretive(key))


def _structure(value: Any, *, hidden: bool) -> Any:  # noqa: ANN401  (any JSON value)
    if isinstance(value, Mapping):
        return {
            text(str(key)): _structure(entry, hidden=hidden or secretive(str(key)))
            for key, entry in value.items()
        }
    if isinstance(value, list | tuple):
        return [_structure(entry, hidden=hidden) for entry in value]
    if isinstance(value, str) and not hidden:
        return _structured_text(value)
    plain = isinstance(value, bool) or not value or (isinstance(value, str) and reference(value))
    return STARS if hidden and not plain else value


def _structured_text(value: str) -> str:
    """Return a text masked, and the dictionary or list that it may hold as well."""
    held = parsed(value)
    masked = "" if held is None else json.dumps(_structure(held, hidden=False), default=repr)
    return masked if STARS in masked else text(value)


def command(argv: Iterable[str]) -> str:
    """Return an argument list for display: quoted, secrets masked."""
    arguments = []
    hide = False
    for word in argv:
        name, equals, value = word.partition("=")
        if hide and word and not reference(word):
            arguments.append(STARS)
        elif word.startswith("--") and equals and value and secretive(name[2:]):
            arguments.append(f"{name}={STARS}")
        else:
            arguments.append(shlex.quote(_structured_text(word)))
        hide = word.startswith("--") and not equals and secretive(word[2:])
    return text(" ".join(arguments))
