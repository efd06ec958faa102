"""Secret values: they print as stars until reveal() is called."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from tools.base import foreign, masking, permissions
from tools.base.errors import ConfigError

_PASSWORD_IN_URL = re.compile(r"://[^/@\s:]*:(.+)")  # of a word, up to its last @
_MOST_LEARNED = 1 << 20  # bytes of a file that a value refers to


class Secret:
    """A reference ("env:NAME", "file:PATH") or a literal; resolved where it is used."""

    def __init__(self, reference: str) -> None:
        self._reference = reference
        if reference and not self.is_reference:
            masking.add(reference)

    def __repr__(self) -> str:
        return "***" if self._reference else ""

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._reference)

    @property
    def is_reference(self) -> bool:
        """Return whether this is a reference to the secret."""
        return masking.reference(self._reference)

    @property
    def reference(self) -> str:
        """Return the reference; "" for a literal."""
        return self._reference if self.is_reference else ""

    def reveal(self) -> str:
        """Return the secret itself; it is masked from now on.

        Raises ConfigError where the variable or the file is not to be had, or another user
        could have written the file.
        """
        secret = self.learn()
        kind, _, target = self._reference.partition(":")
        if kind == "file" and Path(target).is_file():
            permissions.check_reference(self._reference, Path(target))
        return secret

    def learn(self) -> str:
        """Return the secret for masking alone; who may write the file is not checked."""
        secret = self._resolved()
        masking.add(secret)
        return secret

    def try_to_learn(self) -> None:
        """Mask the secret where it can be had without waiting; do nothing elsewhere."""
        _learn_text(self._reference, hidden=True)

    def _resolved(self) -> str:
        kind, _, name = self._reference.partition(":")
        if kind == "env":
            try:
                return os.environ[name]
            except KeyError:
                raise ConfigError(
                    f"secret env:{name} is not set",
                    hint=f"Set the variable {name} for this program.",
                ) from None
        if kind == "file":
            try:
                raw = foreign.content(Path(name), _MOST_LEARNED)
                return raw.decode("utf-8").replace("\r\n", "\n").rstrip("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"secret file:{name} cannot be read: {getattr(error, 'strerror', 'not UTF-8')}",
                    hint="The file must exist and be readable by the user that runs the backup.",
                ) from None
        return self._reference


def learn(value: object, key: str = "") -> None:
    """Mask from now on every secret in a value of the configuration, at any depth.

    Secrets are the texts and numbers below a secretive key, what references (env:, file:)
    stand for, and passwords in URLs and in arguments. A dictionary or list written as text is
    read as one. What a reference cannot give is left to the module that needs it.
    """
    _learn(value, hidden=masking.secretive(key))


def _learn(value: object, *, hidden: bool) -> None:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _learn(entry, hidden=hidden or masking.secretive(str(key)))
    elif isinstance(value, str):
        _learn_text(value, hidden=hidden)
    elif isinstance(value, Sequence):
        _learn_words(value)
        for entry in value:
            _learn(entry, hidden=hidden)
    elif hidden and value is not None and not isinstance(value, bool):
        masking.add(str(value))


def _learn_text(text: str, *, hidden: bool) -> None:
    if masking.reference(text):
        _learn_reference(text)
        return
    if (held := masking.parsed(text)) is not None:
        _learn(held, hidden=hidden)
    if hidden and not (text.startswith("/") and os.path.exists(text)):  # noqa: PTH110  (any text)
        masking.add(text)
    for word in text.split():
        if match := _PASSWORD_IN_URL.search(word.rpartition("@")[0]):
            masking.add(match[1])
            masking.add(unquote(match[1]))
    _learn_words(text.split())


def _learn_words(arguments: Sequence[object]) -> None:
    """Mask secrets in arguments: --password X, --password=X, password=X."""
    before = ""
    for word in arguments:
        if not isinstance(word, str):
            continue
        name, equals, value = word.partition("=")
        if equals and masking.secretive(name.lstrip("-")):
            masking.add(value)
        elif before.startswith("-") and masking.secretive(before.lstrip("-")):
            masking.add(word)
        before = word


def _learn_reference(reference: str) -> None:
    """Mask the value of a reference, if it can be read without waiting."""
    kind, _, target = reference.partition(":")
    if kind == "file":
        try:
            path = Path(target)
            if not path.is_file() or path.stat().st_size > _MOST_LEARNED:
                return
        except (OSError, ValueError):
            return
    with contextlib.suppress(ConfigError):  # the module that needs it says so better
        Secret(reference).learn()


def learn_environment(names: Iterable[str]) -> None:
    """Mask the values of variables with the name of a secret."""
    for name in names:
        if masking.secretive(name):
            masking.add(os.environ.get(name, ""))


def variables(value: object) -> Iterator[str]:
    """Return the names of the variables that a value refers to as env:NAME, at any depth."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, str):
        if value.startswith("env:"):
            yield value[4:]
        elif (held := masking.parsed(value)) is not None:
            yield from variables(held)
    elif isinstance(value, Sequence):
        for entry in value:
            yield from variables(entry)
