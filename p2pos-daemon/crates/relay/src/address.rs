//! Where a relay may send at all, and which addresses count as one source.
//!
//! A relay sends to nobody who did not prove to be there. Two more bars stand before that proof is even asked for:
//! addresses that are no single machine in the open network are refused, and private ones are for users whose own
//! connection to the relay comes from a private address. So nobody outside makes a relay knock in its home.
//!
//! Refuses to know: flows, proofs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How a side is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// Datagrams to this address.
    Udp(SocketAddr),
    /// A TCP connection, by the number that the caller gave it. Never reuse one.
    Tcp(u64),
}

/// What kind of place an address is, as far as relaying goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// One machine in the open network.
    Open,
    /// A machine in the relay's own network (RFC 1918, RFC 4193, link-local, RFC 6598).
    Private,
    /// This machine.
    Loopback,
    /// Nobody, or more than one.
    Nobody,
}

/// The addresses that one subscriber easily has: an IPv4 /24, an IPv6 /56.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Prefix(u64);

impl Prefix {
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            // IPv4 stands where no IPv6 prefix can: 2^56 and above are cut off below.
            IpAddr::V4(ip) => Self(1 << 56 | u64::from(ip.to_bits() >> 8)),
            IpAddr::V6(ip) => {
                Self(u64::try_from(ip.to_bits() >> (128 - 56)).expect("56 bits are left of 128"))
            }
        }
    }
}

/// Judges an address. Port 0 is nobody's.
pub(crate) fn place_of(address: SocketAddr) -> Place {
    if address.port() == 0 {
        return Place::Nobody;
    }
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => place_of_v4(ip),
        IpAddr::V6(ip) => place_of_v6(ip),
    }
}

fn place_of_v4(ip: Ipv4Addr) -> Place {
    let [first, second, third, _] = ip.octets();
    match (first, second) {
        (127, _) => Place::Loopback,
        (0 | 224..=255, _) => Place::Nobody,
        (10, _) | (192, 168) | (172, 16..=31) | (169, 254) | (100, 64..=127) => Place::Private,
        // RFC 6890: protocol assignments and the three ranges for documentation, RFC 2544: benchmarks.
        (192, 0) if third == 0 || third == 2 => Place::Nobody,
        (198, 51) if third == 100 => Place::Nobody,
        (203, 0) if third == 113 => Place::Nobody,
        (198, 18..=19) => Place::Nobody,
        _ => Place::Open,
    }
}

fn place_of_v6(ip: Ipv6Addr) -> Place {
    let first = ip.segments()[0];
    if ip.is_loopback() {
        Place::Loopback
    } else if first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80 {
        Place::Private
    } else if is_carrier_of_v4(ip) || ip.segments()[..2] == [0x2001, 0xdb8] || first & 0xe000 != 0x2000 {
        // Only 2000::/3 is in use as single machines; Teredo and 6to4 carry any IPv4 address, private ones too.
        Place::Nobody
    } else {
        Place::Open
    }
}

fn is_carrier_of_v4(ip: Ipv6Addr) -> bool {
    ip.segments()[..2] == [0x2001, 0] || ip.segments()[0] == 0x2002
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_machines_of_the_open_network_are_open() {
        for (text, place) in [
            ("8.8.8.8:1", Place::Open),
            ("[2600::1]:1", Place::Open),
            ("8.8.8.8:0", Place::Nobody),
            ("0.0.0.0:1", Place::Nobody),
            ("224.0.0.1:1", Place::Nobody),
            ("255.255.255.255:1", Place::Nobody),
            ("240.0.0.1:1", Place::Nobody),
            ("192.0.2.1:1", Place::Nobody),
            ("[::]:1", Place::Nobody),
            ("[ff02::1]:1", Place::Nobody),
            ("[2002:0a00:0001::1]:1", Place::Nobody),
            ("[64:ff9b::a00:1]:1", Place::Nobody),
            ("127.0.0.1:1", Place::Loopback),
            ("[::1]:1", Place::Loopback),
            ("[::ffff:127.0.0.1]:1", Place::Loopback),
            ("10.0.0.1:1", Place::Private),
            ("172.31.0.1:1", Place::Private),
            ("172.32.0.1:1", Place::Open),
            ("192.168.1.1:1", Place::Private),
            ("[::ffff:192.168.1.1]:1", Place::Private),
            ("169.254.169.254:1", Place::Private),
            ("100.64.0.1:1", Place::Private),
            ("[fe80::1]:1", Place::Private),
            ("[fd00::1]:1", Place::Private),
        ] {
            assert_eq!(place_of(text.parse().unwrap()), place, "{text}");
        }
    }

    #[test]
    fn one_subscriber_is_one_source_and_families_never_meet() {
        let prefix = |text: &str| Prefix::of(text.parse().unwrap());
        assert_eq!(prefix("8.8.8.1"), prefix("8.8.8.254"));
        assert_eq!(prefix("8.8.8.1"), prefix("::ffff:8.8.8.1"));
        assert_ne!(prefix("8.8.8.1"), prefix("8.8.9.1"));
        assert_eq!(prefix("2600:1:2:3400::1"), prefix("2600:1:2:34ff:5::1"));
        assert_ne!(prefix("2600:1:2:3400::1"), prefix("2600:1:2:3500::1"));
    }
}
