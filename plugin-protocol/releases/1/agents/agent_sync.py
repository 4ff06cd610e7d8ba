"""The agent that blocks, with a thread for each order stream: obeys tools/conformance/ORDERS.md by p2pos.sync."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import cast

from orders import PIECE_BYTES, PREFIX, Unsupported, pattern, told, total

from p2pos import PeerEvent, __version__, sync
from p2pos.errors import P2posError, SessionEnded

Subject = sync.Stream | sync.DetachedStream | sync.Flow


class Obeying:
    """One order stream."""

    def __init__(self, plugin: sync.Plugin) -> None:
        self.plugin = plugin
        self.subject: Subject | None = None
        self.earlier: list[Subject] = []
        self.rest = b""
        self.events: queue.Queue[PeerEvent] = queue.Queue()

    def serve(self, orders: sync.Stream) -> None:
        """Reads lines, and answers each."""
        said = b""
        for chunk in orders:
            said += chunk
            while b"\n" in said:
                line, _, said = said.partition(b"\n")
                try:
                    answer = self.order(line.decode())
                except (P2posError, Unsupported, OSError) as error:
                    answer = told(error)
                orders.write(f"{answer}\n".encode())
        orders.close_write()

    def order(self, line: str) -> str:
        """Does one thing."""
        word, *words = line.split(" ")
        text = line.split(" ", 2)[2] if len(words) > 1 else ""
        match word, words:
            case "hello", []:
                return f"ok p2pos for Python {__version__}"
            case "take", kind:
                return self.take(kind[0] if kind else "stream")
            case "open", [peer, protocol, *kind]:
                return self.open(peer, protocol, kind[0] if kind else "stream")
            case "write", [count, seed]:
                for start in range(0, int(count), PIECE_BYTES):
                    size = min(PIECE_BYTES, int(count) - start)
                    self.stream().write(pattern(start, size, int(seed)))
                return f"ok {count}"
            case "read", [count]:
                return self.read(None if count == "end" else int(count))
            case "echo", []:
                return self.echo()
            case "finish", []:
                self.stream().close_write()
                return "ok"
            case "reset", [code]:
                assert self.subject is not None
                self.subject.reset(int(code))
                return "ok"
            case "stop", [code]:
                cast("sync.Stream", self.stream()).stop(int(code))
                return "ok"
            case "closed", []:
                facts = self.stream().wait_closed()
                cause = "finished" if facts.is_finished else "ended"
                return f"ok {cause} {facts.code} {facts.app_code} {facts.bytes_in} {facts.bytes_out}"
            case "send", [count, seed]:
                self.flow().send_datagram(pattern(0, int(count), int(seed)))
                return "ok"
            case "receive", []:
                return f"ok {total(self.flow().read_datagram())}"
            case "exit", [code]:
                os._exit(int(code))
            case "leave", []:
                self.plugin.close()
                os._exit(0)
        return self.request(word, words, text)

    def request(self, word: str, words: list[str], text: str) -> str:
        """Orders about the session as a whole."""
        match word, words:
            case "register", [name]:
                self.plugin.register(name)
            case "unregister", [name]:
                self.plugin.unregister(name)
            case "contacts", []:
                contacts = self.plugin.contacts()
                return " ".join(["ok", str(len(contacts)), *(contact.petname for contact in contacts)])
            case "subscribe", kinds:
                events = self.plugin.subscribe(*kinds)  # type: ignore[arg-type]
                threading.Thread(target=self.listen, args=(events,), daemon=True).start()
            case "event", []:
                event = self.events.get()
                return f"ok {event.kind} {event.what or '-'} {event.petname or '-'} {event.missed}"
            case "log", [level, *_]:
                self.plugin.log(text, level)  # type: ignore[arg-type]
            case "status", [health, *_]:
                self.plugin.status(health.replace("-", "_"), text)  # type: ignore[arg-type]
            case _:
                raise Unsupported
        return "ok"

    def listen(self, events: Iterator[PeerEvent]) -> None:
        """In a thread of its own: the first step of the iteration subscribes."""
        with contextlib.suppress(SessionEnded):
            for event in events:
                self.events.put(event)

    def stream(self) -> sync.Stream | sync.DetachedStream:
        """The subject, which is a stream."""
        return cast("sync.Stream | sync.DetachedStream", self.subject)

    def flow(self) -> sync.Flow:
        """The subject, which is a flow."""
        return cast("sync.Flow", self.subject)

    def change(self, subject: Subject) -> None:
        """Another subject; the earlier one is kept as it is."""
        if self.subject is not None:
            self.earlier.append(self.subject)
        self.subject, self.rest = subject, b""

    def take(self, kind: str) -> str:
        """The next stream that somebody opened."""
        if kind == "datagram":
            flow = self.plugin.accept_flow(f"{PREFIX}-datagram/1")
            self.change(flow)
            return f"ok {flow.peer} {flow.info.protocol} {flow.datagram_max}"
        stream = self.plugin.accept(f"{PREFIX}-{kind}/1").one()
        self.change(stream)
        return f"ok {stream.peer} {stream.info.protocol}"

    def open(self, peer: str, protocol: str, kind: str) -> str:
        """A stream to somebody."""
        if kind == "datagram":
            flow = self.plugin.open_flow(peer, protocol)
            self.change(flow)
            return f"ok {flow.info.protocol} {flow.datagram_max}"
        opening = self.plugin.open_detached if kind == "detached" else self.plugin.open
        stream: sync.Stream | sync.DetachedStream = opening(peer, protocol)
        self.change(stream)
        return f"ok {stream.info.protocol}"

    def read(self, count: int | None) -> str:
        """So many bytes, or all."""
        data = bytearray()
        while count is None or len(data) < count:
            chunk = self.stream().read(PIECE_BYTES if count is None else min(PIECE_BYTES, count - len(data)))
            if not chunk:
                return f"ok {total(data)} fin"
            data += chunk
        return f"ok {total(data)} more"

    def echo(self) -> str:
        """Everything back."""
        count = 0
        while chunk := self.stream().read():
            count += len(chunk)
            self.stream().write(chunk)
        self.stream().close_write()
        return f"ok {count}"


def refuse(plugin: sync.Plugin) -> None:
    """Rejects each stream of one protocol."""
    while True:
        plugin.accept(f"{PREFIX}-refused/1", refuse=lambda _: "as ordered").one()


def main() -> None:
    """Serves order streams until the daemon asks to end."""
    plugin = sync.connect()
    plugin.register(f"{PREFIX}/1", f"{PREFIX}-stream/1", f"{PREFIX}-refused/1")
    plugin.register(f"{PREFIX}-detached/1", detached=True)
    plugin.register(f"{PREFIX}-datagram/1", datagrams=True)
    plugin.ready()
    threading.Thread(target=refuse, args=(plugin,), daemon=True).start()
    try:
        for orders in plugin.accept(f"{PREFIX}/1"):
            serve = Obeying(plugin).serve
            threading.Thread(target=serve, args=(cast("sync.Stream", orders),), daemon=True).start()
        plugin.close()
    except SessionEnded as end:
        sys.stderr.write(f"{end}\n")
    sys.stderr.flush()
    os._exit(0)  # whatever waits need not be answered


if __name__ == "__main__":
    main()
