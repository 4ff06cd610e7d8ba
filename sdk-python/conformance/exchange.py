"""A plugin and its visitor, for two daemons: `exchange.py serve`, and with the other user `exchange.py visit PEER`.

Each release of the protocol keeps this program beside its wheel; tools/conformance/released.py lets them meet the
present daemon. It uses the protocols that the kit's manifest names.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from orders import PREFIX, pattern

from p2pos import sync

STREAM, DETACHED, DATAGRAM = (f"{PREFIX}-{kind}/1" for kind in ("stream", "detached", "datagram"))
PIECES, PIECE_BYTES = 64, 16_000
WAIT_S = 20.0


def echo(stream: sync.Stream | sync.DetachedStream) -> None:
    """Everything back."""
    while chunk := stream.read():
        stream.write(chunk)
    stream.close_write()


def serve(plugin: sync.Plugin) -> None:
    """Echoes on streams, on detached ones, and in datagrams, until the daemon ends it."""
    plugin.register(STREAM)
    plugin.register(DETACHED, detached=True)
    plugin.register(DATAGRAM, datagrams=True)
    plugin.ready()

    def streams(protocol: str) -> None:
        for stream in plugin.accept(protocol):
            threading.Thread(target=echo, args=(stream,), daemon=True).start()

    def flows() -> None:
        while True:
            flow = plugin.accept_flow(DATAGRAM)
            flow.send_datagram(flow.read_datagram())

    works: list[Callable[[], None]] = [lambda: streams(STREAM), lambda: streams(DETACHED), flows]
    for work in works:
        threading.Thread(target=work, daemon=True).start()
    sys.stdout.write("serves\n")
    sys.stdout.flush()
    plugin.wait_shutdown()


def there_and_back(stream: sync.Stream | sync.DetachedStream) -> None:
    """More bytes than any window, both ways at once, to a good end that the daemon tells of."""

    def write() -> None:
        for piece in range(PIECES):
            stream.write(pattern(0, PIECE_BYTES, piece))
        stream.close_write()

    writer = threading.Thread(target=write)
    writer.start()
    came = bytearray()
    while chunk := stream.read():
        came += chunk
    writer.join(WAIT_S)
    assert bytes(came) == b"".join(pattern(0, PIECE_BYTES, piece) for piece in range(PIECES))
    closed = stream.wait_closed()
    assert closed.is_finished, closed
    assert closed.bytes_in == closed.bytes_out == PIECES * PIECE_BYTES, closed


def visit(plugin: sync.Plugin, peer: str) -> None:
    """Opens one of each at the peer."""
    plugin.ready()
    assert [contact.peer for contact in plugin.contacts()] == [peer]
    there_and_back(plugin.open(peer, STREAM))
    there_and_back(plugin.open_detached(peer, DETACHED))
    flow = plugin.open_flow(peer, DATAGRAM)
    flow.send_datagram(b"look")
    assert flow.read_datagram(WAIT_S) == b"look"
    sys.stdout.write("a stream, a detached stream and a flow went there and back\n")


def main() -> None:
    """Does what it is told."""
    plugin = sync.connect()
    match sys.argv[1:]:
        case ["serve"]:
            serve(plugin)
        case ["visit", peer]:
            visit(plugin, peer)
        case _:
            raise SystemExit("expected: serve | visit PEER")
    plugin.close()


if __name__ == "__main__":
    main()
