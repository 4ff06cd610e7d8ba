"""The generated code belongs to plugin.proto: its hash, every field number, every body of Frame. Needs no generator."""

from __future__ import annotations

import hashlib
import pathlib
import re
import sys

SDK = pathlib.Path(__file__).resolve().parents[1]
PROTO = SDK.parent / "plugin-protocol" / "proto" / "plugin.proto"


def snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def fields(text: str) -> dict[str, int]:
    """`Message_field` and its number, of all messages; Frame's bodies as `Frame_body`."""
    found: dict[str, int] = {}
    stack: list[str] = []
    for line in re.sub(r"//.*", "", text).splitlines():
        opened = re.match(r"\s*(message|enum|oneof)\s+(\w+)\s*\{(\s*\})?", line)
        field = re.match(r"\s*(?:repeated\s+)?\w+\s+(\w+)\s*=\s*(\d+)\s*;", line)
        if opened and not opened[3]:
            stack.append("" if opened[1] == "oneof" else opened[2])
        elif "}" in line and not opened:
            stack.pop()
        elif field and stack:
            owner = [name for name in stack if name]
            found[f"{owner[-1]}_{field[1]}"] = int(field[2])
    return found


def main() -> int:
    proto = PROTO.read_bytes()
    header = (SDK / "src" / "pb" / "plugin.pb.h").read_text()
    bodies = (SDK / "src" / "codec.h").read_text()
    wanted = fields(proto.decode())
    frame = {name[6:]: number for name, number in wanted.items() if name.startswith("Frame_") and name != "Frame_rid"}
    rest = {name: number for name, number in wanted.items() if not name.startswith("Frame_")}
    made = {name: int(number) for name, number in re.findall(r"#define p2pos_pb_(\w+)_tag\s+(\d+)", header)}
    coded = {name.lower(): int(number) for name, number in re.findall(r"P2POS_BODY_(\w+) = (\d+)", bodies)}
    coded.pop("none")
    hint = "; run sdk-c/src/pb/generate.sh"
    faults = []
    if (SDK / "src" / "pb" / "plugin.proto.sha256").read_text().strip() != hashlib.sha256(proto).hexdigest():
        faults.append("plugin.proto has changed since the code was generated" + hint)
    faults += [f"plugin.pb.h: {name} is {made.get(name)}, plugin.proto says {number}" for name, number in rest.items() if made.get(name) != number]
    faults += [f"plugin.pb.h: {name} is not in plugin.proto{hint}" for name in made.keys() - rest.keys()]
    faults += [f"codec.h: {name} is {coded.get(name)}, plugin.proto says {frame.get(name)}" for name in frame.keys() | coded.keys() if coded.get(name) != frame.get(name)]
    for fault in faults:
        print(f"error: {fault}")
    print(f"{len(rest)} fields and {len(frame)} bodies compared")
    return 1 if faults or len(rest) < 80 or len(frame) < 30 else 0


if __name__ == "__main__":
    sys.exit(main())
