//! Calling a peer at one of the relays where it can be called.
//!
//! One relay after the other is asked for a flow; what failed goes into the timeline of the dial. Refuses to know: how the
//! flow is used.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use p2pos_discovery::{Host, HostPort, RelayAddress};
use p2pos_identity::PeerId;
use p2pos_peer_protocol::{Hidden, relay::RelayExchange};
use p2pos_transport::{AttemptOutcome, Connection, FakeAddr, Timeline};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{LinkError, Relays, link::Link, words};
use crate::error::OpenError;

/// How long the next place of a peer waits for the one before it. A relay that is there answers in two round trips.
const NEXT_PLACE_AFTER: Duration = Duration::from_millis(300);

/// In the timeline, the place of a relay that is known by name only and could not be reached.
const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// A flow that a relay gave us.
struct Called {
    way: FakeAddr,
    relay: PeerId,
    /// The relay is full, or we have used up our share of it: handshakes and candidates pass, and nothing else.
    is_introduction: bool,
}

/// Where a peer can be called.
struct Place {
    relay: PeerId,
    at: Vec<HostPort>,
    token: [u8; 16],
}

impl Relays {
    /// Finds a way to a peer through a relay: calls it where it can be called, one place after the other until one answers.
    /// A relay through which a way was found a moment ago comes last, since who asks again found it dead; those in `busy` are not
    /// asked at all. One that only introduces is taken if no other does more. `None` if there is none, or the user wants none; what failed is in the timeline then. Cancel-safe.
    pub(crate) async fn way_to(
        self: &Arc<Self>,
        peer: PeerId,
        timeline: &Timeline,
        busy: &[PeerId],
    ) -> Option<(FakeAddr, PeerId)> {
        if !self.policy.may_relay(&peer) {
            return None;
        }
        let mut places = self.places_of(peer);
        places.retain(|place| !busy.contains(&place.relay));
        let mut places = places.into_iter();
        let mut calls = JoinSet::new();
        let mut introduction = None;
        loop {
            if let Some(place) = places.next() {
                let (relays, timeline) = (self.clone(), timeline.through(place.relay));
                calls.spawn(async move { relays.call(peer, place, timeline).await });
            }
            tokio::select! {
                called = calls.join_next() => match called {
                    Some(Ok(Some(called))) if called.is_introduction => {
                        introduction.get_or_insert((called.way, called.relay));
                    }
                    Some(Ok(Some(called))) => return Some((called.way, called.relay)),
                    Some(Ok(None) | Err(_)) => {}
                    None => return introduction,
                },
                () = sleep(NEXT_PLACE_AFTER), if places.len() > 0 => {}
            }
        }
    }

    /// Whether a relay is known at which a peer can be called, and may be.
    pub(crate) fn knows_place_of(&self, peer: PeerId) -> bool {
        self.policy.may_relay(&peer) && !self.places_of(peer).is_empty()
    }

    /// Whether a connection goes through a relay although the user wants none for its peer.
    pub(crate) fn forbids(&self, connection: &Connection) -> bool {
        let is_carried = || connection.way().is_some_and(|way| self.relay_of(way).is_some());
        !self.policy.may_relay(&connection.peer()) && is_carried()
    }

    /// Whether relays are known at which a peer can be called, and the user forbids them: then a call that fails otherwise
    /// fails for want of a relay.
    pub(crate) fn are_forbidden(&self, peer: PeerId) -> bool {
        !self.policy.may_relay(&peer) && !self.places_of(peer).is_empty()
    }

    /// Where a peer can be called: what it told, then what the user typed; fresh disappointments last.
    fn places_of(&self, peer: PeerId) -> Vec<Place> {
        let told = self.places().get(&peer).cloned().unwrap_or_default();
        let told = told.into_iter().map(|place| Place {
            relay: place.relay,
            at: place.addresses.into_iter().map(HostPort::from).collect(),
            token: place.token.0,
        });
        let typed = self.context().map(|context| context.resolver.relays_of(&peer)).unwrap_or_default();
        let typed = typed.into_iter().map(|RelayAddress { at, token }| Place {
            relay: at.relay,
            at: vec![at.at],
            token,
        });
        let mut places: Vec<Place> = Vec::new();
        for place in told.chain(typed) {
            let is_new = places.iter().all(|known| known.relay != place.relay);
            if is_new && place.relay != peer && place.relay != self.us() {
                places.push(place);
            }
        }
        places.sort_by_key(|place| self.flows.is_doubted(peer, place.relay));
        places
    }

    /// Asks one relay for a flow to a peer.
    async fn call(self: Arc<Self>, peer: PeerId, place: Place, timeline: Timeline) -> Option<Called> {
        let begun = Instant::now();
        let address = place.at.iter().find_map(|at| match at.host() {
            Host::Ip(address) => Some(address),
            Host::Name { .. } => None,
        });
        self.note_relay(place.relay, place.at);
        let failed = match self.link_to(place.relay).await {
            Ok(link) => match self.ask_for_flow(&link, peer, place.token).await {
                Ok(called) if called.is_introduction => {
                    tracing::warn!(relay = %place.relay.short(), peer = %peer.short(), "the relay only introduces now");
                    let only = "it only introduces now: data passes when a direct way is found".to_owned();
                    timeline.note(address.unwrap_or(NOWHERE), begun, AttemptOutcome::Refused(only));
                    return Some(called);
                }
                Ok(called) => return Some(called),
                Err(outcome) => outcome,
            },
            Err(LinkError::Open(
                OpenError::Unreachable { .. } | OpenError::Timeout { .. } | OpenError::Offline,
            )) => AttemptOutcome::NoAnswer,
            Err(error) => AttemptOutcome::Refused(error.to_string()),
        };
        tracing::debug!(relay = %place.relay.short(), peer = %peer.short(), outcome = ?failed, "no way through a relay");
        timeline.note(address.unwrap_or(NOWHERE), begun, failed);
        None
    }

    async fn ask_for_flow(
        &self,
        link: &Link,
        peer: PeerId,
        token: [u8; 16],
    ) -> Result<Called, AttemptOutcome> {
        let refused = |why: &str| AttemptOutcome::Refused(why.to_owned());
        let answer = link.ask(RelayExchange::Connect { peer, token: Hidden(token) }).await;
        match answer.ok_or(AttemptOutcome::NoAnswer)? {
            RelayExchange::Flow(flow) => {
                let way = self.take_flow(link, peer, &flow, false);
                let (relay, is_introduction) = (link.relay(), flow.limits.is_introduction_only);
                way.map(|way| Called { way, relay, is_introduction })
                    .ok_or_else(|| refused("its flow cannot be used"))
            }
            RelayExchange::Refuse(refusal) => Err(refused(&words::refusal_from_wire(refusal).to_string())),
            RelayExchange::Reserve { .. } | RelayExchange::Lease(_) | RelayExchange::Connect { .. } => {
                Err(refused("it did not answer the question"))
            }
        }
    }
}
