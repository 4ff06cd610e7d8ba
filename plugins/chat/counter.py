"""The plugin's counter: where terminal front ends (chat.py) are served, over a unix socket in the data directory.

A front end writes lines of JSON and reads lines of JSON. Each answer carries the request's `tag`, if it had one.

    {"do": "send", "to": NAME, "text": TEXT}       {"ok": true, "id": 3, "to": PEER}; later {"event": "acked", ...}
    {"do": "peers"}                                {"ok": true, "peers": [{name, peer, connected, waiting}]}
    {"do": "history", "with": NAME, "last": 100}   {"ok": true, "messages": [...]}
    {"do": "follow"}                               {"ok": true}, then {"event": "message" | "acked", ...}

The socket is 0600 in a 0700 directory: whoever can open it is the user.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pathlib
from typing import Any

from p2pos import P2posError, aio

from delivery import Delivery
from store import Message, Store, StoreError

SOCKET = "chat.sock"
REQUEST_BYTES_MAX = 256 * 1024
"""Bytes of one request line; a text of 16 KiB fits, however it is escaped."""
FRONT_ENDS_MAX = 32
BACKLOG_BYTES_MAX = 1024 * 1024
"""Bytes that wait for a front end that does not read; then it is cut off."""
HISTORY_LAST = 100


class Unknown(Exception):
    """No contact of that name."""


class Counter:
    """Serves front ends."""

    def __init__(self, plugin: aio.Plugin, store: Store) -> None:
        self._plugin = plugin
        self._store = store
        self._names: dict[str, str] = {}
        self._connected: set[str] = set()
        self._followers: set[asyncio.StreamWriter] = set()
        self._count = 0
        self.delivery: Delivery | None = None

    async def serve(self, directory: pathlib.Path) -> None:
        """Serves for ever. A socket file that a killed plugin left is taken over."""
        # A relative path: a socket's path has 107 bytes at most, wherever the data directory is.
        os.chdir(directory)
        with open("chat.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(SOCKET)
            mask = os.umask(0o177)
            try:
                server = await asyncio.start_unix_server(self._serve_one, SOCKET, limit=REQUEST_BYTES_MAX)
            finally:
                os.umask(mask)
            try:
                async with server:
                    await server.serve_forever()
            finally:
                os.unlink(SOCKET)

    def on_message(self, peer: str, message: Message) -> None:
        """Something came."""
        self._tell({"event": "message", **self._form(peer, message)})

    def on_ack(self, peer: str, message: Message) -> None:
        """The other side has it."""
        self._tell({"event": "acked", **self._form(peer, message)})
        self._show_status()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        try:
            if self._count > FRONT_ENDS_MAX:
                return
            while raw := await reader.readline():
                answer = await self._answer(raw, writer)
                writer.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):  # gone, or a line too long
            pass
        finally:
            self._count -= 1
            self._followers.discard(writer)
            writer.close()

    async def _answer(self, raw: bytes, writer: asyncio.StreamWriter) -> dict[str, Any]:
        tag = None
        try:
            request = json.loads(raw)
            tag = request.get("tag")
            answer = {"ok": True, **await self._do(request, writer)}
        except Unknown as problem:
            answer = {"ok": False, "error": str(problem), "names": sorted(self._names)}
        except (StoreError, P2posError, OSError) as problem:
            answer = {"ok": False, "error": str(problem)}
        except (ValueError, LookupError, AttributeError, TypeError):
            answer = {"ok": False, "error": "that is no request"}
        return answer if tag is None else {"tag": tag, **answer}

    async def _do(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> dict[str, Any]:
        what = request["do"]
        if what == "send":
            peer = await self._find(request["to"])
            message = self._store.queue(peer, str(request["text"]))
            self._show_status()
            self._tell({"event": "queued", **self._form(peer, message)}, but=writer)
            if self.delivery is not None:
                self.delivery.nudge(peer)
            return {"id": message.number, "to": peer}
        if what == "peers":
            await self._learn_names()
            return {"peers": [self._peer(name, peer) for name, peer in sorted(self._names.items())]}
        if what == "history":
            await self._learn_names()
            peers = [await self._find(request["with"])] if request.get("with") else self._store.peers()
            found = [(peer, message) for peer in peers for message in self._store.talk(peer).messages]
            found.sort(key=lambda item: item[1].at_ms)
            last = int(request.get("last") or HISTORY_LAST)
            return {"messages": [self._form(peer, message) for peer, message in found[-last:]]}
        if what == "follow":
            await self._learn_names()
            self._followers.add(writer)
            return {}
        raise ValueError(what)

    def _peer(self, name: str, peer: str) -> dict[str, Any]:
        waiting = len(self._store.talk(peer).outbox)
        return {"name": name, "peer": peer, "connected": peer in self._connected, "waiting": waiting}

    async def _learn_names(self) -> None:
        contacts = await self._plugin.contacts()
        self._names = {contact.petname: contact.peer for contact in contacts}
        self._connected = {contact.peer for contact in contacts if contact.is_connected}

    async def _find(self, name: str) -> str:
        """The peer of a petname, of a beginning that fits one contact only, or of a PeerId."""
        await self._learn_names()
        if name in self._names:
            return self._names[name]
        if name in self._names.values():
            return name
        fitting = [peer for petname, peer in self._names.items() if name and petname.startswith(name)]
        if len(fitting) != 1:
            raise Unknown(f"no contact is called {name!r}" if not fitting else f"several contacts begin with {name!r}")
        return fitting[0]

    def _form(self, peer: str, message: Message) -> dict[str, Any]:
        name = next((petname for petname, known in self._names.items() if known == peer), "")
        state = "received" if not message.is_ours else "acked" if message.is_acked else "queued"
        return {
            "peer": peer,
            "name": name or peer[:12],
            "id": message.number,
            "at_ms": message.at_ms,
            "state": state,
            "text": message.text,
        }

    def _tell(self, event: dict[str, Any], but: asyncio.StreamWriter | None = None) -> None:
        data = json.dumps(event, ensure_ascii=False).encode() + b"\n"
        for writer in list(self._followers):
            if writer is but:
                continue
            if writer.transport.get_write_buffer_size() > BACKLOG_BYTES_MAX:
                self._followers.discard(writer)
                writer.close()
            else:
                writer.write(data)

    def _show_status(self) -> None:
        waiting = sum(self._store.waiting().values())
        self._plugin.status("ok", f"{waiting} messages wait for their people" if waiting else "")
