"""Checks every value of the vectors, and so the Rust crate, against the second implementation."""

from __future__ import annotations

import json
from pathlib import Path

import noise_quic as nq
import pytest
from cryptography.exceptions import InvalidTag

VECTORS = Path(__file__).parent.parent / "vectors"
PACKETS = json.loads((VECTORS / "packets.json").read_text())
NOISE = json.loads((VECTORS / "noise-ik.json").read_text())["vectors"]

ACK_OF_PACKET_0 = bytes([0x02, 0, 0, 0, 0])
PING_AND_PADDING = bytes([1, 0, 0, 0, 0, 0, 0, 0])


class Case:
    """One case of the packet vectors: hex by name, and a note of which names were checked."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values
        self.checked: set[str] = {"name"}

    def __getitem__(self, name: str) -> bytes:
        self.checked.add(name)
        return bytes.fromhex(self.values[name])

    def check(self, name: str, value: bytes) -> None:
        """Compare a derived value with the recorded one."""
        assert value.hex() == self.values[name], name
        self.checked.add(name)


@pytest.fixture(params=PACKETS["cases"], ids=lambda case: case["name"])
def case(request: pytest.FixtureRequest) -> Case:
    """Give each case in turn."""
    return Case(request.param)


def test_the_version_is_the_one_we_implement() -> None:
    assert int(PACKETS["version"], 16) == nq.VERSION


@pytest.mark.parametrize("vector", NOISE, ids=lambda vector: vector["origin"])
def test_noise_gives_the_answers_of_other_implementations(vector: dict) -> None:
    def hexed(name: str) -> bytes:
        return bytes.fromhex(vector[name])

    ours = nq.Noise(hexed("init_prologue"), hexed("init_static"), hexed("init_ephemeral"), hexed("init_remote_static"), True)
    theirs = nq.Noise(hexed("resp_prologue"), hexed("resp_static"), hexed("resp_ephemeral"), nq.public_of(hexed("resp_static")), False)
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    assert ours.write_first(messages[0][0]) == messages[0][1]
    assert theirs.read_first(messages[0][1]) == messages[0][0]
    assert theirs.write_second(messages[1][0]) == messages[1][1]
    assert ours.read_second(messages[1][1]) == messages[1][0]
    assert ours.h == theirs.h
    if "handshake_hash" in vector:
        assert ours.h == hexed("handshake_hash")
    keys = ours.split()
    assert keys == theirs.split()
    for i, (payload, ciphertext) in enumerate(messages[2:]):
        sealed = nq.ChaCha20Poly1305(keys[i % 2]).encrypt(nq.noise_nonce(i // 2), payload, b"")
        assert sealed == ciphertext


def test_every_value_follows_from_the_fixed_keys(case: Case) -> None:
    noise = check_handshake(case)
    prk = nq.session_prk(case["noise: k1"], case["noise: k2"], noise.h)
    check_secrets(case, prk)
    check_handshake_datagrams(case)
    check_one_rtt(case)
    check_retry(case)
    assert case.checked == set(case.values), "a value of the vectors was not checked"


def check_handshake(case: Case) -> nq.Noise:
    for side in ("initiator", "responder"):
        seed = case[f"{side}: Ed25519 seed"]
        case.check(f"{side}: PeerId", nq.peer_id(seed))
        case.check(f"{side}: X25519 secret", nq.x25519_secret(seed))
        case.check(f"{side}: X25519 public", nq.x25519_public(nq.peer_id(seed)))
        assert nq.public_of(nq.x25519_secret(seed)) == nq.x25519_public(nq.peer_id(seed))
    responder = case["responder: PeerId"]
    case.check("noise: prologue", nq.prologue(responder))

    def side(name: str) -> nq.Noise:
        keys = (case[f"{name}: X25519 secret"], case[f"{name}: ephemeral secret"])
        return nq.Noise(nq.prologue(responder), *keys, case["responder: X25519 public"], name == "initiator")

    ours, theirs = side("initiator"), side("responder")
    suites = [1, 2] if case.values["name"] == "aes-256-gcm" else [2]
    payload = case["message 1: payload"]
    params = payload[33 + len(suites) :]
    assert payload == nq.hello(nq.peer_id(case["initiator: Ed25519 seed"]), suites, params)
    case.check("suite", bytes([suites[0]]))
    assert case["message 2: payload"][0] == suites[0]

    first = ours.write_first(payload)
    case.check("message 1: with length", nq.framed(first))
    assert theirs.read_first(first) == payload
    assert theirs.remote_static == nq.x25519_public(payload[:32])
    second = theirs.write_second(case["message 2: payload"])
    case.check("message 2: with length", nq.framed(second))
    assert ours.read_second(second) == case["message 2: payload"]
    assert ours.h == theirs.h
    assert ours.split() == theirs.split()
    case.check("noise: handshake hash", ours.h)
    case.check("noise: k1", ours.split()[0])
    case.check("noise: k2", ours.split()[1])
    return ours


def check_secrets(case: Case, prk: bytes) -> None:
    for label in ("handshake i", "handshake r", "confirm i", "confirm r", "traffic i", "traffic r", "exporter"):
        case.check(f"secret: {label}", nq.expand(prk, label.encode()))
    exported = nq.export(case["secret: exporter"], b"label", b"context", 48)
    case.check("export of 48 bytes for label, context", exported)
    traffic_i, traffic_r = (nq.DirectionKeys(case["suite"][0], case[f"secret: traffic {side}"]) for side in "ir")
    case.check("secret: traffic i, after one update", traffic_i.updated().secret)
    case.check("secret: traffic r, after two updates", traffic_r.updated().updated().secret)


def check_handshake_datagrams(case: Case) -> None:
    suite, static = case["suite"][0], case["responder: X25519 public"]
    first_id, ours, theirs = (case[f"connection id: {name}"] for name in ("first", "initiator's", "responder's"))

    frames = nq.crypto_frame(case["message 1: with length"]).ljust(1200 - 27 - 16, b"\0")
    datagram = nq.Packet(0xC0, first_id, ours, 0, frames).protect(nq.initial_keys(static, first_id, b"i"))
    case.check("datagram 1: initiator, Initial", datagram)

    frames = ACK_OF_PACKET_0 + nq.crypto_frame(case["message 2: with length"])
    initial = nq.Packet(0xC0, ours, theirs, 0, frames).protect(nq.initial_keys(static, first_id, b"r"))
    frames = nq.crypto_frame(case["secret: confirm r"]).ljust(1200 - len(initial) - 26 - 16, b"\0")
    handshake = nq.Packet(0xE0, ours, theirs, 0, frames).protect(nq.DirectionKeys(suite, case["secret: handshake r"]))
    case.check("datagram 2: responder, Initial and Handshake", initial + handshake)

    frames = ACK_OF_PACKET_0 + nq.crypto_frame(case["secret: confirm i"])
    handshake = nq.Packet(0xE0, theirs, ours, 0, frames).protect(nq.DirectionKeys(suite, case["secret: handshake i"]))
    case.check("datagram 3: initiator, Handshake", handshake)


def check_one_rtt(case: Case) -> None:
    keys = nq.DirectionKeys(case["suite"][0], case["secret: traffic i"])
    destination = case["connection id: responder's"]

    def packet(first: int, path: int, number: int) -> nq.Packet:
        return nq.Packet(first, destination, None, number, PING_AND_PADDING, path)

    case.check("1-RTT: path 0, packet 0", packet(0x40, 0, 0).protect(keys))
    case.check("1-RTT: path 1, packet 0", packet(0x40, 1, 0).protect(keys))
    far = packet(0x43, 0x01020304, 0x0506070809)
    case.check("1-RTT: path 0x01020304, packet 0x0506070809", far.protect(keys))
    case.check("1-RTT: path 0, packet 1, key phase 1", packet(0x44, 0, 1).protect(keys.updated()))


def check_retry(case: Case) -> None:
    ids = (case[f"connection id: {name}"] for name in ("first", "initiator's", "responder's"))
    retry = nq.retry_packet(case["responder: X25519 public"], *ids, b"any token")
    case.check("retry: token 'any token', in answer to datagram 1", retry)


def test_the_first_datagram_opens_with_the_responders_key_only(case: Case) -> None:
    datagram, first_id = case["datagram 1: initiator, Initial"], case["connection id: first"]
    number_at = 26
    keys = nq.initial_keys(case["responder: X25519 public"], first_id, b"i")
    header, frames = nq.unprotect(datagram, number_at, keys)
    assert header[0] == 0xC0
    assert frames.startswith(nq.crypto_frame(case["message 1: with length"]))
    wrong = nq.initial_keys(case["initiator: X25519 public"], first_id, b"i")
    with pytest.raises(InvalidTag):
        nq.unprotect(datagram, number_at, wrong)


def test_a_packet_of_one_path_does_not_open_on_another(case: Case) -> None:
    keys = nq.DirectionKeys(case["suite"][0], case["secret: traffic i"])
    assert nq.unprotect(case["1-RTT: path 1, packet 0"], 9, keys, path=1)[1] == PING_AND_PADDING
    with pytest.raises(InvalidTag):
        nq.unprotect(case["1-RTT: path 1, packet 0"], 9, keys, path=0)


def test_an_agreement_that_comes_out_zero_is_an_error() -> None:
    for low_order in (bytes(32), b"\x01" + bytes(31)):
        with pytest.raises(ValueError, match="."):
            nq.agree(bytes([7] * 32), low_order)
