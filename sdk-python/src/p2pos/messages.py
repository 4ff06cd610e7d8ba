"""The messages of plugin.proto as plain values: their fields, with how each stands on the wire (SPEC.md section 3).

Holds shapes only; codec.py makes bytes of them, and a test compares them with the descriptor of the .proto.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "BODIES",
    "Accept",
    "Attach",
    "Attached",
    "Attachment",
    "AuthProof",
    "Cancel",
    "Cause",
    "Challenge",
    "Contact",
    "ContactList",
    "Contacts",
    "Data",
    "Datagram",
    "Done",
    "Error",
    "Event",
    "EventKind",
    "GoAway",
    "Health",
    "Hello",
    "Incoming",
    "Kind",
    "Level",
    "Limits",
    "Log",
    "Message",
    "Open",
    "Opened",
    "PathKind",
    "Ping",
    "Pong",
    "Protocol",
    "Ready",
    "Refused",
    "Register",
    "Reject",
    "RelayUse",
    "Reset",
    "Shape",
    "Shutdown",
    "Status",
    "StopSending",
    "StreamClosed",
    "Subscribe",
    "Trust",
    "Unregister",
    "Welcome",
    "Window",
    "Wire",
    "wires_of",
]


class Kind(enum.IntEnum):
    """What an Open asks for."""

    KIND_UNSPECIFIED = 0
    STREAM = 1
    DATAGRAM = 2


class Attachment(enum.IntEnum):
    """Whether a stream shares the session's socket or gets one of its own."""

    ATTACHMENT_UNSPECIFIED = 0
    MUX = 1
    SOCKET = 2


class RelayUse(enum.IntEnum):
    """Whether a relay may carry the stream."""

    RELAY_USE_UNSPECIFIED = 0
    RELAY_ALLOW = 1
    RELAY_NEVER = 2


class PathKind(enum.IntEnum):
    """How the bytes travel now."""

    PATH_KIND_UNSPECIFIED = 0
    DIRECT = 1
    LAN = 2
    LOOPBACK = 3
    RELAYED = 4


class Cause(enum.IntEnum):
    """How a stream ended."""

    CAUSE_UNSPECIFIED = 0
    FINISHED = 1
    RESET_LOCAL = 2
    RESET_REMOTE = 3


class Trust(enum.IntEnum):
    """Who may open a protocol."""

    TRUST_UNSPECIFIED = 0
    CONTACTS = 1
    ANYONE = 2


class Health(enum.IntEnum):
    """How the plugin feels."""

    HEALTH_UNSPECIFIED = 0
    OK = 1
    DEGRADED = 2
    WAITING_NETWORK = 3


class Level(enum.IntEnum):
    """How loud a log line is."""

    LEVEL_UNSPECIFIED = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4


class EventKind(enum.IntEnum):
    """What an Event is about."""

    EVENT_KIND_UNSPECIFIED = 0
    PEER = 1
    CONTACT = 2
    PATH = 3


# --- fields -----------------------------------------------------------------------------------------------------------


class Shape(enum.Enum):
    """The type of a field."""

    U32 = enum.auto()
    U64 = enum.auto()
    BOOL = enum.auto()
    ENUM = enum.auto()
    TEXT = enum.auto()
    BYTES = enum.auto()
    MESSAGE = enum.auto()


@dataclass(frozen=True, slots=True)
class Wire:
    """How one field stands on the wire."""

    number: int
    shape: Shape
    repeated: bool = False
    oneof: tuple[str, ...] = ()
    """The other members of its oneof."""
    enum_type: type[enum.IntEnum] | None = None
    message: Callable[[], type[Message]] | None = None


def _field(wire: Wire, default: Any) -> Any:
    metadata = {"wire": wire}
    if wire.repeated:
        return dataclasses.field(default_factory=list, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _u32(number: int) -> int:
    return _field(Wire(number, Shape.U32), 0)  # type: ignore[no-any-return]


def _u64(number: int) -> int:
    return _field(Wire(number, Shape.U64), 0)  # type: ignore[no-any-return]


def _bool(number: int) -> bool:
    return _field(Wire(number, Shape.BOOL), False)  # type: ignore[no-any-return]


def _enum(number: int, kind: type[enum.IntEnum]) -> int:
    return _field(Wire(number, Shape.ENUM, enum_type=kind), 0)  # type: ignore[no-any-return]


def _enums(number: int, kind: type[enum.IntEnum]) -> list[int]:
    return _field(Wire(number, Shape.ENUM, repeated=True, enum_type=kind), None)  # type: ignore[no-any-return]


def _text(number: int) -> str:
    return _field(Wire(number, Shape.TEXT), "")  # type: ignore[no-any-return]


def _texts(number: int) -> list[str]:
    return _field(Wire(number, Shape.TEXT, repeated=True), None)  # type: ignore[no-any-return]


def _bytes(number: int) -> bytes:
    return _field(Wire(number, Shape.BYTES), b"")  # type: ignore[no-any-return]


# --- messages ---------------------------------------------------------------------------------------------------------


class Message:
    """The base of all messages. They are plain values with defaults; see plugin.proto for the meaning of fields."""

    __slots__ = ()


@dataclass(slots=True)
class Data(Message):
    stream: int = _u32(1)
    payload: bytes = _bytes(2)
    fin: bool = _bool(3)


@dataclass(slots=True)
class Window(Message):
    stream: int = _u32(1)
    bytes: int = _u32(2)


@dataclass(slots=True)
class Datagram(Message):
    flow: int = _u32(1)
    payload: bytes = _bytes(2)


@dataclass(slots=True)
class Reset(Message):
    stream: int = _u32(1)
    code: int = _u32(2)
    app_code: int = _u32(3)


@dataclass(slots=True)
class StopSending(Message):
    stream: int = _u32(1)
    code: int = _u32(2)
    app_code: int = _u32(3)


@dataclass(slots=True)
class StreamClosed(Message):
    stream: int = _u32(1)
    cause: int = _enum(2, Cause)
    code: int = _u32(3)
    app_code: int = _u32(4)
    bytes_in: int = _u64(5)
    bytes_out: int = _u64(6)


@dataclass(slots=True)
class Open(Message):
    stream: int = _u32(1)
    peer: str = _text(2)
    protocols: list[str] = _texts(3)
    kind: int = _enum(4, Kind)
    attachment: int = _enum(5, Attachment)
    timeout_ms: int = _u32(6)
    relay: int = _enum(7, RelayUse)


@dataclass(slots=True)
class Opened(Message):
    stream: int = _u32(1)
    protocol: str = _text(2)
    path: int = _enum(3, PathKind)
    ticket: bytes = dataclasses.field(default=b"", repr=False, metadata={"wire": Wire(4, Shape.BYTES)})
    datagram_max: int = _u32(5)


@dataclass(slots=True)
class Incoming(Message):
    stream: int = _u32(1)
    peer: str = _text(2)
    protocol: str = _text(3)
    kind: int = _enum(4, Kind)
    path: int = _enum(5, PathKind)
    petname: str = _text(6)
    is_contact: bool = _bool(7)
    ticket: bytes = dataclasses.field(default=b"", repr=False, metadata={"wire": Wire(8, Shape.BYTES)})
    datagram_max: int = _u32(9)


@dataclass(slots=True)
class Accept(Message):
    stream: int = _u32(1)


@dataclass(slots=True)
class Reject(Message):
    stream: int = _u32(1)
    code: int = _u32(2)
    reason: str = _text(3)


@dataclass(slots=True)
class Ping(Message):
    nonce: int = _u64(1)


@dataclass(slots=True)
class Pong(Message):
    nonce: int = _u64(1)


@dataclass(slots=True)
class Error(Message):
    code: int = _u32(1)
    name: str = _text(2)
    message: str = _text(3)
    hint: str = _text(4)
    retry_after_ms: int = _u32(5)
    stream: int = _u32(6)
    details: list[str] = _texts(7)


@dataclass(slots=True)
class Hello(Message):
    magic: str = _text(1)
    min_version: int = _u32(2)
    max_version: int = _u32(3)
    features: list[str] = _texts(4)
    sdk: str = _text(5)
    # A secret: it must not show up in a log through repr().
    launch_token: str | None = dataclasses.field(
        default=None, repr=False, metadata={"wire": Wire(6, Shape.TEXT, oneof=("client_nonce",))}
    )
    client_nonce: bytes | None = dataclasses.field(
        default=None, metadata={"wire": Wire(7, Shape.BYTES, oneof=("launch_token",))}
    )
    frame_bytes_max: int = _u32(8)
    stream_window_bytes: int = _u32(9)
    auto_window: bool = _bool(10)


@dataclass(slots=True)
class Challenge(Message):
    server_nonce: bytes = _bytes(1)
    server_proof: bytes = _bytes(2)


@dataclass(slots=True)
class AuthProof(Message):
    client_proof: bytes = _bytes(1)


@dataclass(slots=True)
class Limits(Message):
    frame_bytes_max: int = _u32(1)
    data_bytes_max: int = _u32(2)
    stream_window_bytes: int = _u32(3)
    streams_max: int = _u32(4)
    protocols_max: int = _u32(5)
    requests_max: int = _u32(6)
    log_line_bytes_max: int = _u32(7)


@dataclass(slots=True)
class Welcome(Message):
    version: int = _u32(1)
    features: list[str] = _texts(2)
    daemon: str = _text(3)
    plugin_id: str = _text(4)
    instance_id: str = _text(5)
    peer_id: str = _text(6)
    grants: list[str] = _texts(7)
    limits: Limits | None = dataclasses.field(
        default=None, metadata={"wire": Wire(8, Shape.MESSAGE, message=lambda: Limits)}
    )


@dataclass(slots=True)
class Refused(Message):
    code: int = _u32(1)
    message: str = _text(2)
    hint: str = _text(3)
    min_version: int = _u32(4)
    max_version: int = _u32(5)


@dataclass(slots=True)
class Attach(Message):
    ticket: bytes = dataclasses.field(default=b"", repr=False, metadata={"wire": Wire(1, Shape.BYTES)})


@dataclass(slots=True)
class Attached(Message):
    pass


@dataclass(slots=True)
class Done(Message):
    pass


@dataclass(slots=True)
class Protocol(Message):
    name: str = _text(1)
    kind: int = _enum(2, Kind)
    trust: int = _enum(3, Trust)
    concurrent_max: int = _u32(4)
    attachment: int = _enum(5, Attachment)


@dataclass(slots=True)
class Register(Message):
    protocols: list[Protocol] = dataclasses.field(
        default_factory=list, metadata={"wire": Wire(1, Shape.MESSAGE, repeated=True, message=lambda: Protocol)}
    )


@dataclass(slots=True)
class Unregister(Message):
    names: list[str] = _texts(1)


@dataclass(slots=True)
class Cancel(Message):
    target: int = _u32(1)


@dataclass(slots=True)
class Ready(Message):
    pass


@dataclass(slots=True)
class Status(Message):
    health: int = _enum(1, Health)
    text: str = _text(2)


@dataclass(slots=True)
class Log(Message):
    level: int = _enum(1, Level)
    text: str = _text(2)


@dataclass(slots=True)
class Subscribe(Message):
    kinds: list[int] = _enums(1, EventKind)


@dataclass(slots=True)
class Event(Message):
    seq: int = _u64(1)
    kind: int = _enum(2, EventKind)
    missed: int = _u32(3)
    peer: str = _text(4)
    petname: str = _text(5)
    what: str = _text(6)


@dataclass(slots=True)
class ContactList(Message):
    pass


@dataclass(slots=True)
class Contact(Message):
    peer: str = _text(1)
    petname: str = _text(2)
    is_connected: bool = _bool(3)


@dataclass(slots=True)
class Contacts(Message):
    contacts: list[Contact] = dataclasses.field(
        default_factory=list, metadata={"wire": Wire(1, Shape.MESSAGE, repeated=True, message=lambda: Contact)}
    )


@dataclass(slots=True)
class GoAway(Message):
    code: int = _u32(1)
    reason: str = _text(2)


@dataclass(slots=True)
class Shutdown(Message):
    deadline_ms: int = _u32(1)
    reason: str = _text(2)


BODIES: dict[int, type[Message]] = {
    2: Data,
    3: Window,
    4: Datagram,
    5: Reset,
    6: StopSending,
    7: StreamClosed,
    8: Open,
    9: Opened,
    10: Incoming,
    11: Accept,
    12: Reject,
    13: Ping,
    14: Pong,
    15: Error,
    16: Hello,
    17: Welcome,
    18: Challenge,
    19: AuthProof,
    20: Refused,
    21: Attach,
    22: Attached,
    24: Done,
    25: Register,
    26: Unregister,
    27: Cancel,
    28: Ready,
    29: Status,
    30: Log,
    31: Subscribe,
    32: Event,
    33: ContactList,
    34: Contacts,
    35: GoAway,
    36: Shutdown,
}
"""Frame.body: field number -> message."""


def wires_of(message: type[Message]) -> list[tuple[str, Wire]]:
    """A message's fields in number order, which is also the order on the wire."""
    fields = dataclasses.fields(message)  # type: ignore[arg-type]
    return sorted(((f.name, f.metadata["wire"]) for f in fields), key=lambda item: item[1].number)
