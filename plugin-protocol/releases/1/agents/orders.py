"""What both agents know of ORDERS.md: the pattern, the sum, and how errors are told."""

from __future__ import annotations

import zlib

from p2pos import P2posError
from p2pos.errors import SessionEnded, StreamEnded

__all__ = ["PIECE_BYTES", "PREFIX", "Unsupported", "pattern", "told", "total"]

PREFIX = "/p2pos/conformance"
PIECE_BYTES = 32 * 1024
_PERIOD = bytes(range(251)) * 132


class Unsupported(Exception):
    """An order that this agent does not know."""


def pattern(start: int, count: int, seed: int) -> bytes:
    """Bytes `start` to `start + count` of the pattern."""
    first = (seed + start) % 251
    return _PERIOD[first : first + count]


def total(data: bytes | bytearray) -> str:
    """How many bytes, and their sum."""
    return f"{len(data)} {zlib.adler32(data)}"


def told(error: Exception) -> str:
    """The answer when an order failed."""
    if isinstance(error, Unsupported):
        return "unsupported"
    if isinstance(error, SessionEnded):
        return "ended 105 0"
    if isinstance(error, StreamEnded):
        return f"ended {error.code} {error.app_code}"
    if isinstance(error, P2posError):
        return f"error {error.code}"
    if isinstance(error, OSError):
        return "ended 0 0"
    raise error
