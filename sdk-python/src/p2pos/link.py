"""Joins a session machine to a non-blocking socket: reads into its buffer, writes its batches vectored.

Both shells share it. It never waits and knows no threads and no event loop: the shell says when.
"""

from __future__ import annotations

import socket

from .codec import PREFIX_BYTES, decode_frame, encode_frame
from .errors import ConnectError, HandshakeRefused
from .handshake import HELLO_BYTES_MAX, Caller
from .launch import Launch
from .messages import Attach, Attached, Hello, Refused, Welcome
from .protocol import Session

__all__ = ["Link", "attach", "call"]

_IOV_MAX = 512
"""Buffers in one system call; Linux takes 1,024."""
_HAS_SENDMSG = hasattr(socket.socket, "sendmsg")


class Link:
    """Owns the socket and what of a batch the socket did not take yet."""

    def __init__(self, sock: socket.socket, session: Session) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.session = session
        self._batch: list[bytes | memoryview] = []

    def fill(self, now: float) -> None:
        """Reads once. An error of the socket counts as its end."""
        try:
            count = self.sock.recv_into(self.session.get_buffer())
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = 0
        if count:
            self.session.handle_received(count, now)
        else:
            self.session.handle_eof()

    def flush(self) -> bool:
        """Writes what the socket takes now. True: nothing is left; False: wait until it is writable."""
        while True:
            if not self._batch:
                self._batch = self.session.poll_transmit()
                if not self._batch:
                    return True
            try:
                sent = self._send()
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                # Broken: what the other side still said is read first; then its end shows as end of file.
                self._batch = []
                return True
            self._advance(sent)

    def close(self) -> None:
        """Closes the socket."""
        self.sock.close()

    def _send(self) -> int:
        if len(self._batch) == 1 or not _HAS_SENDMSG:
            return self.sock.send(self._batch[0])
        return self.sock.sendmsg(self._batch[:_IOV_MAX])

    def _advance(self, sent: int) -> None:
        index = 0
        for index, buffer in enumerate(self._batch):
            if sent < len(buffer):
                self._batch[index] = memoryview(buffer)[sent:]
                break
            sent -= len(buffer)
        else:
            index = len(self._batch)
        del self._batch[:index]


def call(sock: socket.socket, launch: Launch, hello: Hello) -> tuple[Welcome, bytes]:
    """Does the handshake on a socket with a timeout: (Welcome, what came behind it). Raises ConnectError."""
    caller = Caller(hello, launch.secret)
    try:
        while True:
            sock.sendall(caller.poll_transmit())
            data = sock.recv(65536)
            if not data:
                raise ConnectError("the daemon closed the connection during the handshake")
            welcome = caller.handle_input(data)
            if welcome is not None:
                return welcome, caller.leftover()
    except OSError as problem:
        raise ConnectError(f"the handshake broke off: {problem}") from problem


def attach(sock: socket.socket, ticket: bytes) -> None:
    """Turns a fresh socket (with a timeout) into the stream that the ticket stands for. Reads not a byte too many."""
    try:
        sock.sendall(encode_frame(Attach(ticket), 1))
        length = int.from_bytes(_read_exactly(sock, PREFIX_BYTES), "big")
        if length > HELLO_BYTES_MAX:
            raise ConnectError(f"the daemon answered Attach with {length} bytes")
        body = decode_frame(_read_exactly(sock, length))[1]
    except OSError as problem:
        raise ConnectError(f"attaching the stream broke off: {problem}") from problem
    if isinstance(body, Refused):
        raise HandshakeRefused(body.message or "the ticket was refused", code=body.code, hint=body.hint)
    if not isinstance(body, Attached):
        raise ConnectError("the daemon answered Attach with something else")


def _read_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ConnectError("the daemon closed the stream's socket")
        data += more
    return data
