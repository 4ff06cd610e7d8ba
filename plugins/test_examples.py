"""Runs the small examples under two real daemons: each is enabled on one, and spoken to from the other with `p2pos dial`.

Needs target/debug/p2pos and target/debug/p2pos-conformance, target/plugins/go (`cargo xtask test plugins` makes them), node and tclsh.
Run: python3 plugins/test_examples.py
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools/conformance"))

import daemons  # noqa: E402  (it lies in the kit's folder, which is no package)

# More than all windows on the way hold together, so that a plugin that counts credit wrongly stops or is stopped.
MANY_BYTES = 6_000_000
# A plugin starts within a second, and moves these bytes within another; a loaded machine takes its time.
PATIENCE_SECONDS = 60

# The folder, and the program that it lacks until somebody builds it.
EXAMPLES = {"echo-go": ROOT / "target/plugins/go/echo-go", "echo-node": None, "echo-tcl": None, "hello-sh": None}


def until_it_works(command: list[str], said: bytes) -> subprocess.CompletedProcess[bytes]:
    """Runs a command again while the daemon has not seen the plugin yet, or the plugin starts."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        ran = subprocess.run(command, input=said, capture_output=True, timeout=PATIENCE_SECONDS)
        if ran.returncode == 0 or time.monotonic() > end:
            return ran
        time.sleep(0.1)


class Examples(unittest.TestCase):
    one: daemons.Daemon
    other: daemons.Daemon

    @classmethod
    def setUpClass(cls) -> None:
        cls.one, cls.other = cls.enterClassContext(daemons.two())
        folder = cls.other.folder / "data/plugins"
        for name, program in EXAMPLES.items():
            shutil.copytree(ROOT / "plugins" / name, folder / name)
            if program is not None:
                shutil.copy(program, folder / name)
        for name in EXAMPLES:
            ran = until_it_works([*cls.other.words, "plugins", "enable", name, "--yes"], b"")
            assert ran.returncode == 0, ran.stderr

    def dial(self, protocol: str, said: bytes) -> subprocess.CompletedProcess[bytes]:
        """What comes back."""
        return until_it_works([*self.one.words, "dial", "other", protocol], said)

    def assert_echoes(self, protocol: str) -> None:
        few = self.dial(protocol, b"round and round\n")
        self.assertEqual((few.stdout, few.returncode), (b"round and round\n", 0), few.stderr)
        said = os.urandom(MANY_BYTES)
        many = self.dial(protocol, said)
        self.assertEqual(many.returncode, 0, many.stderr)
        self.assertTrue(many.stdout == said, f"{len(many.stdout)} bytes of {len(said)} came back, or others")

    def test_echo_go(self) -> None:
        self.assert_echoes("/echo-go/1")

    def test_echo_node(self) -> None:
        self.assert_echoes("/echo-node/1")

    def test_echo_tcl(self) -> None:
        self.assert_echoes("/echo-tcl/1")

    def test_hello_sh(self) -> None:
        ran = self.dial("/hello-sh/1", b"ana\n")
        peer = self.one.status["peer_id"]
        self.assertEqual(ran.stdout, f"hello ana, you are {peer}\n".encode())


if __name__ == "__main__":
    unittest.main()
