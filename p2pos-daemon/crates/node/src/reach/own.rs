//! What we are to others: the addresses that might reach us, and what our NAT does.
//!
//! Three sources: the machine's interfaces, the routers that were asked for mappings, and every peer's word about the
//! address that it sees us at. One task gathers them and publishes one picture, which each connection's steering tells its
//! peer. On a change of the network everything that others said is forgotten.
//!
//! Refuses to know: peers by name, what is done with the picture.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use p2pos_connectivity::{
    Gateway, Mapper, MappingReport, MappingState, NetworkState, NetworkWatch, routers_toward, worth_telling,
};
use p2pos_traversal::{
    Candidate, CandidateKind, CandidateSet, LoopbackPolicy, Scope,
    opener::layers_of,
    scope_of,
    signal::NatReport,
    verdict::{BehaviorDiscovery, NatVerdict, Observation},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// Words of peers that wait to be looked at. More are dropped: peers repeat themselves with every new path.
const WORDS_QUEUE: usize = 64;
/// Longest time to ask the routers on the way: a second each, all at once.
const HOPS_WAIT: Duration = Duration::from_secs(3);

/// What we are to others, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Own {
    /// Where we might be reached.
    pub(crate) candidates: Vec<Candidate>,
    /// What our NAT does; of IPv4, since IPv6 has none.
    pub(crate) report: NatReport,
    /// The same in full, for people.
    pub(crate) verdict_v4: NatVerdict,
    /// What stands before our IPv6 addresses.
    pub(crate) verdict_v6: NatVerdict,
    /// The outside port that was seen last; 0 if none was.
    pub(crate) last_port: u16,
    /// Our address as the world sees it, if anybody told.
    pub(crate) seen_at: Option<IpAddr>,
    /// Counts changes of the network that matter.
    pub(crate) network: u64,
    /// Whether the last of them took an address from us that sockets may be bound to.
    pub(crate) has_lost_address: bool,
    /// The machine's addresses and gateways.
    pub(crate) machine: NetworkState,
    /// What each router said.
    pub(crate) mappings: Vec<MappingReport>,
}

/// What the task is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Word {
    /// A peer at `observer` sees us at `external`. `is_chosen`: the user knows the peer.
    Observed { observer: SocketAddr, external: SocketAddr, is_chosen: bool },
    /// A packet from outside came through a mapping, or did not.
    Verified { external: SocketAddr, came_through: bool },
    /// So long our NAT remembers an unused binding.
    Lifetime(Duration),
}

/// The way to the task.
#[derive(Debug, Clone)]
pub(crate) struct OwnHandle {
    words: mpsc::Sender<Word>,
    picture: watch::Receiver<Own>,
}

impl OwnHandle {
    /// Tells the task something; it is dropped if the task is behind, since peers repeat themselves.
    pub(crate) fn tell(&self, word: Word) {
        if self.words.try_send(word).is_err() {
            tracing::trace!("a peer's word about our address was dropped");
        }
    }

    /// The present picture; changes wake the receiver.
    pub(crate) fn picture(&self) -> watch::Receiver<Own> {
        self.picture.clone()
    }
}

/// What the task is started with.
#[derive(Debug)]
pub(crate) struct OwnSettings {
    /// Our sockets, as bound.
    pub(crate) sockets: Vec<SocketAddr>,
    /// Whether routers are asked for mappings.
    pub(crate) asks_routers: bool,
}

/// Starts the task, which ends when the last handle is gone or `closed` becomes true.
pub(crate) fn start(settings: OwnSettings, closed: watch::Receiver<bool>) -> OwnHandle {
    let (words, receiver) = mpsc::channel(WORDS_QUEUE);
    let (publish, picture) = watch::channel(Own::default());
    tokio::spawn(Task::new(settings, publish).run(receiver, closed));
    OwnHandle { words, picture }
}

/// What makes a network another one.
#[derive(Debug, PartialEq, Eq)]
struct Here {
    addresses: Vec<IpAddr>,
    gateways: Vec<Gateway>,
}

impl Here {
    fn of(machine: &NetworkState) -> Self {
        // The port does not matter; it must only be one.
        let worth = worth_telling(&machine.addresses, 1, Scope::Link);
        let addresses = worth.iter().map(|candidate| candidate.addr.ip()).collect();
        Self { addresses, gateways: machine.gateways.clone() }
    }
}

struct Task {
    sockets: Vec<SocketAddr>,
    v4: BehaviorDiscovery,
    v6: BehaviorDiscovery,
    /// What a peer that the user knows says, while nobody else says anything.
    hint: Option<SocketAddr>,
    last_port: u16,
    network: u64,
    has_lost_address: bool,
    /// The network that we are in: addresses worth telling, and gateways.
    here: Here,
    watch: NetworkWatch,
    mapper: Option<Mapper>,
    /// The question how many routers stand before us; asked once for each network.
    hops: JoinSet<Option<u8>>,
    are_hops_asked: bool,
    publish: watch::Sender<Own>,
}

impl Task {
    fn new(settings: OwnSettings, publish: watch::Sender<Own>) -> Self {
        let mapper = settings
            .sockets
            .iter()
            .find(|socket| settings.asks_routers && !socket.ip().is_loopback())
            .map(|socket| Mapper::start(socket.port()));
        let watch = NetworkWatch::start();
        let here = Here::of(&watch.states().borrow());
        Self {
            sockets: settings.sockets,
            v4: BehaviorDiscovery::new(),
            v6: BehaviorDiscovery::new(),
            hint: None,
            last_port: 0,
            network: 0,
            has_lost_address: false,
            here,
            watch,
            mapper,
            hops: JoinSet::new(),
            are_hops_asked: false,
            publish,
        }
    }

    async fn run(mut self, mut words: mpsc::Receiver<Word>, mut closed: watch::Receiver<bool>) {
        let mut machine = self.watch.states();
        let mut mappings = self.mapper.as_ref().map(Mapper::reports);
        self.paint();
        loop {
            let expiry = [self.v4.poll_timeout(), self.v6.poll_timeout()].into_iter().flatten().min();
            tokio::select! {
                () = until_true(&mut closed) => break,
                word = words.recv() => match word {
                    Some(word) => self.hear(word).await,
                    None => break,
                },
                Ok(()) = machine.changed() => self.network_changed().await,
                true = changed(mappings.as_mut()) => {}
                Some(Ok(layers)) = self.hops.join_next() => self.count_layers(layers),
                () = sleep_until_some(expiry.map(Instant::from_std)) => {}
            }
            self.paint();
        }
        if let Some(mapper) = self.mapper.take() {
            mapper.stop().await;
        }
    }

    async fn hear(&mut self, word: Word) {
        match word {
            Word::Observed { observer, external, is_chosen } => {
                self.observed(observer, external, is_chosen).await;
            }
            Word::Verified { external, came_through } => {
                if let Some(mapper) = &self.mapper {
                    mapper.verified(external, came_through).await;
                }
            }
            Word::Lifetime(lifetime) => self.v4.handle_lifetime(lifetime),
        }
    }

    async fn observed(&mut self, observer: SocketAddr, external: SocketAddr, is_chosen: bool) {
        let Some(local) = self.sockets.iter().copied().find(|own| own.is_ipv4() == external.is_ipv4()) else {
            return;
        };
        let at = Instant::now().into_std();
        let discovery = if external.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        discovery.handle_observation(Observation { observer, local, external, at });
        let (IpAddr::V4(from), Scope::Global, Scope::Global) =
            (observer.ip(), scope_of(observer.ip()), scope_of(external.ip()))
        else {
            return;
        };
        self.last_port = external.port();
        if is_chosen {
            self.hint = Some(external);
        }
        if !self.are_hops_asked {
            self.are_hops_asked = true;
            self.hops.spawn(count_routers(from, self.only_gateway()));
        }
        if let Some(mapper) = &self.mapper {
            mapper.observed(external.ip(), from).await;
        }
    }

    /// The first router on every way, if there is one only.
    fn only_gateway(&self) -> Option<Ipv4Addr> {
        let mut gateways = self.here.gateways.iter().filter_map(|gateway| match gateway.ip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        gateways.next().filter(|_| gateways.next().is_none())
    }

    fn count_layers(&mut self, layers: Option<u8>) {
        if let Some(layers) = layers {
            self.v4.handle_layers(layers);
        }
    }

    /// Looks whether the change is one for us: a container's bridge that comes and goes is not.
    async fn network_changed(&mut self) {
        let here = Here::of(&self.watch.states().borrow());
        if here == self.here {
            return;
        }
        self.has_lost_address = self.here.addresses.iter().any(|ip| !here.addresses.contains(ip));
        self.here = here;
        self.network += 1;
        self.v4.handle_network_change();
        self.v6.handle_network_change();
        self.hint = None;
        self.last_port = 0;
        self.hops.abort_all();
        self.are_hops_asked = false;
        if let Some(mapper) = &self.mapper {
            mapper.network_changed().await;
        }
    }

    /// Draws the picture anew, and publishes it if it is another one.
    fn paint(&self) {
        let now = Instant::now().into_std();
        let machine = self.watch.states().borrow().clone();
        let mappings =
            self.mapper.as_ref().map(|mapper| mapper.reports().borrow().clone()).unwrap_or_default();
        let (verdict_v4, verdict_v6) = (self.v4.verdict(now), self.v6.verdict(now));
        let is_mapped = verified(&mappings).next().is_some();
        let own = Own {
            candidates: self.candidates(&machine, &mappings, [&verdict_v4, &verdict_v6]),
            report: verdict_v4.to_report(is_mapped),
            seen_at: verdict_v4.external.or(self.hint).map(|external| external.ip()),
            verdict_v4,
            verdict_v6,
            last_port: self.last_port,
            network: self.network,
            has_lost_address: self.has_lost_address,
            machine,
            mappings,
        };
        self.publish.send_if_modified(|before| {
            let has_changed = *before != own;
            *before = own;
            has_changed
        });
    }

    fn candidates(
        &self,
        machine: &NetworkState,
        mappings: &[MappingReport],
        verdicts: [&NatVerdict; 2],
    ) -> Vec<Candidate> {
        let mut set = CandidateSet::new();
        let mut add = |addr, kind| {
            // What nobody should send to is not told, and is no error of ours.
            set.add(Candidate { addr, kind }, LoopbackPolicy::Refused).ok();
        };
        for external in verified(mappings) {
            add(external, CandidateKind::Mapped);
        }
        let agreed = verdicts.iter().filter_map(|verdict| verdict.external);
        // The word of one peer that the user chose is enough where nobody agrees: at a dependent mapping the port is
        // wrong and the address right, and a liar could only have us probed.
        let hint = self.hint.filter(|_| verdicts[0].external.is_none());
        for external in agreed.chain(hint) {
            add(external, CandidateKind::Observed);
        }
        for socket in self.sockets.iter().filter(|socket| !socket.ip().is_loopback()) {
            let of_family = |addr: &SocketAddr| addr.is_ipv4() == socket.is_ipv4();
            let bound = |addr: &SocketAddr| socket.ip().is_unspecified() || addr.ip() == socket.ip();
            for candidate in worth_telling(&machine.addresses, socket.port(), Scope::Lan) {
                if of_family(&candidate.addr) && bound(&candidate.addr) {
                    add(candidate.addr, CandidateKind::Host);
                }
            }
        }
        set.as_slice().to_vec()
    }
}

/// Where routers let packets in for us, as far as that was seen to work.
fn verified(mappings: &[MappingReport]) -> impl Iterator<Item = SocketAddr> {
    mappings.iter().filter_map(|report| match report.state {
        MappingState::Mapped { external, is_verified: true, .. } => Some(external),
        MappingState::Mapped { is_verified: false, .. }
        | MappingState::Asking
        | MappingState::Absent { .. }
        | MappingState::Refused { .. } => None,
    })
}

/// How many translating routers stand before us, on the way to somebody.
async fn count_routers(toward: Ipv4Addr, gateway: Option<Ipv4Addr>) -> Option<u8> {
    let ips = |routers: &[Option<Ipv4Addr>]| -> Vec<Option<IpAddr>> {
        routers.iter().map(|router| router.map(IpAddr::V4)).collect()
    };
    let is_enough = |routers: &[Option<Ipv4Addr>]| layers_of(&ips(routers)).is_some();
    let routers = timeout(HOPS_WAIT, routers_toward(toward, gateway, is_enough)).await.ok()?;
    layers_of(&ips(&routers))
}

async fn until_true(closed: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could close: that is an end, too.
    closed.wait_for(|closed| *closed).await.ok();
}

/// Waits for a change; for ever where nothing can change any more.
async fn changed<T>(receiver: Option<&mut watch::Receiver<T>>) -> bool {
    if let Some(receiver) = receiver
        && receiver.changed().await.is_ok()
    {
        return true;
    }
    std::future::pending().await
}

async fn sleep_until_some(alarm: Option<Instant>) {
    match alarm {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
