"""The session of a plugin under asyncio: connect, register, accept, open, and the waiting behind all calls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Hashable, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from .. import messages as m
from ..codes import Code
from ..errors import ConnectError, P2posError, RequestTimeout
from ..launch import CONNECT_TIMEOUT_S, Launch
from ..link import Link, attach, call
from ..plugin import (
    BELL_ALL,
    BELL_EVENTS,
    BELL_INCOMING,
    BELL_SHUTDOWN,
    HEALTHS,
    Desk,
    EventName,
    HealthName,
    LevelName,
    Offer,
    PeerEvent,
    Refuse,
    StreamInfo,
    TrustName,
    open_request,
    path_name,
    registrations,
    subscription,
)
from ..protocol import Role, Session, Settings
from ..streams import Stream as State
from ._streams import DetachedStream, Flow, Stream

__all__ = ["Plugin", "connect"]

CLOSE_LINGER_S = 1.0
"""Seconds that leaving `connect()` waits for what is still queued."""
STDIN_GRACE_S = 5.0
"""Seconds between the end of stdin and the end of the process, if the launch asks for it."""

T = TypeVar("T")
ResourceT = TypeVar("ResourceT", bound="Plugin | Stream | Flow | DetachedStream")


_Waiters = dict[Hashable, list["asyncio.Future[None]"]]


def _ring(table: _Waiters, bell: Hashable) -> None:
    """Wakes whoever waits for the bell."""
    for waiter in table.pop(bell, ()):
        if not waiter.done():
            waiter.set_result(None)


class _Pending(Generic[ResourceT]):
    """The result of `connect()` and `open()`: await it, or use it with `async with`."""

    def __init__(self, work: Awaitable[ResourceT]) -> None:
        self._work = work
        self._resource: ResourceT | None = None

    def __await__(self) -> Generator[Any, None, ResourceT]:
        return self._work.__await__()

    async def __aenter__(self) -> ResourceT:
        self._resource = await self._work
        await self._resource.__aenter__()
        return self._resource

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._resource is not None:
            await self._resource.__aexit__(kind, error, trace)


class _Accepting(Generic[ResourceT]):
    """The result of `accept()`: await it for one, or iterate until the daemon asks the plugin to end."""

    def __init__(self, plugin: Plugin, one: Callable[[], Coroutine[Any, Any, ResourceT]]) -> None:
        self._plugin = plugin
        self._one = one

    def __await__(self) -> Generator[Any, None, ResourceT]:
        return self._one().__await__()

    async def __aiter__(self) -> AsyncIterator[ResourceT]:
        end = asyncio.ensure_future(self._plugin.wait_shutdown())
        try:
            while True:
                one = asyncio.ensure_future(self._one())
                try:
                    await asyncio.wait((one, end), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not one.done():
                        one.cancel()
                if not one.done() or one.cancelled():
                    end.result()
                    return
                if one.exception() is not None and end.done():
                    end.result()
                    return
                yield one.result()
        finally:
            if not end.cancel() and not end.cancelled():
                end.exception()  # looked at, so that nobody warns that it was not


def connect(launch: Launch | None = None, *, timeout: float = CONNECT_TIMEOUT_S) -> _Pending[Plugin]:
    """Connects to the daemon that started this program. Raises LaunchError and ConnectError.

    `async with connect() as plugin:` closes the session at its end.
    """
    return _Pending(_connect(launch, timeout))


async def _connect(launch: Launch | None, timeout: float) -> Plugin:
    launch = launch or Launch.from_env()
    hello = launch.hello()

    def work() -> tuple[socket.socket, m.Welcome, bytes]:
        sock = launch.dial(timeout)
        try:
            return sock, *call(sock, launch, hello)
        except BaseException:
            sock.close()
            raise

    sock, welcome, leftover = await asyncio.to_thread(work)
    session = Session(Settings.of(Role.PLUGIN, hello, welcome), time.monotonic(), leftover)
    return Plugin(launch, Desk(session, welcome), Link(sock, session))


class Plugin:
    """The session with the daemon. Belongs to the event loop that made it; not thread-safe."""

    def __init__(self, launch: Launch, desk: Desk, link: Link) -> None:
        self.launch = launch
        self._desk = desk
        self._session = desk.session
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._waiters: _Waiters = {}
        self._write_waiters: _Waiters = {}
        self._flush_is_planned = False
        self._is_writing = False
        self._is_closed = False
        self._clock: asyncio.TimerHandle | None = None
        self._loop.add_reader(link.sock, self._on_readable)
        self._plan_clock()
        self._pump()
        if launch.exits_with_stdin:
            threading.Thread(target=self._watch_stdin, name="p2pos-stdin", daemon=True).start()

    # --- who we are ---

    @property
    def peer_id(self) -> str:
        """The user's own PeerId."""
        return self._desk.welcome.peer_id

    @property
    def plugin_id(self) -> str:
        """This plugin's id, as in its manifest."""
        return self._desk.welcome.plugin_id

    @property
    def grants(self) -> Sequence[str]:
        """What the user allowed."""
        return tuple(self._desk.welcome.grants)

    @property
    def complaints(self) -> Sequence[P2posError]:
        """The last errors that the daemon told without being asked."""
        return self._desk.complaints

    # --- serving ---

    async def register(
        self,
        *protocols: str,
        trust: TrustName = "contacts",
        concurrent_max: int = 0,
        datagrams: bool = False,
        detached: bool = False,
    ) -> None:
        """Serves protocols from now on: all of them or none. Raises AlreadyRegistered, PermissionDenied, ..."""
        kind = m.Kind.DATAGRAM if datagrams else m.Kind.STREAM
        body = registrations(protocols, kind=kind, trust=trust, concurrent_max=concurrent_max, detached=detached)
        await self._ask(body)

    async def unregister(self, *protocols: str) -> None:
        """Serves protocols no longer; streams that run go on."""
        await self._ask(m.Unregister(list(protocols)))

    def ready(self) -> None:
        """Tells that start-up is over. The first accept, open or wait_shutdown says it by itself."""
        self._desk.say_ready()
        self._plan_flush()

    def accept(self, protocol: str, *, refuse: Refuse | None = None) -> _Accepting[Stream | DetachedStream]:
        """Takes the next stream that a peer opens: `await` gives one, `async for` gives all until the shutdown.

        `refuse` may look at who comes and return the reason to refuse. An offer waits 10 s for its accept.
        """
        return _Accepting(self, lambda: self._accept_stream(protocol, refuse))

    def accept_flow(self, protocol: str, *, refuse: Refuse | None = None) -> _Accepting[Flow]:
        """The same for datagram flows."""
        return _Accepting(self, lambda: self._accept_flow(protocol, refuse))

    # --- asking ---

    def open(
        self,
        peer: str,
        protocol: str | Sequence[str],
        *,
        timeout: float | None = None,
        relay: bool = True,
    ) -> _Pending[Stream]:
        """Opens a stream to the peer's plugin. Of several protocols the peer takes the first that it serves.

        Raises PeerError (and which one tells what to do), PermissionDenied, LimitReached, RequestTimeout.
        """
        body = open_request(peer, protocol, kind=m.Kind.STREAM, timeout=timeout, relay=relay, detached=False)
        return _Pending(self._open_stream(body))

    def open_detached(
        self, peer: str, protocol: str | Sequence[str], *, timeout: float | None = None, relay: bool = True
    ) -> _Pending[DetachedStream]:
        """The same, but the stream gets a socket of its own: the fastest way, and other programs can take it over."""
        body = open_request(peer, protocol, kind=m.Kind.STREAM, timeout=timeout, relay=relay, detached=True)
        return _Pending(self._open_detached(body))

    def open_flow(
        self, peer: str, protocol: str | Sequence[str], *, timeout: float | None = None, relay: bool = True
    ) -> _Pending[Flow]:
        """Opens a datagram flow: unreliable messages, no order, no waiting."""
        body = open_request(peer, protocol, kind=m.Kind.DATAGRAM, timeout=timeout, relay=relay, detached=False)
        return _Pending(self._open_flow(body))

    async def contacts(self) -> list[m.Contact]:
        """The user's contacts: PeerId, petname, is_connected."""
        body = await self._ask(m.ContactList())
        return body.contacts if isinstance(body, m.Contacts) else []

    async def subscribe(self, *kinds: EventName) -> AsyncIterator[PeerEvent]:
        """Yields what is, then what changes: "peer", "contact", "path"; none means all. Iterate it in one place."""
        await self._ask(subscription(kinds))
        while True:
            yield await self._until(BELL_EVENTS, self._desk.take_event)

    def log(self, text: str, level: LevelName = "info") -> bool:
        """Writes one line into the plugin's log. Never waits; False: the queue was full and the line is lost."""
        done = self._desk.log_line(text, level)
        self._plan_flush()
        return done

    def status(self, health: HealthName, text: str = "") -> None:
        """Tells the user how it goes, in one line of `p2pos plugins list`."""
        self._session.notify(m.Status(HEALTHS[health], text))
        self._plan_flush()

    async def wait_shutdown(self) -> m.Shutdown:
        """Returns when the daemon (or the end of stdin) asks the plugin to end; `deadline_ms` says how soon.

        Raises SessionEnded if the session breaks in any other way.
        """
        self.ready()
        return await self._until(BELL_SHUTDOWN, self._desk.take_shutdown)

    async def aclose(self) -> None:
        """Ends the session; what was written still goes out, within a second."""
        if self._is_closed:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LINGER_S):
                # Rare, and at most a second.
                while self._session.ended is None and not self._link.flush():  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        self._session.close()
        self._link.flush()
        self._shut()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- behind the calls ---

    async def _accept_stream(self, protocol: str, refuse: Refuse | None) -> Stream | DetachedStream:
        self.ready()
        offer = await self._take_offer(protocol, refuse, is_flow=False)
        if offer.body.ticket:
            return await self._attach(offer.stream, offer.info, offer.body.ticket)
        return Stream(self, offer.stream, offer.info)

    async def _accept_flow(self, protocol: str, refuse: Refuse | None) -> Flow:
        self.ready()
        offer = await self._take_offer(protocol, refuse, is_flow=True)
        return Flow(self, offer.stream, offer.info)

    async def _take_offer(self, protocol: str, refuse: Refuse | None, *, is_flow: bool) -> Offer:
        def take() -> Offer | None:
            return self._desk.take_offer(protocol, refuse, is_flow=is_flow)

        return await self._until(BELL_INCOMING + protocol, take)

    async def _open_stream(self, body: m.Open) -> Stream:
        state, opened = await self._open(body)
        return Stream(self, state, StreamInfo(body.peer, opened.protocol, path_name(opened.path)))

    async def _open_flow(self, body: m.Open) -> Flow:
        state, opened = await self._open(body)
        return Flow(self, state, StreamInfo(body.peer, opened.protocol, path_name(opened.path)))

    async def _open_detached(self, body: m.Open) -> DetachedStream:
        state, opened = await self._open(body)
        info = StreamInfo(body.peer, opened.protocol, path_name(opened.path))
        return await self._attach(state, info, opened.ticket)

    async def _open(self, body: m.Open) -> tuple[State, m.Opened]:
        self.ready()
        state, rid = self._session.open(body)
        # The daemon keeps the deadline; the margin is for its answer.
        limit = body.timeout_ms / 1000 + 1 if body.timeout_ms else None
        answer = await self._answer(rid, limit)
        if not isinstance(answer, m.Opened):
            raise ConnectError(f"the daemon answered Open with {type(answer).__name__}")
        return state, answer

    async def _attach(self, state: State, info: StreamInfo, ticket: bytes) -> DetachedStream:
        def work() -> socket.socket:
            sock = self.launch.dial()
            try:
                attach(sock, ticket)
            except BaseException:
                sock.close()
                raise
            return sock

        try:
            sock = await asyncio.to_thread(work)
        except (P2posError, asyncio.CancelledError):
            self._session.reset(state)
            self._plan_flush()
            raise
        return DetachedStream(self, state, info, sock)

    async def _ask(self, body: m.Message) -> m.Message:
        return await self._answer(self._session.request(body), None)

    async def _answer(self, rid: int, limit: float | None) -> m.Message:
        self._plan_flush()
        try:
            async with asyncio.timeout(limit):
                return await self._until(rid, lambda: self._desk.take_answer(rid))
        except TimeoutError as late:
            self._session.cancel(rid)
            self._plan_flush()
            if isinstance(late, P2posError):
                raise
            raise RequestTimeout("the daemon did not answer in time", code=Code.TIMEOUT) from None
        except asyncio.CancelledError:
            self._session.cancel(rid)
            self._plan_flush()
            raise

    async def _until(self, bell: Hashable, take: Callable[[], T | None], *, is_write: bool = False) -> T:
        """Waits until `take()` gives something; it is tried at once and whenever the bell rings."""
        table = self._write_waiters if is_write else self._waiters
        while (result := take()) is None:
            waiter: asyncio.Future[None] = self._loop.create_future()
            table.setdefault(bell, []).append(waiter)
            # What take() did (credit, a refusal) must not wait for somebody else's flush.
            self._plan_flush()
            try:
                await waiter
            finally:
                waiters = table.get(bell, [])
                if waiter in waiters:
                    waiters.remove(waiter)
                if not waiters:
                    table.pop(bell, None)
        self._plan_flush()
        return result

    def _pump(self) -> None:
        bells = self._desk.pump()
        if BELL_ALL in bells:
            bells = [*self._waiters, *self._write_waiters]
        for bell in bells:
            _ring(self._waiters, bell)
            _ring(self._write_waiters, bell)

    def _plan_flush(self) -> None:
        """One flush for all that this turn of the loop wants to say: a lone write waits for nothing else."""
        if not self._flush_is_planned and not self._is_writing and self._session.has_output():
            self._flush_is_planned = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_planned = False
        if self._is_closed:
            return
        is_done = self._link.flush()
        if is_done and self._is_writing:
            self._loop.remove_writer(self._link.sock)
        elif not is_done and not self._is_writing:
            self._loop.add_writer(self._link.sock, self._on_writable)
        self._is_writing = not is_done
        self._wake_writers()
        if self._session.ended is not None and is_done:
            self._shut()

    def _on_writable(self) -> None:
        self._flush()

    def _wake_writers(self) -> None:
        """Room in the send buffers shows in no event: whoever waits to write looks again."""
        for bell in [bell for bell in self._write_waiters if isinstance(bell, State) and bell.credit > 0]:
            _ring(self._write_waiters, bell)

    def _on_readable(self) -> None:
        self._link.fill(time.monotonic())
        self._pump()
        if self._session.ended is not None:
            self._flush()
        else:
            self._plan_flush()

    def _plan_clock(self) -> None:
        delay = max(0.0, self._session.poll_timeout() - time.monotonic())
        self._clock = self._loop.call_later(delay, self._on_clock)

    def _on_clock(self) -> None:
        now = time.monotonic()
        if now >= self._session.poll_timeout():
            self._session.handle_timeout(now)
            self._pump()
            self._flush()
        if not self._is_closed:
            self._plan_clock()

    def _shut(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._link.sock)
        if self._is_writing:
            self._loop.remove_writer(self._link.sock)
        if self._clock is not None:
            self._clock.cancel()
        self._link.close()
        self._pump()

    def _watch_stdin(self) -> None:
        """In a thread of its own: the end of stdin means that whoever started us is gone."""
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass

        def tell() -> None:
            self._desk.ask_to_end("stdin was closed")
            _ring(self._waiters, BELL_SHUTDOWN)

        with contextlib.suppress(RuntimeError):  # the loop has ended: so has the program, nearly
            self._loop.call_soon_threadsafe(tell)
        time.sleep(STDIN_GRACE_S)
        os._exit(0)
