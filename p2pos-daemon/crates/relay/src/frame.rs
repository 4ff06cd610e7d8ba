//! The relay's frame: `0x05 | flow number (4) | counter (4) | tag (8) | payload`, 17 bytes before each packet.
//!
//! It is the whole of a UDP datagram; on TCP a length stands before it (`tcp`). The first byte tells it from QUIC
//! (0x40 and above) on the one socket. The head is written beside the packet and sent with it in a vectored write, and
//! the relay changes eight bytes where they lie: nobody copies a payload. A full 1,200-byte Initial passes on any path
//! of 1,280 bytes (1,200 + 17 + 48 of IPv6 and UDP = 1,265).
//!
//! The payload is a QUIC packet or one of four short [`Control`] messages by which the relay learns where a side is.
//! Nothing else is a frame: so no relay frame travels inside another, and no sender can build a chain of relays.
//!
//! Refuses to know: keys (the tag is bytes here), leases, who is who. Follows RELAY.md sections 2 and 3.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
};

use crate::mac::{TAG_BYTES, Tag};

/// The first byte of every relay frame.
pub const FIRST_BYTE: u8 = 0x05;

/// Bytes before the payload.
pub const HEAD_BYTES: usize = TAG_AT + TAG_BYTES;

/// The shortest packet, in bytes: shorter than this is no QUIC packet (RFC 9000 s10.3, a stateless reset has 21).
pub const PAYLOAD_BYTES_MIN: usize = 21;

/// The longest packet, in bytes: the largest that our QUIC sends. With the head it fits Ethernet's 1,500.
pub const PAYLOAD_BYTES_MAX: usize = 1452;

/// The longest frame, in bytes.
pub const FRAME_BYTES_MAX: usize = HEAD_BYTES + PAYLOAD_BYTES_MAX;

/// Payload bytes of the controls that a side sends. Larger than both answers to it together with their heads, so that
/// the relay never sends more than it got, whoever was named as the sender.
pub const ASK_BYTES: usize = 96;

/// Payload bytes of the controls that a relay sends.
pub const ANSWER_BYTES: usize = 32;

/// Bytes of a cookie: as hard to guess as a tag.
pub const COOKIE_BYTES: usize = 8;

/// Where the tag begins; what stands before it is signed.
pub(crate) const TAG_AT: usize = 9;

/// Smallest first byte of a QUIC packet (the fixed bit; greasing of it is off).
const QUIC_FIRST_BYTE_MIN: u8 = 0x40;

const BIND: u8 = 1;
const CHALLENGE: u8 = 2;
const PROOF: u8 = 3;
const BOUND: u8 = 4;

/// Number of a flow at one relay. Never 0, so that zeroed memory names nobody's flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(NonZeroU32);

/// A decoded frame; the packet stays where it is.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Which flow.
    pub vni: Vni,
    /// The sender's count of its frames on this flow, from 1.
    pub counter: u32,
    /// What the sender says proves it.
    pub tag: Tag,
    /// All bytes behind the head: what the tag covers besides the head's beginning.
    pub payload: &'a [u8],
    /// `None` for a QUIC packet, else what the payload says.
    pub control: Option<Control>,
}

/// What relay and side say to each other on a flow, to move it to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Side to relay: "I am here now".
    Bind,
    /// Relay to side: "then return this".
    Challenge([u8; COOKIE_BYTES]),
    /// Side to relay: the cookie, back.
    Proof([u8; COOKIE_BYTES]),
    /// Relay to side: "I send to this address of yours from now on".
    Bound(SocketAddr),
}

/// A whole frame with a [`Control`]; dereferences to its bytes. Lives on the stack.
#[derive(Debug, Clone, Copy)]
pub struct ControlFrame {
    bytes: [u8; HEAD_BYTES + ASK_BYTES],
    used: u8,
}

/// Why bytes are not a relay frame. Always the sender's fault, and always answered by silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Another first byte, or none.
    #[error("not a relay frame")]
    FirstByte,
    /// Too short for the head and any payload.
    #[error("the relay frame has {bytes} bytes, at least {} are needed", HEAD_BYTES + PAYLOAD_BYTES_MIN)]
    TooShort {
        /// The length.
        bytes: usize,
    },
    /// Longer than any packet of ours.
    #[error("the relay frame has {bytes} bytes, the limit is {FRAME_BYTES_MAX}")]
    TooLong {
        /// The length.
        bytes: usize,
    },
    /// Flow 0, which nobody has.
    #[error("the relay frame names flow 0")]
    NoFlow,
    /// The payload is neither a QUIC packet nor a control message; it may be another relay frame.
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

/// Writes the head that stands before a payload. Send both as one datagram, in a vectored write.
#[must_use]
pub fn encode_head(vni: Vni, counter: u32, tag: Tag) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..TAG_AT].copy_from_slice(&signed_head(vni, counter));
    head[TAG_AT..].copy_from_slice(&tag.0);
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
    if bytes > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { bytes });
    }
    if bytes < HEAD_BYTES + PAYLOAD_BYTES_MIN {
        return Err(FrameError::TooShort { bytes });
    }
    let (head, payload) = datagram.split_at(HEAD_BYTES);
    let word =
        |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes of a head of 17"));
    let vni = Vni::new(word(1)).ok_or(FrameError::NoFlow)?;
    let control = match payload[0] {
        QUIC_FIRST_BYTE_MIN.. => None,
        _ => Some(Control::decode(payload).ok_or(FrameError::NotQuic)?),
    };
    let tag = Tag(head[TAG_AT..].try_into().expect("the head ends with the tag"));
    Ok(Frame { vni, counter: word(5), tag, payload, control })
}

/// The part of the head that the tag covers.
pub(crate) fn signed_head(vni: Vni, counter: u32) -> [u8; TAG_AT] {
    let mut head = [FIRST_BYTE; TAG_AT];
    head[1..5].copy_from_slice(&vni.value().to_be_bytes());
    head[5..].copy_from_slice(&counter.to_be_bytes());
    head
}

impl Control {
    fn decode(payload: &[u8]) -> Option<Self> {
        let (kind, body) = payload.split_first()?;
        let cookie = || body.first_chunk::<COOKIE_BYTES>().copied();
        let (control, used) = match (*kind, payload.len()) {
            (BIND, ASK_BYTES) => (Self::Bind, 0),
            (PROOF, ASK_BYTES) => (Self::Proof(cookie()?), COOKIE_BYTES),
            (CHALLENGE, ANSWER_BYTES) => (Self::Challenge(cookie()?), COOKIE_BYTES),
            (BOUND, ANSWER_BYTES) => (Self::Bound(address_of(body.first_chunk()?)), ADDRESS_BYTES),
            _ => return None,
        };
        body[used..].iter().all(|byte| *byte == 0).then_some(control)
    }

    /// Makes the frame; `tag` is asked for the tag of head and payload.
    pub(crate) fn frame(self, vni: Vni, counter: u32, tag: impl FnOnce(&[u8], &[u8]) -> Tag) -> ControlFrame {
        let payload_bytes = match self {
            Self::Bind | Self::Proof(_) => ASK_BYTES,
            Self::Challenge(_) | Self::Bound(_) => ANSWER_BYTES,
        };
        let mut bytes = [0; HEAD_BYTES + ASK_BYTES];
        let (head, payload) = bytes.split_at_mut(HEAD_BYTES);
        let payload = &mut payload[..payload_bytes];
        self.write(payload);
        head[..TAG_AT].copy_from_slice(&signed_head(vni, counter));
        let tag = tag(&head[..TAG_AT], payload);
        head[TAG_AT..].copy_from_slice(&tag.0);
        let used = u8::try_from(HEAD_BYTES + payload_bytes).expect("at most 113");
        ControlFrame { bytes, used }
    }

    fn write(self, payload: &mut [u8]) {
        let (kind, body) = payload.split_first_mut().expect("a control has at least 32 bytes");
        match self {
            Self::Bind => *kind = BIND,
            Self::Challenge(cookie) => {
                *kind = CHALLENGE;
                body[..COOKIE_BYTES].copy_from_slice(&cookie);
            }
            Self::Proof(cookie) => {
                *kind = PROOF;
                body[..COOKIE_BYTES].copy_from_slice(&cookie);
            }
            Self::Bound(address) => {
                *kind = BOUND;
                body[..ADDRESS_BYTES].copy_from_slice(&address_bytes(address));
            }
        }
    }
}

impl std::ops::Deref for ControlFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.used)]
    }
}

/// An address on the wire: IPv6 (IPv4 as `::ffff:a.b.c.d`), then the port.
pub(crate) const ADDRESS_BYTES: usize = 18;

pub(crate) fn address_bytes(address: SocketAddr) -> [u8; ADDRESS_BYTES] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; ADDRESS_BYTES];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

fn address_of(bytes: &[u8; ADDRESS_BYTES]) -> SocketAddr {
    let ip: [u8; 16] = bytes[..16].try_into().expect("sixteen of eighteen");
    let port = u16::from_be_bytes([bytes[16], bytes[17]]);
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_of_a_known_frame_never_change() {
        let head = encode_head(Vni::new(0x0102_0304).unwrap(), 0x0a0b_0c0d, Tag(*b"tag-tag-"));
        assert_eq!(&head, b"\x05\x01\x02\x03\x04\x0a\x0b\x0c\x0dtag-tag-");
    }

    #[test]
    fn a_full_initial_passes_on_the_smallest_ipv6_path() {
        const { assert!(HEAD_BYTES + 1200 + 40 + 8 <= 1280) }
        const { assert!(HEAD_BYTES + PAYLOAD_BYTES_MAX + 20 + 8 <= 1500) }
    }

    #[test]
    fn both_answers_together_are_smaller_than_what_asks_for_them() {
        const { assert!(2 * (HEAD_BYTES + ANSWER_BYTES) <= HEAD_BYTES + ASK_BYTES) }
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
        for bytes in [PAYLOAD_BYTES_MIN, ANSWER_BYTES - HEAD_BYTES, ASK_BYTES - HEAD_BYTES] {
            let inner = frame(7, &vec![0x40; bytes.max(PAYLOAD_BYTES_MIN)]);
            assert_eq!(decode(&frame(8, &inner)).unwrap_err(), FrameError::NotQuic);
        }
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

    #[test]
    fn controls_survive_the_wire_and_have_one_form_only() {
        let vni = Vni::new(9).unwrap();
        for control in [
            Control::Bind,
            Control::Challenge([1; 8]),
            Control::Proof([2; 8]),
            Control::Bound("192.0.2.1:7".parse().unwrap()),
            Control::Bound("[2001:db8::1]:65535".parse().unwrap()),
        ] {
            let frame = control.frame(vni, 3, |_, _| Tag([4; 8]));
            assert_eq!(decode(&frame).unwrap().control, Some(control));
            let mut other = frame.to_vec();
            *other.last_mut().unwrap() = 1;
            assert_eq!(decode(&other).unwrap_err(), FrameError::NotQuic, "padding is zero");
            let shorter = &frame[..frame.len() - 1];
            assert_eq!(decode(shorter).unwrap_err(), FrameError::NotQuic, "each has its one length");
        }
    }

    proptest! {
        #[test]
        fn every_frame_survives_the_wire(number in 1..=u32::MAX, counter: u32, tag: [u8; TAG_BYTES], mut payload in prop::collection::vec(any::<u8>(), PAYLOAD_BYTES_MIN..200)) {
            payload[0] |= QUIC_FIRST_BYTE_MIN;
            let vni = Vni::new(number).unwrap();
            let bytes = [&encode_head(vni, counter, Tag(tag))[..], &payload].concat();
            let read = decode(&bytes).unwrap();
            prop_assert_eq!((read.vni, read.counter, read.tag.0, read.payload), (vni, counter, tag, &payload[..]));
            prop_assert_eq!(read.control, None);
        }

        #[test]
        fn gibberish_never_panics(mut bytes: Vec<u8>) {
            decode(&bytes).ok();
            bytes.insert(0, FIRST_BYTE);
            decode(&bytes).ok();
        }
    }

    fn frame(number: u32, payload: &[u8]) -> Vec<u8> {
        [&encode_head(Vni::new(number).unwrap(), 1, Tag([9; TAG_BYTES]))[..], payload].concat()
    }
}
