"""The agent on asyncio: obeys tools/conformance/ORDERS.md by p2pos.aio."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import cast

from orders import PIECE_BYTES, PREFIX, Unsupported, pattern, told, total

from p2pos import PeerEvent, __version__, aio
from p2pos.errors import P2posError, SessionEnded

Subject = aio.Stream | aio.DetachedStream | aio.Flow


class Obeying:
    """One order stream."""

    def __init__(self, plugin: aio.Plugin) -> None:
        self.plugin = plugin
        self.subject: Subject | None = None
        self.earlier: list[Subject] = []
        self.rest = b""
        self.events: AsyncIterator[PeerEvent] | None = None
        self.next_event: asyncio.Future[PeerEvent] | None = None

    async def serve(self, orders: aio.Stream) -> None:
        """Reads lines, and answers each."""
        said = b""
        async for chunk in orders:
            said += chunk
            while b"\n" in said:
                line, _, said = said.partition(b"\n")
                try:
                    answer = await self.order(line.decode())
                except (P2posError, Unsupported, OSError) as error:
                    answer = told(error)
                await orders.write(f"{answer}\n".encode())
        orders.close_write()

    async def order(self, line: str) -> str:
        """Does one thing."""
        word, *words = line.split(" ")
        text = line.split(" ", 2)[2] if len(words) > 1 else ""
        match word, words:
            case "hello", []:
                return f"ok p2pos for Python {__version__}"
            case "take", kind:
                return await self.take(kind[0] if kind else "stream")
            case "open", [peer, protocol, *kind]:
                return await self.open(peer, protocol, kind[0] if kind else "stream")
            case "write", [count, seed]:
                for start in range(0, int(count), PIECE_BYTES):
                    size = min(PIECE_BYTES, int(count) - start)
                    await self.stream().write(pattern(start, size, int(seed)))
                return f"ok {count}"
            case "read", [count]:
                return await self.read(None if count == "end" else int(count))
            case "echo", []:
                return await self.echo()
            case "finish", []:
                self.stream().close_write()
                return "ok"
            case "reset", [code]:
                assert self.subject is not None
                self.subject.reset(int(code))
                return "ok"
            case "stop", [code]:
                cast("aio.Stream", self.stream()).stop(int(code))
                return "ok"
            case "closed", []:
                facts = await self.stream().wait_closed()
                cause = "finished" if facts.is_finished else "ended"
                return f"ok {cause} {facts.code} {facts.app_code} {facts.bytes_in} {facts.bytes_out}"
            case "send", [count, seed]:
                self.flow().send_datagram(pattern(0, int(count), int(seed)))
                return "ok"
            case "receive", []:
                return f"ok {total(await self.flow().read_datagram())}"
            case "exit", [code]:
                os._exit(int(code))
            case "leave", []:
                await self.plugin.aclose()
                os._exit(0)
        return await self.request(word, words, text)

    async def request(self, word: str, words: list[str], text: str) -> str:
        """Orders about the session as a whole."""
        match word, words:
            case "register", [name]:
                await self.plugin.register(name)
            case "unregister", [name]:
                await self.plugin.unregister(name)
            case "contacts", []:
                contacts = await self.plugin.contacts()
                return " ".join(["ok", str(len(contacts)), *(contact.petname for contact in contacts)])
            case "subscribe", kinds:
                self.events = self.plugin.subscribe(*kinds)  # type: ignore[arg-type]
                self.next_event = asyncio.ensure_future(anext(self.events))
            case "event", []:
                assert self.events is not None
                assert self.next_event is not None
                event = await self.next_event
                self.next_event = asyncio.ensure_future(anext(self.events))
                return f"ok {event.kind} {event.what or '-'} {event.petname or '-'} {event.missed}"
            case "log", [level, *_]:
                self.plugin.log(text, level)  # type: ignore[arg-type]
            case "status", [health, *_]:
                self.plugin.status(health.replace("-", "_"), text)  # type: ignore[arg-type]
            case _:
                raise Unsupported
        return "ok"

    def stream(self) -> aio.Stream | aio.DetachedStream:
        """The subject, which is a stream."""
        return cast("aio.Stream | aio.DetachedStream", self.subject)

    def flow(self) -> aio.Flow:
        """The subject, which is a flow."""
        return cast("aio.Flow", self.subject)

    def change(self, subject: Subject) -> None:
        """Another subject; the earlier one is kept as it is."""
        if self.subject is not None:
            self.earlier.append(self.subject)
        self.subject, self.rest = subject, b""

    async def take(self, kind: str) -> str:
        """The next stream that somebody opened."""
        if kind == "datagram":
            flow = await self.plugin.accept_flow(f"{PREFIX}-datagram/1")
            self.change(flow)
            return f"ok {flow.peer} {flow.info.protocol} {flow.datagram_max}"
        stream = await self.plugin.accept(f"{PREFIX}-{kind}/1")
        self.change(stream)
        return f"ok {stream.peer} {stream.info.protocol}"

    async def open(self, peer: str, protocol: str, kind: str) -> str:
        """A stream to somebody."""
        if kind == "datagram":
            flow = await self.plugin.open_flow(peer, protocol)
            self.change(flow)
            return f"ok {flow.info.protocol} {flow.datagram_max}"
        opening = self.plugin.open_detached if kind == "detached" else self.plugin.open
        stream: aio.Stream | aio.DetachedStream = await opening(peer, protocol)
        self.change(stream)
        return f"ok {stream.info.protocol}"

    async def read(self, count: int | None) -> str:
        """So many bytes, or all."""
        data = bytearray()
        while count is None or len(data) < count:
            chunk = await self.stream().read(PIECE_BYTES if count is None else min(PIECE_BYTES, count - len(data)))
            if not chunk:
                return f"ok {total(data)} fin"
            data += chunk
        return f"ok {total(data)} more"

    async def echo(self) -> str:
        """Everything back."""
        count = 0
        while chunk := await self.stream().read():
            count += len(chunk)
            await self.stream().write(chunk)
        self.stream().close_write()
        return f"ok {count}"


async def refuse(plugin: aio.Plugin) -> None:
    """Rejects each stream of one protocol."""
    while True:
        await plugin.accept(f"{PREFIX}-refused/1", refuse=lambda _: "as ordered")


async def main() -> None:
    """Serves order streams until the daemon asks to end."""
    plugin = await aio.connect()
    await plugin.register(f"{PREFIX}/1", f"{PREFIX}-stream/1", f"{PREFIX}-refused/1")
    await plugin.register(f"{PREFIX}-detached/1", detached=True)
    await plugin.register(f"{PREFIX}-datagram/1", datagrams=True)
    plugin.ready()
    tasks = {asyncio.ensure_future(refuse(plugin))}
    try:
        async for orders in plugin.accept(f"{PREFIX}/1"):
            tasks.add(asyncio.ensure_future(Obeying(plugin).serve(cast("aio.Stream", orders))))
        await plugin.aclose()
    except SessionEnded as end:
        sys.stderr.write(f"{end}\n")
    sys.stderr.flush()
    os._exit(0)  # whatever waits need not be answered


if __name__ == "__main__":
    asyncio.run(main())
