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
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from .. import messages as m
from ..codec import encode_frame
from ..codes import Code
from ..errors import HandshakeRefused, MisuseError, P2posError, error_of
from ..handshake import NONCE_BYTES, VERSION, Acceptor, Opening, Secrets
from ..launch import Launch
from ..names import check_protocol_name, peer_id_of_key
from ..protocol import Role, Session, Settings
from ._desk import Hall, LogLine
from ._remote import WAIT_S, RemoteFlow, RemoteStream, Ticket, join
from ._served import Served

__all__ = ["FakeDaemon", "FakePeer", "Fault", "LogLine", "Network", "RemoteFlow", "RemoteStream", "fake_peer_id"]

HELLO_TIMEOUT_S = 5.0

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
        self._sessions: list[Served] = []
        self._launched: dict[str, str] = {}
        self._tickets: dict[bytes, Ticket] = {}
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
            sock.sendall(encode_frame(m.Attached(), opening.rid))
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
        sock.sendall(encode_frame(welcome, opening.rid))
        settings = Settings.of(Role.DAEMON, opening.hello, welcome)
        session = Session(settings, time.monotonic(), acceptor.leftover())
        served = Served(self, plugin_id, session, sock)
        with self._lock:
            self._sessions.append(served)
        served.start()

    def _live(self) -> list[Served]:
        with self._lock:
            for served in [s for s in self._sessions if not s.engine.is_alive()]:
                self._collect(served)
                self._sessions.remove(served)
            return list(self._sessions)

    def _collect(self, served: Served) -> None:
        self.faults += [Fault(served.plugin_id, error) for error in served.desk.faults]
        served.desk.faults.clear()

    def _tell(self, kind: m.EventKind, what: str, peer: str) -> None:
        for served in self._live():
            served.engine.do(lambda served=served: served.desk.tell(kind, what, peer))  # type: ignore[misc]

    def _peer_of(self, peer_id: str) -> FakePeer | None:
        return next((peer for peer in self._peers.values() if peer.peer_id == peer_id), None)

    def _holder(self, protocol: str) -> tuple[Served, m.Protocol] | None:
        with self._lock:
            entry = self._hall.registered.get(protocol)
        if entry is None or not isinstance(entry[0], Served):
            return None
        return entry[0], entry[1]

    def _new_ticket(self) -> tuple[bytes, Ticket]:
        number, ticket = secrets.token_bytes(16), Ticket()
        with self._lock:
            self._tickets[number] = ticket
            self.secrets.tickets.add(number)
        return number, ticket


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
                    return protocol, functools.partial(join, far=peer._offer(protocol, WAIT_S))
            raise error_of(Code.NOT_READY, "no plugin serves it now")

        return answer
