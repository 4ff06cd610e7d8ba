"""The SDK for asyncio.

    from p2pos import aio

    async def main() -> None:
        async with aio.connect() as plugin:
            await plugin.register("/echo/1")
            async for stream in plugin.accept("/echo/1"):
                asyncio.create_task(echo(stream))

    async def echo(stream: aio.Stream) -> None:
        async with stream:
            async for chunk in stream:
                await stream.write(chunk)

The twelve calls: connect, register, accept, open, read, write, close_write, reset, send_datagram, subscribe, log,
wait_shutdown. Reading goes on in the background, so a program that only writes never blocks the session. Cancelling
any call is safe; a cancelled `write` may have sent a part. Needs an event loop with add_reader (on Windows use
`p2pos.sync`).
"""

from ..launch import Launch
from ._plugin import Plugin, connect
from ._streams import DetachedStream, Flow, Stream

__all__ = ["DetachedStream", "Flow", "Launch", "Plugin", "Stream", "connect"]
