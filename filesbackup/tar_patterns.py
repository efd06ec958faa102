"""Path patterns as exclude options of GNU tar, whose own patterns have no `**`.

tar has two modes: wildcards match a slash (as fnmatch(3)), or they do not (FNM_PATHNAME). A pattern
without `**` needs the second mode. With `**` the first one is used where each `*` may cross
folders without a difference, because what is below a match matches too. Any other pattern is
written once for each depth of folders.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tools.base.path_patterns import CROSS, FOLDERS, SLASH, STAR, Kind, PathPattern, Token

DEPTHS = (30, 30, 12, 8)  # folders that 1, 2 ... `**` of a pattern written at each depth stand for
_SPECIAL = b"*?[\\"  # in a pattern
_SET_SPECIAL = b"\\]-^![:.="


class TarPattern(NamedTuple):
    """A pattern of tar. anchored: from the beginning of a name; crossing: wildcards match /."""

    text: str
    anchored: bool
    crossing: bool

    @property
    def mode(self) -> str:
        """Return how tar compares it (fixed_tar.MODES)."""
        where = "anchored" if self.anchored else "floating"
        return f"{where}-crossing" if self.crossing else where


def translate(pattern: PathPattern) -> list[TarPattern]:
    """Return patterns of tar that together exclude what the pattern matches."""
    tokens, anchored = _trimmed(pattern)
    if CROSS not in tokens and FOLDERS not in tokens:
        return [TarPattern(_text(tokens, crossing=False), anchored, crossing=False)]
    merged, whole = _merged(tokens, anchored=anchored)
    if STAR not in merged:
        texts = [_text(variant, crossing=True) for variant in _with_and_without(merged)]
        return [TarPattern(text, whole, crossing=True) for text in texts]
    texts = [_text(variant, crossing=False) for variant in _at_each_depth(tokens)]
    return [TarPattern(text, anchored, crossing=False) for text in texts]


def _trimmed(pattern: PathPattern) -> tuple[list[Token], bool]:
    """Return the tokens without `**` at their ends, and whether the pattern is still anchored."""
    tokens, anchored = list(pattern.tokens), pattern.anchored
    if tokens[0] in (CROSS, FOLDERS):
        anchored = False
        tokens[:1] = [STAR] if tokens[0] == CROSS else []
    if not tokens or tokens[-1] == CROSS:
        tokens[-1:] = [STAR]
    return tokens, anchored


# Each pair of sequences matches the same texts, as regular expressions show.
_EQUAL = (
    ((FOLDERS, STAR), (CROSS,)),
    ((FOLDERS, CROSS), (CROSS,)),
    ((STAR, SLASH, FOLDERS), (CROSS, SLASH)),
    ((CROSS, SLASH, FOLDERS), (CROSS, SLASH)),
    ((STAR, CROSS), (CROSS,)),
    ((CROSS, STAR), (CROSS,)),
    ((CROSS, CROSS), (CROSS,)),
    ((STAR, STAR), (STAR,)),
)


def _merged(tokens: Sequence[Token], *, anchored: bool) -> tuple[list[Token], bool]:
    """Return equal tokens with as few STAR as possible, and whether they are anchored."""
    merged = list(tokens)
    if merged[-1] == STAR:
        merged[-1] = CROSS  # what is below a match matches too
    if merged[0] == STAR and not anchored:
        merged[0], anchored = CROSS, True
    at = 0
    while at < len(merged):
        for before, after in _EQUAL:
            if tuple(merged[at : at + len(before)]) == before:
                merged[at : at + len(before)] = after
                at = max(0, at - 2) - 1
                break
        at += 1
    return merged, anchored


def _with_and_without(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Yield the tokens with every `**/` as no folder, or as one or more."""
    choices: list[tuple[tuple[Token, ...], ...]] = [
        ((), (CROSS, SLASH)) if token == FOLDERS else ((token,),) for token in tokens
    ]
    for chosen in itertools.product(*choices):
        yield list(itertools.chain(*chosen))


def _at_each_depth(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Yield the tokens with every `**` as a number of folders, up to DEPTHS for all of them."""
    places = [at for at, token in enumerate(tokens) if token in (CROSS, FOLDERS)]
    most = DEPTHS[len(places) - 1]
    for depths in itertools.product(range(most + 1), repeat=len(places)):
        if sum(depths) <= most:
            depth = dict(zip(places, depths, strict=True))
            yield [
                one
                for at, token in enumerate(tokens)
                for one in (_folders(token, depth[at]) if at in depth else (token,))
            ]


def _folders(token: Token, depth: int) -> tuple[Token, ...]:
    return (STAR, SLASH) * depth if token == FOLDERS else (STAR, *(SLASH, STAR) * depth)


def _text(tokens: Sequence[Token], *, crossing: bool) -> str:
    """Return a pattern as tar reads it."""
    return os.fsdecode(b"".join(_token_text(token, crossing=crossing) for token in tokens))


def _token_text(token: Token, *, crossing: bool) -> bytes:
    if token.kind is Kind.LITERAL:
        return b"\\" + token.members if token.members in _SPECIAL else token.members
    if token.kind is Kind.SET:
        members = b"".join(
            b"\\" + byte if byte in _SET_SPECIAL else byte
            for byte in (token.members[at : at + 1] for at in range(len(token.members)))
        )
        slash = b"/" if crossing and token.negated else b""
        return b"[" + b"!" * token.negated + members + slash + b"]"
    if token.kind is Kind.ANY:
        return b"[!/]" if crossing else b"?"
    return {Kind.SLASH: b"/", Kind.STAR: b"*", Kind.CROSS: b"*"}[token.kind]
