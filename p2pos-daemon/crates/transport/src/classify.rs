//! The first look at a datagram: whose is it, by its first bytes alone.
//!
//! One UDP port carries QUIC, relay frames and our own probes (DESIGN s7). QUIC always has the fixed bit set here, because
//! greasing is off, so a first byte from 0x40 on is QUIC; 4-15 is ours, as RFC 9443 leaves it free, and 0-3 is STUN
//! (RFC 7983). Pure: no socket, no counters. What QUIC must look like to be worth an answer is
//! [`p2pos_noise_quic::probe`]'s decision.

use p2pos_noise_quic::probe::{self, Verdict};
use p2pos_traversal::{GUESS, KNOCK, OPENER};

/// First byte of a QUIC packet with the fixed bit, RFC 9000 s17.
const QUIC_FIRST: u8 = 0x40;

/// Last first byte of a STUN message, RFC 7983 s7.
const STUN_LAST: u8 = 0x03;

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A QUIC packet of our version, for noq.
    Quic,
    /// A relay frame: a QUIC packet in an envelope, or the relay's own word.
    Relay,
    /// A STUN message, which we take only from whom we asked.
    Stun,
    /// A packet that only opens our own NATs and dies before the peer's.
    Opener,
    /// A guess at the port of a symmetric NAT, or the answer to one that hit.
    Guess,
    /// What measures how long a NAT remembers.
    Knock,
    /// QUIC that must not be answered: a foreign version, a connection id too short to be ours, a stranger's Initial.
    UnwantedQuic,
    /// Nothing we know.
    Unknown,
}

/// Judges one datagram.
#[must_use]
pub fn classify(datagram: &[u8]) -> Class {
    match datagram.first() {
        None => Class::Unknown,
        Some(&first) if first >= QUIC_FIRST => match probe::judge(datagram) {
            Verdict::Quic => Class::Quic,
            Verdict::Drop(_) => Class::UnwantedQuic,
        },
        Some(&p2pos_relay::FIRST_BYTE) => Class::Relay,
        Some(&OPENER) => Class::Opener,
        Some(&GUESS) => Class::Guess,
        Some(&KNOCK) => Class::Knock,
        Some(&first) if first <= STUN_LAST => Class::Stun,
        Some(_) => Class::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A short-header packet, as long as `judge` wants it.
    fn quic(fill: u8, len: usize) -> Vec<u8> {
        let mut packet = vec![fill; len];
        packet[0] = 0x40;
        packet
    }

    #[test]
    fn the_first_byte_tells_quic_relay_stun_and_probes_apart() {
        assert_eq!(classify(&quic(7, 64)), Class::Quic);
        assert_eq!(classify(&[5, 0, 0, 0, 1]), Class::Relay);
        for first in 0..=3 {
            assert_eq!(classify(&[first; 20]), Class::Stun);
        }
        assert_eq!([6, 7, 8].map(|first| classify(&[first])), [Class::Opener, Class::Guess, Class::Knock]);
        for first in [4, 9, 15, 16, 0x3f] {
            assert_eq!(classify(&[first; 40]), Class::Unknown);
        }
        assert_eq!(classify(&[]), Class::Unknown);
    }

    #[test]
    fn a_foreign_quic_version_is_unwanted() {
        let mut initial = vec![0u8; 1_200];
        initial[0] = 0xc3;
        initial[1..5].copy_from_slice(&1u32.to_be_bytes());
        initial[5] = 8;
        assert_eq!(classify(&initial), Class::UnwantedQuic);
    }
}
