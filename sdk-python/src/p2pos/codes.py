"""The registry of error codes: number, name and hint (SPEC.md section 10).

The number's hundred says what ended: 1xx the session, 2xx one request, 3xx an attempt to reach a peer, 4xx one stream,
5xx is the daemon's own fault. Unknown numbers of a later daemon stay plain numbers.
"""

from __future__ import annotations

import enum

__all__ = ["Code", "hint_of", "name_of"]


class Code(enum.IntEnum):
    """Says why something ended or was refused."""

    PROTOCOL = 100
    VERSION = 101
    AUTH = 102
    FRAME_TOO_LARGE = 103
    HANDSHAKE_TIMEOUT = 104
    SHUTTING_DOWN = 105
    SLOW_CONSUMER = 106
    REVOKED = 107
    BAD_REQUEST = 200
    UNKNOWN_METHOD = 201
    PERMISSION_DENIED = 202
    PERMISSION_PENDING = 203
    ALREADY_REGISTERED = 204
    NOT_REGISTERED = 205
    LIMIT = 206
    TIMEOUT = 207
    CANCELLED = 208
    NOT_FOUND = 209
    TOO_BIG = 210
    UNKNOWN = 300
    OFFLINE = 301
    UNREACHABLE = 302
    NEEDS_RELAY = 303
    PROTOCOL_NOT_SUPPORTED = 304
    REFUSED = 305
    NOT_READY = 306
    IDENTITY_MISMATCH = 307
    LOCAL_OFFLINE = 308
    APP = 400
    STREAM_LIMIT = 401
    FLOW_CONTROL = 402
    PLUGIN_GONE = 403
    PATH_LOST = 404
    IDLE = 405
    INTERNAL = 500


HINTS: dict[int, str] = {
    100: "the sender broke a rule of the plugin protocol; SPEC.md names the rule",
    101: "update whichever of plugin and daemon is older",
    102: "start the plugin through p2pos, or take a fresh token with `p2pos plugins run`",
    103: "send smaller frames; Welcome.limits tells the largest",
    104: "send Hello within 5 seconds of connecting",
    105: "nothing is wrong: the other side ends",
    106: "read from the socket all the time, also while you write",
    107: "the user withdrew the plugin's permission to run",
    200: "a field of the request is wrong; the message names it",
    201: "this daemon is older than the request; look at Welcome.features",
    202: "the plugin's manifest must ask for it and the user must grant it",
    203: "the user has not answered yet; see `p2pos plugins list`",
    204: "another plugin serves this protocol; stop one of the two",
    205: "register the protocol first",
    206: "wait until earlier requests are done; Welcome.limits tells how many fit",
    207: "nothing came in time; try again later",
    208: "nothing is wrong: the request was given up",
    209: "there is no such thing; look at the spelling",
    210: "send less in one piece; the message tells the limit",
    300: "no address of this peer is known; add one with `p2pos contacts add PEER --addr HOST:PORT`",
    301: "the peer's daemon does not run, or has no network",
    302: "no way to the peer worked; the details tell what was tried, `p2pos ping PEER` tries again",
    303: "only a relay would reach the peer, and none is allowed; `p2pos contacts relay PEER auto` allows them",
    304: "no plugin of the peer serves it; the details tell what it serves",
    305: "the peer's plugin does not want this stream",
    306: "the peer's plugin is not running just now; try again later",
    307: "reserved, never sent: whoever else is at the peer's address stays silent, which is 302",
    308: "this machine has no network",
    400: "the other plugin's own code; see app_code",
    401: "close streams before opening more; Welcome.limits tells how many fit",
    402: "send no more than the credit that was given",
    403: "the other plugin ended; it may come back",
    404: "the connection to the peer broke; open the stream again",
    405: "nothing moved on the stream for too long",
    500: "a fault of the daemon; please report it with `p2pos plugins logs ID`",
}


def name_of(code: int) -> str:
    """The registry's name of a code, or UNKNOWN_CODE for one of a later version."""
    try:
        return Code(code).name
    except ValueError:
        return "UNKNOWN_CODE"


def hint_of(code: int) -> str:
    """What a person can do about a code; empty if this version does not know it."""
    return HINTS.get(code, "")
