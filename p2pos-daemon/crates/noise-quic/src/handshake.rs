//! The two Noise messages and what they carry: `Noise_IK_25519_ChaChaPoly_BLAKE2s` (Noise spec rev 34, s7.5).
//!
//! ```text
//! message 1   32 e | 48 s, encrypted | payload | 16 tag      initiator to responder
//!     payload   32 PeerId | 1 count | count suites, best first | QUIC transport parameters (RFC 9000 s18)
//! message 2   32 e | payload | 16 tag                        responder to initiator
//!     payload   1 suite | QUIC transport parameters
//! ```
//!
//! On the wire each message has its length in front, 16 bits. With noq's parameters message 1 has about 300 bytes and
//! message 2 about 250, so each fits into one Initial packet beside its overhead.
//!
//! The prologue binds what both sides must agree on beforehand: this protocol, its version, and the responder's
//! *PeerId*. The last matters because two Ed25519 keys, A and -A, share one X25519 key: without it, somebody could be
//! given -A as "my PeerId", reach A with it, and believe to speak with another person.
//!
//! Refuses to know: packets, spaces, the order in which bytes arrive (`session`).

use std::sync::Arc;

use bytes::Buf;
use noq_proto::{Side, transport_parameters::TransportParameters};
use p2pos_identity::PeerId;
use snow::{Builder, HandshakeState};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    QUIC_VERSION,
    error::HandshakeFailure,
    initial::InitialSecret,
    local::LocalKeys,
    packet::PacketLimits,
    resolver::{Entropy, Resolver},
    retry::RetryKey,
    schedule::{SECRET_BYTES, SessionSecrets},
    suite::{self, OFFERED_SUITES_MAX, Suite},
};

/// The Noise protocol; the name is hashed into every handshake.
const NOISE_NAME: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE_LABEL: &[u8] = b"p2pos noise-quic";

/// The longest Noise message, without its length. A third more than today's, and small enough that each still fits
/// into one 1,200-byte Initial packet, so that a handshake takes one datagram each way and cannot be amplified.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1_024;
/// Bytes of the length in front of a message.
pub(crate) const LENGTH_BYTES: usize = 2;

/// What message 1 adds to its payload: e, encrypted s, tag.
const MESSAGE_1_OVERHEAD_BYTES: usize = 32 + 48 + 16;
const PEER_ID_BYTES: usize = 32;

/// What a test may change and nothing else does.
#[derive(Clone)]
pub(crate) struct Tuning {
    pub(crate) entropy: Entropy,
    pub(crate) suites: &'static [Suite],
    pub(crate) limits: PacketLimits,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            entropy: Entropy::default(),
            suites: suite::of_this_machine(),
            limits: PacketLimits::default(),
        }
    }
}

/// Who speaks with whom, as far as it is known before the first packet. One per dialled peer, and one for all dials
/// that reach us.
pub(crate) struct Parties {
    pub(crate) local: Arc<LocalKeys>,
    /// The side that is called. On its own side, ourselves.
    pub(crate) responder: PeerId,
    responder_static: [u8; 32],
    pub(crate) initial: InitialSecret,
    pub(crate) retry: RetryKey,
    pub(crate) tuning: Tuning,
}

impl Parties {
    pub(crate) fn new(local: Arc<LocalKeys>, responder: PeerId, tuning: Tuning) -> Self {
        let responder_static = responder.x25519_public();
        let initial = InitialSecret::of_responder(&responder_static, tuning.limits);
        let retry = RetryKey::of(&initial);
        Self { local, responder, responder_static, initial, retry, tuning }
    }

    fn prologue(&self) -> Vec<u8> {
        [PROLOGUE_LABEL, &QUIC_VERSION.to_be_bytes(), self.responder.as_bytes()].concat()
    }
}

/// Everything that both sides hold after message 2.
pub(crate) struct Agreed {
    pub(crate) peer: PeerId,
    pub(crate) suite: Suite,
    /// The peer's transport parameters.
    pub(crate) params: TransportParameters,
    pub(crate) secrets: SessionSecrets,
}

/// The initiator between its message and the answer.
pub(crate) struct Initiator(Box<HandshakeState>);

impl Initiator {
    /// Makes message 1, with its length in front.
    ///
    /// # Errors
    /// [`HandshakeFailure::Local`] if there is no randomness, or our own parameters are too long.
    pub(crate) fn start(
        parties: &Parties,
        params: &TransportParameters,
    ) -> Result<(Self, Vec<u8>), HandshakeFailure> {
        let mut noise = build(parties, Side::Client)?;
        let suites = parties.tuning.suites;
        let mut payload = Vec::with_capacity(MESSAGE_BYTES_MAX);
        payload.extend_from_slice(parties.local.peer_id.as_bytes());
        payload.push(u8::try_from(suites.len()).map_err(|_| HandshakeFailure::Local)?);
        payload.extend(suites.iter().map(|suite| suite.wire()));
        params.write(&mut payload);
        let message = write_message(&mut noise, &payload)?;
        Ok((Self(noise), message))
    }

    /// Reads message 2 (without its length), which proves that the responder is the one we called.
    ///
    /// # Errors
    /// [`HandshakeFailure`] says why the message is not an answer to ours.
    pub(crate) fn finish(mut self, parties: &Parties, message: &[u8]) -> Result<Agreed, HandshakeFailure> {
        let payload = read_message(&mut self.0, message)?;
        let (&choice, params) = payload.split_first().ok_or(HandshakeFailure::Payload)?;
        let suite = Suite::from_wire(choice).ok_or(HandshakeFailure::Suite)?;
        if !parties.tuning.suites.contains(&suite) {
            return Err(HandshakeFailure::Suite);
        }
        let params = read_params(Side::Client, params)?;
        Ok(Agreed { peer: parties.responder, suite, params, secrets: derive(&mut self.0) })
    }
}

/// Reads message 1 (without its length) and makes message 2, with its length in front.
///
/// The result is *not* proof of who called: message 1 may be a replay, or forged by a thief of our own key. Only the
/// initiator's confirmation proves it.
///
/// # Errors
/// [`HandshakeFailure`] says why the message is refused.
pub(crate) fn respond(
    parties: &Parties,
    params: &TransportParameters,
    message: &[u8],
) -> Result<(Vec<u8>, Agreed), HandshakeFailure> {
    let mut noise = build(parties, Side::Server)?;
    let hello = read_message(&mut noise, message)?;
    let (peer_id, rest) = hello.split_first_chunk::<PEER_ID_BYTES>().ok_or(HandshakeFailure::Payload)?;
    let (offer, peer_params) = split_offer(rest)?;
    let peer = owner_of_static(parties, &noise, *peer_id)?;
    let suite = suite::choose(parties.tuning.suites, offer)?;
    let peer_params = read_params(Side::Server, peer_params)?;

    let mut payload = vec![suite.wire()];
    params.write(&mut payload);
    let reply = write_message(&mut noise, &payload)?;
    Ok((reply, Agreed { peer, suite, params: peer_params, secrets: derive(&mut noise) }))
}

fn build(parties: &Parties, side: Side) -> Result<Box<HandshakeState>, HandshakeFailure> {
    let name = NOISE_NAME.parse().expect("the name is a constant that snow knows");
    let prologue = parties.prologue();
    let resolver = Resolver::new(parties.tuning.entropy.clone()).with_keys_of(parties.local.clone());
    let builder = Builder::with_resolver(name, Box::new(resolver))
        .prologue(&prologue)
        .and_then(|builder| builder.local_private_key(parties.local.secret()));
    let noise = match side {
        Side::Client => builder
            .and_then(|builder| builder.remote_public_key(&parties.responder_static))
            .and_then(Builder::build_initiator),
        Side::Server => builder.and_then(Builder::build_responder),
    };
    noise.map(Box::new).map_err(|_| HandshakeFailure::Local)
}

fn write_message(noise: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, HandshakeFailure> {
    if payload.len() + MESSAGE_1_OVERHEAD_BYTES > MESSAGE_BYTES_MAX {
        return Err(HandshakeFailure::Local);
    }
    let mut framed = vec![0; LENGTH_BYTES + MESSAGE_BYTES_MAX];
    let (length, message) = framed.split_at_mut(LENGTH_BYTES);
    let written = noise.write_message(payload, message).map_err(|_| HandshakeFailure::Local)?;
    let written_u16 = u16::try_from(written).expect("a message is shorter than 1,024 bytes");
    length.copy_from_slice(&written_u16.to_be_bytes());
    framed.truncate(LENGTH_BYTES + written);
    Ok(framed)
}

fn read_message(noise: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, HandshakeFailure> {
    let mut payload = vec![0; message.len()];
    let read = noise.read_message(message, &mut payload).map_err(|_| HandshakeFailure::Undecryptable)?;
    payload.truncate(read);
    Ok(payload)
}

/// Splits the offered suite numbers from the transport parameters behind them.
fn split_offer(payload: &[u8]) -> Result<(&[u8], &[u8]), HandshakeFailure> {
    let (&count, rest) = payload.split_first().ok_or(HandshakeFailure::Payload)?;
    let count = usize::from(count);
    if count > OFFERED_SUITES_MAX {
        return Err(HandshakeFailure::Payload);
    }
    rest.split_at_checked(count).ok_or(HandshakeFailure::Payload)
}

/// Checks that the claimed PeerId is a fit key, and the one whose X25519 form made this message.
fn owner_of_static(
    parties: &Parties,
    noise: &HandshakeState,
    claimed: [u8; 32],
) -> Result<PeerId, HandshakeFailure> {
    let used = noise.get_remote_static().ok_or(HandshakeFailure::Identity)?;
    if let Some(peer) = parties.local.known(&claimed, used) {
        return Ok(peer);
    }
    let peer = PeerId::from_bytes(claimed).map_err(|_| HandshakeFailure::Identity)?;
    let is_theirs: bool = peer.x25519_public().ct_eq(used).into();
    if is_theirs { Ok(peer) } else { Err(HandshakeFailure::Identity) }
}

fn read_params(own_side: Side, bytes: &[u8]) -> Result<TransportParameters, HandshakeFailure> {
    let mut bytes = bytes;
    let params = TransportParameters::read(own_side, &mut bytes).map_err(|_| HandshakeFailure::Payload)?;
    if bytes.has_remaining() { Err(HandshakeFailure::Payload) } else { Ok(params) }
}

/// Takes the keys out of a finished Noise handshake.
fn derive(noise: &mut HandshakeState) -> SessionSecrets {
    let mut halves = noise.dangerously_get_raw_split();
    let mut split = Zeroizing::new([0; 2 * SECRET_BYTES]);
    split[..SECRET_BYTES].copy_from_slice(&halves.0);
    split[SECRET_BYTES..].copy_from_slice(&halves.1);
    zeroize::Zeroize::zeroize(&mut halves);
    SessionSecrets::derive(&split, noise.get_handshake_hash())
}
