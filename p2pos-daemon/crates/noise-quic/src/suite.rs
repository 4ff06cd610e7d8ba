//! The packet ciphers, and how two sides settle on one. Owns the suite numbers on the wire.
//!
//! AES-256-GCM is the faster one wherever the processor helps (measured at 1.6 times), and dreadfully slow where it
//! does not. So the initiator offers AES only if it has the instructions, and the responder takes it only if it has
//! them too. Both ciphers are full strength: this is a choice of speed, and an attacker who could steer it gains
//! nothing. It cannot be steered either, since offer and choice are part of the Noise transcript.

use ring::aead;

use crate::error::HandshakeFailure;

/// A packet cipher with its header protection (RFC 9001 s5.3, s5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    /// AES-256-GCM, headers by AES-256.
    Aes256Gcm,
    /// ChaCha20-Poly1305, headers by ChaCha20.
    ChaCha20Poly1305,
}

/// The cipher of Initial packets, on every machine: nothing has been negotiated when they are sent.
pub(crate) const INITIAL_SUITE: Suite = Suite::ChaCha20Poly1305;

/// The most suites that an offer may list. We know two; the rest is room for successors, and a bound for a parser.
pub(crate) const OFFERED_SUITES_MAX: usize = 8;

impl Suite {
    /// Returns the number that names the suite on the wire.
    pub(crate) fn wire(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// Returns the suite with this number; `None` for one that we do not know (a later revision may offer it).
    pub(crate) fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    pub(crate) fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    pub(crate) fn header_protection(self) -> &'static aead::quic::Algorithm {
        match self {
            Self::Aes256Gcm => &aead::quic::AES_256,
            Self::ChaCha20Poly1305 => &aead::quic::CHACHA20,
        }
    }
}

/// Returns the suites that this machine is fast at, best first. The last one always works.
pub(crate) fn of_this_machine() -> &'static [Suite] {
    if has_aes_instructions() {
        &[Suite::Aes256Gcm, Suite::ChaCha20Poly1305]
    } else {
        &[Suite::ChaCha20Poly1305]
    }
}

/// Picks the first of our own suites that the initiator offered too.
///
/// # Errors
/// [`HandshakeFailure::Suite`] if there is none.
pub(crate) fn choose(ours: &[Suite], offered: &[u8]) -> Result<Suite, HandshakeFailure> {
    ours.iter().copied().find(|suite| offered.contains(&suite.wire())).ok_or(HandshakeFailure::Suite)
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
fn has_aes_instructions() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes_instructions() -> bool {
    std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
fn has_aes_instructions() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_is_taken_only_where_both_sides_have_the_instructions() {
        const BOTH: &[Suite] = &[Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
        const PLAIN: &[Suite] = &[Suite::ChaCha20Poly1305];
        assert_eq!(choose(BOTH, &[1, 2]), Ok(Suite::Aes256Gcm));
        assert_eq!(choose(BOTH, &[2, 1]), Ok(Suite::Aes256Gcm));
        assert_eq!(choose(BOTH, &[2]), Ok(Suite::ChaCha20Poly1305));
        assert_eq!(choose(PLAIN, &[1, 2]), Ok(Suite::ChaCha20Poly1305));
    }

    #[test]
    fn unknown_suites_in_an_offer_are_passed_over_and_no_common_one_is_a_failure() {
        assert_eq!(choose(of_this_machine(), &[0, 77, 2, 255]), Ok(Suite::ChaCha20Poly1305));
        assert_eq!(choose(of_this_machine(), &[0, 77]), Err(HandshakeFailure::Suite));
        assert_eq!(choose(of_this_machine(), &[]), Err(HandshakeFailure::Suite));
    }

    #[test]
    fn every_number_names_one_suite() {
        for number in 0..=u8::MAX {
            assert!(Suite::from_wire(number).is_none_or(|suite| suite.wire() == number));
        }
    }
}
