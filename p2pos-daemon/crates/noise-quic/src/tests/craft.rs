//! Handmade input: Noise messages and Initial packets as an attacker would make them, and a small generator of noise.

use noq_proto::{
    ConnectionId, PathId, Side,
    crypto::{Keys, Session},
    transport_parameters::TransportParameters,
};
use p2pos_identity::{PeerId, SecretKey};
use snow::{
    Builder, HandshakeState,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::CryptoResolver,
    types::{Cipher, Dh, Hash, Random},
};

use crate::{
    QUIC_VERSION,
    config::Handshakes,
    handshake::Tuning,
    initial::InitialSecret,
    packet::{PacketLimits, TAG_BYTES},
    resolver::{Entropy, Resolver},
};

pub(super) const NOISE_NAME: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";

/// The smallest QUIC Initial datagram.
pub(super) const INITIAL_DATAGRAM_BYTES: usize = 1_200;

pub(super) fn ana() -> SecretKey {
    SecretKey::from_seed([1; 32])
}

pub(super) fn bo() -> SecretKey {
    SecretKey::from_seed([2; 32])
}

pub(super) fn mallory() -> SecretKey {
    SecretKey::from_seed([66; 32])
}

/// Transport parameters that name nothing: every default of RFC 9000.
pub(super) fn plain_params() -> TransportParameters {
    TransportParameters::read(Side::Server, &mut &b""[..]).unwrap()
}

/// A session of Ana's, calling `responder`.
pub(super) fn calling(responder: &PeerId, tuning: Tuning) -> Box<dyn Session> {
    Handshakes::tuned(&ana(), tuning)
        .client(responder)
        .start_session(QUIC_VERSION, "", &plain_params())
        .unwrap()
}

/// A session of Bo's, waiting for message 1.
pub(super) fn called(tuning: Tuning) -> Box<dyn Session> {
    Handshakes::tuned(&bo(), tuning).server().start_session(QUIC_VERSION, &plain_params())
}

/// Takes what a session wants to send in one write.
pub(super) fn take(session: &mut dyn Session) -> Vec<u8> {
    let mut out = Vec::new();
    let _keys = session.write_handshake(&mut out);
    out
}

pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

pub(super) fn prologue(responder: &PeerId) -> Vec<u8> {
    [b"p2pos noise-quic", &QUIC_VERSION.to_be_bytes()[..], responder.as_bytes()].concat()
}

/// A payload of message 1.
pub(super) fn hello(claimed: &[u8; 32], suites: &[u8], params: &[u8]) -> Vec<u8> {
    let count = u8::try_from(suites.len()).unwrap();
    [&claimed[..], &[count], suites, params].concat()
}

/// A message 1, framed, from the holder of an X25519 secret with whatever payload.
pub(super) fn message_1(secret: &[u8; 32], responder: &PeerId, payload: &[u8]) -> Vec<u8> {
    let mut message = [0; 4096];
    let mut noise = initiator_with(Box::new(Resolver::new(Entropy::System)), secret, responder);
    let len = noise.write_message(payload, &mut message).unwrap();
    framed(&message[..len])
}

/// Bo's answer to a framed message 1, with whatever payload.
pub(super) fn message_2(to: &[u8], payload: &[u8]) -> Vec<u8> {
    message_2_with(Box::new(Resolver::new(Entropy::System)), to, payload)
}

/// A message 1 of Ana's whose ephemeral key is a point of low order, computed as if that were fine: the agreement is
/// zero, which its maker knows as well as everybody else.
pub(super) fn message_1_of_low_order(point: [u8; 32]) -> Vec<u8> {
    let mut message = [0; 4096];
    let secret = ana().x25519_secret();
    let mut noise = initiator_with(Box::new(ZeroResolver { point }), &secret, &bo().peer_id());
    let payload = hello(ana().peer_id().as_bytes(), &[2], &[]);
    let len = noise.write_message(&payload, &mut message).unwrap();
    framed(&message[..len])
}

/// The same as an answer of Bo's.
pub(super) fn message_2_of_low_order(to: &[u8], point: [u8; 32]) -> Vec<u8> {
    message_2_with(Box::new(ZeroResolver { point }), to, &[2])
}

fn message_2_with(resolver: Box<dyn CryptoResolver + Send>, to: &[u8], payload: &[u8]) -> Vec<u8> {
    let prologue = prologue(&bo().peer_id());
    let secret = bo().x25519_secret();
    let mut noise = Builder::with_resolver(NOISE_NAME.parse().unwrap(), resolver)
        .prologue(&prologue)
        .unwrap()
        .local_private_key(secret.as_slice())
        .unwrap()
        .build_responder()
        .unwrap();
    let mut message = [0; 4096];
    noise.read_message(&to[2..], &mut [0; 4096]).unwrap();
    let len = noise.write_message(payload, &mut message).unwrap();
    framed(&message[..len])
}

/// A message 1 that claims to be Ana's, made by somebody who has stolen *Bo's* secret (key compromise
/// impersonation): with it the static-static agreement can be computed from the other end.
pub(super) fn message_1_of_a_key_thief(params: &[u8]) -> Vec<u8> {
    let resolver = StolenResolver { claimed: ana().peer_id().x25519_public(), stolen: *bo().x25519_secret() };
    let mut noise = initiator_with(Box::new(resolver), &[9; 32], &bo().peer_id());
    let mut message = [0; 4096];
    let payload = hello(ana().peer_id().as_bytes(), &[2], params);
    let len = noise.write_message(&payload, &mut message).unwrap();
    framed(&message[..len])
}

fn initiator_with(
    resolver: Box<dyn CryptoResolver + Send>,
    secret: &[u8; 32],
    responder: &PeerId,
) -> HandshakeState {
    let prologue = prologue(responder);
    Builder::with_resolver(NOISE_NAME.parse().unwrap(), resolver)
        .prologue(&prologue)
        .unwrap()
        .local_private_key(secret)
        .unwrap()
        .remote_public_key(&responder.x25519_public())
        .unwrap()
        .build_initiator()
        .unwrap()
}

/// Primitives of a key thief: the static pair lies, the ephemeral pair is honest.
struct StolenResolver {
    claimed: [u8; 32],
    stolen: [u8; 32],
}

/// Primitives of a saboteur: the static pair is honest, the ephemeral pair is a point of low order.
struct ZeroResolver {
    point: [u8; 32],
}

/// What a dishonest pair shows, and what it computes when asked for an agreement.
struct Lie {
    public: [u8; 32],
    agreement: [u8; 32],
}

/// A pair that is honest except in one of its roles.
struct LyingPair {
    honest: Box<dyn Dh>,
    is_static: bool,
    lies_as_static: bool,
    lie: Lie,
}

impl CryptoResolver for StolenResolver {
    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        // DH(claimed, responder) = DH(responder's secret, claimed's public key).
        let mut thief = honest().resolve_dh(choice)?;
        let mut agreement = [0; 32];
        thief.set(&self.stolen);
        thief.dh(&self.claimed, &mut agreement).unwrap();
        let lie = Lie { public: self.claimed, agreement };
        Some(Box::new(LyingPair {
            honest: honest().resolve_dh(choice)?,
            is_static: false,
            lies_as_static: true,
            lie,
        }))
    }

    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        honest().resolve_rng()
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        honest().resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        honest().resolve_cipher(choice)
    }
}

impl CryptoResolver for ZeroResolver {
    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        let lie = Lie { public: self.point, agreement: [0; 32] };
        Some(Box::new(LyingPair {
            honest: honest().resolve_dh(choice)?,
            is_static: false,
            lies_as_static: false,
            lie,
        }))
    }

    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        honest().resolve_rng()
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        honest().resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        honest().resolve_cipher(choice)
    }
}

fn honest() -> Resolver {
    Resolver::new(Entropy::System)
}

impl LyingPair {
    fn lies(&self) -> bool {
        self.is_static == self.lies_as_static
    }
}

impl Dh for LyingPair {
    fn name(&self) -> &'static str {
        self.honest.name()
    }

    fn pub_len(&self) -> usize {
        self.honest.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.honest.priv_len()
    }

    fn set(&mut self, privkey: &[u8]) {
        // Only a static pair is ever set; the ephemeral one is generated.
        self.is_static = true;
        self.honest.set(privkey);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        self.honest.generate(rng)
    }

    fn pubkey(&self) -> &[u8] {
        if self.lies() { &self.lie.public } else { self.honest.pubkey() }
    }

    fn privkey(&self) -> &[u8] {
        self.honest.privkey()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        if !self.lies() {
            return self.honest.dh(pubkey, out);
        }
        out[..32].copy_from_slice(&self.lie.agreement);
        Ok(())
    }
}

/// The Initial keys of a connection to `responder`, as everyone who knows the PeerId can compute them.
pub(super) fn initial_keys(responder: &PeerId, dst_cid: &ConnectionId, side: Side) -> Keys {
    InitialSecret::of_responder(&responder.x25519_public(), PacketLimits::default()).keys(dst_cid, side)
}

/// A CRYPTO frame at offset 0.
pub(super) fn crypto_frame(data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).unwrap() | 0x4000;
    [&[0x06, 0x00][..], &len.to_be_bytes(), data].concat()
}

/// An initiator's Initial datagram of full size, with packet number 0.
pub(super) fn initial_datagram(responder: &PeerId, dst_cid: &[u8], src_cid: &[u8], frames: &[u8]) -> Vec<u8> {
    let keys = initial_keys(responder, &ConnectionId::new(dst_cid), Side::Client);
    let mut packet = vec![0xc0];
    packet.extend_from_slice(&QUIC_VERSION.to_be_bytes());
    for cid in [dst_cid, src_cid] {
        packet.push(u8::try_from(cid.len()).unwrap());
        packet.extend_from_slice(cid);
    }
    packet.push(0); // no token
    let packet_number_at = packet.len() + 2;
    let length = u16::try_from(INITIAL_DATAGRAM_BYTES - packet_number_at).unwrap() | 0x4000;
    packet.extend_from_slice(&length.to_be_bytes());
    packet.push(0); // packet number
    let header_len = packet.len();
    packet.extend_from_slice(frames);
    packet.resize(INITIAL_DATAGRAM_BYTES - TAG_BYTES, 0); // PADDING frames
    packet.resize(INITIAL_DATAGRAM_BYTES, 0);
    keys.packet.local.encrypt(PathId::ZERO, 0, &mut packet, header_len);
    keys.header.local.encrypt(packet_number_at, &mut packet);
    packet
}

/// Destination and source connection id of a long header.
pub(super) fn cids(datagram: &[u8]) -> (&[u8], &[u8]) {
    let (dst, rest) = datagram[6..].split_at(usize::from(datagram[5]));
    (dst, &rest[1..1 + usize::from(rest[0])])
}

/// Numbers that look random and are the same on every run (xorshift64*); the seed is in the test.
pub(super) struct Gibberish(pub(super) u64);

impl Gibberish {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}
