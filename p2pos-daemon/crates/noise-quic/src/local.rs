//! Our own long-term key, and what it gives together with the keys of people we know.
//!
//! Of the curve arithmetic of a handshake, a part is the same each time two people meet: the public half of our own key, the
//! check that the other's PeerId is a fit key, its X25519 form, and the Diffie-Hellman secret of the two long-term keys
//! (Noise's `ss`). For a person we [`expect`](LocalKeys::expect) it is kept, which spares the one who is called 150 us and the
//! one who calls 60 us of every handshake; a result that was kept and one that was not are the same bytes.
//!
//! It is kept for those only whom the daemon's user knows, so strangers cannot fill the memory; and it reveals no more than
//! our long-term key itself, beside which it lies.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use p2pos_identity::{PeerId, SecretKey};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// People of whom something is kept; as many as the node keeps tasks for. 150 bytes each.
pub(crate) const ACQUAINTANCES_MAX: usize = 1_024;

/// Bytes of an X25519 key, public or secret, and of what two of them give.
pub(crate) const KEY_BYTES: usize = 32;

/// Our side of every handshake. Shared by all of them.
pub(crate) struct LocalKeys {
    pub(crate) peer_id: PeerId,
    secret: Zeroizing<[u8; KEY_BYTES]>,
    public: [u8; KEY_BYTES],
    /// By X25519 key.
    acquaintances: Mutex<BTreeMap<[u8; KEY_BYTES], Arc<Acquaintance>>>,
}

struct Acquaintance {
    peer: PeerId,
    shared: Zeroizing<[u8; KEY_BYTES]>,
}

impl LocalKeys {
    pub(crate) fn of(key: &SecretKey) -> Self {
        let peer_id = key.peer_id();
        let (secret, public) = (key.x25519_secret(), peer_id.x25519_public());
        Self { peer_id, secret, public, acquaintances: Mutex::default() }
    }

    /// The X25519 secret.
    pub(crate) fn secret(&self) -> &[u8; KEY_BYTES] {
        &self.secret
    }

    /// The public half of `secret`, if it is ours.
    pub(crate) fn public_of(&self, secret: &[u8; KEY_BYTES]) -> Option<[u8; KEY_BYTES]> {
        bool::from(self.secret.ct_eq(secret)).then_some(self.public)
    }

    /// Works out now what handshakes with this person will need, and tells whether that is kept and was not before. Costs some
    /// 50 us; known people cost nothing, and those above [`ACQUAINTANCES_MAX`] are left out.
    pub(crate) fn expect(&self, peer: &PeerId) -> bool {
        let public = peer.x25519_public();
        {
            let known = self.acquaintances();
            if known.contains_key(&public) || known.len() >= ACQUAINTANCES_MAX {
                return false;
            }
        }
        let shared = StaticSecret::from(*self.secret).diffie_hellman(&PublicKey::from(public));
        let is_fit = shared.was_contributory();
        if is_fit {
            let acquaintance = Acquaintance { peer: *peer, shared: Zeroizing::new(shared.to_bytes()) };
            self.acquaintances().insert(public, Arc::new(acquaintance));
        }
        is_fit
    }

    /// What our key and this X25519 key give, if it was worked out before.
    pub(crate) fn shared_with(&self, public: &[u8; KEY_BYTES]) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
        self.acquaintances().get(public).map(|known| known.shared.clone())
    }

    /// The person with this PeerId and this X25519 key, if it was looked at before. `None` says nothing.
    pub(crate) fn known(&self, peer_id: &[u8; 32], public: &[u8]) -> Option<PeerId> {
        let known = self.acquaintances().get(public)?.peer;
        (known.as_bytes() == peer_id).then_some(known)
    }

    fn acquaintances(&self) -> MutexGuard<'_, BTreeMap<[u8; KEY_BYTES], Arc<Acquaintance>>> {
        self.acquaintances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32])
    }

    #[test]
    fn what_is_kept_of_an_acquaintance_is_what_both_sides_compute() {
        let (ana, bo) = (key(1), key(2));
        let (anas, bos) = (LocalKeys::of(&ana), LocalKeys::of(&bo));
        let (to_bo, to_ana) = (bo.peer_id().x25519_public(), ana.peer_id().x25519_public());
        assert!(anas.shared_with(&to_bo).is_none());
        anas.expect(&bo.peer_id());
        bos.expect(&ana.peer_id());
        assert_eq!(anas.shared_with(&to_bo), bos.shared_with(&to_ana));
        assert_eq!(anas.public_of(&ana.x25519_secret()), Some(to_ana));
        assert_eq!(anas.public_of(&bo.x25519_secret()), None);
    }

    #[test]
    fn an_acquaintance_is_known_by_the_very_peer_id_and_not_by_its_negative() {
        let (anas, bo) = (LocalKeys::of(&key(1)), key(2).peer_id());
        anas.expect(&bo);
        let public = bo.x25519_public();
        assert_eq!(anas.known(bo.as_bytes(), &public), Some(bo));
        let mut negative = *bo.as_bytes();
        negative[31] ^= 0x80;
        assert_eq!(anas.known(&negative, &public), None);
        assert_eq!(anas.known(key(3).peer_id().as_bytes(), &public), None);
    }

    #[test]
    fn acquaintances_above_the_limit_are_left_out() {
        let anas = LocalKeys::of(&key(1));
        let known = Arc::new(Acquaintance { peer: key(2).peer_id(), shared: Zeroizing::new([0; 32]) });
        for number in 0..ACQUAINTANCES_MAX {
            let mut public = [0; KEY_BYTES];
            public[..8].copy_from_slice(&number.to_le_bytes());
            anas.acquaintances().insert(public, known.clone());
        }
        let bo = key(2).peer_id();
        assert!(!anas.expect(&bo));
        assert!(anas.shared_with(&bo.x25519_public()).is_none());
    }
}
