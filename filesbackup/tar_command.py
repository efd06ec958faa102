"""TAR_COMMAND: another tar than ours, and which of its options the capability copy may get.

`sudo tar ...`, as documented configs have it, is run by a capability where that reads everything:
then it needs no rule of sudoers, and works in a service without new privileges.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filesbackup import tar_archive, tar_privilege
from tools import os_works
from tools.base import fixed_tar
from tools.base.errors import ConfigError
from tools.flow import tar

_ROOT_OPTIONS = ("/", "-C/", "--directory=/")
_NO_PASSWORD = {"-n", "--non-interactive"}
_CAPABLE = (tar_privilege.Way.COPY, tar_privilege.Way.AMBIENT)
_LETTERS = "cvzjJhpS"  # of tar: create, verbose, gzip, bzip2, xz, and what they say of files
_OPTIONS = re.compile(  # that start no program of the config's, and write no other file
    r"--(create|verbose|gzip|bzip2|xz|zstd|acls|xattrs|selinux|numeric-owner|sparse|dereference"
    r"|one-file-system|ignore-failed-read|preserve-permissions|same-permissions|totals"
    r"|directory=/|(xattrs-include|xattrs-exclude|exclude|warning|format|blocking-factor)=.*)"
)


def split(command: str) -> list[str]:
    """Return the arguments of TAR_COMMAND, [] for none. Raises ConfigError."""
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"TAR_COMMAND: {str(error).lower()}", "Check the quotes.") from None
    if command and not arguments:
        raise ConfigError(
            "TAR_COMMAND: empty value",
            "Name a tar command, or remove the key to use the default.",
        )
    for number, word in enumerate(arguments):
        bad = _forbidden(arguments[number + 1 :]) if _is_copy(word) else ""
        if bad:
            raise ConfigError(
                f"TAR_COMMAND: {bad}: not allowed with {tar_privilege.COPY}, which may read "
                "every file",
                "Remove this option, or remove TAR_COMMAND to use the default.",
            )
    return arguments


def _is_copy(word: str) -> bool:
    return "/" in word and os.path.realpath(word) == os.path.realpath(tar_privilege.COPY)


def _forbidden(options: Sequence[str]) -> str:
    """Return the first option that the copy may not get; "" if it may get them all.

    Allowed is what creates an archive of files below / in the file that follows.
    """
    rest = _dashed(options)
    last = ""
    while rest:
        last = rest.pop(0)
        if last.startswith("--"):
            allowed = last == "--file" or _OPTIONS.fullmatch(last) is not None
        else:
            allowed = last.startswith("-") and _letters_allowed(last[1:], rest)
        if not allowed:
            return last
        if rest and _takes_file(last):
            return rest[0]
    return "" if _takes_file(last) else "no -f at the end"


def _takes_file(word: str) -> bool:
    """Return whether the word after an option is the name of the archive."""
    return word == "--file" or (not word.startswith("--") and word.endswith("f"))


def _dashed(options: Sequence[str]) -> list[str]:
    """Return options of the old style (`czCf /`), where values follow all letters, with dashes."""
    if not options or options[0].startswith("-"):
        return list(options)
    values = list(options[1:])
    dashed: list[str] = []
    for letter in options[0]:
        dashed.append(f"-{letter}")
        dashed += values[:1] if letter == "C" else []
        values = values[1:] if letter == "C" else values
    return [*dashed, *values]


def _letters_allowed(letters: str, rest: list[str]) -> bool:
    """Return whether these options are allowed; take the value of -C from what follows."""
    plain, change, value = letters.partition("C")
    if change and not value:
        value = rest.pop(0) if rest else ""
    known = set(plain.removesuffix("f") if not change else plain) <= set(_LETTERS)
    return known and (not change or value == "/")


@dataclass(frozen=True)
class Command:
    """TAR_COMMAND as it is run.

    raised: whether the capability of this process is raised for it, and for the compressor that
    tar itself starts for z, j or J
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    raised: bool = False


def _routed(arguments: Sequence[str]) -> Command:
    """Return the command as it is run: `sudo tar` by a capability if that may have its options."""
    if Path(arguments[0]).name == "sudo":
        rest = [word for word in arguments[1:] if word not in _NO_PASSWORD]
        by_tar = bool(rest) and Path(rest[0]).name == "tar" and not _forbidden(rest[1:])
        reader = tar_privilege.reader()
        if by_tar and reader.way in _CAPABLE:
            return Command((reader.program, *rest[1:]), tar.environment(), reader.raised)
        if len(rest) == len(arguments) - 1:
            arguments = [arguments[0], "-n", *rest]  # never wait for a password
    ours = any(map(_is_copy, arguments))
    environment = tar.environment() if ours else os_works.environment({"LC_ALL": "C"})
    return Command(tuple(arguments), environment)


def command(text: str, fileset: tar_archive.Fileset, target: str) -> Command:
    """Return TAR_COMMAND with the name of the archive, excludes and names."""
    routed = _routed(split(text))
    top = "" if any(word in _ROOT_OPTIONS for word in routed.argv[1:]) else "/"
    names = [top + os.fsdecode(name) for name in tar_archive.tar_members(fileset)]
    left_out = [*fixed_tar.MESSAGE_OPTIONS, *tar_archive.excludes(fileset, top)]
    left_out += [fixed_tar.SINGLE] if fileset.one_file_system else []
    argv = (*routed.argv, target, *left_out, "--", *names)
    return dataclasses.replace(routed, argv=argv)


def program(text: str) -> str:
    """Return the program that is run first."""
    return _routed(split(text)).argv[0]
