//! Reaching peers in the best way there is: what `traversal` decides, done with `transport`'s sockets and paths.
//!
//! ```text
//!  own (interfaces, routers, peers' words) --picture--> steering (one task per connection) --paths, openers--> transport
//!                                                        |   ^            |
//!                                            signals <---+   +--- plan    +--> guessing --> probes
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | `own` | what we are to others: candidates, NAT report |
//! | `steering` | runs a connection's [`p2pos_traversal::plan::PeerPlan`] |
//! | `sight` | turns the counters of paths into "sent" and "heard" |
//! | `signals`, `words` | the stream `/p2pos/signal/1`, and its words in traversal's |
//! | `guessing` | one attempt to guess a port |
//! | `probes` | sorts the small packets that come in beside QUIC |
//!
//! Refuses to know: streams of plugins, who is a contact. DESIGN section 7.

mod guessing;
mod own;
mod probes;
mod sight;
mod signals;
mod steering;
mod words;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use p2pos_connectivity::{MappingReport, NetworkState};
use p2pos_transport::Endpoint;
use p2pos_traversal::{
    Authenticated, ProbeBudget,
    choice::Tier,
    guess::{GuessLedger, NetworkPair, NotNow},
    keepalive::INTERVAL_UNKNOWN,
    plan::PeerState,
    predict::{Advice, Expected},
    signal::NatReport,
    timeline::Entry,
    verdict::NatVerdict,
};
use tokio::{sync::watch, time::Instant};

pub(crate) use self::{
    own::Own,
    sight::Activity,
    steering::{Helm, Steered, steer},
};
use self::{
    own::{OwnHandle, OwnSettings, Word},
    probes::{Arrived, ProbeDesk},
};
use crate::keepalive::Helper;

/// How a peer is reached, and why so: what `p2pos explain` shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// What is being done.
    pub state: PeerState,
    /// The kind of the path in use.
    pub tier: Option<Tier>,
    /// What was tried, oldest first; holds no address.
    pub timeline: Vec<Entry>,
    /// Lines of it that were left out.
    pub left_out: u64,
    /// What our NAT does.
    pub ours: NatReport,
    /// What the peer says of its own.
    pub theirs: NatReport,
    /// What the two allow each other, as far as they are known.
    pub expected: Option<Expected>,
    /// The one change that would make the path direct.
    pub advice: Option<Advice>,
}

/// What is known of our network: what `p2pos netcheck` shows.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkReport {
    /// The machine's addresses and gateways.
    pub machine: NetworkState,
    /// What our NAT does.
    pub verdict_v4: NatVerdict,
    /// What stands before our IPv6 addresses.
    pub verdict_v6: NatVerdict,
    /// What each router said to the wish for a port mapping.
    pub mappings: Vec<MappingReport>,
    /// Where peers are told that we might be reached.
    pub told: Vec<SocketAddr>,
    /// Whether routers are asked for port mappings.
    pub asks_routers: bool,
    /// How often an idle path behind a NAT is kept alive.
    pub keep_alive: Duration,
}

/// What the connections of a node share to reach their peers.
#[derive(Debug)]
pub(crate) struct Reach {
    endpoint: Endpoint,
    own: OwnHandle,
    desk: ProbeDesk,
    budget: Mutex<ProbeBudget>,
    ledger: Mutex<GuessLedger>,
    asks_routers: bool,
    keep_alive: watch::Sender<Duration>,
    helper: Arc<Helper>,
}

impl Reach {
    /// Starts what runs beside connections, until `closed` becomes true. Must be called within a tokio runtime.
    pub(crate) fn start(endpoint: Endpoint, asks_routers: bool, closed: watch::Receiver<bool>) -> Arc<Self> {
        let own = own::start(OwnSettings { sockets: endpoint.local_addresses(), asks_routers }, closed);
        let desk = ProbeDesk::default();
        let helper = Arc::<Helper>::default();
        if let Some(probes) = endpoint.probes() {
            let (helper, endpoint) = (helper.clone(), endpoint.clone());
            let help = move |asked: Arrived| helper.packet(&endpoint, asked.probe, asked.from);
            // Ends with the endpoint.
            tokio::spawn(desk.clone().sort(probes, help));
        }
        let budget = Mutex::new(ProbeBudget::new(Instant::now().into_std()));
        let keep_alive = watch::Sender::new(INTERVAL_UNKNOWN);
        Arc::new(Self {
            endpoint,
            own,
            desk,
            budget,
            ledger: Mutex::default(),
            asks_routers,
            keep_alive,
            helper,
        })
    }

    /// What is known of our network.
    pub(crate) fn network(&self) -> NetworkReport {
        let own = self.own.picture().borrow().clone();
        NetworkReport {
            machine: own.machine,
            verdict_v4: own.verdict_v4,
            verdict_v6: own.verdict_v6,
            mappings: own.mappings,
            told: own.candidates.iter().map(|candidate| candidate.addr).collect(),
            asks_routers: self.asks_routers,
            keep_alive: *self.keep_alive.borrow(),
        }
    }

    /// What we are to others.
    pub(crate) fn own(&self) -> &OwnHandle {
        &self.own
    }

    /// Takes note whether a packet from outside came through a port mapping: only then are peers told of it.
    pub(crate) fn mapping_verified(&self, external: SocketAddr, came_through: bool) {
        self.own.tell(Word::Verified { external, came_through });
    }

    /// Takes what was learned about our NAT's memory: how often a path is reminded, and the lifetime if it was measured.
    pub(crate) fn keep_alive_every(&self, interval: Duration, measured: Option<Duration>) {
        self.keep_alive.send_replace(interval);
        if let Some(lifetime) = measured {
            self.own.tell(Word::Lifetime(lifetime));
        }
    }

    /// How often a path is reminded.
    pub(crate) fn keep_alive(&self) -> watch::Receiver<Duration> {
        self.keep_alive.subscribe()
    }

    /// Where small packets wait for their readers.
    pub(crate) fn desk(&self) -> &ProbeDesk {
        &self.desk
    }

    /// What helps peers to measure their NAT.
    pub(crate) fn helper(&self) -> Arc<Helper> {
        self.helper.clone()
    }

    /// Takes one opener out of the host's budget; false means: do not send it.
    fn take_probe(&self, to: SocketAddr) -> bool {
        let proof = Authenticated::by_handshake();
        self.budget().take(to, proof, Instant::now().into_std())
    }

    /// Takes one guess out of the host's budget.
    fn take_guess(&self) -> bool {
        self.budget().take_guess(Instant::now().into_std())
    }

    /// Asks whether an attempt to guess may begin; it counts as begun then.
    fn begin_guess(&self, pair: NetworkPair) -> Result<(), NotNow> {
        self.ledger().begin(pair, Instant::now().into_std())
    }

    fn end_guess(&self, is_hit: bool) {
        self.ledger().end(is_hit);
    }

    fn forget_guesses(&self) {
        self.ledger().handle_network_change();
    }

    fn observed(&self, observer: SocketAddr, external: SocketAddr, is_chosen: bool) {
        self.own.tell(Word::Observed { observer, external, is_chosen });
    }

    fn budget(&self) -> MutexGuard<'_, ProbeBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, GuessLedger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
