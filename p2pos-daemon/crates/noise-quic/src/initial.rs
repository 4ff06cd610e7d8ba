//! Keyed Initial keys: what makes us silent to strangers.
//!
//! In TLS-QUIC anybody can compute the keys of the first packet, so anybody gets an answer to one. Here the keys also
//! depend on the responder's public key. Who does not know whom he is calling cannot form a packet that decrypts, and a
//! packet that does not decrypt is dropped without a trace. The key is not secret, contacts hold it; this is a door
//! without a bell for scanners, not authentication (that is Noise's work). NOISE-QUIC.md s3.

use noq_proto::{ConnectionId, Side, crypto::Keys};
use ring::{hkdf, hmac};

use crate::{
    QUIC_VERSION,
    packet::PacketLimits,
    schedule::{Directions, Secret, expand, extract},
    suite::INITIAL_SUITE,
};

/// The constant part of the salt; the version follows it.
const SALT_LABEL: &[u8] = b"p2pos noise-quic initial";

/// What everyone who knows a responder's public key can compute, and nobody else.
pub(crate) struct InitialSecret {
    prk: hkdf::Prk,
    limits: PacketLimits,
}

impl InitialSecret {
    /// Derives the secret of one responder from its X25519 public key.
    pub(crate) fn of_responder(static_public: &[u8; 32], limits: PacketLimits) -> Self {
        let salt = [SALT_LABEL, &QUIC_VERSION.to_be_bytes()].concat();
        Self { prk: extract(&salt, static_public), limits }
    }

    /// Returns the Initial keys of a connection attempt, named by the connection id that the initiator chose
    /// (after a Retry: the one that the Retry gave it).
    pub(crate) fn keys(&self, connection: &ConnectionId, side: Side) -> Keys {
        let secrets = Directions {
            initiator: expand(&self.prk, "initial i", connection),
            responder: expand(&self.prk, "initial r", connection),
        };
        secrets.keys(INITIAL_SUITE, side, self.limits)
    }

    /// Returns the key of Retry integrity tags.
    pub(crate) fn retry_key(&self) -> hmac::Key {
        let secret: Secret = expand(&self.prk, "retry", b"");
        hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice())
    }
}
