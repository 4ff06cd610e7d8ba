//! Noise IK as the cryptographic session of QUIC; the only holder of session keys.
//!
//! QUIC (RFC 9000) leaves the handshake and the packet keys to a crypto layer, which is TLS nearly everywhere. Here it
//! is `Noise_IK_25519_ChaChaPoly_BLAKE2s`: both sides prove a long-term key, there are no certificates, and nobody who
//! does not already know our PeerId can make us send a byte. `NOISE-QUIC.md` beside this crate specifies the wire,
//! complete enough for a second implementation; one in Python checks it (`tests/second`). The story in short:
//!
//! ```text
//! initiator                                                               responder
//! Initial    CRYPTO  len | e, es, s, ss | PeerId, suites, parameters  -->
//!                                   <--  len | e, ee, se | suite, parameters  CRYPTO  Initial
//!                                                       <--  confirmation  CRYPTO  Handshake
//! Handshake  CRYPTO  confirmation                                      -->
//! 1-RTT      streams and datagrams                                    <->
//! ```
//!
//! Initial packets are encrypted under keys that follow from the *responder's* public key, so that a scanner cannot
//! even form the first packet. Nothing that the initiator says is believed before its confirmation has arrived: a
//! replayed or forged message 1 leads to no event, no PeerId and no state beyond a half-open connection.
//!
//! Files, in the order of the story: `config` (what noq asks for), `session` (who may say what when), `handshake`
//! (Noise messages and their payloads), `resolver` (curve, hash and randomness for Noise), `local` (our own key), `schedule` (every key from
//! its secret), `suite`, `packet` and `header` (the packets themselves), `initial` (keyed Initial keys), `retry`,
//! `token`, `cid` (what a restarted endpoint must still recognise), `probe` (who is answered at all).
//!
//! Refuses to know: sockets, clocks, contacts, who is allowed in. Randomness is read from the operating system for one
//! ephemeral key per handshake and for connection ids.
//!
//! There is no 0-RTT, by policy: early data could be replayed.

mod cid;
mod config;
mod error;
mod handshake;
mod header;
mod initial;
mod local;
mod packet;
pub mod probe;
mod resolver;
mod retry;
mod schedule;
mod session;
mod suite;
#[cfg(test)]
mod tests;
mod token;

pub use crate::{
    cid::{CID_BYTES, CidFactory, cid_generator},
    config::{Handshakes, peer_of},
    error::HandshakeFailure,
    token::{reset_key, token_key},
};

/// The QUIC version number of this protocol, "p2P" and the revision 1; endpoints support no other.
///
/// It stands in every long header, in the Noise prologue and in the salt of the Initial keys, so that two revisions
/// can never mistake each other's packets, and a downgrade has nothing to fall back to.
pub const QUIC_VERSION: u32 = 0x7032_5001;
