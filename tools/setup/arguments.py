"""The command line of setup.py: a verb, its options, and for upgrade a folder."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.base.errors import ConfigError

FLAGS = {
    "--dry-run": "print each step that is needed, and change nothing",
    "--json": "print the findings as JSON",
    "--yes": "answer each question with yes",
    "--purge": "remove config, keys, work folder, logs and the user as well; never a store",
}
VALUES = {
    "--prefix": ("DIR", "install below DIR, for packages; no users and daemons are changed"),
    "--wheels": ("DIR", "take the Python packages from DIR instead of the network"),
    "--schedule": ("TIME", 'run the backup every day at TIME: "03:00", "cron 03:00", or none'),
}


@dataclass(frozen=True)
class Arguments:
    """What was given: the verb, its options, the folder of upgrade."""

    verb: str
    dry_run: bool = False
    json: bool = False
    yes: bool = False
    purge: bool = False
    prefix: str = ""
    wheels: str = ""
    schedule: str = ""
    folder: str = ""

    @property
    def root(self) -> Path:
        """Return the folder that stands for /."""
        return folder_of("--prefix", self.prefix) if self.prefix else Path("/")

    def options(self) -> list[str]:
        """Return the options as they were given."""
        flags = [name for name in FLAGS if getattr(self, _field(name))]
        values = {name: getattr(self, _field(name)) for name in VALUES}
        return flags + [f"{name}={value}" for name, value in values.items() if value]


def folder_of(option: str, text: str) -> Path:
    """Return the real path of an existing folder. Raises ConfigError for anything else."""
    path = Path(text).absolute()
    if not path.is_dir():
        raise ConfigError(f"{option}: {path}: not a directory", "Create it, or correct the path.")
    return path.resolve()


def parse(argv: Sequence[str], verbs: Mapping[str, Sequence[str]], default: str) -> Arguments:
    """Return the parsed arguments. Raises ConfigError, naming the nearest verb or option.

    verbs: the options of each verb; FOLDER among them: it takes a folder
    """
    arguments = list(argv)
    verb = arguments.pop(0) if arguments and not arguments[0].startswith("-") else default
    if verb not in verbs:
        verb_names = ", ".join(verbs)
        raise ConfigError(
            f"setup.py: unknown command {verb!r}{_nearest(verb, list(verbs))}", f"Use {verb_names}."
        )
    values: dict[str, str | bool] = {}
    while arguments:
        name, value = _option(verb, verbs[verb], arguments)
        if name in values:
            raise ConfigError(f"setup.py {verb}: {name} is given twice", "Give it once.")
        values[name] = value
    fields = {_field(name): one for name, one in values.items()}
    return dataclasses.replace(Arguments(verb), **fields)  # type: ignore[arg-type]


def _field(option: str) -> str:
    return option.lstrip("-").replace("-", "_").lower()


def _option(verb: str, allowed: Sequence[str], arguments: list[str]) -> tuple[str, str | bool]:
    """Remove one option and its value from the arguments; return both."""
    word = arguments.pop(0)
    if not word.startswith("-") and "FOLDER" in allowed:
        return "FOLDER", word
    name, equals, value = word.partition("=")
    if name not in allowed:
        accepted = "It takes " + ", ".join(allowed) if allowed else "It takes none"
        raise ConfigError(
            f"setup.py {verb}: unknown argument {word!r}{_nearest(name, allowed)}", f"{accepted}."
        )
    if name in FLAGS:
        if equals:
            raise ConfigError(f"setup.py {verb}: {name} takes no value", f"{name} alone.")
        return name, True
    if not equals:
        if not arguments or arguments[0] == "" or arguments[0].startswith("--"):
            raise ConfigError(f"setup.py {verb}: {name} needs a value", f"{name} {VALUES[name][0]}")
        value = arguments.pop(0)
    if not value:
        raise ConfigError(f"setup.py {verb}: {name} needs a value", f"{name} {VALUES[name][0]}")
    return name, value


def _nearest(word: str, names: Sequence[str]) -> str:
    starting = [one for one in names if one.startswith(word) and word.strip("-")]
    close = starting or difflib.get_close_matches(word, names, 1)
    return f": did you mean {close[0]}?" if close else ""
