//! The small packets beside QUIC: openers, guesses, knocks and STUN.
//!
//! What comes in goes to one bounded queue, capped in rate per sender and in all, because anybody can send such packets:
//! they cost a stranger nothing, so they must cost us little. STUN answers are taken only from whom we asked a moment ago.
//! Refuses to know what a probe says.

use std::{
    collections::{VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{classify::Class, mux::fake::FakeAddr};

/// Longest probe, bytes: a STUN answer with all its attributes stays below the smallest IPv4 packet that everybody must
/// take (576).
pub const PROBE_BYTES_MAX: usize = 548;

/// Probes that wait for their reader. Half a second of the permitted rate.
const PROBES_WAITING_MAX: usize = 256;

/// Probes taken per second, from everybody together. A guess attempt of ours brings at most 100 answers a second, a
/// punch 32; a flood beyond that would only burn the reader's time.
const PROBES_PER_SECOND_MAX: u32 = 512;

/// Probes taken per second from one sender, more or less: senders share buckets by the hash of their address, so that one
/// that floods seldom silences another.
const PROBES_PER_SECOND_EACH_MAX: u32 = 64;

/// Buckets that senders are spread over.
const BUCKETS: usize = 64;

/// How long an answer is awaited from somebody we sent STUN to: RFC 8489 s6.2.1 gives up after 39.5 s, and our questions
/// are repeated by asking anew.
const STUN_WINDOW: Duration = Duration::from_secs(10);

/// STUN servers asked at the same time.
const STUN_ASKED_MAX: usize = 16;

/// What a probe is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// A STUN message from a server that was asked.
    Stun,
    /// An opener that came all the way.
    Opener,
    /// A guess, or the answer to one.
    Guess,
    /// A knock at a NAT binding.
    Knock,
}

/// A probe that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What it is.
    pub kind: ProbeKind,
    /// All of it, with the first byte.
    pub bytes: Bytes,
    /// Who sent it: an unproven address. Logged at debug only.
    pub from: SocketAddr,
    /// The guess socket or the TCP relay flow by which it came; `None` for our ordinary sockets.
    pub via: Option<FakeAddr>,
}

/// The reading end of the probes.
#[derive(Debug)]
pub struct Probes {
    queue: mpsc::Receiver<Probe>,
}

impl Probes {
    /// Waits for the next probe; `None` once the endpoint is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Probe> {
        self.queue.recv().await
    }
}

/// Why a probe was not sent. None of these is worth a retry by itself: probes are repeated anyway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// Our misuse: the first byte belongs to nobody.
    #[error("{0:#04x} is not the first byte of a probe")]
    NotAProbe(u8),
    /// Our misuse.
    #[error("the probe has {bytes} bytes, the limit is {PROBE_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A group, nobody, or a made-up address that stands for no socket.
    #[error("nothing may be sent to {0}")]
    Unsendable(SocketAddr),
    /// This machine has no socket of that address family.
    #[error("this address family is not available")]
    NoSocket,
    /// The kernel's buffer is full.
    #[error("the socket is busy")]
    Busy,
    /// The kernel refused.
    #[error("the kernel refused the probe: {0}")]
    Refused(String),
}

/// What became of a probe that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    Taken,
    /// Too many, or nobody reads them, or too long.
    Dropped,
    /// STUN from somebody who was not asked.
    Unasked,
}

/// The writing end: decides which probes are let in.
#[derive(Debug)]
pub(crate) struct Gate {
    queue: mpsc::Sender<Probe>,
    all: Bucket,
    each: Vec<Bucket>,
    spread: RandomState,
    asked: VecDeque<(SocketAddr, Instant)>,
}

impl Gate {
    pub(crate) fn new(now: Instant) -> (Self, Probes) {
        let (sender, receiver) = mpsc::channel(PROBES_WAITING_MAX);
        let gate = Self {
            queue: sender,
            all: Bucket::full(PROBES_PER_SECOND_MAX, now),
            each: vec![Bucket::full(PROBES_PER_SECOND_EACH_MAX, now); BUCKETS],
            spread: RandomState::new(),
            asked: VecDeque::new(),
        };
        (gate, Probes { queue: receiver })
    }

    /// Lets answers of this STUN server in for a while.
    pub(crate) fn note_asked(&mut self, server: SocketAddr, now: Instant) {
        self.asked.retain(|(asked, at)| *asked != server && now.duration_since(*at) < STUN_WINDOW);
        if self.asked.len() == STUN_ASKED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back((server, now));
    }

    /// Takes a probe, or not.
    pub(crate) fn offer(&mut self, kind: ProbeKind, bytes: &[u8], source: Source, now: Instant) -> Offered {
        let Source { from, via } = source;
        if kind == ProbeKind::Stun && !self.was_asked(from, now) {
            return Offered::Unasked;
        }
        let is_taken = bytes.len() <= PROBE_BYTES_MAX
            && self.bucket_of(from.ip()).take(now)
            && self.all.take(now)
            && self.queue.try_send(Probe { kind, bytes: Bytes::copy_from_slice(bytes), from, via }).is_ok();
        if is_taken { Offered::Taken } else { Offered::Dropped }
    }

    fn was_asked(&self, server: SocketAddr, now: Instant) -> bool {
        self.asked.iter().any(|(asked, at)| *asked == server && now.duration_since(*at) < STUN_WINDOW)
    }

    fn bucket_of(&mut self, sender: IpAddr) -> &mut Bucket {
        let at = self.spread.hash_one(sender) % (BUCKETS as u64);
        &mut self.each[usize::try_from(at).unwrap_or(0)]
    }
}

/// Where a probe came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) from: SocketAddr,
    pub(crate) via: Option<FakeAddr>,
}

/// The kind of probe that a class is, if it is one.
pub(crate) fn kind_of(class: Class) -> Option<ProbeKind> {
    match class {
        Class::Stun => Some(ProbeKind::Stun),
        Class::Opener => Some(ProbeKind::Opener),
        Class::Guess => Some(ProbeKind::Guess),
        Class::Knock => Some(ProbeKind::Knock),
        Class::Quic | Class::Relay | Class::UnwantedQuic | Class::Unknown => None,
    }
}

/// A token bucket that holds one second's worth.
#[derive(Debug, Clone)]
struct Bucket {
    per_second: u32,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn full(per_second: u32, now: Instant) -> Self {
        Self { per_second, tokens: f64::from(per_second), filled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let rate = f64::from(self.per_second);
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * rate;
        self.tokens = (self.tokens + gained).min(rate);
        self.filled = now;
        let is_there = self.tokens >= 1.0;
        if is_there {
            self.tokens -= 1.0;
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(host: u8) -> Source {
        Source { from: ([192, 0, 2, host], 9).into(), via: None }
    }

    #[tokio::test]
    async fn a_flood_is_capped_and_leaves_room_for_another_sender() {
        let now = Instant::now();
        let (mut gate, mut probes) = Gate::new(now);
        let taken = |gate: &mut Gate, host, now| {
            (0..1_000)
                .filter(|_| gate.offer(ProbeKind::Guess, &[7], source(host), now) == Offered::Taken)
                .count()
        };
        assert_eq!(taken(&mut gate, 1, now), PROBES_PER_SECOND_EACH_MAX as usize);
        let other = (2..10).find(|host| taken(&mut gate, *host, now) > 0).unwrap();
        assert!(other < 10, "somebody in another bucket is heard");
        assert_eq!(probes.next().await.unwrap().from, source(1).from);
    }

    #[test]
    fn nobody_reading_means_dropping_and_no_growth() {
        let mut now = Instant::now();
        let (mut gate, _probes) = Gate::new(now);
        let mut taken = 0;
        for _ in 0..20 {
            now += Duration::from_secs(1);
            taken += (0..100)
                .filter(|_| gate.offer(ProbeKind::Knock, &[8], source(1), now) == Offered::Taken)
                .count();
        }
        assert_eq!(taken, PROBES_WAITING_MAX);
    }

    #[test]
    fn the_longest_probe_is_taken_and_a_longer_one_is_not() {
        let now = Instant::now();
        let (mut gate, _probes) = Gate::new(now);
        assert_eq!(gate.offer(ProbeKind::Guess, &[7; PROBE_BYTES_MAX], source(1), now), Offered::Taken);
        assert_eq!(gate.offer(ProbeKind::Guess, &[7; PROBE_BYTES_MAX + 1], source(1), now), Offered::Dropped);
    }

    #[test]
    fn stun_is_taken_from_whom_we_asked_and_only_for_a_while() {
        let now = Instant::now();
        let (mut gate, _probes) = Gate::new(now);
        let offer = |gate: &mut Gate, host, now| gate.offer(ProbeKind::Stun, &[1, 1], source(host), now);
        assert_eq!(offer(&mut gate, 1, now), Offered::Unasked);
        gate.note_asked(source(1).from, now);
        assert_eq!(offer(&mut gate, 1, now), Offered::Taken);
        assert_eq!(offer(&mut gate, 2, now), Offered::Unasked);
        assert_eq!(offer(&mut gate, 1, now + STUN_WINDOW), Offered::Unasked);
        for host in 10..100 {
            gate.note_asked(source(host).from, now);
        }
        assert_eq!(gate.asked.len(), STUN_ASKED_MAX);
    }
}
