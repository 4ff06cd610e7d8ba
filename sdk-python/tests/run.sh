#!/bin/sh
# Runs everything that concerns the Python SDK and the Python plugins: types, style, tests on the oldest and the newest protobuf runtime,
# and once more without any package on the bare python3. Virtual environments are kept in .venv/ and made once.
#
#   tests/run.sh            all
#   tests/run.sh quick      only the tests, with the newest runtime
#   tests/run.sh bare       only what needs no pip (works offline): the SDK and the chat plugin under unittest-like smoke
set -eu
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
mode="${1:-all}"

venv() { # name, packages...
    name="$1"
    shift
    if [ ! -e ".venv/$name/made" ]; then
        "$python" -m venv ".venv/$name"
        ".venv/$name/bin/pip" install --quiet --disable-pip-version-check "$@"
        touch ".venv/$name/made"
    fi
}

tests() { # name
    ".venv/$1/bin/python" -m pytest
    ".venv/$1/bin/python" -m pytest -c pyproject.toml --rootdir . ../plugins/chat
}

if [ "$mode" = bare ] || [ "$mode" = all ]; then
    "$python" -I -S -B tests/bare.py
fi
if [ "$mode" = quick ] || [ "$mode" = all ]; then
    venv newest protobuf pytest hypothesis
    tests newest
fi
if [ "$mode" = all ]; then
    venv oldest protobuf==4.25.8 grpcio-tools==1.62.3 pytest hypothesis mypy ruff
    tests oldest
    .venv/oldest/bin/ruff check . ../plugins/chat
    .venv/oldest/bin/ruff format --check . ../plugins/chat
    .venv/oldest/bin/mypy
fi
