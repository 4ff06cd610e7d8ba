//! More paths for a connection: to an address that is known, through a relay, and to learn of our own NAT; and how a new connection
//! comes to rest. Part of `steering`, which says when.

use std::{net::SocketAddr, time::Duration};

use p2pos_transport::{PathEvent, PathEvents, PathStatus, Timeline};
use p2pos_traversal::{Candidate, Scope, choice::Tier, scope_of, signal::Role};
use tokio::time::timeout;

use super::{PATH_WAIT, Steering};

/// The same for a path through a relay, which is wanted when nothing else works: two round trips over a satellite. The peer may be
/// on the move, and the relay know its old address only; it is called again then.
const RELAY_PATH_WAIT: Duration = Duration::from_millis(1_200);
/// Calls for one such path.
const RELAY_CALLS: u32 = 4;
/// A direct connection is left alone for so long: most are over before anything could be improved.
const SETTLE: Duration = Duration::from_millis(200);

/// What a task that opened a path, or did not, was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    Direct,
    OverRelay,
}

impl Steering {
    pub(super) fn open_path(&mut self, remote: SocketAddr) {
        let paths = self.paths.clone();
        self.openings.spawn(async move {
            match timeout(PATH_WAIT, paths.open(remote, PathStatus::Backup)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a path was not opened"),
                Err(_) => tracing::debug!("a path was not opened in time"),
            }
            Opening::Direct
        });
    }

    /// Where no relay is known, the plan goes on without. The side that was dialled cannot open paths.
    pub(super) fn open_relay_path(&mut self) {
        if self.role == Role::Accepter || std::mem::replace(&mut self.is_calling, true) {
            return;
        }
        let (paths, relays, peer) = (self.paths.clone(), self.relays.clone(), self.live.connection.peer());
        self.openings.spawn(async move {
            for _ in 0..RELAY_CALLS {
                let Some((way, _)) = relays.way_to(peer, &Timeline::default()).await else {
                    tracing::debug!(peer = %peer.short(), "no relay leads to this peer");
                    break;
                };
                let opened = paths.open(way.socket_addr(), PathStatus::Backup);
                if matches!(timeout(RELAY_PATH_WAIT, opened).await, Ok(Ok(_))) {
                    break;
                }
                tracing::debug!(peer = %peer.short(), "a path through a relay was not opened");
                relays.let_go(way);
            }
            Opening::OverRelay
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

/// Lets a new connection come to rest, so that one that ends at once costs no signals. What the peer says about our address
/// is heard meanwhile: others may be waiting for it. Gives back what else happened; `None` if the connection ended.
pub(super) async fn settle(events: &mut PathEvents, hear: impl Fn(SocketAddr)) -> Option<Vec<PathEvent>> {
    let settled = tokio::time::sleep(SETTLE);
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
