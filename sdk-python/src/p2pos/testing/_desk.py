"""What a fake daemon answers by itself: registrations, contacts, events. Pure; the malformed vectors test it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from .. import messages as m
from ..codes import Code, hint_of
from ..errors import P2posError
from ..protocol import Answer, Changed, Ended, Notice, Request, Session


@dataclass(slots=True)
class LogLine:
    """One Log frame."""

    level: str
    text: str


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
