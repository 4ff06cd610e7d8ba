"""Which message may come from whom, and what a request must look like to be taken (SPEC.md sections 3 and 4). Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

from . import messages as m
from .errors import MisuseError
from .names import check_peer_id, check_protocol_name

__all__ = ["ANSWERS", "MAY_COME", "REQUESTS", "Role", "fault_of"]

OPEN_PROTOCOLS_MAX = 16
"""Names in one Open: a preference list, not a catalogue."""


class Role(enum.Enum):
    """Which end of the session we are."""

    PLUGIN = "plugin"
    DAEMON = "daemon"

    @property
    def other(self) -> Role:
        """The other end."""
        return Role.DAEMON if self is Role.PLUGIN else Role.PLUGIN


_BOTH: tuple[type[m.Message], ...] = (
    m.Data,
    m.Window,
    m.Datagram,
    m.Reset,
    m.StopSending,
    m.Ping,
    m.Pong,
    m.Error,
    m.GoAway,
    m.Done,
)
MAY_COME: dict[Role, frozenset[type[m.Message]]] = {
    Role.PLUGIN: frozenset((*_BOTH, m.StreamClosed, m.Opened, m.Incoming, m.Event, m.Contacts, m.Shutdown)),
    Role.DAEMON: frozenset(
        (
            *_BOTH,
            m.Open,
            m.Accept,
            m.Reject,
            m.Register,
            m.Unregister,
            m.Cancel,
            m.Ready,
            m.Status,
            m.Log,
            m.Subscribe,
            m.ContactList,
        )
    ),
}
"""After the handshake: what each role may receive. Anything else is 100 PROTOCOL."""

ANSWERS = frozenset((m.Opened, m.Done, m.Contacts, m.Error, m.Accept, m.Reject))
"""What carries the rid of a request back. (Pong is bookkeeping of its own.)"""

REQUESTS = frozenset(
    (m.Open, m.Incoming, m.Register, m.Unregister, m.Subscribe, m.ContactList, m.Ready, m.Status, m.Log)
)
"""What gets an answer if its rid is not 0."""


def fault_of(body: m.Message) -> str:
    """What is wrong with the values of a request; empty if nothing. The answer is then 200 BAD_REQUEST."""
    check = _CHECKS.get(type(body))
    if check is None:
        return ""
    try:
        check(body)
    except MisuseError as problem:
        return str(problem.args[0])
    return ""


def _check_open(body: m.Open) -> None:
    check_peer_id(body.peer)
    _require(bool(body.protocols), "Open needs one protocol at least")
    _require(len(body.protocols) <= OPEN_PROTOCOLS_MAX, f"Open takes {OPEN_PROTOCOLS_MAX} protocols at most")
    for name in body.protocols:
        check_protocol_name(name)
    _require(_known(body.kind, m.Kind) and _known(body.attachment, m.Attachment), "kind or attachment is unknown")
    _require(_known(body.relay, m.RelayUse), "relay is unknown")


def _check_register(body: m.Register) -> None:
    _require(bool(body.protocols), "Register needs one protocol at least")
    for protocol in body.protocols:
        check_protocol_name(protocol.name)
        _require(_known(protocol.kind, m.Kind), f"{protocol.name}: kind is unknown")
        _require(_known(protocol.trust, m.Trust), f"{protocol.name}: trust is unknown")
        _require(_known(protocol.attachment, m.Attachment), f"{protocol.name}: attachment is unknown")
    _require(len({p.name for p in body.protocols}) == len(body.protocols), "a protocol stands twice in the list")


def _check_unregister(body: m.Unregister) -> None:
    _require(bool(body.names), "Unregister needs one name at least")


def _check_subscribe(body: m.Subscribe) -> None:
    _require(all(_known(kind, m.EventKind) for kind in body.kinds), "an event kind is unknown")


_CHECKS: dict[type[m.Message], Callable[..., None]] = {
    m.Open: _check_open,
    m.Register: _check_register,
    m.Unregister: _check_unregister,
    m.Subscribe: _check_subscribe,
}


def _known(value: int, kind: Iterable[enum.IntEnum]) -> bool:
    return any(value == member for member in kind)


def _require(is_good: bool, message: str) -> None:
    if not is_good:
        raise MisuseError(message)
