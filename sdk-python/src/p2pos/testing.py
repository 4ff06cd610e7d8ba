"""A daemon for tests of plugins: in this process, on a real socket, with remote peers that the test plays.

    with FakeDaemon() as daemon:
        bo = daemon.peer("bo")
        with sync.connect(daemon.launch()) as plugin:       # or start a program with env=daemon.env()
            plugin.register("/echo/1")
            threading.Thread(target=serve, args=(plugin,)).start()
            stream = bo.open("/echo/1")                     # bo's plugin opens a stream to ours
            stream.write(b"hi")
            assert stream.read_exactly(2) == b"hi"

`bo.serve("/chat/1", handler)` is the way out: the handler gets each stream that our plugin opens to bo, in a thread of
its own. `Network` joins several fake daemons, so that two plugins (or one plugin twice) talk to each other. What a
plugin did against the protocol stands in `daemon.faults`; leaving `with` raises it.

Everything here blocks and is safe from any thread; in asyncio tests call it through `asyncio.to_thread`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pathlib
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

from . import messages as m
from .codes import Code, hint_of, name_of
from .engine import Engine
from .errors import HandshakeRefused, MisuseError, P2posError, PeerError, StreamReset, error_of
from .handshake import NONCE_BYTES, VERSION, Acceptor, Opening, Secrets
from .launch import Launch
from .names import check_protocol_name, peer_id_of_key
from .protocol import Answer, Changed, Ended, Notice, Request, Role, Session, Settings
from .streams import Stream as State

__all__ = ["FakeDaemon", "FakePeer", "Network", "RemoteFlow", "RemoteStream", "fake_peer_id"]

WAIT_S = 10.0
"""Seconds that anything here waits at most, unless told: a test that hangs must end."""
HELLO_TIMEOUT_S = 5.0
TICKET_TTL_S = 10.0
READ_BYTES = 256 * 1024

T = TypeVar("T")
Handler = Callable[["RemoteStream"], None]
FlowHandler = Callable[["RemoteFlow"], None]

_LIMITS = m.Limits(1024 * 1024, 65536, 256 * 1024, 256, 64, 1024, 65536)


def fake_peer_id(name: str) -> str:
    """A PeerId made from a name: the same in every run."""
    return peer_id_of_key(hashlib.sha256(name.encode()).digest())


@dataclass(slots=True)
class Fault:
    """Something that a plugin did against the protocol."""

    plugin_id: str
    error: P2posError


@dataclass(slots=True)
class LogLine:
    """One Log frame."""

    level: str
    text: str


@dataclass(slots=True)
class _Ticket:
    """A detached stream that waits for its socket."""

    attached: threading.Event = field(default_factory=threading.Event)
    sock: socket.socket | None = None


class Desk:
    """The daemon's side of one session: answers what needs no network. Pure but for `hall`; the vectors test it."""

    def __init__(self, session: Session, hall: Hall, owner: object) -> None:
        self.session = session
        self.hall = hall
        self.owner = owner
        self.is_ready = False
        self.subscribed: list[int] = []
        self.seq = 0
        self.answers: dict[int, m.Message] = {}
        self.opens: list[Request] = []
        self.faults: list[P2posError] = []

    def pump(self) -> list[Hashable]:
        """Takes the session's events; returns the bells to ring."""
        bells: list[Hashable] = []
        while (event := self.session.poll_event()) is not None:
            if isinstance(event, Changed):
                bells.append(event.stream)
            elif isinstance(event, Answer):
                self.answers[event.rid] = event.body
                bells.append(event.rid)
            elif isinstance(event, Request):
                self._on_request(event)
                bells += ["hall", "opens"]
            elif isinstance(event, Notice):
                bells.append("hall")
            elif isinstance(event, Ended):
                if event.error.code // 100 == 1 and event.error.code != Code.SHUTTING_DOWN:
                    self.faults.append(event.error)
                self.hall.forget(self.owner)
                bells.append(None)
        return bells

    def _on_request(self, event: Request) -> None:
        body = event.body
        if isinstance(body, m.Open):
            self.opens.append(event)
        elif isinstance(body, m.Register):
            self._answer(event.rid, self.hall.register(self.owner, body.protocols))
        elif isinstance(body, m.Unregister):
            self._answer(event.rid, self.hall.unregister(self.owner, body.names))
        elif isinstance(body, m.ContactList):
            self.session.reply(event.rid, m.Contacts([m.Contact(p, n, True) for p, n in self.hall.contacts.items()]))
        elif isinstance(body, m.Subscribe):
            self._answer(event.rid, None)
            self._subscribe(list(body.kinds))
        else:
            if isinstance(body, m.Ready):
                self.is_ready = True
            elif isinstance(body, m.Log):
                most = self.session.settings.frame_bytes_in_max
                known = body.level in list(m.Level) and body.level != 0
                level = m.Level(body.level).name.lower() if known else "info"
                self.hall.logs.append(LogLine(level, body.text[:most]))
            elif isinstance(body, m.Status):
                self.hall.status = body.text
            self._answer(event.rid, None)

    def tell(self, kind: m.EventKind, what: str, peer: str) -> None:
        """An Event, if the plugin wants it."""
        if kind in self.subscribed:
            self.seq += 1
            self.session.notify(m.Event(self.seq, kind, 0, peer, self.hall.contacts.get(peer, ""), what))

    def _subscribe(self, kinds: list[int]) -> None:
        self.subscribed = kinds
        for peer in self.hall.contacts:
            self.tell(m.EventKind.CONTACT, "added", peer)
            self.tell(m.EventKind.PEER, "connected", peer)
            self.tell(m.EventKind.PATH, "loopback", peer)

    def _answer(self, rid: int, fault: tuple[Code, str] | None) -> None:
        if fault is None:
            self.session.reply(rid, m.Done())
            return
        code, message = fault
        error = m.Error(code, code.name, message, hint_of(code))
        if rid:
            self.session.reply(rid, error)
        else:
            self.session.notify(error)


class Hall:
    """What all plugins of one fake daemon share: registrations, contacts, what they said."""

    def __init__(self, protocols_max: int) -> None:
        self.contacts: dict[str, str] = {}
        self.protocols_max = protocols_max
        self.registered: dict[str, tuple[object, m.Protocol]] = {}
        self.logs: list[LogLine] = []
        self.status = ""

    def register(self, owner: object, protocols: Sequence[m.Protocol]) -> tuple[Code, str] | None:
        """All of them or none."""
        taken = [p.name for p in protocols if p.name in self.registered]
        if taken:
            return Code.ALREADY_REGISTERED, f"{taken[0]} is served already"
        held = sum(1 for holder, _ in self.registered.values() if holder is owner)
        if held + len(protocols) > self.protocols_max:
            return Code.LIMIT, f"{self.protocols_max} protocols at most"
        self.registered |= {p.name: (owner, p) for p in protocols}
        return None

    def unregister(self, owner: object, names: Sequence[str]) -> tuple[Code, str] | None:
        """All of them or none."""
        for name in names:
            if name not in self.registered or self.registered[name][0] is not owner:
                return Code.NOT_REGISTERED, f"{name} is not registered"
        for name in names:
            self.registered.pop(name, None)
        return None

    def forget(self, owner: object) -> None:
        """The plugin is gone."""
        for name in [name for name, (holder, _) in self.registered.items() if holder is owner]:
            del self.registered[name]


class FakeDaemon:
    """Serves plugins over a unix socket (or TCP) and plays their peers."""

    def __init__(
        self, *, tcp: bool = False, limits: m.Limits | None = None, name: str = "me", check_faults: bool = True
    ) -> None:
        self.peer_id = fake_peer_id(name)
        self.faults: list[Fault] = []
        self.secrets = Secrets(secret=secrets.token_bytes(32))
        self._limits = limits or _LIMITS
        self._check_faults = check_faults
        self._hall = Hall(self._limits.protocols_max)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._peers: dict[str, FakePeer] = {}
        self._sessions: list[_Served] = []
        self._launched: dict[str, str] = {}
        self._tickets: dict[bytes, _Ticket] = {}
        self._runs = 0
        self._dir = pathlib.Path(tempfile.mkdtemp(prefix="p2pos-"))
        self._listener, self.endpoint = self._listen(tcp)
        self._is_closed = False
        threading.Thread(target=self._accept_loop, name="fake-daemon", daemon=True).start()

    # --- starting plugins ---

    def launch(self, plugin_id: str = "test") -> Launch:
        """A launch with a fresh token, for `connect(launch)`."""
        return Launch.from_env(self.env(plugin_id))

    def env(self, plugin_id: str = "test", data_dir: str | os.PathLike[str] | None = None) -> dict[str, str]:
        """The environment of a plugin program: the present one, and the launch variables with a fresh token."""
        token = secrets.token_hex(32)
        with self._lock:
            self.secrets.tokens.add(token)
            self._launched[token] = plugin_id
        directory = pathlib.Path(data_dir) if data_dir is not None else self._dir / "data" / plugin_id
        directory.mkdir(parents=True, exist_ok=True)
        return dict(os.environ) | {
            "P2POS_ENDPOINT": self.endpoint,
            "P2POS_TOKEN": token,
            "P2POS_PLUGIN_ID": plugin_id,
            "P2POS_DATA_DIR": str(directory),
            "P2POS_PROTOCOL_VERSIONS": str(VERSION),
        }

    # --- peers ---

    def peer(self, petname: str, peer_id: str = "") -> FakePeer:
        """A contact that the test plays; made when it is named first."""
        with self._lock:
            if petname not in self._peers:
                peer = FakePeer(self, petname, peer_id or fake_peer_id(petname))
                self._peers[petname] = peer
                self._hall.contacts[peer.peer_id] = petname
                self._tell(m.EventKind.CONTACT, "added", peer.peer_id)
            return self._peers[petname]

    # --- looking ---

    @property
    def logs(self) -> list[LogLine]:
        """What the plugins logged."""
        return list(self._hall.logs)

    @property
    def status(self) -> str:
        """The last status line."""
        return self._hall.status

    def wait_for(self, what: Callable[[], T], timeout: float = WAIT_S) -> T:
        """Waits until `what()` is true. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while not (result := what()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout} s")
            time.sleep(0.005)
        return result

    def wait_registered(self, protocol: str, timeout: float = WAIT_S) -> None:
        """Waits until some plugin serves the protocol."""
        self.wait_for(lambda: protocol in self._hall.registered, timeout)

    def wait_ready(self, timeout: float = WAIT_S) -> None:
        """Waits until a plugin has said Ready."""
        self.wait_for(lambda: any(served.desk.is_ready for served in self._live()), timeout)

    # --- ending ---

    def ask_to_end(self, reason: str = "the test is over", deadline_ms: int = 5000) -> None:
        """Sends Shutdown to all plugins."""
        for served in self._live():
            served.engine.do(lambda served=served: served.desk.session.notify(m.Shutdown(deadline_ms, reason)))  # type: ignore[misc]

    def crash(self) -> None:
        """Closes every session with no word, as kill -9 of the daemon would; new ones are taken as before."""
        for served in self._live():
            served.engine.abandon()

    def close(self) -> None:
        """Ends everything. Raises the first fault of a plugin, unless made with check_faults=False."""
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for served in self._live():
            served.engine.close(0.2)
        for served in list(self._sessions):
            self._collect(served)
        shutil.rmtree(self._dir, ignore_errors=True)
        if self.faults and self._check_faults:
            raise self.faults[0].error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except P2posError:
            if error is None:
                raise

    # --- behind it ---

    def _listen(self, tcp: bool) -> tuple[socket.socket, str]:
        if tcp or not hasattr(socket, "AF_UNIX"):
            listener = socket.create_server(("127.0.0.1", 0))
            return listener, f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = self._dir / "plugin.sock"
        listener.bind(str(path))
        listener.listen(64)
        return listener, f"unix:{path}"

    def _accept_loop(self) -> None:
        while not self._is_closed:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._greet, args=(sock,), name="fake-daemon-hello", daemon=True).start()

    def _greet(self, sock: socket.socket) -> None:
        sock.settimeout(HELLO_TIMEOUT_S)
        acceptor = Acceptor(self.secrets, secrets.token_bytes(NONCE_BYTES))
        try:
            opening = None
            while opening is None:
                data = sock.recv(65536)
                if not data:
                    raise HandshakeRefused("it left before Hello", code=Code.PROTOCOL)
                with self._lock:
                    opening = acceptor.handle_input(data)
                if opening is None:
                    sock.sendall(acceptor.poll_transmit())
            self._welcome(sock, acceptor, opening)
        except HandshakeRefused as problem:
            self.faults.append(Fault("", problem))
            with contextlib.suppress(OSError):
                sock.sendall(acceptor.poll_transmit())
            sock.close()
        except OSError:
            sock.close()

    def _welcome(self, sock: socket.socket, acceptor: Acceptor, opening: Opening) -> None:
        if opening.hello is None:
            ticket = self._tickets.pop(opening.ticket, None)
            sock.sendall(m.encode_frame(m.Attached(), opening.rid))
            sock.settimeout(None)
            if ticket is not None:
                ticket.sock = sock
                ticket.attached.set()
            return
        with self._lock:
            self._runs += 1
            plugin_id = self._launched.get(opening.token, "tool")
            welcome = m.Welcome(
                version=VERSION,
                daemon="fake daemon",
                plugin_id=plugin_id,
                instance_id=f"{plugin_id}-{self._runs}",
                peer_id=self.peer_id,
                grants=["net.open:*", "net.accept:*"],
                limits=self._limits,
            )
        sock.sendall(m.encode_frame(welcome, opening.rid))
        settings = Settings.of(Role.DAEMON, opening.hello, welcome)
        session = Session(settings, time.monotonic(), acceptor.leftover())
        served = _Served(self, plugin_id, session, sock)
        with self._lock:
            self._sessions.append(served)
        served.start()

    def _live(self) -> list[_Served]:
        with self._lock:
            for served in [s for s in self._sessions if not s.engine.is_alive()]:
                self._collect(served)
                self._sessions.remove(served)
            return list(self._sessions)

    def _collect(self, served: _Served) -> None:
        self.faults += [Fault(served.plugin_id, error) for error in served.desk.faults]
        served.desk.faults.clear()

    def _tell(self, kind: m.EventKind, what: str, peer: str) -> None:
        for served in self._live():
            served.engine.do(lambda served=served: served.desk.tell(kind, what, peer))  # type: ignore[misc]

    def _peer_of(self, peer_id: str) -> FakePeer | None:
        return next((peer for peer in self._peers.values() if peer.peer_id == peer_id), None)

    def _holder(self, protocol: str) -> tuple[_Served, m.Protocol] | None:
        with self._lock:
            entry = self._hall.registered.get(protocol)
        if entry is None or not isinstance(entry[0], _Served):
            return None
        return entry[0], entry[1]

    def _new_ticket(self) -> tuple[bytes, _Ticket]:
        number, ticket = secrets.token_bytes(16), _Ticket()
        with self._lock:
            self._tickets[number] = ticket
            self.secrets.tickets.add(number)
        return number, ticket


class _Served:
    """One plugin's session: its desk, its engine, and a thread that answers its Opens."""

    def __init__(self, daemon: FakeDaemon, plugin_id: str, session: Session, sock: socket.socket) -> None:
        self.daemon = daemon
        self.plugin_id = plugin_id
        self.desk = Desk(session, daemon._hall, self)
        self.engine = Engine(sock, session, self.desk.pump, f"fake-{plugin_id}")

    def start(self) -> None:
        self.engine.start()
        threading.Thread(target=self._open_loop, name=f"fake-{self.plugin_id}-opens", daemon=True).start()

    def _open_loop(self) -> None:
        def take() -> Request | None:
            if self.desk.opens:
                return self.desk.opens.pop(0)
            if self.desk.session.ended is not None:
                raise self.desk.session.ended
            return None

        while True:
            try:
                request = self.engine.until("opens", take)
            except P2posError:
                return
            if request is not None:
                threading.Thread(target=self._open, args=(request,), name="fake-open", daemon=True).start()

    def _open(self, request: Request) -> None:
        body, state = request.body, request.stream
        if not isinstance(body, m.Open) or state is None:
            raise MisuseError("that is no Open")
        try:
            peer = self.daemon._peer_of(body.peer)
            if peer is None:
                raise error_of(Code.UNKNOWN, "no address of this peer is known")
            protocol, handler = peer.way(body)
        except P2posError as no:
            retry = int(no.retry_after * 1000)
            error = m.Error(no.code, name_of(no.code), str(no.args[0]), no.hint, retry, body.stream, list(no.details))
            self.engine.do(lambda: self.desk.session.reply(request.rid, error))
            return
        opened = m.Opened(body.stream, protocol, m.PathKind.LOOPBACK)
        ticket = None
        if body.kind == m.Kind.DATAGRAM:
            opened.datagram_max = 1200
        elif body.attachment == m.Attachment.SOCKET:
            opened.ticket, ticket = self.daemon._new_ticket()
        self.engine.do(lambda: self.desk.session.reply(request.rid, opened))
        if body.kind == m.Kind.DATAGRAM:
            handler(RemoteFlow(self, state, protocol))
            return
        with contextlib.suppress(P2posError, OSError):
            handler(_remote(self, state, protocol, ticket))

    def offer(self, peer: FakePeer, protocol: m.Protocol, timeout: float) -> RemoteStream | RemoteFlow:
        """A peer's plugin opens a stream to this plugin. Raises PeerError."""
        incoming = m.Incoming(
            peer=peer.peer_id,
            protocol=protocol.name,
            kind=protocol.kind or m.Kind.STREAM,
            path=m.PathKind.LOOPBACK,
            petname=peer.petname,
            is_contact=True,
        )
        ticket = None
        if protocol.kind == m.Kind.DATAGRAM:
            incoming.datagram_max = 1200
        elif protocol.attachment == m.Attachment.SOCKET:
            incoming.ticket, ticket = self.daemon._new_ticket()
        try:
            state, rid = self.engine.do(lambda: self.desk.session.open(incoming))
            answer = self.engine.until(rid, lambda: self._take_answer(rid), timeout)
        except PeerError:
            raise
        except P2posError as end:
            raise error_of(Code.NOT_READY, f"the plugin is gone: {end}") from end
        if isinstance(answer, m.Reject):
            code = answer.code if answer.code in (Code.REFUSED, Code.NOT_READY) else Code.REFUSED
            raise error_of(code, answer.reason or "refused")
        if not isinstance(answer, m.Accept):
            gone = m.StreamClosed(state.id, m.Cause.RESET_REMOTE, Code.PLUGIN_GONE)
            self.engine.do(lambda: self.desk.session.close_detached(state, gone))
            raise error_of(Code.NOT_READY, "the plugin did not accept in time")
        if state.is_flow:
            return RemoteFlow(self, state, protocol.name)
        return _remote(self, state, protocol.name, ticket)

    def _take_answer(self, rid: int) -> m.Message | None:
        if rid not in self.desk.answers and self.desk.session.ended is not None:
            raise self.desk.session.ended
        return self.desk.answers.pop(rid, None)


class FakePeer:
    """A remote person, played by the test."""

    def __init__(self, daemon: FakeDaemon, petname: str, peer_id: str) -> None:
        self.petname = petname
        self.peer_id = peer_id
        self.is_online = True
        self.refuses: P2posError | None = None
        """Set it to `error_of(...)` and every Open is answered with that."""
        self._daemon = daemon
        self.way: Callable[[m.Open], tuple[str, Callable[..., None]]] = self._answer
        """Who answers an Open to this peer, and with what; `Network` puts another daemon here."""
        self._handlers: dict[str, Handler | FlowHandler] = {}

    def serve(self, protocol: str, handler: Handler | FlowHandler) -> None:
        """Plays a plugin of this peer: the handler gets each stream in a thread of its own."""
        self._handlers[check_protocol_name(protocol)] = handler

    def open(self, protocol: str, timeout: float = WAIT_S) -> RemoteStream:
        """Opens a stream to the plugin under test, as this peer. Raises PeerError (304, 305, 306)."""
        stream = self._offer(protocol, timeout)
        if not isinstance(stream, RemoteStream):
            raise MisuseError(f"{protocol} is a datagram protocol: use open_flow")
        return stream

    def open_flow(self, protocol: str, timeout: float = WAIT_S) -> RemoteFlow:
        """Opens a datagram flow to the plugin under test."""
        flow = self._offer(protocol, timeout)
        if not isinstance(flow, RemoteFlow):
            raise MisuseError(f"{protocol} is a stream protocol: use open")
        return flow

    def go(self, *, online: bool) -> None:
        """Comes online or leaves; subscribed plugins are told, and new streams fail with 301."""
        self.is_online = online
        self._daemon._tell(m.EventKind.PEER, "connected" if online else "disconnected", self.peer_id)

    def _offer(self, protocol: str, timeout: float) -> RemoteStream | RemoteFlow:
        holder = self._daemon._holder(protocol)
        if holder is None:
            raise error_of(Code.PROTOCOL_NOT_SUPPORTED, f"no plugin serves {protocol}")
        return holder[0].offer(self, holder[1], timeout)

    def _answer(self, body: m.Open) -> tuple[str, Callable[..., None]]:
        if self.refuses is not None:
            raise self.refuses
        if not self.is_online:
            raise error_of(Code.OFFLINE, f"{self.petname} is offline")
        for protocol in body.protocols:
            if protocol in self._handlers:
                return protocol, self._handlers[protocol]
        served = sorted(self._handlers)
        raise error_of(Code.PROTOCOL_NOT_SUPPORTED, f"{self.petname} serves none of them", details=served)


class RemoteStream:
    """The far end of a stream: what the other side's plugin would hold."""

    def __init__(self, served: _Served, state: State, protocol: str) -> None:
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

    def __init__(self, served: _Served, state: State, protocol: str, sock: socket.socket) -> None:
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

    def __init__(self, served: _Served, state: State, protocol: str) -> None:
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


def _remote(served: _Served, state: State, protocol: str, ticket: _Ticket | None) -> RemoteStream:
    if ticket is None:
        return RemoteStream(served, state, protocol)
    if not ticket.attached.wait(TICKET_TTL_S) or ticket.sock is None:
        gone = m.StreamClosed(state.id, m.Cause.RESET_REMOTE, Code.TIMEOUT)
        served.engine.do(lambda: served.desk.session.close_detached(state, gone))
        raise error_of(Code.NOT_READY, "the plugin did not attach its socket in time")
    return _SocketStream(served, state, protocol, ticket.sock)


class Network:
    """Several fake daemons whose plugins reach each other, in this process.

    with Network("ana", "bo") as net:
        env_a, env_b = net["ana"].env("chat"), net["bo"].env("chat")
    """

    def __init__(self, *names: str) -> None:
        self._daemons = {name: FakeDaemon(name=name) for name in names}
        for here, daemon in self._daemons.items():
            for there, far in self._daemons.items():
                if here != there:
                    peer = daemon.peer(there, far.peer_id)
                    peer.way = self._way(far, here)

    def __getitem__(self, name: str) -> FakeDaemon:
        return self._daemons[name]

    def peer_id(self, name: str) -> str:
        """The PeerId of one of them."""
        return self._daemons[name].peer_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for daemon in self._daemons.values():
            daemon.__exit__(kind, error, trace)

    def _way(self, far: FakeDaemon, here: str) -> Callable[[m.Open], tuple[str, Callable[..., None]]]:
        """How a plugin's Open becomes an Incoming on the other side."""

        def answer(body: m.Open) -> tuple[str, Callable[..., None]]:
            peer = far.peer(here)
            for protocol in body.protocols:
                if far._holder(protocol) is not None:
                    return protocol, functools.partial(_join, far=peer._offer(protocol, WAIT_S))
            raise error_of(Code.NOT_READY, "no plugin serves it now")

        return answer


def _join(near: RemoteStream | RemoteFlow, far: RemoteStream | RemoteFlow) -> None:
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
