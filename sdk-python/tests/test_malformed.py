"""Every malformed input gets the answer that malformed.json says, from the handshake and session machines."""

from __future__ import annotations

from typing import Any

import pytest
from vectors import cases_of, frames_of

from p2pos import messages as m
from p2pos.errors import HandshakeRefused
from p2pos.handshake import Acceptor, Secrets
from p2pos.protocol import Role, Session, Settings
from p2pos.streams import End, Source
from p2pos.testing._desk import Desk, Hall

CASES = cases_of("malformed.json", "cases")


def limits(case: dict[str, Any]) -> m.Limits:
    return m.Limits(**case["told"]["daemon"]["limits"])


def cases(phase: str) -> pytest.MarkDecorator:
    chosen = [case for case in CASES if case["phase"] == phase]
    return pytest.mark.parametrize("case", chosen, ids=[case["id"] for case in chosen])


def acceptor(judge: dict[str, Any]) -> Acceptor:
    tickets = {bytes.fromhex(ticket) for ticket in judge["tickets"]}
    secrets = Secrets({judge["launch_token"]}, tickets, bytes.fromhex(judge["secret"]))
    return Acceptor(secrets, bytes.fromhex(judge["server_nonce"]))


def judge_hello(case: dict[str, Any], step: int) -> bytes:
    machine = acceptor(case["told"]["daemon"])
    for frame in case["told"]["givens"][case["given"]]:
        if frame["from"] == "plugin":
            assert machine.handle_input(bytes.fromhex(frame["hex"])) is None
        else:
            assert machine.poll_transmit().hex() == frame["hex"]
    data = bytes.fromhex(case["hex"])

    def feed() -> None:
        for at in range(0, len(data), step):
            assert machine.handle_input(data[at : at + step]) is None, "it was let in"

    with pytest.raises(HandshakeRefused) as refused:
        feed()
    assert refused.value.code == case["code"]
    return machine.poll_transmit()


@pytest.mark.parametrize("step", [1, 1 << 20], ids=["bytewise", "whole"])
@cases("pre")
def test_before_the_handshake(case: dict[str, Any], step: int) -> None:
    answer = judge_hello(case, step)
    if case["answer"] == "silence":
        assert answer == b""
        return
    [(rid, body)] = frames_of(answer)
    assert isinstance(body, m.Refused)
    assert (rid, body.code) == (case["rid"], case["code"])


def prepare(role: Role, case: dict[str, Any]) -> tuple[Session, Any]:
    """A session in which the given frames were exchanged."""
    session = Session(Settings.of(role, m.Hello(), m.Welcome(limits=limits(case))), 0.0)
    desk = Desk(session, Hall(limits(case).protocols_max), object())
    pump = desk.pump if role is Role.DAEMON else lambda: list(iter(session.poll_event, None))
    for frame in case["told"]["givens"][case["given"]]:
        raw = bytes.fromhex(frame["hex"])
        [(rid, body)] = frames_of(raw)
        if frame["from"] != role.value:
            session.handle_input(raw, 0.0)
        else:
            play(session, rid, body)
        pump()
    b"".join(bytes(part) for part in session.poll_transmit())
    assert session.ended is None
    return session, pump


def play(session: Session, rid: int, body: m.Message | None) -> None:
    """Lets the judge itself say a frame, by its own calls."""
    if isinstance(body, m.Open | m.Incoming):
        wanted = body.stream
        stream, got = session.open(body)
        assert (stream.id, got) == (wanted, rid)
        stream.datagram_max = getattr(body, "datagram_max", 0)
    elif isinstance(body, m.Opened | m.Error | m.Accept | m.Reject):
        session.reply(rid, body)
    elif isinstance(body, m.Register):
        assert session.request(body) == rid
    elif isinstance(body, m.Ready):
        session.notify(body)
    elif isinstance(body, m.Data):
        session.write(session.streams[body.stream], body.payload)
        if body.fin:
            session.finish(session.streams[body.stream])
        session.poll_transmit()
    elif isinstance(body, m.Reset):
        session.reset(session.streams[body.stream], body.code, body.app_code)
    elif isinstance(body, m.StreamClosed):
        stream_or_none = session.streams.get(body.stream)
        if stream_or_none is not None:
            session.close_detached(stream_or_none, body)
    else:
        assert isinstance(body, m.Done)


@pytest.mark.parametrize("step", [1, 1 << 20], ids=["bytewise", "whole"])
@cases("post")
def test_after_the_handshake(case: dict[str, Any], step: int) -> None:
    role = Role(case["judge"])
    session, pump = prepare(role, case)
    data = bytes.fromhex(case["hex"])
    for at in range(0, len(data), step):
        session.handle_input(data[at : at + step], 0.0)
        pump()
    said = frames_of(b"".join(bytes(part) for part in session.poll_transmit()))
    said = [(rid, body) for rid, body in said if not isinstance(body, m.Pong | m.Window)]
    check(case, session, said)


def check(case: dict[str, Any], session: Session, said: list[tuple[int, m.Message | None]]) -> None:
    answer, code = case["answer"], case["code"]
    if answer == "none":
        assert said == []
        assert session.ended is None
        return
    rid, body = said[0]
    if answer == "reset":
        assert isinstance(body, m.Reset)
        assert (body.stream, body.code) == (case["stream"], code)
        assert session.ended is None
        return
    assert isinstance(body, m.Error)
    assert len(said) == 1
    assert (rid, body.code, body.stream) == (case["rid"], code, case["stream"])
    assert body.hint
    if answer == "error":
        assert session.ended is not None
        assert session.ended.code == code
    else:
        assert answer == ("reply" if rid else "complaint")
        assert session.ended is None


def test_there_are_a_hundred_malformed_inputs_at_least() -> None:
    assert len([case for case in CASES if case["id"].startswith("now-")]) >= 100


def test_an_end_names_who_did_it() -> None:
    text = str(End(400, 7, Source.REMOTE).error("reading"))
    assert "other side" in text
    assert "7" in text
