#!/bin/sh
# Everything that concerns the Python SDK and the chat plugin. Virtual environments are made once, in .venv/.
#
#   tests/run.sh            bare, the newest and the oldest protobuf runtime, types, style
#   tests/run.sh quick      bare, and the tests with the newest runtime
#   tests/run.sh bare       only what needs no pip at all: works offline
set -eu
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
mode="${1:-all}"

environment() { # requirements file without its ending
    if ! cmp -s "requirements-$1.txt" ".venv/$1/installed.txt"; then
        rm -rf ".venv/$1"
        "$python" -m venv ".venv/$1"
        ".venv/$1/bin/pip" install --quiet --disable-pip-version-check -r "requirements-$1.txt"
        cp "requirements-$1.txt" ".venv/$1/installed.txt"
    fi
}

tests() { # environment
    ".venv/$1/bin/python" -m pytest
    ".venv/$1/bin/python" -m pytest -c pyproject.toml --rootdir . ../plugins/chat
}

"$python" -I -S -B tests/bare.py
[ "$mode" != bare ] || exit 0
environment test
tests test
[ "$mode" != quick ] || exit 0
environment lint
tests lint
.venv/lint/bin/python tests/generate_pb.py --check
.venv/lint/bin/ruff check . ../plugins/chat ../tools/bench/plugins
.venv/lint/bin/ruff format --check . ../plugins/chat ../tools/bench/plugins
.venv/lint/bin/mypy
