"""The messages of plugin.proto, and their bytes: a codec driven by the field tables below.

It knows the protobuf wire and nothing else: no sockets, no meaning. Why not the protobuf runtime: plugins of a fresh
checkout must run without any pip install, and a frame with a known field of the wrong wire type must be refused
(SPEC.md [S-MSG-4]), which the runtime skips in silence. `_pb/plugin_pb2.py` is the official generated code; the tests
prove that both agree on every golden vector and on random messages. The hot Data frame has a path of its own in
protocol.py, which falls back to this one.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import WireError

__all__ = [
    "BODIES",
    "PREFIX_BYTES",
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
    "Shutdown",
    "Status",
    "StopSending",
    "StreamClosed",
    "Subscribe",
    "Trust",
    "Unregister",
    "Welcome",
    "Window",
    "decode_frame",
    "encode_frame",
    "encode_varint",
    "read_varint",
]

PREFIX_BYTES = 4
"""Bytes of the length before every frame."""


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


class _Shape(enum.Enum):
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
    shape: _Shape
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
    return _field(Wire(number, _Shape.U32), 0)  # type: ignore[no-any-return]


def _u64(number: int) -> int:
    return _field(Wire(number, _Shape.U64), 0)  # type: ignore[no-any-return]


def _bool(number: int) -> bool:
    return _field(Wire(number, _Shape.BOOL), False)  # type: ignore[no-any-return]


def _enum(number: int, kind: type[enum.IntEnum]) -> int:
    return _field(Wire(number, _Shape.ENUM, enum_type=kind), 0)  # type: ignore[no-any-return]


def _enums(number: int, kind: type[enum.IntEnum]) -> list[int]:
    return _field(Wire(number, _Shape.ENUM, repeated=True, enum_type=kind), None)  # type: ignore[no-any-return]


def _text(number: int) -> str:
    return _field(Wire(number, _Shape.TEXT), "")  # type: ignore[no-any-return]


def _texts(number: int) -> list[str]:
    return _field(Wire(number, _Shape.TEXT, repeated=True), None)  # type: ignore[no-any-return]


def _bytes(number: int) -> bytes:
    return _field(Wire(number, _Shape.BYTES), b"")  # type: ignore[no-any-return]


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
    ticket: bytes = dataclasses.field(default=b"", repr=False, metadata={"wire": Wire(4, _Shape.BYTES)})
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
    ticket: bytes = dataclasses.field(default=b"", repr=False, metadata={"wire": Wire(8, _Shape.BYTES)})
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
        default=None, repr=False, metadata={"wire": Wire(6, _Shape.TEXT, oneof=("client_nonce",))}
    )
    client_nonce: bytes | None = dataclasses.field(
        default=None, metadata={"wire": Wire(7, _Shape.BYTES, oneof=("launch_token",))}
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
        default=None, metadata={"wire": Wire(8, _Shape.MESSAGE, message=lambda: Limits)}
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
    ticket: bytes = dataclasses.field(default=b"", repr=False, metadata={"wire": Wire(1, _Shape.BYTES)})


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
        default_factory=list, metadata={"wire": Wire(1, _Shape.MESSAGE, repeated=True, message=lambda: Protocol)}
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
        default_factory=list, metadata={"wire": Wire(1, _Shape.MESSAGE, repeated=True, message=lambda: Contact)}
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

# --- the codec --------------------------------------------------------------------------------------------------------

_VARINT, _FIXED64, _LEN, _FIXED32 = 0, 1, 2, 5
_U64_MASK = (1 << 64) - 1
_U32_MASK = (1 << 32) - 1
_VARINT_SHAPES = frozenset({_Shape.U32, _Shape.U64, _Shape.BOOL, _Shape.ENUM})


def wires_of(message: type[Message]) -> list[tuple[str, Wire]]:
    """A message's fields in number order, which is also the order on the wire."""
    fields = dataclasses.fields(message)  # type: ignore[arg-type]
    return sorted(((f.name, f.metadata["wire"]) for f in fields), key=lambda item: item[1].number)


_ENCODERS: dict[type[Message], list[tuple[str, Wire]]] = {}
_DECODERS: dict[type[Message], dict[int, tuple[str, Wire]]] = {}


def _prepare() -> None:
    for message in [*BODIES.values(), Limits, Protocol, Contact]:
        _ENCODERS[message] = wires_of(message)
        _DECODERS[message] = {wire.number: (name, wire) for name, wire in _ENCODERS[message]}


_prepare()
_NUMBERS: dict[type[Message], int] = {message: number for number, message in BODIES.items()}


def encode_varint(value: int) -> bytes:
    """Base 128, low group first, as short as can be. `value` must be in 0..2^64-1."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(buffer: bytes | bytearray | memoryview, at: int, end: int) -> tuple[int, int]:
    """Returns the number and the place behind it. Raises WireError if it is cut or has more than ten bytes."""
    value = shift = 0
    while at < end:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _U64_MASK, at
        shift += 7
        if shift > 63:
            raise WireError("a varint has more than 10 bytes")
    raise WireError("the message is cut within a varint")


def encode_frame(body: Message, rid: int = 0) -> bytes:
    """One frame with its length, in canonical form: fields in number order, defaults left out."""
    inner = _encode(body)
    head = b"\x08" + encode_varint(rid) if rid else b""
    message = head + encode_varint(_NUMBERS[type(body)] << 3 | _LEN) + encode_varint(len(inner)) + inner
    return len(message).to_bytes(PREFIX_BYTES, "big") + message


def decode_frame(message: bytes) -> tuple[int, Message | None]:
    """Returns rid and body of a frame without its length; the body is None if no known one is in it.

    Raises WireError if the bytes break a rule of SPEC.md section 3.
    """
    rid = 0
    body: Message | None = None
    at, end = 0, len(message)
    while at < end:
        tag, at = read_varint(message, at, end)
        number = tag >> 3
        kind = BODIES.get(number)
        if kind is not None:
            start, at = _span(message, at, end, tag)
            # A body that comes in parts is merged; another one takes its place.
            body = body if type(body) is kind else kind()
            _decode_into(body, message, start, at)
        elif number == 1:
            if tag & 7 != _VARINT:
                raise WireError("rid is no varint")
            value, at = read_varint(message, at, end)
            rid = value & _U32_MASK
        else:
            at = _skip(message, at, end, tag)
    return rid, body


def _encode(message: Message) -> bytes:
    out: list[bytes] = []
    for name, wire in _ENCODERS[type(message)]:
        value = getattr(message, name)
        if wire.repeated and wire.shape is _Shape.ENUM:
            if value:
                packed = b"".join(_varint_of(wire, item) for item in value)
                out += (encode_varint(wire.number << 3 | _LEN), encode_varint(len(packed)), packed)
        elif wire.repeated:
            for item in value:
                _encode_one(out, wire, item)
        elif value is not None and (value or wire.oneof or wire.shape is _Shape.MESSAGE):
            _encode_one(out, wire, value)
    return b"".join(out)


def _encode_one(out: list[bytes], wire: Wire, value: Any) -> None:
    if wire.shape in _VARINT_SHAPES:
        out += (encode_varint(wire.number << 3 | _VARINT), _varint_of(wire, value))
        return
    raw: bytes
    if wire.shape is _Shape.TEXT:
        raw = value.encode()
    elif wire.shape is _Shape.MESSAGE:
        raw = _encode(value)
    else:
        raw = bytes(value)
    out += (encode_varint(wire.number << 3 | _LEN), encode_varint(len(raw)), raw)


def _varint_of(wire: Wire, value: int) -> bytes:
    most = _U64_MASK if wire.shape is _Shape.U64 else _U32_MASK
    if not 0 <= value <= most:
        raise WireError(f"field {wire.number}: {value} is not within 0..{most}")
    return encode_varint(value)


def _decode_into(message: Message, buffer: bytes, at: int, end: int) -> None:
    table = _DECODERS[type(message)]
    while at < end:
        tag, at = read_varint(buffer, at, end)
        entry = table.get(tag >> 3)
        if entry is None:
            at = _skip(buffer, at, end, tag)
            continue
        name, wire = entry
        if wire.shape in _VARINT_SHAPES:
            at = _decode_number(message, name, wire, (buffer, at, end, tag))
            continue
        start, at = _span(buffer, at, end, tag)
        _decode_bytes(message, name, wire, (buffer, start, at))


def _decode_number(message: Message, name: str, wire: Wire, place: tuple[bytes, int, int, int]) -> int:
    buffer, at, end, tag = place
    if tag & 7 == _LEN and wire.repeated:
        at, stop = _span(buffer, at, end, tag)
        while at < stop:
            value, at = read_varint(buffer, at, stop)
            getattr(message, name).append(_number(wire, value))
        return stop
    if tag & 7 != _VARINT:
        raise WireError(f"{type(message).__name__}.{name} is no varint")
    value, at = read_varint(buffer, at, end)
    if wire.repeated:
        getattr(message, name).append(_number(wire, value))
    else:
        setattr(message, name, _number(wire, value))
    return at


def _number(wire: Wire, value: int) -> int:
    if wire.shape is _Shape.U64:
        return value
    if wire.shape is _Shape.BOOL:
        return value != 0
    value &= _U32_MASK
    if wire.shape is _Shape.ENUM and value >> 31:
        return value - (1 << 32)
    return value


def _decode_bytes(message: Message, name: str, wire: Wire, span: tuple[bytes, int, int]) -> None:
    buffer, start, end = span
    value: Any
    if wire.shape is _Shape.TEXT:
        try:
            value = buffer[start:end].decode()
        except UnicodeDecodeError:
            raise WireError(f"{type(message).__name__}.{name} is not UTF-8") from None
    elif wire.message is not None:
        previous = None if wire.repeated else getattr(message, name)
        value = previous if previous is not None else wire.message()()
        _decode_into(value, buffer, start, end)
    else:
        value = buffer[start:end]
    if wire.repeated:
        getattr(message, name).append(value)
        return
    setattr(message, name, value)
    for other in wire.oneof:
        setattr(message, other, None)


def _span(buffer: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    if tag & 7 != _LEN:
        raise WireError(f"field {tag >> 3} is not length-delimited")
    length, at = read_varint(buffer, at, end)
    if length > end - at:
        raise WireError(f"field {tag >> 3} reaches out of its message")
    return at, at + length


def _skip(buffer: bytes, at: int, end: int, tag: int) -> int:
    """Steps over a field from the future; its own shape must be right."""
    if tag >> 3 == 0:
        raise WireError("there is no field 0")
    wire_type = tag & 7
    if wire_type == _VARINT:
        return read_varint(buffer, at, end)[1]
    if wire_type == _LEN:
        return _span(buffer, at, end, tag)[1]
    if wire_type not in (_FIXED64, _FIXED32):
        raise WireError(f"field {tag >> 3} has wire type {wire_type}")
    at += 8 if wire_type == _FIXED64 else 4
    if at > end:
        raise WireError(f"field {tag >> 3} reaches out of its message")
    return at
