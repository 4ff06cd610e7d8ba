"""The chat plugin: the process that p2pos starts. It has no terminal; chat.py is for people.

It joins three parts: store.py (what was said, on disk), delivery.py (to and from other people's plugins), counter.py
(to and from the front ends of this user).
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import sys

for _place in (os.environ.get("P2POS_SDK_PYTHON"), pathlib.Path(__file__).resolve().parents[2] / "sdk-python" / "src"):
    if _place and (pathlib.Path(_place) / "p2pos").is_dir():
        sys.path.insert(0, str(_place))
        break

from p2pos import LaunchError, P2posError, aio  # noqa: E402

from counter import Counter  # noqa: E402
from delivery import Delivery  # noqa: E402
from store import Store  # noqa: E402

EXIT_CONFIG = 78
"""sysexits.h EX_CONFIG: starting again would not help."""


async def run() -> None:
    launch = aio.Launch.from_env()
    directory = launch.data_dir or pathlib.Path.cwd()
    store = Store(directory)
    async with aio.connect(launch) as plugin:
        counter = Counter(plugin, store)
        delivery = counter.delivery = Delivery(plugin, store, counter.on_message, counter.on_ack)
        serving = asyncio.create_task(counter.serve(directory))
        delivering = asyncio.create_task(delivery.run())
        done, _ = await asyncio.wait((serving, delivering), return_when=asyncio.FIRST_COMPLETED)
        for task in (serving, delivering):
            task.cancel()
        await asyncio.gather(serving, delivering, return_exceptions=True)
        for task in done:
            task.result()


def main() -> int:
    try:
        asyncio.run(run())
    except LaunchError as problem:
        print(f"error: {problem}\n  try: {problem.hint}", file=sys.stderr)
        return EXIT_CONFIG
    except P2posError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except BlockingIOError:
        print("error: another chat plugin uses this data directory", file=sys.stderr)
        return EXIT_CONFIG
    return 0


if __name__ == "__main__":
    sys.exit(main())
