//! Where virtual time begins, and a NAT to play with: every habit of RFC 4787 that the matrix knows.
//!
//! The NAT books a binding for each outgoing packet as Linux does: by inside socket alone (endpoint-independent
//! mapping) or by inside socket and destination. A collision-prone one also books *incoming* packets that match
//! nothing, as a router without an input filter does: the pair of outside port and sender is then taken, and our own
//! packet to that sender leaves from another port.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    nat::{Filtering, Mapping, NatClass, PortPattern, PortRange},
    random::Random,
    signal::NatReport,
};

/// The lowest port that a NAT hands out.
const FIRST_PORT: u16 = 1024;

#[expect(clippy::disallowed_methods, reason = "only where virtual time begins")]
pub(crate) fn origin() -> Instant {
    Instant::now()
}

/// All classes, in the order of the matrix.
pub(crate) const CLASSES: [NatClass; 9] = [
    NatClass::Public,
    NatClass::FullCone,
    NatClass::AddressRestricted,
    NatClass::PortRestricted,
    NatClass::CollisionProne,
    NatClass::Sequential,
    NatClass::Block,
    NatClass::Random,
    NatClass::UdpBlocked,
];

/// A report of a host behind such a NAT.
pub(crate) fn report_of(class: NatClass) -> NatReport {
    let easy = |filtering| NatReport {
        mapping: Some(Mapping::EndpointIndependent),
        filtering: Some(filtering),
        ..NatReport::default()
    };
    let closed = easy(Filtering::AddressAndPortDependent);
    let hard = NatReport { mapping: Some(Mapping::AddressAndPortDependent), ..closed };
    match class {
        NatClass::Public => NatReport { mapped: true, ..hard },
        NatClass::FullCone => easy(Filtering::EndpointIndependent),
        NatClass::AddressRestricted => easy(Filtering::AddressDependent),
        NatClass::PortRestricted => closed,
        NatClass::CollisionProne => NatReport { collides: Some(true), ..closed },
        NatClass::Sequential => NatReport { delta: Some(1), ..hard },
        NatClass::Block => NatReport { range: PortRange::new(2_048, 3_071), ..hard },
        NatClass::Random => hard,
        NatClass::UdpBlocked => NatReport { udp_blocked: true, ..NatReport::default() },
    }
}

/// The habits of a simulated NAT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habits {
    pub(crate) mapping: Mapping,
    pub(crate) filtering: Filtering,
    /// For mapping that depends on the destination; the others keep the inside port where it is free.
    pub(crate) pattern: PortPattern,
    pub(crate) collides: bool,
    /// After the last packet, before both sides have talked more than two seconds apart, and after.
    pub(crate) lifetimes: (Duration, Duration),
}

/// The kinds of the lab.
pub(crate) fn kinds() -> Vec<(&'static str, Habits)> {
    use Filtering::{AddressAndPortDependent as Apdf, AddressDependent as Adf, EndpointIndependent as Eif};
    let easy = |filtering, collides| habits(Mapping::EndpointIndependent, filtering, collides);
    let hard = |mapping, pattern| Habits { pattern, ..habits(mapping, Apdf, false) };
    let symmetric = Mapping::AddressAndPortDependent;
    let block = PortPattern::Block(PortRange::new(20_480, 21_503).unwrap());
    vec![
        ("full cone", easy(Eif, false)),
        ("address-restricted", easy(Adf, false)),
        ("home", easy(Apdf, false)),
        ("open home", easy(Apdf, true)),
        ("address-dependent", hard(Mapping::AddressDependent, PortPattern::Random)),
        ("sequential", hard(symmetric, PortPattern::Sequential { delta: 1 })),
        ("block", hard(symmetric, block)),
        ("random", hard(symmetric, PortPattern::Random)),
    ]
}

pub(crate) fn habits_of(kind: &str) -> Habits {
    kinds().into_iter().find(|(name, _)| *name == kind).expect("a kind of the list").1
}

fn habits(mapping: Mapping, filtering: Filtering, collides: bool) -> Habits {
    let lifetimes = (Duration::from_secs(30), Duration::from_secs(120));
    Habits { mapping, filtering, pattern: PortPattern::Unknown, collides, lifetimes }
}

/// A simulated NAT with one outside address.
#[derive(Debug)]
pub(crate) struct Nat {
    habits: Habits,
    outside: IpAddr,
    bindings: Vec<Binding>,
    /// Outside port and sender of packets that matched nothing.
    booked: Vec<(u16, SocketAddr)>,
    next_port: u16,
    random: Random,
}

#[derive(Debug)]
struct Binding {
    inside: SocketAddr,
    port: u16,
    /// `None` where the mapping does not depend on it.
    destination: Option<SocketAddr>,
    sent_to: Vec<SocketAddr>,
    first: Instant,
    last: Instant,
    is_warm: bool,
}

impl Nat {
    pub(crate) fn new(habits: Habits, outside: [u8; 4], seed: u64) -> Self {
        let mut random = Random::from_seed(seed);
        let next_port = 20_000 + u16::try_from(random.below(20_000)).unwrap();
        Self { habits, outside: outside.into(), bindings: Vec::new(), booked: Vec::new(), next_port, random }
    }

    /// Sends a packet out and returns where it seems to come from.
    pub(crate) fn send(&mut self, inside: SocketAddr, to: SocketAddr, now: Instant) -> SocketAddr {
        self.expire(now);
        let destination = match self.habits.mapping {
            Mapping::EndpointIndependent => None,
            Mapping::AddressDependent => Some(SocketAddr::new(to.ip(), 0)),
            Mapping::AddressAndPortDependent => Some(to),
        };
        // The port that was taken by a packet from there is lost for this destination only.
        let is_stolen = self.booked.contains(&(inside.port(), to));
        let destination = if is_stolen { Some(to) } else { destination };
        let known = self
            .bindings
            .iter()
            .position(|binding| binding.inside == inside && binding.destination == destination);
        let index = known.unwrap_or_else(|| {
            let port = self.choose_port(inside.port(), is_stolen);
            let (first, last) = (now, now);
            let sent_to = Vec::new();
            self.bindings.push(Binding { inside, port, destination, sent_to, first, last, is_warm: false });
            self.bindings.len() - 1
        });
        let binding = &mut self.bindings[index];
        binding.last = now;
        if !binding.sent_to.contains(&to) {
            binding.sent_to.push(to);
        }
        SocketAddr::new(self.outside, binding.port)
    }

    /// Delivers a packet from outside: to which inside socket, if to any.
    pub(crate) fn deliver(&mut self, from: SocketAddr, port: u16, now: Instant) -> Option<SocketAddr> {
        self.expire(now);
        let filtering = self.habits.filtering;
        let lets_in = |binding: &Binding| match filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => binding.sent_to.iter().any(|to| to.ip() == from.ip()),
            Filtering::AddressAndPortDependent => binding.sent_to.contains(&from),
        };
        let found = self.bindings.iter_mut().find(|binding| binding.port == port && lets_in(binding));
        match found {
            Some(binding) => {
                binding.is_warm |= now - binding.first > Duration::from_secs(2);
                binding.last = now;
                Some(binding.inside)
            }
            None => {
                if self.habits.collides {
                    self.booked.push((port, from));
                }
                None
            }
        }
    }

    pub(crate) fn is_bound(&mut self, inside: SocketAddr, now: Instant) -> bool {
        self.expire(now);
        self.bindings.iter().any(|binding| binding.inside == inside)
    }

    fn expire(&mut self, now: Instant) {
        let (fresh, warm) = self.habits.lifetimes;
        self.bindings.retain(|binding| now - binding.last < if binding.is_warm { warm } else { fresh });
    }

    fn choose_port(&mut self, inside: u16, is_stolen: bool) -> u16 {
        let keeps = self.habits.mapping == Mapping::EndpointIndependent && !is_stolen;
        if keeps && self.is_free(inside) {
            return inside;
        }
        loop {
            let port = match self.habits.pattern {
                PortPattern::Sequential { delta } => {
                    self.next_port = self.next_port.wrapping_add_signed(delta).max(FIRST_PORT);
                    self.next_port
                }
                PortPattern::Block(range) => {
                    range.first() + u16::try_from(self.random.below(range.count())).unwrap()
                }
                PortPattern::Random | PortPattern::Unknown => {
                    let above = self.random.below(u32::from(u16::MAX - FIRST_PORT) + 1);
                    FIRST_PORT + u16::try_from(above).unwrap()
                }
            };
            if self.is_free(port) {
                return port;
            }
        }
    }

    fn is_free(&self, port: u16) -> bool {
        self.bindings.iter().all(|binding| binding.port != port)
    }
}
