"""Tests main.tcl against a scripted daemon: a TCP listener that speaks raw bytes, some of them from the golden vectors.

Needs nothing but Python's standard library and tclsh. Run: python3 plugins/echo-tcl/test_echo.py
"""

import json
import os
import pathlib
import socket
import struct
import subprocess
import tempfile
import unittest
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
VECTORS = HERE.parents[1] / "plugin-protocol" / "vectors"
# A tclsh on a busy machine starts within a second; a wait this long means that it hangs.
PATIENCE_SECONDS = 20
WINDOW_BYTES = 262144
# Credit comes at the latest when half of the window is consumed [S-FLOW-4].
CREDIT_OWED_BYTES_MAX = WINDOW_BYTES // 2
TOKEN = "b3" * 32

# Numbers of the Frame's bodies in plugin.proto.
DATA, WINDOW, RESET, STOP_SENDING, STREAM_CLOSED, INCOMING, ACCEPT, PING, PONG = 2, 3, 5, 6, 7, 10, 11, 13, 14
ERROR, HELLO, WELCOME, REFUSED, DONE, REGISTER, READY, SHUTDOWN = 15, 16, 17, 20, 24, 25, 28, 36


# A message as {field number: value}; a value is an int or bytes.
Fields = dict[int, Any]


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def encode(fields: Fields) -> bytes:
    """Makes a message of its fields."""
    out = b""
    for field, value in fields.items():
        if isinstance(value, int):
            out += varint(field << 3) + varint(value)
        else:
            out += varint(field << 3 | 2) + varint(len(value)) + value
    return out


def decode(message: bytes) -> Fields:
    """Takes a message apart; enough for what our plugin sends."""
    fields: Fields = {}
    at = 0

    def take() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = message[at]
            at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    while at < len(message):
        key = take()
        value = take()
        if key & 7 == 2:
            fields[key >> 3] = message[at : at + value]
            at += value
        else:
            fields[key >> 3] = value
    return fields


class EchoTcl(unittest.TestCase):
    def setUp(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(PATIENCE_SECONDS)
        self.addCleanup(listener.close)
        environment = {
            "PATH": os.environ["PATH"],
            "P2POS_ENDPOINT": f"tcp:127.0.0.1:{listener.getsockname()[1]}",
            "P2POS_TOKEN": TOKEN,
            "P2POS_PLUGIN_ID": "echo-tcl",
        }
        self.log = tempfile.TemporaryFile()
        self.addCleanup(self.log.close)
        self.plugin = subprocess.Popen(["tclsh", "main.tcl"], cwd=HERE, env=environment, stderr=self.log)
        self.addCleanup(self.plugin.wait)
        self.addCleanup(self.plugin.kill)
        self.plugin_socket, _ = listener.accept()
        self.plugin_socket.settimeout(PATIENCE_SECONDS)
        self.addCleanup(self.plugin_socket.close)

    def read_exactly(self, count: int) -> bytes:
        out = b""
        while len(out) < count:
            more = self.plugin_socket.recv(count - len(out))
            self.assertTrue(more, "the plugin closed the connection")
            out += more
        return out

    def next_frame(self) -> tuple[int, Fields, int]:
        """Gives (number of the body, its fields, rid)."""
        (length,) = struct.unpack(">I", self.read_exactly(4))
        frame = decode(self.read_exactly(length))
        rid = frame.pop(1, 0)
        ((body, message),) = frame.items()
        return body, decode(message), rid

    def send(self, body: int, fields: Fields, rid: int = 0) -> None:
        frame = encode({1: rid} if rid else {}) + encode({body: encode(fields)})
        self.plugin_socket.sendall(struct.pack(">I", len(frame)) + frame)

    def welcome(self) -> None:
        """Plays the opening with the daemon's frames as the vectors have them."""
        exchange = json.loads((VECTORS / "handshake.json").read_text())["first_exchange"]
        golden = {step["name"]: bytes.fromhex(step["hex"]) for step in exchange if step["from"] == "daemon"}
        self.assertEqual(self.next_frame()[0], HELLO)
        self.assertEqual(self.next_frame()[0], REGISTER)
        self.plugin_socket.sendall(golden["welcome"] + golden["done"])
        self.assertEqual(self.next_frame()[0], READY)

    def open(self, stream: int, rid: int) -> None:
        self.send(INCOMING, {1: stream, 3: b"/echo-tcl/1", 4: 1}, rid)
        self.assertEqual(self.next_frame(), (ACCEPT, {1: stream}, rid))

    def collect(self, stream: int, count: int) -> bytes:
        """Reads until so many payload bytes came back, and credit with them; gives the payload."""
        payload, credit = b"", 0
        while len(payload) < count or count - credit >= CREDIT_OWED_BYTES_MAX:
            body, fields, _ = self.next_frame()
            self.assertEqual(fields[1], stream)
            if body == DATA:
                payload += fields.get(2, b"")
                self.assertLessEqual(len(payload), count)
            else:
                self.assertEqual(body, WINDOW)
                credit += fields[2]
        self.assertLessEqual(credit, count, "credit is given for what was read, not more")
        return payload

    def test_the_first_frames_say_who_is_there_and_what_it_serves(self) -> None:
        body, hello, rid = self.next_frame()
        self.assertEqual((body, rid), (HELLO, 1))
        self.assertEqual(hello, {1: b"p2pOS", 2: 1, 3: 1, 5: b"echo-tcl 0.1", 6: TOKEN.encode()})
        body, register, rid = self.next_frame()
        self.assertEqual((body, rid), (REGISTER, 2))
        self.assertEqual(decode(register[1]), {1: b"/echo-tcl/1", 2: 1})

    def test_a_stream_gets_back_what_it_sent_and_ends_after_its_writer(self) -> None:
        self.welcome()
        self.open(2, 1)
        sent = bytes(range(256)) * 10
        self.send(DATA, {1: 2, 2: sent[:1000]})
        self.send(DATA, {1: 2, 2: sent[1000:], 3: 1})
        self.assertEqual(self.collect(2, len(sent)), sent)
        self.assertEqual(self.next_frame(), (DATA, {1: 2, 3: 1}, 0))
        self.send(STREAM_CLOSED, {1: 2, 2: 1})

    def test_without_credit_it_waits_and_other_streams_go_on(self) -> None:
        self.welcome()
        self.open(2, 1)
        sent = os.urandom(WINDOW_BYTES)
        for at in range(0, WINDOW_BYTES, 65536):
            self.send(DATA, {1: 2, 2: sent[at : at + 65536]})
        self.assertEqual(self.collect(2, WINDOW_BYTES), sent)
        # Now the plugin may send no more on stream 2 until we say so.
        self.send(DATA, {1: 2, 2: b"late", 3: 1})
        self.open(4, 2)
        self.send(DATA, {1: 4, 2: b"other"})
        self.assertEqual(self.collect(4, 5), b"other")
        self.send(WINDOW, {1: 2, 2: 3})
        self.assertEqual(self.collect(2, 3), b"lat")
        self.send(WINDOW, {1: 2, 2: 1})
        self.assertEqual(self.collect(2, 1), b"e")
        self.assertEqual(self.next_frame(), (DATA, {1: 2, 3: 1}, 0))

    def test_a_ping_is_answered_to_the_byte_and_an_unknown_body_is_not(self) -> None:
        frames = json.loads((VECTORS / "frames.json").read_text())["frames"]
        golden = {frame["id"]: bytes.fromhex(frame["hex"]) for frame in frames}
        self.welcome()
        self.send(99, {1: 7})
        self.plugin_socket.sendall(golden["ping"])
        self.assertEqual(self.read_exactly(len(golden["pong"])), golden["pong"])

    def test_a_reader_that_stops_gets_a_reset_instead_of_an_echo(self) -> None:
        self.welcome()
        self.open(2, 1)
        self.send(STOP_SENDING, {1: 2, 2: 400, 3: 9})
        self.send(DATA, {1: 2, 2: b"nobody reads this"})
        self.assertEqual(self.next_frame(), (RESET, {1: 2, 2: 400, 3: 9}, 0))
        self.send(DATA, {1: 2, 2: b"was on its way"})
        self.send(PING, {1: 1})
        self.assertEqual(self.next_frame()[0], PONG)

    def test_a_peer_that_resets_ends_its_stream_and_no_other(self) -> None:
        self.welcome()
        self.open(2, 1)
        self.open(4, 2)
        self.send(RESET, {1: 2, 2: 403})
        self.send(STREAM_CLOSED, {1: 2, 2: 3, 3: 403})
        self.send(DATA, {1: 4, 2: b"still here", 3: 1})
        self.assertEqual(self.collect(4, 10), b"still here")
        self.assertEqual(self.next_frame(), (DATA, {1: 4, 3: 1}, 0))

    def test_it_leaves_when_told_to(self) -> None:
        self.welcome()
        self.send(SHUTDOWN, {1: 5000})
        self.assertEqual(self.plugin.wait(PATIENCE_SECONDS), 0)

    def test_it_leaves_when_the_daemon_is_gone(self) -> None:
        self.welcome()
        self.plugin_socket.close()
        self.assertEqual(self.plugin.wait(PATIENCE_SECONDS), 0)

    def test_a_refusal_is_told_to_the_person_who_reads_the_log(self) -> None:
        self.next_frame()
        self.send(REFUSED, {1: 102, 2: b"the token is not good"})
        self.assertEqual(self.plugin.wait(PATIENCE_SECONDS), 1)
        self.log.seek(0)
        self.assertIn(b"102: the token is not good", self.log.read())


if __name__ == "__main__":
    unittest.main()
