"""The bench plugin on the Python SDK: both shells, streams muxed and detached, at both ends.

    bench.py aio|sync mux|detached serve
    bench.py aio|sync mux|detached drive PEER JOB AMOUNT      prints one JSON line

What each job does on a stream stands in `src/work.rs`: its first byte names it, and the other side answers with a count
of 8 bytes. Written as an author would write it: reads go into one buffer, writes are what the job says.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from struct import Struct

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "sdk-python" / "src"))

from p2pos import aio, sync

PROTOCOLS = {"mux": "/p2pos-bench/1", "detached": "/p2pos-bench-detached/1"}
CHUNK = bytes(64 * 1024)
MESSAGE = (64).to_bytes(4, "big") + bytes(64)
BATCH_BYTES = 8 * 1024
READ_BYTES = 256 * 1024
LENGTH = Struct(">I")
SETTLE_S = 1.5
"""As long as every other driver waits before it begins."""


class Counter:
    """What the receiving side counts: bytes of a bulk job, messages of the others."""

    def __init__(self) -> None:
        self.job = b""
        self.count = 0
        self._rest = b""

    def feed(self, data: memoryview) -> None:
        """Takes the next bytes of a stream; the first of all names the job."""
        if not self.job:
            self.job = bytes(data[:1])
            data = data[1:]
        if self.job == b"S":
            self.count += len(data)
        else:
            self._messages(memoryview(self._rest + bytes(data)) if self._rest else data)

    def answer(self) -> bytes:
        """The count, as the driving side wants it."""
        return self.count.to_bytes(8, "big")

    def _messages(self, data: memoryview) -> None:
        at, end, count = 0, len(data), 0
        unpack = LENGTH.unpack_from
        while at + 4 <= end:
            after = at + 4 + unpack(data, at)[0]
            if after > end:
                break
            at, count = after, count + 1
        self.count += count
        self._rest = bytes(data[at:])


class Work:
    """What the driving side writes, piece by piece."""

    def __init__(self, job: str, amount: float) -> None:
        self.job = job
        self._left = int(amount)
        self._ends = time.monotonic() + amount
        per_batch = max(1, BATCH_BYTES // len(MESSAGE)) if job == "messages-batched" else 1
        self._batch = MESSAGE * per_batch
        self.first = b"S" if job == "bulk" else b"M"
        self.done = 0
        self._begun = time.monotonic()

    def next(self) -> bytes:
        """The next write; empty when it is enough."""
        if self.job == "bulk":
            if time.monotonic() >= self._ends:
                return b""
            self.done += len(CHUNK)
            return CHUNK
        messages = min(self._left, len(self._batch) // len(MESSAGE))
        self._left -= messages
        self.done += messages
        return self._batch if messages * len(MESSAGE) == len(self._batch) else self._batch[: messages * len(MESSAGE)]

    def report(self, answer: bytes) -> None:
        """Prints what was measured, if the other side counted the same."""
        spent = time.monotonic() - self._begun
        counted = int.from_bytes(answer, "big")
        if counted != self.done:
            raise SystemExit(f"sent {self.done}, the other side counted {counted}")
        unit, scale = ("mib_per_s", 1 << 20) if self.job == "bulk" else ("messages_per_s", 1)
        print(json.dumps({"unit": unit, "value": self.done / scale / spent, "p99": None}), flush=True)


async def aio_serve(mode: str) -> None:
    tasks = set()
    async with aio.connect() as plugin:
        await plugin.register(PROTOCOLS[mode], detached=mode == "detached")
        async for stream in plugin.accept(PROTOCOLS[mode]):
            task = asyncio.create_task(aio_count(stream))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def aio_count(stream: aio.Stream | aio.DetachedStream) -> None:
    counter, buffer = Counter(), memoryview(bytearray(READ_BYTES))
    async with stream:
        while count := await stream.read_into(buffer):
            counter.feed(buffer[:count])
        await stream.write(counter.answer())


async def aio_drive(mode: str, peer: str, job: str, amount: float) -> None:
    async with aio.connect() as plugin:
        opening = plugin.open if mode == "mux" else plugin.open_detached
        stream = await opening(peer, PROTOCOLS[mode])
        async with stream:
            await asyncio.sleep(SETTLE_S)
            work = Work(job, amount)
            await stream.write(work.first)
            while piece := work.next():
                await stream.write(piece)
            stream.close_write()
            answer = b""
            while more := await stream.read():
                answer += more
            work.report(answer)


def sync_serve(mode: str) -> None:
    with sync.connect() as plugin:
        plugin.register(PROTOCOLS[mode], detached=mode == "detached")
        for stream in plugin.accept(PROTOCOLS[mode]):
            counter, buffer = Counter(), memoryview(bytearray(READ_BYTES))
            with stream:
                while count := stream.read_into(buffer):
                    counter.feed(buffer[:count])
                stream.write(counter.answer())


def sync_drive(mode: str, peer: str, job: str, amount: float) -> None:
    with sync.connect() as plugin:
        opening = plugin.open if mode == "mux" else plugin.open_detached
        with opening(peer, PROTOCOLS[mode]) as stream:
            time.sleep(SETTLE_S)
            work = Work(job, amount)
            stream.write(work.first)
            while piece := work.next():
                stream.write(piece)
            stream.close_write()
            answer = b""
            while more := stream.read():
                answer += more
            work.report(answer)


def main() -> None:
    shell, mode, action, *rest = sys.argv[1:]
    if action == "serve":
        asyncio.run(aio_serve(mode)) if shell == "aio" else sync_serve(mode)
        return
    peer, job, amount = rest[0], rest[1], float(rest[2])
    asyncio.run(aio_drive(mode, peer, job, amount)) if shell == "aio" else sync_drive(mode, peer, job, amount)


if __name__ == "__main__":
    main()
