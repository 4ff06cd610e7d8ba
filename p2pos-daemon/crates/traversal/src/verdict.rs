//! What our NAT does, from what others saw of us: the questions of RFC 5780, asked of peers that may lie.
//!
//! Every peer that we are connected to tells us the address that it sees us at. One such word proves nothing: the peer
//! may lie, or sit on our side of the NAT. So observers are counted by *prefix* (/16, for IPv6 /32), because one liar
//! easily has many addresses of one network and hardly any in others, and by majority:
//!
//! - **Mapping**: more than half of at least two prefixes saw the same socket at the same address: endpoint-independent,
//!   and that address is ours. At least three prefixes and no majority: dependent, since one of them may lie but then
//!   the honest rest disagree. Two that disagree: unknown, one of them may be the liar. Address-dependent is claimed
//!   when two prefixes each saw the same address from two of their ports; else a dependent mapping counts as address-
//!   and port-dependent, which is the commoner and the harder.
//! - **Ports** of a dependent mapping: the ports of a majority of prefixes lie within [`BLOCK_PORTS`] of each other and
//!   step evenly in time: sequential. They lie so, without order: a block. Else random. A liar who wants a step seen
//!   would have to know what the honest ones see.
//! - **Filtering**: what got in, we saw ourselves: one arrival is proof. What did not get in may never have been sent:
//!   two prefixes must have failed.
//! - Hairpin, collision, layers, lifetime, blocked UDP: measured by ourselves, kept here so that one place has it all.
//!
//! One liar among three moves nothing, with one exception that is harmless: at a sequential NAT it can repeat the port
//! that it knows the other must have seen, and make us believe in a mapping that then fails to be punched. Where the
//! network changed, everything is forgotten; what is an hour old too.
//!
//! Refuses to know: who the observers are, how tests are run, IPv4 from IPv6 (one [`BehaviorDiscovery`] each).

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    Scope,
    nat::{Filtering, Mapping, PortPattern, PortRange},
    scope_of,
    signal::NatReport,
};

/// Observations kept: 16 prefixes with [`OBSERVATIONS_PER_PREFIX_MAX`] each. The oldest goes first.
pub const OBSERVATIONS_MAX: usize = 64;
/// Observations kept of one prefix, so that a talkative one does not push out the others.
pub const OBSERVATIONS_PER_PREFIX_MAX: usize = 4;
/// Age at which an observation is forgotten. A router that was restarted behind a quiet daemon is noticed by then.
pub const OBSERVATION_AGE_MAX: Duration = Duration::from_secs(3_600);
/// The width of a port block. Carriers give 512 to 4,096 ports; more than this cannot be guessed through in one attempt.
pub const BLOCK_PORTS: u16 = 1_024;
/// The largest step that counts as sequential: the NAT's own step times the connections that others opened meanwhile.
pub const DELTA_MAX: i32 = 16;
/// Prefixes that must agree before anything is believed.
const AGREEING_MIN: usize = 2;

/// A peer told us where it sees us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// The peer's own address, as we reach it.
    pub observer: SocketAddr,
    /// Our socket.
    pub local: SocketAddr,
    /// Where the peer saw us.
    pub external: SocketAddr,
    /// When.
    pub at: Instant,
}

/// From where a peer tried to reach us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnockFrom {
    /// An address that we never sent to.
    NewAddress,
    /// A port that we never sent to, of an address that we did send to.
    NewPort,
}

/// What our NAT does. `None` is "unknown".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NatVerdict {
    /// RFC 4787 s4.1.
    pub mapping: Option<Mapping>,
    /// RFC 4787 s5.
    pub filtering: Option<Filtering>,
    /// Our address for everybody, if the mapping is endpoint-independent.
    pub external: Option<SocketAddr>,
    /// Whether there is a translation at all.
    pub is_translated: Option<bool>,
    /// Whether the outside port is the inside port (RFC 4787 s4.2.1).
    pub preserves_port: Option<bool>,
    /// How outside ports are chosen, if the mapping depends on the destination.
    pub pattern: PortPattern,
    /// RFC 4787 s6.
    pub hairpin: Option<bool>,
    /// Whether packets that come first take our port away.
    pub collides: Option<bool>,
    /// Routers that translate, one behind the other.
    pub layers: Option<u8>,
    /// How long an unused binding lives.
    pub lifetime: Option<Duration>,
    /// Whether UDP goes through at all.
    pub udp_works: Option<bool>,
    /// How many unrelated observers say what the mapping is.
    pub agreeing: usize,
    /// How many contradict them.
    pub dissenting: usize,
}

/// How far a verdict may be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// Nothing is known.
    Unknown,
    /// A majority, with dissent.
    Contested,
    /// Two agree and nobody contradicts.
    Agreed,
    /// Three or more agree and nobody contradicts.
    Certain,
}

impl NatVerdict {
    /// Tells how far the mapping may be trusted.
    #[must_use]
    pub fn confidence(&self) -> Confidence {
        match (self.mapping, self.agreeing, self.dissenting) {
            (None, _, _) => Confidence::Unknown,
            (Some(_), _, 1..) => Confidence::Contested,
            (Some(_), 0..=2, 0) => Confidence::Agreed,
            (Some(_), 3.., 0) => Confidence::Certain,
        }
    }

    /// Makes the report for a peer. `mapped`: a port mapping was made and verified from outside.
    #[must_use]
    pub fn to_report(&self, mapped: bool) -> NatReport {
        let (delta, range) = match self.pattern {
            PortPattern::Sequential { delta } => (Some(delta), None),
            PortPattern::Block(range) => (None, Some(range)),
            PortPattern::Unknown | PortPattern::Random => (None, None),
        };
        NatReport {
            mapping: self.mapping,
            filtering: self.filtering,
            delta,
            range,
            ttl_layers: self.layers,
            lifetime_s: self.lifetime.map(|life| u16::try_from(life.as_secs()).unwrap_or(u16::MAX)),
            hairpin: self.hairpin,
            mapped,
            collides: self.collides,
            udp_blocked: self.udp_works == Some(false),
        }
    }
}

/// Finds out what our NAT does, for one address family.
#[derive(Debug, Default)]
pub struct BehaviorDiscovery {
    /// In the order in which they came.
    observations: Vec<Observation>,
    knocks: Vec<Knock>,
    /// What we measured ourselves.
    measured: NatVerdict,
}

#[derive(Debug, Clone, Copy)]
struct Knock {
    from: KnockFrom,
    prefix: Prefix,
    arrived: bool,
    at: Instant,
}

/// The network of an observer: two in one count as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix(u32);

impl BehaviorDiscovery {
    /// Starts without knowledge.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an observation. Observers in our own network are on our side of the NAT and not counted; nor is one that
    /// says that it sees us at an address that nobody can have.
    pub fn handle_observation(&mut self, observation: Observation) {
        let Observation { observer, local, external, at } = observation;
        let is_usable = scope_of(observer.ip()) == Scope::Global
            && observer.is_ipv4() == external.is_ipv4()
            && external.port() != 0
            && !external.ip().is_unspecified()
            && !external.ip().is_multicast()
            && !external.ip().is_loopback();
        if !is_usable {
            return;
        }
        self.observations.retain(|old| {
            !(old.observer == observer && old.local == local) && at < old.at + OBSERVATION_AGE_MAX
        });
        self.observations.push(observation);
        self.measured.udp_works = Some(true);
        let prefix = Prefix::of(observer.ip());
        let same = |old: &Observation| Prefix::of(old.observer.ip()) == prefix;
        let is_over = self.observations.iter().filter(|old| same(old)).count() > OBSERVATIONS_PER_PREFIX_MAX;
        if let Some(oldest) = self.observations.iter().position(same).filter(|_| is_over) {
            self.observations.remove(oldest);
        }
        if self.observations.len() > OBSERVATIONS_MAX {
            self.observations.remove(0);
        }
    }

    /// Takes the end of a filtering test: a peer said that it would send from there, and its packet did or did not
    /// arrive.
    pub fn handle_knock(&mut self, from: KnockFrom, observer: IpAddr, arrived: bool, now: Instant) {
        let prefix = Prefix::of(observer);
        self.knocks
            .retain(|old| !(old.from == from && old.prefix == prefix) && now < old.at + OBSERVATION_AGE_MAX);
        if self.knocks.len() >= OBSERVATIONS_MAX {
            self.knocks.remove(0);
        }
        self.knocks.push(Knock { from, prefix, arrived, at: now });
    }

    /// Takes the end of our own hairpin test: a packet to our own outside address from another socket did or did not
    /// come back.
    pub fn handle_hairpin(&mut self, works: bool) {
        self.measured.hairpin = Some(works);
    }

    /// Takes the end of our own collision test: after a packet from a peer to a port that was free, did our packet from
    /// that port to the peer leave from another one?
    pub fn handle_collision(&mut self, collides: bool) {
        self.measured.collides = Some(collides);
    }

    /// Takes the number of routers that translate (`opener::layers_of`).
    pub fn handle_layers(&mut self, layers: u8) {
        self.measured.layers = Some(layers);
    }

    /// Takes the learned lifetime of a binding (`keepalive`).
    pub fn handle_lifetime(&mut self, lifetime: Duration) {
        self.measured.lifetime = Some(lifetime);
    }

    /// Takes note that nobody answers over UDP, while TCP works.
    pub fn handle_udp_blocked(&mut self) {
        self.measured.udp_works = Some(false);
    }

    /// Forgets everything: another network, another NAT.
    pub fn handle_network_change(&mut self) {
        *self = Self::default();
    }

    /// Returns what is known at `now`.
    #[must_use]
    pub fn verdict(&self, now: Instant) -> NatVerdict {
        let fresh: Vec<Observation> =
            self.observations.iter().filter(|old| now < old.at + OBSERVATION_AGE_MAX).copied().collect();
        let mut verdict = NatVerdict { filtering: self.filtering(now), ..self.measured };
        let socket = most_observed_socket(&fresh);
        let seen = latest_of_each_prefix(&fresh, socket);
        let (external, agreeing) = most_agreed(&seen);
        let is_majority = agreeing >= AGREEING_MIN && agreeing * 2 > seen.len();
        if is_majority {
            verdict.mapping = Some(Mapping::EndpointIndependent);
            verdict.external = external;
            verdict.is_translated = external.map(|external| Some(external) != socket);
            (verdict.agreeing, verdict.dissenting) = (agreeing, seen.len() - agreeing);
        } else if seen.len() > AGREEING_MIN {
            verdict.mapping = Some(dependent_mapping(&fresh));
            verdict.is_translated = Some(true);
            verdict.pattern = port_pattern(&fresh);
            (verdict.agreeing, verdict.dissenting) = (seen.len() - agreeing + 1, agreeing - 1);
        }
        verdict.preserves_port = preserves_port(&seen);
        verdict
    }

    /// Returns when the verdict changes by age alone.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.observations.iter().map(|old| old.at + OBSERVATION_AGE_MAX).min()
    }

    fn filtering(&self, now: Instant) -> Option<Filtering> {
        let fresh = || self.knocks.iter().filter(|knock| now < knock.at + OBSERVATION_AGE_MAX);
        let arrived = |from| fresh().any(|knock| knock.from == from && knock.arrived);
        let failed =
            |from| fresh().filter(|knock| knock.from == from && !knock.arrived).count() >= AGREEING_MIN;
        if arrived(KnockFrom::NewAddress) {
            Some(Filtering::EndpointIndependent)
        } else if !failed(KnockFrom::NewAddress) {
            None
        } else if arrived(KnockFrom::NewPort) {
            Some(Filtering::AddressDependent)
        } else {
            failed(KnockFrom::NewPort).then_some(Filtering::AddressAndPortDependent)
        }
    }
}

impl Prefix {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self(u32::from(v4) >> 16),
            // The first 32 bits; no IPv4 /16 is mistaken for one, since 2000::/3 begins above 0xffff.
            IpAddr::V6(v6) => Self(u32::from(v6.segments()[0]) << 16 | u32::from(v6.segments()[1])),
        }
    }
}

/// The socket that most prefixes have seen; of equals the one seen last.
fn most_observed_socket(observations: &[Observation]) -> Option<SocketAddr> {
    observations
        .iter()
        .map(|one| one.local)
        .max_by_key(|local| latest_of_each_prefix(observations, Some(*local)).len())
}

/// What each prefix says last about a socket.
fn latest_of_each_prefix(observations: &[Observation], local: Option<SocketAddr>) -> Vec<Observation> {
    let mut latest: Vec<Observation> = Vec::new();
    for one in observations.iter().filter(|one| Some(one.local) == local) {
        let prefix = Prefix::of(one.observer.ip());
        latest.retain(|old| Prefix::of(old.observer.ip()) != prefix);
        latest.push(*one);
    }
    latest
}

/// The address that most of them saw, and how many did.
fn most_agreed(seen: &[Observation]) -> (Option<SocketAddr>, usize) {
    let votes = |external| seen.iter().filter(|one| one.external == external).count();
    let winner = seen.iter().map(|one| one.external).max_by_key(|external| votes(*external));
    (winner, winner.map_or(0, votes))
}

fn preserves_port(seen: &[Observation]) -> Option<bool> {
    let same = seen.iter().filter(|one| one.external.port() == one.local.port()).count();
    if seen.len() < AGREEING_MIN {
        None
    } else if same * 2 > seen.len() {
        Some(true)
    } else {
        (same * 2 < seen.len()).then_some(false)
    }
}

/// Tells the two dependent mappings apart by observers that we reach at two ports.
fn dependent_mapping(observations: &[Observation]) -> Mapping {
    let mut same_from_both_ports: Vec<Prefix> = Vec::new();
    for (index, one) in observations.iter().enumerate() {
        let has_twin = observations[..index].iter().any(|other| {
            other.local == one.local
                && other.observer.ip() == one.observer.ip()
                && other.observer.port() != one.observer.port()
                && other.external == one.external
        });
        let prefix = Prefix::of(one.observer.ip());
        if has_twin && !same_from_both_ports.contains(&prefix) {
            same_from_both_ports.push(prefix);
        }
    }
    if same_from_both_ports.len() >= AGREEING_MIN {
        Mapping::AddressDependent
    } else {
        Mapping::AddressAndPortDependent
    }
}

/// Finds how outside ports are chosen; `observations` are in the order in which the NAT chose.
fn port_pattern(observations: &[Observation]) -> PortPattern {
    let Some(low) = most_populated_window(observations) else {
        return PortPattern::Random;
    };
    let is_within = |port: u16| (low..low.saturating_add(BLOCK_PORTS)).contains(&port);
    let within: Vec<(usize, u16)> = observations
        .iter()
        .map(|one| one.external.port())
        .enumerate()
        .filter(|(_, port)| is_within(*port))
        .collect();
    if let Some(delta) = even_step(&within) {
        return PortPattern::Sequential { delta };
    }
    if within.len() > AGREEING_MIN { block_around(low, &within) } else { PortPattern::Random }
}

/// The lowest port of a window of [`BLOCK_PORTS`] that holds everything that a majority of prefixes saw.
fn most_populated_window(observations: &[Observation]) -> Option<u16> {
    let mut prefixes: Vec<Prefix> = observations.iter().map(|one| Prefix::of(one.observer.ip())).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    let inside = |low: u16| {
        let is_within =
            |one: &Observation| one.external.port().checked_sub(low).is_some_and(|up| up < BLOCK_PORTS);
        let is_whole = |prefix: &&Prefix| {
            observations.iter().filter(|one| Prefix::of(one.observer.ip()) == **prefix).all(is_within)
        };
        prefixes.iter().filter(is_whole).count()
    };
    let low = observations.iter().map(|one| one.external.port()).max_by_key(|low| inside(*low))?;
    let majority = inside(low);
    (majority >= AGREEING_MIN && majority * 2 > prefixes.len()).then_some(low)
}

/// The step between ports, if all go the same way by at most [`DELTA_MAX`] for each mapping between them.
fn even_step(within: &[(usize, u16)]) -> Option<i16> {
    let mut steps: Vec<i32> = Vec::with_capacity(within.len());
    for pair in within.windows(2) {
        let ranks = i32::try_from(pair[1].0 - pair[0].0).ok()?;
        steps.push((i32::from(pair[1].1) - i32::from(pair[0].1)) / ranks);
    }
    steps.sort_unstable();
    let (first, last) = (*steps.first()?, *steps.last()?);
    let is_even = first.signum() == last.signum() && first != 0 && first.abs().max(last.abs()) <= DELTA_MAX;
    // The smallest step is the NAT's own; larger ones had other connections between them.
    let own = if first > 0 { first } else { last };
    if is_even { i16::try_from(own).ok() } else { shuffled_step(within) }
}

/// The step between ports that lie as close as counted ones do, in another order than we heard of them: several peers were
/// called at once, and the word of the last may come first. Ports drawn from a block lie so close once in a thousand times.
fn shuffled_step(within: &[(usize, u16)]) -> Option<i16> {
    if within.len() <= AGREEING_MIN {
        return None;
    }
    let mut ports: Vec<u16> = within.iter().map(|(_, port)| *port).collect();
    ports.sort_unstable();
    let gaps = ports.windows(2).map(|pair| i32::from(pair[1] - pair[0]));
    let (least, most) = (gaps.clone().min()?, gaps.max()?);
    let rises = within.windows(2).filter(|pair| pair[1].1 > pair[0].1).count();
    let sign = if rises * 2 >= within.len() - 1 { 1 } else { -1 };
    (least > 0 && most <= DELTA_MAX).then(|| i16::try_from(sign * least).ok()).flatten()
}

/// The block that the ports come from: aligned, as carriers cut them, or as wide as it may be either way.
fn block_around(low: u16, within: &[(usize, u16)]) -> PortPattern {
    let high = within.iter().map(|(_, port)| *port).max().unwrap_or(low);
    let aligned = low / BLOCK_PORTS * BLOCK_PORTS;
    let (first, last) = if high - aligned < BLOCK_PORTS {
        (aligned.max(1), aligned + (BLOCK_PORTS - 1))
    } else {
        (high.saturating_sub(BLOCK_PORTS - 1).max(1), low.saturating_add(BLOCK_PORTS - 1))
    };
    PortRange::new(first, last).map_or(PortPattern::Random, PortPattern::Block)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Nat, habits_of, kinds, origin};

    #[test]
    fn each_kind_of_nat_is_known_from_three_observers_and_their_second_ports() {
        for (kind, habits) in kinds() {
            let verdict = discover(kind, 7, 4, &[]).verdict(origin());
            assert_eq!(verdict.mapping, Some(habits.mapping), "{kind}: {verdict:?}");
            assert_eq!(verdict.filtering, Some(habits.filtering), "{kind}");
            assert_eq!(verdict.confidence(), Confidence::Certain, "{kind}: {verdict:?}");
            if habits.mapping != Mapping::EndpointIndependent {
                let expected = match habits.pattern {
                    PortPattern::Unknown => PortPattern::Random,
                    known
                    @ (PortPattern::Sequential { .. } | PortPattern::Block(_) | PortPattern::Random) => known,
                };
                assert_eq!(verdict.pattern, expected, "{kind}");
            }
        }
    }

    #[test]
    fn one_observer_alone_says_nothing_and_two_that_disagree_neither() {
        let now = origin();
        let mut discovery = BehaviorDiscovery::new();
        discovery.handle_observation(seen(1, "45.9.9.9:4000", now));
        assert_eq!(discovery.verdict(now).mapping, None);
        discovery.handle_observation(seen(2, "45.9.9.9:5000", now));
        let verdict = discovery.verdict(now);
        assert_eq!((verdict.mapping, verdict.confidence()), (None, Confidence::Unknown));
    }

    #[test]
    fn a_hundred_addresses_of_one_network_are_one_voice() {
        let now = origin();
        let mut discovery = BehaviorDiscovery::new();
        for host in 0..100 {
            let observer = SocketAddr::from(([45, 66, host, 1], 4000));
            let external = "45.1.1.1:1".parse().unwrap();
            discovery.handle_observation(Observation { observer, local: local(), external, at: now });
        }
        assert_eq!(discovery.verdict(now).mapping, None);
        for network in 1..3 {
            discovery.handle_observation(seen(network, "45.9.9.9:4000", now));
        }
        let verdict = discovery.verdict(now);
        assert_eq!(verdict.external, Some("45.9.9.9:4000".parse().unwrap()));
        assert_eq!(verdict.confidence(), Confidence::Contested);
        assert!(discovery.observations.len() <= OBSERVATIONS_MAX);
    }

    #[test]
    fn observers_on_our_side_of_the_nat_do_not_count() {
        let now = origin();
        let mut discovery = BehaviorDiscovery::new();
        for observer in ["192.168.1.2:1", "10.0.0.2:1", "172.16.0.1:1"] {
            let observer = observer.parse().unwrap();
            discovery.handle_observation(Observation {
                observer,
                local: local(),
                external: local(),
                at: now,
            });
        }
        assert_eq!(discovery.verdict(now).mapping, None);
    }

    #[test]
    fn a_host_without_nat_knows_that_it_has_none() {
        let now = origin();
        let mut discovery = BehaviorDiscovery::new();
        for network in 1..3 {
            discovery.handle_observation(seen(network, &local().to_string(), now));
        }
        let verdict = discovery.verdict(now);
        assert_eq!((verdict.is_translated, verdict.preserves_port), (Some(false), Some(true)));
    }

    #[test]
    fn a_restarted_router_is_believed_when_a_majority_saw_the_new_port() {
        let now = origin();
        let mut discovery = BehaviorDiscovery::new();
        for network in 1..=3 {
            discovery.handle_observation(seen(network, "45.9.9.9:4000", now));
        }
        discovery.handle_observation(seen(1, "45.9.9.9:7000", now));
        assert_eq!(discovery.verdict(now).external.unwrap().port(), 4000);
        discovery.handle_observation(seen(2, "45.9.9.9:7000", now));
        assert_eq!(discovery.verdict(now).external.unwrap().port(), 7000);
    }

    #[test]
    fn what_is_known_ends_with_the_network_and_with_age() {
        let now = origin();
        let mut discovery = discover("home", 1, 3, &[]);
        assert!(discovery.verdict(now + OBSERVATION_AGE_MAX / 2).mapping.is_some());
        assert_eq!(discovery.verdict(now + OBSERVATION_AGE_MAX * 2).mapping, None);
        assert_eq!(discovery.verdict(now + OBSERVATION_AGE_MAX * 2).filtering, None);
        discovery.handle_hairpin(true);
        discovery.handle_network_change();
        assert_eq!(discovery.verdict(now), NatVerdict::default());
    }

    #[test]
    fn a_peer_that_never_sent_its_knock_does_not_make_our_filter_look_closed() {
        let now = origin();
        let mut discovery = BehaviorDiscovery::new();
        let liar = IpAddr::from([45, 1, 0, 1]);
        discovery.handle_knock(KnockFrom::NewAddress, liar, false, now);
        discovery.handle_knock(KnockFrom::NewPort, liar, false, now);
        assert_eq!(discovery.verdict(now).filtering, None);
        discovery.handle_knock(KnockFrom::NewAddress, IpAddr::from([45, 2, 0, 1]), true, now);
        assert_eq!(discovery.verdict(now).filtering, Some(Filtering::EndpointIndependent));
    }

    #[test]
    fn blocked_udp_is_taken_back_by_the_first_packet() {
        let now = origin();
        let mut discovery = BehaviorDiscovery::new();
        discovery.handle_udp_blocked();
        assert!(discovery.verdict(now).to_report(false).udp_blocked);
        discovery.handle_observation(seen(1, "45.9.9.9:4000", now));
        assert!(!discovery.verdict(now).to_report(false).udp_blocked);
    }

    proptest! {
        #[test]
        fn one_liar_among_three_cannot_move_the_mapping(
            seed: u64, kind in 0..8usize, liar in 0..3u8, lie in 1..=u16::MAX, address in (1..127u8, any::<[u8; 3]>()),
        ) {
            let (name, habits) = kinds()[kind];
            let (first, [b, c, d]) = address;
            let lie = SocketAddr::from(([first, b, c, d], lie));
            let verdict = discover(name, seed, 3, &[(liar, lie)]).verdict(origin());
            let is_easy = |mapping| mapping == Mapping::EndpointIndependent;
            prop_assert_eq!(verdict.mapping.map(is_easy), Some(is_easy(habits.mapping)), "{:?}", verdict);
            if let Some(external) = verdict.external {
                prop_assert_eq!(external, "45.9.9.9:4242".parse().unwrap());
            }
        }

        #[test]
        fn no_observation_panics_or_fills_the_memory(
            observations in prop::collection::vec((any::<SocketAddr>(), any::<SocketAddr>(), any::<SocketAddr>()), 0..200),
        ) {
            let now = origin();
            let mut discovery = BehaviorDiscovery::new();
            for (observer, local, external) in observations {
                discovery.handle_observation(Observation { observer, local, external, at: now });
                prop_assert!(discovery.verdict(now).agreeing <= OBSERVATIONS_MAX);
            }
            prop_assert!(discovery.observations.len() <= OBSERVATIONS_MAX);
        }
    }

    /// Observers in as many networks look at us, from two ports each; liars say their lie.
    fn discover(kind: &str, seed: u64, networks: u8, liars: &[(u8, SocketAddr)]) -> BehaviorDiscovery {
        let now = origin();
        let mut nat = Nat::new(habits_of(kind), [45, 9, 9, 9], seed);
        let mut discovery = BehaviorDiscovery::new();
        for (network, port) in (0..networks).flat_map(|network| [(network, 4000), (network, 4001)]) {
            let observer = SocketAddr::from(([45, 50 + network, 0, 1], port));
            let mut external = nat.send(local(), observer, now);
            if let Some((_, lie)) = liars.iter().find(|(liar, _)| *liar == network) {
                external = *lie;
            }
            discovery.handle_observation(Observation { observer, local: local(), external, at: now });
        }
        let port = nat.send(local(), SocketAddr::from(([45, 50, 0, 1], 4000)), now).port();
        for network in 0..networks {
            let stranger = SocketAddr::from(([45, 90 + network, 0, 1], 4000));
            let arrived = nat.deliver(stranger, port, now).is_some();
            discovery.handle_knock(KnockFrom::NewAddress, stranger.ip(), arrived, now);
            let known = SocketAddr::from(([45, 50, 0, 1], 9000 + u16::from(network)));
            let arrived = nat.deliver(known, port, now).is_some();
            discovery.handle_knock(KnockFrom::NewPort, stranger.ip(), arrived, now);
        }
        discovery
    }

    fn seen(network: u8, external: &str, at: Instant) -> Observation {
        let observer = SocketAddr::from(([45, network, 0, 1], 4000));
        Observation { observer, local: local(), external: external.parse().unwrap(), at }
    }

    fn local() -> SocketAddr {
        "192.168.1.7:4242".parse().unwrap()
    }

    #[test]
    fn steps_are_seen_although_the_words_came_in_another_order() {
        let within = |ports: &[u16]| ports.iter().copied().enumerate().collect::<Vec<_>>();
        for (ports, step) in [
            (&[20_001, 20_003, 20_005][..], Some(2)),
            (&[20_003, 20_001, 20_005], Some(2)),
            (&[20_005, 20_003, 20_001], Some(-2)),
            (&[20_005, 20_001, 20_003, 20_002], Some(-1)),
            (&[20_005, 20_001], Some(-4)),
            (&[20_003, 20_001, 20_305], None),
            (&[20_003, 20_001, 20_003], None),
        ] {
            assert_eq!(even_step(&within(ports)), step, "{ports:?}");
        }
    }
}
