"""The codec: golden vectors, round trips, truncations, and the official protobuf runtime as a second judge."""

from __future__ import annotations

import enum
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vectors import PROTOCOL, cases_of, load, plain, snake

from p2pos import messages as m
from p2pos.codec import decode_frame, encode_frame
from p2pos.errors import WireError

FRAMES = load("frames.json")
MALFORMED = cases_of("malformed.json", "cases")
BROKEN = [case for case in MALFORMED if case["layer"] == "message" and case["code"] == 100]


def by_id(cases: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case["id"] for case in cases])


@by_id(cases_of("frames.json", "frames"))
def test_a_golden_frame_is_encoded_and_decoded_exactly(case: dict[str, Any]) -> None:
    raw = bytes.fromhex(case["hex"])
    rid, body = decode_frame(raw[4:])
    assert body is not None
    assert (snake(type(body).__name__), rid, plain(body)) == (case["message"], case["rid"], case["body"])
    assert encode_frame(body, rid) == raw


@by_id(cases_of("frames.json", "decode_only"))
def test_other_legal_encodings_decode_to_the_same(case: dict[str, Any]) -> None:
    rid, body = decode_frame(bytes.fromhex(case["hex"])[4:])
    found = (snake(type(body).__name__), rid, plain(body)) if body is not None else (None, rid, {})
    assert found == (case["message"], case["rid"], case["body"])


@by_id(BROKEN)
def test_broken_protobuf_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        decode_frame(bytes.fromhex(case["hex"])[4:])


def test_every_message_has_a_golden_frame() -> None:
    assert {snake(kind.__name__) for kind in m.BODIES.values()} == {case["message"] for case in FRAMES["frames"]}


def test_the_vectors_and_the_dump_in_the_spec_are_fresh() -> None:
    script = PROTOCOL / "vectors" / "generate.py"
    done = subprocess.run([sys.executable, "-B", str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_truncated_frame_never_decodes_to_something_else_than_an_error_or_a_prefix() -> None:
    for case in FRAMES["frames"]:
        raw = bytes.fromhex(case["hex"])[4:]
        for end in range(len(raw)):
            try:
                decode_frame(raw[:end])
            except WireError:
                continue


@given(st.binary(max_size=200))
def test_gibberish_decodes_or_is_refused_and_nothing_else(data: bytes) -> None:
    try:
        rid, body = decode_frame(data)
    except WireError:
        return
    if body is not None:
        assert decode_frame(encode_frame(body, rid)[4:]) == (rid, body)


def _values(wire: m.Wire) -> st.SearchStrategy[Any]:
    one: st.SearchStrategy[Any]
    if wire.enum_type is not None:
        one = st.sampled_from(list(wire.enum_type)).map(int)
    elif wire.message is not None:
        one = messages(wire.message())
    else:
        one = {
            "U32": st.integers(0, (1 << 32) - 1),
            "U64": st.integers(0, (1 << 64) - 1),
            "BOOL": st.booleans(),
            "TEXT": st.text(max_size=20),
            "BYTES": st.binary(max_size=20),
        }[wire.shape.name]
    return st.lists(one, max_size=4) if wire.repeated else one


def messages(kind: type[m.Message]) -> st.SearchStrategy[m.Message]:
    fields = {name: _values(wire) for name, wire in m.wires_of(kind)}
    if kind is m.Hello:
        del fields["client_nonce"]
    return st.builds(kind, **fields)


any_frame = st.tuples(st.integers(0, (1 << 32) - 1), st.sampled_from(list(m.BODIES.values())).flatmap(messages))


@given(any_frame)
def test_what_is_encoded_is_decoded_again(frame: tuple[int, m.Message]) -> None:
    rid, body = frame
    assert decode_frame(encode_frame(body, rid)[4:]) == (rid, body)


# --- the second judge ---


def _official() -> Any:
    pytest.importorskip("google.protobuf", reason="the protobuf package is not installed")
    from p2pos._pb import plugin_pb2

    return plugin_pb2


@given(any_frame)
def test_the_official_runtime_makes_the_same_bytes(frame: tuple[int, m.Message]) -> None:
    pb = _official()
    rid, body = frame
    raw = encode_frame(body, rid)[4:]
    theirs = pb.Frame.FromString(raw)
    assert theirs.SerializeToString(deterministic=True) == raw
    assert (theirs.rid, theirs.WhichOneof("body")) == (rid, snake(type(body).__name__))


def test_the_tables_equal_the_descriptor_of_the_proto_file() -> None:
    pb = _official()
    descriptor = pb.DESCRIPTOR
    frame = descriptor.message_types_by_name["Frame"]
    bodies = {f.number: f.message_type.name for f in frame.fields if f.name != "rid"}
    assert {number: kind.__name__ for number, kind in m.BODIES.items()} == bodies
    kinds = {kind.__name__: kind for kind in [*m.BODIES.values(), m.Limits, m.Protocol, m.Contact]}
    assert set(kinds) | {"Frame"} == set(descriptor.message_types_by_name)
    for name, kind in kinds.items():
        theirs = {f.number: (f.name, f.type) for f in descriptor.message_types_by_name[name].fields}
        ours = {wire.number: (field, _type_of(wire)) for field, wire in m.wires_of(kind)}
        assert ours == theirs, name


def _type_of(wire: m.Wire) -> int:
    from google.protobuf.descriptor import FieldDescriptor as F

    shapes = {"U32": F.TYPE_UINT32, "U64": F.TYPE_UINT64, "BOOL": F.TYPE_BOOL, "ENUM": F.TYPE_ENUM}
    shapes |= {"TEXT": F.TYPE_STRING, "BYTES": F.TYPE_BYTES, "MESSAGE": F.TYPE_MESSAGE}
    return int(shapes[wire.shape.name])


def test_the_enums_equal_those_of_the_proto_file() -> None:
    descriptor = _official().DESCRIPTOR
    theirs = dict(descriptor.enum_types_by_name)
    theirs["Cause"] = descriptor.message_types_by_name["StreamClosed"].enum_types_by_name["Cause"]
    theirs["Health"] = descriptor.message_types_by_name["Status"].enum_types_by_name["Health"]
    theirs["Level"] = descriptor.message_types_by_name["Log"].enum_types_by_name["Level"]
    ours: list[type[enum.IntEnum]] = [m.Kind, m.Attachment, m.RelayUse, m.PathKind, m.Trust, m.EventKind]
    ours += [m.Cause, m.Health, m.Level]
    assert {kind.__name__: {v.name: v.value for v in kind} for kind in ours} == {
        name: {v.name: v.number for v in kind.values} for name, kind in theirs.items()
    }


def test_the_committed_generated_code_is_as_old_as_the_proto_file() -> None:
    import generate_pb

    assert generate_pb.stale() == []
