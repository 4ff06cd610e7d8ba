"""One session run by one thread of its own, for programs that block: the engine under `sync` and `testing`.

The thread reads all the time and writes what a caller could not write at once. Callers take the lock, change the
machine, and try to write by themselves, so a lone message costs no thread switch. Waiting is a condition per bell, all
on the one lock. It knows sessions and sockets, and nothing of plugins.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Hashable
from typing import TypeVar

from .errors import SessionEnded
from .link import Link
from .protocol import Session
from .streams import Stream

__all__ = ["Engine"]

T = TypeVar("T")


class Engine:
    """Runs a session until its end.

    `pump` takes the session's events under the lock and returns the bells to ring; None among them rings all.
    """

    def __init__(self, sock: socket.socket, session: Session, pump: Callable[[], list[Hashable]], name: str) -> None:
        self.lock = threading.Lock()
        self.session = session
        self._pump = pump
        self._link = Link(sock, session)
        self._bells: dict[Hashable, threading.Condition] = {}
        self._writers: dict[Stream, int] = {}
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._has_backlog = False
        self._is_abandoned = False
        self._is_gone = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def do(self, work: Callable[[], T]) -> T:
        """Runs `work` under the lock, then writes what it made."""
        with self.lock:
            try:
                return work()
            finally:
                self._after()

    def tell(self, work: Callable[[], T], bell: Hashable) -> T:
        """Like `do`, and wakes whoever waits for `bell`."""
        with self.lock:
            try:
                return work()
            finally:
                self._after()
                self._ring([bell])

    def until(
        self, bell: Hashable, take: Callable[[], T | None], timeout: float | None = None, writer: Stream | None = None
    ) -> T | None:
        """Waits until `take()`, run under the lock, gives something; None after `timeout` seconds.

        `writer` marks a caller that waits for room in a stream's send buffer.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.lock:
            while True:
                try:
                    result = take()
                finally:
                    self._after()
                if result is not None:
                    return result
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                if writer is None or writer.credit == 0 or writer.pending_bytes:
                    self._wait(bell, left, writer)

    def close(self, linger: float = 1.0) -> None:
        """Ends the session, lets what is queued go out within `linger` seconds, and joins the thread."""
        deadline = time.monotonic() + linger
        while self.do(lambda: self._has_backlog and self.session.ended is None) and time.monotonic() < deadline:
            time.sleep(0.002)
        self.do(self.session.close)
        self._leave(max(0.05, deadline - time.monotonic()))

    def abandon(self) -> None:
        """Closes the socket with no word, as a killed process would."""
        with self.lock:
            self._is_abandoned = True
        self._leave(1.0)

    def is_alive(self) -> bool:
        """True until the socket is closed."""
        return not self._is_gone

    def _leave(self, timeout: float) -> None:
        self._wake()
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join(timeout)

    def _wait(self, bell: Hashable, timeout: float | None, writer: Stream | None) -> None:
        if self._is_gone:
            raise self.session.ended or SessionEnded("the session is over", code=105)
        condition = self._bells.get(bell)
        if condition is None:
            condition = self._bells[bell] = threading.Condition(self.lock)
        if writer is not None:
            self._writers[writer] = self._writers.get(writer, 0) + 1
        condition.wait(timeout)
        if writer is not None:
            self._writers[writer] -= 1
            if not self._writers[writer]:
                del self._writers[writer]

    def _after(self) -> None:
        """Under the lock, after every change: tell the waiting, and write."""
        self._ring(self._pump())
        if not self._has_backlog and not self._is_gone and self.session.has_output():
            self._flush()
            if self._has_backlog:
                self._wake()
        if self.session.ended is not None and not self._is_gone:
            self._wake()

    def _flush(self) -> None:
        self._has_backlog = not self._link.flush()
        if self._writers:
            self._ring([stream for stream in self._writers if stream.credit > 0])

    def _ring(self, bells: list[Hashable]) -> None:
        if None in bells:
            bells = list(self._bells)
        for bell in bells:
            condition = self._bells.pop(bell, None)
            if condition is not None:
                condition.notify_all()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_in.send(b"\0")

    def _run(self) -> None:
        sock = self._link.sock
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_out, selectors.EVENT_READ)
            selector.register(sock, selectors.EVENT_READ)
            while True:
                with self.lock:
                    if self._is_abandoned or (self.session.ended is not None and not self._has_backlog):
                        break
                    timeout = max(0.0, self.session.poll_timeout() - time.monotonic())
                    wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._has_backlog else 0)
                selector.modify(sock, wanted)
                ready = selector.select(timeout)
                self._turn({key.fileobj: events for key, events in ready})
        with self.lock:
            self._is_gone = True
            if self.session.ended is None:
                self.session.handle_eof()
            self._pump()
            self._link.close()
            for condition in self._bells.values():
                condition.notify_all()
            self._bells.clear()
        self._wake_in.close()
        self._wake_out.close()

    def _turn(self, ready: dict[object, int]) -> None:
        if self._wake_out in ready:
            self._wake_out.recv(4096)
        events = ready.get(self._link.sock, 0)
        with self.lock:
            now = time.monotonic()
            if events & selectors.EVENT_READ:
                self._link.fill(now)
            if now >= self.session.poll_timeout():
                self.session.handle_timeout(now)
            if events & selectors.EVENT_WRITE or self.session.ended is not None:
                self._flush()
            self._after()
