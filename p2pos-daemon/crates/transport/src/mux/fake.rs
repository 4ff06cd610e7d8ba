//! Made-up addresses: how noq names a way to a peer that is no plain address.
//!
//! They are unique local IPv6 addresses (RFC 4193) under one prefix of ours, with 64 random bits, so nobody can guess one
//! that is in use. The bits are no secret from the peer itself, which hears them in QUIC's address reports; what keeps
//! strangers out is that a datagram from the network never carries such a source (the receiving side drops it) and that
//! nothing is sent to one that is not registered.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Our prefix: `fd` and a global id drawn at random (RFC 4193 s3.2.1).
const PREFIX: [u8; 6] = [0xfd, 0x8e, 0x41, 0xc6, 0xe7, 0x2b];

/// The port of every made-up address; QUIC refuses port 0.
const PORT: u16 = 1;

/// What a made-up address stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FakeKind {
    /// All ways to a peer at once, for the first packet.
    Peer,
    /// A flow through a relay, over UDP.
    Relay,
    /// A flow through a relay, over TCP.
    TcpRelay,
    /// A socket of its own, whose NAT binding was guessed.
    Guess,
}

impl FakeKind {
    const ALL: [Self; 4] = [Self::Peer, Self::Relay, Self::TcpRelay, Self::Guess];

    /// The subnet, so that a log tells the kinds apart.
    fn number(self) -> [u8; 2] {
        match self {
            Self::Peer => [0, 1],
            Self::Relay => [0, 2],
            Self::TcpRelay => [0, 3],
            Self::Guess => [0, 4],
        }
    }
}

/// A made-up address that noq uses like a real one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FakeAddr {
    kind: FakeKind,
    random: u64,
}

impl FakeAddr {
    /// Draws a new one.
    pub(crate) fn mint(kind: FakeKind) -> Self {
        Self { kind, random: rand::random() }
    }

    /// Recognises a made-up address, of this daemon or another one.
    #[must_use]
    pub fn of(address: IpAddr) -> Option<Self> {
        let IpAddr::V6(address) = address else { return None };
        let bits = u128::from(address);
        if bits.to_be_bytes()[..PREFIX.len()] != PREFIX {
            return None;
        }
        let [.., k0, k1, _, _, _, _, _, _, _, _] = bits.to_be_bytes();
        let kind = FakeKind::ALL.into_iter().find(|kind| kind.number() == [k0, k1]);
        let [.., r0, r1, r2, r3, r4, r5, r6, r7] = bits.to_be_bytes();
        let random = u64::from_be_bytes([r0, r1, r2, r3, r4, r5, r6, r7]);
        // Unknown kinds are under our prefix as well: they must not be mistaken for real addresses.
        Some(Self { kind: kind.unwrap_or(FakeKind::Peer), random })
    }

    /// What it stands for.
    #[must_use]
    pub fn kind(self) -> FakeKind {
        self.kind
    }

    /// The form in which it is dialled, and given to a path.
    #[must_use]
    pub fn socket_addr(self) -> SocketAddr {
        let mut octets = [0; 16];
        octets[..6].copy_from_slice(&PREFIX);
        octets[6..8].copy_from_slice(&self.kind.number());
        octets[8..].copy_from_slice(&self.random.to_be_bytes());
        (Ipv6Addr::from(octets), PORT).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_trip_through_an_address() {
        for kind in FakeKind::ALL {
            let fake = FakeAddr::mint(kind);
            assert_eq!(FakeAddr::of(fake.socket_addr().ip()), Some(fake));
            assert_ne!(fake, FakeAddr::mint(kind), "64 random bits repeat");
        }
    }

    #[test]
    fn real_addresses_are_not_taken_for_made_up_ones() {
        for text in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "fd8e:41c6:e72c::1", "fe80::1"] {
            assert_eq!(FakeAddr::of(text.parse().unwrap()), None, "{text}");
        }
        assert!(FakeAddr::of("fd8e:41c6:e72b:ffff::1".parse().unwrap()).is_some(), "a kind nobody knows");
    }
}
