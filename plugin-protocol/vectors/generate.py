#!/usr/bin/env python3
"""Makes the golden vectors of the plugin protocol: frames.json, malformed.json, handshake.json, and SPEC.md's hex dump.

A second opinion on plugin.proto: the encoder below was written by hand from the comments of the .proto and from the
protobuf wire rules, and shares nothing with any implementation that is checked against its output. Only the standard
library is used. What it refuses to know: sockets, and the SDKs.

    python3 generate.py           writes the three files beside itself, and the dump into ../SPEC.md
    python3 generate.py --check   exits 1 if the files on disk differ

The layout of the files is described in SPEC.md, section 12.
"""

import hashlib
import hmac
import json
import pathlib
import sys
import textwrap

FORMAT = "p2pos-plugin-vectors/1"
HERE = pathlib.Path(__file__).resolve().parent

# --- the protobuf wire, by hand -----------------------------------------------------------------------------------

VARINT, FIXED64, LEN, GROUP, GROUP_END, FIXED32 = range(6)


def varint(value):
    """Base 128, low group first, as short as can be."""
    assert 0 <= value < 1 << 64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def wide(value, width):
    """The same number in exactly `width` bytes: legal for width <= 10, never canonical if a shorter one exists."""
    groups = [(value >> (7 * i)) & 0x7F for i in range(width)]
    return bytes([g | 0x80 for g in groups[:-1]] + [groups[-1]])


def tag(number, wire_type):
    return varint(number << 3 | wire_type)


def v(number, value):
    """A varint field, written even if it is 0."""
    return tag(number, VARINT) + varint(value)


def b(number, value):
    """A length-delimited field, written even if it is empty."""
    value = value.encode() if isinstance(value, str) else value
    return tag(number, LEN) + varint(len(value)) + value


def prefixed(message):
    """A frame: the length in four bytes, big end first, then the message."""
    return len(message).to_bytes(4, "big") + message


# --- the shapes -----------------------------------------------------------------------------------------------------

ENUMS = {
    "Kind": ["KIND_UNSPECIFIED", "STREAM", "DATAGRAM"],
    "Attachment": ["ATTACHMENT_UNSPECIFIED", "MUX", "SOCKET"],
    "RelayUse": ["RELAY_USE_UNSPECIFIED", "RELAY_ALLOW", "RELAY_NEVER"],
    "PathKind": ["PATH_KIND_UNSPECIFIED", "DIRECT", "LAN", "LOOPBACK", "RELAYED"],
    "Cause": ["CAUSE_UNSPECIFIED", "FINISHED", "RESET_LOCAL", "RESET_REMOTE"],
    "Trust": ["TRUST_UNSPECIFIED", "CONTACTS", "ANYONE"],
    "Health": ["HEALTH_UNSPECIFIED", "OK", "DEGRADED", "WAITING_NETWORK"],
    "Level": ["LEVEL_UNSPECIFIED", "DEBUG", "INFO", "WARN", "ERROR"],
    "EventKind": ["EVENT_KIND_UNSPECIFIED", "PEER", "CONTACT", "PATH"],
}

# Field: (number, name, type). Types: int, bool, str, bytes, an enum's name, or a message's name; a leading * repeats;
# a leading ? is a member of a oneof, which is written even if it has its default.
PARTS = {
    "Limits": [(1, "frame_bytes_max", "int"), (2, "data_bytes_max", "int"), (3, "stream_window_bytes", "int"),
               (4, "streams_max", "int"), (5, "protocols_max", "int"), (6, "requests_max", "int"),
               (7, "log_line_bytes_max", "int")],
    "Protocol": [(1, "name", "str"), (2, "kind", "Kind"), (3, "trust", "Trust"), (4, "concurrent_max", "int"),
                 (5, "attachment", "Attachment")],
    "Contact": [(1, "peer", "str"), (2, "petname", "str"), (3, "is_connected", "bool")],
}

# name -> (number in Frame.body, fields)
BODIES = {
    "data": (2, [(1, "stream", "int"), (2, "payload", "bytes"), (3, "fin", "bool")]),
    "window": (3, [(1, "stream", "int"), (2, "bytes", "int")]),
    "datagram": (4, [(1, "flow", "int"), (2, "payload", "bytes")]),
    "reset": (5, [(1, "stream", "int"), (2, "code", "int"), (3, "app_code", "int")]),
    "stop_sending": (6, [(1, "stream", "int"), (2, "code", "int"), (3, "app_code", "int")]),
    "stream_closed": (7, [(1, "stream", "int"), (2, "cause", "Cause"), (3, "code", "int"), (4, "app_code", "int"),
                          (5, "bytes_in", "int"), (6, "bytes_out", "int")]),
    "open": (8, [(1, "stream", "int"), (2, "peer", "str"), (3, "protocols", "*str"), (4, "kind", "Kind"),
                 (5, "attachment", "Attachment"), (6, "timeout_ms", "int"), (7, "relay", "RelayUse")]),
    "opened": (9, [(1, "stream", "int"), (2, "protocol", "str"), (3, "path", "PathKind"), (4, "ticket", "bytes"),
                   (5, "datagram_max", "int")]),
    "incoming": (10, [(1, "stream", "int"), (2, "peer", "str"), (3, "protocol", "str"), (4, "kind", "Kind"),
                      (5, "path", "PathKind"), (6, "petname", "str"), (7, "is_contact", "bool"),
                      (8, "ticket", "bytes"), (9, "datagram_max", "int")]),
    "accept": (11, [(1, "stream", "int")]),
    "reject": (12, [(1, "stream", "int"), (2, "code", "int"), (3, "reason", "str")]),
    "ping": (13, [(1, "nonce", "int")]),
    "pong": (14, [(1, "nonce", "int")]),
    "error": (15, [(1, "code", "int"), (2, "name", "str"), (3, "message", "str"), (4, "hint", "str"),
                   (5, "retry_after_ms", "int"), (6, "stream", "int"), (7, "details", "*str")]),
    "hello": (16, [(1, "magic", "str"), (2, "min_version", "int"), (3, "max_version", "int"), (4, "features", "*str"),
                   (5, "sdk", "str"), (6, "launch_token", "?str"), (7, "client_nonce", "?bytes"),
                   (8, "frame_bytes_max", "int"), (9, "stream_window_bytes", "int"), (10, "auto_window", "bool")]),
    "welcome": (17, [(1, "version", "int"), (2, "features", "*str"), (3, "daemon", "str"), (4, "plugin_id", "str"),
                     (5, "instance_id", "str"), (6, "peer_id", "str"), (7, "grants", "*str"),
                     (8, "limits", "Limits")]),
    "challenge": (18, [(1, "server_nonce", "bytes"), (2, "server_proof", "bytes")]),
    "auth_proof": (19, [(1, "client_proof", "bytes")]),
    "refused": (20, [(1, "code", "int"), (2, "message", "str"), (3, "hint", "str"), (4, "min_version", "int"),
                     (5, "max_version", "int")]),
    "attach": (21, [(1, "ticket", "bytes")]),
    "attached": (22, []),
    "done": (24, []),
    "register": (25, [(1, "protocols", "*Protocol")]),
    "unregister": (26, [(1, "names", "*str")]),
    "cancel": (27, [(1, "target", "int")]),
    "ready": (28, []),
    "status": (29, [(1, "health", "Health"), (2, "text", "str")]),
    "log": (30, [(1, "level", "Level"), (2, "text", "str")]),
    "subscribe": (31, [(1, "kinds", "*EventKind")]),
    "event": (32, [(1, "seq", "int"), (2, "kind", "EventKind"), (3, "missed", "int"), (4, "peer", "str"),
                   (5, "petname", "str"), (6, "what", "str")]),
    "contact_list": (33, []),
    "contacts": (34, [(1, "contacts", "*Contact")]),
    "go_away": (35, [(1, "code", "int"), (2, "reason", "str")]),
    "shutdown": (36, [(1, "deadline_ms", "int"), (2, "reason", "str")]),
}


def scalar(number, kind, value):
    if kind in ENUMS:
        return v(number, value if isinstance(value, int) else ENUMS[kind].index(value))
    if kind in PARTS:
        return b(number, encode_fields(PARTS[kind], value))
    if kind == "bytes":
        return b(number, bytes.fromhex(value))
    return b(number, value) if kind == "str" else v(number, int(value))


def encode_fields(fields, values):
    assert set(values) <= {name for _, name, _ in fields}, values
    out = b""
    for number, name, kind in fields:
        if name not in values:
            continue
        value = values[name]
        if kind.startswith("*") and kind[1:] in ENUMS:
            out += b(number, b"".join(varint(ENUMS[kind[1:]].index(item)) for item in value)) if value else b""
        elif kind.startswith("*"):
            out += b"".join(scalar(number, kind[1:], item) for item in value)
        elif kind.startswith("?") or value:
            out += scalar(number, kind.lstrip("?"), value)
    return out


def message(name, rid=0, /, **values):
    """One Frame message in canonical form, without its length."""
    number, fields = BODIES[name]
    return (v(1, rid) if rid else b"") + b(number, encode_fields(fields, values))


def frame(name, rid=0, /, **values):
    return prefixed(message(name, rid, **values))


# --- names used over and over ------------------------------------------------------------------------------------------

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def peer_id(key):
    """The text of a PeerId: bech32m (BIP 350), prefix "p2p", version symbol "q" (0), then the 32 bytes of the key."""
    bits = "".join(f"{byte:08b}" for byte in key)
    bits += "0" * (-len(bits) % 5)
    data = [0] + [int(bits[i:i + 5], 2) for i in range(0, len(bits), 5)]
    prefix = [ord(c) >> 5 for c in "p2p"] + [0] + [ord(c) & 31 for c in "p2p"]
    state = 1
    for symbol in prefix + data + [0] * 6:
        top, state = state >> 25, (state & 0x1FFFFFF) << 5 ^ symbol
        for i, part in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            state ^= part if top >> i & 1 else 0
    state ^= 0x2BC830A3
    return "p2p1" + "".join(CHARSET[s] for s in data + [state >> 5 * (5 - i) & 31 for i in range(6)])


# The public keys of RFC 8032 section 7.1, tests 1 and 2: everybody has them, nobody uses them.
ANA = peer_id(bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"))
BO = peer_id(bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"))

TOKEN = "b3f1c2d4e5968778695a4b3c2d1e0ff0b3f1c2d4e5968778695a4b3c2d1e0ff0"
SECRET = bytes(range(32))
CLIENT_NONCE = bytes(range(0x40, 0x60))
SERVER_NONCE = bytes(range(0xA0, 0xC0))
TICKET = bytes(range(0xF0, 0x100)).hex()


def server_proof(secret, client_nonce, server_nonce):
    return hmac.new(secret, b"p2pOS daemon v1" + client_nonce + server_nonce, hashlib.sha256).digest()


def client_proof(secret, client_nonce, server_nonce):
    return hmac.new(secret, b"p2pOS plugin v1" + client_nonce + server_nonce, hashlib.sha256).digest()


HELLO = {"magic": "p2pOS", "min_version": 1, "max_version": 1, "sdk": "by hand 1.0", "launch_token": TOKEN}
HELLO_NONCE = {k: x for k, x in HELLO.items() if k != "launch_token"} | {"client_nonce": CLIENT_NONCE.hex()}
LIMITS = {"frame_bytes_max": 1 << 20, "data_bytes_max": 1 << 16, "stream_window_bytes": 1 << 18, "streams_max": 256,
          "protocols_max": 64, "requests_max": 1024, "log_line_bytes_max": 1 << 16}
WELCOME = {"version": 1, "daemon": "p2pos 0.1.0", "plugin_id": "chat", "instance_id": "chat-1", "peer_id": ANA,
           "grants": ["net.open:/chat/1", "net.accept:/chat/1"], "limits": LIMITS}

# --- frames.json ---------------------------------------------------------------------------------------------------------

U32, U64 = (1 << 32) - 1, (1 << 64) - 1
P, D, BOTH = "plugin", "daemon", "both"

# (id, from, name, rid, values): the full ones; an empty one of every message is added below.
GOLDEN = [
    ("data-hello", BOTH, "data", 0, {"stream": 1, "payload": b"hello".hex()}),
    ("data-fin-with-payload", BOTH, "data", 0, {"stream": 5, "payload": b"hi".hex(), "fin": True}),
    ("data-fin-alone", BOTH, "data", 0, {"stream": 5, "fin": True}),
    ("data-nul-and-high-bytes", BOTH, "data", 0, {"stream": 2, "payload": "00ff00807f0a0d"}),
    ("data-stream-one-byte-varint-max", BOTH, "data", 0, {"stream": 127, "payload": "01"}),
    ("data-stream-two-byte-varint-min", BOTH, "data", 0, {"stream": 128, "payload": "01"}),
    ("data-stream-u32-max", BOTH, "data", 0, {"stream": U32, "payload": "01"}),
    ("data-payload-127", BOTH, "data", 0, {"stream": 1, "payload": "61" * 127}),
    ("data-payload-128", BOTH, "data", 0, {"stream": 1, "payload": "62" * 128}),
    ("data-payload-1000", BOTH, "data", 0, {"stream": 3, "payload": bytes(i % 251 for i in range(1000)).hex()}),
    ("window", BOTH, "window", 0, {"stream": 1, "bytes": 131072}),
    ("window-u32-max", BOTH, "window", 0, {"stream": 6, "bytes": U32}),
    ("datagram", BOTH, "datagram", 0, {"flow": 3, "payload": b"tick".hex()}),
    ("datagram-empty-payload", BOTH, "datagram", 0, {"flow": 4}),
    ("reset-app", BOTH, "reset", 0, {"stream": 1, "code": 400, "app_code": 7}),
    ("reset-plugin-gone", D, "reset", 0, {"stream": 2, "code": 403}),
    ("stop-sending", BOTH, "stop_sending", 0, {"stream": 2, "code": 400, "app_code": U32}),
    ("stream-closed-finished", D, "stream_closed", 0,
     {"stream": 1, "cause": "FINISHED", "bytes_in": 5, "bytes_out": 6}),
    ("stream-closed-reset", D, "stream_closed", 0,
     {"stream": 2, "cause": "RESET_REMOTE", "code": 404, "app_code": 0, "bytes_in": U64, "bytes_out": 1 << 32}),
    ("stream-closed-by-us", D, "stream_closed", 0, {"stream": 3, "cause": "RESET_LOCAL", "code": 400, "app_code": 1}),
    ("open", P, "open", 1, {"stream": 1, "peer": BO, "protocols": ["/chat/1"]}),
    ("open-everything", P, "open", 300,
     {"stream": 3, "peer": BO, "protocols": ["/chat/2", "/chat/1"], "kind": "DATAGRAM", "attachment": "SOCKET",
      "timeout_ms": 5000, "relay": "RELAY_NEVER"}),
    ("opened", D, "opened", 1, {"stream": 1, "protocol": "/chat/1", "path": "DIRECT"}),
    ("opened-detached", D, "opened", 2, {"stream": 3, "protocol": "/file/1", "path": "LAN", "ticket": TICKET}),
    ("opened-datagram", D, "opened", 3,
     {"stream": 5, "protocol": "/clock/1", "path": "RELAYED", "datagram_max": 1162}),
    ("incoming", D, "incoming", 1,
     {"stream": 2, "peer": BO, "protocol": "/chat/1", "kind": "STREAM", "path": "LOOPBACK", "petname": "bo",
      "is_contact": True}),
    ("incoming-everything", D, "incoming", U32,
     {"stream": 4, "peer": ANA, "protocol": "/clock/1", "kind": "DATAGRAM", "path": "RELAYED", "petname": "åna 🐟",
      "is_contact": True, "ticket": TICKET, "datagram_max": 1200}),
    ("accept", P, "accept", 1, {"stream": 2}),
    ("reject", P, "reject", 1, {"stream": 2, "code": 305, "reason": "busy with a game"}),
    ("ping", BOTH, "ping", 9, {"nonce": U64}),
    ("pong", BOTH, "pong", 9, {"nonce": U64}),
    ("ping-i64-border", BOTH, "ping", 10, {"nonce": 1 << 63}),
    ("error-answer", D, "error", 7,
     {"code": 302, "name": "UNREACHABLE", "message": "no path to bo", "hint": "try: p2pos explain bo",
      "retry_after_ms": 5000, "stream": 3, "details": ["192.0.2.1: timed out", "[2001:db8::1]: refused"]}),
    ("error-complaint", BOTH, "error", 0, {"code": 100, "name": "PROTOCOL", "message": "Data on stream 9"}),
    ("hello-token", P, "hello", 1, HELLO),
    ("hello-nonce", P, "hello", 1, HELLO_NONCE),
    ("hello-everything", P, "hello", 5,
     HELLO | {"max_version": 3, "features": ["announce", "x.trace"], "frame_bytes_max": 65536,
              "stream_window_bytes": 32768, "auto_window": True}),
    ("hello-empty-token", P, "hello", 1, HELLO | {"launch_token": ""}),
    ("welcome", D, "welcome", 1, WELCOME),
    ("welcome-features", D, "welcome", 1, WELCOME | {"features": ["announce"]}),
    ("challenge", D, "challenge", 1,
     {"server_nonce": SERVER_NONCE.hex(), "server_proof": server_proof(SECRET, CLIENT_NONCE, SERVER_NONCE).hex()}),
    ("auth-proof", P, "auth_proof", 2, {"client_proof": client_proof(SECRET, CLIENT_NONCE, SERVER_NONCE).hex()}),
    ("refused-version", D, "refused", 1,
     {"code": 101, "message": "this daemon speaks versions 1 to 1", "hint": "update the plugin", "min_version": 1,
      "max_version": 1}),
    ("attach", P, "attach", 1, {"ticket": TICKET}),
    ("attached", D, "attached", 1, {}),
    ("done", BOTH, "done", 2, {}),
    ("register-one", P, "register", 2, {"protocols": [{"name": "/chat/1"}]}),
    ("register-two", P, "register", 2,
     {"protocols": [{"name": "/chat/1", "kind": "STREAM", "trust": "ANYONE", "concurrent_max": 8,
                     "attachment": "SOCKET"}, {"name": "/clock/1", "kind": "DATAGRAM", "trust": "CONTACTS"}]}),
    ("register-with-an-empty-protocol", P, "register", 2, {"protocols": [{}, {"name": "/chat/1"}]}),
    ("unregister", P, "unregister", 3, {"names": ["/chat/1", "/clock/1"]}),
    ("unregister-with-an-empty-name", P, "unregister", 3, {"names": ["", "/clock/1"]}),
    ("cancel", P, "cancel", 4, {"target": 300}),
    ("ready", P, "ready", 0, {}),
    ("status", P, "status", 0, {"health": "WAITING_NETWORK", "text": "3 messages wait for bo"}),
    ("log", P, "log", 0, {"level": "WARN", "text": "disk is 98 % full"}),
    ("log-default-level", P, "log", 0, {"text": "naïve"}),
    ("subscribe", P, "subscribe", 6, {"kinds": ["PEER", "CONTACT", "PATH"]}),
    ("event", D, "event", 0,
     {"seq": 300, "kind": "PEER", "missed": 2, "peer": BO, "petname": "bo", "what": "connected"}),
    ("contact-list", P, "contact_list", 8, {}),
    ("contacts", D, "contacts", 8,
     {"contacts": [{"peer": BO, "petname": "bo", "is_connected": True}, {"peer": ANA, "petname": "me"}]}),
    ("go-away", BOTH, "go_away", 0, {"code": 105, "reason": "updating"}),
    ("shutdown", D, "shutdown", 0, {"deadline_ms": 5000, "reason": "the user stopped it"}),
    ("rid-one-byte-max", BOTH, "done", 127, {}),
    ("rid-two-byte-min", BOTH, "done", 128, {}),
    ("rid-u32-max", BOTH, "done", U32, {}),
]
DIRECTION = {name: sender for _, sender, name, _, _ in GOLDEN if sender != BOTH}


def is_default(value):
    return value in (0, False, "", [], {}) or isinstance(value, str) and value.endswith("_UNSPECIFIED")


def told(name, values):
    """The decoded form: defaults left out, except members of a oneof."""
    kinds = {field: kind for _, field, kind in BODIES[name][1]}
    return {field: x for field, x in values.items() if not is_default(x) or kinds[field].startswith("?")}


def golden_frames():
    seen = set()
    for name in BODIES:
        sender = DIRECTION.get(name, BOTH)
        yield {"id": f"{name}-all-defaults".replace("_", "-"), "from": sender, "message": name, "rid": 0, "body": {},
               "hex": frame(name).hex()}
    for ident, sender, name, rid, values in GOLDEN:
        assert ident not in seen
        seen.add(ident)
        yield {"id": ident, "from": sender, "message": name, "rid": rid, "body": told(name, values),
               "hex": frame(name, rid, **values).hex()}


def legal(ident, why, name, rid, body, raw):
    return {"id": ident, "from": BOTH, "message": name, "rid": rid, "body": body, "hex": prefixed(raw).hex(),
            "why": why}


def decode_only_frames():
    one = {"stream": 1, "payload": b"hi".hex()}
    inner = v(1, 1) + b(2, b"hi")
    yield legal("body-before-rid", "fields may come in any order", "done", 5, {}, b(24, b"") + v(1, 5))
    yield legal("inner-fields-reversed", "fields may come in any order", "data", 0, one, b(2, b(2, b"hi") + v(1, 1)))
    yield legal("explicit-rid-0", "a default may be written", "data", 0, one, v(1, 0) + b(2, inner))
    yield legal("explicit-fin-false", "a default may be written", "data", 0, one, b(2, inner + v(3, 0)))
    yield legal("explicit-empty-payload", "a default may be written", "data", 0, {"stream": 1, "fin": True},
                b(2, v(1, 1) + b(2, b"") + v(3, 1)))
    yield legal("wide-rid", "a varint may be wider than needed", "done", 5, {}, tag(1, 0) + wide(5, 5) + b(24, b""))
    yield legal("wide-stream-ten-bytes", "ten bytes are the widest varint", "data", 0, one,
                b(2, tag(1, 0) + wide(1, 10) + b(2, b"hi")))
    yield legal("wide-length", "lengths are varints too", "data", 0, one,
                b(2, v(1, 1) + tag(2, 2) + wide(2, 4) + b"hi"))
    yield legal("wide-tag", "tags are varints too", "data", 0, one, b(2, wide(1 << 3, 3) + varint(1) + b(2, b"hi")))
    yield legal("fin-is-2", "any non-zero varint is true", "data", 0, one | {"fin": True}, b(2, inner + v(3, 2)))
    yield legal("stream-over-32-bits", "the upper bits of a wider number are cut off", "data", 0, one,
                b(2, v(1, (1 << 32) + 1) + b(2, b"hi")))
    yield legal("rid-twice", "the last one wins", "done", 6, {}, v(1, 5) + v(1, 6) + b(24, b""))
    yield legal("stream-twice", "the last one wins", "data", 0, one, b(2, v(1, 9) + inner))
    yield legal("data-split-in-two", "parts of one message are merged", "data", 0, one,
                b(2, v(1, 1)) + b(2, b(2, b"hi")))
    yield legal("two-bodies", "the last member of a oneof wins", "done", 3, {}, v(1, 3) + b(2, inner) + b(24, b""))
    yield legal("two-auths", "the last member of a oneof wins", "hello", 1,
                {"magic": "p2pOS", "min_version": 1, "max_version": 1, "client_nonce": CLIENT_NONCE.hex()},
                v(1, 1) + b(16, b(1, "p2pOS") + v(2, 1) + v(3, 1) + b(6, TOKEN) + b(7, CLIENT_NONCE)))
    yield legal("kinds-unpacked", "a repeated enum may come one by one", "subscribe", 6, {"kinds": ["PEER", "PATH"]},
                v(1, 6) + b(31, v(1, 1) + v(1, 3)))
    yield legal("kinds-mixed", "packed and single may be mixed", "subscribe", 6, {"kinds": ["PEER", "CONTACT", "PATH"]},
                v(1, 6) + b(31, v(1, 1) + b(1, b"\2\3")))
    yield legal("limits-split", "parts of one message are merged", "welcome", 1,
                {"version": 1, "limits": {"streams_max": 4, "protocols_max": 2}},
                v(1, 1) + b(17, v(1, 1) + b(8, v(4, 4)) + b(8, v(5, 2))))
    for kind, raw in (("varint", v(99, 7)), ("fixed64", tag(99, 1) + bytes(8)), ("bytes", b(99, b"later")),
                      ("fixed32", tag(99, 5) + bytes(4))):
        yield legal(f"unknown-field-{kind}", "a field from the future is skipped", "data", 0, one,
                    b(2, inner + raw))
    yield legal("unknown-field-in-frame", "a field from the future is skipped", "done", 4, {},
                v(1, 4) + b(24, b"") + v(70, 1))
    yield legal("unknown-field-number-max", "the highest field number is 2^29 - 1", "done", 4, {},
                v(1, 4) + b(24, b"") + v((1 << 29) - 1, 1))
    yield legal("done-with-content", "Done may grow fields", "done", 4, {}, v(1, 4) + b(24, v(1, 1)))
    yield legal("unknown-body", "a message from the future: the session decides what to answer", None, 8, {},
                v(1, 8) + b(39, b"later"))
    yield legal("reserved-body", "kept for Announce and the like", None, 8, {}, v(1, 8) + b(40, b""))
    yield legal("body-number-23", "never given out", None, 8, {}, v(1, 8) + b(23, b""))
    yield legal("no-body", "a frame may carry nothing that we know", None, 8, {}, v(1, 8))


# --- malformed.json ------------------------------------------------------------------------------------------------------

JUDGE_LIMITS = {"frame_bytes_max": 65536, "data_bytes_max": 16384, "stream_window_bytes": 1024, "streams_max": 4,
                "protocols_max": 4, "requests_max": 4, "log_line_bytes_max": 1024}
CREDIT_MAX = 16 << 20
NAME_128 = "/" + "a" * 125 + "/1"


def opening(stream, **more):
    return {"from": P, "hex": frame("open", stream, stream=stream, peer=BO, protocols=["/chat/1"], **more).hex()}


def opened(stream, **more):
    return {"from": D, "hex": frame("opened", stream, stream=stream, protocol="/chat/1", path="DIRECT", **more).hex()}


def sent(sender, name, rid=0, /, **values):
    return {"from": sender, "hex": frame(name, rid, **values).hex()}


OPEN = [opening(1), opened(1)]
REGISTERED = [sent(P, "register", 1, protocols=[{"name": "/chat/1"}]), sent(D, "done", 1)]
OFFERED = [*REGISTERED, sent(D, "incoming", 1, stream=2, peer=BO, protocol="/chat/1", kind="STREAM", path="DIRECT")]
GIVENS = {
    "fresh": [],
    "challenged": [sent(P, "hello", 1, **HELLO_NONCE),
                   sent(D, "challenge", 1, server_nonce=SERVER_NONCE.hex(),
                        server_proof=server_proof(SECRET, CLIENT_NONCE, SERVER_NONCE).hex())],
    "opening": [opening(1)],
    "open": OPEN,
    "open-and-finished-by-plugin": [*OPEN, sent(P, "data", stream=1, payload="6869", fin=True)],
    "open-and-finished-by-daemon": [*OPEN, sent(D, "data", stream=1, payload="6869", fin=True)],
    "closed-by-plugin-reset": [*OPEN, sent(P, "reset", stream=1, code=400, app_code=1),
                               sent(D, "stream_closed", stream=1, cause="RESET_LOCAL", code=400, app_code=1)],
    "open-failed": [opening(1), sent(D, "error", 1, code=301, name="OFFLINE", message="bo is not online", stream=1)],
    "flow": [opening(1, kind="DATAGRAM"), opened(1, datagram_max=1200)],
    "registered": REGISTERED,
    "offered": OFFERED,
    "accepted": [*OFFERED, sent(P, "accept", 1, stream=2)],
    "withdrawn": [*OFFERED, sent(D, "stream_closed", stream=2, cause="RESET_REMOTE", code=207)],
    "four-streams": [part for n in (1, 3, 5, 7) for part in (opening(n), opened(n))],
    "four-requests": [opening(n) for n in (1, 3, 5, 7)],
    "ready": [sent(P, "ready")],
}


class Cases:
    """Collects the cases; a case that lacks a word is the generator's fault and fails at once."""

    def __init__(self):
        self.cases = []

    def add(self, ident, layer, raw, code, answer, why, **more):
        case = {"id": ident, "judge": "daemon", "layer": layer, "phase": "post", "given": "fresh", "hex": raw.hex(),
                "code": code, "answer": answer, "rid": 0, "stream": 0} | more | {"why": why}
        assert case["given"] in GIVENS and all(ident != other["id"] for other in self.cases), ident
        self.cases.append(case)

    def silence(self, ident, raw, why):
        self.add(ident, "frame", raw, 100, "silence", why, phase="pre")

    def refused(self, ident, layer, raw, code, why, **more):
        self.add(ident, layer, raw, code, "refused", why, phase="pre", **more)

    def fatal(self, ident, layer, raw, why, code=100, **more):
        self.add(ident, layer, raw, code, "error", why, **more)

    def reply(self, ident, layer, raw, code, rid, why, **more):
        self.add(ident, layer, raw, code, "reply", why, rid=rid, **more)

    def swallowed(self, ident, layer, raw, why, **more):
        self.add(ident, layer, raw, 0, "none", why, **more)


def strangers(c):
    """What is not our protocol at all gets no byte back."""
    text = "a program that speaks something else got the port"
    c.silence("http-get", b"GET / HTTP/1.1\r\nHost: 127.0.0.1:7717\r\n\r\n", text)
    c.silence("http-post", b"POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", text)
    c.silence("http-options", b"OPTIONS * HTTP/1.1\r\nOrigin: https://evil.example\r\n\r\n", text)
    c.silence("http2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", text)
    c.silence("tls-client-hello", bytes.fromhex("1603010200010001fc0303") + bytes(32), text)
    c.silence("json", b'{"jsonrpc":"2.0","id":1,"method":"initialize"}\n', "the first byte { is kept for a JSON codec")
    c.silence("ssh", b"SSH-2.0-OpenSSH_9.6\r\n", text)
    c.silence("smtp", b"EHLO localhost\r\n", text)
    c.silence("line-feed", b"\r\n", "somebody pressed return in telnet")
    c.silence("socks5", bytes.fromhex("050100"), text)
    c.silence("one-letter", b"G", "one byte is enough to know")
    c.silence("high-byte", b"\xff" * 8, text)
    c.silence("little-endian-length", (50).to_bytes(4, "little") + bytes(50), "the length has its big end first")
    c.silence("varint-length", varint(20) + bytes(20), "the length is no varint")


def lengths(c):
    hello = message("hello", 1, **HELLO)
    c.refused("pre-length-0", "frame", bytes(4), 100, "an empty frame means nothing")
    c.refused("pre-length-4097", "frame", (4097).to_bytes(4, "big"), 103, "4 KiB are enough for a Hello")
    c.refused("pre-length-u24-max", "frame", bytes.fromhex("00ffffff"), 103, "judged by the length alone")
    c.refused("pre-hello-padded-to-4097", "frame", prefixed(hello + b(99, bytes(4097 - len(hello) - 4))), 103,
              "a good Hello, but too long by one byte")
    c.fatal("length-0", "frame", bytes(4), "an empty frame means nothing")
    c.fatal("length-65537", "frame", (65537).to_bytes(4, "big"), "one over frame_bytes_max", code=103)
    c.fatal("length-16-mib-less-1", "frame", bytes.fromhex("00ffffff"), "over frame_bytes_max", code=103)
    c.fatal("length-16-mib", "frame", bytes.fromhex("01000000"), "the first byte is always 0", code=103)
    c.fatal("length-u32-max", "frame", b"\xff" * 4, "the first byte is always 0", code=103)
    c.fatal("http-after-hello", "frame", b"GET / HTTP/1.1\r\n\r\n", "as a length this is over the limit", code=103)
    c.fatal("good-frame-then-length-0", "frame", frame("ping", 1, nonce=1) + bytes(4), "the first one is answered yet")


def broken_protobuf(c, phase):
    """The same broken messages before and after the handshake."""
    good = message("hello", 1, **HELLO) if phase == "pre" else message("log", 1, level="WARN", text="hello, world")
    number = 16 if phase == "pre" else 30
    text = {"pre": 5, "post": 2}[phase]
    first = {"pre": 2, "post": 1}[phase]

    def bad(ident, raw, why):
        if phase == "pre":
            c.refused(f"pre-{ident}", "message", prefixed(raw), 100, why)
        else:
            c.fatal(ident, "message", prefixed(raw), why)

    head = 2 + len(tag(number, LEN))
    bad("cut-after-rid-tag", good[:1], "a tag without its value")
    bad("cut-after-body-tag", good[:head], "a tag without its length")
    bad("cut-after-body-length", good[:head + 1], "a length without its bytes")
    bad("cut-in-the-middle", good[:len(good) // 2], "the body is shorter than it says")
    bad("cut-last-byte", good[:-1], "the body is shorter than it says")
    bad("body-length-one-too-big", good[:head] + bytes([good[head] + 1]) + good[head + 1:], "it says one byte more")
    bad("body-length-one-too-small", good[:head] + bytes([good[head] - 1]) + good[head + 1:], "a field is cut")
    bad("inner-length-huge", b(number, tag(text, LEN) + varint(U32) + b"x"), "4 GiB in one frame")
    bad("inner-length-u64-max", b(number, tag(text, LEN) + varint(U64) + b"x"), "lengths must not wrap around")
    bad("inner-length-past-the-body", b(number, tag(text, LEN) + varint(20) + b"x") + bytes(30),
        "a field must not reach out of its message")
    bad("rid-as-bytes", b(1, b"1") + good[2:], "rid is a varint")
    bad("rid-as-fixed32", tag(1, FIXED32) + bytes(4) + good[2:], "rid is a varint")
    bad("body-as-varint", v(number, 1), "a body is length-delimited")
    bad("body-as-fixed64", tag(number, FIXED64) + bytes(8), "a body is length-delimited")
    bad("text-as-varint", b(number, v(text, 5)), "text is length-delimited")
    bad("number-as-bytes", b(number, b(first, b"\1")), "a number is a varint")
    bad("number-as-fixed64", b(number, tag(first, FIXED64) + bytes(8)), "a number is a varint")
    bad("text-not-utf8", b(number, b(text, b"\xff\xfe")), "text is UTF-8")
    bad("text-utf8-cut", b(number, b(text, "é".encode()[:1])), "text is UTF-8")
    bad("text-utf8-surrogate", b(number, b(text, b"\xed\xa0\x80")), "text is UTF-8")
    bad("varint-of-11-bytes", tag(1, VARINT) + b"\x80" * 10 + b"\1" + good[2:], "ten bytes are the widest varint")
    bad("varint-of-11-bytes-in-the-body", b(number, tag(first, VARINT) + b"\x80" * 10 + b"\1"),
        "ten bytes are the widest varint")
    bad("varint-without-end", tag(1, VARINT) + b"\x80" * 9, "the last byte has its high bit set")
    bad("tag-of-11-bytes", b"\x80" * 10 + b"\1", "ten bytes are the widest varint")
    bad("field-number-0", v(0, 1), "there is no field 0")
    bad("field-number-0-in-the-body", b(number, b(0, b"")), "there is no field 0")
    bad("group-without-end", tag(60, GROUP), "an unknown group must end")
    bad("group-end-alone", tag(60, GROUP_END), "an end without a start")
    bad("group-end-in-the-body", b(number, tag(60, GROUP_END)), "an end without a start")
    bad("wire-type-6", varint(1 << 3 | 6) + b"\0", "there is no wire type 6")
    bad("wire-type-7", varint(1 << 3 | 7) + b"\0", "there is no wire type 7")
    bad("unknown-wire-type-7", varint(99 << 3 | 7) + b"\0", "not even for a field from the future")
    bad("unknown-fixed64-cut", good + tag(99, FIXED64) + bytes(7), "a field from the future is checked too")
    bad("unknown-fixed32-cut", good + tag(99, FIXED32) + bytes(3), "a field from the future is checked too")
    bad("unknown-bytes-cut", good + tag(99, LEN) + varint(5) + b"abcd", "a field from the future is checked too")
    bad("unknown-varint-cut", good + tag(99, VARINT) + b"\x80", "a field from the future is checked too")
    bad("zeros", bytes(32), "tag 0 is field 0")
    bad("text-instead-of-protobuf", b"hello, is anybody there?", "gibberish")


def handshakes(c):
    def hello(**changes):
        values = HELLO | changes
        return frame("hello", 1, **{k: x for k, x in values.items() if x is not None})

    def bad(ident, code, why, raw=None, **changes):
        c.refused(ident, "hello", hello(**changes) if raw is None else raw, code, why, rid=1)

    bad("hello-no-magic", 100, "the magic is always p2pOS", magic=None)
    bad("hello-wrong-magic", 100, "the magic is always p2pOS", magic="p2pos")
    bad("hello-long-magic", 100, "the magic is always p2pOS", magic="p2pOS ")
    bad("hello-version-2-to-3", 101, "this daemon speaks version 1", min_version=2, max_version=3)
    bad("hello-version-0-to-0", 101, "version 0 was never", min_version=None, max_version=None)
    bad("hello-version-upside-down", 101, "2 to 1 holds nothing", min_version=2, max_version=1)
    bad("hello-no-auth", 102, "nobody is let in for nothing", launch_token=None)
    bad("hello-empty-token", 102, "an empty token is no token", launch_token="")
    bad("hello-wrong-token", 102, "one digit is wrong", launch_token=TOKEN[:-1] + "1")
    bad("hello-token-upper-case", 102, "the token is compared byte by byte", launch_token=TOKEN.upper())
    bad("hello-token-with-a-tail", 102, "the token is compared whole", launch_token=TOKEN + "0")
    bad("hello-token-cut", 102, "the token is compared whole", launch_token=TOKEN[:-1])
    bad("hello-nonce-of-31", 100, "a nonce has 32 bytes", launch_token=None, client_nonce=CLIENT_NONCE[1:].hex())
    bad("hello-nonce-of-33", 100, "a nonce has 32 bytes", launch_token=None, client_nonce="00" + CLIENT_NONCE.hex())
    bad("hello-nonce-empty", 100, "a nonce has 32 bytes", launch_token=None, client_nonce="")
    bad("hello-frame-max-4095", 100, "the daemon's own frames need 4 KiB", frame_bytes_max=4095)
    bad("hello-frame-max-16-mib", 100, "the first byte of a length is always 0", frame_bytes_max=1 << 24)
    bad("hello-window-over-16-mib", 100, "the largest credit is 16 MiB", stream_window_bytes=CREDIT_MAX + 1)
    bad("hello-33-features", 100, "32 features at most", features=[f"f{i}" for i in range(33)])
    bad("hello-feature-of-65", 100, "a feature has 64 bytes at most", features=["f" * 65])
    bad("hello-sdk-of-129", 100, "sdk has 128 bytes at most", sdk="s" * 129)
    for name, rid, values in (("ping", 1, {"nonce": 1}), ("register", 1, {"protocols": [{"name": "/chat/1"}]}),
                              ("data", 0, {"stream": 1, "payload": "00"}), ("ready", 0, {}), ("welcome", 1, WELCOME),
                              ("auth_proof", 1, {"client_proof": "00" * 32}), ("error", 1, {"code": 100}),
                              ("done", 1, {})):
        c.refused(f"{name}-before-hello".replace("_", "-"), "hello", frame(name, rid, **values), 100,
                  "the first frame is Hello or Attach", rid=rid)
    c.refused("nothing-before-hello", "hello", prefixed(v(1, 1)), 100, "the first frame is Hello or Attach", rid=1)
    c.refused("unknown-body-before-hello", "hello", prefixed(v(1, 1) + b(39, b"")), 100,
              "even a message from the future comes after Hello", rid=1)
    for ident, ticket in (("attach-unknown-ticket", "00" * 16), ("attach-empty", ""), ("attach-ticket-of-15", TICKET[2:]),
                          ("attach-ticket-of-17", TICKET + "00")):
        c.refused(ident, "hello", frame("attach", 1, ticket=ticket), 102, "no such ticket", rid=1)
    proof = client_proof(SECRET, CLIENT_NONCE, SERVER_NONCE)
    for ident, wrong in (("proof-wrong", proof[:-1] + bytes([proof[-1] ^ 1])), ("proof-empty", b""),
                         ("proof-cut", proof[:-1]),
                         ("proof-echo-of-the-servers", server_proof(SECRET, CLIENT_NONCE, SERVER_NONCE)),
                         ("proof-nonces-swapped", client_proof(SECRET, SERVER_NONCE, CLIENT_NONCE))):
        c.refused(ident, "hello", frame("auth_proof", 2, client_proof=wrong.hex()), 102, "the secret is not known",
                  given="challenged", rid=2)
    c.refused("register-while-challenged", "hello", frame("register", 2, protocols=[{"name": "/chat/1"}]), 100,
              "only AuthProof may follow a Challenge", given="challenged", rid=2)
    c.refused("hello-while-challenged", "hello", frame("hello", 2, **HELLO), 100,
              "only AuthProof may follow a Challenge", given="challenged", rid=2)


def wrong_direction(c):
    for ident, name, values in (
            ("second-hello", "hello", HELLO), ("attach-on-a-session", "attach", {"ticket": TICKET}),
            ("auth-proof-late", "auth_proof", {"client_proof": "00" * 32}), ("welcome-from-a-plugin", "welcome", WELCOME),
            ("challenge-from-a-plugin", "challenge", {}), ("refused-from-a-plugin", "refused", {"code": 100}),
            ("attached-from-a-plugin", "attached", {}), ("opened-from-a-plugin", "opened", {"stream": 1}),
            ("incoming-from-a-plugin", "incoming", {"stream": 2, "peer": BO, "protocol": "/chat/1"}),
            ("stream-closed-from-a-plugin", "stream_closed", {"stream": 1}), ("event-from-a-plugin", "event", {"seq": 1}),
            ("contacts-from-a-plugin", "contacts", {}), ("shutdown-from-a-plugin", "shutdown", {})):
        c.fatal(ident, "session", frame(name, 3, **values), "not a plugin's to say, or not now")
    for name, values in (("hello", HELLO), ("attach", {"ticket": TICKET}), ("auth_proof", {}),
                         ("open", {"stream": 2, "peer": BO, "protocols": ["/chat/1"]}), ("accept", {"stream": 1}),
                         ("reject", {"stream": 1}), ("register", {}), ("unregister", {}), ("cancel", {"target": 1}),
                         ("ready", {}), ("status", {}), ("log", {}), ("subscribe", {}), ("contact_list", {}),
                         ("welcome", WELCOME)):
        c.fatal(f"{name}-from-the-daemon".replace("_", "-"), "session", frame(name, 3, **values),
                "not a daemon's to say, or not now", judge="plugin", given="open")


def stream_rules(c):
    def data(stream, **more):
        return frame("data", stream=stream, **more)

    never = "this id was never opened"
    zero = "there is no stream 0"
    touching = (("data", {"payload": "00"}), ("window", {"bytes": 1}), ("reset", {"code": 400}),
                ("stop_sending", {"code": 400}))
    for name, values in touching:
        word = name.replace("_", "-")
        c.fatal(f"{word}-on-stream-0", "session", frame(name, stream=0, **values), zero)
        c.fatal(f"{word}-on-a-never-opened-stream", "session", frame(name, stream=9, **values), never)
        c.fatal(f"{word}-on-a-never-offered-even-stream", "session", frame(name, stream=8, **values), never,
                given="accepted")
        c.fatal(f"{word}-from-the-daemon-on-a-never-opened-stream", "session", frame(name, stream=3, **values), never,
                judge="plugin", given="open")
        c.swallowed(f"{word}-on-a-closed-stream", "session", frame(name, stream=1, **values),
                    "it crossed the end on its way", given="closed-by-plugin-reset")
    c.fatal("datagram-on-flow-0", "session", frame("datagram", flow=0, payload="00"), zero)
    c.fatal("datagram-on-a-never-opened-flow", "session", frame("datagram", flow=9, payload="00"), never)
    c.fatal("datagram-on-a-stream", "session", frame("datagram", flow=1, payload="00"), "stream 1 is no flow",
            given="open")
    c.fatal("data-on-a-flow", "session", data(1, payload="00"), "flow 1 is no stream", given="flow")
    c.fatal("window-on-a-flow", "session", frame("window", stream=1, bytes=1), "flow 1 is no stream", given="flow")
    c.add("datagram-too-big", "session", frame("datagram", flow=1, payload="00" * 1201), 210, "complaint",
          "never split in silence", given="flow", stream=1)
    c.swallowed("data-after-a-failed-open", "session", data(1, payload="00"), "it crossed the Error on its way",
                given="open-failed")
    c.fatal("data-after-fin", "session", data(1, payload="00"), "fin was the last byte", given="open-and-finished-by-plugin")
    c.fatal("second-fin", "session", data(1, fin=True), "fin comes once", given="open-and-finished-by-plugin")
    c.fatal("data-and-fin-then-data-at-once", "session", data(1, payload="00", fin=True) + data(1, payload="01"),
            "fin was the last byte", given="open")
    c.fatal("data-after-fin-from-the-daemon", "session", data(1, payload="00"), "fin was the last byte",
            judge="plugin", given="open-and-finished-by-daemon")
    c.fatal("data-over-data-bytes-max", "session", data(1, payload="00" * 16385), "one over data_bytes_max", code=103,
            given="open")
    over = "one byte more than the credit"
    c.add("credit-exceeded-by-one", "session", data(1, payload="00" * 1025), 402, "reset", over, given="open", stream=1)
    c.add("credit-exceeded-in-steps", "session", data(1, payload="00" * 1000) + data(1, payload="00" * 25), 402,
          "reset", over, given="open", stream=1)
    c.add("credit-exceeded-before-opened", "session", data(1, payload="00" * 1025), 402, "reset", over, given="opening",
          stream=1)
    c.add("credit-exceeded-on-an-incoming-stream", "session", data(2, payload="00" * 1025), 402, "reset", over,
          given="accepted", stream=2)
    c.swallowed("credit-used-to-the-last-byte", "session", data(1, payload="00" * 1024), "exactly the credit",
                given="open")
    c.add("credit-lifted-over-16-mib", "session", frame("window", stream=1, bytes=CREDIT_MAX), 402, "reset",
          "the largest credit is 16 MiB", given="open", stream=1)
    c.add("credit-lifted-by-u32-max", "session", frame("window", stream=1, bytes=U32), 402, "reset",
          "the largest credit is 16 MiB", given="open", stream=1)
    c.swallowed("window-of-nothing", "session", frame("window", stream=1), "gives nothing, harms nothing", given="open")
    c.swallowed("data-of-nothing", "session", data(1), "says nothing, harms nothing", given="open")
    c.fatal("opened-for-a-stream-never-opened", "session", frame("opened", 9, stream=9, protocol="/chat/1"), never,
            judge="plugin")
    c.fatal("incoming-with-an-odd-id", "session",
            frame("incoming", 1, stream=3, peer=BO, protocol="/chat/1"), "a daemon's ids are even", judge="plugin",
            given="registered")
    c.fatal("incoming-with-id-0", "session", frame("incoming", 1, stream=0, peer=BO, protocol="/chat/1"), zero,
            judge="plugin", given="registered")
    c.fatal("incoming-with-an-id-used-before", "session", frame("incoming", 2, stream=2, peer=BO, protocol="/chat/1"),
            "ids only grow", judge="plugin", given="accepted")


def opens_and_answers(c):
    def ask(rid=3, stream=3, **changes):
        values = {"peer": BO, "protocols": ["/chat/1"]} | changes
        return frame("open", rid, stream=stream, **values)

    c.fatal("open-with-id-0", "session", ask(stream=0), "there is no stream 0", given="open")
    c.fatal("open-with-an-even-id", "session", ask(stream=4), "a plugin's ids are odd", given="open")
    c.fatal("open-with-an-id-in-use", "session", ask(stream=1), "ids only grow", given="open")
    c.fatal("open-with-an-id-used-before", "session", ask(stream=1), "ids only grow", given="closed-by-plugin-reset")
    c.fatal("open-with-a-lower-id", "session", ask(stream=3), "ids only grow", given="four-streams")
    c.fatal("open-with-a-pending-rid", "session", ask(rid=1), "rid 1 still waits for its answer", given="opening")
    c.add("open-with-rid-0", "session", ask(rid=0), 200, "complaint", "Open needs an answer", stream=3)
    flipped = BO[:-1] + ("q" if BO[-1] != "q" else "p")
    for ident, peer in (("empty", ""), ("cut", BO[:-1]), ("typo", flipped), ("mixed-case", BO[:-8] + BO[-8:].upper()),
                        ("bech32-not-m", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"), ("petname", "bo"),
                        ("address", "192.0.2.1:4242"), ("with-a-space", BO + " ")):
        c.reply(f"open-peer-{ident}", "message", ask(peer=peer), 200, 3, "that is no PeerId", stream=3)
    c.reply("open-no-protocols", "message", ask(protocols=[]), 200, 3, "one protocol at least", stream=3)
    c.reply("open-17-protocols", "message", ask(protocols=[f"/p{i}/1" for i in range(17)]), 200, 3,
            "16 protocols at most", stream=3)
    for ident, name in BAD_NAMES:
        c.reply(f"open-name-{ident}", "message", ask(protocols=[name]), 200, 3, "that is no ProtocolName", stream=3)
    for field in ("kind", "attachment", "relay"):
        c.reply(f"open-unknown-{field}", "message", ask(**{field: 9}), 200, 3, "a value from the future is not guessed",
                stream=3)
    c.reply("open-over-streams-max", "session", ask(rid=9, stream=9), 401, 9, "4 streams at once here", stream=9,
            given="four-streams")
    c.reply("one-request-too-many", "session", frame("contact_list", 9), 206, 9, "4 requests at once here",
            given="four-requests")
    c.fatal("accept-stream-0", "session", frame("accept", 1, stream=0), "there is no stream 0", given="offered")
    c.fatal("accept-never-offered", "session", frame("accept", 1, stream=4), "this id was never offered", given="offered")
    c.fatal("reject-never-offered", "session", frame("reject", 1, stream=4, code=305), "this id was never offered",
            given="offered")
    c.swallowed("accept-too-late", "session", frame("accept", 1, stream=2), "the daemon gave up before",
                given="withdrawn")
    c.swallowed("reject-too-late", "session", frame("reject", 1, stream=2, code=305), "the daemon gave up before",
                given="withdrawn")


BAD_NAMES = [("empty", ""), ("no-slash", "chat/1"), ("one-segment", "/chat"), ("empty-segment", "/chat//1"),
             ("trailing-slash", "/chat/1/"), ("upper-case", "/Chat/1"), ("space", "/my chat/1"), ("nul", "/chat/\0"),
             ("not-ascii", "/café/1"), ("of-129-bytes", "/a" + NAME_128[1:]), ("only-a-slash", "/"),
             ("percent", "/a%20b/1")]


def requests(c):
    def register(*names, rid=3, **more):
        return frame("register", rid, protocols=[{"name": name} | more for name in names])

    c.reply("register-nothing", "message", register(), 200, 3, "one protocol at least")
    for ident, name in BAD_NAMES:
        c.reply(f"register-name-{ident}", "message", register(name), 200, 3, "that is no ProtocolName")
    c.reply("register-one-bad-of-two", "message", register("/good/1", "bad"), 200, 3, "all or nothing")
    c.reply("register-twice-in-one-list", "message", register("/a/1", "/a/1"), 200, 3, "each name once")
    for field in ("kind", "trust", "attachment"):
        c.reply(f"register-unknown-{field}", "message", register("/a/1", **{field: 9}), 200, 3,
                "a value from the future is not guessed")
    c.reply("register-again", "session", register("/chat/1"), 204, 3, "it is registered", given="registered")
    c.reply("register-over-protocols-max", "session", register("/a/1", "/b/1", "/c/1", "/d/1"), 206, 3,
            "4 protocols here, one is taken", given="registered")
    c.add("register-badly-with-rid-0", "message", register("bad", rid=0), 200, "complaint",
          "nobody waits, but it is said")
    c.reply("unregister-unknown", "session", frame("unregister", 3, names=["/nothing/1"]), 205, 3, "not registered",
            given="registered")
    c.reply("unregister-nothing", "message", frame("unregister", 3), 200, 3, "one name at least", given="registered")
    c.reply("unknown-body", "session", prefixed(v(1, 3) + b(39, b"later")), 201, 3, "a message from the future")
    c.reply("reserved-body", "session", prefixed(v(1, 3) + b(40, b"")), 201, 3, "a message from the future")
    c.reply("no-body", "session", prefixed(v(1, 3)), 201, 3, "a frame without a body")
    c.swallowed("unknown-body-with-rid-0", "session", prefixed(b(39, b"later")), "a notice from the future")
    c.swallowed("no-body-with-rid-0", "session", prefixed(v(70, 1)), "a notice from the future")
    c.swallowed("unknown-body-with-rid-0-from-the-daemon", "session", prefixed(b(39, b"later")),
                "a notice from the future", judge="plugin")
    c.reply("unknown-body-from-the-daemon", "session", prefixed(v(1, 3) + b(39, b"later")), 201, 3,
            "a message from the future", judge="plugin")
    c.swallowed("done-nobody-asked", "session", frame("done", 77), "an answer that came too late")
    c.swallowed("error-nobody-asked", "session", frame("error", 77, code=200), "an answer that came too late")
    c.swallowed("pong-nobody-asked", "session", frame("pong", 77, nonce=5), "an answer that came too late")
    c.swallowed("cancel-unknown", "session", frame("cancel", target=77), "it was done before")
    c.swallowed("ready-twice", "session", frame("ready"), "it is so already", given="ready")
    c.swallowed("log-line-too-long", "session", frame("log", level="INFO", text="x" * 1025), "cut, with a mark")
    c.swallowed("log-unknown-level", "session", frame("log", level=9, text="x"), "read as INFO")
    c.swallowed("status-unknown-health", "session", frame("status", health=9, text="x"), "read as unspecified")
    c.reply("subscribe-unknown-kind", "message", prefixed(v(1, 3) + b(31, b(1, b"\x09"))), 200, 3,
            "a value from the future is not guessed")
    for ident, raw in (("opened", frame("opened", 77, stream=1, protocol="/chat/1")), ("done", frame("done", 77)),
                       ("contacts", frame("contacts", 77))):
        c.swallowed(f"{ident}-nobody-asked-from-the-daemon", "session", raw, "an answer that came too late",
                    judge="plugin", given="open")


def malformed():
    c = Cases()
    strangers(c)
    lengths(c)
    broken_protobuf(c, "pre")
    broken_protobuf(c, "post")
    handshakes(c)
    wrong_direction(c)
    stream_rules(c)
    opens_and_answers(c)
    requests(c)
    daemon = {"launch_token": TOKEN, "secret": SECRET.hex(), "server_nonce": SERVER_NONCE.hex(), "peer_id": ANA,
              "tickets": [TICKET], "limits": JUDGE_LIMITS}
    return {"format": FORMAT, "daemon": daemon, "givens": GIVENS, "cases": c.cases}


# --- handshake.json ------------------------------------------------------------------------------------------------------


def proof(secret, client_nonce, server_nonce):
    return {"secret": secret.hex(), "client_nonce": client_nonce.hex(), "server_nonce": server_nonce.hex(),
            "server_proof": server_proof(secret, client_nonce, server_nonce).hex(),
            "client_proof": client_proof(secret, client_nonce, server_nonce).hex()}


def step(sender, name, rid=0, /, **values):
    return {"from": sender, "name": name, "text": plainly(name, rid, values), "hex": frame(name, rid, **values).hex()}


def plainly(name, rid, values):
    """A message as one reads it: Open rid 1: stream 1, peer "p2p1...", ..."""
    title = name.title().replace("_", "") + (f" rid {rid}" if rid else "")
    kinds = {field: kind.lstrip("*?") for _, field, kind in BODIES.get(name, (0, PARTS.get(name, [])))[1]}
    parts = [f"{field} {worded(kinds[field], value)}" for field, value in values.items()]
    return title + (": " + ", ".join(parts) if parts else "")


def worded(kind, value):
    if isinstance(value, list):
        return "[" + ", ".join(worded(kind, item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} {json.dumps(x)}" for k, x in value.items()) + "}"
    if kind == "bytes":
        raw = bytes.fromhex(value)
        return json.dumps(raw.decode()) if raw.isascii() else value
    return value if kind in ENUMS else json.dumps(value)


def handshake():
    """Whole transcripts. `first_exchange` is the dump that opens SPEC.md: an inbound /chat/1 stream, answered and ended."""
    first = [
        step(P, "hello", 1, **HELLO),
        step(P, "register", 2, protocols=[{"name": "/chat/1"}]),
        step(D, "welcome", 1, **WELCOME),
        step(D, "done", 2),
        step(P, "ready"),
        step(D, "incoming", 1, stream=2, peer=BO, protocol="/chat/1", kind="STREAM", path="LOOPBACK", petname="bo",
             is_contact=True),
        step(P, "accept", 1, stream=2),
        step(D, "data", stream=2, payload=b"hello".hex()),
        step(P, "window", stream=2, bytes=5),
        step(P, "data", stream=2, payload=b"hello, bo".hex(), fin=True),
        step(D, "data", stream=2, fin=True),
        step(D, "stream_closed", stream=2, cause="FINISHED", bytes_in=5, bytes_out=9),
    ]
    welcome = step(D, "welcome", 1, **WELCOME)
    return {
        "format": FORMAT,
        "launch_token": TOKEN,
        "proofs": [proof(SECRET, CLIENT_NONCE, SERVER_NONCE), proof(bytes(32), bytes(32), bytes(32)),
                   proof(b"\xff" * 32, SERVER_NONCE, CLIENT_NONCE),
                   proof(hashlib.sha256(b"secret").digest(), hashlib.sha256(b"client").digest(),
                         hashlib.sha256(b"server").digest())],
        "token": [step(P, "hello", 1, **HELLO), welcome],
        "hmac": [step(P, "hello", 1, **HELLO_NONCE),
                 step(D, "challenge", 1, server_nonce=SERVER_NONCE.hex(),
                      server_proof=server_proof(SECRET, CLIENT_NONCE, SERVER_NONCE).hex()),
                 step(P, "auth_proof", 2, client_proof=client_proof(SECRET, CLIENT_NONCE, SERVER_NONCE).hex()),
                 step(D, "welcome", 2, **WELCOME)],
        "first_exchange": first,
    }


# --- files -----------------------------------------------------------------------------------------------------------------


def rows(value, depth=0):
    """JSON with one line per case, so that a change shows as one line."""
    pad = " " * (depth + 1)
    if isinstance(value, dict) and depth < 2:
        inner = [f"{pad}{json.dumps(k)}: {rows(x, depth + 1)}" for k, x in value.items()]
        return "{\n" + ",\n".join(inner) + "\n" + " " * depth + "}"
    if isinstance(value, list) and depth < 2 and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(pad + json.dumps(x, ensure_ascii=False) for x in value) + "\n" + " " * depth + "]"
    return json.dumps(value, ensure_ascii=False)


def files():
    return {
        "frames.json": {"format": FORMAT, "frames": list(golden_frames()), "decode_only": list(decode_only_frames())},
        "malformed.json": malformed(),
        "handshake.json": handshake(),
    }


SPEC = HERE.parent / "SPEC.md"
DUMP_START = "<!-- first-exchange: made by vectors/generate.py -->\n"
DUMP_END = "<!-- end -->\n"


def dump(steps):
    """The first exchange as SPEC.md shows it: who, what, and every byte."""
    lines = ["```"]
    for part in steps:
        lines += textwrap.wrap(f"{'>' if part['from'] == P else '<'} {part['text']}", 118, subsequent_indent="    ")
        data = bytes.fromhex(part["hex"])
        for start in range(0, len(data), 32):
            chunk = data[start:start + 32]
            lines.append("    " + "  ".join(chunk[i:i + 16].hex(" ") for i in range(0, len(chunk), 16)))
    return "\n".join([*lines, "```"]) + "\n"


def spec_with_dump():
    before, rest = SPEC.read_text(encoding="utf-8").split(DUMP_START)
    after = rest[rest.index(DUMP_END):]
    return before + DUMP_START + dump(handshake()["first_exchange"]) + after


def main(arguments):
    stale = []
    texts = {HERE / name: rows(content) + "\n" for name, content in files().items()} | {SPEC: spec_with_dump()}
    for path, text in texts.items():
        if arguments == ["--check"]:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(path.name)
        else:
            path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"error: {name} differs from what generate.py makes; run it and look at the change", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
