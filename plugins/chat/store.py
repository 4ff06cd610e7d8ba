"""What was said, on disk: one append-only file per peer, and the outbox that follows from it.

A file is lines of JSON: `out` (we queued it), `ack` (the other side has it), `in` (we have it, and told so afterwards).
Every line is on the disk before anybody is told, so a kill at any moment loses nothing that was promised; a line that
was cut by one is dropped at the next start. A line is written whole or not at all, also on a full disk. What a broken
disk made of a line costs that line only: its bytes go to a file beside (`.damaged`), and `skip` stands in its place.

Our messages to a peer are numbered 1, 2, 3, ..., under the id of this store, which is random: so the other side knows
what it has already, and also that a new store begins to count anew.

A file that has grown to COMPACT_BYTES is rewritten: the newest lines stay, together with everything that is not
acknowledged and the numbers that must not be forgotten (`skip`, `heard`). The older lines go to a file beside (`.old`),
and that to `.older` when it is full. A kill at any moment leaves the old file or the new one.

Knows nothing of sockets and plugins. fsync blocks for some milliseconds, which a chat can afford.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

TEXT_BYTES_MAX = 16 * 1024
"""Bytes of one message: some pages. It must fit a line of the protocol with room to spare."""
QUEUE_MESSAGES_MAX = 10_000
"""Messages that wait for one peer; then `queue` says no instead of filling the disk."""
HISTORY_MESSAGES_MAX = 10_000
"""Messages per peer that are kept in memory; older ones stay in the file."""
COMPACT_BYTES = 8 * 1024 * 1024
"""Bytes of a talk's file at which it is rewritten: some 50,000 short messages, read at each start in half a second."""
KEEP_BYTES = COMPACT_BYTES // 2
"""Bytes of newest lines that stay. Half, so that a rewriting is paid for by as many bytes as it writes."""
ARCHIVE_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of older lines in `.old` before it becomes `.older`: so much a contact can make us keep, twice, and no more."""
STORES_OF_A_PEER_MAX = 16
"""Store ids per peer whose highest number we remember: a peer has one, and a new one with each new disk."""
LINE_STARTS = re.compile(rb'(?=\{"k": ")')
"""Where a line begins, even behind the rest of a damaged one: within a text, a quote would be escaped."""


class StoreError(Exception):
    """The message cannot be taken; the text says why."""


@dataclass(slots=True)
class Message:
    """One thing said."""

    number: int
    at_ms: int
    text: str
    is_ours: bool
    is_acked: bool = False
    """The other side has it on its disk. Always true for theirs."""


@dataclass(slots=True)
class Talk:
    """Everything with one peer."""

    path: pathlib.Path
    messages: deque[Message] = field(default_factory=lambda: deque(maxlen=HISTORY_MESSAGES_MAX))
    outbox: dict[int, Message] = field(default_factory=dict)
    """What the other side has not acknowledged, in order."""
    last_out: int = 0
    last_acked: int = 0
    last_in: dict[str, int] = field(default_factory=dict)
    """Store id of the other side -> the highest number that we have; the one heard of last is the last."""
    size: int = 0
    """Bytes of the file that are whole lines. What is behind them was cut off, and nobody was told of it."""
    compact_at: int = 0
    """Bytes of the file at which the next rewriting is due; 0: at COMPACT_BYTES."""

    def heard(self, store_id: str, number: int) -> None:
        """Remembers what we have. Beyond the limit the store that was silent longest is forgotten."""
        # A line that a rewriting kept may be older than the number that it kept.
        self.last_in[store_id] = max(number, self.last_in.pop(store_id, 0))
        if len(self.last_in) > STORES_OF_A_PEER_MAX:
            del self.last_in[next(iter(self.last_in))]


class Store:
    """All talks, in one directory."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory / "talks"
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._talks: dict[str, Talk] = {}
        self.id = self._load_id()
        for path in sorted(self._directory.glob("*.jsonl")):
            self._talks[path.stem] = _load(path)

    def peers(self) -> list[str]:
        """Everybody with whom something was said."""
        return list(self._talks)

    def talk(self, peer: str) -> Talk:
        """The talk with one peer; an empty one is made."""
        if peer not in self._talks:
            self._talks[peer] = Talk(self._directory / f"{peer}.jsonl")
        return self._talks[peer]

    def queue(self, peer: str, text: str) -> Message:
        """Takes a message of ours. When this returns, it will be sent, whatever happens to this process."""
        talk = self.talk(peer)
        if not text.strip():
            raise StoreError("there is nothing to send")
        if len(text.encode()) > TEXT_BYTES_MAX:
            raise StoreError(f"the text has {len(text.encode())} bytes, at most {TEXT_BYTES_MAX} fit")
        if len(talk.outbox) >= QUEUE_MESSAGES_MAX:
            raise StoreError(f"{QUEUE_MESSAGES_MAX} messages wait already")
        message = Message(talk.last_out + 1, time.time_ns() // 1_000_000, text, is_ours=True)
        _append(talk, {"k": "out", "n": message.number, "at": message.at_ms, "text": text})
        talk.last_out = message.number
        talk.outbox[message.number] = message
        talk.messages.append(message)
        return message

    def acknowledge(self, peer: str, number: int) -> Message | None:
        """The other side has it. None: we knew, or never sent it."""
        talk = self.talk(peer)
        message = talk.outbox.get(number)
        if message is None:
            return None
        _append(talk, {"k": "ack", "n": number})
        del talk.outbox[number]
        talk.last_acked = number
        message.is_acked = True
        return message

    def receive(self, peer: str, store_id: str, number: int, at_ms: int, text: str) -> Message | None:
        """Takes a message of theirs; acknowledge it after this. None: we have it already."""
        talk = self.talk(peer)
        if number <= talk.last_in.get(store_id, 0):
            return None
        _append(talk, {"k": "in", "from": store_id, "n": number, "at": at_ms, "text": text})
        talk.heard(store_id, number)
        message = Message(number, at_ms, text, is_ours=False, is_acked=True)
        talk.messages.append(message)
        return message

    def waiting(self) -> dict[str, int]:
        """Peer -> how many messages wait for it."""
        return {peer: len(talk.outbox) for peer, talk in self._talks.items() if talk.outbox}

    def _load_id(self) -> str:
        path = self._directory / "store-id"
        if not path.exists():
            fresh = path.with_suffix(".new")
            with fresh.open("w", encoding="ascii") as file:
                file.write(secrets.token_hex(8))
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(path)
            _sync_directory(self._directory)
        return path.read_text(encoding="ascii")


def _append(talk: Talk, line: dict[str, Any]) -> None:
    """One line, on the disk when this returns; no part of it when this raises."""
    data = _line(line)
    try:
        handle = os.open(talk.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            _append_whole(handle, talk.size, data)
        finally:
            os.close(handle)
        if talk.size == 0:
            _sync_directory(talk.path.parent)
    except OSError as problem:
        raise StoreError(f"it cannot be written to the disk: {problem.strerror or problem}") from problem
    talk.size += len(data)
    if talk.size >= (talk.compact_at or COMPACT_BYTES):
        _compact(talk)


def _compact(talk: Talk) -> None:
    """Rewrites the file without its older lines. A disk that has no room leaves it as it is, to be tried later."""
    talk.compact_at = talk.size + COMPACT_BYTES // 4
    # Damaged lines that could not be put aside yet are no reason to lose the new one, either.
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        kept, dropped = _sift(talk, talk.path.read_bytes()[: talk.size].splitlines(keepends=True))
        numbers = [_line({"k": "skip", "n": talk.last_out})]
        numbers += [_line({"k": "heard", "from": store_id, "n": n}) for store_id, n in talk.last_in.items()]
        _archive(talk.path.with_suffix(".old"), b"".join(dropped))
        _replace(talk, b"".join(numbers + kept))
        # What waits for an ack stays whatever its size; it must not be rewritten with every new line.
        talk.compact_at = max(COMPACT_BYTES, 2 * talk.size)


def _sift(talk: Talk, lines: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The lines that stay, and those that go, each in their order."""
    kept: list[bytes] = []
    dropped: list[bytes] = []
    room = KEEP_BYTES
    acked = set()
    for raw in reversed(lines):
        line = json.loads(raw)
        kind, number = line["k"], line["n"]
        if kind in ("skip", "heard"):
            continue
        room -= len(raw)
        # What waits stays, whatever its age; and an out without its ack would wait again.
        stays = room > 0 or (kind == "out" and (number in talk.outbox or number in acked))
        if stays and kind == "ack":
            acked.add(number)
        (kept if stays else dropped).append(raw)
    return kept[::-1], dropped[::-1]


def _archive(path: pathlib.Path, data: bytes) -> None:
    if path.exists() and path.stat().st_size + len(data) > ARCHIVE_BYTES_MAX:
        path.rename(path.with_suffix(".older"))
    with open(path, "ab", opener=_private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _append_whole(handle: int, size: int, data: bytes) -> None:
    if os.fstat(handle).st_size > size:
        os.ftruncate(handle, size)
    try:
        rest = data
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    except OSError:
        # Should this fail too: the next append does it.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, size)
        raise


def _line(line: dict[str, Any]) -> bytes:
    return (json.dumps(line, ensure_ascii=False) + "\n").encode()


def _sync_directory(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _load(path: pathlib.Path) -> Talk:
    talk = Talk(path)
    data = path.read_bytes()
    # What is behind the last end of line was cut by a kill in the middle of a write: nobody was told about it.
    talk.size = data.rfind(b"\n") + 1
    good, damaged = [], []
    for raw in data[: talk.size].splitlines():
        for piece in filter(None, LINE_STARTS.split(raw)):
            try:
                _replay(talk, json.loads(piece))
                good.append(piece + b"\n")
            except (ValueError, LookupError, TypeError, RecursionError):
                damaged.append(piece + b"\n")
    if damaged:
        # Any of them may have been a message of ours that they have: its number must not be used again.
        talk.last_out += len(damaged)
        good.append(_line({"k": "skip", "n": talk.last_out}))
        # On a full disk the file stays as it is, and is read in the same way the next time.
        with contextlib.suppress(OSError):
            _repair(talk, b"".join(good), b"".join(damaged))
    return talk


def _repair(talk: Talk, good: bytes, damaged: bytes) -> None:
    """Puts the damaged lines into a file beside, and the good ones in the place of all."""
    with open(talk.path.with_suffix(".damaged"), "ab", opener=_private) as file:
        file.write(damaged)
        file.flush()
        os.fsync(file.fileno())
    _replace(talk, good)


def _replace(talk: Talk, data: bytes) -> None:
    """The file has this content, or the old one."""
    fresh = talk.path.with_suffix(".new")
    with open(fresh, "wb", opener=_private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(talk.path)
    talk.size = len(data)
    _sync_directory(talk.path.parent)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _replay(talk: Talk, line: dict[str, Any]) -> None:
    """Raises ValueError, LookupError or TypeError, and changes nothing, if the line is none of ours."""
    kind, number = line["k"], line["n"]
    if not isinstance(number, int):
        raise TypeError("a number that is none")
    if kind == "out":
        message = Message(number, _checked(line["at"], int), _checked(line["text"], str), is_ours=True)
        talk.last_out = max(talk.last_out, number)
        talk.outbox[number] = message
        talk.messages.append(message)
    elif kind == "ack":
        talk.last_out = max(talk.last_out, number)
        known = talk.outbox.pop(number, None)
        if known is not None:
            known.is_acked = True
    elif kind == "in":
        at_ms, text = _checked(line["at"], int), _checked(line["text"], str)
        talk.heard(_checked(line["from"], str), number)
        talk.messages.append(Message(number, at_ms, text, is_ours=False, is_acked=True))
    elif kind == "skip":
        talk.last_out = max(talk.last_out, number)
    elif kind == "heard":
        talk.heard(_checked(line["from"], str), number)
    else:
        raise ValueError("a line of no kind that we know")


def _checked(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"a {kind.__name__} that is none")
    return value
