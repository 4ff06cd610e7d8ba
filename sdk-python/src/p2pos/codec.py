"""Bytes of messages, by the tables of messages.py (SPEC.md section 3).

It knows the protobuf wire and nothing else: no sockets, no meaning. Why not the protobuf runtime: plugins of a fresh
checkout must run without any pip install, and a frame with a known field of the wrong wire type must be refused
([S-MSG-4]), which the runtime skips in silence. `_pb/plugin_pb2.py` is the official generated code; the tests prove
that both agree on every golden vector and on random messages. The hot Data frame has a path of its own in protocol.py,
which falls back to this one.
"""

from __future__ import annotations

from typing import Any

from .errors import WireError
from .messages import BODIES, Contact, Limits, Message, Protocol, Shape, Wire, wires_of

__all__ = ["PREFIX_BYTES", "decode_frame", "encode_frame", "encode_varint", "read_varint"]

PREFIX_BYTES = 4
"""Bytes of the length before every frame."""

_VARINT, _FIXED64, _LEN, _FIXED32 = 0, 1, 2, 5
_U64_MASK = (1 << 64) - 1
_U32_MASK = (1 << 32) - 1
_VARINT_SHAPES = frozenset({Shape.U32, Shape.U64, Shape.BOOL, Shape.ENUM})


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
        if wire.repeated and wire.shape is Shape.ENUM:
            if value:
                packed = b"".join(_varint_of(wire, item) for item in value)
                out += (encode_varint(wire.number << 3 | _LEN), encode_varint(len(packed)), packed)
        elif wire.repeated:
            for item in value:
                _encode_one(out, wire, item)
        elif value is not None and (value or wire.oneof or wire.shape is Shape.MESSAGE):
            _encode_one(out, wire, value)
    return b"".join(out)


def _encode_one(out: list[bytes], wire: Wire, value: Any) -> None:
    if wire.shape in _VARINT_SHAPES:
        out += (encode_varint(wire.number << 3 | _VARINT), _varint_of(wire, value))
        return
    raw: bytes
    if wire.shape is Shape.TEXT:
        raw = value.encode()
    elif wire.shape is Shape.MESSAGE:
        raw = _encode(value)
    else:
        raw = bytes(value)
    out += (encode_varint(wire.number << 3 | _LEN), encode_varint(len(raw)), raw)


def _varint_of(wire: Wire, value: int) -> bytes:
    most = _U64_MASK if wire.shape is Shape.U64 else _U32_MASK
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
    if wire.shape is Shape.U64:
        return value
    if wire.shape is Shape.BOOL:
        return value != 0
    value &= _U32_MASK
    if wire.shape is Shape.ENUM and value >> 31:
        return value - (1 << 32)
    return value


def _decode_bytes(message: Message, name: str, wire: Wire, span: tuple[bytes, int, int]) -> None:
    buffer, start, end = span
    value: Any
    if wire.shape is Shape.TEXT:
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
