"""Streams, flows and detached streams under asyncio: what a program reads and writes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..errors import MisuseError
from ..plugin import Closed, StreamInfo, closed_facts
from ..streams import Stream as State

if TYPE_CHECKING:
    from ._plugin import Plugin

__all__ = ["DetachedStream", "Flow", "Stream"]

READ_BYTES = 256 * 1024
"""What `read()` gives at most, if the caller does not say: a whole stream window."""


class Stream:
    """Bytes in order, both ways, to one plugin of one peer.

    `async with` ends it well: it writes fin, and reads no more; after an exception it resets.
    """

    def __init__(self, plugin: Plugin, state: State, info: StreamInfo) -> None:
        self.info = info
        self._plugin = plugin
        self._state = state

    def __repr__(self) -> str:
        return f"<Stream {self._state.id} {self.info.protocol} {self.info.petname or self.info.peer[:12]}>"

    @property
    def peer(self) -> str:
        """The other side's PeerId."""
        return self.info.peer

    async def read(self, max_bytes: int = READ_BYTES) -> bytes:
        """The next bytes, one at least; b"" once the other side has closed its writing. Raises StreamReset."""
        if max_bytes <= 0:
            raise MisuseError("read needs max_bytes of one at least")
        session, state = self._plugin._session, self._state
        return await self._plugin._until(state, lambda: session.read(state, max_bytes))

    async def read_into(self, buffer: bytearray | memoryview) -> int:
        """Like `read`, into the caller's memory, with one copy less; 0 at the end."""
        session, state, room = self._plugin._session, self._state, memoryview(buffer)
        return await self._plugin._until(state, lambda: session.read_into(state, room))

    async def read_exactly(self, count: int) -> bytes:
        """Exactly `count` bytes. Raises asyncio.IncompleteReadError if the other side closes before."""
        data = bytearray(count)
        have = 0
        while have < count:
            more = await self.read_into(memoryview(data)[have:])
            if more == 0:
                raise asyncio.IncompleteReadError(bytes(data[:have]), count)
            have += more
        return bytes(data)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Writes all; waits while the other side has no room. Raises StreamReset and StreamStopped.

        `bytes` are not copied on their way to the socket; other buffers are, once.
        """
        view = memoryview(data if isinstance(data, bytes) else bytes(data))
        session, state = self._plugin._session, self._state
        while len(view):
            count = await self._plugin._until(state, lambda: session.write(state, view) or None, is_write=True)  # noqa: B023
            view = view[count:]
        state.capacity()  # an empty write, too, tells that the stream is over

    def close_write(self) -> None:
        """Writes no more (half close): the other side reads b"" after the last byte. Reading goes on."""
        self._plugin._session.finish(self._state)
        self._plugin._plan_flush()

    def reset(self, app_code: int = 0) -> None:
        """Ends both directions at once, and tells the other side `app_code`."""
        self._plugin._session.reset(self._state, app_code=app_code)
        self._plugin._pump()
        self._plugin._plan_flush()

    def stop(self, app_code: int = 0) -> None:
        """Reads no more: the other side's writing fails, ours goes on."""
        self._plugin._session.stop(self._state, app_code=app_code)
        self._plugin._plan_flush()

    async def wait_closed(self) -> Closed:
        """Waits for the daemon's last word: how the stream truly ended. Both directions must be ended by somebody."""
        session, state = self._plugin._session, self._state
        return await self._plugin._until(state, lambda: closed_facts(session, state))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.reset()
            return
        self.close_write()
        if not self._state.fin_received:
            self.stop()


class Flow:
    """Unreliable messages to one plugin of one peer: each arrives whole or not at all."""

    def __init__(self, plugin: Plugin, state: State, info: StreamInfo) -> None:
        self.info = info
        self._plugin = plugin
        self._state = state

    @property
    def peer(self) -> str:
        """The other side's PeerId."""
        return self.info.peer

    @property
    def datagram_max(self) -> int:
        """Bytes that one datagram may have on the path of now."""
        return self._state.datagram_max

    @property
    def dropped(self) -> int:
        """Datagrams that had no room in the queues of this side."""
        return self._state.datagrams_dropped

    def send_datagram(self, payload: bytes) -> None:
        """Sends without waiting; too big is RequestFailed 210. The oldest in the queue may make room."""
        self._plugin._session.send_datagram(self._state, bytes(payload))
        self._plugin._plan_flush()

    async def read_datagram(self) -> bytes:
        """The next datagram. Raises StreamReset when the flow ends."""
        return await self._plugin._until(self._state, self._state.next_datagram)

    def reset(self, app_code: int = 0) -> None:
        """Ends the flow."""
        self._plugin._session.reset(self._state, app_code=app_code)
        self._plugin._pump()
        self._plugin._plan_flush()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reset()


class DetachedStream:
    """A stream with a socket of its own. End of file does not tell a good end from a bad one: ask `wait_closed`."""

    def __init__(self, plugin: Plugin, state: State, info: StreamInfo, sock: socket.socket) -> None:
        self.info = info
        self._plugin = plugin
        self._state = state
        self._sock = sock
        sock.setblocking(False)

    @property
    def peer(self) -> str:
        """The other side's PeerId."""
        return self.info.peer

    @property
    def sock(self) -> socket.socket:
        """The non-blocking socket; another program may take it over."""
        return self._sock

    async def read(self, max_bytes: int = READ_BYTES) -> bytes:
        """The next bytes; b"" at the end, good or bad."""
        try:
            return await self._plugin._loop.sock_recv(self._sock, max_bytes)
        except ConnectionError:
            return b""

    async def read_into(self, buffer: bytearray | memoryview) -> int:
        """Like `read`, into the caller's memory, which need not be made anew each time; 0 at the end, good or bad."""
        try:
            return await self._plugin._loop.sock_recv_into(self._sock, buffer)
        except ConnectionError:
            return 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Writes all. Raises ConnectionError when the other side has ended; `wait_closed` tells why."""
        await self._plugin._loop.sock_sendall(self._sock, data)

    def close_write(self) -> None:
        """Writes no more (half close)."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def reset(self, app_code: int = 0) -> None:
        """Ends both directions at once."""
        self._plugin._session.reset(self._state, app_code=app_code)
        self._plugin._plan_flush()
        self._sock.close()

    async def wait_closed(self) -> Closed:
        """Waits for the daemon's last word: how the stream truly ended."""
        session, state = self._plugin._session, self._state
        return await self._plugin._until(state, lambda: closed_facts(session, state))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.reset()
        else:
            self.close_write()
            self._sock.close()
