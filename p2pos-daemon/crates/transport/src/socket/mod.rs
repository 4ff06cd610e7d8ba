//! The one abstract socket that noq sees, over at most one real UDP socket per address family.
//!
//! Owns the real sockets, the decision which family a packet leaves by, the removal of packets that are not QUIC, and the
//! silence towards strangers. Refuses to know connections and peers. noq is told that the socket is IPv6; IPv4 addresses
//! cross the border in mapped form (RFC 4291 s2.5.5.2), so one endpoint serves both families, either of which may be missing.
//!
//! The parts: [`family`] binds and drives one real socket; [`sender`] is what noq's tasks write to; this file merges
//! receiving and holds what all parts share.

mod family;
mod sender;

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use noq::{AsyncUdpSocket, UdpSender};
use noq_udp::RecvMeta;
use p2pos_noise_quic::probe::StrangerFilter;
use tokio::sync::Notify;

use crate::{
    classify::{Class, keep_quic},
    error::BindError,
    recents::Recents,
    tuning::{RESET_GRACE_AFTER_START, UDP_PAYLOAD_BYTES_MAX},
};

use family::Family;
use sender::{Role, Sender};

/// Where to listen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listen {
    pub(crate) port: Option<u16>,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

/// How often to look for a port that is free in both families before living with two different ones.
const SAME_PORT_TRIES: usize = 8;

/// The real sockets of this moment.
#[derive(Debug, Default)]
struct Families {
    v4: Option<Arc<Family>>,
    v6: Option<Arc<Family>>,
    /// Whether this machine has ever had the family: if so, to be without it is damage.
    expects_v4: bool,
    expects_v6: bool,
}

/// What the mux, its senders and the endpoint share.
pub(crate) struct Shared {
    listen: Listen,
    callers: StrangerFilter,
    families: RwLock<Families>,
    /// Raised by a socket that breaks.
    alarm: Arc<Notify>,
    recents: Mutex<Recents>,
    started: Instant,
    closing: AtomicBool,
    /// noq's endpoint makes its own sender before any connection's: the first one answers strangers.
    has_responder: AtomicBool,
    counters: Counters,
}

/// Datagrams that did not go the ordinary way, since the start.
#[derive(Debug, Default)]
struct Counters {
    relay: AtomicU64,
    probe: AtomicU64,
    unwanted_quic: AtomicU64,
    unknown: AtomicU64,
    answers_withheld: AtomicU64,
    send_failures: AtomicU64,
    receive_failures: AtomicU64,
}

/// A reading of the socket's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SocketCounters {
    /// Relay frames dropped, because nothing relays yet.
    pub relay: u64,
    /// Openers, guesses and knocks dropped, because nothing punches yet.
    pub probe: u64,
    /// QUIC packets of foreign versions, with connection ids too short to be ours, or not made with our PeerId.
    pub unwanted_quic: u64,
    /// Datagrams that are nothing we know.
    pub unknown: u64,
    /// Answers of the endpoint to strangers that were not sent.
    pub answers_withheld: u64,
    /// Batches that the kernel refused to send.
    pub send_failures: u64,
    /// Errors while receiving.
    pub receive_failures: u64,
}

impl Shared {
    /// Binds the sockets. Must be called within a tokio runtime. `callers` knows who may reach QUIC.
    pub(crate) fn bind(listen: Listen, callers: StrangerFilter) -> Result<Arc<Self>, BindError> {
        let alarm = Arc::default();
        let families = bind_families(listen, &alarm)?;
        Ok(Arc::new(Self {
            listen,
            callers,
            families: RwLock::new(families),
            alarm,
            recents: Mutex::default(),
            started: now(),
            closing: AtomicBool::new(false),
            has_responder: AtomicBool::new(false),
            counters: Counters::default(),
        }))
    }

    /// Builds anew every socket that is missing or broken, on the port it had where that is still free.
    pub(crate) fn heal(&self) -> Result<(), BindError> {
        let mut families = self.families.write().unwrap_or_else(PoisonError::into_inner);
        let ports = families.ports();
        let port = self.listen.port.or(ports);
        let (ipv4, ipv6) = (self.listen.ipv4.map(IpAddr::V4), self.listen.ipv6.map(IpAddr::V6));
        // The failure of one family must not keep the other from healing.
        let healed = [
            heal_one(&mut families.v6, ipv6, port, &self.alarm),
            heal_one(&mut families.v4, ipv4, port, &self.alarm),
        ];
        families.expects_v4 |= families.v4.is_some();
        families.expects_v6 |= families.v6.is_some();
        let is_empty = families.is_empty();
        healed.into_iter().collect::<Result<(), BindError>>()?;
        if is_empty { Err(BindError::NoFamily) } else { Ok(()) }
    }

    /// Waits until a socket does not work; at once if that is so. Cancel-safe.
    pub(crate) async fn broken(&self) {
        while self.is_whole() {
            self.alarm.notified().await;
        }
    }

    fn is_whole(&self) -> bool {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        [(&families.v4, families.expects_v4), (&families.v6, families.expects_v6)].into_iter().all(
            |(family, is_expected)| match family {
                Some(family) => !family.is_broken(),
                None => !is_expected,
            },
        )
    }

    /// The addresses of the real sockets.
    pub(crate) fn local_addresses(&self) -> Vec<SocketAddr> {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        [&families.v4, &families.v6].into_iter().flatten().map(|family| family.local()).collect()
    }

    /// Whether a socket of the address's family exists.
    pub(crate) fn can_reach(&self, remote: SocketAddr) -> bool {
        self.family_for(remote.ip().to_canonical()).is_some()
    }

    /// Notes a partner of a connection, who may get a stateless reset from now on.
    pub(crate) fn note_partner(&self, remote: SocketAddr) {
        self.recents().note(mapped_address(remote), now());
    }

    /// From now on the endpoint's own answers (not those of its connections) stay unsent: nobody gets a refusal from a
    /// daemon that is leaving.
    pub(crate) fn fall_silent(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub(crate) fn counters(&self) -> SocketCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SocketCounters {
            relay: read(&self.counters.relay),
            probe: read(&self.counters.probe),
            unwanted_quic: read(&self.counters.unwanted_quic),
            unknown: read(&self.counters.unknown),
            answers_withheld: read(&self.counters.answers_withheld),
            send_failures: read(&self.counters.send_failures),
            receive_failures: read(&self.counters.receive_failures),
        }
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

    fn recents(&self) -> MutexGuard<'_, Recents> {
        self.recents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn family_for(&self, remote: IpAddr) -> Option<Arc<Family>> {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        match remote {
            IpAddr::V4(_) => families.v4.clone(),
            IpAddr::V6(_) => families.v6.clone(),
        }
    }

    fn count_dropped(&self, class: Class) {
        let counter = match class {
            Class::Quic => return,
            Class::Relay => &self.counters.relay,
            Class::Probe => &self.counters.probe,
            Class::UnwantedQuic => &self.counters.unwanted_quic,
            Class::Unknown => &self.counters.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl Families {
    fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// The port in use, of either family.
    fn ports(&self) -> Option<u16> {
        self.v6.as_ref().or(self.v4.as_ref()).map(|family| family.local().port())
    }
}

/// Binds both families, on one port if any port is free in both.
fn bind_families(listen: Listen, alarm: &Arc<Notify>) -> Result<Families, BindError> {
    for attempt in 1..=SAME_PORT_TRIES {
        let v6 = bind_one(listen.ipv6.map(IpAddr::V6), listen.port, alarm)?;
        let port = listen.port.or_else(|| v6.as_ref().map(|family| family.local().port()));
        let v4 = match bind_one(listen.ipv4.map(IpAddr::V4), port, alarm) {
            Err(BindError::PortTaken { .. }) if listen.port.is_none() && attempt < SAME_PORT_TRIES => {
                continue;
            }
            Err(BindError::PortTaken { .. }) if listen.port.is_none() => {
                bind_one(listen.ipv4.map(IpAddr::V4), None, alarm)?
            }
            other => other?,
        };
        let (expects_v4, expects_v6) = (v4.is_some(), v6.is_some());
        let families = Families { v4, v6, expects_v4, expects_v6 };
        return if families.is_empty() { Err(BindError::NoFamily) } else { Ok(families) };
    }
    Err(BindError::NoFamily)
}

/// Binds a socket anew if it is missing or broken.
fn heal_one(
    family: &mut Option<Arc<Family>>,
    ip: Option<IpAddr>,
    port: Option<u16>,
    alarm: &Arc<Notify>,
) -> Result<(), BindError> {
    if family.as_ref().is_none_or(|family| family.is_broken()) {
        // Gone first, so that its port is free.
        *family = None;
        *family = bind_one(ip, port, alarm)?;
    }
    Ok(())
}

/// Binds one socket; `None` where it is not wanted or the machine lacks the family.
fn bind_one(
    ip: Option<IpAddr>,
    port: Option<u16>,
    alarm: &Arc<Notify>,
) -> Result<Option<Arc<Family>>, BindError> {
    let Some(ip) = ip else { return Ok(None) };
    let local = SocketAddr::new(ip, port.unwrap_or(0));
    match Family::bind(local, alarm.clone()) {
        Ok(family) => Ok(Some(Arc::new(family))),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(BindError::PortTaken { local }),
        Err(error) => {
            tracing::info!(%local, %error, "this address family is not available");
            Ok(None)
        }
    }
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

/// The receiving side, held by noq's endpoint task.
#[derive(Debug)]
pub(crate) struct Mux {
    shared: Arc<Shared>,
    /// Which family is asked first next time, so that a busy one cannot starve the other.
    v4_first: bool,
}

impl Mux {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, v4_first: false }
    }

    /// Drops what is not QUIC from received batches and brings their addresses into noq's form.
    fn sift(&self, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) {
        for (buf, meta) in bufs.iter_mut().zip(metas) {
            meta.addr = mapped_address(meta.addr);
            meta.dst_ip = meta.dst_ip.map(mapped_ip);
            let received = &mut buf[..meta.len];
            meta.len = keep_quic(received, meta.stride, &self.shared.callers, |class| {
                self.shared.count_dropped(class);
            });
        }
    }
}

impl AsyncUdpSocket for Mux {
    fn create_sender(&self) -> Pin<Box<dyn UdpSender>> {
        let role = if self.shared.has_responder.swap(true, Ordering::Relaxed) {
            Role::Connection
        } else {
            Role::Responder
        };
        Box::pin(Sender::new(self.shared.clone(), role))
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (v4, v6) = {
            let families = self.shared.families.read().unwrap_or_else(PoisonError::into_inner);
            (families.v4.clone(), families.v6.clone())
        };
        let order = if self.v4_first { [v4, v6] } else { [v6, v4] };
        self.v4_first = !self.v4_first;
        for family in order.iter().flatten() {
            let failures = &self.shared.counters.receive_failures;
            if let Poll::Ready(count) = family.poll_recv(cx, bufs, metas, failures) {
                self.sift(&mut bufs[..count], &mut metas[..count]);
                return Poll::Ready(Ok(count));
            }
        }
        Poll::Pending
    }

    /// Always of IPv6 form: see the header of this file.
    fn local_addr(&self) -> io::Result<SocketAddr> {
        let port = self.shared.local_addresses().first().map_or(0, SocketAddr::port);
        Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
    }

    /// noq sizes a receive slot as segments times the largest payload, and one slot never holds more than 64 KiB.
    fn max_receive_segments(&self) -> NonZeroUsize {
        const SLOT_BYTES: usize = 65_535;
        NonZeroUsize::new(SLOT_BYTES.div_ceil(usize::from(UDP_PAYLOAD_BYTES_MAX)))
            .unwrap_or(NonZeroUsize::MIN)
    }

    fn may_fragment(&self) -> bool {
        let families = self.shared.families.read().unwrap_or_else(PoisonError::into_inner);
        [&families.v4, &families.v6].into_iter().flatten().any(|family| family.may_fragment())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use p2pos_identity::SecretKey;
    use p2pos_traversal::{Candidate, CandidateKind};
    use tokio::time::timeout;

    use super::*;

    const RESET: &[u8] = &[0x41; 40];
    const RETRY: &[u8] = &[0xf0; 80];

    fn shared() -> Arc<Shared> {
        let listen = Listen { port: None, ipv4: Some(Ipv4Addr::LOCALHOST), ipv6: None };
        Shared::bind(listen, StrangerFilter::new(&SecretKey::from_seed([1; 32]))).unwrap()
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
        assert!(shared.is_whole());
    }
}
