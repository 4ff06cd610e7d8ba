//! The table of the made-up addresses: what each stands for, and which of them a received frame belongs to.
//!
//! Bounded in every kind. Knows no socket but the guess sockets it holds.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use p2pos_relay::Vni;

use crate::mux::{
    fake::{FakeAddr, FakeKind},
    flow::{Carrier, Flow},
    tcp::Queue,
};

/// Relay flows of this daemon. A pair uses one, or two while it changes relays; a busy daemon has some hundred pairs, few
/// of them relayed.
pub(crate) const FLOWS_MAX: usize = 1_024;

/// Guess sockets that carry, or may carry, a path. They cost a file descriptor each and are asked on every receive, so
/// they are few: only a socket that was hit comes here.
pub(crate) const GUESS_SOCKETS_MAX: usize = 32;

/// TCP connections with relays, or of users with us. A household behind a strict firewall has a few of them.
pub(crate) const LINES_MAX: usize = 256;

/// Sets of ways for first packets; each lives as long as a dial.
pub(crate) const PEERS_MAX: usize = 256;

/// Ways that one first packet is copied to (connectivity.md 6a).
pub(crate) const WAYS_MAX: usize = 32;

/// A way could not be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// As many as allowed are there.
    #[error("there are {max} already, which is the limit")]
    Full {
        /// The limit.
        max: usize,
    },
    /// Our misuse: another flow with this number at this relay.
    #[error("the relay's flow is in use already")]
    Doubled,
    /// Our misuse: a group, nobody, or a made-up address where a real one is needed.
    #[error("nothing may be sent to {0}")]
    Unsendable(SocketAddr),
    /// The guess socket cannot be used.
    #[error("the socket cannot be used: {0}")]
    Socket(String),
}

/// What a made-up address stands for. `G` is the guess socket, which this table only keeps.
#[derive(Debug)]
pub(crate) enum Route<G> {
    /// All these at once.
    Peer(Vec<SocketAddr>),
    Flow(Arc<Flow>),
    Guess(Arc<G>),
    /// The other end of a TCP connection to or of a relay.
    Line(Arc<Queue>),
}

impl<G> Clone for Route<G> {
    fn clone(&self) -> Self {
        match self {
            Self::Peer(ways) => Self::Peer(ways.clone()),
            Self::Flow(flow) => Self::Flow(flow.clone()),
            Self::Guess(guess) => Self::Guess(guess.clone()),
            Self::Line(line) => Self::Line(line.clone()),
        }
    }
}

/// Which relay a frame came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// This address.
    Udp(SocketAddr),
    /// The TCP connection with this number.
    Tcp(u64),
}

/// The table.
#[derive(Debug)]
pub(crate) struct Routes<G> {
    routes: HashMap<FakeAddr, Route<G>>,
    flows: HashMap<(Origin, Vni), Arc<Flow>>,
    guesses: Arc<[Arc<G>]>,
}

impl<G> Default for Routes<G> {
    fn default() -> Self {
        Self { routes: HashMap::new(), flows: HashMap::new(), guesses: Arc::new([]) }
    }
}

impl<G> Routes<G> {
    pub(crate) fn get(&self, fake: FakeAddr) -> Option<&Route<G>> {
        self.routes.get(&fake)
    }

    /// The flow that a frame belongs to.
    pub(crate) fn flow(&self, origin: Origin, vni: Vni) -> Option<&Arc<Flow>> {
        self.flows.get(&(origin, vni))
    }

    /// All flows over UDP.
    pub(crate) fn udp_flows(&self) -> Vec<Arc<Flow>> {
        let flows = self.flows.values();
        flows.filter(|flow| matches!(flow.carrier(), Carrier::Udp(_))).cloned().collect()
    }

    /// The guess sockets of this moment.
    pub(crate) fn guesses(&self) -> Arc<[Arc<G>]> {
        self.guesses.clone()
    }

    pub(crate) fn add_peer(&mut self, ways: Vec<SocketAddr>) -> Result<FakeAddr, RouteError> {
        if ways.len() > WAYS_MAX {
            return Err(RouteError::Full { max: WAYS_MAX });
        }
        self.check_room(FakeKind::Peer, PEERS_MAX)?;
        let fake = FakeAddr::mint(FakeKind::Peer);
        self.routes.insert(fake, Route::Peer(ways));
        Ok(fake)
    }

    pub(crate) fn add_flow(&mut self, flow: &Arc<Flow>) -> Result<(), RouteError> {
        if self.flows.len() >= FLOWS_MAX {
            return Err(RouteError::Full { max: FLOWS_MAX });
        }
        let key = key_of(flow);
        if self.flows.contains_key(&key) {
            return Err(RouteError::Doubled);
        }
        self.flows.insert(key, flow.clone());
        self.routes.insert(flow.fake(), Route::Flow(flow.clone()));
        Ok(())
    }

    /// Adds the other end of a TCP connection.
    pub(crate) fn add_line(&mut self, line: &Arc<Queue>) -> Result<(), RouteError> {
        let count = self.routes.values().filter(|route| matches!(route, Route::Line(_))).count();
        if count >= LINES_MAX {
            return Err(RouteError::Full { max: LINES_MAX });
        }
        self.routes.insert(line.fake(), Route::Line(line.clone()));
        Ok(())
    }

    /// Whether a frame may be of a flow of ours at all.
    pub(crate) fn has_flows(&self) -> bool {
        !self.flows.is_empty()
    }

    pub(crate) fn add_guess(&mut self, fake: FakeAddr, guess: Arc<G>) -> Result<(), RouteError> {
        if self.guesses.len() >= GUESS_SOCKETS_MAX {
            return Err(RouteError::Full { max: GUESS_SOCKETS_MAX });
        }
        self.routes.insert(fake, Route::Guess(guess.clone()));
        self.guesses = self.guesses.iter().cloned().chain([guess]).collect();
        Ok(())
    }

    /// Removes a way; whether it was there.
    pub(crate) fn remove(&mut self, fake: FakeAddr) -> bool {
        match self.routes.remove(&fake) {
            None => return false,
            Some(Route::Peer(_) | Route::Line(_)) => {}
            Some(Route::Flow(flow)) => {
                self.flows.remove(&key_of(&flow));
            }
            Some(Route::Guess(gone)) => {
                let left = self.guesses.iter().filter(|guess| !Arc::ptr_eq(guess, &gone));
                self.guesses = left.cloned().collect();
            }
        }
        true
    }

    /// Closes all guess sockets.
    pub(crate) fn remove_guesses(&mut self) {
        self.routes.retain(|_, route| !matches!(route, Route::Guess(_)));
        self.guesses = Arc::new([]);
    }

    fn check_room(&self, kind: FakeKind, max: usize) -> Result<(), RouteError> {
        let count = self.routes.keys().filter(|fake| fake.kind() == kind).count();
        if count < max { Ok(()) } else { Err(RouteError::Full { max }) }
    }
}

fn key_of(flow: &Flow) -> (Origin, Vni) {
    let origin = match flow.carrier() {
        Carrier::Udp(relay) => Origin::Udp(*relay),
        Carrier::Tcp(queue) => Origin::Tcp(queue.id()),
    };
    (origin, flow.vni())
}

#[cfg(test)]
mod tests {
    use p2pos_relay::{FlowEnd, FlowKey, Tag};

    use super::*;

    fn flow(vni: u32) -> Arc<Flow> {
        let end = FlowEnd::new(Vni::new(vni).unwrap(), FlowKey::new([1; 16]), Tag([2; 8]));
        Arc::new(Flow::new(FakeAddr::mint(FakeKind::Relay), end, Carrier::Udp(relay())))
    }

    fn relay() -> SocketAddr {
        ([192, 0, 2, 1], 9).into()
    }

    #[test]
    fn flows_are_found_by_relay_and_number_and_only_while_they_are_there() {
        let mut routes = Routes::<()>::default();
        let one = flow(1);
        routes.add_flow(&one).unwrap();
        assert_eq!(routes.add_flow(&flow(1)), Err(RouteError::Doubled));
        let found = |routes: &Routes<()>, origin| routes.flow(origin, one.vni()).is_some();
        assert!(found(&routes, Origin::Udp(relay())));
        assert!(!found(&routes, Origin::Udp(([192, 0, 2, 1], 10).into())) && !found(&routes, Origin::Tcp(0)));
        assert!(routes.remove(one.fake()) && !routes.remove(one.fake()));
        assert!(!found(&routes, Origin::Udp(relay())));
    }

    #[test]
    fn every_kind_has_its_limit() {
        let mut routes = Routes::default();
        for vni in 1..=u32::try_from(FLOWS_MAX).unwrap() {
            routes.add_flow(&flow(vni)).unwrap();
        }
        assert_eq!(routes.add_flow(&flow(u32::MAX)), Err(RouteError::Full { max: FLOWS_MAX }));
        for _ in 0..GUESS_SOCKETS_MAX {
            routes.add_guess(FakeAddr::mint(FakeKind::Guess), Arc::new(())).unwrap();
        }
        let more = routes.add_guess(FakeAddr::mint(FakeKind::Guess), Arc::new(()));
        assert_eq!(more, Err(RouteError::Full { max: GUESS_SOCKETS_MAX }));
        for _ in 0..PEERS_MAX {
            routes.add_peer(vec![relay(); WAYS_MAX]).unwrap();
        }
        assert_eq!(routes.add_peer(vec![]), Err(RouteError::Full { max: PEERS_MAX }));
        assert_eq!(routes.add_peer(vec![relay(); WAYS_MAX + 1]), Err(RouteError::Full { max: WAYS_MAX }));
        routes.remove_guesses();
        assert!(routes.guesses().is_empty());
        routes.add_guess(FakeAddr::mint(FakeKind::Guess), Arc::new(())).unwrap();
    }
}
