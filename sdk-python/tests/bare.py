"""Proves that the SDK runs on the bare python3, without protobuf: `python3 -I -S -B tests/bare.py`."""

import pathlib
import sys
import threading

SDK = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SDK / "src"))

from p2pos import sync  # noqa: E402
from p2pos.testing import FakeDaemon  # noqa: E402


def main() -> None:
    with FakeDaemon() as daemon, sync.connect(daemon.launch()) as plugin:
        plugin.register("/upper/1")

        def serve() -> None:
            for stream in plugin.accept("/upper/1"):
                with stream:
                    for chunk in stream:
                        stream.write(chunk.upper())

        server = threading.Thread(target=serve)
        server.start()
        stream = daemon.peer("bo").open("/upper/1")
        stream.write(b"bare")
        assert stream.read_exactly(4) == b"BARE"
        stream.close_write()
        assert stream.read() == b""
        daemon.ask_to_end()
        server.join(10)
        assert not server.is_alive()
    outside = [
        name for name, module in sys.modules.items() if "site-packages" in (getattr(module, "__file__", "") or "")
    ]
    assert not outside, outside
    print(f"bare python {sys.version.split()[0]}: ok")


if __name__ == "__main__":
    main()
