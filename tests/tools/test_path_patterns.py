"""The language of path patterns, and that GNU tar excludes exactly what it matches."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filesbackup import tar_archive, tar_patterns
from filesbackup.filesbackup import Options
from tools.base import fixed_tar
from tools.base.errors import ConfigError
from tools.base.path_patterns import compile_pattern
from tools.modules import options


def matches(pattern: str, name: str) -> bool:
    return compile_pattern(pattern, "--path").matches(name.encode())


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("/srv/cache", "srv/cache srv/cache/a/b", "srv/cach srv/cache2 a/srv/cache"),
        ("/srv/cache/", "srv/cache srv/cache/a", "srv"),
        ("cache", "cache srv/cache srv/cache/a", "srv/caches srv/my-cache"),
        ("a/b", "a/b x/a/b x/a/b/c", "a/x/b"),
        ("*.log", "a.log x/y/a.log .log", "a.log2"),
        ("/srv/*/x", "srv/a/x", "srv/x srv/a/b/x"),
        ("/srv/**/x", "srv/x srv/a/x srv/a/b/c/x srv/a/x/y", "srv/a/xx x"),
        ("/srv/**", "srv/a srv/a/b", "srv srv2/a"),
        ("**/x", "x a/x a/b/x", "a/xy"),
        ("/a**z", "az abz a/z ab/c/dz", "xaz ab"),
        ("/a/**/b*c/**/d", "a/bc/d a/x/bxc/y/z/d", "a/b/c/d"),
        ("?", "a x/b", "ab"),
        ("[ab]?", "ax x/bb", "cx a"),
        ("[!a-c]", "d", "a b"),
        ("[^a]", "b", "a"),
        ("[[:upper:][:digit:]_]", "A 7 _", "a -"),
        (r"[]\]-]", "] -", "a"),
        (r"\*\[x\]\\", "*[x]\\ a/*[x]\\", "ax"),
        ("{a}", "{a}", "a"),
        ("a//b/./c/../d", "a/b/d", "a/b/c/d"),
        ("!keep", "!keep", "keep"),
    ],
)
def test_what_a_pattern_matches(pattern: str, yes: str, no: str) -> None:
    assert [name for name in yes.split() if not matches(pattern, name)] == []
    assert [name for name in no.split() if matches(pattern, name)] == []


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("", "names no file"),
        ("/", "names no file"),
        ("./", "names no file"),
        ("../cache", "leads out"),
        ("*.{log,LOG}", "braces"),
        ("x{1..3}", "braces"),
        ("[", "no end"),
        ("a[", "no end"),
        ("[]", "no end"),
        ("[!]", "no end"),
        ("[z-a]", "reversed"),
        ("[a/b]", "slash"),
        ("[ä]", "ASCII"),
        ("[[:alfa:]]", "class"),
        ("[[.a.]]", "class"),
        ("My\\", "backslash"),
        ("a\0b", "NUL"),
        ("\ud800", "no name has"),
        ("/a/**/b/**/c/**/d/**/e/**/f", "more than 4"),
        ("*x" * 150_000, "longer than 8192"),
    ],
)
def test_a_pattern_that_cannot_match_anything_is_one_line(pattern: str, problem: str) -> None:
    """Trials 7 E: they matched nothing, silently."""
    with pytest.raises(ConfigError, match=f"^KEY: .*: invalid pattern: .*{problem}") as error:
        compile_pattern(pattern, "KEY")
    assert error.value.hint
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ('"My Docs" *.log', '["My Docs", "*.log"]'),
        ("'My Docs'", '["My Docs"]'),
        ("*.log,cache", '["*.log", "cache"]'),
        ("*.log, cache", '["*.log", "cache"]'),
    ],
)
def test_quotes_and_commas_are_no_syntax(text: str, listed: str) -> None:
    """Trials 7 E: a hint with the JSON list; in such a list they are characters of a name."""
    with pytest.raises(
        ConfigError, match=r"FILESET_EXCLUDE: .* is not a list of patterns"
    ) as error:
        options.fill(Options, {"FILESET_EXCLUDE": text}, "{}".format)
    assert error.value.hint.endswith(f"{listed}.")
    odd = ["*,v", "Bob's", '"x"', "{GUID}", "a b"]
    texts = options.texts(Options, {"FILESET_EXCLUDE": odd})
    assert options.fill(Options, texts).fileset_exclude == tuple(odd)
    assert json.loads(texts["FILESET_EXCLUDE"]) == odd


NAMES = ("a", "b", "ab", "a.b", "b]", "-a", "[a")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of four levels with all names on each."""
    top = tmp_path_factory.mktemp("tree")
    for first in NAMES[:4]:
        for second in NAMES:
            for third in ("a", "ab", "a.b"):
                (top / first / second / third).mkdir(parents=True)
                for last in ("a", "b", "a.b"):
                    (top / first / second / third / last).touch()
    return top


def names(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def stored(top: Path, arguments: list[str]) -> list[str]:
    """The names that tar stores with these options."""
    argv = ["tar", "--create", "--file=/dev/null", f"--directory={top}", "--verbose"]
    argv += ["--quoting-style=literal", *arguments, "--", *NAMES[:4]]
    done = subprocess.run(argv, capture_output=True, check=True, env={"LC_ALL": "C"})
    return sorted(line.rstrip("/") for line in done.stdout.decode().splitlines())


PARTS = ["a", "b", "ab", "a.b", "?", "*", "**", "a*", "*b", "*a*", "a*b", "a**b", "**b", "[ab]"]
PARTS += ["[!a]", "[^b]*", "[]b]?", r"\[a", "-*", "[a.-]?b"]
PATTERNS = st.tuples(st.booleans(), st.lists(st.sampled_from(PARTS), min_size=1, max_size=5)).map(
    lambda drawn: "/" * drawn[0] + "/".join(drawn[1])
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(pattern=PATTERNS)
def test_tar_excludes_what_the_matcher_matches(tree: Path, pattern: str) -> None:
    """Trials 7 E: `**` was one level in FILESET_EXCLUDE, and crossed folders in --path."""
    if pattern.count("**") > 4:
        return
    compiled = compile_pattern(pattern, "KEY")
    arguments = [
        word
        for one in tar_patterns.translate(compiled)
        for word in (*fixed_tar.MODES[one.mode], f"--exclude={one.text}")
    ]
    expected = [name for name in names(tree) if not compiled.matches(name.encode())]
    assert stored(tree, arguments) == expected


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("/srv/**/x.log", 2),
        ("/home/*/**/node_modules", 1),
        ("/srv/**/*.log", 1),
        ("**/cache", 1),
        ("/srv/cache/**", 1),
        ("/a/**/b/**/c", 4),
        ("*.log", 1),
        ("/srv/**/a*b", tar_patterns.DEPTHS[0] + 1),
    ],
)
def test_common_patterns_are_few_for_tar(pattern: str, count: int) -> None:
    """Each pattern costs time for each file."""
    assert len(tar_patterns.translate(compile_pattern(pattern, "KEY"))) == count


def test_a_path_over_a_link_matches_the_real_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    patterns = tar_archive.compiled(f"{tmp_path}/link/x*")
    name = f"{tmp_path}/real/x1".lstrip("/").encode()
    assert [pattern.matches(name) for pattern in patterns] == [False, True]
