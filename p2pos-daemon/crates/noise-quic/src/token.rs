//! Keys for what an endpoint hands out and must recognise later: address-validation tokens and stateless resets.
//!
//! Both come from the identity, so that a daemon that was killed and started again still honours its tokens, and can
//! still tell its peers at once that their connections are gone (RFC 9000 s10.3); otherwise they would wait for a
//! timeout before they dial again.

use std::sync::Arc;

use noq_proto::crypto::{CryptoError, HandshakeTokenKey, HmacKey};
use p2pos_identity::SecretKey;
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
};

use crate::schedule::{Secret, expand, prk_of};

/// Bytes of a reset signature; QUIC uses the first 16 of them.
const RESET_SIGNATURE_BYTES: usize = 32;

/// Returns the key of stateless resets, the same on every run of one identity.
#[must_use]
pub fn reset_key(local: &SecretKey) -> Arc<dyn HmacKey> {
    let secret = local.derive("noise-quic stateless reset");
    Arc::new(ResetKey(hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice())))
}

/// Returns the key of Retry tokens, the same on every run of one identity.
#[must_use]
pub fn token_key(local: &SecretKey) -> Arc<dyn HandshakeTokenKey> {
    Arc::new(TokenKey(prk_of(&local.derive("noise-quic token"))))
}

struct ResetKey(hmac::Key);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(hmac::sign(&self.0, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        RESET_SIGNATURE_BYTES
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        hmac::verify(&self.0, data, signature).map_err(|_| CryptoError)
    }
}

/// noq's token nonces have 128 bits and are random; the ciphers' have 96. Cutting them would let two tokens meet under
/// one nonce, so each token has its own key, derived from the whole nonce, and the cipher's nonce is zero.
struct TokenKey(hkdf::Prk);

impl TokenKey {
    fn of_token(&self, token_nonce: u128) -> LessSafeKey {
        let key: Secret = expand(&self.0, "token", &token_nonce.to_be_bytes());
        LessSafeKey::new(
            UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).expect("ChaCha20 takes 32-byte keys"),
        )
    }

    fn only_nonce() -> Nonce {
        Nonce::assume_unique_for_key([0; NONCE_LEN])
    }
}

impl HandshakeTokenKey for TokenKey {
    fn seal(&self, token_nonce: u128, data: &mut Vec<u8>) -> Result<(), CryptoError> {
        self.of_token(token_nonce)
            .seal_in_place_append_tag(Self::only_nonce(), Aad::empty(), data)
            .map_err(|_| CryptoError)
    }

    fn open<'a>(&self, token_nonce: u128, data: &'a mut [u8]) -> Result<&'a [u8], CryptoError> {
        self.of_token(token_nonce)
            .open_in_place(Self::only_nonce(), Aad::empty(), data)
            .map(|plain| &*plain)
            .map_err(|_| CryptoError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: &dyn HandshakeTokenKey, nonce: u128) -> Vec<u8> {
        let mut token = b"address".to_vec();
        key.seal(nonce, &mut token).unwrap();
        token
    }

    #[test]
    fn tokens_whose_nonces_share_96_bits_share_no_keystream() {
        let key = token_key(&SecretKey::from_seed([1; 32]));
        let nonce = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128;
        for other in [nonce ^ (1 << 127), nonce ^ (1 << 96), nonce ^ (1 << 31), nonce ^ 1] {
            assert_ne!(sealed(&*key, nonce), sealed(&*key, other));
            assert!(key.open(other, &mut sealed(&*key, nonce)).is_err());
        }
        assert_eq!(key.open(nonce, &mut sealed(&*key, nonce)).unwrap(), b"address");
    }

    #[test]
    fn a_token_with_any_flipped_bit_or_of_another_identity_is_refused() {
        let key = token_key(&SecretKey::from_seed([1; 32]));
        let good = sealed(&*key, 7);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open(7, &mut bad).is_err());
        }
        let stranger = token_key(&SecretKey::from_seed([2; 32]));
        assert!(stranger.open(7, &mut good.clone()).is_err());
        for len in 0..16 {
            assert!(key.open(7, &mut good[..len].to_vec()).is_err());
        }
    }

    #[test]
    fn a_restarted_identity_signs_the_same_resets_and_another_one_does_not() {
        let sign = |seed: u8| {
            let key = reset_key(&SecretKey::from_seed([seed; 32]));
            let mut signature = vec![0; key.signature_len()];
            key.sign(b"connection id", &mut signature);
            assert!(key.verify(b"connection id", &signature).is_ok());
            assert!(key.verify(b"connection iD", &signature).is_err());
            signature
        };
        assert_eq!(sign(1), sign(1));
        assert_ne!(sign(1), sign(2));
    }
}
