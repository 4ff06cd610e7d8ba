"""The SDK for programs that block, with threads.

    from p2pos import sync

    with sync.connect() as plugin:
        plugin.register("/echo/1")
        for stream in plugin.accept("/echo/1"):
            threading.Thread(target=echo, args=(stream,)).start()

    def echo(stream: sync.Stream) -> None:
        with stream:
            for chunk in stream:
                stream.write(chunk)

The twelve calls: connect, register, accept, open, read, write, close_write, reset, send_datagram, subscribe, log,
wait_shutdown. Every call is safe from any thread. One thread reads in the background, so a program that only writes
never blocks the session. `timeout` is in seconds; None waits for ever; too late is a TimeoutError.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from . import messages as m
from .codes import Code
from .engine import Engine
from .errors import ConnectError, MisuseError, P2posError, RequestTimeout, SessionEnded
from .launch import CONNECT_TIMEOUT_S, Launch
from .link import attach, call
from .plugin import (
    BELL_EVENTS,
    BELL_INCOMING,
    BELL_SHUTDOWN,
    HEALTHS,
    Closed,
    Desk,
    EventName,
    HealthName,
    LevelName,
    Offer,
    PeerEvent,
    Refuse,
    StreamInfo,
    TrustName,
    closed_facts,
    open_request,
    path_name,
    registrations,
    subscription,
)
from .protocol import Role, Session, Settings
from .streams import Stream as State

__all__ = ["DetachedStream", "Flow", "Launch", "Plugin", "Stream", "connect"]

READ_BYTES = 256 * 1024
"""What `read()` gives at most, if the caller does not say: a whole stream window."""
STDIN_GRACE_S = 5.0
"""Seconds between the end of stdin and the end of the process, if the launch asks for it."""

T = TypeVar("T")


def connect(launch: Launch | None = None, *, timeout: float = CONNECT_TIMEOUT_S) -> Plugin:
    """Connects to the daemon that started this program. Raises LaunchError and ConnectError."""
    launch = launch or Launch.from_env()
    hello = launch.hello()
    sock = launch.dial(timeout)
    try:
        welcome, leftover = call(sock, launch, hello)
        session = Session(Settings.of(Role.PLUGIN, hello, welcome), time.monotonic(), leftover)
        return Plugin(launch, Desk(session, welcome), sock)
    except BaseException:
        sock.close()
        raise


class Plugin:
    """The session with the daemon."""

    def __init__(self, launch: Launch, desk: Desk, sock: socket.socket) -> None:
        self.launch = launch
        self._desk = desk
        self._session = desk.session
        self._engine = Engine(sock, desk.session, desk.pump, "p2pos")
        self._engine.start()
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

    # --- serving ---

    def register(
        self,
        *protocols: str,
        trust: TrustName = "contacts",
        concurrent_max: int = 0,
        datagrams: bool = False,
        detached: bool = False,
    ) -> None:
        """Serves protocols from now on: all of them or none. Raises AlreadyRegistered, PermissionDenied, ..."""
        kind = m.Kind.DATAGRAM if datagrams else m.Kind.STREAM
        self._ask(registrations(protocols, kind=kind, trust=trust, concurrent_max=concurrent_max, detached=detached))

    def unregister(self, *protocols: str) -> None:
        """Serves protocols no longer; streams that run go on."""
        self._ask(m.Unregister(list(protocols)))

    def ready(self) -> None:
        """Tells that start-up is over. The first accept, open or wait_shutdown says it by itself."""
        self._engine.do(self._desk.say_ready)

    def accept(self, protocol: str, *, refuse: Refuse | None = None) -> _Accepting:
        """The streams that peers open, one after the other, until the shutdown; `.one(timeout)` takes a single one.

        `refuse` may look at who comes and return the reason to refuse. An offer waits 10 s for its accept.
        """
        self.ready()
        return _Accepting(self, protocol, refuse)

    def accept_flow(self, protocol: str, *, refuse: Refuse | None = None, timeout: float | None = None) -> Flow:
        """The next datagram flow that a peer opens."""
        self.ready()
        offer = self._take_offer(protocol, refuse, is_flow=True, timeout=timeout)
        return Flow(self, offer.stream, offer.info)

    # --- asking ---

    def open(
        self, peer: str, protocol: str | Sequence[str], *, timeout: float | None = None, relay: bool = True
    ) -> Stream:
        """Opens a stream to the peer's plugin. Of several protocols the peer takes the first that it serves.

        Raises PeerError (and which one tells what to do), PermissionDenied, LimitReached, RequestTimeout.
        """
        body = open_request(peer, protocol, kind=m.Kind.STREAM, timeout=timeout, relay=relay, detached=False)
        state, opened = self._open(body)
        return Stream(self, state, StreamInfo(body.peer, opened.protocol, path_name(opened.path)))

    def open_detached(
        self, peer: str, protocol: str | Sequence[str], *, timeout: float | None = None, relay: bool = True
    ) -> DetachedStream:
        """The same, but the stream gets a socket of its own: the fastest way, and other programs can take it over."""
        body = open_request(peer, protocol, kind=m.Kind.STREAM, timeout=timeout, relay=relay, detached=True)
        state, opened = self._open(body)
        return self._attach(state, StreamInfo(body.peer, opened.protocol, path_name(opened.path)), opened.ticket)

    def open_flow(
        self, peer: str, protocol: str | Sequence[str], *, timeout: float | None = None, relay: bool = True
    ) -> Flow:
        """Opens a datagram flow: unreliable messages, no order, no waiting."""
        body = open_request(peer, protocol, kind=m.Kind.DATAGRAM, timeout=timeout, relay=relay, detached=False)
        state, opened = self._open(body)
        return Flow(self, state, StreamInfo(body.peer, opened.protocol, path_name(opened.path)))

    def contacts(self) -> list[m.Contact]:
        """The user's contacts: PeerId, petname, is_connected."""
        body = self._ask(m.ContactList())
        return body.contacts if isinstance(body, m.Contacts) else []

    def subscribe(self, *kinds: EventName) -> Iterator[PeerEvent]:
        """Yields what is, then what changes: "peer", "contact", "path"; none means all. Iterate it in one thread."""
        self._ask(subscription(kinds))
        while True:
            yield self._until(BELL_EVENTS, self._desk.take_event, None)

    def log(self, text: str, level: LevelName = "info") -> bool:
        """Writes one line into the plugin's log. Never waits; False: the queue was full and the line is lost."""
        return self._engine.do(lambda: self._desk.log_line(text, level))

    def status(self, health: HealthName, text: str = "") -> None:
        """Tells the user how it goes, in one line of `p2pos plugins list`."""
        self._engine.do(lambda: self._session.notify(m.Status(HEALTHS[health], text)))

    def wait_shutdown(self, timeout: float | None = None) -> m.Shutdown:
        """Returns when the daemon (or the end of stdin) asks the plugin to end; `deadline_ms` says how soon.

        Raises SessionEnded if the session breaks in any other way.
        """
        self.ready()
        return self._until(BELL_SHUTDOWN, self._desk.take_shutdown, timeout)

    def close(self) -> None:
        """Ends the session; what was written still goes out, within a second."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- behind the calls ---

    def _take_offer(self, protocol: str, refuse: Refuse | None, *, is_flow: bool, timeout: float | None) -> Offer:
        def take() -> Offer | None:
            return self._desk.take_offer(protocol, refuse, is_flow=is_flow)

        return self._until(BELL_INCOMING + protocol, take, timeout)

    def _open(self, body: m.Open) -> tuple[State, m.Opened]:
        self.ready()
        state, rid = self._engine.do(lambda: self._session.open(body))
        # The daemon keeps the deadline; the margin is for its answer.
        answer = self._answer(rid, body.timeout_ms / 1000 + 1 if body.timeout_ms else None)
        if not isinstance(answer, m.Opened):
            raise ConnectError(f"the daemon answered Open with {type(answer).__name__}")
        return state, answer

    def _attach(self, state: State, info: StreamInfo, ticket: bytes) -> DetachedStream:
        sock = None
        try:
            sock = self.launch.dial()
            attach(sock, ticket)
        except P2posError:
            if sock is not None:
                sock.close()
            self._engine.do(lambda: self._session.reset(state))
            raise
        sock.settimeout(None)
        return DetachedStream(self, state, info, sock)

    def _ask(self, body: m.Message) -> m.Message:
        return self._answer(self._engine.do(lambda: self._session.request(body)), None)

    def _answer(self, rid: int, timeout: float | None) -> m.Message:
        answer = self._engine.until(rid, lambda: self._desk.take_answer(rid), timeout)
        if answer is None:
            self._engine.do(lambda: self._session.cancel(rid))
            raise RequestTimeout("the daemon did not answer in time", code=Code.TIMEOUT)
        return answer

    def _until(
        self, bell: Hashable, take: Callable[[], T | None], timeout: float | None, writer: State | None = None
    ) -> T:
        result = self._engine.until(bell, take, timeout, writer)
        if result is None:
            raise TimeoutError(f"nothing came within {timeout} s")
        return result

    def _watch_stdin(self) -> None:
        """In a thread of its own: the end of stdin means that whoever started us is gone."""
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        self._engine.tell(lambda: self._desk.ask_to_end("stdin was closed"), BELL_SHUTDOWN)
        time.sleep(STDIN_GRACE_S)
        os._exit(0)


class _Accepting:
    """The result of `accept()`."""

    def __init__(self, plugin: Plugin, protocol: str, refuse: Refuse | None) -> None:
        self._plugin = plugin
        self._protocol = protocol
        self._refuse = refuse

    def one(self, timeout: float | None = None) -> Stream | DetachedStream:
        """The next stream. Raises TimeoutError and SessionEnded."""
        offer = self._plugin._take_offer(self._protocol, self._refuse, is_flow=False, timeout=timeout)
        return self._made(offer)

    def __iter__(self) -> Iterator[Stream | DetachedStream]:
        desk = self._plugin._desk

        def take() -> tuple[Offer | None] | None:
            if desk.shutdown is not None:
                return (None,)
            offer = desk.take_offer(self._protocol, self._refuse, is_flow=False)
            return None if offer is None else (offer,)

        while True:
            try:
                (offer,) = self._plugin._until(BELL_INCOMING + self._protocol, take, None)
            except SessionEnded as end:
                if end.code == Code.SHUTTING_DOWN:
                    return
                raise
            if offer is None:
                return
            yield self._made(offer)

    def _made(self, offer: Offer) -> Stream | DetachedStream:
        if offer.body.ticket:
            return self._plugin._attach(offer.stream, offer.info, offer.body.ticket)
        return Stream(self._plugin, offer.stream, offer.info)


class Stream:
    """Bytes in order, both ways, to one plugin of one peer.

    `with` ends it well: it writes fin, and reads no more; after an exception it resets.
    """

    def __init__(self, plugin: Plugin, state: State, info: StreamInfo) -> None:
        self.info = info
        self._plugin = plugin
        self._engine = plugin._engine
        self._session = plugin._session
        self._state = state

    def __repr__(self) -> str:
        return f"<Stream {self._state.id} {self.info.protocol} {self.info.petname or self.info.peer[:12]}>"

    @property
    def peer(self) -> str:
        """The other side's PeerId."""
        return self.info.peer

    def read(self, max_bytes: int = READ_BYTES, timeout: float | None = None) -> bytes:
        """The next bytes, one at least; b"" once the other side has closed its writing. Raises StreamReset."""
        if max_bytes <= 0:
            raise MisuseError("read needs max_bytes of one at least")
        return self._plugin._until(self._state, lambda: self._session.read(self._state, max_bytes), timeout)

    def read_into(self, buffer: bytearray | memoryview, timeout: float | None = None) -> int:
        """Like `read`, into the caller's memory, with one copy less; 0 at the end."""
        room = memoryview(buffer)
        return self._plugin._until(self._state, lambda: self._session.read_into(self._state, room), timeout)

    def read_exactly(self, count: int, timeout: float | None = None) -> bytes:
        """Exactly `count` bytes. Raises EOFError if the other side closes before."""
        data = bytearray(count)
        have = 0
        while have < count:
            more = self.read_into(memoryview(data)[have:], timeout)
            if more == 0:
                raise EOFError(f"the other side closed after {have} of {count} bytes")
            have += more
        return bytes(data)

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read():
            yield chunk

    def write(self, data: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """Writes all; waits while the other side has no room. Raises StreamReset and StreamStopped.

        `bytes` are not copied on their way to the socket; other buffers are, once. After a TimeoutError a part may
        have been sent.
        """
        view = memoryview(data if isinstance(data, bytes) else bytes(data))
        state = self._state
        while len(view):
            rest = view
            count = self._plugin._until(state, lambda: self._session.write(state, rest) or None, timeout, state)  # noqa: B023
            view = view[count:]
        self._engine.do(state.capacity)  # an empty write, too, tells that the stream is over

    def close_write(self) -> None:
        """Writes no more (half close): the other side reads b"" after the last byte. Reading goes on."""
        self._engine.do(lambda: self._session.finish(self._state))

    def reset(self, app_code: int = 0) -> None:
        """Ends both directions at once, and tells the other side `app_code`."""
        self._engine.tell(lambda: self._session.reset(self._state, app_code=app_code), self._state)

    def stop(self, app_code: int = 0) -> None:
        """Reads no more: the other side's writing fails, ours goes on."""
        self._engine.do(lambda: self._session.stop(self._state, app_code=app_code))

    def wait_closed(self, timeout: float | None = None) -> Closed:
        """Waits for the daemon's last word: how the stream truly ended. Both directions must be ended by somebody."""
        return self._plugin._until(self._state, lambda: closed_facts(self._plugin._session, self._state), timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
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
        self._plugin._engine.do(lambda: self._plugin._session.send_datagram(self._state, bytes(payload)))

    def read_datagram(self, timeout: float | None = None) -> bytes:
        """The next datagram. Raises StreamReset when the flow ends."""
        return self._plugin._until(self._state, self._state.next_datagram, timeout)

    def reset(self, app_code: int = 0) -> None:
        """Ends the flow."""
        session, state = self._plugin._session, self._state
        self._plugin._engine.tell(lambda: session.reset(state, app_code=app_code), state)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reset()


class DetachedStream:
    """A stream with a socket of its own. End of file does not tell a good end from a bad one: ask `wait_closed`."""

    def __init__(self, plugin: Plugin, state: State, info: StreamInfo, sock: socket.socket) -> None:
        self.info = info
        self._plugin = plugin
        self._state = state
        self.sock = sock
        """The blocking socket; another program may take it over."""

    @property
    def peer(self) -> str:
        """The other side's PeerId."""
        return self.info.peer

    def read(self, max_bytes: int = READ_BYTES) -> bytes:
        """The next bytes; b"" at the end, good or bad."""
        try:
            return self.sock.recv(max_bytes)
        except ConnectionError:
            return b""

    def read_into(self, buffer: bytearray | memoryview) -> int:
        """Like `read`, into the caller's memory, which need not be made anew each time; 0 at the end, good or bad."""
        try:
            return self.sock.recv_into(buffer)
        except ConnectionError:
            return 0

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read():
            yield chunk

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Writes all. Raises ConnectionError when the other side has ended; `wait_closed` tells why."""
        self.sock.sendall(data)

    def close_write(self) -> None:
        """Writes no more (half close)."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self, app_code: int = 0) -> None:
        """Ends both directions at once."""
        session, state = self._plugin._session, self._state
        self._plugin._engine.tell(lambda: session.reset(state, app_code=app_code), state)
        self.sock.close()

    def wait_closed(self, timeout: float | None = None) -> Closed:
        """Waits for the daemon's last word: how the stream truly ended."""
        return self._plugin._until(self._state, lambda: closed_facts(self._plugin._session, self._state), timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.reset()
        else:
            self.close_write()
            self.sock.close()
