//! Why a handshake failed, for our own log, and the one answer that a peer gets whatever the reason was.
//!
//! A peer that is told which check failed has an oracle. So every failure leaves as the same code with an empty
//! reason, and the true cause rides along in a field that noq keeps on this side of the wire.

use std::sync::Arc;

use noq_proto::{TransportError, TransportErrorCode};

/// The alert that every failure of the handshake is sent as: TLS's `handshake_failure` (RFC 8446 s6), whose number QUIC
/// maps to 0x128. The TLS numbers are the only ones that QUIC reserves for a crypto layer (RFC 9000 s20.1).
const ALERT_HANDSHAKE_FAILURE: u8 = 40;

/// What went wrong in a handshake. For our own eyes: the peer learns only that it failed.
///
/// Found in [`noq_proto::TransportError::crypto`] of the connection error, by downcasting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeFailure {
    /// A Noise message was not made for us with the keys it claims: forged, corrupted, or meant for another version.
    #[error("a handshake message did not decrypt")]
    Undecryptable,
    /// A message announced a length outside of what an honest one can have.
    #[error("a handshake message has an impossible length")]
    Length,
    /// Bytes arrived that the handshake has no place for.
    #[error("handshake bytes arrived out of turn")]
    OutOfTurn,
    /// A decrypted payload was cut short, or its transport parameters do not parse.
    #[error("a handshake payload does not parse")]
    Payload,
    /// The PeerId in message 1 is no fit key, or not the one that made the message.
    #[error("the claimed PeerId does not belong to the key of the handshake")]
    Identity,
    /// The two sides share no packet cipher, or the responder chose one that was not offered.
    #[error("no common packet cipher")]
    Suite,
    /// The peer's key confirmation was wrong: it does not hold the keys that we hold.
    #[error("the key confirmation is wrong")]
    Confirmation,
    /// The operating system gave no randomness, or the Noise machine refused our own keys.
    #[error("this side cannot take part in a handshake")]
    Local,
}

impl From<HandshakeFailure> for TransportError {
    fn from(failure: HandshakeFailure) -> Self {
        let mut error = Self::new(TransportErrorCode::crypto(ALERT_HANDSHAKE_FAILURE), String::new());
        error.crypto = Some(Arc::new(failure));
        error
    }
}
