"""Plays daemon and peers for scenario.c and waits.c: python3 scenario.py PROGRAM MODE [SEED]. COMMAND_PREFIX may hold valgrind and its options."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "sdk-python" / "src"))

from p2pos import P2posError  # noqa: E402
from p2pos.testing import FakeDaemon, FakePeer, RemoteFlow, RemoteStream  # noqa: E402

BYTES = bytes((i * 7 + i // 251) & 0xFF for i in range(300_000))
RUN_S_MAX = 40


def echo(stream: RemoteStream) -> None:
    while data := stream.read():
        stream.write(data)
    stream.close_write()


def sink(stream: RemoteStream) -> None:
    """Reads, but not at once."""
    time.sleep(0.5)
    while stream.read():
        pass


def mirror(flow: RemoteFlow) -> None:
    while True:
        flow.send_datagram(flow.read_datagram())


def quiet(work):
    """What happens to a peer whose plugin runs out of memory is not our subject."""

    def run(*arguments) -> None:
        try:
            work(*arguments)
        except (P2posError, OSError, EOFError):
            pass

    return run


def visit(bo: FakePeer) -> None:
    """Opens a stream to the program, writes, and reads back what it wrote."""
    stream = bo.open("/scenario/1", 5)
    writer = threading.Thread(target=quiet(lambda: (stream.write(BYTES), stream.close_write())))
    writer.start()
    assert stream.read_exactly(len(BYTES)) == BYTES
    assert stream.read() == b""
    writer.join()


def main() -> int:
    program, *arguments = sys.argv[1:]
    with FakeDaemon(check_faults=arguments[0] != "oom") as daemon, tempfile.TemporaryDirectory() as folder:
        bo = daemon.peer("bo")
        daemon.peer("mira")
        bo.serve("/echo/1", quiet(echo))
        bo.serve("/sink/1", quiet(sink))
        bo.serve("/mirror/1", quiet(mirror))
        file = pathlib.Path(folder) / "endpoint.json"
        secret = daemon.secrets.secret.hex()
        file.write_text(json.dumps({"version": 1, "endpoints": [daemon.endpoint], "boot_id": "b", "secret": secret}))
        bo.serve("/visit/1", lambda stream: threading.Thread(target=quiet(visit), args=(bo,)).start())
        command = [*shlex.split(os.environ.get("COMMAND_PREFIX", "")), program, str(file), *arguments]
        code = subprocess.run(command, timeout=RUN_S_MAX, check=False).returncode
    print(f"{' '.join(arguments)}: exit code {code}")
    return code


if __name__ == "__main__":
    sys.exit(main())
