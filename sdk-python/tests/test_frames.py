"""The length codec: frames come out whole, however the bytes were cut, and the buffer does not stay large."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import WireError
from p2pos.frames import Deframer


def prefixed(message: bytes) -> bytes:
    return len(message).to_bytes(4, "big") + message


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20), st.lists(st.integers(1, 500), min_size=1))
def test_frames_come_out_whole_however_the_bytes_were_cut(messages: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(prefixed, messages))
    frames = Deframer(300)
    found = []
    turn = 0
    while data:
        count = cuts[turn % len(cuts)]
        frames.feed(data[:count])
        data = data[count:]
        turn += 1
        while (frame := frames.next_frame()) is not None:
            found.append(bytes(frame))
    assert found == messages
    assert frames.rest() == b""


def test_a_giant_frame_passes_and_the_buffer_shrinks_again() -> None:
    frames = Deframer(4 << 20)
    giant = bytes(4 << 20)
    frames.feed(prefixed(b"before") + prefixed(giant))
    assert bytes(frames.next_frame() or b"") == b"before"
    assert bytes(frames.next_frame() or b"") == giant
    for _ in range(20):
        frames.feed(prefixed(bytes(60_000)))
        assert bytes(frames.next_frame() or b"") == bytes(60_000)
    assert len(frames.get_buffer()) <= 256 * 1024


def test_reading_into_the_buffer_is_the_same_as_feeding() -> None:
    frames = Deframer(1 << 20)
    data = prefixed(bytes(range(256)) * 2000)
    while data:
        room = frames.get_buffer()
        assert len(room) > 0
        count = min(len(room), len(data), 10_000)
        room[:count] = data[:count]
        frames.received(count)
        data = data[count:]
    assert bytes(frames.next_frame() or b"") == bytes(range(256)) * 2000


@pytest.mark.parametrize("data", [bytes(4), b"\x00\x00\x01\x2d", b"\x01", b"G"], ids=["0", "limit+1", "16 MiB", "text"])
def test_a_bad_length_is_refused_as_soon_as_it_can_be_seen(data: bytes) -> None:
    frames = Deframer(300)
    frames.feed(data)
    with pytest.raises(WireError):
        frames.next_frame()
