//! What keeps a connection in use: every stream and flow on it holds a lease, and a connection without leases may end.
//!
//! Knows neither streams nor connections; the peer's task is woken when the last lease of a connection is given back.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::reach::Activity;

/// Counts the leases of one connection.
#[derive(Debug)]
pub(crate) struct Leases {
    state: Mutex<State>,
    /// Shared by all connections of the peer.
    given_back: Arc<Notify>,
    /// Told by whoever writes.
    activity: Arc<Activity>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    streams: usize,
    flows: usize,
    /// When the last lease was given back, or the beginning.
    unused_since: Instant,
}

/// For what a lease is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// A stream.
    Stream,
    /// A datagram flow.
    Flow,
}

/// Holds a connection in use until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Arc<Leases>,
    held_for: Use,
}

impl Leases {
    pub(crate) fn new(given_back: Arc<Notify>) -> Arc<Self> {
        let state = State { streams: 0, flows: 0, unused_since: Instant::now() };
        Arc::new(Self { state: Mutex::new(state), given_back, activity: Arc::default() })
    }

    /// Takes a lease.
    pub(crate) fn take(self: &Arc<Self>, held_for: Use) -> Lease {
        *self.state().count(held_for) += 1;
        Lease { leases: self.clone(), held_for }
    }

    /// Where writing on the connection is noted.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Streams and flows that hold a lease.
    pub(crate) fn held(&self) -> (usize, usize) {
        let state = self.state();
        (state.streams, state.flows)
    }

    /// Since when nobody holds a lease; `None` while somebody does.
    pub(crate) fn unused_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.streams + state.flows == 0).then_some(state.unused_since)
    }

    /// Whether a lease is held, or was within the last `time`.
    pub(crate) fn was_used_within(&self, time: Duration) -> bool {
        self.unused_since().is_none_or(|since| since.elapsed() < time)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&mut self, held_for: Use) -> &mut usize {
        match held_for {
            Use::Stream => &mut self.streams,
            Use::Flow => &mut self.flows,
        }
    }
}

impl Lease {
    /// Says that something is being written on the connection.
    pub(crate) fn note_writing(&self) {
        self.leases.activity.note();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.leases.state();
        *state.count(self.held_for) -= 1;
        if state.streams + state.flows == 0 {
            state.unused_since = Instant::now();
            drop(state);
            self.leases.given_back.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_unused_from_its_last_lease_on() {
        let woken = Arc::new(Notify::new());
        let leases = Leases::new(woken.clone());
        let (stream, flow) = (leases.take(Use::Stream), leases.take(Use::Flow));
        assert_eq!(leases.held(), (1, 1));
        drop(stream);
        assert_eq!(leases.unused_since(), None);
        tokio::time::advance(Duration::from_secs(5)).await;
        drop(flow);
        woken.notified().await;
        assert_eq!(leases.unused_since(), Some(Instant::now()));
        assert!(leases.was_used_within(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!leases.was_used_within(Duration::from_secs(1)));
    }
}
