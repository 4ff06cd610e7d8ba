"""The far ends of streams and flows: what another person's plugin would hold; and joining two of them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from .. import messages as m
from ..codes import Code
from ..errors import P2posError, StreamReset, error_of
from ..streams import Stream as State

if TYPE_CHECKING:
    from ._served import Served

READ_BYTES = 256 * 1024
WAIT_S = 10.0
"""Seconds that anything here waits at most, unless told: a test that hangs must end."""
TICKET_TTL_S = 10.0
T = TypeVar("T")


@dataclass(slots=True)
class Ticket:
    """A detached stream that waits for its socket."""

    attached: threading.Event = field(default_factory=threading.Event)
    sock: socket.socket | None = None


class RemoteStream:
    """The far end of a stream: what the other side's plugin would hold."""

    def __init__(self, served: Served, state: State, protocol: str) -> None:
        self.protocol = protocol
        self._served = served
        self._engine = served.engine
        self._session = served.desk.session
        self._state = state

    def read(self, max_bytes: int = READ_BYTES, timeout: float = WAIT_S) -> bytes:
        """The next bytes; b"" after the plugin's fin. Raises StreamReset, TimeoutError."""
        return self._until(lambda: self._session.read(self._state, max_bytes), timeout)

    def read_exactly(self, count: int, timeout: float = WAIT_S) -> bytes:
        """Exactly `count` bytes. Raises EOFError."""
        data = b""
        while len(data) < count:
            more = self.read(count - len(data), timeout)
            if not more:
                raise EOFError(f"the plugin closed after {len(data)} of {count} bytes")
            data += more
        return data

    def read_all(self, timeout: float = WAIT_S) -> bytes:
        """Everything up to the plugin's fin."""
        return b"".join(iter(lambda: self.read(timeout=timeout), b""))

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.read, b"")

    def write(self, data: bytes, timeout: float = WAIT_S) -> None:
        """Writes all. Raises StreamReset, StreamStopped, TimeoutError."""
        view = memoryview(data)
        while len(view):
            rest = view
            count = self._until(lambda: self._session.write(self._state, rest) or None, timeout, self._state)  # noqa: B023
            view = view[count:]
        self._engine.do(self._state.capacity)

    def close_write(self) -> None:
        """Half close."""
        self._engine.do(lambda: self._session.finish(self._state))

    def reset(self, app_code: int = 0, code: int = Code.APP) -> None:
        """Ends both directions; with `code` 403 or 404 it plays a remote crash or a lost path."""
        self._engine.tell(lambda: self._session.reset(self._state, code, app_code), self._state)

    def stop(self, app_code: int = 0) -> None:
        """Reads no more."""
        self._engine.do(lambda: self._session.stop(self._state, app_code=app_code))

    def wait_end(self, timeout: float = WAIT_S) -> m.StreamClosed:
        """Waits until the stream is over for the plugin; returns what it was told."""

        def take() -> m.StreamClosed | None:
            if self._state.closed is None and self._session.ended is not None:
                raise self._session.ended
            return self._state.closed

        return self._until(take, timeout)

    def _until(self, take: Callable[[], T | None], timeout: float, writer: State | None = None) -> T:
        result = self._engine.until(self._state, take, timeout, writer)
        if result is None:
            raise TimeoutError(f"nothing came within {timeout} s")
        return result


class _SocketStream(RemoteStream):
    """The far end of a detached stream."""

    def __init__(self, served: Served, state: State, protocol: str, sock: socket.socket) -> None:
        super().__init__(served, state, protocol)
        self._sock = sock
        self._received = 0
        self._sent = 0
        self._has_read_all = False
        self._has_closed = False

    def read(self, max_bytes: int = READ_BYTES, timeout: float = WAIT_S) -> bytes:
        self._sock.settimeout(timeout)
        try:
            data = self._sock.recv(max_bytes)
        except ConnectionError:
            data = b""
        if not data:
            if self._state.end is not None:
                raise StreamReset("the plugin reset the stream", code=self._state.end.code)
            self._has_read_all = True
            self._finish()
        self._received += len(data)
        return data

    def write(self, data: bytes, timeout: float = WAIT_S) -> None:
        self._sock.settimeout(timeout)
        self._sock.sendall(data)
        self._sent += len(data)

    def close_write(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        self._has_closed = True
        self._finish()

    def reset(self, app_code: int = 0, code: int = Code.APP) -> None:
        self._say(m.Cause.RESET_REMOTE, code, app_code)

    def _finish(self) -> None:
        if self._has_read_all and self._has_closed:
            self._say(m.Cause.FINISHED, 0, 0)

    def _say(self, cause: m.Cause, code: int, app_code: int) -> None:
        self._sock.close()
        closed = m.StreamClosed(self._state.id, cause, code, app_code, self._sent, self._received)
        self._engine.tell(lambda: self._session.close_detached(self._state, closed), self._state)


class RemoteFlow:
    """The far end of a datagram flow."""

    def __init__(self, served: Served, state: State, protocol: str) -> None:
        self.protocol = protocol
        self._served = served
        self._state = state

    def send_datagram(self, payload: bytes) -> None:
        """Sends without waiting."""
        self._served.engine.do(lambda: self._served.desk.session.send_datagram(self._state, payload))

    def read_datagram(self, timeout: float = WAIT_S) -> bytes:
        """The next datagram. Raises TimeoutError, StreamReset."""
        payload = self._served.engine.until(self._state, self._state.next_datagram, timeout)
        if payload is None:
            raise TimeoutError(f"no datagram within {timeout} s")
        return payload

    def reset(self) -> None:
        """Ends the flow."""
        self._served.engine.tell(lambda: self._served.desk.session.reset(self._state), self._state)


def far_end(served: Served, state: State, protocol: str, ticket: Ticket | None) -> RemoteStream:
    if ticket is None:
        return RemoteStream(served, state, protocol)
    if not ticket.attached.wait(TICKET_TTL_S) or ticket.sock is None:
        gone = m.StreamClosed(state.id, m.Cause.RESET_REMOTE, Code.TIMEOUT)
        served.engine.do(lambda: served.desk.session.close_detached(state, gone))
        raise error_of(Code.NOT_READY, "the plugin did not attach its socket in time")
    return _SocketStream(served, state, protocol, ticket.sock)


def join(near: RemoteStream | RemoteFlow, far: RemoteStream | RemoteFlow) -> None:
    """Carries bytes (or datagrams) and ends both ways until both are over."""
    if isinstance(near, RemoteStream) and isinstance(far, RemoteStream):
        back = threading.Thread(target=_pump, args=(far, near), name="fake-pump", daemon=True)
        back.start()
        _pump(near, far)
        back.join()
    elif isinstance(near, RemoteFlow) and isinstance(far, RemoteFlow):
        threading.Thread(target=_pump_flow, args=(far, near), name="fake-pump", daemon=True).start()
        _pump_flow(near, far)


def _pump(source: RemoteStream, sink: RemoteStream) -> None:
    try:
        while data := source.read(timeout=3600):
            sink.write(data, timeout=3600)
        sink.close_write()
    except (P2posError, OSError) as end:
        code = end.code if isinstance(end, P2posError) and end.code // 100 == 4 else Code.PLUGIN_GONE
        app_code = end.app_code if isinstance(end, P2posError) else 0
        for stream in (source, sink):
            with contextlib.suppress(P2posError, OSError):
                stream.reset(app_code, code)


def _pump_flow(source: RemoteFlow, sink: RemoteFlow) -> None:
    with contextlib.suppress(P2posError):
        while True:
            sink.send_datagram(source.read_datagram(timeout=3600))
    with contextlib.suppress(P2posError):
        sink.reset()
