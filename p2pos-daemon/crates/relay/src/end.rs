//! A user's end of a flow: signs what goes to the relay, recognises what comes from it, answers its challenges.
//!
//! Owns the count of frames sent. What comes from the relay bears a fixed tag that the relay chose for us: it keeps out
//! whoever has not seen a frame of this flow. More would buy nothing: the packet inside is sealed by the peer, as on a
//! direct path, and a relay that lies could sign its lies.
//!
//! Refuses to know: sockets, the relay's address (compare it before you call), the time. Follows RELAY.md section 3.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    frame::{self, Control, ControlFrame, FrameError, HEAD_BYTES, Vni},
    mac::{FlowKey, Tag},
};

/// Frames that one side may send on one flow: the counter's 32 bits, from 1. At 100,000 packets a second it lasts half
/// a day; before that, ask the relay for a new flow.
pub const FRAMES_MAX: u64 = u32::MAX as u64;

/// One side's end of one flow. Shared by everybody who sends on it: all calls take `&self`.
#[derive(Debug)]
pub struct FlowEnd {
    vni: Vni,
    key: FlowKey,
    accept: Tag,
    /// How many frames were signed.
    signed: AtomicU64,
}

/// What a frame from the relay is.
#[derive(Debug, Clone, Copy)]
pub enum Opened<'a> {
    /// A QUIC packet of the other side.
    Packet(&'a [u8]),
    /// The relay asks whether we are where it saw us: send this back, from the socket on which it asked.
    Answer(ControlFrame),
    /// The relay sends to this address of ours; also tells us how the world sees us.
    Bound(SocketAddr),
}

/// Why a frame that claims to be the relay's is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It names another flow, bears another tag, or says what only sides say.
    #[error("the relay frame is not of this flow")]
    NotOurs,
    /// The relay asks, and no count is left to answer with.
    #[error("the flow has used up its {FRAMES_MAX} frames")]
    UsedUp,
}

impl FlowEnd {
    /// Builds our end from the relay's answer: the flow, the key for our frames, the tag on the relay's.
    #[must_use]
    pub fn new(vni: Vni, key: FlowKey, accept: Tag) -> Self {
        Self { vni, key, accept, signed: AtomicU64::new(0) }
    }

    /// Returns the flow's number.
    #[must_use]
    pub fn vni(&self) -> Vni {
        self.vni
    }

    /// Makes the head for one packet; send both as one datagram. Each call takes the next count, so make a head for
    /// each packet that you send, and send each once.
    ///
    /// `None` once [`FRAMES_MAX`] are used up: the flow is of no use then.
    #[must_use]
    pub fn head(&self, packet: &[u8]) -> Option<[u8; HEAD_BYTES]> {
        let counter = self.next_counter()?;
        let tag = self.key.tag(&frame::signed_head(self.vni, counter), packet);
        Some(frame::encode_head(self.vni, counter, tag))
    }

    /// Makes the frame that tells the relay our address. The relay answers with a challenge; until [`Opened::Bound`]
    /// comes, repeat it. Needed after a change of network, and at the start unless frames leave from the socket that
    /// the relay already knows from the connection to it.
    #[must_use]
    pub fn bind(&self) -> Option<ControlFrame> {
        self.control(Control::Bind)
    }

    /// Reads a frame that came from the relay's address.
    ///
    /// # Errors
    /// [`OpenError`]: drop it and say nothing.
    pub fn open<'a>(&self, datagram: &'a [u8]) -> Result<Opened<'a>, OpenError> {
        let frame = frame::decode(datagram)?;
        if frame.vni != self.vni || !frame.tag.is(self.accept) {
            return Err(OpenError::NotOurs);
        }
        match frame.control {
            None => Ok(Opened::Packet(frame.payload)),
            Some(Control::Challenge(cookie)) => {
                self.control(Control::Proof(cookie)).map(Opened::Answer).ok_or(OpenError::UsedUp)
            }
            Some(Control::Bound(address)) => Ok(Opened::Bound(address)),
            Some(Control::Bind | Control::Proof(_)) => Err(OpenError::NotOurs),
        }
    }

    /// Tells whether a frame that came from the relay's address is of this flow, without taking it. For machines that are
    /// relays themselves, where another one's number may be the same.
    #[must_use]
    pub fn recognises(&self, datagram: &[u8]) -> bool {
        frame::decode(datagram).is_ok_and(|frame| frame.vni == self.vni && frame.tag.is(self.accept))
    }

    fn control(&self, control: Control) -> Option<ControlFrame> {
        let counter = self.next_counter()?;
        Some(control.frame(self.vni, counter, |head, payload| self.key.tag(head, payload)))
    }

    fn next_counter(&self) -> Option<u32> {
        // Relaxed: the number only has to be ours alone. 2^64 calls do not happen, so it never wraps.
        u32::try_from(self.signed.fetch_add(1, Ordering::Relaxed) + 1).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{PAYLOAD_BYTES_MIN, decode};

    const PACKET: [u8; PAYLOAD_BYTES_MIN] = [0x41; PAYLOAD_BYTES_MIN];

    #[test]
    fn every_head_has_its_own_count_and_a_tag_that_covers_all() {
        let end = end();
        let (first, second) = (end.head(&PACKET).unwrap(), end.head(&PACKET).unwrap());
        assert_eq!((first[8], second[8]), (1, 2));
        assert_ne!(first[9..], second[9..]);
        let tag = FlowKey::new([1; 16]).tag(&first[..9], &PACKET);
        assert!(decode(&[&first[..], &PACKET].concat()).unwrap().tag.is(tag));
    }

    #[test]
    fn a_flow_that_used_up_its_counts_signs_nothing_more() {
        let end = end();
        end.signed.store(FRAMES_MAX - 1, Ordering::Relaxed);
        assert!(end.head(&PACKET).is_some());
        assert!(end.head(&PACKET).is_none() && end.bind().is_none());
        assert!(matches!(end.open(&from_relay(Control::Challenge([1; 8]))), Err(OpenError::UsedUp)));
    }

    #[test]
    fn the_relays_packets_are_taken_and_others_are_not() {
        let end = end();
        let head = frame::encode_head(end.vni(), 77, Tag([2; 8]));
        let mut datagram = [&head[..], &PACKET].concat();
        assert!(matches!(end.open(&datagram), Ok(Opened::Packet(packet)) if packet == PACKET));
        datagram[9] ^= 1;
        assert!(matches!(end.open(&datagram), Err(OpenError::NotOurs)), "another tag");
        datagram[9] ^= 1;
        datagram[4] ^= 1;
        assert!(matches!(end.open(&datagram), Err(OpenError::NotOurs)), "another flow");
    }

    #[test]
    fn a_challenge_is_answered_with_its_cookie_and_what_sides_say_is_not_taken_from_a_relay() {
        let end = end();
        let Ok(Opened::Answer(answer)) = end.open(&from_relay(Control::Challenge([5; 8]))) else {
            panic!("an answer")
        };
        assert_eq!(decode(&answer).unwrap().control, Some(Control::Proof([5; 8])));
        let bound = Control::Bound("192.0.2.1:7".parse().unwrap());
        assert!(matches!(end.open(&from_relay(bound)), Ok(Opened::Bound(at)) if at.port() == 7));
        for asks in [Control::Bind, Control::Proof([1; 8])] {
            assert!(matches!(end.open(&from_relay(asks)), Err(OpenError::NotOurs)));
        }
    }

    fn end() -> FlowEnd {
        FlowEnd::new(Vni::new(5).unwrap(), FlowKey::new([1; 16]), Tag([2; 8]))
    }

    fn from_relay(control: Control) -> ControlFrame {
        control.frame(Vni::new(5).unwrap(), 1, |_, _| Tag([2; 8]))
    }
}
