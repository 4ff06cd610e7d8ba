//! Connection ids that only we can make, so that only ours are answered.
//!
//! A packet for an unknown connection is answered with a stateless reset (RFC 9000 s10.3), which is how a peer learns
//! that we were restarted. A scanner must get none. So an id is four random bytes and four bytes of HMAC over them: to
//! us its origin is plain, to everybody else it is eight random bytes, and a guess gets through once in 2^32. The key
//! comes from the identity, so that ids of an earlier run are still known as ours.

use std::sync::Arc;

use noq_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use p2pos_identity::SecretKey;
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Bytes of every connection id that we issue. They stand in every packet that we receive, so each costs; fewer would
/// leave too little room for either the tag or the nonce.
pub const CID_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// Random bytes: 2^32 ids can be alive or remembered at a time; noq draws again on a collision.
const NONCE_BYTES: usize = 4;
/// Nonces drawn at once: the ids of one connection. The system gives 256 bytes in one piece.
const NONCES_AT_ONCE: usize = 64;
/// Bytes of the HMAC: a stranger needs 2^32 guesses for one reset, which the rate limit spreads over years.
const TAG_BYTES: usize = 4;

/// Makes connection-id generators for [`noq_proto::EndpointConfig::cid_generator`].
pub type CidFactory = Arc<dyn Fn() -> Box<dyn ConnectionIdGenerator> + Send + Sync>;

/// Returns the maker of this identity's connection ids, for [`noq_proto::EndpointConfig::cid_generator`].
#[must_use]
pub fn cid_generator(local: &SecretKey) -> CidFactory {
    let secret = local.derive("noise-quic connection id");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice());
    Arc::new(move || Box::new(KeyedCids { key: key.clone(), random: Vec::new() }))
}

struct KeyedCids {
    key: hmac::Key,
    /// Random bytes to come, drawn many at once: a new connection wants some forty ids, in the moment in which its first
    /// bytes want to leave, and a system call for each would cost more than the id.
    random: Vec<u8>,
}

impl KeyedCids {
    fn nonce(&mut self) -> [u8; NONCE_BYTES] {
        if self.random.len() < NONCE_BYTES {
            self.random = vec![0; NONCE_BYTES * NONCES_AT_ONCE];
            SystemRandom::new()
                .fill(&mut self.random)
                .expect("the operating system's randomness never fails once it has started");
        }
        let rest = self.random.len() - NONCE_BYTES;
        *self.random.split_off(rest).first_chunk().expect("there are as many bytes as were split off")
    }

    fn tag(&self, nonce: &[u8]) -> [u8; TAG_BYTES] {
        *hmac::sign(&self.key, nonce).as_ref().first_chunk().expect("HMAC-SHA256 gives 32 bytes")
    }
}

impl ConnectionIdGenerator for KeyedCids {
    fn generate_cid(&mut self) -> ConnectionId {
        let nonce = self.nonce();
        let mut id = [0; CID_BYTES];
        id[..NONCE_BYTES].copy_from_slice(&nonce);
        id[NONCE_BYTES..].copy_from_slice(&self.tag(&nonce));
        ConnectionId::new(&id)
    }

    fn validate(&self, cid: ConnectionId) -> Result<(), InvalidCid> {
        let (nonce, tag) = cid.split_last_chunk::<TAG_BYTES>().ok_or(InvalidCid)?;
        let is_ours = nonce.len() == NONCE_BYTES && bool::from(self.tag(nonce).ct_eq(tag));
        if is_ours { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_an_earlier_run_are_still_known_as_ours_and_those_of_others_are_not() {
        let ours = SecretKey::from_seed([1; 32]);
        let id = cid_generator(&ours)().generate_cid();
        assert!(cid_generator(&ours)().validate(id).is_ok());
        assert!(cid_generator(&SecretKey::from_seed([2; 32]))().validate(id).is_err());
    }

    #[test]
    fn an_invented_id_of_any_length_is_not_ours() {
        let ids = cid_generator(&SecretKey::from_seed([1; 32]))();
        for len in 0..=20 {
            assert!(ids.validate(ConnectionId::new(&vec![7; len])).is_err());
        }
    }

    #[test]
    fn two_ids_have_nothing_in_common() {
        let mut ids = cid_generator(&SecretKey::from_seed([1; 32]))();
        let (one, other) = (ids.generate_cid(), ids.generate_cid());
        assert_eq!(one.len(), CID_BYTES);
        assert_ne!(one[..NONCE_BYTES], other[..NONCE_BYTES]);
        assert_ne!(one[NONCE_BYTES..], other[NONCE_BYTES..]);
    }
}
