"""The length codec: cuts a byte stream into frames (SPEC.md section 1). Pure; one buffer, reused for ever.

The shell reads from its socket straight into `get_buffer()`; `next_frame()` gives a view into that buffer, good until
the next call of `get_buffer()` or `feed()`.
"""

from __future__ import annotations

from .codec import PREFIX_BYTES
from .codes import Code
from .errors import WireError

__all__ = ["FRAME_BYTES_HARD_MAX", "FRAME_BYTES_MAX", "Deframer"]

FRAME_BYTES_MAX = 1024 * 1024
"""Bytes of the largest frame, if Hello and Welcome do not say otherwise."""
FRAME_BYTES_HARD_MAX = (1 << 24) - 1
"""Bytes of the largest frame that anybody may agree on: the first byte of a length is always 0."""
_BUFFER_BYTES = 256 * 1024
"""One read takes at most this: several full Data frames a system call, and it stays in the processor's cache."""
_ROOM_BYTES_MIN = 64 * 1024
"""With less room than this at the buffer's end, what is left is moved to its front."""


class Deframer:
    """Holds what was read and not yet taken."""

    def __init__(self, frame_bytes_max: int, data: bytes = b"") -> None:
        self.frame_bytes_max = frame_bytes_max
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        if data:
            self.feed(data)

    def get_buffer(self) -> memoryview:
        """Room for the next read, never empty."""
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > _BUFFER_BYTES:
                # A giant has passed: give its memory back.
                self._buffer = bytearray(_BUFFER_BYTES)
                self._view = memoryview(self._buffer)
        wanted = self._wanted()
        if len(self._buffer) - self._end < _ROOM_BYTES_MIN or len(self._buffer) - self._start < wanted:
            self._make_room(wanted)
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """`count` bytes were read into `get_buffer()`."""
        self._end += count

    def feed(self, data: bytes | memoryview) -> None:
        """Takes bytes that came another way. For handshakes, tests and tools."""
        at = 0
        while at < len(data):
            room = self.get_buffer()
            take = min(len(room), len(data) - at)
            room[:take] = data[at : at + take]
            self._end += take
            at += take

    def next_frame(self) -> memoryview | None:
        """The next whole frame without its length, or None. Raises WireError for a length that breaks the rules."""
        start = self._start
        if self._end - start < PREFIX_BYTES:
            # One byte already tells a length of 16 MiB and more.
            if self._end > start and self._buffer[start] != 0:
                raise WireError("a frame's first byte is not 0", code=Code.FRAME_TOO_LARGE)
            return None
        length = int.from_bytes(self._view[start : start + PREFIX_BYTES], "big")
        if length == 0:
            raise WireError("a frame of length 0", code=Code.PROTOCOL)
        if length > self.frame_bytes_max:
            text = f"a frame of {length} bytes, the limit is {self.frame_bytes_max}"
            raise WireError(text, code=Code.FRAME_TOO_LARGE)
        body = start + PREFIX_BYTES
        if self._end - body < length:
            return None
        self._start = body + length
        return self._view[body : body + length]

    def rest(self) -> bytes:
        """Takes everything that was not cut into frames yet."""
        rest = bytes(self._view[self._start : self._end])
        self._start = self._end = 0
        return rest

    def _wanted(self) -> int:
        """Bytes that the frame at the front needs, as far as its length is known and legal."""
        if self._end - self._start < PREFIX_BYTES:
            return PREFIX_BYTES
        length = int.from_bytes(self._view[self._start : self._start + PREFIX_BYTES], "big")
        return PREFIX_BYTES + min(length, self.frame_bytes_max)

    def _make_room(self, wanted: int) -> None:
        held = bytes(self._view[self._start : self._end])
        size = max(len(held), wanted) + _ROOM_BYTES_MIN
        if size > len(self._buffer):
            self._buffer = bytearray(max(size, _BUFFER_BYTES))
            self._view = memoryview(self._buffer)
        self._view[: len(held)] = held
        self._start, self._end = 0, len(held)
