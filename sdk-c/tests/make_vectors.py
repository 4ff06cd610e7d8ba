"""Makes a C table of the golden vectors, at build time: tests/vectors.c reads no JSON.

    python3 make_vectors.py VECTORS_DIR SDK_PYTHON_SRC OUTPUT.h
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any


def text(value: str) -> str:
    return json.dumps(value)


def canonical(frame: dict[str, Any]) -> str:
    """What the decoded frame must look like when it is written again."""
    from p2pos.codec import decode_frame, encode_frame

    rid, body = decode_frame(bytes.fromhex(frame["hex"])[4:])
    return "" if body is None else encode_frame(body, rid).hex()


def main() -> None:
    folder, sdk, output = sys.argv[1:]
    sys.path.insert(0, sdk)
    frames, malformed, handshake = (
        json.loads((pathlib.Path(folder) / f"{name}.json").read_text()) for name in ("frames", "malformed", "handshake")
    )
    out = ["/* Made by make_vectors.py from plugin-protocol/vectors. */"]
    out.append("static const struct frame_case frame_cases[] = {")
    for frame in frames["frames"] + frames["decode_only"]:
        out.append(f"    {{{text(frame['id'])}, {text(frame['hex'])}, {text(canonical(frame))}}},")
    out.append("};")
    out.append("static const struct given_frame given_frames[] = {")
    for name, steps in malformed["givens"].items():
        for step in steps:
            out.append(f"    {{{text(name)}, {int(step['from'] == 'plugin')}, {text(step['hex'])}}},")
    out.append("};")
    out.append("static const struct malformed_case malformed_cases[] = {")
    for case in malformed["cases"]:
        fields = [case["id"], case["judge"], case["layer"], case["phase"], case["given"], case["hex"], case["answer"]]
        numbers = [case["code"], case["rid"], case["stream"]]
        out.append("    {" + ", ".join([text(field) for field in fields] + [str(number) for number in numbers]) + "},")
    out.append("};")
    out.append("static const struct proof_case proof_cases[] = {")
    for case in handshake["proofs"]:
        names = ("secret", "client_nonce", "server_nonce", "server_proof", "client_proof")
        out.append("    {" + ", ".join(text(case[name]) for name in names) + "},")
    out.append("};")
    out.append("static const struct exchange_step exchange_steps[] = {")
    for exchange in ("token", "hmac"):
        for step in handshake[exchange]:
            out.append(f"    {{{text(exchange)}, {int(step['from'] == 'plugin')}, {text(step['hex'])}}},")
    out.append("};")
    out.append(f"static const char launch_token[] = {text(handshake['launch_token'])};")
    pathlib.Path(output).write_text("\n".join(out) + "\n")


main()
