//! Who has which address. All of them look public where they should, and none is used twice:
//!
//! | where | IPv4 | IPv6 |
//! |---|---|---|
//! | line of site n, e-th address | `45.n.e.0/30`, the site is `.2` | `2a01:n:e::/64`, the site is `::2` |
//! | behind a firewall of site n | `45.n.100.0/24` | `2a01:n:f000::/64` |
//! | between routers of site n | `100.64.n.0/24`, `100.65.n.0/24` | `2a01:n:e000::/64`, ... |
//! | the same, at its end nearer to the hosts, where that looks public | `25.n.0.2`, `25.n.1.2` | |
//! | behind a translating router | `192.168.1.0/24`, **the same in every home** | `2a01:n:f000::/64` |
//! | landmark k | `(80+k).9.0.0/24`: each in another /16 | `2a02:k::/64` |
//!
//! Hosts are `.10`, `.11` and so on. Every home has the same private network because that is how it is: a peer's private address may be
//! one's own printer, or oneself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Sites at the same time: what one byte of an address tells apart.
pub(crate) const SITES_MAX: u8 = 250;
/// Landmarks of a lab: each is some public host that all peers know.
pub(crate) const LANDMARKS_MAX: u8 = 40;
/// First host behind the last router.
const HOST_FIRST: u8 = 10;
/// Third number of public networks behind a firewall: above any address that a line ever gets.
const PUBLIC_LAN: u8 = 100;

/// A network that two or more interfaces share, in both IPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subnet {
    v4: [u8; 3],
    v4_bits: u8,
    v6: [u16; 3],
}

impl Subnet {
    /// The line of a site at its `epoch`-th address.
    pub(crate) fn line(site: u8, epoch: u8) -> Self {
        Self { v4: [45, site, epoch], v4_bits: 30, v6: [0x2a01, u16::from(site), u16::from(epoch)] }
    }

    /// Between the routers at `depth` (0: behind the carrier's) and `depth + 1`.
    pub(crate) fn between_routers(site: u8, depth: u8) -> Self {
        let v6 = [0x2a01, u16::from(site), 0xe000 + u16::from(depth)];
        Self { v4: [100, 64 + depth, site], v4_bits: 24, v6 }
    }

    /// The address of the inner one of two routers where the carrier numbers his customers as if they were on the Internet, from a
    /// range that is somebody else's: there are carriers who do that with this one.
    pub(crate) fn borrowed(site: u8, depth: u8) -> Ipv4Addr {
        Ipv4Addr::new(25, site, depth, 2)
    }

    /// Where the hosts are.
    pub(crate) fn lan(site: u8, is_translated: bool) -> Self {
        let v4 = if is_translated { [192, 168, 1] } else { [45, site, PUBLIC_LAN] };
        Self { v4, v4_bits: 24, v6: [0x2a01, u16::from(site), 0xf000] }
    }

    /// A landmark's.
    pub(crate) fn landmark(number: u8) -> Self {
        Self { v4: [80 + number, 9, 0], v4_bits: 24, v6: [0x2a02, u16::from(number), 0] }
    }

    pub(crate) fn v4(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.v4;
        Ipv4Addr::new(a, b, c, host)
    }

    pub(crate) fn v6(&self, host: u8) -> Ipv6Addr {
        let [a, b, c] = self.v6;
        Ipv6Addr::new(a, b, c, 0, 0, 0, 0, u16::from(host))
    }

    /// The address with the network's length, as `ip` wants it.
    pub(crate) fn v4_with_bits(&self, host: u8) -> String {
        format!("{}/{}", self.v4(host), self.v4_bits)
    }

    pub(crate) fn v6_with_bits(&self, host: u8) -> String {
        format!("{}/64", self.v6(host))
    }

    /// The network itself, for routes.
    pub(crate) fn v4_net(&self) -> String {
        self.v4_with_bits(0)
    }

    pub(crate) fn v6_net(&self) -> String {
        self.v6_with_bits(0)
    }
}

/// The number of the `index`-th host within its subnet.
pub(crate) fn host_number(index: u8) -> u8 {
    HOST_FIRST + index
}

/// Whether an address belongs to a site of that number as seen from outside.
pub(crate) fn is_outside_of(site: u8, ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.octets()[..2] == [45, site],
        IpAddr::V6(v6) => v6.segments()[..2] == [0x2a01, u16::from(site)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_homes_have_the_same_private_network_and_nothing_else_in_common() {
        assert_eq!(Subnet::lan(1, true).v4(10), Subnet::lan(2, true).v4(10));
        assert_ne!(Subnet::lan(1, true).v6(10), Subnet::lan(2, true).v6(10));
        assert_ne!(Subnet::line(1, 0).v4(2), Subnet::line(2, 0).v4(2));
        assert_ne!(Subnet::line(1, 0).v4(2), Subnet::line(1, 1).v4(2));
    }

    #[test]
    fn landmarks_are_unrelated_to_each_other() {
        let networks = |number| Subnet::landmark(number).v4(10).octets()[0];
        assert_ne!(networks(0), networks(1));
        assert!(u32::from(LANDMARKS_MAX) + 80 < 127, "beyond lies loopback");
    }

    #[test]
    fn what_a_site_shows_outside_is_told_from_what_it_hides() {
        assert!(is_outside_of(7, Subnet::line(7, 3).v4(2).into()));
        assert!(is_outside_of(7, Subnet::lan(7, false).v6(10).into()));
        assert!(!is_outside_of(7, Subnet::lan(7, true).v4(10).into()));
        assert!(!is_outside_of(7, Subnet::line(8, 0).v4(2).into()));
    }
}
