"""The examples as an author would run them, with the daemon of the Python SDK: python3 examples.py FOLDER"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
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
        open_at_the_end = bo.open("/echo-c/1")
        open_at_the_end.write(b"x")
        assert open_at_the_end.read_exactly(1) == b"x"
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


def chat() -> None:
    """Ours with plugins/chat, both ways; texts that JSON has to escape, and one that comes while the peer is away."""
    texts = ["hello", 'quotes " and \\ back', "ünïcödé 🐟", "tab\tand more"]
    root = pathlib.Path(__file__).resolve().parents[2]
    bare = [sys.executable, "-E", "-s", "-S", "-B"]
    with Network("ana", "bo") as net, tempfile.TemporaryDirectory() as folder:
        env = net["bo"].env("chat", f"{folder}/bo")
        ours = start(net["ana"], "chat", net.peer_id("bo"), stdin=subprocess.PIPE)
        assert ours.stdin is not None and ours.stdout is not None
        ours.stdin.write(texts[0] + "\n")
        ours.stdin.flush()  # bo's plugin does not run yet
        theirs = subprocess.Popen([*bare, str(root / "plugins/chat/main.py")], env=env, stdin=subprocess.DEVNULL)
        net["bo"].wait_registered("/chat/1")
        net["bo"].wait_for((pathlib.Path(folder) / "bo" / "chat.sock").exists)
        ours.stdin.write("".join(text + "\n" for text in texts[1:]))
        ours.stdin.flush()
        for text in texts:
            assert ours.stdout.readline() == f"(arrived: {text})\n"
        cli = [*bare, str(root / "plugins/chat/chat.py"), "--data", f"{folder}/bo"]
        subprocess.run([*cli, "send", "ana", 'hello "ana" 🐟'], check=True, timeout=WAIT_S)
        assert ours.stdout.readline() == 'bo: hello "ana" 🐟\n'
        told = subprocess.run([*cli, "history", "ana", "--json"], check=True, capture_output=True, timeout=WAIT_S)
        received = [said["text"] for said in json.loads(told.stdout)["messages"] if said["state"] == "received"]
        assert received == texts, received
        ours.stdin.close()
        assert ours.wait(WAIT_S) == 0
        theirs.kill()
        theirs.wait()


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
    for test in (lambda: echo(False), lambda: echo(True), ping, chat, a_daemon_that_crashes_ends_the_plugin,
                 the_end_of_stdin_ends_the_plugin, without_a_daemon_it_says_what_to_do):  # fmt: skip
        test()
    print("the examples do what they say")


if __name__ == "__main__":
    main()
