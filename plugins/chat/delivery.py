"""Carries messages between stores, over /chat/1: lines of JSON, both ways on one stream.

    sender                                             receiver
    {"from": STORE, "n": 1, "at": MS, "text": "hi"}
                                                       (writes it to the disk, then)
                                                       {"ack": 1}

Whoever has something to say opens a stream; each side acknowledges on the stream on which it was told. The sender keeps
a message until its ack came, and says all unacknowledged ones again, in order, on the next stream. The receiver drops
what it has already, and acknowledges it again. So each message arrives once, whoever restarts when.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

from p2pos import P2posError, SessionEnded, aio

from store import TEXT_BYTES_MAX, Message, Store, StoreError

PROTOCOL = "/chat/1"
LINE_BYTES_MAX = 8 * TEXT_BYTES_MAX
"""Bytes of one line: a text whose every byte was escaped, and the rest. A longer one is no chat."""
ACK_BYTES_MAX = 1024
"""Bytes of the line of an ack: a number, and what a later version may add."""
RETRY_FIRST_S = 0.5
RETRY_MAX_S = 30.0
"""Seconds between tries, or what the other side asked for. A peer that connects is tried at once; a new message is not
a reason to try earlier, or a busy writer would hammer a peer who is away."""
IDLE_S = 60.0
"""Seconds that a stream is kept after the last ack: the next message then costs no opening."""
OPEN_TIMEOUT_S = 20.0

Heard = Callable[[str, Message], None]


class Delivery:
    """One task per peer with a non-empty outbox, and one per incoming stream. `on_message` and `on_ack` are told."""

    def __init__(self, plugin: aio.Plugin, store: Store, on_message: Heard, on_ack: Heard) -> None:
        self._plugin = plugin
        self._store = store
        self._on_message = on_message
        self._on_ack = on_ack
        self._senders: dict[str, asyncio.Task[None]] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._arrivals: dict[str, asyncio.Event] = {}
        self._receivers: set[asyncio.Task[None]] = set()
        self._is_running = False

    async def run(self) -> None:
        """Serves until the daemon asks the plugin to end."""
        await self._plugin.register(PROTOCOL)
        self._is_running = True
        for peer in self._store.waiting():
            self.nudge(peer)
        events = asyncio.create_task(self._watch_peers())
        try:
            async for stream in self._plugin.accept(PROTOCOL):
                task = asyncio.create_task(self._receive(stream))
                self._receivers.add(task)
                if stream.peer in self._arrivals:
                    self._arrivals[stream.peer].set()
                task.add_done_callback(self._receivers.discard)
        finally:
            self._is_running = False
            for task in [events, *self._senders.values(), *self._receivers]:
                task.cancel()
            await asyncio.gather(events, *self._senders.values(), *self._receivers, return_exceptions=True)

    def nudge(self, peer: str) -> None:
        """There may be something to send to this peer."""
        self._news.setdefault(peer, asyncio.Event()).set()
        self._arrivals.setdefault(peer, asyncio.Event())
        if peer not in self._senders and self._store.talk(peer).outbox:
            task = asyncio.create_task(self._send(peer))
            self._senders[peer] = task
            task.add_done_callback(lambda _: self._sender_ended(peer))

    def _sender_ended(self, peer: str) -> None:
        del self._senders[peer]
        # A message that came while the sender was leaving; not after the end of the session.
        if self._is_running and self._store.talk(peer).outbox:
            self.nudge(peer)

    async def _watch_peers(self) -> None:
        with contextlib.suppress(P2posError):
            async for event in self._plugin.subscribe("peer"):
                if event.what == "connected" and event.peer in self._arrivals:
                    self._arrivals[event.peer].set()

    # --- sending ---

    async def _send(self, peer: str) -> None:
        talk, arrival = self._store.talk(peer), self._arrivals[peer]
        delay = RETRY_FIRST_S
        while talk.outbox:
            arrival.clear()
            before = talk.last_acked
            asked_for = 0.0
            try:
                await self._deliver(peer)
            except SessionEnded:
                self._is_running = False
                return
            except (P2posError, StoreError, ValueError) as problem:
                self._plugin.log(f"{len(talk.outbox)} messages wait: {problem}", "debug")
                asked_for = getattr(problem, "retry_after", 0.0)
            delay = RETRY_FIRST_S if talk.last_acked > before else min(delay * 2, RETRY_MAX_S)
            if talk.outbox:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(arrival.wait(), asked_for or delay)

    async def _deliver(self, peer: str) -> None:
        """One stream: says what is unacknowledged and what comes, until the stream ends or all is quiet."""
        talk, news = self._store.talk(peer), self._news[peer]
        async with self._plugin.open(peer, PROTOCOL, timeout=OPEN_TIMEOUT_S) as stream:
            acks = asyncio.create_task(self._read_acks(peer, stream))
            try:
                said = 0
                while not acks.done():
                    for number in [number for number in talk.outbox if number > said]:
                        await stream.write(self._line(talk.outbox[number]))
                        said = number
                    if not await _rang(news, acks, IDLE_S) and not talk.outbox:
                        return
            finally:
                acks.cancel()
                await asyncio.gather(acks, return_exceptions=True)
            acks.result()

    async def _read_acks(self, peer: str, stream: aio.Stream) -> None:
        async for line in lines(stream, ACK_BYTES_MAX):
            message = self._store.acknowledge(peer, _integer(line, "ack"))
            if message is not None:
                self._on_ack(peer, message)

    def _line(self, message: Message) -> bytes:
        line = {"from": self._store.id, "n": message.number, "at": message.at_ms, "text": message.text}
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"

    # --- receiving ---

    async def _receive(self, stream: aio.Stream | aio.DetachedStream) -> None:
        try:
            async with stream:
                async for line in lines(stream, LINE_BYTES_MAX):
                    number, sender, text = _integer(line, "n"), _text(line, "from"), _text(line, "text")
                    if len(sender) > 64 or len(text.encode()) > TEXT_BYTES_MAX:
                        raise ValueError("a line with too long a text")
                    # On the disk first: an ack is a promise.
                    message = self._store.receive(stream.peer, sender, number, _integer(line, "at"), text)
                    await stream.write(json.dumps({"ack": number}).encode() + b"\n")
                    if message is not None:
                        self._on_message(stream.peer, message)
        except SessionEnded:
            return
        except (P2posError, StoreError, ValueError) as problem:
            self._plugin.log(f"a stream of {stream.info.petname or stream.peer} ended: {problem}", "debug")


async def _rang(news: asyncio.Event, other: asyncio.Task[None], timeout: float) -> bool:
    """Waits for news, or the end of `other`; False: neither came in time."""
    ring = asyncio.create_task(news.wait())
    done, _ = await asyncio.wait((ring, other), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    ring.cancel()
    if ring in done:
        news.clear()
    return bool(done)


async def lines(stream: AsyncIterable[bytes], bytes_max: int) -> AsyncIterator[dict[str, Any]]:
    """The stream's lines. Raises ValueError for what is no line of JSON object, or too long."""
    rest = b""
    async for chunk in stream:
        rest += chunk
        *whole, rest = rest.split(b"\n")
        for raw in [*whole, rest]:
            if len(raw) > bytes_max:
                raise ValueError(f"a line of more than {bytes_max} bytes")
        for raw in whole:
            yield _object(raw)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        line = json.loads(raw)
    except RecursionError:
        raise ValueError("a line of boxes in boxes without end") from None
    if not isinstance(line, dict):
        raise ValueError("a line that is no object")
    return line


def _integer(line: dict[str, Any], name: str) -> int:
    value = line.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise ValueError(f"a line without {name}")
    return value


def _text(line: dict[str, Any], name: str) -> str:
    value = line.get(name)
    if not isinstance(value, str):
        raise ValueError(f"a line without {name}")
    return value
