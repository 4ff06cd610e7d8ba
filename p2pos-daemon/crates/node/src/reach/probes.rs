//! Hands the small packets beside QUIC to whoever waits for them.
//!
//! There is one stream of them for the whole endpoint, and anybody can send one: a packet that names no token of ours is
//! dropped here. Openers need no reader, since their work is done when they left.
//!
//! Refuses to know: what an attempt does with its packets.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use p2pos_transport::{ProbeKind, Probes};
use p2pos_traversal::Probe;
use tokio::sync::mpsc;

/// Packets that wait for one reader. An attempt needs three hits at most.
const WAITING_MAX: usize = 32;
/// Readers at a time: a guess runs once in the whole host, measurements of our own once.
const READERS_MAX: usize = 16;

type Readers = Mutex<BTreeMap<u64, mpsc::Sender<Arrived>>>;

/// A packet that names a token of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    /// What it says.
    pub(crate) probe: Probe,
    /// Who sent it: an unproven address.
    pub(crate) from: SocketAddr,
}

/// Where readers announce themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProbeDesk {
    readers: Arc<Readers>,
}

/// The packets of one token, until dropped.
#[derive(Debug)]
pub(crate) struct Reader {
    token: u64,
    queue: mpsc::Receiver<Arrived>,
    readers: Arc<Readers>,
}

impl ProbeDesk {
    /// Asks for all packets with this token; `None` if too many others read.
    pub(crate) fn read(&self, token: u64) -> Option<Reader> {
        let (sender, queue) = mpsc::channel(WAITING_MAX);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() >= READERS_MAX {
            return None;
        }
        readers.insert(token, sender);
        drop(readers);
        Some(Reader { token, queue, readers: self.readers.clone() })
    }

    /// Sorts what comes in until the endpoint is gone; `help` gets what asks for an answer of ours.
    pub(crate) async fn sort(self, mut probes: Probes, help: impl Fn(Arrived)) {
        while let Some(probe) = probes.next().await {
            match probe.kind {
                ProbeKind::Guess | ProbeKind::Knock => match Probe::decode(&probe.bytes) {
                    Some(asks @ (Probe::Ping { .. } | Probe::Ask { .. })) => {
                        help(Arrived { probe: asks, from: probe.from });
                    }
                    Some(
                        other @ (Probe::Opener
                        | Probe::Guess { .. }
                        | Probe::Hit { .. }
                        | Probe::Pong { .. }
                        | Probe::Knock { .. }),
                    ) => self.hand_over(Arrived { probe: other, from: probe.from }),
                    None => {}
                },
                ProbeKind::Opener | ProbeKind::Stun => {}
            }
        }
    }

    fn hand_over(&self, arrived: Arrived) {
        let Some(token) = token_of(arrived.probe) else { return };
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = readers.get(&token)
            && reader.try_send(arrived).is_err()
        {
            tracing::trace!("a probe was dropped, its reader is behind");
        }
    }
}

impl Reader {
    /// Waits for the next packet. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Arrived> {
        self.queue.recv().await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
    }
}

fn token_of(probe: Probe) -> Option<u64> {
    match probe {
        Probe::Opener => None,
        Probe::Guess { token }
        | Probe::Hit { token }
        | Probe::Ping { token }
        | Probe::Pong { token }
        | Probe::Ask { token }
        | Probe::Knock { token } => Some(token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_packet_goes_to_who_knows_its_token_and_to_nobody_else() {
        let desk = ProbeDesk::default();
        let (mut seven, mut eight) = (desk.read(7).expect("room"), desk.read(8).expect("room"));
        let from = ([192, 0, 2, 1], 9).into();
        desk.hand_over(Arrived { probe: Probe::Hit { token: 8 }, from });
        desk.hand_over(Arrived { probe: Probe::Hit { token: 9 }, from });
        desk.hand_over(Arrived { probe: Probe::Opener, from });
        assert_eq!(eight.next().await.expect("a packet").probe, Probe::Hit { token: 8 });
        assert!(seven.queue.try_recv().is_err());
        drop(eight);
        assert_eq!(desk.readers.lock().expect("no panic").len(), 1, "a reader that is gone is forgotten");
    }

    #[tokio::test]
    async fn readers_are_few_and_a_slow_one_loses_packets_instead_of_growing() {
        let desk = ProbeDesk::default();
        let readers: Vec<Reader> = (0..READERS_MAX as u64).filter_map(|token| desk.read(token)).collect();
        assert_eq!(readers.len(), READERS_MAX);
        assert!(desk.read(99).is_none());
        let from = ([192, 0, 2, 1], 9).into();
        for _ in 0..2 * WAITING_MAX {
            desk.hand_over(Arrived { probe: Probe::Hit { token: 0 }, from });
        }
        assert_eq!(readers[0].queue.len(), WAITING_MAX);
    }
}
