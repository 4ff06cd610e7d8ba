//! A stamp of work: what a stranger pays for a lease when a relay is more than half full.
//!
//! About a second of hashing for who asks, one hash for the relay, which keeps nothing: the challenge follows from its
//! secret, the asker and the time. It does not stop whoever owns a data centre; it makes a thousand fresh identities
//! cost a thousand seconds (hashcash; libp2p and Tailscale have nothing here).
//!
//! Refuses to know: when a stamp is asked for (`service`).

use p2pos_identity::PeerId;
use sha2::{Digest as _, Sha256};

/// How many leading zero bits a stamp has: 2^22 hashes on average, about a second on one core of 2020. Two more would
/// be four seconds of a telephone's battery; two fewer would let a thousand identities through in four minutes.
pub const STAMP_BITS: u32 = 22;

/// Bytes of a challenge.
pub const CHALLENGE_BYTES: usize = 8;

/// Hashes that [`Search::step`] tries at once: below a millisecond, so that the caller stays responsive.
const STEP_HASHES: u64 = 4096;

/// The number found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The challenge that it answers.
    pub challenge: [u8; CHALLENGE_BYTES],
    /// What makes the hash begin with zeros.
    pub nonce: u64,
}

/// A search for a stamp. Call [`Search::step`] until it returns one.
#[derive(Debug, Clone)]
pub struct Search {
    base: Sha256,
    challenge: [u8; CHALLENGE_BYTES],
    bits: u32,
    next: u64,
}

impl Search {
    /// Starts a search; `None` if the relay asks for more than we are willing to work ([`STAMP_BITS`]).
    #[must_use]
    pub fn new(peer: &PeerId, challenge: [u8; CHALLENGE_BYTES], bits: u32) -> Option<Self> {
        (bits <= STAMP_BITS).then(|| Self { base: base(peer, challenge), challenge, bits, next: 0 })
    }

    /// Tries the next few thousand numbers.
    pub fn step(&mut self) -> Option<Stamp> {
        let found = (self.next..self.next + STEP_HASHES).find(|nonce| is_good(&self.base, *nonce, self.bits));
        self.next += STEP_HASHES;
        found.map(|nonce| Stamp { challenge: self.challenge, nonce })
    }
}

impl Stamp {
    /// Tells whether the work was done, by this peer.
    #[must_use]
    pub fn is_of(&self, peer: &PeerId, bits: u32) -> bool {
        is_good(&base(peer, self.challenge), self.nonce, bits)
    }
}

fn base(peer: &PeerId, challenge: [u8; CHALLENGE_BYTES]) -> Sha256 {
    Sha256::new().chain_update(b"p2pos relay stamp 1").chain_update(challenge).chain_update(peer.as_bytes())
}

fn is_good(base: &Sha256, nonce: u64, bits: u32) -> bool {
    let hash = base.clone().chain_update(nonce.to_be_bytes()).finalize();
    let first = u64::from_be_bytes(*hash.first_chunk().expect("a SHA-256 has 32 bytes"));
    first.leading_zeros() >= bits
}

#[cfg(test)]
mod tests {
    use p2pos_identity::SecretKey;

    use super::*;

    #[test]
    fn a_found_stamp_is_good_for_its_finder_and_challenge_only() {
        let (ana, bo) = (peer(1), peer(2));
        let mut search = Search::new(&ana, [7; 8], 12).unwrap();
        let stamp = std::iter::repeat_with(|| search.step()).take(100).find_map(|found| found).unwrap();
        assert!(stamp.is_of(&ana, 12));
        assert!(!stamp.is_of(&bo, 12));
        assert!(!Stamp { challenge: [8; 8], ..stamp }.is_of(&ana, 12));
    }

    #[test]
    fn a_relay_that_asks_for_a_day_of_work_gets_none() {
        assert!(Search::new(&peer(1), [7; 8], STAMP_BITS + 1).is_none());
    }

    fn peer(number: u8) -> PeerId {
        SecretKey::from_seed([number; 32]).peer_id()
    }
}
