"""What both shells know about being a plugin: requests, answers, the queues of things that came. Pure.

`Desk` sits on a Session: it sorts the session's events and says which bells to ring; the shells make waiting out of
that, `aio` with futures, `sync` with conditions. A bell is any hashable: a rid, a Stream, or one of the words below.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from . import messages as m
from .codes import Code
from .errors import MisuseError, P2posError, SessionEnded, error_of
from .names import check_peer_id, check_protocol_name
from .protocol import Answer, Changed, Ended, Notice, Request, Session
from .streams import Stream

__all__ = ["Closed", "Desk", "Offer", "PeerEvent", "Refuse", "StreamInfo", "open_request", "registrations"]

EVENTS_MAX = 1024
"""Events that wait for a program that does not take them; then the oldest go, and the next one tells how many."""

BELL_INCOMING = "incoming"
BELL_EVENTS = "events"
BELL_SHUTDOWN = "shutdown"
BELL_ALL = None
"""Rings everybody: the end of the session, or the wish for it, concerns every waiter."""

LevelName = Literal["debug", "info", "warn", "error"]
HealthName = Literal["ok", "degraded", "waiting-network"]
TrustName = Literal["contacts", "anyone"]
EventName = Literal["peer", "contact", "path"]

LEVELS: dict[str, m.Level] = {
    "debug": m.Level.DEBUG,
    "info": m.Level.INFO,
    "warn": m.Level.WARN,
    "error": m.Level.ERROR,
}
HEALTHS: dict[str, m.Health] = {
    "ok": m.Health.OK,
    "degraded": m.Health.DEGRADED,
    "waiting-network": m.Health.WAITING_NETWORK,
}
_EVENT_KINDS: dict[str, m.EventKind] = {
    "peer": m.EventKind.PEER,
    "contact": m.EventKind.CONTACT,
    "path": m.EventKind.PATH,
}


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Who is at the other end, and how it is reached."""

    peer: str
    """The other side's PeerId."""
    protocol: str
    """The protocol that both sides agreed on."""
    path: str
    """"direct", "lan", "loopback", "relayed" or "unknown", when it was opened."""
    petname: str = ""
    """The user's own name for the peer; empty if it is no contact, and on streams that we opened."""
    is_contact: bool = False


@dataclass(frozen=True, slots=True)
class Closed:
    """The daemon's last word about a stream: how it truly ended."""

    is_finished: bool
    """Both directions ended by close_write, and all bytes were handed over."""
    code: int
    app_code: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class PeerEvent:
    """Something changed; the kinds were chosen in `subscribe`."""

    kind: str
    """"peer", "contact" or "path"."""
    what: str
    """"connected", "disconnected"; "added", "renamed", "removed"; "direct", "lan", "loopback", "relayed"."""
    peer: str
    petname: str
    missed: int
    """Events lost just before this one, because the program did not take them."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A stream or flow that another plugin opened, not yet accepted."""

    rid: int
    body: m.Incoming
    stream: Stream

    @property
    def info(self) -> StreamInfo:
        """Who offers it."""
        body = self.body
        return StreamInfo(body.peer, body.protocol, path_name(body.path), body.petname, body.is_contact)


Refuse = Callable[[StreamInfo], str | None]
"""Decides about an incoming stream: None takes it, a text refuses it and is told to the other side."""


def path_name(path: int) -> str:
    """The path in a word."""
    known = path in (m.PathKind.DIRECT, m.PathKind.LAN, m.PathKind.LOOPBACK, m.PathKind.RELAYED)
    return m.PathKind(path).name.lower() if known else "unknown"


def open_request(
    peer: str,
    protocols: str | Sequence[str],
    *,
    kind: m.Kind,
    timeout: float | None,
    relay: bool,
    detached: bool,
) -> m.Open:
    """Makes an Open; its stream id comes later. Raises MisuseError for bad names."""
    names = [protocols] if isinstance(protocols, str) else list(protocols)
    if not names:
        raise MisuseError("open needs a protocol")
    return m.Open(
        peer=check_peer_id(peer),
        protocols=[check_protocol_name(name) for name in names],
        kind=kind,
        attachment=m.Attachment.SOCKET if detached else m.Attachment.MUX,
        timeout_ms=0 if timeout is None else max(1, int(timeout * 1000)),
        relay=m.RelayUse.RELAY_ALLOW if relay else m.RelayUse.RELAY_NEVER,
    )


def registrations(
    names: Sequence[str], *, kind: m.Kind, trust: TrustName, concurrent_max: int, detached: bool
) -> m.Register:
    """Makes a Register. Raises MisuseError for bad names."""
    if trust not in ("contacts", "anyone"):
        raise MisuseError(f'trust is "contacts" or "anyone", not {trust!r}')
    who = m.Trust.CONTACTS if trust == "contacts" else m.Trust.ANYONE
    attachment = m.Attachment.SOCKET if detached else m.Attachment.MUX
    return m.Register([m.Protocol(check_protocol_name(name), kind, who, concurrent_max, attachment) for name in names])


def subscription(kinds: Sequence[EventName]) -> m.Subscribe:
    """Makes a Subscribe; no kind means all."""
    unknown = [kind for kind in kinds if kind not in _EVENT_KINDS]
    if unknown:
        raise MisuseError(f"no such event kind: {unknown[0]!r}; there are {', '.join(_EVENT_KINDS)}")
    return m.Subscribe([_EVENT_KINDS[kind] for kind in kinds or _EVENT_KINDS])


def closed_facts(session: Session, stream: Stream) -> Closed | None:
    """How it ended, once that is known."""
    said = stream.closed
    if said is not None:
        is_finished = said.cause == m.Cause.FINISHED
        return Closed(is_finished, said.code, said.app_code, said.bytes_in, said.bytes_out)
    if session.ended is not None:
        return Closed(False, session.ended.code, 0, stream.bytes_in, stream.bytes_out)
    return None


class Desk:
    """Sorts what comes, for one plugin."""

    def __init__(self, session: Session, welcome: m.Welcome) -> None:
        self.session = session
        self.welcome = welcome
        self.shutdown: m.Shutdown | None = None
        self.is_ready = False
        self._answers: dict[int, m.Message] = {}
        self._offers: dict[str, deque[Offer]] = {}
        self._events: deque[m.Event] = deque()
        self._missed = 0
        self._complaints: deque[m.Error] = deque(maxlen=16)

    def pump(self) -> list[Hashable]:
        """Takes the session's events; returns the bells to ring."""
        bells: list[Hashable] = []
        while (event := self.session.poll_event()) is not None:
            if isinstance(event, Changed):
                bells.append(event.stream)
            elif isinstance(event, Answer):
                self._answers[event.rid] = event.body
                bells.append(event.rid)
            elif isinstance(event, Request):
                bells.append(self._on_request(event))
            elif isinstance(event, Notice):
                bells.append(self._on_notice(event.body))
            elif isinstance(event, Ended):
                bells.append(BELL_ALL)
        return bells

    def say_ready(self) -> None:
        """Start-up is over; said once."""
        if not self.is_ready:
            self.is_ready = True
            self.session.notify(m.Ready())

    def take_answer(self, rid: int) -> m.Message | None:
        """The answer of a request, or None if it is not there yet. Raises what the daemon or the session says."""
        body = self._answers.pop(rid, None)
        if body is None:
            if self.session.ended is not None:
                raise self.session.ended
            return None
        if isinstance(body, m.Error):
            raise error_of(
                body.code, body.message, hint=body.hint, details=body.details, retry_after_ms=body.retry_after_ms
            )
        return body

    def take_offer(self, protocol: str, refuse: Refuse | None, *, is_flow: bool) -> Offer | None:
        """Accepts the oldest offer that still stands. Raises SessionEnded."""
        queue = self._offers.get(protocol, deque())
        while queue and self.session.ended is None:
            offer = queue.popleft()
            if offer.stream.closed is not None or offer.stream.end is not None:
                continue
            reason = refuse(offer.info) if refuse is not None else None
            if reason is None and offer.stream.is_flow != is_flow:
                reason = "the plugin serves the other kind"
            if reason is not None:
                self.session.reply(offer.rid, m.Reject(offer.stream.id, Code.REFUSED, reason))
                continue
            self.session.reply(offer.rid, m.Accept(offer.stream.id))
            return offer
        if self.session.ended is not None:
            raise self.session.ended
        return None

    def take_event(self) -> PeerEvent | None:
        """The oldest event. Raises SessionEnded."""
        if not self._events:
            if self.session.ended is not None:
                raise self.session.ended
            return None
        event = self._events.popleft()
        missed, self._missed = self._missed + event.missed, 0
        known = event.kind in list(m.EventKind)
        kind = m.EventKind(event.kind).name.lower() if known else "unknown"
        return PeerEvent(kind, event.what, event.peer, event.petname, missed)

    def take_shutdown(self) -> m.Shutdown | None:
        """The daemon's wish to end, also told by its going away. Raises SessionEnded for any other end."""
        if self.shutdown is not None:
            return self.shutdown
        ended = self.session.ended
        if ended is None:
            return None
        if isinstance(ended, SessionEnded) and ended.code == Code.SHUTTING_DOWN:
            return m.Shutdown(0, str(ended.args[0]))
        raise ended

    def ask_to_end(self, reason: str) -> None:
        """The environment wants us to end (stdin was closed)."""
        if self.shutdown is None:
            self.shutdown = m.Shutdown(0, reason)

    def log_line(self, text: str, level: LevelName) -> bool:
        """Sends one line, cut to the limit. False: the queue is full and the line is lost."""
        if level not in LEVELS:
            raise MisuseError(f"no such level: {level!r}; there are {', '.join(LEVELS)}")
        limits = self.welcome.limits
        most = limits.log_line_bytes_max if limits and limits.log_line_bytes_max else 65536
        raw = text.encode("utf-8", "replace")
        if len(raw) > most:
            text = raw[: most - 3].decode("utf-8", "ignore") + "…"
        return self.session.notify(m.Log(LEVELS[level], text))

    def _on_request(self, event: Request) -> Hashable:
        body = event.body
        if not isinstance(body, m.Incoming) or event.stream is None:
            self.session.reply(event.rid, m.Error(Code.UNKNOWN_METHOD, Code.UNKNOWN_METHOD.name))
            return BELL_EVENTS
        offer = Offer(event.rid, body, event.stream)
        self._offers.setdefault(body.protocol, deque()).append(offer)
        return BELL_INCOMING + body.protocol

    def _on_notice(self, body: m.Message) -> Hashable:
        if isinstance(body, m.Event):
            self._events.append(body)
            if len(self._events) > EVENTS_MAX:
                self._missed += 1 + self._events.popleft().missed
        elif isinstance(body, m.Shutdown):
            self.shutdown = body
            return BELL_ALL
        elif isinstance(body, m.GoAway):
            self.shutdown = self.shutdown or m.Shutdown(0, body.reason)
            return BELL_ALL
        elif isinstance(body, m.Error):
            self._complaints.append(body)
        return BELL_EVENTS

    @property
    def complaints(self) -> Sequence[P2posError]:
        """The last few errors that the daemon told without being asked (for example datagrams too big)."""
        return [error_of(error.code, error.message, hint=error.hint) for error in self._complaints]
