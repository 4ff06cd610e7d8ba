//! The data frame: `0x05 | flow number (4) | tag (8) | QUIC packet`, 13 bytes before each packet.
//!
//! The head stands on the outside of a UDP datagram, so a full 1,200-byte Initial passes on any path of 1,280 bytes
//! (1,200 + 13 + 48 of IPv6 and UDP = 1,261). The first byte tells the frame from QUIC (0x40 and above) on the one
//! socket; the flow number picks the pair of addresses; the tag is the truncated MAC by which a relay drops what does
//! not belong to a lease before it spends anything on it. The payload must look like a QUIC packet: with that, no relay
//! frame travels inside another, and a chain of relays cannot be built by a sender (DESIGN section 7).
//!
//! Refuses to know: keys (the tag is bytes here), leases, addresses.

use std::num::NonZeroU32;

/// The first byte of every relay frame.
pub const FIRST_BYTE: u8 = 0x05;

/// Bytes of the tag. 64 bits: at a million forged frames a second a right one takes 300,000 years on average, and what
/// it wins is one dropped QUIC packet. Half of it would fall in an hour.
pub const TAG_BYTES: usize = 8;

/// Bytes before the payload.
pub const HEAD_BYTES: usize = 1 + 4 + TAG_BYTES;

/// The shortest payload, in bytes: shorter than this is no QUIC packet (RFC 9000 s10.3, a stateless reset has 21).
pub const PAYLOAD_BYTES_MIN: usize = 21;

/// The longest payload, in bytes: the largest packet that our QUIC sends. With the head it fits Ethernet's 1,500.
pub const PAYLOAD_BYTES_MAX: usize = 1452;

/// Smallest first byte of a QUIC packet (the fixed bit; greasing of it is off).
const QUIC_FIRST_BYTE_MIN: u8 = 0x40;

/// Number of a flow at one relay. Never 0, so that zeroed memory names nobody's flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(NonZeroU32);

/// The truncated MAC of a frame. Compare tags only in constant time; that is why this type has no `==`.
#[derive(Debug, Clone, Copy)]
pub struct Tag(pub [u8; TAG_BYTES]);

/// A decoded frame; the payload stays where it is.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Which flow.
    pub vni: Vni,
    /// What the sender says proves it.
    pub tag: Tag,
    /// The QUIC packet.
    pub payload: &'a [u8],
}

/// Why bytes are not a relay frame. Always the sender's fault, and always answered by silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Another first byte, or none.
    #[error("not a relay frame")]
    FirstByte,
    /// Too short for the head and any QUIC packet.
    #[error("the relay frame has {bytes} bytes, at least {} are needed", HEAD_BYTES + PAYLOAD_BYTES_MIN)]
    TooShort {
        /// The length.
        bytes: usize,
    },
    /// Longer than any packet of ours.
    #[error("the relay frame has {bytes} bytes, the limit is {}", HEAD_BYTES + PAYLOAD_BYTES_MAX)]
    TooLong {
        /// The length.
        bytes: usize,
    },
    /// Flow 0, which nobody has.
    #[error("the relay frame names flow 0")]
    NoFlow,
    /// The payload is no QUIC packet; it may be another relay frame.
    #[error("the relay frame holds something other than a QUIC packet")]
    NotQuic,
}

impl Vni {
    /// Takes a flow's number; `None` for 0.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// Returns the number.
    #[must_use]
    pub fn value(self) -> u32 {
        self.0.get()
    }
}

/// Writes the head that stands before a packet. Send it and the packet as one datagram, in a vectored write.
#[must_use]
pub fn encode_head(vni: Vni, tag: Tag) -> [u8; HEAD_BYTES] {
    let mut head = [FIRST_BYTE; HEAD_BYTES];
    head[1..5].copy_from_slice(&vni.value().to_be_bytes());
    head[5..].copy_from_slice(&tag.0);
    head
}

/// Reads a whole datagram as a relay frame. Checks the shape only: the tag is still unproven.
///
/// # Errors
/// [`FrameError`] names the first rule that is broken.
pub fn decode(datagram: &[u8]) -> Result<Frame<'_>, FrameError> {
    if datagram.first() != Some(&FIRST_BYTE) {
        return Err(FrameError::FirstByte);
    }
    let bytes = datagram.len();
    if bytes > HEAD_BYTES + PAYLOAD_BYTES_MAX {
        return Err(FrameError::TooLong { bytes });
    }
    if bytes < HEAD_BYTES + PAYLOAD_BYTES_MIN {
        return Err(FrameError::TooShort { bytes });
    }
    let (head, payload) = datagram.split_at(HEAD_BYTES);
    let number = u32::from_be_bytes(head[1..5].try_into().expect("four bytes of a head of 13"));
    let vni = Vni::new(number).ok_or(FrameError::NoFlow)?;
    if payload[0] < QUIC_FIRST_BYTE_MIN {
        return Err(FrameError::NotQuic);
    }
    let tag = Tag(head[5..].try_into().expect("the head ends with the tag"));
    Ok(Frame { vni, tag, payload })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_of_a_known_frame_never_change() {
        let head = encode_head(Vni::new(0x0102_0304).unwrap(), Tag(*b"tag-tag-"));
        assert_eq!(&head, b"\x05\x01\x02\x03\x04tag-tag-");
    }

    #[test]
    fn a_full_initial_passes_on_the_smallest_ipv6_path() {
        const { assert!(HEAD_BYTES + 1200 + 40 + 8 <= 1280) }
        const { assert!(HEAD_BYTES + PAYLOAD_BYTES_MAX + 20 + 8 <= 1500) }
    }

    #[test]
    fn the_shortest_and_longest_payloads_pass_and_one_byte_beyond_does_not() {
        for (payload_bytes, is_taken) in [
            (PAYLOAD_BYTES_MIN - 1, false),
            (PAYLOAD_BYTES_MIN, true),
            (PAYLOAD_BYTES_MAX, true),
            (PAYLOAD_BYTES_MAX + 1, false),
        ] {
            assert_eq!(decode(&frame(1, &vec![0x40; payload_bytes])).is_ok(), is_taken, "{payload_bytes}");
        }
    }

    #[test]
    fn every_truncation_of_the_shortest_frame_is_refused() {
        let whole = frame(7, &[0x40; PAYLOAD_BYTES_MIN]);
        for bytes in 1..whole.len() {
            assert_eq!(decode(&whole[..bytes]).unwrap_err(), FrameError::TooShort { bytes });
        }
        assert_eq!(decode(b"").unwrap_err(), FrameError::FirstByte);
    }

    #[test]
    fn a_relay_frame_inside_a_relay_frame_is_refused() {
        let inner = frame(7, &[0x40; PAYLOAD_BYTES_MIN]);
        assert_eq!(decode(&frame(8, &inner)).unwrap_err(), FrameError::NotQuic);
    }

    #[test]
    fn other_first_bytes_and_flow_zero_are_refused() {
        let mut bytes = frame(7, &[0x40; PAYLOAD_BYTES_MIN]);
        for first in (0..=255).filter(|first| *first != FIRST_BYTE) {
            bytes[0] = first;
            assert_eq!(decode(&bytes).unwrap_err(), FrameError::FirstByte);
        }
        bytes[..5].copy_from_slice(&[FIRST_BYTE, 0, 0, 0, 0]);
        assert_eq!(decode(&bytes).unwrap_err(), FrameError::NoFlow);
    }

    proptest! {
        #[test]
        fn every_frame_survives_the_wire(number in 1..=u32::MAX, tag: [u8; TAG_BYTES], mut payload in prop::collection::vec(any::<u8>(), PAYLOAD_BYTES_MIN..200)) {
            payload[0] |= QUIC_FIRST_BYTE_MIN;
            let vni = Vni::new(number).unwrap();
            let bytes = [&encode_head(vni, Tag(tag))[..], &payload].concat();
            let read = decode(&bytes).unwrap();
            prop_assert_eq!((read.vni, read.tag.0, read.payload), (vni, tag, &payload[..]));
        }

        #[test]
        fn gibberish_never_panics(mut bytes: Vec<u8>) {
            decode(&bytes).ok();
            bytes.insert(0, FIRST_BYTE);
            decode(&bytes).ok();
        }
    }

    fn frame(number: u32, payload: &[u8]) -> Vec<u8> {
        [&encode_head(Vni::new(number).unwrap(), Tag([9; TAG_BYTES]))[..], payload].concat()
    }
}
