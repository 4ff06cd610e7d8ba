//! Which private addresses are in networks of ours: the addresses and masks of this machine's interfaces.
//!
//! Read when somebody asks, and kept for a while. Refuses to know: routes, and what is asked of the addresses.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// How long a reading holds. Networks change when people move; a hostile peer could have us read for each packet.
const READING_HOLDS: Duration = Duration::from_secs(10);

/// The networks of this machine's interfaces.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    read_at: Option<Instant>,
    networks: Vec<Network>,
}

/// An interface's address, and the bits of it that name the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    mask: IpAddr,
}

impl Networks {
    /// Whether `ip` is in a network of ours. This machine itself is one only for sockets that are bound to it, as in tests:
    /// `bound` are the addresses of the sockets.
    pub(crate) fn contain(&mut self, ip: IpAddr, bound: &[IpAddr], now: Instant) -> bool {
        if ip.is_loopback() {
            return bound.iter().any(|address| address.is_loopback() && address.is_ipv4() == ip.is_ipv4());
        }
        if self.read_at.is_none_or(|at| now.duration_since(at) >= READING_HOLDS) {
            (self.read_at, self.networks) = (Some(now), read());
        }
        self.networks.iter().any(|network| network.contains(ip))
    }
}

impl Network {
    fn contains(self, ip: IpAddr) -> bool {
        match (self.address, self.mask, ip) {
            (IpAddr::V4(address), IpAddr::V4(mask), IpAddr::V4(ip)) => address & mask == ip & mask,
            (IpAddr::V6(address), IpAddr::V6(mask), IpAddr::V6(ip)) => address & mask == ip & mask,
            (IpAddr::V4(_) | IpAddr::V6(_), _, _) => false,
        }
    }
}

/// What the interfaces have at this moment; nothing if the system does not tell.
#[cfg(target_os = "linux")]
fn read() -> Vec<Network> {
    use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

    let ip = |address: SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let interfaces = getifaddrs().into_iter().flatten();
    interfaces
        .filter_map(|interface| {
            Some(Network { address: ip(interface.address?)?, mask: ip(interface.netmask?)? })
        })
        .collect()
}

/// Elsewhere nothing is known of the interfaces, and a private address must be dialled or be heard first.
#[cfg(not(target_os = "linux"))]
fn read() -> Vec<Network> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str, mask: &str) -> Network {
        Network { address: address.parse().unwrap(), mask: mask.parse().unwrap() }
    }

    fn contains(network: Network, ip: &str) -> bool {
        network.contains(ip.parse().unwrap())
    }

    #[test]
    fn a_network_ends_where_its_mask_says() {
        let home = network("192.168.1.17", "255.255.255.0");
        assert!(contains(home, "192.168.1.200"));
        assert!(!contains(home, "192.168.2.1") && !contains(home, "fd00::1"));
        let odd = network("10.8.3.1", "255.255.254.0");
        assert!(contains(odd, "10.8.2.9") && !contains(odd, "10.8.4.9"));
        let six = network("fd00:1::5", "ffff:ffff:ffff:ffff::");
        assert!(contains(six, "fd00:1::9") && !contains(six, "fd00:2::9"));
    }

    #[test]
    fn this_machine_is_ours_only_for_sockets_bound_to_it() {
        let mut networks = Networks::default();
        let (loopback, everywhere) = ("127.0.0.9".parse().unwrap(), "0.0.0.0".parse().unwrap());
        let now = Instant::now();
        assert!(!networks.contain(loopback, &[everywhere], now));
        assert!(networks.contain(loopback, &["127.0.0.1".parse().unwrap()], now));
        assert!(!networks.contain(loopback, &["::1".parse().unwrap()], now));
    }

    #[test]
    fn the_interfaces_are_read_once_in_a_while_only() {
        let mut networks = Networks::default();
        let (now, ip) = (Instant::now(), "10.255.255.1".parse().unwrap());
        networks.contain(ip, &[], now);
        networks.networks = vec![network("10.255.255.9", "255.255.255.0")];
        assert!(networks.contain(ip, &[], now + READING_HOLDS / 2), "as it was read");
        networks.contain(ip, &[], now + READING_HOLDS);
        assert_eq!(networks.read_at, Some(now + READING_HOLDS));
    }
}
