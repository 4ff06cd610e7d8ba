"""A released SDK meets the present daemon: `released.py PYTHON PROGRAM`, PROGRAM being the release's own exchange.py.

PYTHON is the interpreter of an environment that holds the released wheel and nothing else of ours. Daemons and kit are those of daemons.py.
"""

from __future__ import annotations

import pathlib
import shlex
import subprocess
import sys

import daemons

WAIT_S = 60


def main() -> int:
    """Serves at the one user's, visits from the other's."""
    python, program = (str(pathlib.Path(word).absolute()) for word in sys.argv[1:])
    with daemons.two() as (one, other):
        command = [*shlex.split(other.launcher), python, "-E", "-s", "-B", program, "serve"]
        served = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert served.stdout is not None
        try:
            assert served.stdout.readline() == "serves\n", "it ended before it served"
            peer = other.status["peer_id"]
            visitor = [*shlex.split(one.launcher), python, "-E", "-s", "-B", program, "visit", peer]
            return subprocess.run(visitor, check=False, timeout=WAIT_S).returncode
        finally:
            served.terminate()
            served.wait(WAIT_S)


if __name__ == "__main__":
    sys.exit(main())
