"""How a plugin finds its daemon: the launch environment, or the endpoint file (SPEC.md section 11).

Reads the environment and one file; opens no socket of the session and keeps no state.
"""

from __future__ import annotations

import json
import os
import pathlib
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from . import messages as m
from .errors import ConnectError, LaunchError
from .handshake import NONCE_BYTES, VERSION
from .version import __version__

__all__ = ["CONNECT_TIMEOUT_S", "Launch"]

CONNECT_TIMEOUT_S = 5.0
"""Seconds that connecting and the handshake may take; the daemon gives a stranger no longer either."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a plugin needs to connect. `Launch.from_env()` is what `connect()` uses by itself."""

    endpoint: str
    """"unix:/path" or "tcp:127.0.0.1:PORT"."""
    token: str = field(default="", repr=False)
    secret: bytes = field(default=b"", repr=False)
    """From the endpoint file, for programs that the daemon did not start."""
    plugin_id: str = ""
    data_dir: pathlib.Path | None = None
    exits_with_stdin: bool = False

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Launch:
        """Reads P2POS_ENDPOINT, P2POS_TOKEN and the rest. Raises LaunchError if they are not there."""
        env = os.environ if env is None else env
        endpoint, token = env.get("P2POS_ENDPOINT", ""), env.get("P2POS_TOKEN", "")
        if not endpoint or not token:
            hint = "start it through p2pos; while you write it: p2pos plugins run DIR"
            raise LaunchError("P2POS_ENDPOINT and P2POS_TOKEN are not set: no daemon started this program", hint=hint)
        versions = env.get("P2POS_PROTOCOL_VERSIONS", str(VERSION)).replace(",", " ").split()
        if str(VERSION) not in versions:
            raise LaunchError(f"the daemon speaks plugin protocol {', '.join(versions)}, this SDK speaks {VERSION}")
        data_dir = env.get("P2POS_DATA_DIR")
        return cls(
            endpoint=endpoint,
            token=token,
            plugin_id=env.get("P2POS_PLUGIN_ID", ""),
            data_dir=pathlib.Path(data_dir) if data_dir else None,
            exits_with_stdin=env.get("P2POS_EXIT_ON_STDIN_CLOSE") == "1",
        )

    @classmethod
    def from_endpoint_file(cls, path: str | os.PathLike[str]) -> Launch:
        """Reads the daemon's endpoint.json (0600): for tools of the same user that no daemon started."""
        try:
            told = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
            return cls(endpoint=told["endpoints"][0], secret=bytes.fromhex(told["secret"]))
        except (OSError, ValueError, LookupError, TypeError) as problem:
            raise LaunchError(f"{os.fspath(path)} is no endpoint file: {problem}") from problem

    def hello(self, *, auto_window: bool = False) -> m.Hello:
        """The Hello that belongs to this launch; a fresh nonce each time if there is no token."""
        hello = m.Hello("p2pOS", VERSION, VERSION, sdk=f"sdk-python {__version__}", auto_window=auto_window)
        if self.token:
            hello.launch_token = self.token
        else:
            hello.client_nonce = secrets.token_bytes(NONCE_BYTES)
        return hello

    def dial(self, timeout: float | None = CONNECT_TIMEOUT_S) -> socket.socket:
        """Connects a socket to the endpoint. Raises ConnectError and LaunchError."""
        kind, _, rest = self.endpoint.partition(":")
        try:
            if kind == "unix" and rest:
                if not hasattr(socket, "AF_UNIX"):
                    raise LaunchError('this system has no unix sockets; put socket = "tcp" into plugin.toml')
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                address: str | tuple[str, int] = rest
            elif kind == "tcp" and rest.rpartition(":")[2].isdigit():
                sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                host, _, port = rest.rpartition(":")
                address = (host, int(port))
            else:
                raise LaunchError(f"{self.endpoint!r} is no endpoint: unix:/path or tcp:127.0.0.1:PORT")
            sock.settimeout(timeout)
            try:
                sock.connect(address)
            except BaseException:
                sock.close()
                raise
        except OSError as problem:
            raise ConnectError(f"no daemon answers at {self.endpoint}: {problem}") from problem
        return sock
