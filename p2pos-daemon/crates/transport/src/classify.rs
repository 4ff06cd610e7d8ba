//! The first look at a datagram: whose is it, by its first bytes alone.
//!
//! One UDP port carries QUIC, relay frames and our own probes (DESIGN s7). QUIC always has the fixed bit set here, because
//! greasing is off, so a first byte from 0x40 on is QUIC and 4-15 is ours, as RFC 9443 leaves it free. Pure: no socket, no
//! counters. What QUIC must look like to be worth an answer is [`p2pos_noise_quic::probe`]'s decision.

use p2pos_noise_quic::probe::{self, StrangerFilter, Verdict};

/// First byte of a QUIC packet with the fixed bit, RFC 9000 s17.
const QUIC_FIRST: u8 = 0x40;

/// First and last byte that are ours.
const OURS_FIRST: u8 = 4;
const OURS_LAST: u8 = 15;

/// First byte of a relay frame.
const RELAY: u8 = 0x05;

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A QUIC packet of our version, for noq.
    Quic,
    /// A relay frame. Nothing relays yet.
    Relay,
    /// An opener, guess or lifetime knock. Nothing punches yet.
    Probe,
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
        Some(&RELAY) => Class::Relay,
        Some(&first) if (OURS_FIRST..=OURS_LAST).contains(&first) => Class::Probe,
        Some(_) => Class::Unknown,
    }
}

/// Moves the QUIC datagrams of a receive buffer to its front, tells `drop` about the others, and returns the bytes kept.
///
/// `stride` is the size of each datagram in the buffer except perhaps the last (generic receive offload). Of the first
/// packets of a handshake only those pass that were made with our PeerId, which is `callers`' to judge.
pub(crate) fn keep_quic(
    buffer: &mut [u8],
    stride: usize,
    callers: &StrangerFilter,
    mut drop: impl FnMut(Class),
) -> usize {
    let stride = stride.max(1);
    let mut kept = 0;
    let mut start = 0;
    while start < buffer.len() {
        let end = buffer.len().min(start + stride);
        match classify(&buffer[start..end]) {
            Class::Quic if !callers.admits(&buffer[start..end]) => drop(Class::UnwantedQuic),
            Class::Quic => {
                if kept != start {
                    buffer.copy_within(start..end, kept);
                }
                kept += end - start;
            }
            other @ (Class::Relay | Class::Probe | Class::UnwantedQuic | Class::Unknown) => drop(other),
        }
        start = end;
    }
    kept
}

#[cfg(test)]
mod tests {
    use p2pos_identity::SecretKey;

    use super::*;

    fn callers() -> StrangerFilter {
        StrangerFilter::new(&SecretKey::from_seed([1; 32]))
    }

    /// A short-header packet, as long as `judge` wants it.
    fn quic(fill: u8, len: usize) -> Vec<u8> {
        let mut packet = vec![fill; len];
        packet[0] = 0x40;
        packet
    }

    #[test]
    fn the_first_byte_tells_quic_relay_and_probes_apart() {
        assert_eq!(classify(&quic(7, 64)), Class::Quic);
        assert_eq!(classify(&[5, 0, 0, 0, 1]), Class::Relay);
        for first in [4, 6, 7, 8, 15] {
            assert_eq!(classify(&[first]), Class::Probe);
        }
        for first in [0, 1, 3, 16, 0x3f] {
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

    #[test]
    fn good_packets_close_ranks_when_bad_ones_between_them_go() {
        let mut buffer = Vec::new();
        buffer.extend(quic(1, 40));
        buffer.extend(vec![0u8; 40]);
        buffer.extend(quic(2, 40));
        buffer.extend(quic(3, 25));
        let mut dropped = Vec::new();
        let kept = keep_quic(&mut buffer, 40, &callers(), |class| dropped.push(class));
        assert_eq!(kept, 105);
        assert_eq!((buffer[1], buffer[41], buffer[81]), (1, 2, 3));
        assert_eq!(dropped, [Class::Unknown]);
    }

    #[test]
    fn a_zero_stride_ends() {
        assert_eq!(keep_quic(&mut [0, 0, 0], 0, &callers(), |_| ()), 0);
    }
}
