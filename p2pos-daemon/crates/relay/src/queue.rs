//! What waits for a socket that is full: signalling before interactive before bulk, flows of a class in turn.
//!
//! A flow keeps at most 64 packets; the oldest goes first, since in a full queue the newest is worth most to who
//! waits for it, and QUIC sees the loss sooner. One queue stands before each outgoing socket and each TCP connection.
//!
//! Refuses to know: what an item is (its own bytes, or a place in a batch), and who fills or empties it.

use std::collections::{BTreeMap, VecDeque};

use crate::{frame::Vni, service::Class};

/// Packets that one flow may have waiting. 64 full packets are 90 KiB, a fifth of a second at 4 Mbit/s; half would
/// drop a burst that QUIC's pacing allows, double would only add delay.
pub const FLOW_QUEUE_PACKETS: usize = 64;

/// A queue before one way out.
#[derive(Debug)]
pub struct ClassQueue<T> {
    flows: BTreeMap<Vni, Waiting<T>>,
    /// In which order the flows of each class have their turn; each flow is in one of them, once.
    turns: [VecDeque<Vni>; Class::COUNT],
}

#[derive(Debug)]
struct Waiting<T> {
    class: Class,
    items: VecDeque<T>,
}

impl<T> Default for ClassQueue<T> {
    fn default() -> Self {
        Self { flows: BTreeMap::new(), turns: std::array::from_fn(|_| VecDeque::new()) }
    }
}

impl<T> ClassQueue<T> {
    /// Starts empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a packet; returns the one that had to go for it. A flow's packets never overtake each other: what comes
    /// while others wait has their class.
    pub fn push(&mut self, class: Class, flow: Vni, item: T) -> Option<T> {
        let waiting = self.flows.entry(flow).or_insert_with(|| {
            self.turns[class.index()].push_back(flow);
            Waiting { class, items: VecDeque::new() }
        });
        waiting.items.push_back(item);
        if waiting.items.len() > FLOW_QUEUE_PACKETS { waiting.items.pop_front() } else { None }
    }

    /// Takes the next packet to send.
    pub fn pop(&mut self) -> Option<T> {
        let flow = self.turns.iter_mut().find_map(VecDeque::pop_front)?;
        let waiting = self.flows.get_mut(&flow).expect("every flow in turns is in flows");
        let item = waiting.items.pop_front();
        if waiting.items.is_empty() {
            self.flows.remove(&flow);
        } else {
            self.turns[waiting.class.index()].push_back(flow);
        }
        item
    }

    /// Tells whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signalling_overtakes_everything_that_waits() {
        let mut queue = ClassQueue::new();
        queue.push(Class::Bulk, flow(1), "bulk");
        queue.push(Class::Interactive, flow(2), "interactive");
        queue.push(Class::Signalling, flow(3), "signalling");
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, ["signalling", "interactive", "bulk"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn packets_of_one_flow_never_overtake_each_other() {
        let mut queue = ClassQueue::new();
        queue.push(Class::Bulk, flow(1), 1);
        queue.push(Class::Signalling, flow(1), 2);
        assert_eq!([queue.pop(), queue.pop()], [Some(1), Some(2)]);
    }

    #[test]
    fn one_flow_keeps_sixty_four_packets_and_loses_its_oldest() {
        let mut queue = ClassQueue::new();
        for number in 0..FLOW_QUEUE_PACKETS {
            assert_eq!(queue.push(Class::Bulk, flow(1), number), None);
        }
        assert_eq!(queue.push(Class::Bulk, flow(1), 64), Some(0));
        assert_eq!(queue.push(Class::Bulk, flow(2), 99), None, "another flow has its own room");
    }

    #[test]
    fn a_flow_that_floods_takes_turns_with_one_that_does_not() {
        let mut queue = ClassQueue::new();
        for number in 0..10 {
            queue.push(Class::Bulk, flow(1), number);
        }
        queue.push(Class::Bulk, flow(2), 99);
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(0), Some(99), Some(1)]);
    }

    fn flow(number: u32) -> Vni {
        Vni::new(number).unwrap()
    }
}
