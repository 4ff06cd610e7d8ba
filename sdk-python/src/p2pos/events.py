"""What a session machine is told at its beginning, and what it tells (protocol.py). Values only."""

from __future__ import annotations

from dataclasses import dataclass

from . import messages as m
from .errors import P2posError
from .frames import FRAME_BYTES_MAX
from .requests import Role
from .streams import UNLIMITED, Stream

__all__ = ["Answer", "Changed", "Ended", "Notice", "Received", "Request", "Settings"]

STREAM_WINDOW_BYTES = 256 * 1024
"""Bytes per stream before any credit, if Hello and Welcome do not say otherwise."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What Hello and Welcome agreed on, seen from our side."""

    role: Role
    frame_bytes_in_max: int = FRAME_BYTES_MAX
    frame_bytes_out_max: int = FRAME_BYTES_MAX
    data_bytes_max: int = 65536
    window_in: int = STREAM_WINDOW_BYTES
    window_out: int = STREAM_WINDOW_BYTES
    streams_max: int = 256
    requests_max: int = 1024

    @classmethod
    def of(cls, role: Role, hello: m.Hello, welcome: m.Welcome) -> Settings:
        """Reads the two messages; 0 means the default."""
        limits = welcome.limits or m.Limits()
        plugin_window = UNLIMITED if hello.auto_window else hello.stream_window_bytes or STREAM_WINDOW_BYTES
        daemon_window = limits.stream_window_bytes or STREAM_WINDOW_BYTES
        plugin_frame = hello.frame_bytes_max or FRAME_BYTES_MAX
        daemon_frame = limits.frame_bytes_max or FRAME_BYTES_MAX
        is_plugin = role is Role.PLUGIN
        return cls(
            role=role,
            frame_bytes_in_max=plugin_frame if is_plugin else daemon_frame,
            frame_bytes_out_max=daemon_frame if is_plugin else plugin_frame,
            data_bytes_max=min(limits.data_bytes_max or 65536, plugin_frame - 32, daemon_frame - 32),
            window_in=plugin_window if is_plugin else daemon_window,
            window_out=daemon_window if is_plugin else plugin_window,
            streams_max=limits.streams_max or 256,
            requests_max=limits.requests_max or 1024,
        )


@dataclass(frozen=True, slots=True)
class Request:
    """The other side asks; `reply(rid, ...)` answers. `stream` is set for Open and Incoming."""

    rid: int
    body: m.Message
    stream: Stream | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The other side answered our request `rid`."""

    rid: int
    body: m.Message


@dataclass(frozen=True, slots=True)
class Notice:
    """The other side says something that needs no answer (Event, Shutdown, GoAway, a complaint, ...)."""

    body: m.Message


@dataclass(frozen=True, slots=True)
class Changed:
    """Look at this stream again: bytes, credit, or its end came."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over."""

    error: P2posError


Received = Request | Answer | Notice | Changed | Ended
