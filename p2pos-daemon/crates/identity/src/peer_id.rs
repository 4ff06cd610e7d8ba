//! A person's public key, as the one type that names them everywhere. Owns which keys are fit to be a name.
//!
//! A [`PeerId`] that exists is safe to compute with: the checks stand at its only door, [`PeerId::from_bytes`], and
//! not at each use. The key is made for signatures (RFC 8032) and is also read as an X25519 key (RFC 7748), so it must
//! be a canonical point of the prime-order group: with a point of small order every secret agreed with it would be
//! known to all, and with a torsion component two different texts would name the same agreed secret.
//!
//! Refuses to know: the text form (`peer_id_text`), where keys come from, who trusts whom.

use std::fmt;

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use ed25519_dalek::{Signature, VerifyingKey};

/// A person's identity: an Ed25519 public key that passed every check of [`PeerId::from_bytes`].
///
/// Its text is bech32m, `p2p1q...`, 63 characters; uppercase text is read too (a QR code is smaller with it).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

/// Why 32 bytes are not fit to be a [`PeerId`]. An honest key is none of these; whoever sends one is broken or hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeakKey {
    /// No point of the curve has this encoding.
    #[error("the key is not a point of the curve")]
    NotAPoint,
    /// The point has another, proper encoding: one person would have two names.
    #[error("the key is not in its canonical encoding")]
    NonCanonical,
    /// One of the eight points with which every agreed secret is known beforehand.
    #[error("the key has a small order and would protect nothing")]
    SmallOrder,
    /// An honest key plus a small-order point: it would agree on the same secrets as that honest key.
    #[error("the key has a small-order component that no honestly made key has")]
    Torsion,
}

/// A signature that the key did not make. It says no more on purpose: why is of use to an attacker only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not match")]
pub struct BadSignature;

impl PeerId {
    /// Takes 32 bytes as an identity, after checking that they are a canonical, torsion-free Ed25519 key.
    ///
    /// Costs about one scalar multiplication (tens of microseconds): fine per handshake and per typed text, too dear
    /// per packet.
    ///
    /// # Errors
    /// [`WeakKey`] names what is wrong with the key.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, WeakKey> {
        let compressed = CompressedEdwardsY(bytes);
        let point = compressed.decompress().ok_or(WeakKey::NotAPoint)?;
        if point.compress() != compressed {
            return Err(WeakKey::NonCanonical);
        }
        if point.is_small_order() {
            return Err(WeakKey::SmallOrder);
        }
        if !point.is_torsion_free() {
            return Err(WeakKey::Torsion);
        }
        Ok(Self(bytes))
    }

    /// Returns the key's 32 bytes. Never secret, but linkable: they go to contacts, not onto the open network.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the same key as an X25519 public key (RFC 7748), for the Noise handshake.
    ///
    /// Cannot fail: the keys that must not be used this way were refused by [`PeerId::from_bytes`]. Do not tell people
    /// apart by it: a key and its negative, two PeerIds, have the same.
    #[must_use]
    pub fn x25519_public(&self) -> [u8; 32] {
        self.point().to_montgomery().to_bytes()
    }

    /// Checks that this person signed `message`, by the strict rules that leave no second valid signature.
    ///
    /// # Errors
    /// [`BadSignature`] if not.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        key.verify_strict(message, &Signature::from_bytes(signature)).map_err(|_| BadSignature)
    }

    /// Builds the identity of a key pair that was made here, which needs no check.
    pub(crate) fn of_own_key(key: &VerifyingKey) -> Self {
        Self(key.to_bytes())
    }

    /// Takes back bytes that once came out of a `PeerId` and have been in our own file since. Only an accident can have
    /// changed them, so only what would make later use panic is checked; `None` if it happened.
    #[cfg(feature = "store")]
    pub(crate) fn from_own_record(bytes: [u8; 32]) -> Option<Self> {
        CompressedEdwardsY(bytes).decompress().map(|_| Self(bytes))
    }

    fn point(&self) -> EdwardsPoint {
        CompressedEdwardsY(self.0)
            .decompress()
            .expect("a PeerId is a point of the curve from its construction on")
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.short())
    }
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::{
        Scalar,
        constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION},
    };

    use super::*;

    /// The order of the field, little-endian: 2^255 - 19. Encodings of y at or above it are not canonical.
    const FIELD_ORDER: [u8; 32] = [
        0xed, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
    ];

    #[test]
    fn the_eight_points_of_small_order_are_refused_as_peer_ids() {
        for point in EIGHT_TORSION {
            assert_eq!(PeerId::from_bytes(point.compress().0), Err(WeakKey::SmallOrder));
        }
    }

    #[test]
    fn the_published_low_order_encodings_are_refused_with_either_sign() {
        // The list that libsodium and the Wycheproof X25519 files share, in Edwards form, each with both sign bits.
        let known = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ];
        for text in known {
            let mut bytes = bytes_of_hex(text);
            assert!(PeerId::from_bytes(bytes).is_err(), "{text}");
            bytes[31] |= 0x80;
            assert!(PeerId::from_bytes(bytes).is_err(), "{text} with the sign bit");
        }
    }

    #[test]
    fn an_honest_key_plus_a_small_order_point_is_refused_as_a_second_name() {
        let honest = ED25519_BASEPOINT_POINT * Scalar::from(123_456_789_u64);
        assert!(PeerId::from_bytes(honest.compress().0).is_ok());
        for torsion in &EIGHT_TORSION[1..] {
            assert_eq!(PeerId::from_bytes((honest + torsion).compress().0), Err(WeakKey::Torsion));
        }
    }

    #[test]
    fn no_encoding_of_a_coordinate_at_or_above_the_field_order_is_accepted() {
        let mut points = 0;
        for above in 0..19_u8 {
            for sign in [0, 0x80] {
                let mut bytes = FIELD_ORDER;
                bytes[0] += above;
                bytes[31] |= sign;
                let refused = PeerId::from_bytes(bytes).unwrap_err();
                points += usize::from(refused == WeakKey::NonCanonical);
                assert!(matches!(refused, WeakKey::NonCanonical | WeakKey::NotAPoint), "{above} {refused}");
            }
        }
        assert!(points > 0, "the list held no point that only the canonical check refuses");
    }

    #[test]
    fn a_coordinate_that_is_not_on_the_curve_is_refused() {
        let mut bytes = [0; 32];
        bytes[0] = 2;
        assert_eq!(PeerId::from_bytes(bytes), Err(WeakKey::NotAPoint));
    }

    #[test]
    fn a_key_and_its_negative_are_two_names_with_one_x25519_form() {
        let peer = crate::SecretKey::from_seed([1; 32]).peer_id();
        let mut negative = *peer.as_bytes();
        negative[31] ^= 0x80;
        let negative = PeerId::from_bytes(negative).unwrap();
        assert_ne!(negative, peer);
        assert_eq!(negative.x25519_public(), peer.x25519_public());
    }

    #[test]
    fn a_signature_holds_for_its_message_and_its_signer_only() {
        let ana = crate::SecretKey::from_seed([1; 32]);
        let bo = crate::SecretKey::from_seed([2; 32]);
        let signature = ana.sign(b"hello");
        assert_eq!(ana.peer_id().verify(b"hello", &signature), Ok(()));
        assert_eq!(ana.peer_id().verify(b"hellO", &signature), Err(BadSignature));
        assert_eq!(bo.peer_id().verify(b"hello", &signature), Err(BadSignature));
    }

    fn bytes_of_hex(text: &str) -> [u8; 32] {
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }
}
