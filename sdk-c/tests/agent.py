"""The conformance agent obeys each order as its paper says, with the daemon of the Python SDK: python3 agent.py AGENT"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import threading
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "sdk-python" / "src"))

from p2pos import P2posError  # noqa: E402
from p2pos.testing import FakeDaemon, FakePeer, RemoteStream  # noqa: E402

WAIT_S = 20
PREFIX = "/p2pos/conformance"


def pattern(count: int, seed: int) -> bytes:
    return bytes((seed + i) % 251 for i in range(count))


class Orders:
    """One order stream."""

    def __init__(self, bo: FakePeer) -> None:
        self.stream = bo.open(f"{PREFIX}/1")

    def give(self, line: str) -> None:
        self.stream.write(line.encode() + b"\n")

    def answer(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            line += self.stream.read_exactly(1)
        return line[:-1].decode()

    def ask(self, line: str) -> str:
        self.give(line)
        return self.answer()

    def expect(self, line: str, wanted: str) -> None:
        got = self.ask(line)
        assert got == wanted, f"{line}: {got!r}, not {wanted!r}"


def streams(bo: FakePeer, orders: Orders) -> None:
    assert orders.ask("hello").startswith("ok libp2pos ")
    orders.expect("dance", "unsupported")
    orders.expect("read 5", "unsupported")
    orders.give("take")
    other = Orders(bo)
    assert other.ask("hello").startswith("ok ")  # an order that waits does not hold up the others
    stream = bo.open(f"{PREFIX}-stream/1")
    assert orders.answer() == f"ok {bo.peer_id} {PREFIX}-stream/1"
    orders.expect("read 0", "ok 0 1 more")
    stream.write(pattern(1000, 7))
    orders.expect("read 1000", "ok 1000 2101865018 more")
    orders.give("write 600000 3")
    assert stream.read_exactly(600_000) == pattern(600_000, 3)
    assert orders.answer() == "ok 600000"
    stream.write(b"tail")
    stream.close_write()
    orders.expect("read end", f"ok 4 {zlib.adler32(b'tail')} fin")
    orders.expect("finish", "ok")
    assert stream.read() == b""
    orders.expect("closed", "ok finished 0 0 1004 600000")
    again = bo.open(f"{PREFIX}-stream/1")
    assert orders.ask("take").startswith("ok ")
    again.reset(9)
    orders.expect("read end", "ended 400 9")
    orders.expect("write 5 1", "ended 400 9")
    orders.expect("closed", "ok remote 400 9 0 0")
    try:
        bo.open(f"{PREFIX}-refused/1")
        raise AssertionError("it was not refused")
    except P2posError as problem:
        assert problem.code == 305


def echoes(bo: FakePeer, orders: Orders) -> None:
    for attribute in ("", " detached"):
        stream = bo.open(f"{PREFIX}-{'detached' if attribute else 'stream'}/1")
        assert orders.ask(f"take{attribute}").startswith("ok ")
        orders.give("echo")
        data = pattern(500_000, 1)
        writer = threading.Thread(target=lambda s=stream: (s.write(data), s.close_write()))
        writer.start()
        assert stream.read_exactly(len(data)) == data
        assert stream.read() == b""
        writer.join()
        assert orders.answer() == "ok 500000"
        orders.expect("closed", "ok finished 0 0 500000 500000")


def opens(bo: FakePeer, orders: Orders) -> None:
    def serve(stream: RemoteStream) -> None:
        stream.write(stream.read_exactly(10))
        stream.close_write()
        stream.read()

    bo.serve("/there/1", serve)
    bo.serve("/flow/1", lambda flow: flow.send_datagram(flow.read_datagram()))
    for attribute in ("", " detached"):
        orders.expect(f"open {bo.peer_id} /there/1{attribute}", "ok /there/1")
        orders.expect("write 10 0", "ok 10")
        orders.expect("read end", f"ok 10 {zlib.adler32(pattern(10, 0))} fin")
        orders.expect("finish", "ok")
        assert orders.ask("closed").startswith("ok finished ")
        orders.expect(f"open {bo.peer_id} /nothing/1{attribute}", "error 304")
    orders.expect(f"open {bo.peer_id} /there/1", "ok /there/1")
    orders.expect("reset 5", "ok")
    orders.expect("closed", "ok local 400 5 0 0")
    opened = orders.ask(f"open {bo.peer_id} /flow/1 datagram").split()
    assert opened[:2] == ["ok", "/flow/1"]
    orders.expect("send 100 4", "ok")
    orders.expect("receive", f"ok 100 {zlib.adler32(pattern(100, 4))}")
    orders.expect(f"send {int(opened[2]) + 1} 4", "error 210")


def requests(daemon: FakeDaemon, bo: FakePeer, orders: Orders) -> None:
    flow = bo.open_flow(f"{PREFIX}-datagram/1")
    assert orders.ask("take datagram").startswith(f"ok {bo.peer_id} {PREFIX}-datagram/1 ")
    flow.send_datagram(b"look")
    orders.expect("receive", f"ok 4 {zlib.adler32(b'look')}")
    orders.expect("register /more/1", "ok")
    orders.expect("register /more/1", "error 204")
    orders.expect("unregister /more/1", "ok")
    orders.expect("unregister /more/1", "error 205")
    orders.expect("contacts", "ok 1 bo")
    orders.expect("subscribe contact", "ok")
    orders.expect("event", "ok contact added bo 0")
    orders.expect("log warn two  words", "ok")
    orders.expect("status degraded so so", "ok")
    daemon.wait_for(lambda: [line.text for line in daemon.logs] == ["two  words"])
    assert daemon.status.endswith("so so"), daemon.status


def main() -> None:
    for last in ("leave", "exit 7", "shutdown"):
        with FakeDaemon(check_faults=last != "exit 7") as daemon:
            bo = daemon.peer("bo")
            agent = subprocess.Popen([sys.argv[1]], env=daemon.env("agent"), stdin=subprocess.DEVNULL)
            daemon.wait_ready()
            orders = Orders(bo)
            if last == "leave":
                streams(bo, orders)
                echoes(bo, orders)
                opens(bo, orders)
                requests(daemon, bo, orders)
            if last == "shutdown":
                orders.give("take")
                daemon.ask_to_end()
            else:
                orders.give(last)
            assert agent.wait(WAIT_S) == (7 if last == "exit 7" else 0)
    print("the agent obeys")


if __name__ == "__main__":
    main()
