"""The session machine: bytes in, events out; no socket, no clock, no asyncio (SPEC.md sections 3 to 8).

It owns the frames, the request ids and the table of streams, for either role: the shells `aio` and `sync` run it as
the plugin, `testing` as a daemon. It refuses to know what a request means; that stands in `plugin.py` and `testing.py`.

How to drive it: read from the socket into `get_buffer()`, tell `handle_received(count, now)`, take `poll_event()` until
None, write `poll_transmit()` until it is empty, call `handle_timeout(now)` at `poll_timeout()`. Every method may make
new output. A broken rule of the other side queues an Error, sets `ended`, and nothing is read any more.
"""

from __future__ import annotations

from collections import deque

from . import messages as m
from .codec import PREFIX_BYTES, decode_frame, encode_frame, encode_varint, read_varint
from .codes import Code, hint_of, name_of
from .errors import P2posError, WireError, error_of
from .events import Answer, Changed, Ended, Notice, Received, Request, Settings
from .frames import Deframer
from .handshake import CREDIT_BYTES_MAX
from .requests import ANSWERS, MAY_COME, REQUESTS, Role, fault_of
from .streams import DATAGRAM_OVERHEAD_BYTES, UNLIMITED, End, Source, Stream

__all__ = ["Answer", "Changed", "Ended", "Notice", "Received", "Request", "Role", "Session", "Settings"]

PING_AFTER_S = 15.0
"""Silence after which a Ping asks whether the other side lives."""
DEAD_AFTER_S = 45.0
"""Silence after which the other side counts as dead."""
CONTROL_QUEUE_BYTES_MAX = 2 * 1024 * 1024
"""Bytes of control frames that may wait; the other side fills this only by asking and not reading the answers."""
BATCH_BYTES = 256 * 1024
"""Bytes that one `poll_transmit` gives at least if they are there: one system call's worth."""
BATCH_BUFFERS_MAX = 256
"""Buffers in one batch: a system call takes 1,024 at most on Linux, and a frame has up to three."""
CHUNKS_PER_FRAME_BYTES_MIN = 512
"""Below this mean size, chunks of one frame are joined: copying is then cheaper than one more buffer."""


class Session:
    """One session, from Welcome to its end."""

    def __init__(self, settings: Settings, now: float, leftover: bytes = b"") -> None:
        self.settings = settings
        self.ended: P2posError | None = None
        self.streams: dict[int, Stream] = {}
        self.unknown_frames = 0
        self._role = settings.role
        self._frames = Deframer(settings.frame_bytes_in_max, leftover)
        self._events: deque[Received] = deque()
        self._control: list[bytes] = []
        self._control_bytes = 0
        self._ready: deque[Stream] = deque()
        self._highest = {Role.PLUGIN: 0, Role.DAEMON: 0}
        self._rid = 0
        self._asked: dict[int, m.Message] = {}
        self._given_up: set[int] = set()
        self._owed: dict[int, m.Message] = {}
        self._heard = now
        self._pinged = now
        if leftover:
            self.handle_received(0, now)

    # --- input ---

    def get_buffer(self) -> memoryview:
        """Where the next bytes of the socket go."""
        return self._frames.get_buffer()

    def handle_received(self, count: int, now: float) -> None:
        """`count` bytes are in `get_buffer()`."""
        self._frames.received(count)
        self._heard = self._pinged = now
        try:
            while self.ended is None and (frame := self._frames.next_frame()) is not None:
                if not self._handle_hot(frame):
                    rid, body = decode_frame(bytes(frame))
                    self._handle(rid, body)
        except WireError as problem:
            self._fail(problem.code or Code.PROTOCOL, str(problem.args[0]))

    def handle_input(self, data: bytes, now: float) -> None:
        """Takes bytes that are not in `get_buffer()`. For tests and tools; a shell reads into the buffer."""
        self._frames.feed(data)
        self.handle_received(0, now)

    def handle_eof(self) -> None:
        """The other side closed its socket: for a plugin 105, for a daemon 403."""
        code = Code.SHUTTING_DOWN if self._role is Role.PLUGIN else Code.PLUGIN_GONE
        text = "the daemon closed the connection" if self._role is Role.PLUGIN else "the plugin closed the connection"
        self._end(error_of(code, text), Code(code))

    def handle_timeout(self, now: float) -> None:
        """Asks after 15 s of silence, gives up after 45 s."""
        if now - self._heard >= DEAD_AFTER_S:
            self._fail(Code.SHUTTING_DOWN, f"the other side said nothing for {DEAD_AFTER_S:.0f} s")
        elif now - self._pinged >= PING_AFTER_S:
            self._pinged = now
            self._send(m.Ping(int(now * 1000) & (1 << 63) - 1))

    def poll_timeout(self) -> float:
        """When `handle_timeout` should be called."""
        return min(self._pinged + PING_AFTER_S, self._heard + DEAD_AFTER_S)

    def poll_event(self) -> Received | None:
        """The next thing that happened."""
        return self._events.popleft() if self._events else None

    # --- output ---

    def poll_transmit(self) -> list[bytes | memoryview]:
        """Buffers to write in this order: control frames first, then Data of all streams in turn."""
        out: list[bytes | memoryview] = list(self._control)
        self._control.clear()
        self._control_bytes = 0
        budget = BATCH_BYTES
        while self._ready and budget > 0 and len(out) < BATCH_BUFFERS_MAX:
            stream = self._ready.popleft()
            stream.is_ready = False
            if stream.is_flow:
                budget -= self._frame_datagram(stream, out)
            elif stream.wants_to_send():
                budget -= self._frame_data(stream, out)
            self._make_ready(stream)
            self._close_if_over(stream)
        return out

    def has_output(self) -> bool:
        """True if `poll_transmit` would give something."""
        return bool(self._control or self._ready)

    # --- requests ---

    def request(self, body: m.Message) -> int:
        """Asks; the Answer event carries the returned rid. Raises LimitReached when too many wait."""
        self._check_alive()
        if len(self._asked) >= self.settings.requests_max:
            raise error_of(Code.LIMIT, f"{self.settings.requests_max} requests wait for their answer already")
        rid = self._next_rid()
        self._send(body, rid)
        self._asked[rid] = body
        return rid

    def open(self, body: m.Open | m.Incoming) -> tuple[Stream, int]:
        """Opens a stream towards the other side: sets its id, asks, and returns it with the rid of the request."""
        self._check_alive()
        if len(self.streams) >= self.settings.streams_max:
            raise error_of(Code.STREAM_LIMIT, f"{self.settings.streams_max} streams are open already")
        highest = self._highest[self._role]
        body.stream = highest + 2 if highest else (1 if self._role is Role.PLUGIN else 2)
        detached = body.attachment == m.Attachment.SOCKET if isinstance(body, m.Open) else bool(body.ticket)
        rid = self.request(body)
        return self._new_stream(body.stream, body.kind, detached), rid

    def reply(self, rid: int, body: m.Message) -> None:
        """Answers a Request event. A no to Open or Incoming drops its stream. Late answers are swallowed."""
        if rid == 0 or self.ended is not None:
            return
        asked = self._owed.pop(rid, None)
        if asked is None:
            return
        self._send(body, rid)
        if isinstance(asked, m.Open | m.Incoming) and isinstance(body, m.Error | m.Reject):
            self._drop(asked.stream, Code.REFUSED, Source.LOCAL)
        elif isinstance(body, m.Opened) and body.stream in self.streams:
            self.streams[body.stream].datagram_max = body.datagram_max

    def notify(self, body: m.Message) -> bool:
        """Says something with rid 0. False: the queue is full, nothing was sent."""
        if self.ended is not None or self._control_bytes > CONTROL_QUEUE_BYTES_MAX // 2:
            return False
        self._send(body)
        return True

    def cancel(self, rid: int) -> None:
        """Gives up a request: its answer is swallowed; a stream that it opened all the same is reset at once."""
        asked = self._asked.get(rid)
        if asked is None or rid in self._given_up or self.ended is not None:
            return
        self._given_up.add(rid)
        stream = self.streams.get(_stream_of(asked))
        if stream is not None:
            stream.finish_early(End(Code.CANCELLED, 0, Source.LOCAL))
        self._send(m.Cancel(rid))

    def close(self, code: int = Code.SHUTTING_DOWN, reason: str = "") -> None:
        """Ends the session: GoAway for 105, Error for others; what is queued still goes out."""
        if self.ended is not None:
            return
        if code == Code.SHUTTING_DOWN:
            self._send(m.GoAway(code, reason))
        else:
            self._send(m.Error(code, name_of(code), reason, hint_of(code)))
        self._end(error_of(code, reason or "the session was closed by this side"), code)

    # --- streams ---

    def write(self, stream: Stream, data: bytes | memoryview) -> int:
        """Takes what fits, from the front; 0: wait for Changed. `data` must not change afterwards."""
        count = stream.write(data)
        self._make_ready(stream)
        return count

    def finish(self, stream: Stream) -> None:
        """Writes no more: fin follows what is pending. Harmless if the direction ended before."""
        if stream.end is None and stream.stop_received is None and not stream.fin_wanted:
            stream.fin_wanted = True
            self._make_ready(stream)

    def read(self, stream: Stream, most: int) -> bytes | None:
        """See Stream.read; gives credit back."""
        data = stream.read(most)
        if data:
            self._give_credit(stream)
        return data

    def read_into(self, stream: Stream, room: memoryview) -> int | None:
        """See Stream.read_into; gives credit back."""
        count = stream.read_into(room)
        if count:
            self._give_credit(stream)
        return count

    def reset(self, stream: Stream, code: int = Code.APP, app_code: int = 0) -> None:
        """Ends both directions at once."""
        if stream.end is not None or stream.closed is not None or self.ended is not None:
            return
        self._send(m.Reset(stream.id, code, app_code))
        stream.finish_early(End(code, app_code, Source.LOCAL))
        self._close_if_over(stream)

    def stop(self, stream: Stream, code: int = Code.APP, app_code: int = 0) -> None:
        """Reads no more: what is buffered is dropped, and the other side is asked to stop."""
        if stream.stop_sent or stream.end is not None or stream.closed is not None or self.ended is not None:
            return
        if not stream.fin_received:
            self._send(m.StopSending(stream.id, code, app_code))
        stream.stop_sent = True
        stream.forget_input()
        self._close_if_over(stream)

    def close_detached(self, stream: Stream, closed: m.StreamClosed) -> None:
        """Daemon: tells how a detached stream ended; only its socket's owner knows."""
        if stream.closed is None and stream.id in self.streams and self.ended is None:
            stream.closed = closed
            self._send(closed)
            self._forget(stream)

    def send_datagram(self, flow: Stream, payload: bytes) -> None:
        """Queues one unreliable message; the oldest one in the queue may make room. Raises if it is too big."""
        flow_end = flow.end
        if flow_end is not None:
            raise flow_end.error("sending a datagram")
        if flow.datagram_max and len(payload) > flow.datagram_max:
            text = f"a datagram of {len(payload)} bytes, this path takes {flow.datagram_max}"
            raise error_of(Code.TOO_BIG, text)
        flow.send_datagram(payload)
        self._make_ready(flow)

    # --- frames in ---

    def _handle_hot(self, frame: memoryview) -> bool:
        """Data in canonical form with rid 0, without the general decoder. False: not that, nothing was done."""
        if frame[0] != 0x12:
            return False
        end = len(frame)
        length, at = read_varint(frame, 1, end)
        if at + length != end or length < 2 or frame[at] != 0x08:
            return False
        stream, at = read_varint(frame, at + 1, end)
        if at == end or frame[at] != 0x12:
            return False
        length, at = read_varint(frame, at + 1, end)
        stop = at + length
        fin = stop + 2 == end and frame[stop] == 0x18 and frame[stop + 1] == 1
        if (stop != end and not fin) or stream >> 32:
            return False
        self._on_data(stream, frame[at:stop], fin)
        return True

    def _handle(self, rid: int, body: m.Message | None) -> None:
        if body is None:
            self.unknown_frames += 1
            if rid:
                self._send_error(rid, Code.UNKNOWN_METHOD, "this version does not know the message")
            return
        kind = type(body)
        if kind not in MAY_COME[self._role]:
            self._fail(Code.PROTOCOL, f"{kind.__name__} may not come here")
        elif isinstance(body, m.Data):
            self._on_data(body.stream, memoryview(body.payload), body.fin)
        elif kind in _STREAM_FRAMES:
            self._on_stream_frame(body)
        elif isinstance(body, m.Ping):
            self._send(m.Pong(body.nonce), rid)
        elif isinstance(body, m.Open):
            self._on_open(rid, body)
        elif isinstance(body, m.Incoming):
            self._on_incoming(rid, body)
        elif kind in ANSWERS:
            self._on_answer(rid, body)
        elif isinstance(body, m.Cancel):
            self._on_cancel(rid, body)
        elif kind in REQUESTS:
            if self._owe(rid, body):
                self._events.append(Request(rid, body))
        elif not isinstance(body, m.Pong):
            self._events.append(Notice(body))

    def _on_data(self, id: int, payload: memoryview, fin: bool) -> None:
        stream = self._find(id, "Data")
        if stream is None:
            return
        if stream.is_flow or stream.is_detached:
            self._fail(Code.PROTOCOL, f"Data on {id}, which is a {'flow' if stream.is_flow else 'detached stream'}")
        elif stream.fin_received:
            self._fail(Code.PROTOCOL, f"Data on stream {id} after its fin")
        elif len(payload) > self.settings.data_bytes_max:
            text = f"Data with {len(payload)} bytes, the limit is {self.settings.data_bytes_max}"
            self._fail(Code.FRAME_TOO_LARGE, text)
        elif len(payload) > stream.allowance and stream.end is None and not stream.stop_sent:
            self.reset(stream, Code.FLOW_CONTROL)
            self._events.append(Changed(stream))
        elif payload or fin:
            stream.data(bytes(payload), fin)
            self._events.append(Changed(stream))
            self._close_if_over(stream)

    def _on_stream_frame(self, body: m.Message) -> None:
        id = body.flow if isinstance(body, m.Datagram) else body.stream  # type: ignore[attr-defined]
        stream = self._find(id, type(body).__name__)
        if stream is None:
            return
        if isinstance(body, m.Window):
            self._on_window(stream, body)
        elif isinstance(body, m.Datagram):
            self._on_datagram(stream, body)
        elif isinstance(body, m.Reset):
            stream.finish_early(End(body.code, body.app_code, Source.REMOTE))
            if self._role is Role.DAEMON:
                self._say_closed(stream, m.Cause.RESET_LOCAL, body.code, body.app_code)
        elif isinstance(body, m.StopSending):
            stream.stop_received = End(body.code, body.app_code, Source.REMOTE)
            stream.pending.clear()
            stream.pending_bytes = 0
        elif isinstance(body, m.StreamClosed):
            self._on_closed(stream, body)
        self._events.append(Changed(stream))
        self._close_if_over(stream)

    def _on_window(self, stream: Stream, body: m.Window) -> None:
        if stream.is_flow or stream.is_detached:
            self._fail(Code.PROTOCOL, f"Window on {stream.id}, which counts no credit")
        elif stream.credit < UNLIMITED // 2:
            stream.credit += body.bytes
            if stream.credit + stream.pending_bytes > CREDIT_BYTES_MAX:
                self.reset(stream, Code.FLOW_CONTROL)

    def _on_datagram(self, flow: Stream, body: m.Datagram) -> None:
        if not flow.is_flow:
            self._fail(Code.PROTOCOL, f"Datagram on stream {flow.id}")
        elif self._role is Role.DAEMON and 0 < flow.datagram_max < len(body.payload):
            text = f"a datagram of {len(body.payload)} bytes, this path takes {flow.datagram_max}"
            self._send_error(0, Code.TOO_BIG, text, flow.id)
        else:
            flow.datagram(body.payload)

    def _on_closed(self, stream: Stream, body: m.StreamClosed) -> None:
        if body.cause != m.Cause.FINISHED:
            source = Source.LOCAL if body.cause == m.Cause.RESET_LOCAL else Source.REMOTE
            if not (stream.fin_received and stream.fin_sent):
                stream.finish_early(End(body.code, body.app_code, source))
        stream.closed = body
        self._forget(stream)

    def _on_open(self, rid: int, body: m.Open) -> None:
        if not self._take_id(body.stream, Role.PLUGIN):
            return
        if rid == 0:
            self._send_error(0, Code.BAD_REQUEST, "Open needs a rid", body.stream)
            return
        if not self._owe(rid, body):
            return
        if len(self.streams) >= self.settings.streams_max:
            self._owed.pop(rid)
            self._send_error(rid, Code.STREAM_LIMIT, f"{self.settings.streams_max} streams at once", body.stream)
            return
        stream = self._new_stream(body.stream, body.kind, body.attachment == m.Attachment.SOCKET)
        self._events.append(Request(rid, body, stream))

    def _on_incoming(self, rid: int, body: m.Incoming) -> None:
        if not self._take_id(body.stream, Role.DAEMON) or not self._owe(rid, body):
            return
        stream = self._new_stream(body.stream, body.kind, bool(body.ticket))
        stream.datagram_max = body.datagram_max
        self._events.append(Request(rid, body, stream))

    def _on_answer(self, rid: int, body: m.Message) -> None:
        id = _stream_of(body)
        if isinstance(body, m.Error) and rid == 0:
            if body.code // 100 == 1:
                self._end(error_of(body.code, body.message, hint=body.hint), body.code)
            else:
                self._events.append(Notice(body))
            return
        if isinstance(body, m.Opened | m.Accept | m.Reject) and self._find(id, type(body).__name__) is None:
            return
        asked = self._asked.pop(rid, None)
        if asked is None:
            return
        stream = self.streams.get(_stream_of(asked))
        if stream is not None and isinstance(body, m.Error | m.Reject):
            self._drop(stream.id, body.code or Code.REFUSED, Source.REMOTE)
        elif stream is not None and isinstance(body, m.Opened):
            stream.datagram_max = body.datagram_max
            if rid in self._given_up:
                self._send(m.Reset(stream.id, Code.APP))
        if rid in self._given_up:
            self._given_up.discard(rid)
        else:
            self._events.append(Answer(rid, body))

    def _on_cancel(self, rid: int, body: m.Cancel) -> None:
        asked = self._owed.get(body.target)
        if asked is not None:
            error = m.Error(Code.CANCELLED, Code.CANCELLED.name, "given up", stream=_stream_of(asked))
            self.reply(body.target, error)
        if rid:
            self._send(m.Done(), rid)

    # --- helpers ---

    def _find(self, id: int, what: str) -> Stream | None:
        """The stream, or None if it is closed; an id that was never opened ends the session."""
        stream = self.streams.get(id)
        if stream is None:
            opener = Role.PLUGIN if id % 2 else Role.DAEMON
            if id == 0 or id > self._highest[opener]:
                self._fail(Code.PROTOCOL, f"{what} on stream {id}, which was never opened")
        return stream

    def _take_id(self, id: int, opener: Role) -> bool:
        if id == 0 or (id % 2 == 1) != (opener is Role.PLUGIN) or id <= self._highest[opener]:
            self._fail(Code.PROTOCOL, f"stream id {id} is not the {opener.value}'s to take")
            return False
        self._highest[opener] = id
        return True

    def _owe(self, rid: int, body: m.Message) -> bool:
        """Notes that an answer is owed. False: the request was refused right here."""
        if rid in self._owed:
            self._fail(Code.PROTOCOL, f"rid {rid} still waits for its answer")
            return False
        fault = fault_of(body)
        if fault:
            self._send_error(rid, Code.BAD_REQUEST, fault, _stream_of(body))
        elif len(self._owed) >= self.settings.requests_max:
            self._send_error(rid, Code.LIMIT, f"{self.settings.requests_max} requests at once", _stream_of(body))
        else:
            if rid:
                self._owed[rid] = body
            return True
        return False

    def _new_stream(self, id: int, kind: int, is_detached: bool) -> Stream:
        self._highest[Role.PLUGIN if id % 2 else Role.DAEMON] = id
        stream = Stream(
            id,
            is_flow=kind == m.Kind.DATAGRAM,
            is_detached=is_detached,
            credit=self.settings.window_out,
            allowance=self.settings.window_in,
        )
        self.streams[id] = stream
        return stream

    def _drop(self, id: int, code: int, source: Source) -> None:
        stream = self.streams.pop(id, None)
        if stream is not None:
            stream.finish_early(End(code, 0, source))
            self._events.append(Changed(stream))

    def _give_credit(self, stream: Stream) -> None:
        count = stream.credit_to_give()
        if count and self.ended is None:
            self._send(m.Window(stream.id, count))
        self._close_if_over(stream)

    def _close_if_over(self, stream: Stream) -> None:
        """The daemon says the last word as soon as both directions ended."""
        if self._role is not Role.DAEMON or stream.closed is not None or stream.id not in self.streams:
            return
        if stream.end is not None:
            cause = m.Cause.RESET_LOCAL if stream.end.source is Source.REMOTE else m.Cause.RESET_REMOTE
            self._say_closed(stream, cause, stream.end.code, stream.end.app_code)
        elif stream.is_over():
            stop = stream.stop_received
            if stop is not None:
                self._say_closed(stream, m.Cause.RESET_LOCAL, stop.code, stop.app_code)
            elif stream.stop_sent and not stream.fin_received:
                self._say_closed(stream, m.Cause.RESET_REMOTE, Code.APP, 0)
            else:
                self._say_closed(stream, m.Cause.FINISHED, 0, 0)

    def _say_closed(self, stream: Stream, cause: m.Cause, code: int, app_code: int) -> None:
        if stream.closed is None:
            # The plugin's in is our out.
            stream.closed = m.StreamClosed(stream.id, cause, code, app_code, stream.bytes_out, stream.bytes_in)
            self._send(stream.closed)
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)
        for table in (self._owed, self._asked):
            for rid in [rid for rid, asked in table.items() if _stream_of(asked) == stream.id]:
                del table[rid]
        self._events.append(Changed(stream))

    def _make_ready(self, stream: Stream) -> None:
        wants = bool(stream.pending) and stream.end is None if stream.is_flow else stream.wants_to_send()
        if wants and not stream.is_ready and self.ended is None:
            stream.is_ready = True
            self._ready.append(stream)

    def _frame_data(self, stream: Stream, out: list[bytes | memoryview]) -> int:
        chunks, count, fin = stream.take(self.settings.data_bytes_max)
        if len(chunks) > 1 and count < CHUNKS_PER_FRAME_BYTES_MIN * len(chunks):
            chunks = [b"".join(chunks)]
        head = b"\x08" + encode_varint(stream.id)
        if count:
            head += b"\x12" + encode_varint(count)
        size = len(head) + count + (2 if fin else 0)
        head = b"\x12" + encode_varint(size) + head
        total = len(head) + count + (2 if fin else 0)
        out.append(total.to_bytes(PREFIX_BYTES, "big") + head)
        out += chunks
        if fin:
            out.append(b"\x18\x01")
        return total

    def _frame_datagram(self, flow: Stream, out: list[bytes | memoryview]) -> int:
        payload = flow.pending.popleft()
        flow.pending_bytes -= len(payload) + DATAGRAM_OVERHEAD_BYTES
        flow.bytes_out += len(payload)
        frame = encode_frame(m.Datagram(flow.id, bytes(payload)))
        out.append(frame)
        return len(frame)

    def _next_rid(self) -> int:
        while True:
            self._rid = self._rid % 0xFFFF_FFFF + 1
            if self._rid not in self._asked:
                return self._rid

    def _send(self, body: m.Message, rid: int = 0) -> None:
        frame = encode_frame(body, rid)
        if len(frame) - PREFIX_BYTES > self.settings.frame_bytes_out_max:
            raise error_of(Code.TOO_BIG, f"{type(body).__name__} has {len(frame)} bytes, too many for one frame")
        self._control.append(frame)
        self._control_bytes += len(frame)
        if self._control_bytes > CONTROL_QUEUE_BYTES_MAX and self.ended is None:
            self._end(error_of(Code.SLOW_CONSUMER, "the other side asks and does not read"), Code.SLOW_CONSUMER)

    def _send_error(self, rid: int, code: Code, message: str, stream: int = 0) -> None:
        self._send(m.Error(code, code.name, message, hint_of(code), stream=stream), rid)

    def _fail(self, code: int, message: str) -> None:
        """The other side broke a rule, or is silent: say why, and end."""
        if self.ended is None:
            self._send(m.Error(code, name_of(code), message, hint_of(code)))
            self._end(error_of(code, message), code)

    def _end(self, error: P2posError, code: int) -> None:
        if self.ended is not None:
            return
        self.ended = error
        self._ready.clear()
        for stream in list(self.streams.values()):
            stream.finish_early(End(code, 0, Source.SESSION))
            self._events.append(Changed(stream))
        self.streams.clear()
        self._asked.clear()
        self._owed.clear()
        self._events.append(Ended(error))

    def _check_alive(self) -> None:
        if self.ended is not None:
            raise self.ended


_STREAM_FRAMES: frozenset[type[m.Message]] = frozenset((m.Window, m.Datagram, m.Reset, m.StopSending, m.StreamClosed))


def _stream_of(body: m.Message) -> int:
    """The stream that a message is about; 0 if none."""
    return getattr(body, "stream", 0)
