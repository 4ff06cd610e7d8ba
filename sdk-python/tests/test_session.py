"""The session machine: two of them joined by wires that cut and delay as they like, against a model in plain Python."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vectors import frames_of

from p2pos import Code, MisuseError, P2posError, SessionEnded, StreamReset, StreamStopped
from p2pos import messages as m
from p2pos.codec import encode_frame
from p2pos.names import peer_id_of_key
from p2pos.protocol import Answer, Changed, Ended, Notice, Request, Role, Session, Settings
from p2pos.streams import Stream

BO = peer_id_of_key(bytes(32))
WINDOW = 64
LIMITS = m.Limits(4096, 32, WINDOW, 8, 4, 8, 100)


class Pair:
    """A plugin's session and a daemon's, and the bytes between them. Every Open and Incoming is accepted."""

    def __init__(self, hello: m.Hello | None = None) -> None:
        hello = hello or m.Hello(stream_window_bytes=WINDOW)
        welcome = m.Welcome(limits=LIMITS)
        self.sides = {role: Session(Settings.of(role, hello, welcome), 0.0) for role in Role}
        self.wire: dict[Role, bytearray] = {role: bytearray() for role in Role}
        self.met: dict[Role, dict[int, Stream]] = {role: {} for role in Role}
        self.notices: dict[Role, list[m.Message]] = defaultdict(list)
        self.answers: dict[Role, list[m.Message]] = defaultdict(list)

    @property
    def plugin(self) -> Session:
        return self.sides[Role.PLUGIN]

    @property
    def daemon(self) -> Session:
        return self.sides[Role.DAEMON]

    def open(self, role: Role, kind: m.Kind = m.Kind.STREAM) -> int:
        body: m.Open | m.Incoming
        if role is Role.PLUGIN:
            body = m.Open(peer=BO, protocols=["/t/1"], kind=kind)
        else:
            body = m.Incoming(peer=BO, protocol="/t/1", kind=kind)
        stream, _ = self.sides[role].open(body)
        self.met[role][stream.id] = stream
        return stream.id

    def carry(self, to: Role, most: int = 1 << 30) -> bool:
        """Moves up to `most` bytes towards one side; False: there were none."""
        source = self.sides[to.other]
        if not self.wire[to]:
            self.wire[to] += b"".join(bytes(part) for part in source.poll_transmit())
        piece = bytes(self.wire[to][:most])
        del self.wire[to][:most]
        if piece:
            self.sides[to].handle_input(piece, 0.0)
        self.take_events(to)
        return bool(piece)

    def take_events(self, role: Role) -> None:
        side = self.sides[role]
        while (event := side.poll_event()) is not None:
            if isinstance(event, Request) and event.stream is not None:
                self.met[role][event.stream.id] = event.stream
                body = event.body
                id = event.stream.id
                side.reply(event.rid, m.Opened(id, "/t/1") if isinstance(body, m.Open) else m.Accept(id))
            elif isinstance(event, Answer):
                self.answers[role].append(event.body)
            elif isinstance(event, Notice):
                self.notices[role].append(event.body)
            else:
                assert isinstance(event, Changed | Ended | Request)

    def settle(self) -> None:
        while self.carry(Role.PLUGIN) | self.carry(Role.DAEMON):
            pass


def test_bytes_pass_both_ways_and_end_well() -> None:
    pair = Pair()
    id = pair.open(Role.PLUGIN)
    near = pair.met[Role.PLUGIN][id]
    assert pair.plugin.write(near, b"hello") == 5
    pair.plugin.finish(near)
    pair.settle()
    far = pair.met[Role.DAEMON][id]
    assert pair.daemon.read(far, 100) == b"hello"
    assert pair.daemon.read(far, 100) == b""
    pair.daemon.write(far, b"bye")
    pair.daemon.finish(far)
    pair.settle()
    assert pair.plugin.read(near, 2) == b"by"
    assert pair.plugin.read(near, 2) == b"e"
    assert near.closed == m.StreamClosed(id, m.Cause.FINISHED, 0, 0, 3, 5)
    assert not pair.plugin.streams
    assert not pair.daemon.streams


def test_a_writer_stops_at_the_credit_and_goes_on_when_the_reader_consumed_half() -> None:
    pair = Pair()
    id = pair.open(Role.PLUGIN)
    near = pair.met[Role.PLUGIN][id]
    assert pair.plugin.write(near, bytes(1000)) == WINDOW
    assert pair.plugin.write(near, b"x") == 0
    pair.settle()
    far = pair.met[Role.DAEMON][id]
    assert pair.daemon.read(far, WINDOW // 2 - 1) is not None
    pair.settle()
    assert pair.plugin.write(near, b"x") == 0
    assert pair.daemon.read(far, 1) is not None
    pair.settle()
    assert pair.plugin.write(near, bytes(1000)) == WINDOW // 2


def test_auto_window_needs_no_credit_from_the_plugin() -> None:
    pair = Pair(m.Hello(auto_window=True))
    id = pair.open(Role.DAEMON)
    near = pair.met[Role.DAEMON][id]
    assert pair.daemon.write(near, bytes(10_000)) == 10_000
    pair.settle()
    far = pair.met[Role.PLUGIN][id]
    assert len(pair.plugin.read(far, 100_000) or b"") == 10_000
    assert pair.plugin.poll_transmit() == []


def test_a_reset_tells_the_app_code_and_lets_what_arrived_be_read() -> None:
    pair = Pair()
    id = pair.open(Role.DAEMON)
    near = pair.met[Role.DAEMON][id]
    pair.daemon.write(near, b"last words")
    pair.settle()
    pair.daemon.reset(near, app_code=7)
    pair.settle()
    far = pair.met[Role.PLUGIN][id]
    assert pair.plugin.read(far, 100) == b"last words"
    with pytest.raises(StreamReset) as reset:
        pair.plugin.read(far, 100)
    assert (reset.value.code, reset.value.app_code) == (Code.APP, 7)
    with pytest.raises(StreamReset):
        pair.plugin.write(far, b"x")
    assert far.closed is not None
    assert far.closed.cause == m.Cause.RESET_REMOTE


def test_stop_ends_one_direction_only() -> None:
    pair = Pair()
    id = pair.open(Role.PLUGIN)
    pair.settle()
    near, far = pair.met[Role.PLUGIN][id], pair.met[Role.DAEMON][id]
    pair.plugin.stop(near, app_code=3)
    pair.settle()
    with pytest.raises(StreamStopped) as stopped:
        pair.daemon.write(far, b"x")
    assert stopped.value.app_code == 3
    assert pair.plugin.write(near, b"still here") == 10
    pair.plugin.finish(near)
    pair.settle()
    assert pair.daemon.read(far, 100) == b"still here"
    pair.settle()
    assert near.closed is not None
    assert near.closed.cause == m.Cause.RESET_LOCAL


def test_writing_after_close_write_is_a_mistake_of_the_program() -> None:
    pair = Pair()
    near = pair.met[Role.PLUGIN][pair.open(Role.PLUGIN)]
    pair.plugin.finish(near)
    with pytest.raises(MisuseError):
        pair.plugin.write(near, b"x")


def test_a_cancelled_open_that_was_opened_all_the_same_is_reset() -> None:
    pair = Pair()
    id = pair.open(Role.PLUGIN)
    pair.carry(Role.DAEMON)  # it opens at once
    pair.plugin.cancel(1)
    pair.settle()
    assert pair.answers[Role.PLUGIN] == []
    assert not pair.plugin.streams
    assert not pair.daemon.streams
    closed = pair.met[Role.PLUGIN][id].closed
    assert closed is not None
    assert closed.cause == m.Cause.RESET_LOCAL


def test_a_cancelled_open_in_time_is_answered_208_and_forgotten() -> None:
    pair = Pair()
    pair.open(Role.PLUGIN)
    pair.plugin.cancel(1)
    pair.daemon.handle_input(b"".join(bytes(p) for p in pair.plugin.poll_transmit()), 0.0)
    said = frames_of(b"".join(bytes(p) for p in pair.daemon.poll_transmit()))
    assert [(rid, getattr(body, "code", 0)) for rid, body in said] == [(1, Code.CANCELLED)]
    assert not pair.daemon.streams


def test_control_frames_overtake_data_and_streams_take_turns() -> None:
    pair = Pair()
    first, second = pair.open(Role.PLUGIN), pair.open(Role.PLUGIN)
    pair.plugin.poll_transmit()
    for id in (first, second):
        pair.plugin.write(pair.met[Role.PLUGIN][id], bytes(WINDOW))
    pair.plugin.notify(m.Status(m.Health.OK))
    said = [body for _, body in frames_of(b"".join(bytes(p) for p in pair.plugin.poll_transmit()))]
    assert isinstance(said[0], m.Status)
    assert [body.stream for body in said[1:] if isinstance(body, m.Data)] == [first, second, first, second]


def test_small_writes_of_one_stream_leave_in_one_frame() -> None:
    pair = Pair()
    near = pair.met[Role.PLUGIN][pair.open(Role.PLUGIN)]
    pair.plugin.poll_transmit()
    for _ in range(10):
        pair.plugin.write(near, b"ab")
    said = frames_of(b"".join(bytes(p) for p in pair.plugin.poll_transmit()))
    assert [body for _, body in said] == [m.Data(1, b"ab" * 10)]


def test_bytes_are_handed_to_the_socket_without_a_copy() -> None:
    pair = Pair(m.Hello())
    near = pair.met[Role.PLUGIN][pair.open(Role.PLUGIN)]
    pair.plugin.poll_transmit()
    payload = bytes(32)
    pair.plugin.write(near, payload)
    assert any(part is payload for part in pair.plugin.poll_transmit())


def test_silence_is_asked_after_15_s_and_given_up_after_45_s() -> None:
    session = Session(Settings(Role.PLUGIN), 100.0)
    assert session.poll_timeout() == 115.0
    session.handle_timeout(114.9)
    assert session.poll_transmit() == []
    session.handle_timeout(115.0)
    [(_, ping)] = frames_of(b"".join(bytes(p) for p in session.poll_transmit()))
    assert isinstance(ping, m.Ping)
    session.handle_timeout(145.0)
    assert session.ended is not None


def test_end_of_file_ends_every_request_and_stream() -> None:
    pair = Pair()
    near = pair.met[Role.PLUGIN][pair.open(Role.PLUGIN)]
    pair.plugin.handle_eof()
    with pytest.raises(SessionEnded) as ended:
        pair.plugin.read(near, 1)
    assert ended.value.code == Code.SHUTTING_DOWN
    with pytest.raises(SessionEnded):
        pair.plugin.request(m.ContactList())
    assert isinstance([*iter(pair.plugin.poll_event, None)][-1], Ended)


def test_a_side_that_asks_and_does_not_read_is_ended_with_106() -> None:
    session = Session(Settings(Role.DAEMON), 0.0)
    pings = encode_frame(m.Ping(1 << 60), 1) * 1000
    for _ in range(1000):
        session.handle_input(pings, 0.0)
        if session.ended is not None:
            break
    assert session.ended is not None
    assert session.ended.code == Code.SLOW_CONSUMER


def test_datagrams_are_dropped_oldest_first_and_counted() -> None:
    pair = Pair()
    id = pair.open(Role.PLUGIN, m.Kind.DATAGRAM)
    pair.settle()
    near, far = pair.met[Role.PLUGIN][id], pair.met[Role.DAEMON][id]
    for number in range(500):
        pair.daemon.send_datagram(far, number.to_bytes(2, "big") + bytes(998))
    pair.settle()
    first = near.next_datagram()
    assert first is not None
    lost = int.from_bytes(first[:2], "big")
    assert lost == far.datagrams_dropped + near.datagrams_dropped
    assert 200 < lost < 300


# --- against a model ---

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["open", "write", "read", "finish", "carry", "carry", "reset", "stop"]),
        st.sampled_from(list(Role)),
        st.integers(0, 7),
        st.integers(1, 200),
    ),
    max_size=120,
)


@given(STEPS)
def test_whatever_the_order_bytes_arrive_in_order_and_credit_is_never_lost(
    steps: list[tuple[str, Role, int, int]],
) -> None:
    pair = Pair()
    written: dict[tuple[Role, int], bytes] = defaultdict(bytes)
    read: dict[tuple[Role, int], bytes] = defaultdict(bytes)
    counter = 0

    def read_some(role: Role, id: int, most: int) -> None:
        try:
            read[role, id] += pair.sides[role].read(pair.met[role][id], most) or b""
        except P2posError:
            pass

    for what, role, pick, count in steps:
        side = pair.sides[role]
        ids = list(pair.met[role])
        if what == "open" and len(side.streams) < 8 and len(pair.sides[role.other].streams) < 8:
            pair.open(role)
            continue
        if what == "carry":
            pair.carry(role, count)
            continue
        if not ids:
            continue
        id = ids[pick % len(ids)]
        stream = pair.met[role][id]
        try:
            if what == "write":
                data = bytes((counter + i) & 255 for i in range(count))
                taken = side.write(stream, data)
                written[role, id] += data[:taken]
                counter += taken
            elif what == "read":
                read_some(role, id, count)
            elif what == "finish":
                side.finish(stream)
            elif what == "reset" and count > 180:
                side.reset(stream, app_code=1)
            elif what == "stop" and count > 180:
                side.stop(stream, app_code=2)
        except (StreamReset, StreamStopped, MisuseError):
            pass
        assert 0 <= stream.credit <= 16 << 20
        assert stream.pending_bytes <= WINDOW
        assert stream.buffered <= WINDOW
        pair.take_events(role)

    # One side at least reads: so everything must come to its end.
    for _ in range(50):
        pair.settle()
        for role in Role:
            for id in pair.met[role]:
                read_some(role, id, 1 << 20)
    assert pair.plugin.ended is None, str(pair.plugin.ended)
    assert pair.daemon.ended is None, str(pair.daemon.ended)
    for (role, id), data in written.items():
        got = read[role.other, id]
        near, far = pair.met[role][id], pair.met[role.other].get(id)
        assert data.startswith(got)
        ended_early = near.end or near.stop_received or (far and (far.end or far.stop_sent))
        if not ended_early and far is not None and near.closed is None:
            assert got == data
            assert near.credit == WINDOW - far.consumed if not near.fin_sent else True
        if near.closed is not None and near.closed.cause == m.Cause.FINISHED:
            assert got == data
