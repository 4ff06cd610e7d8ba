//! An address that might reach a peer, and the rules about which addresses may be sent to at all.
//!
//! Candidates come from people who may be hostile: a record that lists a victim's address would turn every dialler
//! into a weapon, and one that lists `127.0.0.1` would let a stranger knock at our own services. So a set holds few
//! candidates, and none that no distant peer can have: loopback (unless the user typed it), multicast, broadcast,
//! unspecified, reserved, port 0. IPv6 forms that carry an IPv4 address are judged by that address. What a peer says
//! about itself ([`CandidateSet::add_from_peer`], after the Noise handshake only) is judged more strictly: no
//! documentation addresses, few ports of one address, and a full set keeps the likelier ones.
//!
//! Refuses to know: reachability, and trust in the source beyond [`CandidateKind`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Candidates of one peer. A laptop with two networks, both families, a mapped and an observed address of each has
/// about a dozen; each one more is an address that a hostile list makes us send to.
pub const CANDIDATES_MAX: usize = 32;

/// Candidates of one peer at one IP address, when the peer itself lists them. A host has its own port, a mapped and an
/// observed one, and that again behind a second router; whoever lists thirty ports of one address wants it flooded.
pub const CANDIDATES_PER_ADDRESS_MAX: usize = 4;

/// How a candidate came to be known (RFC 8445 s5.1.1, and what users type).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateKind {
    /// The user gave it.
    Manual,
    /// An address of one of the peer's own interfaces.
    Host,
    /// A router was asked to map it (UPnP, NAT-PMP, PCP).
    Mapped,
    /// Others saw the peer come from it.
    Observed,
    /// A relay forwards it.
    Relayed,
}

/// An address that might reach a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Where.
    pub addr: SocketAddr,
    /// How it came to be known.
    pub kind: CandidateKind,
}

/// Whether a loopback address may be a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoopbackPolicy {
    /// Never: the address came from somebody else.
    #[default]
    Refused,
    /// The user typed the address, and two daemons on one machine are what they want (tests, the demo).
    TypedByUser,
}

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// This machine.
    Loopback,
    /// This link, without a router between (RFC 3927, RFC 4291 s2.5.6).
    Link,
    /// This site: private and unique local addresses (RFC 1918, RFC 4193).
    Lan,
    /// Everywhere, and the shared range of providers (RFC 6598), which is near in no useful sense.
    Global,
}

/// Why an address is no candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// Port 0 is nobody's.
    #[error("port 0 reaches nobody")]
    PortZero,
    /// `0.0.0.0/8` or `::`.
    #[error("the unspecified address reaches nobody")]
    Unspecified,
    /// Loopback without the user's word for it.
    #[error("a loopback address that the user did not type")]
    Loopback,
    /// A group, not a peer.
    #[error("a multicast address")]
    Multicast,
    /// Everybody on the link, or the reserved block `240.0.0.0/4`.
    #[error("a broadcast or reserved address")]
    Reserved,
    /// An IPv6 link-local address without the interface it is on.
    #[error("a link-local address without its interface (write fe80::1%2 with the interface's number)")]
    NoInterface,
    /// One of our own.
    #[error("our own address")]
    Own,
    /// [`CANDIDATES_MAX`] are there.
    #[error("more than {CANDIDATES_MAX} candidates")]
    Full,
    /// An address that exists in books only (RFC 5737, RFC 3849, RFC 9637).
    #[error("a documentation address")]
    Documentation,
    /// [`CANDIDATES_PER_ADDRESS_MAX`] with this IP address are there.
    #[error("more than {CANDIDATES_PER_ADDRESS_MAX} ports of one address")]
    TooManyPorts,
}

/// The candidates of one peer: clean, without doubles, at most [`CANDIDATES_MAX`], in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CandidateSet {
    candidates: Vec<Candidate>,
    own: Vec<SocketAddr>,
}

impl CandidateSet {
    /// Starts empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts empty, and will refuse these: the addresses at which our own endpoint listens.
    #[must_use]
    pub fn excluding(own: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { candidates: Vec::new(), own: own.into_iter().map(plain).collect() }
    }

    /// Adds a candidate if it may be sent to. One that is there keeps its place, and the better-known kind of the two.
    ///
    /// # Errors
    /// [`Rejected`] names the rule.
    pub fn add(&mut self, candidate: Candidate, loopback: LoopbackPolicy) -> Result<(), Rejected> {
        let addr = plain(candidate.addr);
        check(addr, loopback)?;
        if self.own.contains(&addr) {
            return Err(Rejected::Own);
        }
        if let Some(there) = self.candidates.iter_mut().find(|there| there.addr == addr) {
            there.kind = there.kind.min(candidate.kind);
            return Ok(());
        }
        if self.candidates.len() >= CANDIDATES_MAX {
            return Err(Rejected::Full);
        }
        self.candidates.push(Candidate { addr, kind: candidate.kind });
        Ok(())
    }

    /// Adds a candidate that the peer itself told us after the handshake. In a full set it takes the place of a less
    /// likely one.
    ///
    /// # Errors
    /// [`Rejected`] names the rule.
    pub fn add_from_peer(&mut self, candidate: Candidate) -> Result<(), Rejected> {
        let addr = plain(candidate.addr);
        if is_documentation(embedded(addr.ip())) {
            return Err(Rejected::Documentation);
        }
        let is_new = !self.candidates.iter().any(|there| there.addr == addr);
        let ports = self.candidates.iter().filter(|there| there.addr.ip() == addr.ip()).count();
        if is_new && ports >= CANDIDATES_PER_ADDRESS_MAX {
            return Err(Rejected::TooManyPorts);
        }
        match self.add(candidate, LoopbackPolicy::Refused) {
            Err(Rejected::Full) => self.replace_least_likely(Candidate { addr, ..candidate }),
            other => other,
        }
    }

    /// Adds an address that the peer says it will send from, if the rules allow; else nothing happens, since a list may
    /// well hold what is of no use to us.
    pub(crate) fn add_observed_by_peer(&mut self, addr: SocketAddr) {
        self.add_from_peer(Candidate { addr, kind: CandidateKind::Observed }).ok();
    }

    fn replace_least_likely(&mut self, candidate: Candidate) -> Result<(), Rejected> {
        let least = (0..self.candidates.len())
            .max_by_key(|index| unlikeliness(&self.candidates[*index]))
            .filter(|index| unlikeliness(&self.candidates[*index]) > unlikeliness(&candidate))
            .ok_or(Rejected::Full)?;
        self.candidates.remove(least);
        self.candidates.push(candidate);
        Ok(())
    }

    /// Returns the candidates in the order in which they came; [`crate::in_dial_order`] sorts them for dialling.
    #[must_use]
    pub fn as_slice(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Tells whether there is nothing to try.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }
}

/// Tells how far an address reaches. IPv6 forms that carry an IPv4 address reach as far as that does.
#[must_use]
pub fn scope_of(ip: IpAddr) -> Scope {
    match embedded(ip) {
        IpAddr::V4(v4) if v4.is_loopback() => Scope::Loopback,
        IpAddr::V4(v4) if v4.is_link_local() => Scope::Link,
        IpAddr::V4(v4) if v4.is_private() => Scope::Lan,
        IpAddr::V4(_) => Scope::Global,
        IpAddr::V6(v6) if v6.is_loopback() => Scope::Loopback,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Scope::Link,
        IpAddr::V6(v6) if v6.is_unique_local() => Scope::Lan,
        IpAddr::V6(_) => Scope::Global,
    }
}

/// Which candidate goes first when there are too many: that which works least often.
fn unlikeliness(candidate: &Candidate) -> u8 {
    let is_global = scope_of(candidate.addr.ip()) == Scope::Global;
    match (candidate.kind, is_global) {
        (CandidateKind::Manual, _) => 0,
        (CandidateKind::Mapped, _) => 1,
        (CandidateKind::Host, true) => 2,
        (CandidateKind::Observed, _) => 3,
        (CandidateKind::Relayed, _) => 4,
        // Works only in the same network, where two or three of them are enough.
        (CandidateKind::Host, false) => 5,
    }
}

fn is_documentation(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_documentation(),
        // RFC 3849 and RFC 9637.
        IpAddr::V6(v6) => matches!(v6.segments(), [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..]),
    }
}

fn check(addr: SocketAddr, loopback: LoopbackPolicy) -> Result<(), Rejected> {
    if addr.port() == 0 {
        return Err(Rejected::PortZero);
    }
    match embedded(addr.ip()) {
        IpAddr::V4(v4) => check_v4(v4)?,
        IpAddr::V6(v6) => check_v6(v6)?,
    }
    if let SocketAddr::V6(v6) = addr
        && v6.ip().is_unicast_link_local()
        && v6.scope_id() == 0
    {
        return Err(Rejected::NoInterface);
    }
    match (scope_of(addr.ip()), loopback) {
        (Scope::Loopback, LoopbackPolicy::Refused) => Err(Rejected::Loopback),
        (Scope::Loopback, LoopbackPolicy::TypedByUser) | (Scope::Link | Scope::Lan | Scope::Global, _) => {
            Ok(())
        }
    }
}

fn check_v4(v4: Ipv4Addr) -> Result<(), Rejected> {
    match v4.octets()[0] {
        // RFC 1122 s3.2.1.3: "this host on this network", and on many systems another name for loopback.
        0 => Err(Rejected::Unspecified),
        224..=239 => Err(Rejected::Multicast),
        240..=255 => Err(Rejected::Reserved),
        1..=223 => Ok(()),
    }
}

fn check_v6(v6: Ipv6Addr) -> Result<(), Rejected> {
    if v6.is_unspecified() {
        return Err(Rejected::Unspecified);
    }
    if v6.is_multicast() {
        return Err(Rejected::Multicast);
    }
    Ok(())
}

/// Brings an address into the form in which equal ones are equal: IPv4 as IPv4, and no flow label.
fn plain(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(mut v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => {
                v6.set_flowinfo(0);
                SocketAddr::V6(v6)
            }
        },
    }
}

/// Looks through the IPv6 forms that carry an IPv4 address: mapped (RFC 4291 s2.5.5.2), compatible (s2.5.5.1), NAT64
/// (RFC 6052) and 6to4 (RFC 3056). A router on the way may deliver them to that IPv4 address.
fn embedded(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else {
        return ip;
    };
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        // `::` and `::1` are addresses of IPv6 itself.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => ip,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => of(high, low),
        [0x2002, high, low, ..] => of(high, low),
        _ => ip,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_that_no_distant_peer_has_are_refused() {
        for (text, reason) in [
            ("192.0.2.1:0", Rejected::PortZero),
            ("0.0.0.0:4000", Rejected::Unspecified),
            ("0.1.2.3:4000", Rejected::Unspecified),
            ("[::]:4000", Rejected::Unspecified),
            ("127.0.0.1:4000", Rejected::Loopback),
            ("127.9.9.9:4000", Rejected::Loopback),
            ("[::1]:4000", Rejected::Loopback),
            ("224.0.0.251:5353", Rejected::Multicast),
            ("239.255.255.250:1900", Rejected::Multicast),
            ("[ff02::fb]:5353", Rejected::Multicast),
            ("255.255.255.255:4000", Rejected::Reserved),
            ("240.0.0.1:4000", Rejected::Reserved),
            ("[fe80::1]:4000", Rejected::NoInterface),
        ] {
            assert_eq!(add(text, LoopbackPolicy::Refused), Err(reason), "{text}");
        }
    }

    #[test]
    fn ipv6_wrappings_of_refused_ipv4_addresses_are_refused_too() {
        for text in [
            "[::ffff:127.0.0.1]:4000",
            "[::127.0.0.1]:4000",
            "[64:ff9b::127.0.0.1]:4000",
            "[2002:7f00:1::]:4000",
            "[::ffff:224.0.0.1]:4000",
            "[64:ff9b::255.255.255.255]:4000",
            "[2002:0:1::]:4000",
        ] {
            assert!(add(text, LoopbackPolicy::Refused).is_err(), "{text}");
        }
    }

    #[test]
    fn ordinary_addresses_of_each_scope_are_accepted() {
        for (text, scope) in [
            ("192.168.1.7:4000", Scope::Lan),
            ("10.0.0.1:1", Scope::Lan),
            ("172.16.0.1:4000", Scope::Lan),
            ("169.254.3.4:4000", Scope::Link),
            ("100.64.0.1:4000", Scope::Global),
            ("203.0.113.5:65535", Scope::Global),
            ("[2001:db8::7]:4000", Scope::Global),
            ("[fd00::7]:4000", Scope::Lan),
            ("[fe80::1%2]:4000", Scope::Link),
            ("[64:ff9b::203.0.113.5]:4000", Scope::Global),
        ] {
            assert_eq!(add(text, LoopbackPolicy::Refused), Ok(()), "{text}");
            assert_eq!(scope_of(addr(text).ip()), scope, "{text}");
        }
    }

    #[test]
    fn loopback_is_a_candidate_only_by_the_users_word() {
        for text in ["127.0.0.1:4000", "[::1]:4000", "[::ffff:127.0.0.1]:4000"] {
            assert_eq!(add(text, LoopbackPolicy::TypedByUser), Ok(()), "{text}");
        }
        assert_eq!(add("0.0.0.0:4000", LoopbackPolicy::TypedByUser), Err(Rejected::Unspecified));
    }

    #[test]
    fn the_same_address_in_two_forms_is_one_candidate_of_the_better_known_kind() {
        let mut set = CandidateSet::new();
        put(&mut set, "203.0.113.5:4000", CandidateKind::Observed).unwrap();
        put(&mut set, "[::ffff:203.0.113.5]:4000", CandidateKind::Manual).unwrap();
        put(&mut set, "203.0.113.5:4000", CandidateKind::Relayed).unwrap();
        let expected = Candidate { addr: addr("203.0.113.5:4000"), kind: CandidateKind::Manual };
        assert_eq!(set.as_slice(), [expected]);
    }

    #[test]
    fn our_own_address_is_refused_in_either_form() {
        let mut set = CandidateSet::excluding([addr("[::ffff:203.0.113.5]:4000")]);
        assert_eq!(put(&mut set, "203.0.113.5:4000", CandidateKind::Host), Err(Rejected::Own));
        assert_eq!(put(&mut set, "203.0.113.5:4001", CandidateKind::Host), Ok(()));
    }

    #[test]
    fn the_last_free_place_is_filled_and_one_more_is_refused() {
        let mut set = CandidateSet::new();
        for port in 1..=CANDIDATES_MAX {
            put(&mut set, &format!("203.0.113.5:{port}"), CandidateKind::Host).unwrap();
        }
        assert_eq!(put(&mut set, "203.0.113.6:4000", CandidateKind::Host), Err(Rejected::Full));
        assert_eq!(
            put(&mut set, "203.0.113.5:1", CandidateKind::Manual),
            Ok(()),
            "one that is there is no new one"
        );
        assert_eq!(set.as_slice().len(), CANDIDATES_MAX);
    }

    #[test]
    fn a_peer_may_not_list_addresses_of_books_nor_many_ports_of_one_victim() {
        let mut set = CandidateSet::new();
        for text in
            ["203.0.113.5:4000", "[2001:db8::1]:4000", "[3fff:fff::1]:4000", "[::ffff:192.0.2.1]:4000"]
        {
            assert_eq!(set.add_from_peer(observed(text)), Err(Rejected::Documentation), "{text}");
        }
        assert_eq!(set.add_from_peer(observed("127.0.0.1:4000")), Err(Rejected::Loopback));
        for port in 1..=CANDIDATES_PER_ADDRESS_MAX {
            assert_eq!(set.add_from_peer(observed(&format!("45.1.2.3:{port}"))), Ok(()));
        }
        assert_eq!(set.add_from_peer(observed("45.1.2.3:99")), Err(Rejected::TooManyPorts));
        assert_eq!(set.add_from_peer(observed("[::ffff:45.1.2.3]:99")), Err(Rejected::TooManyPorts));
        assert_eq!(set.add_from_peer(observed("45.1.2.3:1")), Ok(()), "one that is there is no new one");
    }

    #[test]
    fn a_full_set_gives_up_the_least_likely_for_a_likelier_one() {
        let mut set = CandidateSet::new();
        for host in 1..=CANDIDATES_MAX {
            let addr = addr(&format!("192.168.1.{host}:4000"));
            set.add_from_peer(Candidate { addr, kind: CandidateKind::Host }).unwrap();
        }
        assert_eq!(set.add_from_peer(observed("45.1.2.3:1")), Ok(()));
        assert_eq!(set.as_slice().len(), CANDIDATES_MAX);
        assert_eq!(set.as_slice().last(), Some(&observed("45.1.2.3:1")));
        let one_more_lan = Candidate { addr: addr("192.168.2.1:4000"), kind: CandidateKind::Host };
        assert_eq!(set.add_from_peer(one_more_lan), Err(Rejected::Full));
    }

    proptest! {
        #[test]
        fn no_list_of_a_peer_has_many_ports_of_one_address(hosts in prop::collection::vec((0..4u8, 1..200u16), 0..80)) {
            let mut set = CandidateSet::new();
            for (host, port) in hosts {
                let addr = SocketAddr::from(([45, 0, 0, host], port));
                set.add_from_peer(Candidate { addr, kind: CandidateKind::Observed }).ok();
            }
            for there in set.as_slice() {
                let ports = set.as_slice().iter().filter(|other| other.addr.ip() == there.addr.ip()).count();
                prop_assert!(ports <= CANDIDATES_PER_ADDRESS_MAX);
            }
        }

        #[test]
        fn no_list_of_a_stranger_brings_in_a_forbidden_address(addresses: Vec<(IpAddr, u16)>) {
            let mut set = CandidateSet::new();
            for (ip, port) in addresses {
                let candidate = Candidate { addr: SocketAddr::new(ip, port), kind: CandidateKind::Observed };
                set.add(candidate, LoopbackPolicy::Refused).ok();
            }
            prop_assert!(set.as_slice().len() <= CANDIDATES_MAX);
            for Candidate { addr, .. } in set.as_slice() {
                prop_assert!(addr.port() != 0 && !addr.ip().is_multicast() && !addr.ip().is_loopback());
                prop_assert!(!addr.ip().is_unspecified());
            }
        }
    }

    fn add(text: &str, loopback: LoopbackPolicy) -> Result<(), Rejected> {
        CandidateSet::new().add(Candidate { addr: addr(text), kind: CandidateKind::Observed }, loopback)
    }

    fn observed(text: &str) -> Candidate {
        Candidate { addr: addr(text), kind: CandidateKind::Observed }
    }

    fn put(set: &mut CandidateSet, text: &str, kind: CandidateKind) -> Result<(), Rejected> {
        set.add(Candidate { addr: addr(text), kind }, LoopbackPolicy::Refused)
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }
}
