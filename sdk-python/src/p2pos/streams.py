"""One stream (or datagram flow): credit, buffers, half-close, the ways to end (SPEC.md sections 5 to 7). Pure.

A direction ends by fin, by StopSending from its reader, or by Reset, which ends both at once. Credit counts payload
bytes: `credit` is what we may still send, `allowance` what the other side may still send; the reader gives credit
back as the program consumes. Both roles are the same. This file never builds a frame; protocol.py does.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

from . import messages as m
from .codes import Code
from .errors import MisuseError, P2posError, StreamReset, StreamStopped, error_of

__all__ = ["DATAGRAM_OVERHEAD_BYTES", "UNLIMITED", "End", "Source", "Stream"]

SEND_BUFFER_BYTES_MAX = 256 * 1024
"""Bytes that wait in one stream before its writer waits, however large the credit is."""
DATAGRAM_QUEUE_BYTES_MAX = 256 * 1024
"""Bytes of datagrams that wait in one flow and direction; the oldest go first, and a counter tells."""
DATAGRAM_OVERHEAD_BYTES = 64
"""What a waiting datagram counts on top of its payload, so that empty ones cannot pile up for ever."""
UNLIMITED = 1 << 62
"""Credit that nobody counts (auto_window)."""


class Source(enum.Enum):
    """Who ended it."""

    LOCAL = "this side"
    REMOTE = "the other side"
    SESSION = "the session"


@dataclass(frozen=True, slots=True)
class End:
    """Why a stream ended early."""

    code: int
    app_code: int
    source: Source

    def error(self, what: str) -> P2posError:
        """The exception that a caller gets."""
        if self.source is Source.SESSION:
            return error_of(self.code, f"the session ended while {what}", app_code=self.app_code)
        text = f"the stream was reset by {self.source.value} while {what}"
        if self.code == Code.APP:
            text += f"; its own code is {self.app_code}"
        return StreamReset(text, code=self.code, app_code=self.app_code)


class Stream:
    """The state of one stream or flow. Fields are for protocol.py and the shells; authors see aio.Stream."""

    __slots__ = (
        "_allowance_all",
        "_offset",
        "allowance",
        "buffered",
        "bytes_in",
        "bytes_out",
        "chunks",
        "closed",
        "consumed",
        "credit",
        "datagram_max",
        "datagrams_dropped",
        "end",
        "fin_received",
        "fin_sent",
        "fin_wanted",
        "id",
        "is_detached",
        "is_flow",
        "is_ready",
        "pending",
        "pending_bytes",
        "stop_received",
        "stop_sent",
    )

    def __init__(self, id: int, *, is_flow: bool, is_detached: bool, credit: int, allowance: int) -> None:
        self.id = id
        self.is_flow = is_flow
        self.is_detached = is_detached
        self.credit = credit
        self.allowance = self._allowance_all = allowance
        self.pending: deque[bytes | memoryview] = deque()
        self.pending_bytes = 0
        self.fin_wanted = False
        self.fin_sent = False
        self.stop_received: End | None = None
        self.chunks: deque[bytes] = deque()
        self._offset = 0
        self.buffered = 0
        self.fin_received = False
        self.stop_sent = False
        self.consumed = 0
        self.end: End | None = None
        self.closed: m.StreamClosed | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.datagram_max = 0
        self.datagrams_dropped = 0
        self.is_ready = False

    # --- the program's side ---

    def capacity(self) -> int:
        """Bytes that `write` takes now; 0 means: wait. Raises what ended the direction."""
        if self.fin_wanted:
            raise MisuseError("write after close_write")
        if self.end is not None:
            raise self.end.error("writing")
        if self.stop_received is not None:
            end = self.stop_received
            raise StreamStopped("the other side reads no more", code=end.code, app_code=end.app_code)
        if self.closed is not None:
            raise StreamReset("the stream is closed", code=self.closed.code or Code.PATH_LOST)
        return max(0, min(self.credit, SEND_BUFFER_BYTES_MAX - self.pending_bytes))

    def write(self, data: bytes | memoryview) -> int:
        """Takes what credit and buffer allow, from the front; returns how many bytes. Never copies."""
        count = min(self.capacity(), len(data))
        if count:
            self.pending.append(data if count == len(data) else memoryview(data)[:count])
            self.pending_bytes += count
            self.credit -= count
        return count

    def take(self, most: int) -> tuple[list[bytes | memoryview], int, bool]:
        """Takes pending chunks of at most `most` bytes for one frame: (chunks, bytes, fin)."""
        chunks: list[bytes | memoryview] = []
        count = 0
        while self.pending and count < most:
            chunk = self.pending[0]
            room = most - count
            if len(chunk) > room:
                view = memoryview(chunk)
                chunks.append(view[:room])
                self.pending[0] = view[room:]
                count = most
            else:
                chunks.append(chunk)
                self.pending.popleft()
                count += len(chunk)
        self.pending_bytes -= count
        self.bytes_out += count
        fin = self.fin_wanted and not self.pending and not self.fin_sent
        self.fin_sent = self.fin_sent or fin
        return chunks, count, fin

    def wants_to_send(self) -> bool:
        """True if a frame of this stream could go out now."""
        if self.end is not None or self.stop_received is not None:
            return False
        return bool(self.pending) or (self.fin_wanted and not self.fin_sent)

    def read(self, most: int) -> bytes | None:
        """What is there, at most `most` bytes; b"" after the other side's fin; None: nothing yet. Raises the end."""
        if self.stop_sent:
            raise MisuseError("read after stop")
        if not self.chunks:
            if self.fin_received:
                return b""
            if self.end is not None:
                raise self.end.error("reading")
            if self.closed is not None:
                raise StreamReset("the stream is closed", code=self.closed.code or Code.PATH_LOST)
            return None
        first = self.chunks[0]
        have = len(first) - self._offset
        if have > most:
            piece = first[self._offset : self._offset + most]
            self._offset += most
        elif have == most or len(self.chunks) == 1:
            piece = first[self._offset :] if self._offset else first
            self._drop_first()
        else:
            piece = self._join(most)
        self._used(len(piece))
        return piece

    def read_into(self, room: memoryview) -> int | None:
        """Like `read`, into the caller's memory; 0 after the other side's fin, None: nothing yet."""
        filled = 0
        while filled < len(room) and self.chunks and not self.stop_sent:
            first = memoryview(self.chunks[0])[self._offset :]
            count = min(len(first), len(room) - filled)
            room[filled : filled + count] = first[:count]
            filled += count
            if count == len(first):
                self._drop_first()
            else:
                self._offset += count
        if filled == 0:
            return None if self.read(1) is None else 0
        self._used(filled)
        return filled

    def credit_to_give(self) -> int:
        """Bytes that the other side should be told were consumed; 0: not yet worth a frame."""
        if self._allowance_all >= UNLIMITED or self.fin_received or self.end is not None or self.stop_sent:
            return 0
        if self.consumed * 2 < self._allowance_all:
            return 0
        count, self.consumed = self.consumed, 0
        self.allowance += count
        return count

    # --- the other side's doing ---

    def data(self, payload: bytes, fin: bool) -> None:
        """Bytes came, within the allowance."""
        count = len(payload)
        self.fin_received = fin
        self.bytes_in += count
        if self.stop_sent or self.end is not None:
            return
        self.allowance -= count
        if count:
            self.chunks.append(payload)
            self.buffered += count

    def datagram(self, payload: bytes) -> None:
        """A datagram came; the oldest make room."""
        self._queue(self.chunks, payload, "buffered")

    def send_datagram(self, payload: bytes) -> None:
        """A datagram wants out; the oldest make room."""
        self._queue(self.pending, payload, "pending_bytes")

    def next_datagram(self) -> bytes | None:
        """The oldest datagram that came; None: nothing yet. Raises the end."""
        if not self.chunks:
            if self.end is not None:
                raise self.end.error("reading")
            if self.closed is not None:
                raise StreamReset("the flow is closed", code=self.closed.code or Code.PATH_LOST)
            return None
        payload = self.chunks.popleft()
        self.buffered -= len(payload) + DATAGRAM_OVERHEAD_BYTES
        return payload

    def finish_early(self, end: End) -> None:
        """Reset, by whichever side: what waits to be sent is gone, what arrived can still be read."""
        if self.end is None and self.closed is None:
            self.end = end
        self.pending.clear()
        self.pending_bytes = 0
        if end.source is Source.LOCAL:
            self.forget_input()

    def forget_input(self) -> None:
        """Drops what arrived: nobody will read it."""
        self.chunks.clear()
        self.buffered = self._offset = 0

    def is_over(self) -> bool:
        """True once nothing more will happen: both directions ended, or one Reset."""
        send_done = self.fin_sent or self.stop_received is not None
        receive_done = (self.fin_received and not self.chunks) or self.stop_sent
        return self.end is not None or (send_done and receive_done)

    # --- helpers ---

    def _queue(self, queue: deque[bytes] | deque[bytes | memoryview], payload: bytes, counter: str) -> None:
        total = getattr(self, counter) + len(payload) + DATAGRAM_OVERHEAD_BYTES
        queue.append(payload)
        while total > DATAGRAM_QUEUE_BYTES_MAX:
            total -= len(queue.popleft()) + DATAGRAM_OVERHEAD_BYTES
            self.datagrams_dropped += 1
        setattr(self, counter, total)

    def _drop_first(self) -> None:
        self.chunks.popleft()
        self._offset = 0

    def _join(self, most: int) -> bytes:
        """Several small chunks as one."""
        parts = []
        count = 0
        while self.chunks and count + len(self.chunks[0]) - self._offset <= most:
            part = self.chunks[0][self._offset :] if self._offset else self.chunks[0]
            parts.append(part)
            count += len(part)
            self._drop_first()
        return b"".join(parts)

    def _used(self, count: int) -> None:
        self.buffered -= count
        self.consumed += count
