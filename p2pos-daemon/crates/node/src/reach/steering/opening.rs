//! More paths for a connection: to an address that is known, through a relay, and to learn of our own NAT; and how a new connection
//! comes to rest. Part of `steering`, which says when.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use p2pos_identity::PeerId;
use p2pos_transport::{FakeAddr, PathEvent, PathEvents, PathId, PathStatus, Paths, Timeline, Way};
use p2pos_traversal::{
    Candidate, Scope,
    choice::{PathId as PlanPath, Tier},
    scope_of,
    signal::Role,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{PATH_WAIT, Steering, now};
use crate::relays::Relays;

/// The same for a path through a relay, which is wanted when nothing else works: two round trips over a satellite. The peer may be
/// on the move, and the relay know its old address only; it is called again then.
const RELAY_PATH_WAIT: Duration = Duration::from_millis(1_200);
/// When another relay is called, beside one that has not led to a path yet: a lost packet is sent again after 300 ms.
const NEXT_RELAY_AFTER: Duration = Duration::from_millis(400);
/// How long relays are called for one such path. After that the plan asks again, as long as it wants one.
const RELAY_SEARCH_MAX: Duration = Duration::from_secs(6);
/// How long a flow outlives its path: packets may be on their way.
const FLOW_LINGER: Duration = Duration::from_secs(1);
/// A direct connection is left alone for so long: most are over before anything could be improved.
const SETTLE: Duration = Duration::from_millis(200);

/// What a task that opened a path, or did not, was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// One path that leads, or led, to one address.
    Single,
    /// The search for a relay.
    OverRelay,
}

/// Calls relays until there is a path over one: another one whenever the last has not led to a path in time, none twice at once.
#[derive(Clone)]
struct Search {
    paths: Paths,
    relays: Arc<Relays>,
    peer: PeerId,
    /// Who was dialled cannot open paths: it calls, and the peer opens one over the flow.
    opens_paths: bool,
}

/// One relay of a search, and whether there is a path over it.
type Tried = (PeerId, bool);

impl Steering {
    pub(super) fn open_path(&mut self, remote: SocketAddr) {
        let paths = self.paths.clone();
        self.openings.spawn(async move {
            match timeout(PATH_WAIT, paths.open(remote, PathStatus::Backup)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a path was not opened"),
                Err(_) => tracing::debug!("a path was not opened in time"),
            }
            Opening::Single
        });
    }

    /// Where no relay is known, the plan goes on without.
    pub(super) fn open_relay_path(&mut self) {
        if self.search.is_some() {
            return;
        }
        // The relays that we have are silent, or go down.
        self.paths
            .list()
            .into_iter()
            .filter_map(|state| flow_of(state.way))
            .for_each(|way| self.relays.doubt(way));
        let search = Search {
            paths: self.paths.clone(),
            relays: self.relays.clone(),
            peer: self.live.connection.peer(),
            opens_paths: self.role == Role::Dialler,
        };
        let task = self.openings.spawn(async move {
            search.run().await;
            Opening::OverRelay
        });
        self.search = Some(task);
    }

    pub(super) fn opening_ended(&mut self, opening: Opening) {
        if opening == Opening::OverRelay {
            self.search = None;
        }
    }

    /// There is a path over a relay: who cannot open one itself need not call any more.
    pub(super) fn has_found_relay(&self) {
        if let Some(search) = self.search.as_ref().filter(|_| self.role == Role::Accepter) {
            search.abort();
        }
    }

    /// The peer calls us through a relay although the connection stands: it hears nothing of us, or has another address, and cannot
    /// open a path itself.
    pub(super) fn called(&mut self, way: FakeAddr) {
        if self.role == Role::Accepter {
            return;
        }
        tracing::debug!(peer = %self.live.connection.peer().short(), "the peer calls, for want of a path");
        self.plan.handle_called(now());
        self.sight.wake();
        let (paths, relays) = (self.paths.clone(), self.relays.clone());
        self.openings.spawn(async move {
            open_over(&paths, &relays, way).await;
            Opening::Single
        });
    }

    /// A relay goes down: the paths over it are used until there are others.
    pub(super) fn relay_leaves(&mut self, relay: PeerId) {
        for state in self.paths.list() {
            if self.relays.relay_of(state.way) == Some(relay) {
                self.plan.handle_relay_leaving(PlanPath(state.id.number()), now());
            }
        }
    }

    /// Hangs up the flow of a path that was closed: the relay has better use for the place.
    pub(super) fn leave_flow(&mut self, id: PathId) {
        let Some(way) = self.paths.get(id).and_then(|state| flow_of(state.way)) else { return };
        let (paths, relays) = (self.paths.clone(), self.relays.clone());
        self.openings.spawn(async move {
            sleep(FLOW_LINGER).await;
            if !paths.list().iter().any(|other| other.id != id && flow_of(other.way) == Some(way)) {
                relays.let_go(way);
            }
            Opening::Single
        });
    }

    /// Who has both IPs meets its peers by IPv6, and learns nothing of the NAT before its IPv4 address, which it needs for peers
    /// without IPv6. So one path by IPv4 is opened beside, on which the peer tells what it sees; unused, it ends by itself.
    pub(super) fn scout(&mut self, candidates: &[Candidate]) {
        let is_needed = {
            let own = self.reach.own().picture();
            let own = own.borrow();
            own.verdict_v4.mapping.is_none()
                && own.machine.addresses.iter().any(|address| address.ip.is_ipv4())
        };
        let is_by_v6 = self.plan.chosen().is_some_and(|(_, tier)| tier == Tier::DirectV6);
        let public = candidates
            .iter()
            .find(|candidate| candidate.addr.is_ipv4() && scope_of(candidate.addr.ip()) == Scope::Global);
        if let Some(public) = public
            && is_needed
            && is_by_v6
            && self.role == Role::Dialler
            && !self.has_scouted
        {
            self.has_scouted = true;
            self.open_path(public.addr);
        }
    }
}

impl Search {
    async fn run(self) {
        let until = Instant::now() + RELAY_SEARCH_MAX;
        let (mut tries, mut busy) = (JoinSet::new(), Vec::new());
        while Instant::now() < until && self.relays.knows_place_of(self.peer) {
            let (called, timeline) = (busy.clone(), Timeline::default());
            let found = tokio::select! {
                () = path_found(&mut tries, &mut busy) => return,
                found = self.relays.way_to(self.peer, &timeline, &called) => found,
            };
            match found {
                Some((way, relay)) => {
                    busy.push(relay);
                    tries.spawn(self.clone().attempt(way, relay));
                }
                None => tracing::debug!(peer = %self.peer.short(), "no relay leads to this peer now"),
            }
            if timeout(NEXT_RELAY_AFTER, path_found(&mut tries, &mut busy)).await.is_ok() {
                return;
            }
        }
    }

    async fn attempt(self, way: FakeAddr, relay: PeerId) -> Tried {
        if self.opens_paths {
            return (relay, open_over(&self.paths, &self.relays, way).await);
        }
        // Whoever sees the path ends this.
        sleep(RELAY_PATH_WAIT).await;
        self.relays.let_go(way);
        (relay, false)
    }
}

/// Waits until a try of a search has led to a path; takes those that have not from the relays that are being called. Cancel-safe.
async fn path_found(tries: &mut JoinSet<Tried>, busy: &mut Vec<PeerId>) {
    loop {
        match tries.join_next().await {
            Some(Ok((_, true))) => return,
            Some(Ok((relay, false))) => busy.retain(|other| *other != relay),
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }
}

/// Opens a path over a flow; whether that went well. Else the flow is hung up.
async fn open_over(paths: &Paths, relays: &Relays, way: FakeAddr) -> bool {
    let opened = paths.open(way.socket_addr(), PathStatus::Backup);
    if matches!(timeout(RELAY_PATH_WAIT, opened).await, Ok(Ok(_))) {
        return true;
    }
    tracing::debug!("a path through a relay was not opened");
    for state in paths.list().into_iter().filter(|state| flow_of(state.way) == Some(way)) {
        if let Err(error) = paths.close(state.id) {
            tracing::trace!(%error, "a path that never was is closed by itself");
        }
    }
    relays.let_go(way);
    false
}

/// The flow that a way leads over, if it does.
fn flow_of(way: Way) -> Option<FakeAddr> {
    match way {
        Way::Relay { fake, .. } | Way::TcpRelay { fake, .. } => Some(fake),
        Way::Direct(_) | Way::Guess { .. } | Way::Gone(_) => None,
    }
}

/// Lets a new connection come to rest, so that one that ends at once costs no signals. What the peer says about our address
/// is heard meanwhile: others may be waiting for it. Gives back what else happened; `None` if the connection ended.
pub(super) async fn settle(events: &mut PathEvents, hear: impl Fn(SocketAddr)) -> Option<Vec<PathEvent>> {
    let settled = sleep(SETTLE);
    tokio::pin!(settled);
    let mut kept = Vec::new();
    loop {
        tokio::select! {
            () = &mut settled => return Some(kept),
            event = events.next() => match event? {
                PathEvent::Observed { address, .. } => hear(address),
                other @ (PathEvent::Opened(_)
                | PathEvent::Abandoned { .. }
                | PathEvent::PeerStatus { .. }
                | PathEvent::Candidates
                | PathEvent::Missed) => kept.push(other),
            },
        }
    }
}
