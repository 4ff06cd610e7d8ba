"""The handshake, both roles, as pure machines: bytes in, bytes and a verdict out (SPEC.md section 2).

`Caller` is the plugin's side. `Acceptor` is the daemon's side, which `p2pos.testing` uses. Randomness comes from the
caller, so that the vectors can fix it. Neither knows sockets or clocks.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from . import messages as m
from .codec import decode_frame, encode_frame
from .codes import Code, hint_of
from .errors import HandshakeRefused, WireError
from .frames import FRAME_BYTES_HARD_MAX, FRAME_BYTES_MAX, Deframer

__all__ = ["CREDIT_BYTES_MAX", "NONCE_BYTES", "VERSION", "Acceptor", "Caller", "Opening", "Secrets", "proofs"]

VERSION = 1
"""The version of the plugin protocol that this package speaks."""
MAGIC = "p2pOS"
NONCE_BYTES = 32
TICKET_BYTES = 16
HELLO_BYTES_MAX = 4096
"""Bytes of a frame before the handshake is over: a stranger cannot make us keep more."""
CREDIT_BYTES_MAX = 16 * 1024 * 1024
"""Most credit in bytes that one stream may have."""
FEATURES_MAX = 32
FEATURE_BYTES_MAX = 64
SDK_BYTES_MAX = 128


def proofs(secret: bytes, client_nonce: bytes, server_nonce: bytes) -> tuple[bytes, bytes]:
    """Returns (server_proof, client_proof): each side shows that it knows the secret, and never sends it."""
    nonces = client_nonce + server_nonce
    server = hmac.new(secret, b"p2pOS daemon v1" + nonces, hashlib.sha256).digest()
    client = hmac.new(secret, b"p2pOS plugin v1" + nonces, hashlib.sha256).digest()
    return server, client


class Caller:
    """The plugin's side: says Hello, proves the secret if asked, and waits for Welcome.

    `hello` has either its launch_token or its client_nonce set; with a nonce the endpoint file's secret is needed.
    """

    def __init__(self, hello: m.Hello, secret: bytes = b"") -> None:
        self._hello = hello
        self._secret = secret
        self._proven = hello.client_nonce is None
        self._frames = Deframer(hello.frame_bytes_max or FRAME_BYTES_MAX)
        self._out = [encode_frame(hello, 1)]

    def poll_transmit(self) -> bytes:
        """What must be written now; empty if nothing."""
        out, self._out = b"".join(self._out), []
        return out

    def handle_input(self, data: bytes) -> m.Welcome | None:
        """Takes bytes of the daemon; the Welcome, once it is there. Raises HandshakeRefused and WireError."""
        self._frames.feed(data)
        while (frame := self._frames.next_frame()) is not None:
            _, body = decode_frame(bytes(frame))
            if isinstance(body, m.Challenge) and not self._proven:
                self._answer(body)
            elif isinstance(body, m.Welcome) and self._proven:
                if body.version != VERSION:
                    raise HandshakeRefused(f"the daemon chose version {body.version}", code=Code.VERSION)
                return body
            elif isinstance(body, m.Refused):
                hint = body.hint or hint_of(body.code)
                raise HandshakeRefused(body.message or "refused", code=body.code, hint=hint)
            elif body is not None:
                raise WireError(f"{type(body).__name__} came before Welcome", code=Code.PROTOCOL)
        return None

    def leftover(self) -> bytes:
        """What came behind Welcome: it belongs to the session."""
        return self._frames.rest()

    def _answer(self, challenge: m.Challenge) -> None:
        nonce = self._hello.client_nonce or b""
        server, client = proofs(self._secret, nonce, challenge.server_nonce)
        if not hmac.compare_digest(server, challenge.server_proof):
            # Whoever sits on this port does not know the secret: tell it nothing.
            raise HandshakeRefused("the daemon did not prove that it knows the secret", code=Code.AUTH)
        self._proven = True
        self._out.append(encode_frame(m.AuthProof(client), 2))


@dataclass(slots=True)
class Secrets:
    """What a daemon lets in: the tokens and tickets that are good now, and the endpoint file's secret."""

    tokens: set[str] = field(default_factory=set)
    tickets: set[bytes] = field(default_factory=set)
    secret: bytes = b""


@dataclass(slots=True)
class Opening:
    """A first frame that was good: a session (`hello`) or a detached stream (`ticket`)."""

    rid: int
    hello: m.Hello | None = None
    token: str = ""
    ticket: bytes = b""


class Acceptor:
    """The daemon's side. After a refusal `poll_transmit` has the answer (or nothing), then the socket is closed."""

    def __init__(self, secrets: Secrets, server_nonce: bytes) -> None:
        self._secrets = secrets
        self._server_nonce = server_nonce
        self._frames = Deframer(HELLO_BYTES_MAX)
        self._challenged: m.Hello | None = None
        self._is_first = True
        self._out: list[bytes] = []

    def poll_transmit(self) -> bytes:
        """What must be written now; empty if nothing."""
        out, self._out = b"".join(self._out), []
        return out

    def leftover(self) -> bytes:
        """What came behind the first frame."""
        return self._frames.rest()

    def handle_input(self, data: bytes) -> Opening | None:
        """Takes bytes of a stranger. Raises HandshakeRefused; the caller then sends what is left and closes."""
        if self._is_first and data and data[0] != 0:
            raise HandshakeRefused("something else than a plugin spoke", code=Code.PROTOCOL)  # and gets no byte back
        self._is_first = self._is_first and not data
        rid = 0
        try:
            self._frames.feed(data)
            while (frame := self._frames.next_frame()) is not None:
                rid, body = decode_frame(bytes(frame))
                if (opening := self._judge(rid, body)) is not None:
                    return opening
        except WireError as problem:
            code = problem.code or Code.PROTOCOL
            self._refuse(rid, code, str(problem.args[0]))
            raise HandshakeRefused(str(problem.args[0]), code=code) from None
        return None

    def _refuse(self, rid: int, code: int, message: str) -> None:
        refused = m.Refused(code, message, hint_of(code))
        if code == Code.VERSION:
            refused.min_version = refused.max_version = VERSION
        self._out.append(encode_frame(refused, rid))

    def _judge(self, rid: int, body: m.Message | None) -> Opening | None:
        if self._challenged is not None:
            if not isinstance(body, m.AuthProof):
                raise WireError("only AuthProof may follow a Challenge", code=Code.PROTOCOL)
            nonce = self._challenged.client_nonce or b""
            wanted = proofs(self._secrets.secret, nonce, self._server_nonce)[1]
            if not hmac.compare_digest(wanted, body.client_proof):
                raise WireError("the proof is wrong", code=Code.AUTH)
            return Opening(rid, hello=self._challenged)
        if isinstance(body, m.Attach):
            if body.ticket not in self._secrets.tickets:
                raise WireError("no such ticket", code=Code.AUTH)
            self._secrets.tickets.discard(body.ticket)
            return Opening(rid, ticket=body.ticket)
        if not isinstance(body, m.Hello):
            raise WireError("the first frame must be Hello or Attach", code=Code.PROTOCOL)
        _check_hello(body)
        if body.client_nonce is not None:
            self._challenged = body
            server = proofs(self._secrets.secret, body.client_nonce, self._server_nonce)[0]
            self._out.append(encode_frame(m.Challenge(self._server_nonce, server), rid))
            return None
        token = body.launch_token or ""
        if not any(hmac.compare_digest(token.encode(), good.encode()) for good in self._secrets.tokens):
            raise WireError("no such launch token, or it was used before", code=Code.AUTH)
        self._secrets.tokens.discard(token)
        return Opening(rid, hello=body, token=token)


def _check_hello(hello: m.Hello) -> None:
    def require(is_good: bool, message: str, code: Code = Code.PROTOCOL) -> None:
        if not is_good:
            raise WireError(message, code=code)

    require(hello.magic == MAGIC, 'magic is not "p2pOS"')
    frame_max, window = hello.frame_bytes_max, hello.stream_window_bytes
    require(frame_max == 0 or HELLO_BYTES_MAX <= frame_max <= FRAME_BYTES_HARD_MAX, "frame_bytes_max is out of range")
    require(window <= CREDIT_BYTES_MAX, "stream_window_bytes is over 16 MiB")
    require(len(hello.features) <= FEATURES_MAX, "too many features")
    require(all(len(name.encode()) <= FEATURE_BYTES_MAX for name in hello.features), "a feature's name is too long")
    require(len(hello.sdk.encode()) <= SDK_BYTES_MAX, "sdk is too long")
    nonce = hello.client_nonce
    require(nonce is None or len(nonce) == NONCE_BYTES, "client_nonce has not 32 bytes")
    require(hello.min_version <= VERSION <= hello.max_version, "no version in common", Code.VERSION)
    require(nonce is not None or bool(hello.launch_token), "no launch_token and no client_nonce", Code.AUTH)
