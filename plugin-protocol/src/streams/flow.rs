//! The two queues of a datagram flow: bounded, and the oldest message goes first when they are full.

use std::collections::VecDeque;

use bytes::Bytes;

use super::StreamEnd;
use crate::limits::{DATAGRAM_OVERHEAD_BYTES, DATAGRAM_QUEUE_BYTES_MAX};

/// A datagram flow.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) outgoing: DatagramQueue,
    pub(super) incoming: DatagramQueue,
    pub(super) ended: Option<StreamEnd>,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    is_awaited: bool,
}

impl Flow {
    pub(super) fn read(&mut self) -> Option<Bytes> {
        let datagram = self.incoming.pop();
        self.is_awaited = datagram.is_none();
        datagram
    }

    /// Tells, once, whether a waiting reader should look again.
    pub(super) fn is_due(&mut self) -> bool {
        let is_due = self.is_awaited && (!self.incoming.is_empty() || self.ended.is_some());
        self.is_awaited &= !is_due;
        is_due
    }
}

/// Messages that wait for their turn or their reader.
#[derive(Debug, Default)]
pub(super) struct DatagramQueue {
    datagrams: VecDeque<Bytes>,
    bytes: usize,
}

impl DatagramQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Appends a message and tells how many old ones had to go for it.
    pub(super) fn push(&mut self, datagram: Bytes) -> u64 {
        self.bytes += cost(&datagram);
        self.datagrams.push_back(datagram);
        let mut dropped = 0;
        while self.bytes > DATAGRAM_QUEUE_BYTES_MAX && self.pop().is_some() {
            dropped += 1;
        }
        dropped
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let datagram = self.datagrams.pop_front()?;
        self.bytes -= cost(&datagram);
        Some(datagram)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn cost(datagram: &Bytes) -> usize {
    datagram.len() + DATAGRAM_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_its_oldest_messages_and_counts_them() {
        let mut queue = DatagramQueue::default();
        let kib = |n: u8| Bytes::from(vec![n; 1024 - DATAGRAM_OVERHEAD_BYTES]);
        assert_eq!((0..=255).map(|n| queue.push(kib(n))).sum::<u64>(), 0);
        assert_eq!(queue.push(kib(7)), 1);
        assert_eq!(queue.pop().map(|datagram| datagram[0]), Some(1));
    }

    #[test]
    fn empty_datagrams_cannot_pile_up_for_ever() {
        let mut queue = DatagramQueue::default();
        let dropped = (0..10_000).map(|_| queue.push(Bytes::new())).sum::<u64>();
        assert_eq!(10_000 - dropped, (DATAGRAM_QUEUE_BYTES_MAX / DATAGRAM_OVERHEAD_BYTES) as u64);
    }
}
