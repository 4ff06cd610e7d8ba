//! The small packets that are not QUIC. Promises: what reads is written the same, byte by byte; nothing reads that is longer than a
//! probe may be; a helper answers no token that was not announced, and never with a longer packet.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use p2pos_traversal::keepalive::Knocker;
use p2pos_traversal::{PROBE_LEN_MAX, Probe};

/// The only token that the helper was told of.
const ANNOUNCED: u64 = 7;

pub(crate) fn run(packet: &[u8]) {
    let Some(probe) = Probe::decode(packet) else {
        return;
    };
    assert_eq!(probe.encode(), packet);
    assert!(packet.len() <= PROBE_LEN_MAX);
    let now = Instant::now();
    let from = SocketAddr::from(([45, 1, 2, 3], 4000));
    let mut helper = Knocker::new();
    helper.handle_announced(ANNOUNCED, 1, now);
    for second in 0..40 {
        let reply = helper.handle_probe(probe, from, now + Duration::from_secs(second));
        if let Some(reply) = reply {
            assert!(packet.ends_with(&ANNOUNCED.to_be_bytes()), "a stranger was answered");
            assert!(reply.answer.encode().len() <= packet.len());
        }
        assert!(reply.is_none() || second < 12, "a token is good for ever");
    }
}
