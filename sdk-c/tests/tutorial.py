"""Builds and runs what stands in docs/tutorial.md, with the library under PREFIX: python3 tutorial.py PREFIX"""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

SDK = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SDK.parent / "sdk-python" / "src"))

from p2pos.testing import FakeDaemon  # noqa: E402

PREFIX = pathlib.Path(sys.argv[1]).resolve()
WAIT_S = 20


def main() -> None:
    text = (SDK / "docs" / "tutorial.md").read_text()
    files = dict(re.findall(r"<!-- file: ([\w.]+) -->\n```\w+\n(.*?)```", text, re.DOTALL))
    assert files.keys() == {"plugin.toml", "shout.c"}, files.keys()
    [compile_line] = re.findall(r"^\$ (cc .*)$", text, re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder, FakeDaemon() as daemon:
        for name, content in files.items():
            (pathlib.Path(folder) / name).write_text(content)
        line = compile_line.replace('"$HOME/.local/lib"', shlex.quote(str(PREFIX / "lib"))).replace("-Wall", "-Wall -Wextra -Werror")
        env = dict(os.environ, PKG_CONFIG_PATH=str(PREFIX / "lib" / "pkgconfig"))
        subprocess.run(["sh", "-c", line], cwd=folder, env=env, check=True)
        bo = daemon.peer("bo")
        plugin = subprocess.Popen(["./shout"], cwd=folder, env=daemon.env("shout"))
        daemon.wait_registered("/shout/1")
        for _ in range(2):
            stream = bo.open("/shout/1")
            stream.write(b"hello\n")
            stream.close_write()
            assert stream.read_exactly(6) == b"HELLO\n"
            assert stream.read() == b""
        daemon.wait_for(lambda: [said.text for said in daemon.logs] == ["bo", "bo"])
        daemon.ask_to_end()
        assert plugin.wait(WAIT_S) == 0
    print("the tutorial's plugin does what it says")


if __name__ == "__main__":
    main()
