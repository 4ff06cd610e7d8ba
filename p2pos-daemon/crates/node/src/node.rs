//! The node: a cheap handle to the endpoint, the peers' tasks and the queue of incoming streams.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use p2pos_identity::{PeerId, ProtocolName};
use p2pos_peer_protocol::{EndCode, PING_PROTOCOL, signal::RelayPlace};
use p2pos_relay::RelaySettings;
use p2pos_transport::{Attempt, BindError, Connection, Endpoint, Lost, PathInfo, PathState, SocketCounters};
use tokio::{
    sync::{Mutex, Semaphore, broadcast, mpsc, watch},
    task::AbortHandle,
};

use crate::{
    accept::Incoming,
    config::{Admission, Config, Policy},
    error::OpenError,
    heal, keepalive,
    limits::{EVENTS_QUEUE, INCOMING_QUEUE, PINGS_MAX, STRANGERS_MAX},
    open::{self, OpenRequest, Opened, Opening},
    peer::{Command, Context, PeerState, Welcome},
    ping::{self, Pings},
    reach::{Explanation, NetworkReport, Reach},
    registry::Registry,
    relays::{RelayReport, Relays},
};

/// What happens to peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A first connection to the peer stands.
    Connected {
        /// Who.
        peer: PeerId,
        /// How.
        path: Option<PathInfo>,
    },
    /// No connection to the peer is left.
    Disconnected {
        /// Who.
        peer: PeerId,
        /// Why the last one ended.
        reason: Lost,
    },
}

/// What is known of a change of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkChange {
    /// This machine's addresses are others than before. Sockets may be bound to what is gone, so they are made anew, on the
    /// same port where possible.
    Addresses,
    /// Another route, a machine that has slept, a socket that failed: our addresses are as before. Sockets that still work
    /// stay.
    Perhaps,
}

/// What is known of a peer at one moment.
#[derive(Debug, Clone)]
pub struct PeerSnapshot {
    /// Who.
    pub peer: PeerId,
    /// What is being done about it.
    pub state: PeerState,
    /// The path, while connected.
    pub path: Option<PathInfo>,
    /// Who carries the path, if it goes through a relay.
    pub relay: Option<PeerId>,
    /// How long it has been connected.
    pub connected_for: Option<Duration>,
    /// Connections that stand: more than one only for a while after a simultaneous dial or a restart.
    pub connections: usize,
    /// Streams on the connection in use.
    pub streams: usize,
    /// Datagram flows on the connection in use.
    pub flows: usize,
    /// UDP payload sent on the connection in use, bytes.
    pub bytes_sent: u64,
    /// UDP payload received on the connection in use, bytes.
    pub bytes_received: u64,
    /// What the last dial tried.
    pub last_attempts: Vec<Attempt>,
}

/// A handle to the node; clones share it. The node ends with [`Node::shutdown`], or when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    context: Arc<Context>,
    incoming: Mutex<mpsc::Receiver<Incoming>>,
    /// Becomes true once, at shutdown.
    closed: watch::Sender<bool>,
    /// Who welcomes peers, who heals the sockets, who learns what our NAT does, who follows the network, and who minds the
    /// relays.
    chores: [AbortHandle; 5],
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("peer_id", &self.context.us()).finish_non_exhaustive()
    }
}

impl Inner {
    fn stop_chores(&self) {
        for chore in &self.chores {
            chore.abort();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop_chores();
        self.context.closing.store(true, Ordering::Relaxed);
        for (_, handle) in self.context.registry.all() {
            // A full queue means a busy task, whose connections end by their idle timeout.
            handle.try_send(Command::Shutdown).ok();
        }
    }
}

impl Node {
    /// Binds the sockets and starts to accept peers. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] if the port is taken or no address family works.
    pub fn start(config: Config) -> Result<Self, BindError> {
        let endpoint = Endpoint::bind(&config.transport())?;
        let (sender, incoming) = mpsc::channel(INCOMING_QUEUE);
        let closed = watch::Sender::new(false);
        let reach = Reach::start(endpoint.clone(), config.asks_routers, closed.subscribe());
        let (relays, beginning) =
            Relays::new(&endpoint, (config.key.clone(), config.policy.clone()), config.relay);
        let context = Arc::new(Context {
            endpoint,
            resolver: config.resolver,
            incoming: sender,
            events: std::sync::Mutex::new(Some(broadcast::Sender::new(EVENTS_QUEUE))),
            registry: Registry::default(),
            reach,
            relays: relays.clone(),
            closing: AtomicBool::new(false),
        });
        let chores = [
            tokio::spawn(welcome_peers(context.clone(), config.policy)).abort_handle(),
            tokio::spawn(heal_sockets(context.clone())).abort_handle(),
            tokio::spawn(keepalive::learn(context.clone())).abort_handle(),
            tokio::spawn(follow_network(context.clone())).abort_handle(),
            tokio::spawn(relays.run(context.clone(), beginning)).abort_handle(),
        ];
        let incoming = Mutex::new(incoming);
        Ok(Self { inner: Arc::new(Inner { context, incoming, closed, chores }) })
    }

    /// Who we are.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.context().us()
    }

    /// The addresses of our sockets, as bound.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.context().endpoint.local_addresses()
    }

    /// Opens a stream or flow and waits for the peer's answer. Cancel-safe: dropping the call gives it up.
    ///
    /// # Errors
    /// [`OpenError`], with all that was tried where dialling was the trouble.
    pub async fn open(&self, request: OpenRequest) -> Result<Opened, OpenError> {
        self.refuse_when_closed()?;
        open::open(&self.context().registry, self.context(), request).await
    }

    /// Opens a stream and returns as soon as it is safe to write on it, mostly before the peer's answer.
    ///
    /// # Errors
    /// As [`Node::open`]; those that the answer brings come from [`crate::Answer::wait`].
    pub async fn begin(&self, request: OpenRequest) -> Result<Opening, OpenError> {
        self.refuse_when_closed()?;
        open::begin(&self.context().registry, self.context(), request).await
    }

    /// Waits for the next stream that a peer opens; `None` after shutdown. Cancel-safe.
    pub async fn accept(&self) -> Option<Incoming> {
        let mut closed = self.inner.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => None,
            incoming = async { self.inner.incoming.lock().await.recv().await } => incoming,
        }
    }

    /// Measures round trips to a peer, which is dialled if need be; no plugin takes part.
    ///
    /// # Errors
    /// As [`Node::open`].
    pub async fn ping(&self, peer: PeerId, count: u32, interval: Duration) -> Result<Pings, OpenError> {
        let protocol = ProtocolName::parse(PING_PROTOCOL).expect("the name of ping is a valid name");
        let opened = self.open(OpenRequest::new(peer, vec![protocol])).await?;
        let stream = opened.channel.into_stream().ok_or(OpenError::Misuse("ping is a stream"))?;
        let rtts = ping::send_pings(stream, count.min(PINGS_MAX), interval).await;
        let live = self.context().registry.existing(&peer).and_then(|handle| handle.live());
        let connection = live.as_ref().map(|live| &live.connection);
        let relay = connection.and_then(|connection| self.context().relays.relay_of(connection.way()?));
        Ok(Pings { path: connection.and_then(Connection::path), relay, rtts })
    }

    /// What is known of every peer that has a task now, by PeerId.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerSnapshot> {
        let peers = self.context().registry.all();
        let relays = &self.context().relays;
        peers.into_iter().map(|(peer, handle)| snapshot(peer, handle.status(), relays)).collect()
    }

    /// Tells of connections that come and go from now on, until the shutdown closes the channel. A reader that falls behind
    /// is told how many it missed.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        let events = self.context().events();
        events.as_ref().map_or_else(|| broadcast::Sender::new(1).subscribe(), broadcast::Sender::subscribe)
    }

    /// How a connected peer is reached, and why so; `None` for peers that are not connected, and within the machine.
    #[must_use]
    pub fn explain(&self, peer: &PeerId) -> Option<Explanation> {
        let live = self.context().registry.existing(peer).and_then(|handle| handle.live())?;
        live.steered.explanation.borrow().clone()
    }

    /// What is known of our network.
    #[must_use]
    pub fn network(&self) -> NetworkReport {
        self.context().reach.network()
    }

    /// Takes note whether a packet from outside came through a port mapping; until one did, peers are not told of it.
    pub fn mapping_verified(&self, external: SocketAddr, came_through: bool) {
        self.context().reach.mapping_verified(external, came_through);
    }

    /// Datagrams at our port that were not ordinary.
    #[must_use]
    pub fn socket_counters(&self) -> SocketCounters {
        self.context().endpoint.counters()
    }

    /// Follows a change of the network: gets the sockets in order, lets connections check their paths and move, and dials at
    /// once where a dial was waiting.
    ///
    /// # Errors
    /// [`BindError`] if no socket can be bound any more. The node tries again by itself.
    pub async fn network_changed(&self, change: NetworkChange) -> Result<(), BindError> {
        network_changed(self.context(), change).await
    }

    /// Works out beforehand what handshakes with these peers need, on a thread of its own: for contacts, as early as they are
    /// known. It takes 50 us each, once, and spares the called side 150 us at every connection.
    pub fn expect(&self, peers: Vec<PeerId>) {
        let endpoint = self.context().endpoint.clone();
        tokio::task::spawn_blocking(move || peers.iter().for_each(|peer| endpoint.expect(peer)));
    }

    /// How we relay for others, and at which relays we can be called.
    #[must_use]
    pub fn relays(&self) -> RelayReport {
        self.context().relays.report()
    }

    /// Watches the relays at which we can be called.
    #[must_use]
    pub fn relay_places(&self) -> watch::Receiver<Vec<RelayPlace>> {
        self.context().relays.our_places()
    }

    /// Relays for others than before, or more, or less, from now on.
    pub fn set_relay(&self, settings: RelaySettings) {
        self.context().relays.set(settings);
    }

    /// Tells the relay that a new month has begun, for its owner's limit.
    pub fn begin_relay_month(&self) {
        self.context().relays.begin_month();
    }

    /// Stops relaying in good order: users are told to go elsewhere, and packets pass until they have, or until `grace` is
    /// over.
    pub async fn drain_relay(&self, grace: Duration) {
        self.context().relays.drain(grace).await;
    }

    /// Lets a dial in progress begin anew, now: the resolver or the policy says something else of the peer than before.
    pub async fn redial(&self, peer: PeerId) {
        if let Some(handle) = self.context().registry.existing(&peer) {
            handle.send(Command::Redial).await;
        }
    }

    /// Stops using relays for a peer to which the policy forbids them: paths through relays are closed, and a connection that
    /// has no other path ends. Change the policy first.
    pub async fn leave_relays(&self, peer: PeerId) {
        let live = self.context().registry.existing(&peer).and_then(|handle| handle.live());
        let Some(paths) = live.map(|live| live.connection.paths()) else { return };
        let is_carried = |path: &PathState| self.context().relays.relay_of(path.way).is_some();
        let (carried, own): (Vec<_>, Vec<_>) = paths.list().into_iter().partition(is_carried);
        if own.is_empty() && !carried.is_empty() {
            return self.disconnect(peer).await;
        }
        for path in carried {
            if let Err(error) = paths.close(path.id) {
                tracing::debug!(%error, "a path through a relay was not closed");
            }
        }
    }

    /// Waits until what is sent to a peer goes through a relay; for ever if the connection ends before. Looked at every 100 ms,
    /// for those who want no relay. Cancel-safe.
    pub async fn lost_own_path(&self, peer: PeerId) {
        let live = self.context().registry.existing(&peer).and_then(|handle| handle.live());
        match live {
            Some(live) => live.lost_own_path().await,
            None => std::future::pending().await,
        }
    }

    /// Cuts a peer off: its connections are closed as refused, and opens that wait for it fail. Whether it may come back is
    /// the policy's to say, and whether we can call it, the resolver's; change those first.
    pub async fn disconnect(&self, peer: PeerId) {
        if let Some(handle) = self.context().registry.existing(&peer) {
            handle.send(Command::Disconnect).await;
        }
    }

    /// Ends the node in good order: no new work, every peer is told, and the sockets are silent after a bounded time.
    pub async fn shutdown(&self) {
        self.context().closing.store(true, Ordering::Relaxed);
        self.inner.closed.send_replace(true);
        self.inner.stop_chores();
        for (_, handle) in self.context().registry.all() {
            handle.send(Command::Shutdown).await;
            handle.ended().await;
        }
        self.context().endpoint.close(EndCode::SHUTTING_DOWN).await;
        self.context().events().take();
    }

    fn context(&self) -> &Arc<Context> {
        &self.inner.context
    }

    fn refuse_when_closed(&self) -> Result<(), OpenError> {
        if self.context().is_closing() { Err(OpenError::ShuttingDown) } else { Ok(()) }
    }
}

fn snapshot(peer: PeerId, status: crate::peer::Status, relays: &Relays) -> PeerSnapshot {
    let connection = status.live.as_ref().map(|live| &live.connection);
    let traffic = connection.map(Connection::traffic).unwrap_or_default();
    let (streams, flows) = status.live.as_ref().map(|live| live.leases.held()).unwrap_or_default();
    PeerSnapshot {
        peer,
        state: status.state,
        path: connection.and_then(Connection::path),
        relay: connection.and_then(|connection| relays.relay_of(connection.way()?)),
        connected_for: connection.map(Connection::age),
        connections: status.connections,
        streams,
        flows,
        bytes_sent: traffic.bytes_sent,
        bytes_received: traffic.bytes_received,
        last_attempts: status.timeline.attempts(),
    }
}

async fn network_changed(context: &Context, change: NetworkChange) -> Result<(), BindError> {
    let healed = match change {
        NetworkChange::Addresses => context.endpoint.rebuild_sockets().await,
        NetworkChange::Perhaps => context.endpoint.network_changed(),
    };
    for (_, handle) in context.registry.all() {
        handle.send(Command::NetworkChanged).await;
    }
    context.relays.network_changed().await;
    healed
}

/// Binds sockets anew that have stopped working.
async fn heal_sockets(context: Arc<Context>) {
    heal::whenever(
        || context.endpoint.broken(),
        || async {
            if let Err(error) = network_changed(&context, NetworkChange::Perhaps).await {
                tracing::warn!(%error, "no UDP socket can be bound; another try follows");
            }
        },
    )
    .await;
}

/// Sets sockets and connections right whenever the machine is in another network.
async fn follow_network(context: Arc<Context>) {
    let mut own = context.reach.own().picture();
    let mut known = own.borrow_and_update().network;
    while own.changed().await.is_ok() {
        let (network, has_lost_address) = {
            let own = own.borrow_and_update();
            (own.network, own.has_lost_address)
        };
        if network != known {
            known = network;
            let change = if has_lost_address { NetworkChange::Addresses } else { NetworkChange::Perhaps };
            tracing::info!(?change, "the network changed");
            if let Err(error) = network_changed(&context, change).await {
                tracing::warn!(%error, "no UDP socket can be bound; another try follows");
            }
        }
    }
}

/// Lets in the peers that call us, as the policy says, and hands each to its task.
async fn welcome_peers(context: Arc<Context>, policy: Arc<dyn Policy>) {
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    while let Some(connection) = context.endpoint.accept().await {
        let peer = connection.peer();
        let welcome = match policy.admits(&peer) {
            _ if context.relays.forbids(&connection) => None,
            Admission::Contact => Some(Welcome::Contact),
            Admission::Stranger => strangers.clone().try_acquire_owned().ok().map(Welcome::Stranger),
            Admission::Refuse => None,
        };
        let Some(welcome) = welcome else {
            tracing::debug!(peer = %peer.short(), "a peer that may not come in was turned away");
            connection.close(EndCode::REFUSED);
            continue;
        };
        let command = Command::Adopt(Box::new(connection.clone()), welcome);
        if context.registry.command(peer, &context, command).await.is_err() {
            connection.close(EndCode::STREAM_LIMIT);
        }
    }
}
