"""Makes src/p2pos/_pb from plugin.proto, with grpcio-tools 1.62.3 (protobuf 4.25, which every later runtime loads).

    python tests/generate_pb.py            writes
    python tests/generate_pb.py --check    exits 1 if the files differ from what protoc makes

Without grpcio-tools, --check compares the hash of the .proto with the one noted at generation.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import pathlib
import sys
import tempfile

SDK = pathlib.Path(__file__).resolve().parent.parent
PROTO = SDK.parent / "plugin-protocol" / "proto" / "plugin.proto"
TARGET = SDK / "src" / "p2pos" / "_pb"
HASH = "plugin.proto.sha256"
WANTED = "1.62.3"


def fresh() -> dict[str, bytes] | None:
    """The files as protoc makes them; None if grpcio-tools is not here, or another version."""
    if importlib.util.find_spec("grpc_tools") is None:
        return None
    if importlib.metadata.version("grpcio-tools") != WANTED:
        return None
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as out:
        arguments = ["protoc", f"-I{PROTO.parent}", f"--python_out={out}", f"--pyi_out={out}", PROTO.name]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc failed")
        return {path.name: path.read_bytes() for path in pathlib.Path(out).iterdir()}


def digest() -> str:
    return hashlib.sha256(PROTO.read_bytes()).hexdigest() + "\n"


def stale() -> list[str]:
    """The names of files that are not what they should be."""
    wanted = fresh() or {}
    bad = [name for name, data in wanted.items() if (TARGET / name).read_bytes() != data]
    if (TARGET / HASH).read_text() != digest():
        bad.append(HASH)
    return bad


def main() -> int:
    if sys.argv[1:] == ["--check"]:
        for name in (names := stale()):
            print(f"error: {name} is older than plugin.proto; run: python tests/generate_pb.py", file=sys.stderr)
        return 1 if names else 0
    files = fresh()
    if files is None:
        raise SystemExit(f"needs grpcio-tools=={WANTED}: pip install grpcio-tools=={WANTED}")
    for name, data in files.items():
        (TARGET / name).write_bytes(data)
    (TARGET / HASH).write_text(digest())
    return 0


if __name__ == "__main__":
    sys.exit(main())
