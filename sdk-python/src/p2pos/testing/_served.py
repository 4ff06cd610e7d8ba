"""One plugin's session with a fake daemon: answers its Opens, and offers it what peers open."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from .. import messages as m
from ..codes import Code, name_of
from ..engine import Engine
from ..errors import MisuseError, P2posError, PeerError, error_of
from ..protocol import Request, Session
from ._desk import Desk
from ._remote import RemoteFlow, RemoteStream, far_end

if TYPE_CHECKING:
    from . import FakeDaemon, FakePeer


class Served:
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
            handler(far_end(self, state, protocol, ticket))

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
        return far_end(self, state, protocol.name, ticket)

    def _take_answer(self, rid: int) -> m.Message | None:
        if rid not in self.desk.answers and self.desk.session.ended is not None:
            raise self.desk.session.ended
        return self.desk.answers.pop(rid, None)
