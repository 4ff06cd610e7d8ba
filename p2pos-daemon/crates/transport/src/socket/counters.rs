//! Datagrams that did not go the ordinary way, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters, since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) relay: Counter,
    pub(crate) probe: Counter,
    pub(crate) stun: Counter,
    pub(crate) unwanted_quic: Counter,
    pub(crate) unknown: Counter,
    pub(crate) forged: Counter,
    pub(crate) unsendable: Counter,
    pub(crate) restrained: Counter,
    pub(crate) answers_withheld: Counter,
    pub(crate) send_failures: Counter,
    pub(crate) receive_failures: Counter,
}

/// One of them.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A reading of the socket's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SocketCounters {
    /// Relay frames dropped: of no flow of ours, not from its relay, or with a wrong tag.
    pub relay: u64,
    /// Openers, guesses and knocks dropped: too many, too long, or nobody reads them.
    pub probe: u64,
    /// STUN messages that nobody asked for.
    pub stun: u64,
    /// QUIC packets of foreign versions, with connection ids too short to be ours, or not made with our PeerId.
    pub unwanted_quic: u64,
    /// Datagrams that are nothing we know.
    pub unknown: u64,
    /// Datagrams from the network that claim to come from one of our made-up addresses.
    pub forged: u64,
    /// Packets to groups, to nobody, or to a made-up address that stands for nothing (any more).
    pub unsendable: u64,
    /// Batches not sent to addresses from which nothing was heard lately: their share was spent, or they are private and not
    /// in a network of ours.
    pub restrained: u64,
    /// Answers of the endpoint to strangers that were not sent.
    pub answers_withheld: u64,
    /// Batches that the kernel refused to send.
    pub send_failures: u64,
    /// Errors while receiving.
    pub receive_failures: u64,
}

impl Counters {
    pub(crate) fn read(&self) -> SocketCounters {
        SocketCounters {
            relay: self.relay.read(),
            probe: self.probe.read(),
            stun: self.stun.read(),
            unwanted_quic: self.unwanted_quic.read(),
            unknown: self.unknown.read(),
            forged: self.forged.read(),
            unsendable: self.unsendable.read(),
            restrained: self.restrained.read(),
            answers_withheld: self.answers_withheld.read(),
            send_failures: self.send_failures.read(),
            receive_failures: self.receive_failures.read(),
        }
    }
}
