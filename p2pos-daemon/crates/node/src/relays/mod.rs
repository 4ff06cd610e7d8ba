//! Relays, both sides: forwarding for others, and being called through others.
//!
//! ```text
//!  settings, places that peers tell --> Relays --way_to--> the dial, reach
//!                                        |  |
//!            keep (leases) --links-------+  +---serve (users, requests) --> transport's Forwarder (frames)
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | `serve` | the relay's side of `/p2pos/relay/1` |
//! | `call` | calling a peer at one of its relays |
//! | `keep` | our leases at two relays |
//! | `link` | the user's side of `/p2pos/relay/1` |
//! | `flows` | which flow is whose |
//! | `lines` | TCP, where UDP is blocked |
//! | `words` | the relay's words in the wire's |
//!
//! Refuses to know: which path is used (`reach`), what passes. RELAY.md beside `p2pos-relay`; DESIGN section 7.

mod call;
mod flows;
mod keep;
mod lines;
mod link;
mod serve;
mod words;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use p2pos_discovery::{HostPort, RelayAddress, RelayAt};
use p2pos_identity::{PeerId, ProtocolName, SecretKey};
use p2pos_peer_protocol::{
    Hidden,
    relay::{RELAY_PROTOCOL, RelayFlow as WireFlow, RelayNotice},
    signal::{RELAY_ADDRESSES_MAX, RELAYS_MAX, RelayPlace},
};
use p2pos_relay::{PeerUse, RelaySettings, RelayStatus, Service, lease::token_for};
use p2pos_transport::{Endpoint, FakeAddr, RecvStream, RelayFlow, RouteError, SendStream, Way};
use tokio::{
    sync::{Mutex as AsyncMutex, broadcast, mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use self::{
    flows::{Flow, Flows},
    keep::Input,
    link::{Link, Road},
    serve::Serving,
};
use crate::{
    config::{Admission, Policy, RelayConfig},
    error::OpenError,
    open::{self, OpenRequest},
    peer::{Context, Live},
};

/// Relays that we have something to do with at once: our own two, and those of the peers that are being called.
const LINKS_MAX: usize = 64;

/// Peers whose places are remembered.
const PLACES_PEERS_MAX: usize = 1_024;

/// How long a connection to a relay by UDP may take before TCP is tried as well.
const UDP_ALONE: Duration = Duration::from_secs(2);

/// Relays that go down and that somebody has not heard of yet.
const LEAVING_WAITING: usize = 16;

/// A link that carried no request for so long, and no flow, is closed.
const LINK_IDLE: Duration = Duration::from_secs(60);

/// A node's relays.
pub(crate) struct Relays {
    endpoint: Endpoint,
    key: Arc<SecretKey>,
    policy: Arc<dyn Policy>,
    allows_loopback: bool,
    serving: Serving,
    context: OnceLock<Weak<Context>>,
    inputs: mpsc::Sender<Input>,
    /// What peers told of the relays at which they can be called.
    places: Mutex<BTreeMap<PeerId, Vec<RelayPlace>>>,
    links: Mutex<BTreeMap<PeerId, Slot>>,
    lines: lines::Lines,
    flows: Flows,
    ours: watch::Sender<Vec<RelayPlace>>,
    /// Relays that go down, for those who have paths over them.
    leaving: broadcast::Sender<PeerId>,
}

/// The link to one relay, made by one at a time.
type Slot = Arc<AsyncMutex<Option<Arc<Link>>>>;

/// What waits to be started once the node stands.
pub(crate) struct Beginning {
    inputs: mpsc::Receiver<Input>,
    uses: Vec<RelayAt>,
    tcp_ports: Vec<u16>,
}

/// Why a relay cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    /// It could not be reached, or does not relay.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The connection to it goes over a relay.
    #[error("the relay is itself reached through a relay only")]
    Relayed,
    /// Too many relays are in use.
    #[error("{LINKS_MAX} relays are in use, which is the limit")]
    Full,
}

/// A relay at which we can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OurLease {
    /// Which.
    pub relay: PeerId,
    /// Where it is; a person's address.
    pub address: Option<SocketAddr>,
    /// Flows through it, in both directions of calling.
    pub flows: usize,
    /// What to tell friends: `relay:PEERID@HOST:PORT/TOKEN`.
    pub shown: Option<String>,
}

/// Everything about relays: what `p2pos relay status` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayReport {
    /// What we forward for others.
    pub serving: RelayStatus,
    /// For whom, most first.
    pub users: Vec<PeerUse>,
    /// Bytes that users sent today.
    pub day_bytes: u64,
    /// Where we can be called.
    pub leases: Vec<OurLease>,
}

impl Relays {
    /// Prepares both sides. Nothing runs until [`Relays::begin`]; must be called within a tokio runtime.
    pub(crate) fn new(
        endpoint: &Endpoint,
        (key, policy): (Arc<SecretKey>, Arc<dyn Policy>),
        config: RelayConfig,
    ) -> (Arc<Self>, Beginning) {
        let RelayConfig { settings, uses, month_bytes, tcp_ports } = config;
        let service = Service::new(Instant::now().into_std(), settings, rand::random(), month_bytes);
        let forwarder = endpoint.forward(service).expect("an endpoint belongs to one node");
        let (sender, inputs) = mpsc::channel(keep::INPUTS);
        let relays = Self {
            serving: Serving::new(endpoint.clone(), policy.clone(), forwarder),
            endpoint: endpoint.clone(),
            key,
            policy,
            allows_loopback: settings.allows_loopback,
            context: OnceLock::new(),
            inputs: sender,
            places: Mutex::default(),
            links: Mutex::default(),
            lines: lines::Lines::default(),
            flows: Flows::default(),
            ours: watch::Sender::new(Vec::new()),
            leaving: broadcast::Sender::new(LEAVING_WAITING),
        };
        (Arc::new(relays), Beginning { inputs, uses, tcp_ports })
    }

    /// Runs what runs beside connections, until it is dropped.
    pub(crate) async fn run(self: Arc<Self>, context: Arc<Context>, beginning: Beginning) {
        self.context.get_or_init(|| Arc::downgrade(&context));
        drop(context);
        let mut chores = JoinSet::new();
        for RelayAt { relay, at } in beginning.uses {
            self.note_relay(relay, vec![at]);
            chores.spawn(keep::introduce(self.clone(), relay));
        }
        for port in beginning.tcp_ports {
            chores.spawn(lines::listen(self.clone(), port));
        }
        chores.spawn(keep::run(self.clone(), beginning.inputs));
        chores.spawn({
            let relays = self.clone();
            async move { relays.serving.tend().await }
        });
        while chores.join_next().await.is_some() {}
    }

    /// Serves a user's stream until it ends.
    pub(crate) async fn serve(&self, live: &Live, send: SendStream, recv: RecvStream) {
        self.serving.serve(live, send, recv).await;
    }

    /// The way by which a relay itself is dialled where UDP does not lead to it.
    pub(crate) fn line_to(&self, relay: PeerId) -> Option<FakeAddr> {
        self.lines.to(relay).map(|line| line.fake())
    }

    /// Whether packets to and from a peer may go through somebody else's machine.
    pub(crate) fn may_relay(&self, peer: PeerId) -> bool {
        self.policy.may_relay(&peer)
    }

    /// Takes note of where a peer says that it can be called; replaces what it said before.
    pub(crate) fn note_places(&self, peer: PeerId, places: Vec<RelayPlace>) {
        let is_usable =
            |address: &SocketAddr| self.allows_loopback || !address.ip().to_canonical().is_loopback();
        let places: Vec<RelayPlace> = places
            .into_iter()
            .take(RELAYS_MAX)
            .map(|mut place| {
                place.addresses.retain(is_usable);
                place
            })
            .filter(|place| !place.addresses.is_empty())
            .collect();
        let mut known = self.places();
        if known.len() >= PLACES_PEERS_MAX && !known.contains_key(&peer) {
            known.pop_first();
        }
        known.insert(peer, places);
    }

    /// Where we can be called, for telling peers.
    pub(crate) fn our_places(&self) -> watch::Receiver<Vec<RelayPlace>> {
        self.ours.subscribe()
    }

    /// Relays that go down, from now on.
    pub(crate) fn leaving(&self) -> broadcast::Receiver<PeerId> {
        self.leaving.subscribe()
    }

    /// Takes note that a flow is silent, or ends soon: another relay is called before this one is again.
    pub(crate) fn doubt(&self, fake: FakeAddr) {
        self.flows.doubt(fake);
    }

    /// Forgets a way that is not used any more, and hangs up.
    pub(crate) fn let_go(&self, fake: FakeAddr) {
        if let Some((relay, vni)) = self.flows.remove_way(fake) {
            if let Some(link) = self.standing_link(relay) {
                link.hang_up(vni);
            }
            self.endpoint.remove_way(fake);
        }
    }

    /// The relay of a way, if it leads through one; a TCP connection with a relay itself is nobody else's.
    pub(crate) fn relay_of(&self, way: Way) -> Option<PeerId> {
        match way {
            Way::Relay { fake, .. } | Way::TcpRelay { fake, .. } => self.flows.relay_of(fake),
            Way::Direct(_) | Way::Guess { .. } | Way::Gone(_) => None,
        }
    }

    /// Follows a change of the network.
    pub(crate) async fn network_changed(&self) {
        self.input(Input::NetworkChanged).await;
    }

    /// Takes other settings for the relay that we are.
    pub(crate) fn set(&self, settings: RelaySettings) {
        self.serving.with(|service| service.handle_settings(settings));
    }

    /// Begins a new month.
    pub(crate) fn begin_month(&self) {
        self.serving.with(Service::handle_month_started);
    }

    /// Stops relaying in good order; returns when no flow is left, after `grace` at the latest.
    pub(crate) async fn drain(&self, grace: Duration) {
        self.serving.drain(grace).await;
    }

    /// Everything, for people.
    pub(crate) fn report(&self) -> RelayReport {
        let (serving, users) =
            self.serving.with(|service| (service.status(), service.peers(Instant::now().into_std())));
        let leases = self.ours.borrow().iter().map(|place| self.lease_of(place)).collect();
        let day_bytes = users.iter().map(|user| user.day_bytes).sum();
        RelayReport { serving, users, day_bytes, leases }
    }

    fn lease_of(&self, place: &RelayPlace) -> OurLease {
        let address = place.addresses.first().copied();
        let shown = address.map(|address| {
            let at = RelayAt { relay: place.relay, at: address.into() };
            RelayAddress { at, token: place.token.0 }.to_string()
        });
        OurLease { relay: place.relay, address, flows: self.flows.count(place.relay), shown }
    }

    fn us(&self) -> PeerId {
        self.endpoint.peer_id()
    }

    /// What tokens are made of.
    fn secret(&self) -> [u8; 32] {
        *self.key.derive("relay tokens")
    }

    fn context(&self) -> Option<Arc<Context>> {
        self.context.get()?.upgrade()
    }

    async fn input(&self, input: Input) {
        // Refused only at the end of the node.
        self.inputs.send(input).await.ok();
    }

    /// Makes our end of a flow usable.
    fn take_flow(&self, link: &Link, peer: PeerId, flow: &WireFlow, is_incoming: bool) -> Option<FakeAddr> {
        let add = || {
            let end = words::end_of(flow);
            match link.road() {
                Road::Udp(relay) => self.endpoint.add_relay_flow(RelayFlow { relay: *relay, end }),
                Road::Tcp(line) => self.endpoint.add_tcp_relay_flow(line, end),
            }
        };
        let added = match add() {
            // A relay that was restarted counts from the beginning.
            Err(RouteError::Doubled) => {
                self.forget_flow(link.relay(), flow.vni);
                add()
            }
            added => added,
        };
        match added {
            Ok(fake) => {
                self.flows.add(Flow { relay: link.relay(), vni: flow.vni, fake, peer }, is_incoming);
                Some(fake)
            }
            Err(error) => {
                tracing::debug!(%error, "a flow of a relay cannot be used");
                link.hang_up(flow.vni);
                None
            }
        }
    }

    fn forget_flow(&self, relay: PeerId, vni: NonZeroU32) {
        if let Some(fake) = self.flows.remove(relay, vni) {
            self.endpoint.remove_way(fake);
        }
    }

    /// The link to a relay: the one that stands, or a new one.
    async fn link_to(self: &Arc<Self>, relay: PeerId) -> Result<Arc<Link>, LinkError> {
        let slot = self.slot(relay)?;
        let mut slot = slot.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| link.is_open()) {
            return Ok(link.clone());
        }
        let link = self.open_link(relay).await?;
        *slot = Some(link.clone());
        Ok(link)
    }

    fn slot(&self, relay: PeerId) -> Result<Slot, LinkError> {
        let mut links = self.links();
        if links.len() >= LINKS_MAX && !links.contains_key(&relay) {
            links.retain(|_, slot| slot.try_lock().map_or(true, |slot| slot.is_some()));
            if links.len() >= LINKS_MAX {
                return Err(LinkError::Full);
            }
        }
        Ok(links.entry(relay).or_default().clone())
    }

    /// Connects to a relay, by TCP where UDP leads nowhere, and opens the stream.
    async fn open_link(self: &Arc<Self>, relay: PeerId) -> Result<Arc<Link>, LinkError> {
        let context = self.context().ok_or(OpenError::ShuttingDown)?;
        let name = ProtocolName::parse(RELAY_PROTOCOL).expect("the name of the relay's stream is valid");
        let request = |time| OpenRequest::new(relay, vec![name.clone()]).timeout(time);
        let mut opened = open::open(&context.registry, &context, request(UDP_ALONE)).await;
        let is_unreachable = matches!(
            opened,
            Err(OpenError::Unreachable { .. } | OpenError::Timeout { .. } | OpenError::LocalOffline { .. })
        );
        if is_unreachable && self.lines.connect(&context, relay).await {
            opened = open::open(&context.registry, &context, request(UDP_ALONE)).await;
        }
        let stream =
            opened?.channel.into_stream().ok_or(OpenError::Misuse("requests to a relay are a stream"))?;
        let live = context.registry.existing(&relay).and_then(|handle| handle.live());
        let live = live.ok_or(OpenError::Offline)?;
        let (road, rtt) = self.road_to(relay, &live).ok_or(LinkError::Relayed)?;
        let (link, notices) = Link::start(relay, (road, rtt), stream);
        tokio::spawn(self.clone().heed(Arc::downgrade(&link), relay, notices));
        Ok(link)
    }

    /// How the packets of a connection to a relay get there.
    fn road_to(&self, relay: PeerId, live: &Live) -> Option<(Road, Duration)> {
        let mut line = None;
        for path in live.connection.paths().list() {
            match path.way {
                Way::Direct(address) => return Some((Road::Udp(address), path.rtt)),
                Way::TcpRelay { fake, .. } if self.endpoint.line_of(fake).is_some() => {
                    line = self.lines.to(relay).map(|line| (Road::Tcp(line), path.rtt));
                }
                Way::TcpRelay { .. } | Way::Relay { .. } | Way::Guess { .. } | Way::Gone(_) => {}
            }
        }
        line
    }

    /// Does what a relay's notices ask for, until the link ends.
    async fn heed(
        self: Arc<Self>,
        link: Weak<Link>,
        relay: PeerId,
        mut notices: mpsc::Receiver<RelayNotice>,
    ) {
        while let Some(notice) = notices.recv().await {
            let Some(link) = link.upgrade() else { return };
            match notice {
                RelayNotice::Incoming { from, flow } => self.called(&link, from, &flow),
                RelayNotice::Ended { vni, why } => {
                    tracing::debug!(relay = %relay.short(), ?why, "a flow ended");
                    self.forget_flow(relay, vni);
                }
                RelayNotice::Drain { grace_ms } => {
                    let grace = Duration::from_millis(grace_ms.into());
                    // Without listeners there is nothing to move.
                    self.leaving.send(relay).ok();
                    self.input(Input::Drains(relay, grace)).await;
                }
                RelayNotice::Limits(limits) => tracing::debug!(relay = %relay.short(), ?limits, "new limits"),
                // What only users say.
                RelayNotice::HangUp { .. } | RelayNotice::Receipt(_) => {}
            }
        }
    }

    /// Somebody calls us: the flow must stand before the first packet comes.
    fn called(&self, link: &Link, from: PeerId, flow: &WireFlow) {
        let is_welcome = self.policy.admits(&from) != Admission::Refuse && self.policy.may_relay(&from);
        let fits = self.flows.has_room_for_incoming(link.relay());
        let taken = if is_welcome && fits { self.take_flow(link, from, flow, true) } else { None };
        let Some(way) = taken else {
            tracing::debug!(peer = %from.short(), "a call through a relay was declined");
            return link.hang_up(flow.vni);
        };
        let live = self.context().and_then(|context| context.registry.existing(&from)?.live());
        // Without room, other calls are being looked at.
        if let Some(live) = live
            && live.steered.calls.try_send(way).is_err()
        {
            tracing::trace!(peer = %from.short(), "a call of a connected peer was not looked at");
        }
    }

    /// The link to a relay, if it stands and nobody is at it.
    fn standing_link(&self, relay: PeerId) -> Option<Arc<Link>> {
        let slot = self.links().get(&relay).cloned()?;
        let slot = slot.try_lock().ok()?;
        slot.clone().filter(|link| link.is_open())
    }

    /// The user or the keeper is done with a relay. Flows through it keep the link.
    fn let_go_of(&self, relay: PeerId) {
        if self.flows.count(relay) == 0
            && let Some(link) = self.standing_link(relay)
        {
            link.close();
        }
    }

    /// Replaces what peers are told of where we can be called.
    fn publish(&self, relays: &[PeerId]) {
        let secret = self.secret();
        let place = |relay: &PeerId| {
            let address = self.standing_link(*relay).map(|link| link.address()).or_else(|| {
                // The link is just being made anew.
                let ours = self.ours.borrow();
                ours.iter().find(|place| place.relay == *relay)?.addresses.first().copied()
            })?;
            let token = Hidden(token_for(&secret, relay));
            Some(RelayPlace { relay: *relay, addresses: vec![address], token })
        };
        let places: Vec<RelayPlace> = relays.iter().filter_map(place).take(RELAYS_MAX).collect();
        tracing::info!(relays = places.len(), "relays at which we can be called");
        self.ours.send_replace(places);
    }

    /// Closes links and flows that nobody needs any more.
    fn sweep(&self) {
        for fake in self.flows.take_silent(&self.endpoint) {
            self.endpoint.remove_way(fake);
        }
        let kept: Vec<PeerId> = self.ours.borrow().iter().map(|place| place.relay).collect();
        let mut links = self.links();
        links.retain(|relay, slot| {
            let Ok(slot) = slot.try_lock() else { return true };
            let Some(link) = slot.as_ref() else { return false };
            let is_needed =
                kept.contains(relay) || self.flows.count(*relay) > 0 || link.unused_for() < LINK_IDLE;
            if !is_needed {
                link.close();
            }
            is_needed && link.is_open()
        });
        self.lines.sweep(|relay| links.contains_key(&relay));
    }

    /// Keeps where a relay is for the dial.
    fn note_relay(&self, relay: PeerId, mut at: Vec<HostPort>) {
        at.truncate(RELAY_ADDRESSES_MAX);
        if let Some(context) = self.context()
            && let Err(error) = context.resolver.note(relay, at)
        {
            tracing::debug!(%error, "the address of a relay was not kept");
        }
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<PeerId, Vec<RelayPlace>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<PeerId, Slot>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relays").field("flows", &self.flows).finish_non_exhaustive()
    }
}
