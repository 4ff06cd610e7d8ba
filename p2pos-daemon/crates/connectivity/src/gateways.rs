//! The machine's gateways: where packets go that no own network takes.
//!
//! On Linux they stand in two text files of the kernel, which are read anew each time; the texts are parsed by pure
//! functions. Elsewhere the list is empty, and UPnP's multicast search is the only way to a router.
//!
//! Refuses to know: what a gateway is asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Gateways looked at: a machine with more than four ways out is a router itself.
pub const GATEWAYS_MAX: usize = 4;

/// The kernel's flags of a route that is up and leads over a gateway (`RTF_UP | RTF_GATEWAY`).
const UP_AND_GATEWAY: u32 = 0x3;

/// A gateway of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gateway {
    /// Its address in our network.
    pub ip: IpAddr,
    /// The number of the interface that leads there, which link-local IPv6 addresses need; 0 where it does not matter.
    pub scope: u32,
}

impl Gateway {
    /// The socket address of one of its services.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        match self.ip {
            IpAddr::V4(v4) => (v4, port).into(),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, self.scope).into(),
        }
    }
}

/// Lists the default gateways, IPv4 first, at most [`GATEWAYS_MAX`]. Reads two small kernel files, and blocks that long.
#[must_use]
pub fn gateways() -> Vec<Gateway> {
    // The calling thread's network is meant, which is not the process's in every program that uses namespaces.
    let v4 = std::fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let v6 = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    let mut found: Vec<Gateway> = v4.lines().filter_map(ipv4_default).collect();
    found.extend(v6.lines().filter_map(|line| ipv6_default(line, interface_number)));
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|gateway| seen.insert(*gateway));
    found.truncate(GATEWAYS_MAX);
    found
}

fn interface_number(name: &str) -> Option<u32> {
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

/// A line of `net/route`: interface, destination, gateway, flags, ..., mask; numbers in hex, addresses in host byte order.
fn ipv4_default(line: &str) -> Option<Gateway> {
    let mut words = line.split_whitespace().skip(1);
    let destination = u32::from_str_radix(words.next()?, 16).ok()?;
    let gateway = u32::from_str_radix(words.next()?, 16).ok()?;
    let flags = u32::from_str_radix(words.next()?, 16).ok()?;
    let mask = u32::from_str_radix(words.nth(3)?, 16).ok()?;
    let is_default = destination == 0 && mask == 0 && flags & UP_AND_GATEWAY == UP_AND_GATEWAY;
    is_default.then(|| Gateway { ip: Ipv4Addr::from(gateway.to_ne_bytes()).into(), scope: 0 })
}

/// A line of `net/ipv6_route`: destination, its length, source, its length, gateway, metric, two counts, flags, interface.
fn ipv6_default(line: &str, number: impl Fn(&str) -> Option<u32>) -> Option<Gateway> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let &[destination, length, _, _, gateway, _, _, _, flags, interface] = words.as_slice() else {
        return None;
    };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    if length != "00"
        || destination.bytes().any(|digit| digit != b'0')
        || flags & UP_AND_GATEWAY != UP_AND_GATEWAY
    {
        return None;
    }
    let ip = Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?);
    Some(Gateway { ip: ip.into(), scope: number(interface)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_ipv4_default_route_names_the_gateway() {
        let line = "wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0";
        let gateway = ipv4_default(line).expect("a default route");
        assert_eq!(gateway.at(5351).to_string(), "192.168.1.1:5351");
    }

    #[test]
    fn routes_to_single_networks_and_headings_are_no_gateways() {
        let lines = [
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT",
            "wlan0\t0001A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0",
            "tun0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000080\t0\t0\t0",
            "wlan0\t00000000\t00000000\t0001\t0\t0\t600\t00000000\t0\t0\t0",
            "",
        ];
        for line in lines {
            assert_eq!(ipv4_default(line), None, "{line}");
        }
    }

    #[test]
    fn the_ipv6_default_route_keeps_its_interface() {
        let zeros = "0".repeat(32);
        let line =
            format!("{zeros} 00 {zeros} 00 fe800000000000000000000000000001 00000400 1 0 00000003 eth0");
        let gateway = ipv6_default(&line, |name| (name == "eth0").then_some(7)).expect("a default route");
        assert_eq!(gateway.at(5351).to_string(), "[fe80::1%7]:5351");
        let unreachable = format!("{zeros} 00 {zeros} 00 {zeros} ffffffff 1 0 00200200 lo");
        assert_eq!(ipv6_default(&unreachable, |_| Some(1)), None);
    }
}
