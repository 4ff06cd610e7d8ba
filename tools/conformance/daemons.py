"""Two p2pOS daemons that know each other, and the kit attached to both: `daemons.py [OPTIONS OF daemon]`.

What another implementation of the daemon has to bring along is what this does: two users who are contacts of each other, a plugin with the
manifest that `p2pos-conformance manifest` prints on each side, allowed to do what it asks, and a command that starts it. Programs are taken
from P2POS and KIT, else from target/debug.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
P2POS = os.environ.get("P2POS", str(ROOT / "target/debug/p2pos"))
KIT = os.environ.get("KIT", str(ROOT / "target/debug/p2pos-conformance"))


class Daemon:
    """One daemon in a folder of its own."""

    def __init__(self, folder: pathlib.Path, plugin: str) -> None:
        self.folder = folder
        self.plugin = folder / "plugin" / plugin
        self.plugin.mkdir(parents=True)
        manifest = subprocess.run([KIT, "manifest", plugin], check=True, capture_output=True, text=True).stdout
        (self.plugin / "plugin.toml").write_text(manifest)
        self.process = subprocess.Popen(
            [P2POS, "--data-dir", str(self.folder / "data"), "up", "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"P2POS_NETWORK_PORT_MAPPING": "off"},
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "ready: " in line:
                break
        else:
            raise SystemExit("a daemon ended before it was ready")
        # Its words are nobody's business from here on, and must not fill the pipe.
        subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)
        self.status = json.loads(self.ask("status"))

    @property
    def words(self) -> list[str]:
        """How a command of it begins."""
        return [P2POS, "--json", "--data-dir", str(self.folder / "data")]

    def ask(self, *words: str) -> str:
        """What a command prints."""
        return subprocess.run([*self.words, *words], check=True, capture_output=True, text=True).stdout

    def knows(self, other: Daemon, petname: str) -> None:
        """Makes another user a contact."""
        address = f"127.0.0.1:{other.status['udp_port']}"
        self.ask("contacts", "add", other.status["peer_id"], petname, "--addr", address)

    @property
    def launcher(self) -> str:
        """Starts a plugin, if a command follows."""
        return f"{P2POS} --data-dir {self.folder / 'data'} plugins run {self.plugin} --"


@contextlib.contextmanager
def two() -> Iterator[tuple[Daemon, Daemon]]:
    """Both, until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="p2pos-kit") as folder, contextlib.ExitStack() as stack:
        daemons = []
        for name in ("a", "b"):
            daemon = Daemon(pathlib.Path(folder) / name, f"conformance-{name}")
            stack.callback(daemon.process.wait, 10)
            assert daemon.process.stdin is not None
            stack.callback(daemon.process.stdin.close)
            daemons.append(daemon)
        one, other = daemons
        one.knows(other, "other")
        other.knows(one, "one")
        yield one, other


def main() -> int:
    """Runs the kit."""
    with two() as (one, other):
        endpoint = one.folder / "data/run/endpoint.json"
        file = ["--endpoint-file", str(endpoint)] if endpoint.exists() else []
        command = [KIT, "daemon", "--here", one.launcher, "--there", other.launcher, *file, *sys.argv[1:]]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
