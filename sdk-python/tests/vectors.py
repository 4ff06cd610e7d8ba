"""Reads the golden vectors; helpers for tests that use them."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

from p2pos import messages as m
from p2pos.codec import decode_frame

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROTOCOL = ROOT / "plugin-protocol"


def load(name: str) -> Any:
    return json.loads((PROTOCOL / "vectors" / name).read_text(encoding="utf-8"))


def load_all(name: str) -> dict[str, Any]:
    """The vectors as they are now, under "now", and as they were in each release: what was golden once stays so."""
    releases = sorted(path for path in (PROTOCOL / "releases").iterdir() if path.is_dir())
    assert releases
    old = {path.name: json.loads((path / "vectors" / name).read_text(encoding="utf-8")) for path in releases}
    return {"now": load(name)} | old


def cases_of(name: str, part: str) -> list[dict[str, Any]]:
    """The cases of now and of all releases; each knows the file that it stands in."""
    told = load_all(name).items()
    return [case | {"id": f"{age}-{case.get('id', part)}", "told": file} for age, file in told for case in file[part]]


def snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def plain(message: m.Message) -> dict[str, Any]:
    """A message in the form of frames.json."""
    out: dict[str, Any] = {}
    for name, wire in m.wires_of(type(message)):
        value = getattr(message, name)
        if value is None or (not value and not wire.oneof and not isinstance(value, m.Message)):
            continue
        out[name] = [_plain(wire, item) for item in value] if wire.repeated else _plain(wire, value)
    return out


def _plain(wire: m.Wire, value: Any) -> Any:
    if isinstance(value, m.Message):
        return plain(value)
    if isinstance(value, bytes):
        return value.hex()
    return wire.enum_type(value).name if wire.enum_type else value


def frames_of(data: bytes) -> list[tuple[int, m.Message | None]]:
    """Cuts bytes into frames and decodes them."""
    out = []
    while data:
        length = int.from_bytes(data[:4], "big")
        assert len(data) >= 4 + length
        out.append(decode_frame(data[4 : 4 + length]))
        data = data[4 + length :]
    return out
