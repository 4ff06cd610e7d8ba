//! The low-TTL opener: our own NAT is opened before the peer's packets knock at it.
//!
//! A plain Linux masquerade router that does not filter its own input has a trap. A packet from the peer that arrives
//! *before* ours went out matches nothing, but conntrack books its pair of addresses all the same; when our packet then
//! leaves, its port is taken for that destination, and the router gives it another. For this peer the router has turned
//! symmetric, and the punch fails, each time, since one side is always the first. (Measured with two such routers: 0 of
//! 12 punches; with openers 12 of 12.)
//!
//! So both sides first send one byte with a TTL that ends behind their own outermost NAT: it books our binding and
//! never reaches the other router. Only when both have done so, the real punch begins:
//!
//! ```text
//! dialler                                  accepter
//!    | openers (low TTL) --> x                |
//!    | OPEN(round, my addresses) ~~ relay ~~> |
//!    |                         x <-- openers  |
//!    | <~~ relay ~~ OK(round)                 |
//!    | <== punch on both sides, full TTL ==>  |
//! ```
//!
//! The TTL is [`layers_of`] + 1. One too few does not reach the outer NAT; one too many may reach the peer's router,
//! which is the very thing to avoid. Unknown layers count as [`LAYERS_DEFAULT`].
//!
//! Refuses to know: how a TTL is set, what a punch is (noq's), whether it worked (`plan`).

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    Scope,
    candidate::CandidateSet,
    scope_of,
    signal::{OPEN_ADDRESSES_MAX, Role, Signal},
};

/// Layers where they are not measured: a home router behind a carrier's NAT. In front of a single NAT the opener then
/// goes one router too far, into the provider's network.
pub const LAYERS_DEFAULT: u8 = 2;
/// The most layers believed. Beyond, what looks like a NAT is a company's network.
pub const LAYERS_MAX: u8 = 6;
/// How often OPEN is sent for one round. The stream is reliable; what is lost are the openers, or a peer's patience.
pub const OPEN_TRIES_MAX: u32 = 3;
/// Shortest wait for OK: a peer behind a slow relay.
const OK_WAIT_MIN: Duration = Duration::from_millis(250);
/// Longest wait for OK.
const OK_WAIT_MAX: Duration = Duration::from_secs(2);
/// Wait for OK, in round trips of the path that carries the signals.
const OK_WAIT_RTTS: u32 = 3;

/// What the caller shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenerEvent {
    /// Tell the peer.
    Signal(Signal),
    /// Send one [`crate::Probe::Opener`].
    Send {
        /// A candidate of the peer. The caller's [`crate::ProbeBudget`] may refuse it.
        to: SocketAddr,
        /// Its TTL or hop limit.
        ttl: u8,
    },
    /// Both NATs are open: punch now (dialler only).
    Punch {
        /// The round that it ends.
        round: u32,
        /// Whether the peer said that its openers are out. Without, a punch is still worth trying.
        is_answered: bool,
    },
}

/// Opens both sides' NATs, round by round. One for each peer.
#[derive(Debug)]
pub struct Opener {
    role: Role,
    layers: Option<u8>,
    round: u32,
    waiting: Option<Waiting>,
    events: VecDeque<OpenerEvent>,
}

/// The dialler, between OPEN and OK.
#[derive(Debug)]
struct Waiting {
    own: Vec<SocketAddr>,
    theirs: Vec<SocketAddr>,
    wait: Duration,
    due: Instant,
    tries: u32,
}

impl Opener {
    /// Starts without any round.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self { role, layers: None, round: 0, waiting: None, events: VecDeque::new() }
    }

    /// Takes the measured number of our own NAT layers; `None` if the network changed.
    pub fn handle_layers(&mut self, layers: Option<u8>) {
        self.layers = layers;
    }

    /// Begins a round, if we dialled: openers to `theirs`, OPEN with `own`. A round that runs is abandoned. `rtt` is
    /// that of the path that carries the signals.
    pub fn start(&mut self, own: &[SocketAddr], theirs: &CandidateSet, rtt: Duration, now: Instant) {
        if self.role == Role::Accepter {
            return;
        }
        let wait = (rtt * OK_WAIT_RTTS).clamp(OK_WAIT_MIN, OK_WAIT_MAX);
        let own: Vec<SocketAddr> = own.iter().copied().take(OPEN_ADDRESSES_MAX).collect();
        let theirs = addresses_of(theirs);
        self.round = self.round.wrapping_add(1);
        self.events.clear();
        self.send(&own, &theirs);
        self.waiting = Some(Waiting { own, theirs, wait, due: now + wait, tries: 1 });
    }

    /// Takes the dialler's OPEN: our openers go out, then OK. `known` are the candidates that the peer gave before; its
    /// addresses are added to a copy by the rules for peers. An OPEN for an old round is ignored.
    pub fn handle_open(&mut self, round: u32, addresses: &[SocketAddr], known: &CandidateSet) {
        if self.role == Role::Dialler || round < self.round {
            return;
        }
        self.round = round;
        let mut theirs = known.clone();
        for addr in addresses.iter().take(OPEN_ADDRESSES_MAX) {
            theirs.add_observed_by_peer(*addr);
        }
        // What was not yet sent belongs to an older OPEN.
        self.events.clear();
        self.open_towards(&addresses_of(&theirs));
        self.events.push_back(OpenerEvent::Signal(Signal::OpenOk { round }));
    }

    /// Takes the accepter's OK.
    pub fn handle_open_ok(&mut self, round: u32) {
        if round == self.round && self.waiting.take().is_some() {
            self.events.push_back(OpenerEvent::Punch { round, is_answered: true });
        }
    }

    /// Takes note that time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(mut waiting) = self.waiting.take_if(|waiting| now >= waiting.due) else {
            return;
        };
        if waiting.tries >= OPEN_TRIES_MAX {
            self.events.push_back(OpenerEvent::Punch { round: self.round, is_answered: false });
            return;
        }
        self.send(&waiting.own, &waiting.theirs);
        waiting.tries += 1;
        waiting.due = now + waiting.wait;
        self.waiting = Some(waiting);
    }

    /// Ends a round without a punch.
    pub fn stop(&mut self) {
        self.waiting = None;
        self.events.clear();
    }

    /// Returns the next thing to do, until there is none.
    pub fn poll_event(&mut self) -> Option<OpenerEvent> {
        self.events.pop_front()
    }

    /// Returns when `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|waiting| waiting.due)
    }

    /// Returns the TTL of our openers.
    #[must_use]
    pub fn ttl(&self) -> u8 {
        opener_ttl(self.layers)
    }

    fn send(&mut self, own: &[SocketAddr], theirs: &[SocketAddr]) {
        self.open_towards(theirs);
        let open = Signal::Open { round: self.round, addresses: own.to_vec() };
        self.events.push_back(OpenerEvent::Signal(open));
    }

    fn open_towards(&mut self, theirs: &[SocketAddr]) {
        let ttl = self.ttl();
        self.events.extend(theirs.iter().map(|to| OpenerEvent::Send { to: *to, ttl }));
    }
}

/// Returns the TTL that passes so many layers and dies behind them. At least 2: a router that is a firewall only has no
/// layer of translation, but must be passed too.
#[must_use]
pub fn opener_ttl(layers: Option<u8>) -> u8 {
    layers.unwrap_or(LAYERS_DEFAULT).clamp(1, LAYERS_MAX) + 1
}

/// Counts our NAT layers from who answered when a packet died after 1, 2, 3, ... hops (`None`: nobody). Routers with
/// private or shared (RFC 6598) addresses are inside of the outermost NAT, and so are silent ones before anybody answered: an
/// opener must pass them in any case. `None` if no public router answered: then nobody knows where the inside ends.
#[must_use]
pub fn layers_of(hops: &[Option<IpAddr>]) -> Option<u8> {
    let first_public = hops.iter().position(|hop| hop.is_some_and(|ip| !is_inside(ip)))?;
    let last_inside = hops[..first_public].iter().rposition(|hop| hop.is_some_and(is_inside));
    let silent = hops.iter().take_while(|hop| hop.is_none()).count();
    let layers = last_inside.map_or(silent, |index| index + 1);
    u8::try_from(layers).ok().filter(|layers| *layers <= LAYERS_MAX)
}

fn is_inside(ip: IpAddr) -> bool {
    let is_shared = match ip.to_canonical() {
        // RFC 6598: 100.64.0.0/10.
        IpAddr::V4(v4) => u32::from(v4) >> 22 == u32::from(Ipv4Addr::new(100, 64, 0, 0)) >> 22,
        IpAddr::V6(_) => false,
    };
    is_shared || scope_of(ip) != Scope::Global
}

/// Only what lies beyond our NAT needs an opener.
fn addresses_of(candidates: &CandidateSet) -> Vec<SocketAddr> {
    let addresses = candidates.as_slice().iter().filter(|one| one.kind != crate::CandidateKind::Relayed);
    addresses.map(|one| one.addr).filter(|addr| scope_of(addr.ip()) == Scope::Global).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Candidate, CandidateKind,
        testing::{Nat, habits_of, origin},
    };

    const RTT: Duration = Duration::from_millis(100);

    #[test]
    fn a_round_is_openers_then_open_then_ok_then_the_punch() {
        let now = origin();
        let (mut ana, mut bo) = (Opener::new(Role::Dialler), Opener::new(Role::Accepter));
        ana.handle_layers(Some(1));
        let theirs = set(&["45.2.2.2:4000", "192.168.1.9:4000"]);
        ana.start(&[addr("45.1.1.1:4000")], &theirs, RTT, now);
        assert_eq!(ana.poll_event(), Some(OpenerEvent::Send { to: addr("45.2.2.2:4000"), ttl: 2 }));
        let Some(OpenerEvent::Signal(Signal::Open { round, addresses })) = ana.poll_event() else {
            panic!("no OPEN");
        };
        bo.handle_open(round, &addresses, &CandidateSet::new());
        assert_eq!(bo.poll_event(), Some(OpenerEvent::Send { to: addr("45.1.1.1:4000"), ttl: 3 }));
        assert_eq!(bo.poll_event(), Some(OpenerEvent::Signal(Signal::OpenOk { round })));
        ana.handle_open_ok(round);
        assert_eq!(ana.poll_event(), Some(OpenerEvent::Punch { round, is_answered: true }));
        assert_eq!((ana.poll_event(), ana.poll_timeout()), (None, None));
    }

    #[test]
    fn a_peer_that_never_says_ok_is_asked_three_times_and_punched_all_the_same() {
        let start = origin();
        let mut ana = Opener::new(Role::Dialler);
        ana.start(&[addr("45.1.1.1:4000")], &set(&["45.2.2.2:4000"]), RTT, start);
        let mut asked = 0;
        let end = loop {
            while let Some(event) = ana.poll_event() {
                asked += usize::from(matches!(event, OpenerEvent::Signal(Signal::Open { .. })));
                if let OpenerEvent::Punch { is_answered, .. } = event {
                    assert!(!is_answered);
                }
            }
            let Some(due) = ana.poll_timeout() else { break ana };
            ana.handle_timeout(due);
            assert!(due - start <= 3 * RTT * OPEN_TRIES_MAX);
        };
        assert_eq!(asked, 3);
        assert_eq!(end.poll_timeout(), None);
    }

    #[test]
    fn a_late_ok_of_an_older_round_punches_nothing() {
        let now = origin();
        let mut ana = Opener::new(Role::Dialler);
        for _ in 0..2 {
            ana.start(&[], &CandidateSet::new(), RTT, now);
        }
        while ana.poll_event().is_some() {}
        ana.handle_open_ok(1);
        assert_eq!(ana.poll_event(), None);
        ana.handle_open_ok(2);
        assert!(matches!(ana.poll_event(), Some(OpenerEvent::Punch { round: 2, .. })));
    }

    #[test]
    fn the_ttl_ends_behind_the_outermost_nat() {
        let hop = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let home = [hop("192.168.1.1"), hop("45.0.0.1")];
        let behind_carrier = [hop("192.168.1.1"), None, hop("100.64.0.1"), hop("45.0.0.1")];
        let public = [hop("45.0.0.1")];
        assert_eq!([&home[..], &behind_carrier, &public].map(layers_of), [Some(1), Some(3), Some(0)]);
        assert_eq!(layers_of(&[hop("192.168.1.1"), None, None]), None, "nobody knows where the inside ends");
        assert_eq!(layers_of(&[]), None);
        assert_eq!([None, Some(0), Some(1), Some(2), Some(255)].map(opener_ttl), [3, 2, 2, 3, 7]);
    }

    #[test]
    fn two_collision_prone_routers_need_openers_on_both_sides() {
        assert!(!punch_works(false), "the model does not show the collision");
        assert!(punch_works(true));
    }

    proptest! {
        #[test]
        fn no_open_of_a_peer_makes_us_send_to_a_forbidden_place(
            round: u32, addresses in prop::collection::vec(any::<SocketAddr>(), 0..100),
        ) {
            let mut bo = Opener::new(Role::Accepter);
            bo.handle_open(round, &addresses, &CandidateSet::new());
            let mut sent = 0;
            while let Some(event) = bo.poll_event() {
                if let OpenerEvent::Send { to, .. } = event {
                    prop_assert!(!to.ip().is_loopback() && !to.ip().is_multicast() && to.port() != 0);
                    sent += 1;
                }
            }
            prop_assert!(sent <= OPEN_ADDRESSES_MAX);
        }
    }

    /// Two open homes punch each other; the accepter's packet is later than the dialler's, as it always is.
    fn punch_works(with_openers: bool) -> bool {
        let now = origin();
        let inside = addr("192.168.1.7:4000");
        let mut ana = Nat::new(habits_of("open home"), [45, 1, 1, 1], 1);
        let mut bo = Nat::new(habits_of("open home"), [45, 2, 2, 2], 2);
        let (ana_outside, bo_outside) = (addr("45.1.1.1:4000"), addr("45.2.2.2:4000"));
        // Both are known to others by these addresses.
        ana.send(inside, addr("45.3.3.3:1"), now);
        bo.send(inside, addr("45.3.3.3:1"), now);
        if with_openers {
            ana.send(inside, bo_outside, now);
            bo.send(inside, ana_outside, now);
        }
        let from_ana = ana.send(inside, bo_outside, now);
        let reached_bo = bo.deliver(from_ana, bo_outside.port(), now).is_some();
        let from_bo = bo.send(inside, ana_outside, now);
        reached_bo || ana.deliver(from_bo, ana_outside.port(), now).is_some()
    }

    fn set(addresses: &[&str]) -> CandidateSet {
        let mut set = CandidateSet::new();
        for text in addresses {
            set.add_from_peer(Candidate { addr: addr(text), kind: CandidateKind::Host }).unwrap();
        }
        set
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }
}
