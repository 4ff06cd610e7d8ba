"""A daemon that does whatever a daemon must not, to tests/victim.c: python3 hostile.py PROGRAM [few]

Each session is one attack: bytes that are no frames, frames that are no messages, messages out of turn, floods, silence, an end in the
middle, and thousands of good frames with bytes turned. The victim must answer each with its end (or go on), and must itself end with 0.
COMMAND_PREFIX may hold valgrind and its options.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "sdk-python" / "src"))

from p2pos import messages as m  # noqa: E402
from p2pos.codec import encode_frame  # noqa: E402

SEED = int(os.environ.get("SEED", "1"))
PEER = "p2p1q6adfsqvzky9t042tlmfujeq88g8wzuhnm2nzxfd0qgdx3ac82ydqvcayly"
LIMITS = m.Limits(1 << 20, 65536, 262144, 256, 64, 1024, 65536)
WELCOME = encode_frame(m.Welcome(1, [], "hostile", "victim", "v-1", PEER, ["net.open:/a/1"], LIMITS), 1)
RUN_S_MAX = 80

Attack = Callable[[socket.socket], None]


def incoming(stream: int, kind: int = 1, ticket: bytes = b"") -> bytes:
    return encode_frame(m.Incoming(stream, PEER, "/a/1", kind, 3, "bo", True, ticket, 1200), stream)


def after_welcome(data: bytes, pause: float = 0.0) -> Attack:
    def attack(sock: socket.socket) -> None:
        sock.sendall(WELCOME)
        if pause:
            time.sleep(pause)
        sock.sendall(data)

    return attack


def before_welcome(data: bytes) -> Attack:
    return lambda sock: sock.sendall(data)


def bytewise(data: bytes) -> Attack:
    def attack(sock: socket.socket) -> None:
        for byte in WELCOME + data:
            sock.sendall(bytes([byte]))

    return attack


def prefix(length: int) -> bytes:
    return length.to_bytes(4, "big")


def deaf(sock: socket.socket) -> None:
    """Asks and never reads the answers."""
    sock.sendall(WELCOME)
    ping = encode_frame(m.Ping(2**64 - 1), 2**32 - 1) * 4000
    sock.settimeout(5)
    for _ in range(200):
        sock.sendall(ping)


LISTENER: list[socket.socket] = []


def at_the_second_socket(answer: bytes) -> Attack:
    """Offers a detached stream, and says this to whoever attaches."""

    def attack(sock: socket.socket) -> None:
        sock.sendall(WELCOME + incoming(2, 1, bytes(16)))
        second, _ = LISTENER[0].accept()
        with second:
            second.settimeout(5)
            second.recv(4096)
            second.sendall(answer)

    return attack


def shrinking(sock: socket.socket) -> None:
    """Closes its writing end and reads on for a while."""
    sock.sendall(WELCOME + incoming(2))
    sock.shutdown(socket.SHUT_WR)
    time.sleep(0.05)


def stories() -> Iterator[tuple[str, Attack]]:
    long = "x" * 60000
    data = [encode_frame(m.Data(2, b"d" * 60000)) for _ in range(8)]
    yield "nothing at all", lambda sock: None
    yield "http", before_welcome(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    yield "tls", before_welcome(bytes.fromhex("16030100020100"))
    yield "a length and no more", before_welcome(prefix(1000))
    yield "a length of 16 MiB less 1", before_welcome(prefix(0xFFFFFF))
    yield "refused", before_welcome(encode_frame(m.Refused(102, long, long), 1))
    yield "refused with code 0", before_welcome(encode_frame(m.Refused(0), 1))
    yield "a challenge that nobody asked for", before_welcome(encode_frame(m.Challenge(bytes(32), bytes(32)), 1))
    yield "welcome to version 9", before_welcome(encode_frame(m.Welcome(9), 1))
    yield "welcome twice", after_welcome(WELCOME)
    yield "welcome without limits", before_welcome(encode_frame(m.Welcome(1), 1) + incoming(2))
    tiny = m.Limits(1, 1, 1, 1, 1, 1, 1)
    yield "welcome with tiny limits", before_welcome(encode_frame(m.Welcome(1, limits=tiny), 1) + incoming(2) + data[0])
    huge = m.Limits(*[2**32 - 1] * 7)
    yield "welcome with huge limits", before_welcome(encode_frame(m.Welcome(1, limits=huge), 1) + incoming(2) + data[0])
    yield "welcome with 5,000 grants", before_welcome(encode_frame(m.Welcome(1, grants=["net.open:/a/1"] * 5000, limits=LIMITS), 1))
    yield "data for nobody", after_welcome(data[0])
    yield "more data than credit", after_welcome(incoming(2) + b"".join(data) * 3)
    yield "data before and after its fin", after_welcome(incoming(2) + encode_frame(m.Data(2, b"x", True)) + data[0])
    yield "endless empty data", after_welcome(incoming(2) + encode_frame(m.Data(2)) * 50000)
    yield "windows without end", after_welcome(incoming(2) + encode_frame(m.Window(2, 2**32 - 1)) * 1000)
    yield "windows and data on a flow", after_welcome(incoming(2, 2) + encode_frame(m.Window(2, 1)))
    yield "datagrams on a stream", after_welcome(incoming(2) + encode_frame(m.Datagram(2, b"x")))
    yield "a flood of datagrams", after_welcome(incoming(2, 2) + encode_frame(m.Datagram(2, b"y" * 1200)) * 3000)
    yield "a flood of empty datagrams", after_welcome(incoming(2, 2) + encode_frame(m.Datagram(2)) * 50000)
    yield "a flood of offers", after_welcome(b"".join(incoming(2 * i) for i in range(1, 3000)))
    yield "offers with falling ids", after_welcome(incoming(200) + incoming(2))
    yield "an offer twice", after_welcome(incoming(2) + incoming(2))
    yield "an offer without rid", after_welcome(encode_frame(m.Incoming(2, PEER, "/a/1")))
    yield "an offer by a long name", after_welcome(encode_frame(m.Incoming(2, "p" * 5000, "/a/1"), 2))
    yield "an offer of a long petname", after_welcome(encode_frame(m.Incoming(2, PEER, "/a/1", 1, 1, "ä" * 30000), 2))
    for name, answer in {
        "attached": encode_frame(m.Attached(), 1) + b"raw",
        "refused": encode_frame(m.Refused(102, long[:3000]), 1),
        "welcome": WELCOME,
        "no message": prefix(3) + b"\xff\xff\xff",
        "too long a frame": prefix(5000),
        "nothing": b"",
        "a cut frame": prefix(300) + b"x",
    }.items():
        yield f"attach answered with {name}", at_the_second_socket(answer)
    yield "offers that are withdrawn", after_welcome(b"".join(incoming(2 * i) + encode_frame(m.StreamClosed(2 * i, 3, 207)) for i in range(1, 500)))
    yield "reset, stop, closed, thrice each", after_welcome(incoming(2) + (encode_frame(m.Reset(2, 400, 1)) + encode_frame(m.StopSending(2, 400, 1))) * 3 + encode_frame(m.StreamClosed(2, 1)) * 3)
    yield "closed with cause 77", after_welcome(incoming(2) + encode_frame(m.StreamClosed(2, 77, 2**32 - 1, 2**32 - 1, 2**64 - 1, 2**64 - 1)), 0.05)
    yield "opened by nobody", after_welcome(encode_frame(m.Opened(1, "/a/1"), 4) * 9 + encode_frame(m.Opened(3, "/a/1"), 9))
    yield "opened with long names", after_welcome(b"".join(encode_frame(m.Opened(1, long, 1, long.encode()), rid) for rid in range(1, 12)), 0.05)
    yield "errors for everything", after_welcome(b"".join(encode_frame(m.Error(302, long, long, long, 5, 1, [long] * 5), rid) for rid in range(12)), 0.05)
    yield "done for everything", after_welcome(b"".join(encode_frame(m.Done(), rid) for rid in range(1, 12)), 0.05)
    people = [m.Contact(PEER, f"person {i}", i % 2 == 0) for i in range(8000)]
    yield "contacts for everything", after_welcome(b"".join(encode_frame(m.Contacts(people), rid) for rid in range(1, 12)), 0.05)
    yield "a flood of events", after_welcome(encode_frame(m.Event(1, 1, 2**32 - 1, PEER, "bo", long)) * 300 + encode_frame(m.Event(2, 99)) * 3000)
    yield "unknown frames", after_welcome(bytes.fromhex("00000008ba02056c61746572") * 3000 + bytes.fromhex("0000000a0803ba02056c61746572") * 3000)
    yield "goaway and shutdown", after_welcome(encode_frame(m.GoAway(105, long)) + encode_frame(m.Shutdown(2**32 - 1, long)) * 5)
    yield "an end by error", after_welcome(encode_frame(m.Error(107, "REVOKED", "go away", "really")))
    yield "an error of class 9", after_welcome(encode_frame(m.Error(2**32 - 1)))
    yield "a frame cut by the end", after_welcome(data[0][:1000])
    yield "one byte at a time", bytewise(incoming(2) + encode_frame(m.Data(2, b"hello", True)) + encode_frame(m.StreamClosed(2, 1)))
    yield "an end of one direction", shrinking
    yield "asks and does not read", deaf
    vectors = json.loads((ROOT / "plugin-protocol" / "vectors" / "malformed.json").read_text())
    for case in vectors["cases"]:
        raw = bytes.fromhex(case["hex"])
        yield f"vector {case['id']}", before_welcome(raw) if case["phase"] == "pre" else after_welcome(incoming(2) + raw)


def turned(number: int) -> Attack:
    """Good frames, some bytes of which were turned; lengths stay right, so that all are looked at."""
    draw = random.Random(SEED * 1_000_003 + number)
    frames = json.loads((ROOT / "plugin-protocol" / "vectors" / "frames.json").read_text())
    bodies = [bytes.fromhex(f["hex"])[4:] for f in frames["frames"] + frames["decode_only"] if f["from"] != "plugin" and len(f["hex"]) < 4000]
    data = incoming(2) + incoming(4, 2)
    for _ in range(60):
        body = bytearray(draw.choice(bodies))
        for _ in range(draw.choice((0, 1, 1, 2, 5))):
            body[draw.randrange(len(body))] = draw.choice((0, 1, 2, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        data += prefix(len(body)) + body
    return after_welcome(data)


def attacks(is_few: bool) -> list[tuple[str, Attack]]:
    told = list(stories())
    if is_few:
        told = [story for at, story in enumerate(told) if at < 50 or at % 8 == 0]
    return told + [(f"turned bytes {number}", turned(number)) for number in range(40 if is_few else 400)]


def serve(listener: socket.socket, name: str, attack: Attack) -> None:
    sock, _ = listener.accept()
    with sock:
        sock.settimeout(10)
        try:
            sock.recv(65536)
            attack(sock)
            sock.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + 5
            while sock.recv(1 << 20) and time.monotonic() < deadline:
                pass
        except OSError:
            pass  # the victim left, as it may


def main() -> int:
    program, *mode = sys.argv[1:]
    todo = attacks(mode == ["few"])
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/plugin.sock"
        listener.bind(path)
        listener.listen(8)
        listener.settimeout(20)
        LISTENER.append(listener)
        command = [*shlex.split(os.environ.get("COMMAND_PREFIX", "")), program, f"unix:{path}", str(len(todo))]
        started = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
            assert victim.stdout is not None
            for name, attack in todo:
                try:
                    serve(listener, name, attack)
                except TimeoutError:
                    victim.kill()
                    print(f"the victim did not come back before: {name}")
                    return 1
                code = victim.stdout.readline().strip()
                # Attaching a detached stream takes a second socket; it found nobody.
                if not code or (time.monotonic() - started) > RUN_S_MAX:
                    victim.kill()
                    print(f"no end after: {name} (said {code!r})")
                    return 1
                if os.environ.get("VERBOSE"):
                    print(f"{code:>4} {name}")
            result = victim.wait(20)
    print(f"{len(todo)} attacks with seed {SEED}, exit code {result}")
    return result


if __name__ == "__main__":
    sys.exit(main())
