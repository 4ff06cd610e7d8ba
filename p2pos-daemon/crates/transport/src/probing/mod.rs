//! To whom QUIC packets may be sent before anything was heard from there.
//!
//! noq tries whatever addresses a peer names: after each request for a punching round it sends nine small packets to each,
//! and asks nobody. A hostile peer could name a victim, or our own network, again and again. So the sockets ask here.
//! Whoever was heard lately is free. Addresses that we dial ourselves have plenty. All others share a small allowance, and
//! those in private ranges get nothing unless they are in a network of ours.
//!
//! Time runs in windows of a minute, in which packets are counted; "lately" is this window and the one before. That needs no
//! timer, no order and no clock for each packet: a decision that an address is free holds until the window's number changes.
//!
//! Pure: no socket, no clock. Refuses to know: who named an address, and why. Bounds what [RFC 8445 s19.5.1] calls the STUN
//! amplification attack.
//!
//! [RFC 8445 s19.5.1]: https://www.rfc-editor.org/rfc/rfc8445#section-19.5.1

mod networks;

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use p2pos_traversal::{Scope, scope_of};

pub(crate) use networks::Networks;

/// Length of a window. A quarter would quarter what a dead candidate may cost and quadruple what a victim may get.
const WINDOW: Duration = Duration::from_secs(60);

/// Packets to one unheard address within a window: three and a half rounds of nine. An honest pair is through in the first;
/// half would leave nothing for candidates that come late, double would only be noise.
pub(crate) const PER_ADDRESS_MAX: u32 = 32;

/// Packets to all unheard addresses of one host within a window, an IPv6 host being its /64: three ports that are in use
/// behind one public address. It is what a victim can get.
pub(crate) const PER_HOST_MAX: u32 = 96;

/// Packets to all unheard addresses together within a second, traversal's bound on probes of this host (DESIGN s7).
pub(crate) const PER_SECOND_MAX: u32 = 300;

/// Packets to one address while we dial it, within a window: a dial sends a dozen before it gives up. More is not ours, but a
/// peer's doing that names what we dial.
pub(crate) const PER_DIALLED_MAX: u32 = 64;

/// Unheard addresses, and hosts, counted in one window: 128 peers with all their candidates. Beyond, others wait for the next.
const UNHEARD_MAX: usize = 4_096;

/// Addresses heard in one window before it ends early, whose oldest are then forgotten. They are 10 times the connections
/// that a daemon on a small machine has; a forgotten one is known again by its next packet.
const HEARD_MAX: usize = 8_192;

/// What is counted, and what is free.
#[derive(Debug)]
pub(crate) struct Restraint {
    heard: [HashSet<SocketAddr>; 2],
    dialled: HashMap<SocketAddr, Dialled>,
    addresses: HashMap<SocketAddr, u32>,
    hosts: HashMap<IpAddr, u32>,
    window_began: Instant,
    second_began: Instant,
    within_second: u32,
}

/// An address that we dial.
#[derive(Debug, Clone, Copy, Default)]
struct Dialled {
    dials: usize,
    sent: u32,
}

/// Whether packets may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Yes, and as many as one likes until the window ends.
    Free,
    /// Yes, these.
    Counted,
    /// No: the address, the host or the second has had its share.
    Spent,
    /// No: a private address, not in our networks, that we do not dial.
    Foreign,
}

/// The number of the current window, to be read without a lock.
#[derive(Debug, Default)]
pub(crate) struct Window(AtomicU64);

impl Window {
    pub(crate) fn number(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Restraint {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            heard: Default::default(),
            dialled: HashMap::new(),
            addresses: HashMap::new(),
            hosts: HashMap::new(),
            window_began: now,
            second_began: now,
            within_second: 0,
        }
    }

    /// Notes that a QUIC packet came from `from`. Once in a window is enough.
    pub(crate) fn note_heard(&mut self, from: SocketAddr, window: &Window, now: Instant) {
        self.turn(window, now);
        let [lately, _] = &mut self.heard;
        if lately.len() >= HEARD_MAX && !lately.contains(&from) {
            self.forget_older(window);
        }
        let [lately, _] = &mut self.heard;
        lately.insert(from);
    }

    /// Judges `packets` packets to `to`, and counts them. `is_ours` tells whether a private address is in a network of ours.
    pub(crate) fn judge(
        &mut self,
        (to, packets): (SocketAddr, u32),
        window: &Window,
        now: Instant,
        is_ours: impl FnOnce(IpAddr) -> bool,
    ) -> Leave {
        self.turn(window, now);
        if self.heard.iter().any(|heard| heard.contains(&to)) {
            return Leave::Free;
        }
        if let Some(dialled) = self.dialled.get_mut(&to) {
            return take(&mut dialled.sent, packets, PER_DIALLED_MAX);
        }
        let is_private = match scope_of(to.ip()) {
            Scope::Loopback | Scope::Link | Scope::Lan => true,
            Scope::Global => false,
        };
        if is_private && !is_ours(to.ip()) {
            return Leave::Foreign;
        }
        self.count(to, packets, now)
    }

    /// From now on `to` is dialled by us; to be undone by [`Self::end_dial`].
    pub(crate) fn begin_dial(&mut self, to: SocketAddr) {
        self.dialled.entry(to).or_default().dials += 1;
    }

    pub(crate) fn end_dial(&mut self, to: SocketAddr) {
        let Some(dialled) = self.dialled.get_mut(&to) else { return };
        dialled.dials = dialled.dials.saturating_sub(1);
        if dialled.dials == 0 {
            let sent = dialled.sent;
            self.dialled.remove(&to);
            // What a dial has sent, its end does not give back.
            if self.addresses.len() < UNHEARD_MAX {
                *self.addresses.entry(to).or_default() += sent;
            }
        }
    }

    fn count(&mut self, to: SocketAddr, packets: u32, now: Instant) -> Leave {
        if now.duration_since(self.second_began) >= Duration::from_secs(1) {
            (self.second_began, self.within_second) = (now, 0);
        }
        let host = host_of(to.ip());
        if !has_room(&self.addresses, &to) || !has_room(&self.hosts, &host) {
            return Leave::Spent;
        }
        // All three or none: what is refused is not counted, or a refused flood would starve the honest.
        let [mut address, mut house, mut second] = [
            self.addresses.get(&to).copied().unwrap_or(0),
            self.hosts.get(&host).copied().unwrap_or(0),
            self.within_second,
        ];
        let shares = [
            take(&mut address, packets, PER_ADDRESS_MAX),
            take(&mut house, packets, PER_HOST_MAX),
            take(&mut second, packets, PER_SECOND_MAX),
        ];
        if shares.contains(&Leave::Spent) {
            return Leave::Spent;
        }
        self.addresses.insert(to, address);
        self.hosts.insert(host, house);
        self.within_second = second;
        Leave::Counted
    }

    /// Begins the next window when it is time.
    fn turn(&mut self, window: &Window, now: Instant) {
        if now.duration_since(self.window_began) < WINDOW {
            return;
        }
        self.window_began = now;
        self.addresses.clear();
        self.hosts.clear();
        self.dialled.values_mut().for_each(|dialled| dialled.sent = 0);
        self.forget_older(window);
    }

    /// Forgets who was heard longest ago, and with that every decision that an address is free.
    fn forget_older(&mut self, window: &Window) {
        let [lately, before] = &mut self.heard;
        *before = std::mem::take(lately);
        window.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Takes from an allowance, all or nothing.
fn take(spent: &mut u32, packets: u32, max: u32) -> Leave {
    match spent.checked_add(packets).filter(|sum| *sum <= max) {
        Some(sum) => {
            *spent = sum;
            Leave::Counted
        }
        None => Leave::Spent,
    }
}

fn has_room<K: Eq + Hash>(counts: &HashMap<K, u32>, key: &K) -> bool {
    counts.len() < UNHEARD_MAX || counts.contains_key(key)
}

/// What belongs to one host: an IPv4 address, or an IPv6 /64 (RFC 4291 s2.5.4).
fn host_of(ip: IpAddr) -> IpAddr {
    const INTERFACE_BITS: u32 = 64;
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> INTERFACE_BITS << INTERFACE_BITS).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Setup {
        restraint: Restraint,
        window: Window,
        now: Instant,
    }

    impl Setup {
        fn new() -> Self {
            let now = Instant::now();
            Self { restraint: Restraint::new(now), window: Window::default(), now }
        }

        fn judge(&mut self, to: &str) -> Leave {
            self.restraint.judge((to.parse().unwrap(), 1), &self.window, self.now, |_| false)
        }

        fn hear(&mut self, from: &str) {
            self.restraint.note_heard(from.parse().unwrap(), &self.window, self.now);
        }

        /// How many of `tries` packets leave.
        fn leave(&mut self, to: &str, tries: u32) -> u32 {
            let left = (0..tries).filter(|_| self.judge(to) == Leave::Counted).count();
            u32::try_from(left).unwrap()
        }
    }

    const VICTIM: &str = "203.0.113.7:443";

    #[test]
    fn an_unheard_address_gets_its_share_of_a_minute_and_no_more() {
        let mut setup = Setup::new();
        assert_eq!(setup.leave(VICTIM, 1_000), PER_ADDRESS_MAX);
        setup.now += WINDOW;
        assert_eq!(setup.leave(VICTIM, 1_000), PER_ADDRESS_MAX);
    }

    #[test]
    fn many_ports_of_a_victim_get_what_one_host_gets() {
        let mut setup = Setup::new();
        let sent: u32 = (1..=200).map(|port| setup.leave(&format!("203.0.113.7:{port}"), 9)).sum();
        assert_eq!(sent, PER_HOST_MAX);
        setup.now += WINDOW;
        let sent: u32 = (1..=200).map(|host| setup.leave(&format!("[2001:db8::{host:x}]:9"), 9)).sum();
        assert_eq!(sent, PER_HOST_MAX, "a /64 is one host");
    }

    #[test]
    fn all_unheard_addresses_share_a_second() {
        let mut setup = Setup::new();
        let mut sent = 0;
        for host in 1..=100 {
            sent += setup.leave(&format!("203.0.113.{host}:9"), 9);
        }
        assert_eq!(sent, PER_SECOND_MAX);
        setup.now += Duration::from_secs(1);
        assert_eq!(setup.judge(VICTIM), Leave::Counted);
    }

    #[test]
    fn whoever_was_heard_is_free_for_a_minute_at_least_and_two_at_most() {
        let mut setup = Setup::new();
        setup.hear(VICTIM);
        assert_eq!(setup.judge(VICTIM), Leave::Free);
        setup.now += WINDOW;
        let before = setup.window.number();
        assert_eq!(setup.judge(VICTIM), Leave::Free);
        assert_eq!(setup.window.number(), before + 1, "decisions of the last window end");
        setup.now += WINDOW;
        assert_eq!(setup.judge(VICTIM), Leave::Counted);
    }

    #[test]
    fn private_addresses_that_are_not_ours_get_nothing_unless_we_dial_or_heard_them() {
        let mut setup = Setup::new();
        for private in ["127.0.0.1:80", "10.1.2.3:53", "169.254.1.1:80", "[::1]:80", "[fd00::1]:53"] {
            assert_eq!(setup.judge(private), Leave::Foreign, "{private}");
            setup.restraint.begin_dial(private.parse().unwrap());
            assert_eq!(setup.judge(private), Leave::Counted, "{private}");
            setup.restraint.end_dial(private.parse().unwrap());
            assert_eq!(setup.judge(private), Leave::Foreign, "{private}");
            setup.hear(private);
            assert_eq!(setup.judge(private), Leave::Free, "{private}");
        }
        let in_our_network = ("10.0.0.9:7".parse().unwrap(), 1);
        assert_eq!(setup.restraint.judge(in_our_network, &setup.window, setup.now, |_| true), Leave::Counted);
    }

    #[test]
    fn a_dial_has_plenty_and_its_end_gives_nothing_back() {
        let mut setup = Setup::new();
        let victim = VICTIM.parse().unwrap();
        setup.restraint.begin_dial(victim);
        setup.restraint.begin_dial(victim);
        assert_eq!(setup.leave(VICTIM, 50), 50);
        setup.restraint.end_dial(victim);
        assert_eq!(setup.leave(VICTIM, 50), PER_DIALLED_MAX - 50, "the other dial goes on");
        setup.restraint.end_dial(victim);
        assert_eq!(setup.judge(VICTIM), Leave::Spent);
        setup.restraint.end_dial(victim);
    }

    #[test]
    fn a_batch_leaves_whole_or_not_at_all() {
        let mut setup = Setup::new();
        let mut judge = |packets| {
            setup.restraint.judge((VICTIM.parse().unwrap(), packets), &setup.window, setup.now, |_| true)
        };
        assert_eq!(judge(PER_ADDRESS_MAX - 1), Leave::Counted);
        assert_eq!(judge(2), Leave::Spent);
        assert_eq!(judge(u32::MAX), Leave::Spent);
        assert_eq!(judge(1), Leave::Counted);
    }

    #[test]
    fn invented_addresses_do_not_grow_the_memory() {
        let mut setup = Setup::new();
        for address in 0..3 * u32::try_from(HEARD_MAX).unwrap() {
            let ip = std::net::Ipv4Addr::from_bits(0x2d00_0000 + address);
            setup.hear(&format!("{ip}:9"));
            let other = std::net::Ipv4Addr::from_bits(0x5d00_0000 + address);
            // Not so fast that the second's share ends first.
            setup.now += Duration::from_millis(4);
            setup.judge(&format!("{other}:9"));
            assert!(setup.restraint.heard.iter().all(|heard| heard.len() <= HEARD_MAX));
            assert!(
                setup.restraint.addresses.len() <= UNHEARD_MAX && setup.restraint.hosts.len() <= UNHEARD_MAX
            );
        }
        assert_eq!(setup.restraint.addresses.len(), setup.restraint.hosts.len());
    }

    #[test]
    fn a_full_table_refuses_new_addresses_only() {
        let mut setup = Setup::new();
        let address = |number: u32| format!("{}:9", std::net::Ipv4Addr::from_bits(0x2d00_0000 + number));
        for number in 0..u32::try_from(UNHEARD_MAX).unwrap() {
            setup.now += Duration::from_millis(4);
            assert_eq!(setup.judge(&address(number)), Leave::Counted);
        }
        assert_eq!(setup.judge(VICTIM), Leave::Spent);
        assert_eq!(setup.judge(&address(3)), Leave::Counted);
    }
}
