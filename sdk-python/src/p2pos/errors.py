"""Every exception of this package.

    P2posError
    ├── LaunchError                 the environment does not say where the daemon is
    ├── ConnectError                no daemon answered at the endpoint
    │   └── HandshakeRefused        it answered Refused; .code is 101 VERSION, 102 AUTH, ...
    ├── SessionEnded                the session is over; every later call raises it
    ├── RequestFailed               2xx and 5xx: the daemon said no
    │   ├── BadRequest              200
    │   ├── PermissionDenied        202, 203
    │   ├── AlreadyRegistered       204
    │   ├── LimitReached            206, 401
    │   └── RequestTimeout          207; also a TimeoutError
    ├── PeerError                   3xx: the peer could not be reached, or does not want us
    │   ├── PeerUnreachable         300, 301, 302, 303, 308: trying later may help
    │   ├── PeerNotReady            306: its plugin is starting; .retry_after says when to try
    │   ├── ProtocolNotSupported    304; .details lists what it serves
    │   └── PeerRefused             305
    ├── StreamEnded                 4xx: this stream is over, the session lives
    │   ├── StreamReset             both directions ended at once; bytes may be lost
    │   └── StreamStopped           the other side reads no more; reading still works
    ├── WireError                   bytes that are no message of this protocol (seen by authors of tools only)
    └── MisuseError                 a mistake in the calling program; also a ValueError

Each has `.code` (a number of SPEC.md section 10, 0 if none), `.hint` and `.details`; `str()` is one plain sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

from .codes import hint_of, name_of

__all__ = [
    "AlreadyRegistered",
    "BadRequest",
    "ConnectError",
    "HandshakeRefused",
    "LaunchError",
    "LimitReached",
    "MisuseError",
    "P2posError",
    "PeerError",
    "PeerNotReady",
    "PeerRefused",
    "PeerUnreachable",
    "PermissionDenied",
    "ProtocolNotSupported",
    "RequestFailed",
    "RequestTimeout",
    "SessionEnded",
    "StreamEnded",
    "StreamReset",
    "StreamStopped",
    "WireError",
    "error_of",
]


class P2posError(Exception):
    """The root: `except p2pos.P2posError` catches all of ours and nothing else."""

    def __init__(
        self,
        message: str,
        *,
        code: int = 0,
        app_code: int = 0,
        hint: str = "",
        details: Sequence[str] = (),
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.app_code = app_code
        """The other plugin's own number, if `code` is 400."""
        self.hint = hint or hint_of(code)
        """What to do next, for a person."""
        self.details = tuple(details)
        self.retry_after = retry_after
        """Seconds to wait before the next try; 0 if the daemon did not say."""

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} ({self.code} {name_of(self.code)})" if self.code else text


class LaunchError(P2posError):
    """The environment does not say where the daemon is: the program was not started by p2pos."""


class ConnectError(P2posError):
    """No daemon answered at the endpoint."""


class HandshakeRefused(ConnectError):
    """The daemon answered Refused: wrong version, spent token, and the like."""


class SessionEnded(P2posError):
    """The connection to the daemon is over; connect again with a fresh launch."""


class RequestFailed(P2posError):
    """The daemon said no to one request."""


class BadRequest(RequestFailed):
    """A field of the request is wrong; the message names it."""


class PermissionDenied(RequestFailed):
    """The user has not granted this; the manifest must ask for it."""


class AlreadyRegistered(RequestFailed):
    """Another plugin (or this one) serves the protocol already."""


class LimitReached(RequestFailed):
    """Too many streams, protocols or requests at once."""


class RequestTimeout(RequestFailed, TimeoutError):
    """The answer did not come in time."""


class PeerError(P2posError):
    """The peer could not be reached, or does not want us."""


class PeerUnreachable(PeerError):
    """No way to the peer works now; trying later may help."""


class PeerNotReady(PeerError):
    """The peer is there, its plugin is not running yet; see `retry_after`."""


class ProtocolNotSupported(PeerError):
    """No plugin of the peer serves the protocol; `details` lists what it serves."""


class PeerRefused(PeerError):
    """The peer's plugin rejected the stream."""


class StreamEnded(P2posError):
    """This stream is over; the session and other streams live."""


class StreamReset(StreamEnded):
    """Both directions ended at once, by the other side or by ourselves; bytes may be lost."""


class StreamStopped(StreamEnded):
    """The other side reads no more; what it writes can still be read."""


class WireError(P2posError):
    """Bytes that are no message of this protocol."""


class MisuseError(P2posError, ValueError):
    """A mistake in the calling program, for example writing after close_write()."""


_BY_CODE: dict[int, type[P2posError]] = {
    200: BadRequest,
    202: PermissionDenied,
    203: PermissionDenied,
    204: AlreadyRegistered,
    206: LimitReached,
    207: RequestTimeout,
    300: PeerUnreachable,
    301: PeerUnreachable,
    302: PeerUnreachable,
    303: PeerUnreachable,
    304: ProtocolNotSupported,
    305: PeerRefused,
    306: PeerNotReady,
    308: PeerUnreachable,
    401: LimitReached,
}
_BY_CLASS: dict[int, type[P2posError]] = {1: SessionEnded, 2: RequestFailed, 3: PeerError, 4: StreamReset}


def error_of(
    code: int,
    message: str = "",
    *,
    app_code: int = 0,
    hint: str = "",
    details: Sequence[str] = (),
    retry_after_ms: int = 0,
) -> P2posError:
    """Makes the exception that belongs to a code; a code of a later version gets the class of its hundred."""
    kind = _BY_CODE.get(code) or _BY_CLASS.get(code // 100, RequestFailed)
    text = message or name_of(code).lower().replace("_", " ")
    return kind(text, code=code, app_code=app_code, hint=hint, details=details, retry_after=retry_after_ms / 1000)
