//! N3, N5: known answers. The collections of other Noise implementations hold for our primitives under snow, and our
//! own vectors, from fixed keys to UDP datagrams, pin every byte of the wire. A second implementation in Python
//! (`tests/second`) derives the same file from NOISE-QUIC.md alone.
//!
//! `P2POS_BLESS=1 cargo test -p p2pos-noise-quic vectors` rewrites our own file: for a new revision of the wire only.

use std::{fmt::Write as _, time::Duration};

use bytes::BytesMut;
use noq_proto::{
    ConnectionId, PathId, Side,
    crypto::{Keys, PacketKey},
    transport_parameters::TransportParameters,
};
use p2pos_identity::SecretKey;
use serde_json::Value;
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use super::{
    craft::{INITIAL_DATAGRAM_BYTES, NOISE_NAME, crypto_frame, hello, prologue},
    world::{World, address},
};
use crate::{
    QUIC_VERSION,
    handshake::{Agreed, Initiator, LENGTH_BYTES, Parties, Tuning, respond},
    local::LocalKeys,
    packet::{PacketLimits, TAG_BYTES},
    resolver::{Entropy, Resolver},
    retry::RetryKey,
    schedule::{Directions, SessionSecrets, export},
    suite::Suite,
};

const NOISE_VECTORS: &str = include_str!("../../tests/vectors/noise-ik.json");
const PACKET_VECTORS: &str = include_str!("../../tests/vectors/packets.json");
const PACKET_VECTORS_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/packets.json");

const INITIATOR_SEED: [u8; 32] = [0x01; 32];
const RESPONDER_SEED: [u8; 32] = [0x02; 32];
const INITIATOR_EPHEMERAL: [u8; 32] = [0x11; 32];
const RESPONDER_EPHEMERAL: [u8; 32] = [0x22; 32];
/// The connection id that the initiator invents for the responder, and the ids that the two give themselves.
const FIRST_ID: [u8; 8] = *b"\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8";
const INITIATOR_ID: [u8; 8] = *b"\xa1\xa2\xa3\xa4\xa5\xa6\xa7\xa8";
const RESPONDER_ID: [u8; 8] = *b"\xb1\xb2\xb3\xb4\xb5\xb6\xb7\xb8";

#[test]
fn our_primitives_give_the_answers_of_other_noise_implementations() {
    let file: Value = serde_json::from_str(NOISE_VECTORS).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let field = |name: &str| bytes_of_hex(vector[name].as_str().unwrap());
        let (prologue, remote) = (field("init_prologue"), field("init_remote_static"));
        let (init_static, resp_static) = (field("init_static"), field("resp_static"));
        let builder = |ephemeral: &str| {
            let ephemeral = field(ephemeral).try_into().unwrap();
            let resolver = Resolver::new(Entropy::Fixed(ephemeral));
            Builder::with_resolver(NOISE_NAME.parse().unwrap(), Box::new(resolver))
                .prologue(&prologue)
                .unwrap()
        };
        let initiator = builder("init_ephemeral").local_private_key(&init_static).unwrap();
        let initiator = initiator.remote_public_key(&remote).unwrap().build_initiator().unwrap();
        let responder = builder("resp_ephemeral").local_private_key(&resp_static).unwrap();
        let responder = responder.build_responder().unwrap();
        check_messages(vector, initiator, responder);
    }
}

fn check_messages(vector: &Value, mut initiator: HandshakeState, mut responder: HandshakeState) {
    let messages: Vec<_> = vector["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| ["payload", "ciphertext"].map(|part| bytes_of_hex(message[part].as_str().unwrap())))
        .collect();
    let [first, second, rest @ ..] = &messages[..] else { panic!("a handshake has two messages") };
    exchange(&mut initiator, &mut responder, first);
    exchange(&mut responder, &mut initiator, second);
    if let Some(hash) = vector["handshake_hash"].as_str() {
        assert_eq!(initiator.get_handshake_hash(), bytes_of_hex(hash));
    }
    // The transport messages check the two keys that our schedule starts from.
    assert_eq!(initiator.dangerously_get_raw_split(), responder.dangerously_get_raw_split());
    let mut sides = [initiator.into_transport_mode().unwrap(), responder.into_transport_mode().unwrap()];
    for (i, [payload, ciphertext]) in rest.iter().enumerate() {
        let mut sent = [0; 1024];
        let len = sides[i % 2].write_message(payload, &mut sent).unwrap();
        assert_eq!(sent[..len], ciphertext[..]);
        let mut read = [0; 1024];
        let len = sides[1 - i % 2].read_message(&sent[..len], &mut read).unwrap();
        assert_eq!(read[..len], payload[..]);
    }
}

fn exchange(from: &mut HandshakeState, to: &mut HandshakeState, [payload, ciphertext]: &[Vec<u8>; 2]) {
    let (mut sent, mut read) = ([0; 1024], [0; 1024]);
    let len = from.write_message(payload, &mut sent).unwrap();
    assert_eq!(sent[..len], ciphertext[..]);
    let len = to.read_message(&sent[..len], &mut read).unwrap();
    assert_eq!(read[..len], payload[..]);
}

#[test]
fn every_byte_from_fixed_keys_to_datagrams_is_as_it_was() {
    let made = packet_vectors();
    if std::env::var_os("P2POS_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(PACKET_VECTORS_PATH, &made).unwrap();
        return;
    }
    for (made, known) in made.lines().zip(PACKET_VECTORS.lines()) {
        assert_eq!(made, known);
    }
    assert_eq!(made, PACKET_VECTORS);
}

#[test]
fn a_real_endpoint_answers_the_first_datagram_of_the_vectors() {
    let file: Value = serde_json::from_str(PACKET_VECTORS).unwrap();
    for case in file["cases"].as_array().unwrap() {
        let mut world = World::pair();
        let first = bytes_of_hex(case["datagram 1: initiator, Initial"].as_str().unwrap());
        world.inject(address(7, 7), world.nodes[1].addr, first);
        world.run_for(Duration::from_millis(1));
        assert_eq!(world.nodes[1].conns.len(), 1);
        assert!(world.bytes_between(world.nodes[1].addr, address(7, 7)) > 0);
    }
}

/// Named values in the order of the handshake.
struct Case(Vec<(&'static str, String)>);

impl Case {
    fn add(&mut self, name: &'static str, bytes: &[u8]) {
        self.0.push((name, hex(bytes)));
    }
}

fn packet_vectors() -> String {
    const AES: &[Suite] = &[Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    const CHACHA: &[Suite] = &[Suite::ChaCha20Poly1305];
    let cases: Vec<_> = [("aes-256-gcm", AES), ("chacha20-poly1305", CHACHA)]
        .into_iter()
        .map(|(name, suites)| {
            let mut case = Case(vec![("name", name.to_owned())]);
            write_case(&mut case, suites);
            let lines: Vec<_> =
                case.0.iter().map(|(name, value)| format!("      \"{name}\": \"{value}\"")).collect();
            format!("    {{\n{}\n    }}", lines.join(",\n"))
        })
        .collect();
    format!(
        "{{\n  \"about\": \"Noise-QUIC revision 1 from fixed keys to UDP datagrams, in hex; NOISE-QUIC.md explains the names\",\n  \
         \"version\": \"{QUIC_VERSION:08x}\",\n  \"cases\": [\n{}\n  ]\n}}\n",
        cases.join(",\n")
    )
}

fn write_case(case: &mut Case, suites: &'static [Suite]) {
    let (ana, bo) = (SecretKey::from_seed(INITIATOR_SEED), SecretKey::from_seed(RESPONDER_SEED));
    write_parties(case, &ana, &bo);
    let tuned =
        |ephemeral| Tuning { entropy: Entropy::Fixed(ephemeral), suites, limits: PacketLimits::default() };
    let ours = Parties::new(LocalKeys::of(&ana).into(), bo.peer_id(), tuned(INITIATOR_EPHEMERAL));
    let theirs = Parties::new(LocalKeys::of(&bo).into(), bo.peer_id(), tuned(RESPONDER_EPHEMERAL));

    let (our_params, their_params) = (params_of_initiator(), params_of_responder());
    let (initiator, first) = Initiator::start(&ours, &our_params).unwrap();
    let (second, at_bo) = respond(&theirs, &their_params, &first[LENGTH_BYTES..]).unwrap();
    let at_ana = initiator.finish(&ours, &second[LENGTH_BYTES..]).unwrap();
    assert_eq!(at_ana.suite, at_bo.suite);
    // What is kept of people we know must not change a byte.
    ours.local.expect(&bo.peer_id());
    theirs.local.expect(&ana.peer_id());
    let (_, first_again) = Initiator::start(&ours, &our_params).unwrap();
    assert_eq!(first_again, first);
    let (second_again, _) = respond(&theirs, &their_params, &first[LENGTH_BYTES..]).unwrap();
    assert_eq!(second_again, second);

    let offer: Vec<_> = suites.iter().map(|suite| suite.wire()).collect();
    let payload_1 = hello(ana.peer_id().as_bytes(), &offer, &encoded(&our_params));
    let payload_2 = [vec![at_bo.suite.wire()], encoded(&their_params)].concat();
    case.add("message 1: payload", &payload_1);
    case.add("message 1: with length", &first);
    case.add("message 2: payload", &payload_2);
    case.add("message 2: with length", &second);
    let (k1, k2, h) = split(&ana, &bo, &payload_1, &payload_2);
    case.add("noise: k1", &k1);
    case.add("noise: k2", &k2);
    case.add("noise: handshake hash", &h);
    assert_schedule(&at_ana, &k1, &k2, &h);
    write_secrets(case, &at_bo);
    write_datagrams(case, &ours, &at_ana, &at_bo, [&first, &second]);
}

fn write_parties(case: &mut Case, ana: &SecretKey, bo: &SecretKey) {
    case.add("initiator: Ed25519 seed", &INITIATOR_SEED);
    case.add("initiator: PeerId", ana.peer_id().as_bytes());
    case.add("initiator: X25519 secret", &ana.x25519_secret()[..]);
    case.add("initiator: X25519 public", &ana.peer_id().x25519_public());
    case.add("initiator: ephemeral secret", &INITIATOR_EPHEMERAL);
    case.add("responder: Ed25519 seed", &RESPONDER_SEED);
    case.add("responder: PeerId", bo.peer_id().as_bytes());
    case.add("responder: X25519 secret", &bo.x25519_secret()[..]);
    case.add("responder: X25519 public", &bo.peer_id().x25519_public());
    case.add("responder: ephemeral secret", &RESPONDER_EPHEMERAL);
    case.add("connection id: first", &FIRST_ID);
    case.add("connection id: initiator's", &INITIATOR_ID);
    case.add("connection id: responder's", &RESPONDER_ID);
    case.add("noise: prologue", &prologue(&bo.peer_id()));
}

fn write_secrets(case: &mut Case, agreed: &Agreed) {
    let secrets = &agreed.secrets;
    case.add("suite", &[agreed.suite.wire()]);
    case.add("secret: handshake i", &secrets.handshake.initiator[..]);
    case.add("secret: handshake r", &secrets.handshake.responder[..]);
    case.add("secret: confirm i", &secrets.confirm.initiator[..]);
    case.add("secret: confirm r", &secrets.confirm.responder[..]);
    case.add("secret: traffic i", &secrets.traffic.initiator[..]);
    case.add("secret: traffic r", &secrets.traffic.responder[..]);
    case.add("secret: exporter", &secrets.exporter[..]);
    let mut exported = [0; 48];
    export(&secrets.exporter, b"label", b"context", &mut exported).unwrap();
    case.add("export of 48 bytes for label, context", &exported);
    let mut traffic = Directions {
        initiator: secrets.traffic.initiator.clone(),
        responder: secrets.traffic.responder.clone(),
    };
    traffic.update();
    case.add("secret: traffic i, after one update", &traffic.initiator[..]);
    traffic.update();
    case.add("secret: traffic r, after two updates", &traffic.responder[..]);
}

fn write_datagrams(case: &mut Case, ours: &Parties, at_ana: &Agreed, at_bo: &Agreed, messages: [&[u8]; 2]) {
    let [first, second] = messages;
    let limits = PacketLimits::default();
    let from_ana = ours.initial.keys(&ConnectionId::new(&FIRST_ID), Side::Client);
    let from_bo = ours.initial.keys(&ConnectionId::new(&FIRST_ID), Side::Server);
    let initial = |dst, src, frames| Plain { first: 0xc0, dst, src: Some(src), number: 0, path: 0, frames };

    let frames = padded(crypto_frame(first), INITIAL_DATAGRAM_BYTES - 27 - TAG_BYTES);
    let datagram = initial(FIRST_ID, INITIATOR_ID, frames).protect(&from_ana);
    assert_eq!(datagram.len(), INITIAL_DATAGRAM_BYTES);
    case.add("datagram 1: initiator, Initial", &datagram);

    let hs_bo = at_bo.secrets.handshake.keys(at_bo.suite, Side::Server, limits);
    let ack = [0x02, 0x00, 0x00, 0x00, 0x00];
    let frames = [&ack[..], &crypto_frame(second)].concat();
    let mut datagram = initial(INITIATOR_ID, RESPONDER_ID, frames).protect(&from_bo);
    let rest = INITIAL_DATAGRAM_BYTES - datagram.len();
    let handshake = |dst, src, frames| Plain { first: 0xe0, dst, src: Some(src), number: 0, path: 0, frames };
    let frames = padded(crypto_frame(&at_bo.secrets.confirm.responder[..]), rest - 26 - TAG_BYTES);
    datagram.extend(handshake(INITIATOR_ID, RESPONDER_ID, frames).protect(&hs_bo));
    assert_eq!(datagram.len(), INITIAL_DATAGRAM_BYTES);
    case.add("datagram 2: responder, Initial and Handshake", &datagram);

    let hs_ana = at_ana.secrets.handshake.keys(at_ana.suite, Side::Client, limits);
    let frames = [&ack[..], &crypto_frame(&at_ana.secrets.confirm.initiator[..])].concat();
    let datagram = handshake(RESPONDER_ID, INITIATOR_ID, frames).protect(&hs_ana);
    case.add("datagram 3: initiator, Handshake", &datagram);

    write_one_rtt(case, at_ana);

    let mut retry = long_header(0xf0, &INITIATOR_ID, &RESPONDER_ID);
    retry.extend_from_slice(b"any token");
    let tag = RetryKey::of(&ours.initial).tag(&ConnectionId::new(&FIRST_ID), &[&retry]);
    retry.extend_from_slice(&tag);
    case.add("retry: token 'any token', in answer to datagram 1", &retry);
}

/// 1-RTT packets of the initiator with a PING and padding: other paths, large numbers, the next key phase.
fn write_one_rtt(case: &mut Case, agreed: &Agreed) {
    let limits = PacketLimits::default();
    let mut keys = agreed.secrets.traffic.keys(agreed.suite, Side::Client, limits);
    let one_rtt = |first, path, number| Plain {
        first,
        dst: RESPONDER_ID,
        src: None,
        number,
        path,
        frames: vec![1, 0, 0, 0, 0, 0, 0, 0],
    };
    case.add("1-RTT: path 0, packet 0", &one_rtt(0x40, 0, 0).protect(&keys));
    case.add("1-RTT: path 1, packet 0", &one_rtt(0x40, 1, 0).protect(&keys));
    case.add(
        "1-RTT: path 0x01020304, packet 0x0506070809",
        &one_rtt(0x43, 0x0102_0304, 0x0005_0607_0809).protect(&keys),
    );
    let mut traffic = Directions {
        initiator: agreed.secrets.traffic.initiator.clone(),
        responder: agreed.secrets.traffic.responder.clone(),
    };
    traffic.update();
    keys.packet = traffic.packet_keys(agreed.suite, Side::Client, limits);
    case.add("1-RTT: path 0, packet 1, key phase 1", &one_rtt(0x44, 0, 1).protect(&keys));
}

/// A packet before protection; its first byte holds form, type, key phase and packet number length.
struct Plain {
    first: u8,
    dst: [u8; 8],
    /// None for a short header.
    src: Option<[u8; 8]>,
    number: u64,
    path: u32,
    frames: Vec<u8>,
}

impl Plain {
    fn protect(&self, keys: &Keys) -> Vec<u8> {
        let number_bytes = usize::from(self.first & 3) + 1;
        let mut packet = match self.src {
            None => [&[self.first], &self.dst[..]].concat(),
            Some(src) => self.long_header_with_length(&src, number_bytes),
        };
        let number_at = packet.len();
        packet.extend_from_slice(&self.number.to_be_bytes()[8 - number_bytes..]);
        let header_len = packet.len();
        packet.extend_from_slice(&self.frames);
        packet.resize(packet.len() + TAG_BYTES, 0);
        let plain = packet.clone();
        keys.packet.local.encrypt(PathId::from(self.path), self.number, &mut packet, header_len);
        assert_opens(&*keys.packet.local, self, header_len, &packet, &plain);
        keys.header.local.encrypt(number_at, &mut packet);
        packet
    }

    fn long_header_with_length(&self, src: &[u8], number_bytes: usize) -> Vec<u8> {
        let mut header = long_header(self.first, &self.dst, src);
        if self.first & 0x30 == 0 {
            header.push(0); // an Initial without a token
        }
        let length = u16::try_from(number_bytes + self.frames.len() + TAG_BYTES).unwrap() | 0x4000;
        header.extend_from_slice(&length.to_be_bytes());
        header
    }
}

fn assert_opens(key: &dyn PacketKey, packet: &Plain, header_len: usize, sealed: &[u8], plain: &[u8]) {
    let mut payload = BytesMut::from(&sealed[header_len..]);
    key.decrypt(PathId::from(packet.path), packet.number, &sealed[..header_len], &mut payload).unwrap();
    assert_eq!(payload, plain[header_len..plain.len() - TAG_BYTES]);
}

fn long_header(first: u8, dst: &[u8], src: &[u8]) -> Vec<u8> {
    let mut header = vec![first];
    header.extend_from_slice(&QUIC_VERSION.to_be_bytes());
    for cid in [dst, src] {
        header.push(u8::try_from(cid.len()).unwrap());
        header.extend_from_slice(cid);
    }
    header
}

/// Parameters of an honest initiator: initial_source_connection_id, idle timeout, stream and data limits.
fn params_of_initiator() -> TransportParameters {
    let bytes =
        [&[0x0f, 8], &INITIATOR_ID[..], &[0x01, 4, 0x80, 0, 0x75, 0x30, 0x04, 4, 0x80, 0x10, 0, 0]].concat();
    TransportParameters::read(Side::Server, &mut &bytes[..]).unwrap()
}

/// Parameters of an honest responder: the two ids that RFC 9000 s7.3 demands, and a data limit.
fn params_of_responder() -> TransportParameters {
    let ids = [&[0x00, 8], &FIRST_ID[..], &[0x0f, 8], &RESPONDER_ID[..]].concat();
    let bytes = [&ids[..], &[0x04, 4, 0x80, 0x10, 0, 0]].concat();
    TransportParameters::read(Side::Client, &mut &bytes[..]).unwrap()
}

fn encoded(params: &TransportParameters) -> Vec<u8> {
    let mut bytes = Vec::new();
    params.write(&mut bytes);
    bytes
}

/// The two keys and the hash that Noise ends with, from snow directly.
fn split(
    ana: &SecretKey,
    bo: &SecretKey,
    payload_1: &[u8],
    payload_2: &[u8],
) -> ([u8; 32], [u8; 32], Vec<u8>) {
    let prologue = prologue(&bo.peer_id());
    let builder = |ephemeral| {
        let resolver = Resolver::new(Entropy::Fixed(ephemeral));
        Builder::with_resolver(NOISE_NAME.parse().unwrap(), Box::new(resolver)).prologue(&prologue).unwrap()
    };
    let (secret_a, secret_b) = (ana.x25519_secret(), bo.x25519_secret());
    let remote = bo.peer_id().x25519_public();
    let mut initiator = builder(INITIATOR_EPHEMERAL)
        .local_private_key(&secret_a[..])
        .and_then(|builder| builder.remote_public_key(&remote))
        .and_then(Builder::build_initiator)
        .unwrap();
    let mut responder = builder(RESPONDER_EPHEMERAL)
        .local_private_key(&secret_b[..])
        .and_then(Builder::build_responder)
        .unwrap();
    let (mut message, mut read) = ([0; 1024], [0; 1024]);
    let len = initiator.write_message(payload_1, &mut message).unwrap();
    responder.read_message(&message[..len], &mut read).unwrap();
    let len = responder.write_message(payload_2, &mut message).unwrap();
    initiator.read_message(&message[..len], &mut read).unwrap();
    let (k1, k2) = initiator.dangerously_get_raw_split();
    (k1, k2, initiator.get_handshake_hash().to_vec())
}

fn assert_schedule(agreed: &Agreed, k1: &[u8; 32], k2: &[u8; 32], h: &[u8]) {
    let mut both = Zeroizing::new([0; 64]);
    both[..32].copy_from_slice(k1);
    both[32..].copy_from_slice(k2);
    let derived = SessionSecrets::derive(&both, h);
    assert_eq!(derived.traffic.initiator, agreed.secrets.traffic.initiator);
    assert_eq!(derived.exporter, agreed.secrets.exporter);
}

fn padded(mut frames: Vec<u8>, len: usize) -> Vec<u8> {
    frames.resize(len, 0);
    frames
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn bytes_of_hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}
