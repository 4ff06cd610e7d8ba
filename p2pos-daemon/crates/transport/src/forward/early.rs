//! Frames that came before the news of their flow.
//!
//! A relay tells the callee of a flow on a stream, and sends the caller's first packet as a datagram a moment later: on two
//! ways that overtake each other, and the news may even have to be sent again. Without this the packet would be dropped,
//! and QUIC sends a first packet again after 300 ms at the earliest: once in ten calls everybody waited for that. So a few
//! frames of flows that nobody knows wait here for a moment.
//!
//! Strangers can fill this, as they can send what looks like a frame: they gain nothing, and the oldest make room.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use p2pos_relay::{Via, Vni, decode};

/// Frames that wait: some calls' first flights. 48 KiB at the most.
const EARLY_MAX: usize = 32;

/// How long they wait. News that were lost on the way come after some round trips; what comes later is sent again anyway.
const EARLY_FOR: Duration = Duration::from_millis(500);

/// What waits, oldest first.
#[derive(Debug, Default)]
pub(super) struct Early(VecDeque<Waiting>);

#[derive(Debug)]
struct Waiting {
    from: Via,
    flow: Vni,
    until: Instant,
    frame: Bytes,
}

impl Early {
    /// Keeps a frame, unless it is none.
    pub(super) fn keep(&mut self, (from, now): (Via, Instant), frame: &[u8]) {
        let Ok(decoded) = decode(frame) else { return };
        self.0.retain(|waiting| waiting.until >= now);
        if self.0.len() >= EARLY_MAX {
            self.0.pop_front();
        }
        let until = now + EARLY_FOR;
        self.0.push_back(Waiting { from, flow: decoded.vni, until, frame: Bytes::copy_from_slice(frame) });
    }

    /// Gives out what came for a flow that is known by now, in order.
    pub(super) fn take(&mut self, from: Via, flow: Vni, now: Instant) -> Vec<Bytes> {
        let (ours, others) = std::mem::take(&mut self.0)
            .into_iter()
            .partition::<VecDeque<_>, _>(|waiting| (waiting.from, waiting.flow) == (from, flow));
        self.0 = others;
        ours.into_iter().filter(|waiting| waiting.until >= now).map(|waiting| waiting.frame).collect()
    }
}

#[cfg(test)]
mod tests {
    use p2pos_relay::{FlowEnd, FlowKey, Tag};

    use super::*;

    fn frame(flow: u32) -> Vec<u8> {
        let end = FlowEnd::new(Vni::new(flow).unwrap(), FlowKey::new([1; 16]), Tag([2; 8]));
        let packet = [0x40; 30];
        [&end.head(&packet).unwrap()[..], &packet].concat()
    }

    fn at(port: u16) -> Via {
        Via::Udp(([192, 0, 2, 1], port).into())
    }

    #[test]
    fn frames_of_a_flow_wait_for_its_news_and_only_from_its_relay() {
        let (mut early, now) = (Early::default(), Instant::now());
        early.keep((at(1), now), &frame(7));
        early.keep((at(2), now), &frame(7));
        early.keep((at(1), now), &frame(8));
        let flow = Vni::new(7).unwrap();
        assert_eq!(early.take(at(1), flow, now), [frame(7)]);
        assert!(early.take(at(1), flow, now).is_empty(), "once");
        assert_eq!(early.0.len(), 2);
    }

    #[test]
    fn of_too_many_the_oldest_go_and_all_go_in_time() {
        let (mut early, now) = (Early::default(), Instant::now());
        for flow in 1..=u32::try_from(EARLY_MAX).unwrap() + 1 {
            early.keep((at(1), now), &frame(flow));
        }
        early.keep((at(1), now), b"no frame");
        assert_eq!(early.0.len(), EARLY_MAX);
        assert!(early.take(at(1), Vni::new(1).unwrap(), now).is_empty());
        let late = now + EARLY_FOR + Duration::from_millis(1);
        assert!(early.take(at(1), Vni::new(2).unwrap(), late).is_empty());
    }
}
