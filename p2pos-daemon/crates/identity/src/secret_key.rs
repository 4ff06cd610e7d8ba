//! The key pair behind our own [`PeerId`]. Owns every computation with the seed; the only type that holds it.
//!
//! One 32-byte seed is the whole identity (RFC 8032 s5.1.5): the signing key, the X25519 key and every derived key
//! follow from it, so that 24 words on paper bring all of them back. The type has no Debug, no Clone and no way to
//! print itself, and wipes its memory when dropped.
//!
//! Refuses to know: files, randomness, words (feature `store` adds those beside it).

use curve25519_dalek::scalar::clamp_integer;
use ed25519_dalek::{Signer, SigningKey};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::PeerId;

/// Salt of every derivation. Changing it would change all derived keys of all users: it never changes.
const DERIVE_SALT: &[u8] = b"p2pos identity v1";

/// The secret half of an identity. Share it by `Arc`; it cannot be cloned, printed or compared.
#[expect(missing_debug_implementations, reason = "a secret must have no way into a log")]
pub struct SecretKey {
    signing: SigningKey,
}

impl SecretKey {
    /// Builds the key pair that belongs to a seed. The caller's own copy of the seed is the caller's to wipe.
    #[must_use]
    pub fn from_seed(mut seed: [u8; 32]) -> Self {
        let signing = SigningKey::from_bytes(&seed);
        seed.zeroize();
        Self { signing }
    }

    /// Returns the public half.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        PeerId::of_own_key(&self.signing.verifying_key())
    }

    /// Signs `message` (Ed25519, RFC 8032). Put a purpose in front of the message, so that no signature serves two.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// Returns the X25519 secret (RFC 7748, clamped) that belongs to [`PeerId::x25519_public`].
    #[must_use]
    pub fn x25519_secret(&self) -> Zeroizing<[u8; 32]> {
        let mut unclamped = self.signing.to_scalar_bytes();
        let secret = Zeroizing::new(clamp_integer(unclamped));
        unclamped.zeroize();
        secret
    }

    /// Derives an independent key for one purpose (HKDF-SHA256, RFC 5869). The same label gives the same key on every
    /// run and after a restore from words; different labels give keys that say nothing about each other or the seed.
    #[must_use]
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        let hkdf = Hkdf::<Sha256>::new(Some(DERIVE_SALT), self.signing.as_bytes());
        hkdf.expand(label.as_bytes(), key.as_mut()).expect("32 bytes are within HKDF's limit of 8160");
        key
    }

    /// Lends the seed to the key file and the backup words.
    #[cfg(feature = "store")]
    pub(crate) fn seed(&self) -> &[u8; 32] {
        self.signing.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::MontgomeryPoint;

    use super::*;

    #[test]
    fn the_first_rfc_8032_vector_holds() {
        let seed = bytes_of_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let public = bytes_of_hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let key = SecretKey::from_seed(seed);
        assert_eq!(*key.peer_id().as_bytes(), public);
        assert_eq!(hex(&key.sign(b"")[..16]), "e5564300c360ac729086e2cc806e828a");
    }

    #[test]
    fn the_x25519_secret_belongs_to_the_public_key_that_others_compute_from_the_peer_id() {
        for fill in 0..16 {
            let key = SecretKey::from_seed([fill; 32]);
            let public = MontgomeryPoint::mul_base_clamped(*key.x25519_secret());
            assert_eq!(public.to_bytes(), key.peer_id().x25519_public());
        }
    }

    #[test]
    fn derived_keys_differ_by_label_and_by_identity_and_never_change() {
        let (ana, bo) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
        assert_eq!(ana.derive("stateless reset"), ana.derive("stateless reset"));
        assert_ne!(ana.derive("stateless reset"), ana.derive("token"));
        assert_ne!(ana.derive("stateless reset"), bo.derive("stateless reset"));
        assert_eq!(
            hex(&ana.derive("stateless reset")[..]),
            "5a43e8144e57139039f8b11f09cceded1bd79eff1ed509019d711b0ec4dea1c6"
        );
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn bytes_of_hex(text: &str) -> [u8; 32] {
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }
}
