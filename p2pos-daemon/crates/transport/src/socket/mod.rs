//! The one abstract socket that noq sees, over at most one real UDP socket per address family.
//!
//! Owns the real sockets, the table of made-up addresses, the decision by which way a packet leaves, the removal of packets
//! that are not QUIC, and the silence towards strangers. Refuses to know connections and peers. noq is told that the socket
//! is IPv6; IPv4 addresses cross the border in mapped form (RFC 4291 s2.5.5.2), so one endpoint serves both families, either
//! of which may be missing.
//!
//! The parts: [`family`] binds and drives one real socket, [`families`] both; [`sender`] is what noq's tasks write to and
//! [`receiver`] what its endpoint reads from; [`forwarding`] what a relay sends on; [`ways`] adds and removes made-up
//! addresses; this file holds what all share.

mod counters;
mod doors;
mod families;
mod family;
mod forwarding;
mod message;
mod receiver;
mod sender;
mod ways;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use bytes::Bytes;
use noq::{FourTuple, NetworkChangeHint, PathId};
use p2pos_noise_quic::probe::StrangerFilter;
use tokio::sync::{Notify, mpsc};

use self::doors::Doors;
use crate::{
    error::BindError,
    forward::Forwarder,
    mux::{
        fake::{FakeAddr, FakeKind},
        probe::{Gate, Probes},
        routes::Routes,
    },
    probing::{Leave, Networks, Restraint, Window},
    recents::Recents,
    tuning::RESET_GRACE_AFTER_START,
};

use counters::Counters;
use families::Families;
use family::Family;

pub use counters::SocketCounters;
pub(crate) use families::Listen;
pub(crate) use receiver::Mux;

/// Packets of TCP relays that wait for noq. Beyond that TCP is not read, and the relay keeps or drops them.
const TCP_PACKETS_WAITING_MAX: usize = 256;

/// How often a rebuilt socket tries to get its old port back before it takes another one, and the wait between: whoever
/// still waits for the old socket lets go at its next turn, which is a matter of milliseconds.
const SAME_PORT_REBIND_TRIES: u32 = 20;
const SAME_PORT_REBIND_WAIT: Duration = Duration::from_millis(5);

/// A socket of its own whose NAT binding the peer has hit: all it carries goes to and comes from one address.
#[derive(Debug)]
pub(crate) struct Guess {
    fake: FakeAddr,
    family: Arc<Family>,
    /// In its own family's form.
    remote: SocketAddr,
}

/// A packet that came by TCP.
#[derive(Debug)]
pub(crate) struct Inbound {
    source: SocketAddr,
    packet: Bytes,
}

/// What the mux, its senders and the endpoint share.
pub(crate) struct Shared {
    listen: Listen,
    callers: StrangerFilter,
    families: RwLock<Families>,
    routes: RwLock<Routes<Guess>>,
    gate: Mutex<Gate>,
    /// Until somebody takes it.
    probes: Mutex<Option<Probes>>,
    inbound: mpsc::Sender<Inbound>,
    tcp_relays: AtomicU64,
    /// Set once, if this daemon may forward for others.
    forwarder: OnceLock<Arc<Forwarder>>,
    /// From which of our addresses forwarded frames leave.
    doors: Mutex<Doors>,
    /// Whether a task waits for the socket of a family, IPv4 first, to send what was forwarded.
    flushing: [AtomicBool; 2],
    /// noq's endpoint task, to be woken when there is another socket to read.
    reader: Mutex<Option<Waker>>,
    /// Raised by a socket that breaks.
    alarm: Arc<Notify>,
    recents: Mutex<Recents>,
    restraint: Mutex<Restraint>,
    window: Window,
    networks: Mutex<Networks>,
    started: Instant,
    closing: AtomicBool,
    /// noq's endpoint makes its own sender before any connection's: the first one answers strangers.
    has_responder: AtomicBool,
    counters: Counters,
}

impl Shared {
    /// Binds the sockets. Must be called within a tokio runtime. `callers` knows who may reach QUIC.
    pub(crate) fn bind(listen: Listen, callers: StrangerFilter) -> Result<(Arc<Self>, Mux), BindError> {
        let alarm = Arc::default();
        let families = Families::bind(listen, &alarm)?;
        let (gate, probes) = Gate::new(now());
        let (inbound, packets) = mpsc::channel(TCP_PACKETS_WAITING_MAX);
        let shared = Arc::new(Self {
            listen,
            callers,
            families: RwLock::new(families),
            routes: RwLock::default(),
            gate: Mutex::new(gate),
            probes: Mutex::new(Some(probes)),
            inbound,
            tcp_relays: AtomicU64::new(0),
            forwarder: OnceLock::new(),
            doors: Mutex::default(),
            flushing: Default::default(),
            reader: Mutex::default(),
            alarm,
            recents: Mutex::default(),
            restraint: Mutex::new(Restraint::new(now())),
            window: Window::default(),
            networks: Mutex::default(),
            started: now(),
            closing: AtomicBool::new(false),
            has_responder: AtomicBool::new(false),
            counters: Counters::default(),
        });
        let mux = Mux::new(shared.clone(), packets);
        Ok((shared, mux))
    }

    /// Builds anew every socket that is missing or broken, on the port it had where that is still free.
    pub(crate) fn heal(&self) -> Result<(), BindError> {
        let healed = self.families_mut().heal(self.listen, &self.alarm);
        self.wake_reader();
        healed
    }

    /// Closes all sockets, guess sockets too, and binds new ones: on the old port if it can be had within a tenth of a
    /// second, else on another unless the port is the user's.
    ///
    /// If dropped in between, the sockets are missing, which [`Shared::broken`] says.
    pub(crate) async fn rebuild(self: &Arc<Self>) -> Result<(), BindError> {
        lock(&self.doors).forget();
        self.routes_mut().remove_guesses();
        let port = self.families().port();
        self.families_mut().take_down();
        let unfinished = Unfinished { shared: self };
        let rebuilt = self.bind_again(port).await;
        drop(unfinished);
        self.wake_reader();
        self.bind_flows_anew();
        rebuilt
    }

    /// Binds what was taken down, on `port` if possible.
    async fn bind_again(&self, port: Option<u16>) -> Result<(), BindError> {
        let wish = Listen { port: self.listen.port.or(port), ..self.listen };
        let mut tries = 1;
        loop {
            // The lock ends with this line, and not with the wait below.
            let healed = self.families_mut().heal(wish, &self.alarm);
            match healed {
                Err(BindError::PortTaken { .. }) if tries < SAME_PORT_REBIND_TRIES => {
                    tries += 1;
                    tokio::time::sleep(SAME_PORT_REBIND_WAIT).await;
                }
                Err(BindError::PortTaken { .. }) if self.listen.port.is_none() => {
                    return self.families_mut().bind_anew(self.listen, &self.alarm);
                }
                other => return other,
            }
        }
    }

    /// Waits until a socket does not work; at once if that is so. Cancel-safe.
    pub(crate) async fn broken(&self) {
        while self.families().is_whole() {
            self.alarm.notified().await;
        }
    }

    /// The addresses of the real sockets.
    pub(crate) fn local_addresses(&self) -> Vec<SocketAddr> {
        self.families().all().map(|family| family.local()).collect()
    }

    /// Whether there is a socket, or a way, to the address.
    pub(crate) fn can_reach(&self, remote: SocketAddr) -> bool {
        match FakeAddr::of(remote.ip()) {
            Some(fake) => self.routes().get(fake).is_some(),
            None => self.family_for(remote.ip().to_canonical()).is_some(),
        }
    }

    /// Notes a partner of a connection, who may get a stateless reset from now on.
    pub(crate) fn note_partner(&self, remote: SocketAddr) {
        self.recents().note(mapped_address(remote), now());
    }

    /// While the answer lives, `to` is dialled by our own decision.
    pub(crate) fn dialling(self: &Arc<Self>, to: SocketAddr) -> Dialling {
        let to = real_address(to);
        lock(&self.restraint).begin_dial(to);
        Dialling { shared: self.clone(), to }
    }

    /// Whether `packets` QUIC packets may leave for a real address.
    fn may_leave(&self, to: SocketAddr, packets: usize) -> Leave {
        let packets = u32::try_from(packets).unwrap_or(u32::MAX);
        let is_ours = |ip| {
            let bound: Vec<IpAddr> = self.families().all().map(|family| family.local().ip()).collect();
            lock(&self.networks).contain(ip, &bound, now())
        };
        lock(&self.restraint).judge((to, packets), &self.window, now(), is_ours)
    }

    /// Notes that QUIC packets came from a real address, to `at` of ours.
    fn note_heard(&self, from: SocketAddr, at: Option<IpAddr>) {
        if self.forwarder.get().is_some() {
            self.note_door(from, at);
        }
        lock(&self.restraint).note_heard(from, &self.window, now());
    }

    /// From now on the endpoint's own answers (not those of its connections) stay unsent: nobody gets a refusal from a
    /// daemon that is leaving.
    pub(crate) fn fall_silent(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub(crate) fn counters(&self) -> SocketCounters {
        self.counters.read()
    }

    /// Whether the endpoint itself may answer `remote` with `packet`.
    ///
    /// Such an answer is a Retry or a close (long header: the asker's packet was encrypted to us, so it knows our PeerId) or
    /// a stateless reset (short header). A reset goes to partners of the last minutes; and, shortly after a start, to
    /// whoever holds a connection id that only this identity can have made, which noq has checked
    /// by then ([`cid_generator`](p2pos_noise_quic::cid_generator)).
    fn may_answer(&self, remote: SocketAddr, packet: &[u8]) -> bool {
        const LONG_HEADER: u8 = 0x80;
        if self.closing.load(Ordering::Relaxed) {
            return false;
        }
        let is_reset = packet.first().is_some_and(|first| first & LONG_HEADER == 0);
        let now = now();
        !is_reset
            || now.duration_since(self.started) < RESET_GRACE_AFTER_START
            || self.recents().contains(mapped_address(remote), now)
    }

    /// Has noq look at all sockets again, because there is a new one.
    fn wake_reader(&self) {
        if let Some(reader) = lock(&self.reader).take() {
            reader.wake();
        }
    }

    fn recents(&self) -> MutexGuard<'_, Recents> {
        lock(&self.recents)
    }

    fn families(&self) -> RwLockReadGuard<'_, Families> {
        self.families.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn families_mut(&self) -> RwLockWriteGuard<'_, Families> {
        self.families.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes(&self) -> RwLockReadGuard<'_, Routes<Guess>> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes_mut(&self) -> RwLockWriteGuard<'_, Routes<Guess>> {
        self.routes.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn family_for(&self, remote: IpAddr) -> Option<Arc<Family>> {
        self.families().of(remote)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Tells whoever watches the sockets that a rebuilding was left halfway, or is done: both are worth a look.
struct Unfinished<'a> {
    shared: &'a Shared,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.shared.alarm.notify_one();
    }
}

/// An address that we dial; see [`Shared::dialling`].
#[derive(Debug)]
pub(crate) struct Dialling {
    shared: Arc<Shared>,
    to: SocketAddr,
}

impl Drop for Dialling {
    fn drop(&mut self) {
        lock(&self.shared.restraint).end_dial(self.to);
    }
}

/// Tells noq which paths live on after a change of the network.
///
/// A path through a relay does: the relay binds our new address to the flow, and the peer notices nothing. A plain path does, too:
/// the peer takes our new address for what it is (RFC 9000 s9). Opened anew to the same address it would count as proven without
/// having been tried; where the peer has moved as well, what we say on such a path, of which the peer never hears, is lost for
/// seconds, since QUIC neither knows that nor can take it back.
#[derive(Debug)]
pub(crate) struct Survivors {
    pub(crate) shared: Arc<Shared>,
}

impl NetworkChangeHint for Survivors {
    fn is_path_recoverable(&self, _: PathId, path: FourTuple) -> bool {
        let remote = real_address(path.remote());
        match FakeAddr::of(remote.ip()).map(|fake| (fake.kind(), self.shared.can_reach(remote))) {
            Some((FakeKind::Relay | FakeKind::TcpRelay, is_there)) => is_there,
            Some((FakeKind::Guess | FakeKind::Peer, _)) => false,
            None => true,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtime's clock, which tests can bend.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// An address in the form in which noq sees it.
fn mapped_address(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => address,
    }
}

fn mapped_ip(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    }
}

/// An address as its own family writes it.
pub(crate) fn real_address(address: SocketAddr) -> SocketAddr {
    match (address, address.ip().to_canonical()) {
        (SocketAddr::V6(_), ip @ IpAddr::V4(_)) => SocketAddr::new(ip, address.port()),
        (SocketAddr::V6(_), IpAddr::V6(_)) | (SocketAddr::V4(_), _) => address,
    }
}

/// Whether anything may be sent to a real address: not to groups, not to nobody.
pub(crate) fn is_sendable(address: SocketAddr) -> bool {
    let is_somebody = match address.ip() {
        IpAddr::V4(ip) => !ip.is_broadcast() && !ip.is_multicast() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unspecified(),
    };
    is_somebody && address.port() != 0
}

#[cfg(test)]
mod tests {
    use std::{io, net::Ipv4Addr};

    use p2pos_identity::SecretKey;
    use p2pos_traversal::{Candidate, CandidateKind};
    use tokio::time::timeout;

    use super::*;

    const RESET: &[u8] = &[0x41; 40];
    const RETRY: &[u8] = &[0xf0; 80];

    fn shared() -> Arc<Shared> {
        let listen = Listen { port: None, ipv4: Some(Ipv4Addr::LOCALHOST), ipv6: None };
        Shared::bind(listen, StrangerFilter::new(&SecretKey::from_seed([1; 32]))).unwrap().0
    }

    #[tokio::test(start_paused = true)]
    async fn resets_go_to_anyone_shortly_after_a_start_and_then_to_late_partners_only() {
        let shared = shared();
        let partner = SocketAddr::from(([192, 0, 2, 1], 1));
        let stranger = SocketAddr::from(([192, 0, 2, 2], 1));
        assert!(shared.may_answer(stranger, RESET));
        tokio::time::advance(RESET_GRACE_AFTER_START).await;
        shared.note_partner(partner);
        assert!(shared.may_answer(partner, RESET));
        assert!(shared.may_answer(mapped_address(partner), RESET));
        assert!(!shared.may_answer(stranger, RESET));
        assert!(
            shared.may_answer(stranger, RETRY),
            "only callers who know our PeerId are asked to prove their address"
        );
        shared.fall_silent();
        assert!(!shared.may_answer(partner, RESET) && !shared.may_answer(stranger, RETRY));
    }

    #[tokio::test]
    async fn the_first_sender_that_noq_makes_is_the_one_that_answers_strangers() {
        let mut config = crate::Config::new(Arc::new(SecretKey::from_seed([1; 32])));
        config.ipv4 = Some(Ipv4Addr::LOCALHOST);
        config.ipv6 = None;
        let endpoint = crate::Endpoint::bind(&config).unwrap();
        assert!(
            endpoint.shared().has_responder.load(Ordering::Relaxed),
            "made before there is any connection"
        );
    }

    #[tokio::test]
    async fn a_broken_socket_is_bound_anew_on_its_port() {
        let shared = shared();
        let before = shared.local_addresses();
        shared.family_for(before[0].ip()).unwrap().give_up(&io::Error::other("the interface is gone"));
        shared.heal().unwrap();
        assert_eq!(shared.local_addresses(), before);
        assert!(!shared.family_for(before[0].ip()).unwrap().is_broken());
    }

    #[tokio::test]
    async fn a_port_that_is_gone_for_good_is_given_up_and_the_connection_moves_to_another() {
        let endpoint = |seed| {
            let mut config = crate::Config::new(Arc::new(SecretKey::from_seed([seed; 32])));
            config.ipv4 = Some(Ipv4Addr::LOCALHOST);
            config.ipv6 = None;
            crate::Endpoint::bind(&config).unwrap()
        };
        let (a, b) = (endpoint(1), endpoint(2));
        let candidate = Candidate { addr: b.local_addresses()[0], kind: CandidateKind::Manual };
        let (candidates, timeline) = ([candidate], crate::Timeline::default());
        let both = async { tokio::join!(a.dial(b.peer_id(), &candidates, &timeline), b.accept()) };
        let (dialed, accepted) = timeout(Duration::from_secs(20), both).await.unwrap();
        let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());

        let before = a.local_addresses()[0];
        a.shared().families_mut().take_down();
        let thief = loop {
            // Whoever waited for the old socket lets go at its next turn.
            tokio::task::yield_now().await;
            if let Ok(thief) = std::net::UdpSocket::bind(before) {
                break thief;
            }
        };
        a.shared().bind_again(Some(before.port())).await.unwrap();
        let after = a.local_addresses()[0];
        assert_ne!(after, before);
        a.network_changed().unwrap();
        let moved = async {
            while accepted.path().unwrap().remote != after {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(20), moved).await.unwrap();
        assert!(dialed.lost().is_none());
        drop(thief);
    }

    #[tokio::test]
    async fn a_socket_that_breaks_is_told_of_and_packets_flow_again_once_it_is_healed() {
        let endpoint = |seed| {
            let mut config = crate::Config::new(Arc::new(SecretKey::from_seed([seed; 32])));
            config.ipv4 = Some(Ipv4Addr::LOCALHOST);
            config.ipv6 = None;
            crate::Endpoint::bind(&config).unwrap()
        };
        let (a, b) = (endpoint(1), endpoint(2));
        let brief = Duration::from_millis(20);
        assert!(timeout(brief, b.broken()).await.is_err(), "all is well");
        let address = b.local_addresses()[0];
        b.shared().family_for(address.ip()).unwrap().give_up(&io::Error::other("the interface is gone"));
        timeout(Duration::from_secs(20), b.broken()).await.unwrap();
        b.network_changed().unwrap();
        assert!(timeout(brief, b.broken()).await.is_err(), "all is well again");
        let candidate = Candidate { addr: address, kind: CandidateKind::Manual };
        let (candidates, timeline) = ([candidate], crate::Timeline::default());
        let both = async { tokio::join!(a.dial(b.peer_id(), &candidates, &timeline), b.accept()) };
        let (dialed, accepted) = timeout(Duration::from_secs(20), both).await.unwrap();
        assert!(dialed.is_ok() && accepted.is_some());
    }

    #[tokio::test]
    async fn who_ends_a_long_connection_is_a_late_partner() {
        let endpoint = |seed| {
            let mut config = crate::Config::new(Arc::new(SecretKey::from_seed([seed; 32])));
            config.ipv4 = Some(Ipv4Addr::LOCALHOST);
            config.ipv6 = None;
            crate::Endpoint::bind(&config).unwrap()
        };
        let (a, b) = (endpoint(1), endpoint(2));
        let address = b.local_addresses()[0];
        let (candidates, timeline) =
            ([Candidate { addr: address, kind: CandidateKind::Manual }], crate::Timeline::default());
        let both = async { tokio::join!(a.dial(b.peer_id(), &candidates, &timeline), b.accept()) };
        let (dialed, accepted) = timeout(Duration::from_secs(20), both).await.unwrap();
        let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
        // Longer than a partner is remembered, in one leap.
        tokio::time::pause();
        tokio::time::advance(crate::tuning::RECENT_REMOTE_AGE_MAX + RESET_GRACE_AFTER_START).await;
        tokio::time::resume();
        assert!(!a.shared().may_answer(address, RESET));
        accepted.close(p2pos_peer_protocol::EndCode::IDLE);
        assert!(timeout(Duration::from_secs(20), dialed.accept_stream()).await.unwrap().is_err());
        assert!(a.shared().may_answer(address, RESET), "it may not have noticed the end");
    }

    #[tokio::test]
    async fn a_family_that_could_not_be_bound_anew_still_counts_as_broken() {
        let shared = shared();
        let address = shared.local_addresses()[0];
        shared.family_for(address.ip()).unwrap().give_up(&io::Error::other("the interface is gone"));
        // The wait for the kernel's buffer may keep the old socket, and with it the port, a moment longer.
        let keeper = shared.family_for(address.ip());
        assert!(matches!(shared.heal(), Err(BindError::PortTaken { local }) if local == address));
        timeout(Duration::from_secs(20), shared.broken()).await.unwrap();
        drop(keeper);
        shared.heal().unwrap();
        assert!(shared.families().is_whole());
    }
}
