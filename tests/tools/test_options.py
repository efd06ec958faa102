from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.base.errors import ConfigError
from tools.base.secret import Secret
from tools.modules import key_tables, options
from tools.modules.options import Duration, Paths, Ports, option


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Options:
    source: Path = option("what to read")
    targets: Paths = option("folders", default=(), aliases=("OBJECTIVES",))
    ports: Ports = option("one server each", default=(1,))
    level: int = option("1 to 9", default=6, least=1)
    wait: Duration | None = option("how long", default=None)
    remove: bool = option("whether to remove", default=True)
    colour: Colour = option("which", default=Colour.RED)
    password: Secret = option("never shown", default=Secret(""))
    decrypt: bool = option("backwards", default=False, flag="-d")


def parse(*argv: str) -> Options:
    return options.parse(Options, ["--SOURCE", "s", *argv])


def test_types_aliases_and_flags() -> None:
    parsed = parse("-d", "--OBJECTIVES", "/a /b/", "--LEVEL", "3", "--REMOVE", "false")
    assert parsed.decrypt
    assert parsed.targets == (Path("/a"), Path("/b"))
    assert (parsed.level, parsed.remove, parsed.colour) == (3, False, Colour.RED)
    assert parse("--COLOUR", "Blue", "--WAIT", "5m").wait == 300.0
    assert parse("--PORTS", "3306,3307 65535").ports == (3306, 3307, 65535)


def test_a_value_may_begin_with_a_dash_and_unknown_keys_are_skipped() -> None:
    assert parse("--GREASE", "--SOURCE", "--SOURCE", "-r").source == Path("-r")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--LEVEL", "x"], "--LEVEL: 'x' is not a whole number"),
        (["--LEVEL", "0"], "--LEVEL: 0 is less than 1"),
        (["--REMOVE", "maybe"], "--REMOVE"),
        (["--COLOUR", "green"], "one of red, blue"),
        (["--WAIT", "soon"], "a duration"),
        (["--TARGETS", '["a", 3]'], "--TARGETS"),
        (["--TARGETS", '["a"'], "--TARGETS"),
        *((["--PORTS", text], "--PORTS") for text in ("0", "65536", "1 1", "x", ",", "²", "[1]")),
        (["--LEVEL"], "--LEVEL has no value"),
        (["stray"], "'stray' is no --KEY"),
    ],
)
def test_a_wrong_value_is_named(argv: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse(*argv)
    assert caught.value.exit_code == 2


def test_a_missing_required_key_is_named() -> None:
    with pytest.raises(ConfigError, match="--SOURCE is required"):
        options.parse(Options, [])


@given(st.lists(st.text(min_size=1).filter(lambda text: "\0" not in text)))
def test_a_list_survives_the_way_through_an_argument(entries: list[str]) -> None:
    assert options.strings(options.to_text(entries)) == tuple(entries)


def test_a_simple_list_stays_the_documented_text() -> None:
    assert options.to_text(["/etc", "/opt"]) == "/etc /opt"
    assert options.to_text(True) == "True"
    assert options.to_text(7) == "7"


def test_the_table_names_every_key() -> None:
    table = key_tables.table(Options)
    assert "| `SOURCE` | required | what to read |" in table
    assert "`TARGETS`, `OBJECTIVES`" in table
    assert "(`-d`)" in table
