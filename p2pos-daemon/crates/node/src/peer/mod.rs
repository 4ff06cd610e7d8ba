//! One task per peer, and what the rest of the crate sees of it.
//!
//! The task owns the peer's connections and all decisions about them; others hold a [`PeerHandle`] and look at the
//! [`Status`] that the task publishes. Its state is Idle, Dialing, Connected or Backoff; the files are its concerns:
//! `actor` (the loop), `connections` (which connection is used, which is retired, which is idle), `dial` (when to try
//! again), `wishes` (who waits for a connection).

mod actor;
mod connections;
mod dial;
mod wishes;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use p2pos_discovery::Resolver;
use p2pos_identity::PeerId;
use p2pos_transport::{Connection, Endpoint, Timeline};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    accept::Incoming,
    error::OpenError,
    flow::FlowTable,
    lease::Leases,
    limits::{COMMANDS_QUEUE, FRESH_FOR, IN_USE_FOR, SETTLED_AFTER},
    node::Event,
    reach::{Helm, Reach, Steered},
    registry::Registry,
    relays::Relays,
};

/// What all peers' tasks share.
pub(crate) struct Context {
    pub(crate) endpoint: Endpoint,
    pub(crate) resolver: Resolver,
    pub(crate) incoming: mpsc::Sender<Incoming>,
    /// Gone after the shutdown, so that those who listen learn that nothing more comes.
    pub(crate) events: Mutex<Option<broadcast::Sender<Event>>>,
    pub(crate) registry: Registry,
    pub(crate) reach: Arc<Reach>,
    pub(crate) relays: Arc<Relays>,
    pub(crate) closing: AtomicBool,
}

impl Context {
    pub(crate) fn us(&self) -> PeerId {
        self.endpoint.peer_id()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Those who listen to what happens, until the shutdown.
    pub(crate) fn events(&self) -> MutexGuard<'_, Option<broadcast::Sender<Event>>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Event) {
        if let Some(events) = &*self.events() {
            // Without subscribers there is nobody to tell.
            events.send(event).ok();
        }
    }
}

/// What a peer's task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// Nobody wants the peer.
    Idle,
    /// Its addresses are being looked up and tried.
    Dialing,
    /// At least one connection stands.
    Connected,
    /// The last dial failed and the next one is not due yet.
    Backoff,
}

/// What a peer's task publishes.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) state: PeerState,
    /// The connection to open streams on.
    pub(crate) live: Option<Arc<Live>>,
    /// Connections held, retired ones included.
    pub(crate) connections: usize,
    /// What the present dial, or the last one, has tried.
    pub(crate) timeline: Timeline,
}

/// A connection with what hangs on it.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) connection: Connection,
    pub(crate) leases: Arc<Leases>,
    pub(crate) flows: Arc<FlowTable>,
    /// How the peer is reached over it.
    pub(crate) steered: Steered,
    heard: Heard,
}

/// Since when at the latest nothing was heard, as far as anybody looked. Times are in ms since `created`.
#[derive(Debug)]
struct Heard {
    created: Instant,
    packets: AtomicU64,
    looked_ms: AtomicU64,
    heard_ms: AtomicU64,
}

impl Heard {
    fn new() -> Self {
        Self {
            created: Instant::now(),
            packets: AtomicU64::new(0),
            looked_ms: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
        }
    }

    /// Whether something was surely heard within [`FRESH_FOR`]. Packets counted since the last look may have come right
    /// after it, so they prove no more than that.
    fn is_fresh(&self, packets: u64) -> bool {
        let now_ms = self.now_ms();
        let looked_ms = self.looked_ms.swap(now_ms, Ordering::Relaxed);
        if self.packets.swap(packets, Ordering::Relaxed) != packets {
            self.heard_ms.fetch_max(looked_ms, Ordering::Relaxed);
        }
        let silent_ms = now_ms.saturating_sub(self.heard_ms.load(Ordering::Relaxed));
        u128::from(silent_ms) < FRESH_FOR.as_millis()
    }

    fn note(&self) {
        self.heard_ms.fetch_max(self.now_ms(), Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Live {
    /// Takes a connection, and gives back what its steering needs.
    pub(crate) fn new(connection: Connection, given_back: Arc<Notify>) -> (Arc<Self>, Helm) {
        let leases = Leases::new(given_back);
        let (steered, helm) = Steered::new(leases.activity().clone());
        let live = Self { connection, leases, flows: Arc::default(), steered, heard: Heard::new() };
        (Arc::new(live), helm)
    }

    /// Whether data may be written on this connection before any answer: it is not one of several that the peer tried at
    /// once (we know which of ours we kept), it was heard a moment ago (so the peer was not restarted), and it was in use
    /// (so the peer is not just closing it as idle).
    pub(crate) fn is_surely_alive(&self) -> bool {
        self.heard.is_fresh(self.connection.traffic().packets_received)
            && (self.connection.is_initiator() || self.connection.age() >= SETTLED_AFTER)
            && self.leases.was_used_within(IN_USE_FOR)
    }

    /// The peer has just answered something.
    pub(crate) fn note_heard(&self) {
        self.heard.note();
    }
}

/// What a peer's task can be asked.
pub(crate) enum Command {
    /// Bring a connection, dialling until the asker gives up waiting.
    Connect(oneshot::Sender<Result<Arc<Live>, OpenError>>),
    /// Take a connection that the peer has begun.
    Adopt(Box<Connection>, Welcome),
    /// Close the connections, stop dialling, and refuse those who wait.
    Disconnect,
    /// What is known of the ways to the peer has changed: a dial in progress, or one that is waited for, begins anew.
    Redial,
    /// Dial now if you are waiting to: the network has changed.
    NetworkChanged,
    /// Let everyone who waits know that the node is going down, and end.
    Shutdown,
}

/// As what a connection was let in; held as long as it lives.
#[derive(Debug)]
pub(crate) enum Welcome {
    /// The user knows the peer.
    Contact,
    /// A stranger, with its place among the few.
    Stranger(
        #[expect(dead_code, reason = "it is a place that is given back when dropped")] OwnedSemaphorePermit,
    ),
}

/// The way to a peer's task.
#[derive(Debug, Clone)]
pub(crate) struct PeerHandle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
}

impl PeerHandle {
    /// Sends a command, unless the task's queue is full or the task has ended.
    pub(crate) fn try_send(&self, command: Command) -> Result<(), mpsc::error::TrySendError<Command>> {
        self.commands.try_send(command)
    }

    /// Sends a command; waits while the task's queue is full. One that has ended needs no command.
    pub(crate) async fn send(&self, command: Command) {
        self.commands.send(command).await.ok();
    }

    /// Waits until the task's queue has room, or the task has ended. Cancel-safe.
    pub(crate) async fn has_room(&self) {
        // A place that is given back at once; whether it is still there, the next try will tell.
        self.commands.reserve().await.ok();
    }

    /// Waits until the task has ended.
    pub(crate) async fn ended(&self) {
        self.commands.closed().await;
    }

    /// The connection to open on, if one stands.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.status.borrow().live.clone().filter(|live| live.connection.lost().is_none())
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }
}

#[cfg(test)]
impl PeerHandle {
    /// The way to a task that is not there: its commands go to `commands`.
    pub(crate) fn to(commands: mpsc::Sender<Command>) -> Self {
        let idle =
            Status { state: PeerState::Idle, live: None, connections: 0, timeline: Timeline::default() };
        Self { commands, status: watch::channel(idle).1 }
    }
}

/// Starts the task of a peer.
pub(crate) fn start(peer: PeerId, context: Arc<Context>) -> PeerHandle {
    let (commands, receiver) = mpsc::channel(COMMANDS_QUEUE);
    let idle = Status { state: PeerState::Idle, live: None, connections: 0, timeline: Timeline::default() };
    let (publish, status) = watch::channel(idle);
    tokio::spawn(actor::Actor::new(peer, context, receiver, publish).run());
    PeerHandle { commands, status }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn packets_prove_life_only_since_the_last_look() {
        let heard = Heard::new();
        assert!(heard.is_fresh(1), "a handshake has just been done");
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(!heard.is_fresh(2), "they may have come five seconds ago");
        tokio::time::advance(Duration::from_millis(300)).await;
        assert!(heard.is_fresh(3), "they came within the last 300 ms");
        assert!(heard.is_fresh(3), "nothing more in this very moment proves nothing");
        tokio::time::advance(Duration::from_millis(800)).await;
        assert!(!heard.is_fresh(3));
        heard.note();
        assert!(heard.is_fresh(3), "an answer has just come");
    }
}
