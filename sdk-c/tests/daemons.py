"""The examples as plugins of two real daemons: python3 daemons.py P2POS EXAMPLES_FOLDER

bo serves echo (in C), ping (in C) and chat (in Python). ana dials the echo, runs ping, and chats in C.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

P2POS, EXAMPLES = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
ROOT = pathlib.Path(__file__).resolve().parents[2]
WAIT_S = 30
MANIFEST = """manifest = 1
id = "{id}"

[run]
exec = {exec}

[[provides]]
protocol = "{protocol}"

[permissions]
net.accept = ["{protocol}"]
net.open = ["{protocol}"]
contacts.read = true
"""


def wait_for(what: Callable[[], bool], name: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {WAIT_S} s: {name}")
        time.sleep(0.05)


class Person:
    """A user with a daemon on loopback, and plugins in a folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        (folder / "plugins").mkdir(parents=True)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.run("config", "set", "network.port", str(self.port))
        self.id = json.loads(self.run("id", "--json"))["peer_id"]

    def command(self, *words: str) -> list[str]:
        return [str(P2POS), "--data-dir", str(self.folder), *words]

    def env(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "P2POS_NETWORK_PORT_MAPPING": "off"}

    def run(self, *words: str, stdin: bytes = b"") -> str:
        done = subprocess.run(self.command(*words), env=self.env(), input=stdin, capture_output=True, timeout=WAIT_S, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"p2pos {' '.join(words)}: {done.returncode} {done.stderr.decode()}")
        return done.stdout.decode()

    def add_plugin(self, name: str, protocol: str, *exec_: str) -> pathlib.Path:
        place = self.folder / "plugins" / name
        place.mkdir()
        (place / "plugin.toml").write_text(MANIFEST.format(id=name, protocol=protocol, exec=json.dumps(list(exec_))))
        return place

    @contextlib.contextmanager
    def daemon(self) -> Iterator[None]:
        log = (self.folder / "daemon.log").open("wb")
        running = subprocess.Popen(self.command("up"), env=self.env(), stdin=subprocess.DEVNULL, stderr=log)
        try:
            wait_for(lambda: b"ready: " in (self.folder / "daemon.log").read_bytes(), "a daemon that is ready")
            yield
        except BaseException:
            print((self.folder / "daemon.log").read_text(), file=sys.stderr)
            raise
        finally:
            running.terminate()
            code = running.wait(WAIT_S)
            log.close()
            assert code == 0, f"the daemon ended with {code}"

    def wait_running(self, plugin: str) -> None:
        def is_running() -> bool:
            told = json.loads(self.run("plugins", "list", "--json"))
            return any(p["id"] == plugin and p["state"] == "running" for p in told["plugins"])

        wait_for(is_running, f"{plugin} that runs")


def echo(ana: Person) -> None:
    data = os.urandom(3_000_000)
    dial = subprocess.Popen(ana.command("dial", "bo", "/echo-c/1"), env=ana.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    said, _ = dial.communicate(data, timeout=WAIT_S)
    assert dial.returncode == 0
    assert said == data


def ping(ana: Person, bo: Person) -> None:
    place = ana.folder / "plugins" / "ping-c"
    said = ana.run("plugins", "run", str(place), "--", str(EXAMPLES / "ping"), bo.id, "20")
    assert "20 sent, " in said, said


def chat(ana: Person, bo: Person) -> None:
    place = ana.folder / "plugins" / "chat"
    command = ana.command("plugins", "run", str(place), "--", str(EXAMPLES / "chat"), bo.id)
    ours = subprocess.Popen(command, env=ana.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert ours.stdin is not None and ours.stdout is not None
    ours.stdin.write("hello from C\n")
    ours.stdin.flush()
    while "(arrived: hello from C)" not in (line := ours.stdout.readline()):
        assert line, "the chat ended"
    cli = [sys.executable, "-B", str(ROOT / "plugins/chat/chat.py"), "--data", str(bo.folder / "plugin-data" / "chat")]
    subprocess.run([*cli, "send", "ana", "hello from Python"], check=True, timeout=WAIT_S, env=bo.env())
    while "bo: hello from Python" not in line:
        line = ours.stdout.readline()
        assert line, "the chat ended"
    ours.stdin.close()
    assert ours.wait(WAIT_S) == 0


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="p2pos-c") as folder:
        ana, bo = (Person(pathlib.Path(folder) / name) for name in ("ana", "bo"))
        ana.run("contacts", "add", bo.id, "bo", "--addr", f"127.0.0.1:{bo.port}")
        bo.run("contacts", "add", ana.id, "ana", "--addr", f"127.0.0.1:{ana.port}")
        place = bo.folder / "plugins" / "echo-c"
        place.mkdir()
        shutil.copy(ROOT / "sdk-c" / "examples" / "plugin.toml", place)
        shutil.copy(EXAMPLES / "echo", place)
        bo.add_plugin("ping-c", "/ping-c/1", str(EXAMPLES / "ping"))
        shutil.copytree(ROOT / "plugins" / "chat", bo.folder / "plugins" / "chat", ignore=shutil.ignore_patterns("__pycache__", "test_*"))
        (bo.folder / "plugins" / "chat" / "p2pos").symlink_to(ROOT / "sdk-python" / "src" / "p2pos")
        ana.add_plugin("ping-c", "/ping-c/1", "./nothing")
        ana.add_plugin("chat", "/chat/1", "./nothing")
        with ana.daemon(), bo.daemon():
            for plugin in ("echo-c", "ping-c", "chat"):
                bo.run("plugins", "enable", plugin, "--yes")
                bo.wait_running(plugin)
            echo(ana)
            ping(ana, bo)
            chat(ana, bo)
    print("echo, ping and chat in C went over two daemons")


if __name__ == "__main__":
    main()
