//! Our ends of relay flows: which made-up address leads through which relay to whom.
//!
//! Bounded by the endpoint, which has places for so many flows. Refuses to know: how flows are granted.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use p2pos_identity::PeerId;
use p2pos_transport::{Endpoint, FakeAddr};
use tokio::time::Instant;

/// Flows through one relay that others may have made to us. More only serve a relay that wants to fill our table.
pub(super) const INCOMING_PER_RELAY_MAX: usize = 64;

/// A flow that carried nothing for so long is forgotten. The relay ends it after 300 s, and may not be able to tell.
const SILENT_MAX: Duration = Duration::from_secs(330);

/// How long after a flow was given out, or found silent, another one to the same peer goes through another relay: whoever asks
/// again so soon found the first one dead.
const AVOID: Duration = Duration::from_secs(5);

/// The flows of a node.
#[derive(Debug, Default)]
pub(super) struct Flows(Mutex<BTreeMap<(PeerId, NonZeroU32), Held>>);

#[derive(Debug)]
struct Held {
    fake: FakeAddr,
    peer: PeerId,
    is_incoming: bool,
    /// When it was given out, or last found silent.
    doubted_at: Instant,
    /// Packets carried, and when that last changed.
    carried: u64,
    changed_at: Instant,
}

/// A flow as others see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) relay: PeerId,
    pub(super) vni: NonZeroU32,
    pub(super) fake: FakeAddr,
    pub(super) peer: PeerId,
}

impl Flows {
    pub(super) fn add(&self, flow: Flow, is_incoming: bool) {
        let Flow { relay, vni, fake, peer } = flow;
        let now = Instant::now();
        let held = Held { fake, peer, is_incoming, doubted_at: now, carried: 0, changed_at: now };
        self.lock().insert((relay, vni), held);
    }

    /// Whether one more flow that others made fits.
    pub(super) fn has_room_for_incoming(&self, relay: PeerId) -> bool {
        let flows = self.lock();
        let of_relay = flows.iter().filter(|((of, _), held)| *of == relay && held.is_incoming);
        of_relay.count() < INCOMING_PER_RELAY_MAX
    }

    /// Forgets a flow that ended; its address, which is to be removed.
    pub(super) fn remove(&self, relay: PeerId, vni: NonZeroU32) -> Option<FakeAddr> {
        self.lock().remove(&(relay, vni)).map(|held| held.fake)
    }

    /// Forgets the flow of an address.
    pub(super) fn remove_way(&self, fake: FakeAddr) -> Option<(PeerId, NonZeroU32)> {
        let mut flows = self.lock();
        let key = flows.iter().find(|(_, held)| held.fake == fake).map(|(key, _)| *key)?;
        flows.remove(&key);
        Some(key)
    }

    pub(super) fn count(&self, relay: PeerId) -> usize {
        self.lock().keys().filter(|(of, _)| *of == relay).count()
    }

    /// The relay that a flow goes through.
    pub(super) fn relay_of(&self, fake: FakeAddr) -> Option<PeerId> {
        self.lock().iter().find(|(_, held)| held.fake == fake).map(|((relay, _), _)| *relay)
    }

    /// Takes note that a flow is silent, or ends soon.
    pub(super) fn doubt(&self, fake: FakeAddr) {
        if let Some(held) = self.lock().values_mut().find(|held| held.fake == fake) {
            held.doubted_at = Instant::now();
        }
    }

    /// Whether a flow to this peer through this relay was just made, or found silent.
    pub(super) fn is_doubted(&self, peer: PeerId, relay: PeerId) -> bool {
        self.lock()
            .iter()
            .any(|((of, _), held)| *of == relay && held.peer == peer && held.doubted_at.elapsed() < AVOID)
    }

    /// Forgets flows that have been silent for long; they are to be removed.
    pub(super) fn take_silent(&self, endpoint: &Endpoint) -> Vec<FakeAddr> {
        let mut gone = Vec::new();
        self.lock().retain(|_, held| {
            let carried = endpoint
                .flow_traffic(held.fake)
                .map(|traffic| traffic.packets_sent + traffic.packets_received);
            match carried {
                Some(carried) if carried != held.carried => {
                    (held.carried, held.changed_at) = (carried, Instant::now());
                    true
                }
                Some(_) if held.changed_at.elapsed() < SILENT_MAX => true,
                Some(_) | None => {
                    gone.push(held.fake);
                    false
                }
            }
        });
        gone
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(PeerId, NonZeroU32), Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
