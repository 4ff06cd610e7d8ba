"""The examples as an author would run them, with the daemon of the Python SDK: python3 examples.py FOLDER"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "sdk-python" / "src"))

from p2pos.testing import FakeDaemon, Network  # noqa: E402

FOLDER = pathlib.Path(sys.argv[1])
WAIT_S = 20


def start(daemon: FakeDaemon, name: str, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    return subprocess.Popen([str(FOLDER / name), *arguments], env=daemon.env(name), stdin=stdin, stdout=subprocess.PIPE, text=True)


def echo(tcp: bool) -> None:
    with FakeDaemon(tcp=tcp) as daemon:
        bo = daemon.peer("bo")
        plugin = start(daemon, "echo")
        daemon.wait_registered("/echo-c/1")
        streams = [bo.open("/echo-c/1") for _ in range(20)]
        sent = [os.urandom(400_000) for _ in streams]
        writers = [threading.Thread(target=lambda s=s, d=d: (s.write(d), s.close_write())) for s, d in zip(streams, sent, strict=True)]
        for writer in writers:
            writer.start()
        for stream, data in zip(streams, sent, strict=True):
            assert stream.read_exactly(len(data)) == data
            assert stream.read() == b""
        for writer in writers:
            writer.join()
        late = bo.open("/echo-c/1")
        late.write(b"half a word")
        assert late.read_exactly(4) == b"half"
        late.reset()
        daemon.ask_to_end()
        assert plugin.wait(WAIT_S) == 0


def ping() -> None:
    with Network("ana", "bo") as net:
        answering = start(net["bo"], "ping")
        net["bo"].wait_registered("/ping-c/1")
        asking = start(net["ana"], "ping", net.peer_id("bo"), "25")
        said, _ = asking.communicate(timeout=WAIT_S)
        assert asking.returncode == 0, asking.returncode
        assert said.startswith("25 sent, 0 lost"), said
        net["bo"].ask_to_end()
        assert answering.wait(WAIT_S) == 0


def a_daemon_that_crashes_ends_the_plugin() -> None:
    with FakeDaemon() as daemon:
        plugin = start(daemon, "echo")
        daemon.wait_registered("/echo-c/1")
        daemon.crash()
        assert plugin.wait(WAIT_S) == 0


def the_end_of_stdin_ends_the_plugin() -> None:
    with FakeDaemon() as daemon:
        env = daemon.env("echo") | {"P2POS_EXIT_ON_STDIN_CLOSE": "1"}
        for stdin in (subprocess.PIPE, subprocess.DEVNULL):
            env["P2POS_TOKEN"] = daemon.env("echo")["P2POS_TOKEN"]
            plugin = subprocess.Popen([str(FOLDER / "echo")], env=env, stdin=stdin)
            if plugin.stdin is not None:
                daemon.wait_registered("/echo-c/1")
                plugin.stdin.close()
            assert plugin.wait(WAIT_S) == 0
            daemon.wait_for(lambda: "/echo-c/1" not in daemon._hall.registered)


def without_a_daemon_it_says_what_to_do() -> None:
    done = subprocess.run([str(FOLDER / "echo")], env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert "p2pos plugins run" in done.stderr


def main() -> None:
    for test in (lambda: echo(False), lambda: echo(True), ping, a_daemon_that_crashes_ends_the_plugin,
                 the_end_of_stdin_ends_the_plugin, without_a_daemon_it_says_what_to_do):  # fmt: skip
        test()
    print("the examples do what they say")


if __name__ == "__main__":
    main()
