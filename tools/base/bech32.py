"""Bech32 (BIP 173) without its limit of 90 characters: how age writes its keys."""

from __future__ import annotations

from tools.base.errors import ConfigError

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM = 6  # characters


def _polymod(values: list[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            check ^= generator if top >> bit & 1 else 0
    return check


def _expanded(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def _regrouped(values: bytes | list[int], width: int, into: int) -> tuple[list[int], int, int]:
    """Return numbers of `width` bits as numbers of `into` bits; the remainder, and its bits."""
    remainder = bits = 0
    out = []
    for value in values:
        remainder = remainder << width | value
        bits += width
        while bits >= into:
            bits -= into
            out.append(remainder >> bits & (1 << into) - 1)
            remainder &= (1 << bits) - 1
    return out, remainder, bits


def encode(prefix: str, data: bytes) -> str:
    """Return the text, in lower case."""
    values, remainder, bits = _regrouped(data, 8, 5)
    if bits:
        values.append(remainder << 5 - bits)
    check = _polymod([*_expanded(prefix), *values, *[0] * _CHECKSUM]) ^ 1
    values += [check >> 5 * (5 - n) & 31 for n in range(_CHECKSUM)]
    return prefix + "1" + "".join(_ALPHABET[value] for value in values)


def decode(text: str) -> tuple[str, bytes]:
    """Return the prefix in lower case, and the data. Raises ValueError for a typo."""
    if text not in (text.lower(), text.upper()):
        raise ValueError("mixed upper and lower case")
    prefix, _, payload = text.lower().rpartition("1")
    if not prefix or len(payload) < _CHECKSUM or set(payload) - set(_ALPHABET):
        raise ValueError("not a Bech32 string")
    values = [_ALPHABET.index(c) for c in payload]
    if _polymod([*_expanded(prefix), *values]) != 1:
        raise ValueError("checksum mismatch")
    data, remainder, _ = _regrouped(values[:-_CHECKSUM], 5, 8)
    if remainder:
        raise ValueError("non-zero padding")
    return prefix, bytes(data)


def key(text: str, prefix: str, size: int, kind: str) -> bytes:
    """Return the bytes of an age key. Raises ConfigError, and never shows the text."""
    try:
        actual, data = decode(text.strip())
    except ValueError as error:
        raise ConfigError(
            f"invalid age {kind}: {error}", "Copy the whole key, on one line."
        ) from None
    if actual != prefix or len(data) != size:
        raise ConfigError(f"not an age {kind}", f"It begins with {encode(prefix, b'')[:-6]}...")
    return data


def unusable(recipient: str) -> ConfigError:
    """Return the error for a recipient that is well written and no valid key."""
    return ConfigError(
        f"invalid age recipient {recipient[:24]}...", "Copy the recipient from its key file again."
    )
