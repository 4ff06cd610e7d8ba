"""The two kinds of name on the wire: PeerId and ProtocolName (SPEC.md section 4). Pure text rules.

A PeerId is the bech32m text (BIP 350) of a public key: prefix "p2p", version symbol "q", 32 bytes, checksum; 63
characters. This module checks the text, so that a typo is found before it travels; whether the key is a good key only
the daemon knows.
"""

from __future__ import annotations

from .errors import MisuseError

__all__ = ["PROTOCOL_NAME_BYTES_MAX", "check_peer_id", "check_protocol_name", "peer_id_of_key"]

PROTOCOL_NAME_BYTES_MAX = 128
"""Bytes of a ProtocolName: fits in a log line, and 64 of them in a pre-parsed frame."""

_NAME_SYMBOLS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32M = 0x2BC830A3
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_PREFIX = "p2p"
_TEXT_CHARS = 63


def check_protocol_name(name: str) -> str:
    """Returns `name` if it is a ProtocolName: "/name/.../version" of [a-z0-9._-], at most 128 bytes.

    Raises MisuseError, which says what is wrong.
    """
    if len(name) > PROTOCOL_NAME_BYTES_MAX:
        raise MisuseError(f"protocol name has {len(name)} characters, at most {PROTOCOL_NAME_BYTES_MAX} fit", code=200)
    parts = name.split("/")
    if parts[0] or len(parts) < 3:
        raise MisuseError(f"{name!r} is no protocol name: it must look like /chat/1", code=200)
    for part in parts[1:]:
        if not part or not _NAME_SYMBOLS.issuperset(part):
            raise MisuseError(f"{name!r} is no protocol name: {part!r} is not of a-z 0-9 . _ -", code=200)
    return name


def check_peer_id(text: str) -> str:
    """Returns the PeerId in lower case, or raises MisuseError that says what is wrong with the text."""
    lower = text.lower()
    if text != lower and text != text.upper():
        raise MisuseError("a PeerId is written in lower case or in upper case, not both", code=200)
    if not lower.startswith(_PREFIX + "1q"):
        raise MisuseError(f"{text[:20]!r} is no PeerId: it starts with {_PREFIX}1q", code=200)
    if len(lower) != _TEXT_CHARS:
        raise MisuseError(f"a PeerId has {_TEXT_CHARS} characters, this one has {len(lower)}", code=200)
    symbols = [_BECH32.find(character) for character in lower[len(_PREFIX) + 1 :]]
    if min(symbols) < 0:
        raise MisuseError("a PeerId has no letters b, i, o and no 1 after its start", code=200)
    if _checksum(symbols) != _BECH32M or symbols[-7] & 0x0F:
        raise MisuseError("the PeerId has a typo: its checksum does not fit", code=200)
    return lower


def peer_id_of_key(key: bytes) -> str:
    """Writes 32 bytes as a PeerId. For tests and tools: it does not look whether the bytes are a good key."""
    if len(key) != 32:
        raise MisuseError(f"a key has 32 bytes, not {len(key)}")
    number = int.from_bytes(key, "big") << 4
    symbols = [0] + [number >> shift & 31 for shift in range(255, -1, -5)]
    rest = _checksum([*symbols, 0, 0, 0, 0, 0, 0]) ^ _BECH32M
    symbols += [rest >> shift & 31 for shift in range(25, -1, -5)]
    return f"{_PREFIX}1" + "".join(_BECH32[symbol] for symbol in symbols)


def _checksum(symbols: list[int]) -> int:
    expanded = [ord(c) >> 5 for c in _PREFIX] + [0] + [ord(c) & 31 for c in _PREFIX]
    state = 1
    for symbol in expanded + symbols:
        top, state = state >> 25, (state & 0x1FFFFFF) << 5 ^ symbol
        for bit, generator in enumerate(_GENERATORS):
            if top >> bit & 1:
                state ^= generator
    return state
