//! The helper's side: remembers from where a peer pinged, and knocks there when asked.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    keepalive::{BINDINGS_MAX, BINDINGS_PER_PEER_MAX, CLIFFS},
    probe::Probe,
};

/// How long an announcement is remembered: the last cliff, the warming before and the asking after it.
const ANNOUNCED_FOR: Duration = CLIFFS[CLIFFS.len() - 1].saturating_add(Duration::from_secs(30));
/// Pings and asks that one token is good for: three of each, and as many that the network doubled.
const USES_MAX: u8 = 12;

/// What to send: at most two packets, none longer than what came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnockerReply {
    /// To whoever sent the packet.
    pub answer: Probe,
    /// To a binding, if it is asked for and known.
    pub knock: Option<(SocketAddr, Probe)>,
}

/// The helper's side of all measurements by all peers.
#[derive(Debug, Default)]
pub struct Knocker {
    /// The oldest first.
    bindings: VecDeque<Binding>,
}

#[derive(Debug)]
struct Binding {
    token: u64,
    /// Where its ping came from.
    addr: Option<SocketAddr>,
    uses: u8,
    since: Instant,
}

impl Knocker {
    /// Starts empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a peer's announcement over the encrypted connection. The caller lets each peer announce once in
    /// [`crate::keepalive::MEASURE_RETRY`].
    pub fn handle_announced(&mut self, first_token: u64, count: u8, now: Instant) {
        self.bindings.retain(|old| now < old.since + ANNOUNCED_FOR);
        for offset in 0..u64::from(count.min(BINDINGS_PER_PEER_MAX)) {
            let token = first_token.wrapping_add(offset);
            if self.bindings.len() < BINDINGS_MAX && self.find(token).is_none() {
                self.bindings.push_back(Binding { token, addr: None, uses: 0, since: now });
            }
        }
    }

    /// Takes a packet, and says what to send. Tokens that nobody announced get no answer.
    pub fn handle_probe(&mut self, probe: Probe, from: SocketAddr, now: Instant) -> Option<KnockerReply> {
        let (token, is_ask) = match probe {
            Probe::Ping { token } => (token, false),
            Probe::Ask { token } => (token, true),
            Probe::Opener
            | Probe::Guess { .. }
            | Probe::Hit { .. }
            | Probe::Pong { .. }
            | Probe::Knock { .. } => {
                return None;
            }
        };
        let binding =
            self.find(token).filter(|old| now < old.since + ANNOUNCED_FOR && old.uses < USES_MAX)?;
        binding.uses += 1;
        if !is_ask {
            binding.addr = Some(from);
        }
        let knock = binding.addr.filter(|_| is_ask).map(|addr| (addr, Probe::Knock { token }));
        Some(KnockerReply { answer: Probe::Pong { token }, knock })
    }

    fn find(&mut self, token: u64) -> Option<&mut Binding> {
        self.bindings.iter_mut().find(|binding| binding.token == token)
    }
}
