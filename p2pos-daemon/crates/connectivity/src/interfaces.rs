//! The machine's interfaces, and the choice among their addresses.
//!
//! Listing is one call to the system; choosing is a pure function over the list, so that odd machines can be written
//! down as tests. Left out are addresses nearer than asked for, interfaces that are down, and the bridges that
//! container and virtual machine managers put up: every second machine has `172.17.0.1`, no friend is behind it, and
//! an Initial sent there would go to the friend's own bridge.
//!
//! Refuses to know: which addresses work from outside (observation and port mapping tell).

use std::{
    cmp::Reverse,
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

use if_addrs::IfOperStatus;
use p2pos_traversal::{Candidate, CandidateKind, CandidateSet, LoopbackPolicy, Scope, scope_of};

/// Addresses told at most. It is half of what a peer keeps, so that mapped and observed ones find room.
pub const OWN_CANDIDATES_MAX: usize = 16;

/// How the interfaces of container and virtual machine managers are named: docker, podman, libvirt, lxc, kubernetes.
const BRIDGE_PREFIXES: [&str; 9] =
    ["docker", "br-", "veth", "podman", "cni", "flannel", "virbr", "lxcbr", "lxdbr"];

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's name.
    pub interface: String,
    /// The interface's number, which link-local IPv6 addresses need; 0 if the system gave none.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// Whether the interface can carry packets.
    pub is_up: bool,
}

/// The system did not tell its interfaces.
#[derive(Debug, thiserror::Error)]
#[error("the system does not tell its network interfaces: {0}")]
pub struct InterfacesError(#[from] io::Error);

/// Lists all addresses of all interfaces. Takes well under a millisecond, and blocks that long.
///
/// # Errors
/// [`InterfacesError`] if the system refuses, as some sandboxes do.
pub fn interface_addresses() -> Result<Vec<InterfaceAddress>, InterfacesError> {
    let listed = if_addrs::get_if_addrs()?;
    Ok(listed.into_iter().map(address_of).collect())
}

/// Lists what to tell a friend: [`interface_addresses`] and [`worth_telling`] in one.
///
/// # Errors
/// [`InterfacesError`] if the system refuses.
pub fn own_candidates(port: u16, nearest: Scope) -> Result<Vec<Candidate>, InterfacesError> {
    Ok(worth_telling(&interface_addresses()?, port, nearest))
}

/// Chooses addresses at which a friend could reach `port`: those that reach at least as far as `nearest`, the farthest
/// first, at most [`OWN_CANDIDATES_MAX`]. [`Scope::Lan`] is what friends want; [`Scope::Loopback`] is for tests.
#[must_use]
pub fn worth_telling(addresses: &[InterfaceAddress], port: u16, nearest: Scope) -> Vec<Candidate> {
    let mut chosen: Vec<&InterfaceAddress> = addresses.iter().filter(|own| is_worth(own, nearest)).collect();
    chosen.sort_by_key(|own| (Reverse(scope_of(own.ip)), Reverse(own.ip.is_ipv6()), own.ip));
    let mut set = CandidateSet::new();
    for own in chosen {
        let addr = match own.ip {
            IpAddr::V6(v6) if scope_of(own.ip) == Scope::Link => {
                SocketAddrV6::new(v6, port, 0, own.index).into()
            }
            IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::new(own.ip, port),
        };
        // A set refuses what nobody should send to; such an address is not worth telling, and no error of ours.
        set.add(Candidate { addr, kind: CandidateKind::Host }, LoopbackPolicy::TypedByUser).ok();
    }
    set.as_slice().iter().take(OWN_CANDIDATES_MAX).copied().collect()
}

fn is_worth(own: &InterfaceAddress, nearest: Scope) -> bool {
    let is_bridge = BRIDGE_PREFIXES.iter().any(|prefix| own.interface.starts_with(prefix));
    own.is_up && !is_bridge && scope_of(own.ip) >= nearest
}

fn address_of(listed: if_addrs::Interface) -> InterfaceAddress {
    let is_up = match listed.oper_status {
        // Loopback and tunnels do not say; what they carry, they carry.
        IfOperStatus::Up | IfOperStatus::Unknown | IfOperStatus::Testing | IfOperStatus::Dormant => true,
        IfOperStatus::Down | IfOperStatus::NotPresent | IfOperStatus::LowerLayerDown => false,
    };
    let ip = listed.ip();
    InterfaceAddress { index: listed.index.unwrap_or(0), interface: listed.name, ip, is_up }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_laptop_tells_its_global_and_lan_addresses_the_farthest_first() {
        let laptop = [
            own("lo", "127.0.0.1"),
            own("lo", "::1"),
            own("wlan0", "192.168.1.7"),
            own("wlan0", "fe80::7"),
            own("wlan0", "2001:db8::7"),
            own("wlan0", "fd00::7"),
            own("docker0", "172.17.0.1"),
            own("br-1f2e3d", "172.18.0.1"),
            own("veth0a", "169.254.9.9"),
        ];
        let told = shown(&worth_telling(&laptop, 4000, Scope::Lan));
        assert_eq!(told, ["[2001:db8::7]:4000", "[fd00::7]:4000", "192.168.1.7:4000"]);
    }

    #[test]
    fn loopback_and_link_local_are_told_only_when_asked_for() {
        let machine = [own("lo", "127.0.0.1"), own("eth0", "169.254.3.4"), own("eth0", "fe80::7")];
        assert_eq!(worth_telling(&machine, 4000, Scope::Lan), []);
        assert_eq!(
            shown(&worth_telling(&machine, 4000, Scope::Link)),
            ["[fe80::7%2]:4000", "169.254.3.4:4000"]
        );
        assert_eq!(
            shown(&worth_telling(&machine, 4000, Scope::Loopback)),
            ["[fe80::7%2]:4000", "169.254.3.4:4000", "127.0.0.1:4000"]
        );
    }

    #[test]
    fn an_interface_that_is_down_and_addresses_nobody_has_are_left_out() {
        let mut down = own("eth0", "192.168.1.7");
        down.is_up = false;
        let machine = [down, own("eth1", "0.0.0.0"), own("eth1", "::"), own("eth1", "255.255.255.255")];
        assert_eq!(worth_telling(&machine, 4000, Scope::Loopback), []);
        assert_eq!(worth_telling(&[own("eth0", "192.168.1.7")], 0, Scope::Loopback), []);
    }

    #[test]
    fn a_machine_with_too_many_addresses_tells_the_first_of_them() {
        let many: Vec<_> = (1..=100).map(|n| own("eth0", &format!("203.0.113.{n}"))).collect();
        assert_eq!(worth_telling(&many, 4000, Scope::Lan).len(), OWN_CANDIDATES_MAX);
    }

    #[test]
    fn this_machine_has_at_least_its_loopback_address() {
        let told = own_candidates(4000, Scope::Loopback).unwrap();
        assert!(told.iter().any(|candidate| candidate.addr.ip().is_loopback()), "{told:?}");
    }

    fn own(interface: &str, ip: &str) -> InterfaceAddress {
        InterfaceAddress { interface: interface.to_owned(), index: 2, ip: ip.parse().unwrap(), is_up: true }
    }

    fn shown(candidates: &[Candidate]) -> Vec<String> {
        candidates.iter().map(|candidate| candidate.addr.to_string()).collect()
    }
}
