//! Who may begin a handshake now: nobody holds all places, and nobody makes us compute without end.
//!
//! A handshake costs the answering side some 300 us of curve arithmetic and, until it is done or [`crate::tuning::HANDSHAKE_MAX`]
//! is over, a place among [`HANDSHAKES_MAX`]. So each *network* gets its share of both: the first 24 bits of an IPv4 address,
//! the first 56 of an IPv6 address, which is about what one customer of a provider holds. A network has so many places, and a
//! token bucket.
//!
//! Source addresses can be forged, so the share is kept twice. What an attempt from an unproven address uses up is only the
//! *unproven* share; when that is gone the address is asked to prove itself by a Retry (RFC 9000 s8.1.2), which costs us one
//! small packet and no memory, and costs an honest peer one round trip. Proven attempts have a share of their own, which
//! nobody can use up but the owner of the network. Beyond it an attempt is ignored; QUIC repeats it by itself.
//!
//! Refuses to know: sockets, packets, tasks; time is an argument. Rules N11 and N12 of the handshake checklist.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use crate::tuning::{
    HANDSHAKES_BURST_PER_NETWORK, HANDSHAKES_MAX, HANDSHAKES_PER_NETWORK_MAX, HANDSHAKES_PER_SECOND,
    NETWORKS_MAX, RETRY_FROM_HANDSHAKES,
};

/// What to do with a first packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Begin the handshake; the place is given back with [`Doorkeeper::leave`].
    Enter(Place),
    /// Ask the address to prove itself.
    ProveAddress,
    /// Say nothing.
    Ignore,
}

/// A place among the handshakes in progress.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    network: Network,
    is_proven: bool,
}

/// The places that are taken and the tokens that are left.
#[derive(Debug, Default)]
pub(crate) struct Doorkeeper {
    places_taken: usize,
    unproven: Shares,
    proven: Shares,
}

impl Doorkeeper {
    /// Decides about a first packet from `source`, which a Retry has proven or not.
    pub(crate) fn knock(&mut self, source: IpAddr, is_proven: bool, now: Instant) -> Verdict {
        let network = Network::of(source);
        let is_busy = self.places_taken >= if is_proven { HANDSHAKES_MAX } else { RETRY_FROM_HANDSHAKES };
        let shares = if is_proven { &mut self.proven } else { &mut self.unproven };
        if !is_busy && shares.take(network, now) {
            self.places_taken += 1;
            return Verdict::Enter(Place { network, is_proven });
        }
        if is_proven { Verdict::Ignore } else { Verdict::ProveAddress }
    }

    /// Takes a place back, whatever became of the handshake.
    pub(crate) fn leave(&mut self, place: Place) {
        let Place { network, is_proven } = place;
        self.places_taken -= 1;
        let shares = if is_proven { &mut self.proven } else { &mut self.unproven };
        shares.give_back(network);
    }
}

/// The part of an address that one owner is likely to hold as a whole, the rest zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network(Ipv6Addr);

impl Network {
    /// Bits that count of an IPv4 address, written as IPv6: 96 of the mapping and 24 of its own.
    const IPV4_BITS: u32 = 96 + 24;
    const IPV6_BITS: u32 = 56;

    fn of(address: IpAddr) -> Self {
        let (address, bits) = match address.to_canonical() {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped(), Self::IPV4_BITS),
            IpAddr::V6(v6) => (v6, Self::IPV6_BITS),
        };
        Self(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (u128::BITS - bits))))
    }
}

/// The shares of all networks. One that holds no place and has all its tokens is the same as one never seen.
#[derive(Debug, Default)]
struct Shares {
    of: HashMap<Network, Share>,
}

#[derive(Debug)]
struct Share {
    places: usize,
    /// Tokens at `counted`; they have grown since.
    tokens: u32,
    counted: Instant,
}

impl Shares {
    /// Takes a place and a token of the network, if both are there.
    fn take(&mut self, network: Network, now: Instant) -> bool {
        if !self.of.contains_key(&network) && self.of.len() >= NETWORKS_MAX {
            self.of.retain(|_, share| share.is_in_use(now));
            if self.of.len() >= NETWORKS_MAX {
                return false;
            }
        }
        let share = self.of.entry(network).or_insert(Share {
            places: 0,
            tokens: HANDSHAKES_BURST_PER_NETWORK,
            counted: now,
        });
        share.refill(now);
        let may_enter = share.places < HANDSHAKES_PER_NETWORK_MAX && share.tokens > 0;
        if may_enter {
            share.places += 1;
            share.tokens -= 1;
        }
        may_enter
    }

    fn give_back(&mut self, network: Network) {
        if let Some(share) = self.of.get_mut(&network) {
            share.places -= 1;
        }
    }
}

impl Share {
    /// Counts whole tokens and keeps the time that belongs to a part of one.
    fn refill(&mut self, now: Instant) {
        let each = Duration::from_secs(1) / HANDSHAKES_PER_SECOND;
        let grown = now.saturating_duration_since(self.counted).as_nanos() / each.as_nanos();
        let missing = HANDSHAKES_BURST_PER_NETWORK - self.tokens;
        match u32::try_from(grown) {
            Ok(grown) if grown < missing => {
                self.tokens += grown;
                self.counted += each * grown;
            }
            Ok(_) | Err(_) => {
                self.tokens = HANDSHAKES_BURST_PER_NETWORK;
                self.counted = now;
            }
        }
    }

    fn is_in_use(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.places > 0 || self.tokens < HANDSHAKES_BURST_PER_NETWORK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Knocks until there is no entry any more, and counts the entries.
    fn enter_all(door: &mut Doorkeeper, source: IpAddr, is_proven: bool, now: Instant) -> Vec<Place> {
        std::iter::from_fn(|| match door.knock(source, is_proven, now) {
            Verdict::Enter(place) => Some(place),
            Verdict::ProveAddress | Verdict::Ignore => None,
        })
        .collect()
    }

    #[test]
    fn one_network_holds_its_share_of_the_places_and_leaves_the_others_alone() {
        let (mut door, now) = (Doorkeeper::default(), Instant::now());
        let flood = enter_all(&mut door, address("198.51.100.7"), true, now);
        assert_eq!(flood.len(), HANDSHAKES_PER_NETWORK_MAX);
        assert_eq!(door.knock(address("198.51.100.200"), true, now), Verdict::Ignore, "the same network");
        assert!(matches!(door.knock(address("198.51.101.7"), true, now), Verdict::Enter(_)));
        for place in flood {
            door.leave(place);
        }
        assert!(matches!(door.knock(address("198.51.100.7"), true, now), Verdict::Enter(_)));
        assert_eq!(door.places_taken, 2);
    }

    #[test]
    fn forged_addresses_cost_their_owner_a_retry_and_no_more() {
        let (mut door, now) = (Doorkeeper::default(), Instant::now());
        let victim = address("203.0.113.5");
        let forged = enter_all(&mut door, victim, false, now);
        assert_eq!(forged.len(), HANDSHAKES_PER_NETWORK_MAX);
        assert_eq!(door.knock(victim, false, now), Verdict::ProveAddress);
        assert!(matches!(door.knock(victim, true, now), Verdict::Enter(_)));
    }

    #[test]
    fn above_the_mark_everybody_proves_the_address_and_at_the_limit_nobody_enters() {
        let (mut door, now) = (Doorkeeper::default(), Instant::now());
        let mut networks = (0..=u8::MAX).map(|third| IpAddr::from([10, 0, third, 1]));
        while door.places_taken < RETRY_FROM_HANDSHAKES {
            let source = networks.next().unwrap();
            assert!(matches!(door.knock(source, false, now), Verdict::Enter(_)));
        }
        assert_eq!(door.knock(address("192.0.2.1"), false, now), Verdict::ProveAddress);
        while door.places_taken < HANDSHAKES_MAX {
            let source = networks.next().unwrap();
            assert!(matches!(door.knock(source, true, now), Verdict::Enter(_)));
        }
        assert_eq!(door.knock(address("192.0.2.1"), true, now), Verdict::Ignore);
    }

    #[test]
    fn a_network_that_comes_and_goes_is_slowed_down_to_its_rate() {
        let (mut door, mut now) = (Doorkeeper::default(), Instant::now());
        let source = address("2001:db8:1:100::1");
        let entries = |door: &mut Doorkeeper, now| {
            let mut count = 0;
            while let Verdict::Enter(place) = door.knock(source, true, now) {
                door.leave(place);
                count += 1;
            }
            count
        };
        assert_eq!(entries(&mut door, now), HANDSHAKES_BURST_PER_NETWORK);
        for _ in 0..10 {
            now += Duration::from_millis(500);
            assert_eq!(entries(&mut door, now), HANDSHAKES_PER_SECOND / 2);
        }
        now += Duration::from_secs(3_600);
        assert_eq!(entries(&mut door, now), HANDSHAKES_BURST_PER_NETWORK);
    }

    #[test]
    fn networks_are_told_apart_by_what_one_owner_holds() {
        let same = |one: &str, other: &str| Network::of(address(one)) == Network::of(address(other));
        assert!(same("192.0.2.1", "192.0.2.255"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.9"));
        assert!(!same("192.0.2.1", "192.0.3.1"));
        assert!(same("2001:db8:0:1200::1", "2001:db8:0:12ff:ffff::"));
        assert!(!same("2001:db8:0:1200::1", "2001:db8:0:1300::1"));
    }

    #[test]
    fn thousands_of_forged_networks_do_not_grow_the_memory_nor_shut_the_door() {
        let (mut door, mut now) = (Doorkeeper::default(), Instant::now());
        let network = |number: u32| IpAddr::from((0x0b00_0000 + (number << 8)).to_be_bytes());
        let forged = u32::try_from(NETWORKS_MAX).unwrap() + 10;
        for number in 0..forged {
            if let Verdict::Enter(place) = door.knock(network(number), false, now) {
                door.leave(place);
            }
        }
        assert_eq!(door.unproven.of.len(), NETWORKS_MAX);
        assert_eq!(door.knock(address("192.0.2.1"), false, now), Verdict::ProveAddress);
        assert!(matches!(door.knock(address("192.0.2.1"), true, now), Verdict::Enter(_)));
        now += Duration::from_secs(60);
        assert!(matches!(door.knock(address("192.0.2.1"), false, now), Verdict::Enter(_)));
        assert_eq!(door.unproven.of.len(), 1, "those who rest are forgotten");
    }
}
