//! The integrity tag of Retry packets (RFC 9000 s17.2.5, RFC 9001 s5.8; NOISE-QUIC.md s7).
//!
//! TLS-QUIC uses an AEAD with a published key, so that anyone on the path can forge a Retry. Ours is an HMAC whose key
//! comes from the responder's public key: a forger must at least know who is being called. It covers the connection id
//! of the first Initial, so that a Retry for one attempt is no Retry for another.

use noq_proto::ConnectionId;
use ring::hmac;
use subtle::ConstantTimeEq;

use crate::initial::InitialSecret;

/// Bytes of the tag; QUIC fixes it.
pub(crate) const RETRY_TAG_BYTES: usize = 16;

/// The largest Retry that is looked at, header, token and tag together. Ours has about 120 bytes; one full Ethernet
/// frame leaves room for any token a later revision may want, and none for making us hash or keep more.
pub(crate) const RETRY_BYTES_MAX: usize = 1_500;

/// Makes and checks tags for one responder.
pub(crate) struct RetryKey(hmac::Key);

impl RetryKey {
    pub(crate) fn of(initial: &InitialSecret) -> Self {
        Self(initial.retry_key())
    }

    /// Returns the tag of a Retry that answers the attempt named `original`; `parts` are header and token.
    pub(crate) fn tag(&self, original: &ConnectionId, parts: &[&[u8]]) -> [u8; RETRY_TAG_BYTES] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&[u8::try_from(original.len()).expect("a connection id has at most 20 bytes")]);
        context.update(original);
        for part in parts {
            context.update(part);
        }
        let full = context.sign();
        *full.as_ref().first_chunk().expect("HMAC-SHA256 gives 32 bytes")
    }

    /// Tells whether a Retry was made by someone who knows the responder, for this very attempt. In constant time.
    pub(crate) fn is_valid(&self, original: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        if header.len().saturating_add(payload.len()) > RETRY_BYTES_MAX {
            return false;
        }
        let Some((token, tag)) = payload.split_last_chunk::<RETRY_TAG_BYTES>() else { return false };
        self.tag(original, &[header, token]).ct_eq(tag).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::PacketLimits;

    fn key(responder: u8) -> RetryKey {
        RetryKey::of(&InitialSecret::of_responder(&[responder; 32], PacketLimits::default()))
    }

    fn retry(original: &ConnectionId, token_len: usize) -> (Vec<u8>, Vec<u8>) {
        let (header, mut payload) = (vec![0xf0; 22], vec![5; token_len]);
        let tag = key(1).tag(original, &[&header, &payload]);
        payload.extend_from_slice(&tag);
        (header, payload)
    }

    #[test]
    fn a_forged_retry_is_refused_whatever_bit_of_it_was_changed() {
        let original = ConnectionId::new(&[9; 20]);
        let (header, payload) = retry(&original, 40);
        assert!(key(1).is_valid(&original, &header, &payload));
        for bit in 0..payload.len() * 8 {
            let mut forged = payload.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!key(1).is_valid(&original, &header, &forged));
        }
        for bit in 0..header.len() * 8 {
            let mut forged = header.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!key(1).is_valid(&original, &forged, &payload));
        }
    }

    #[test]
    fn a_retry_of_another_attempt_or_another_responder_is_refused() {
        let original = ConnectionId::new(&[9; 20]);
        let (header, payload) = retry(&original, 40);
        assert!(!key(1).is_valid(&ConnectionId::new(&[8; 20]), &header, &payload));
        assert!(!key(1).is_valid(&ConnectionId::new(&[9; 19]), &header, &payload));
        assert!(!key(2).is_valid(&original, &header, &payload));
    }

    #[test]
    fn an_oversized_or_truncated_retry_is_refused() {
        let original = ConnectionId::new(&[9; 20]);
        let fits = RETRY_BYTES_MAX - 22 - RETRY_TAG_BYTES;
        let (header, payload) = retry(&original, fits);
        assert!(key(1).is_valid(&original, &header, &payload));
        let (header, payload) = retry(&original, fits + 1);
        assert!(!key(1).is_valid(&original, &header, &payload));
        for len in 0..RETRY_TAG_BYTES {
            assert!(!key(1).is_valid(&original, &header, &payload[..len]));
        }
    }
}
