"""The Python SDK for p2pOS plugins: open a protocol at a person, read and write.

`p2pos.aio` is for asyncio, `p2pos.sync` for programs that block; both have the same calls. `p2pos.testing` has a fake
daemon for the tests of your plugin. Every exception is in `p2pos.errors`, its tree is drawn there. Needs nothing but
the standard library.
"""

from .codes import Code, hint_of, name_of
from .errors import (
    AlreadyRegistered,
    BadRequest,
    ConnectError,
    HandshakeRefused,
    LaunchError,
    LimitReached,
    MisuseError,
    P2posError,
    PeerError,
    PeerNotReady,
    PeerRefused,
    PeerUnreachable,
    PermissionDenied,
    ProtocolNotSupported,
    RequestFailed,
    RequestTimeout,
    SessionEnded,
    StreamEnded,
    StreamReset,
    StreamStopped,
    WireError,
)
from .launch import Launch
from .names import check_peer_id, check_protocol_name
from .plugin import Closed, PeerEvent, StreamInfo
from .version import __version__

__all__ = [
    "AlreadyRegistered",
    "BadRequest",
    "Closed",
    "Code",
    "ConnectError",
    "HandshakeRefused",
    "Launch",
    "LaunchError",
    "LimitReached",
    "MisuseError",
    "P2posError",
    "PeerError",
    "PeerEvent",
    "PeerNotReady",
    "PeerRefused",
    "PeerUnreachable",
    "PermissionDenied",
    "ProtocolNotSupported",
    "RequestFailed",
    "RequestTimeout",
    "SessionEnded",
    "StreamEnded",
    "StreamInfo",
    "StreamReset",
    "StreamStopped",
    "WireError",
    "__version__",
    "check_peer_id",
    "check_protocol_name",
    "hint_of",
    "name_of",
]
