//! Header protection (RFC 9001 s5.4): hides packet number, key phase and reserved bits behind a mask that ring computes
//! from a sample of the ciphertext.

use noq_proto::crypto::HeaderKey;
use ring::aead::quic::HeaderProtectionKey;

use crate::{schedule::Secret, suite::Suite};

/// Bytes of ciphertext that the mask is made from, the same for both ciphers.
pub(crate) const SAMPLE_BYTES: usize = 16;
/// The sample begins where the payload would if the packet number had its full length (RFC 9001 s5.4.2).
pub(crate) const PACKET_NUMBER_BYTES_MAX: usize = 4;

const LONG_HEADER_FORM: u8 = 0x80;
const LONG_HEADER_HIDDEN_BITS: u8 = 0x0f;
const SHORT_HEADER_HIDDEN_BITS: u8 = 0x1f;
const PACKET_NUMBER_LENGTH_BITS: u8 = 0x03;

/// The header key of one direction. It stays for the whole connection: a key update does not change it.
pub(crate) struct NoiseHeaderKey(HeaderProtectionKey);

impl NoiseHeaderKey {
    pub(crate) fn new(suite: Suite, key: &Secret) -> Self {
        let key = HeaderProtectionKey::new(suite.header_protection(), key.as_slice());
        Self(key.expect("both header ciphers take 32-byte keys"))
    }

    /// Returns the mask for a packet; `None` if it is too short to hold a sample, which noq rules out beforehand.
    fn mask(&self, pn_offset: usize, packet: &[u8]) -> Option<[u8; 5]> {
        let sample_at = pn_offset.checked_add(PACKET_NUMBER_BYTES_MAX)?;
        let sample = packet.get(sample_at..sample_at.checked_add(SAMPLE_BYTES)?)?;
        self.0.new_mask(sample).ok()
    }
}

impl HeaderKey for NoiseHeaderKey {
    fn decrypt(&self, pn_offset: usize, packet: &mut [u8]) {
        let Some(mask) = self.mask(pn_offset, packet) else { return };
        packet[0] ^= mask[0] & hidden_bits(packet[0]);
        hide_packet_number(packet, pn_offset, packet_number_bytes(packet[0]), &mask);
    }

    fn encrypt(&self, pn_offset: usize, packet: &mut [u8]) {
        let Some(mask) = self.mask(pn_offset, packet) else { return };
        hide_packet_number(packet, pn_offset, packet_number_bytes(packet[0]), &mask);
        packet[0] ^= mask[0] & hidden_bits(packet[0]);
    }

    fn sample_size(&self) -> usize {
        SAMPLE_BYTES
    }
}

/// Returns the bits of the first byte that are protected; they differ by header form, which itself is not.
fn hidden_bits(first: u8) -> u8 {
    if first & LONG_HEADER_FORM == 0 { SHORT_HEADER_HIDDEN_BITS } else { LONG_HEADER_HIDDEN_BITS }
}

/// Returns the length of the packet number, as the unprotected first byte tells it.
pub(crate) fn packet_number_bytes(first: u8) -> usize {
    usize::from(first & PACKET_NUMBER_LENGTH_BITS) + 1
}

/// Masks or unmasks the packet number: the operation is its own inverse.
fn hide_packet_number(packet: &mut [u8], pn_offset: usize, pn_bytes: usize, mask: &[u8; 5]) {
    for (byte, mask) in packet[pn_offset..pn_offset + pn_bytes].iter_mut().zip(&mask[1..]) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

    #[test]
    fn unprotecting_undoes_protecting_for_both_forms_and_every_packet_number_length() {
        for suite in SUITES {
            let key = NoiseHeaderKey::new(suite, &Zeroizing::new([3; 32]));
            for first in [0x40, 0x41, 0x42, 0x43, 0x47, 0xc0, 0xc1, 0xe2, 0xe3] {
                let mut plain: Vec<u8> = (0..40).collect();
                plain[0] = first;
                let mut packet = plain.clone();
                key.encrypt(9, &mut packet);
                assert_ne!(packet, plain);
                assert_eq!(packet[1..9], plain[1..9], "only the packet number is masked");
                assert_eq!((packet[0] ^ first) & !hidden_bits(first), 0, "form and fixed bit stay");
                key.decrypt(9, &mut packet);
                assert_eq!(packet, plain);
            }
        }
    }

    #[test]
    fn a_packet_too_short_for_a_sample_is_left_alone_instead_of_panicking() {
        let key = NoiseHeaderKey::new(Suite::Aes256Gcm, &Zeroizing::new([3; 32]));
        for len in 1..29 {
            let mut packet = vec![0x43; len];
            key.decrypt(9, &mut packet);
            key.encrypt(9, &mut packet);
            key.decrypt(usize::MAX, &mut packet);
            assert_eq!(packet, vec![0x43; len]);
        }
    }
}
