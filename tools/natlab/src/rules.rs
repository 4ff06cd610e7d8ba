//! What makes a router the NAT that it plays: the nftables rules of each kind. Text in, text out; the lab loads it, the judge proves it.
//!
//! All rules of a router stand in one table, `inet lab`, so that one transaction replaces them and a gateway daemon (miniupnpd) finds its
//! chains prepared: packets that it lets in are not dropped by another table.
//!
//! How the kinds come about, where Linux does not bring them along:
//! - **EIM**: a map remembers which host uses which port, renewed by every packet that leaves. `snat` keeps the port, and newcomers from
//!   outside are led back by the map. What may come in is then the filter's business alone.
//! - **ADF**: a set of (host, port, far address), renewed likewise.
//! - **ADM**: the port is a hash of the host's port and the far address.
//! - **Sequential**: a counter. Both of these go through a map of ports: an expression used as a port directly would arrive with its bytes
//!   swapped, and ports would rise in steps of 256.
//! - **APDF, home, random, block**: Linux's own masquerade and its table of connections.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::topology::{Filtering, Input, Outbound, Ports, Router, Translation};

/// The router's interface towards the Internet.
pub const WAN: &str = "wan";
/// Its interface towards the hosts; further ones are called the same with a number behind.
pub const LAN: &str = "lan";
/// The table that all rules of a router stand in.
pub const TABLE: &str = "lab";
/// The chain in which a gateway daemon lets packets in.
pub const MAPPED_FORWARD: &str = "mapped_forward";
/// The chain in which it translates them on the way in.
pub const MAPPED_PREROUTING: &str = "mapped_prerouting";
/// The chain in which it translates them on the way out.
pub const MAPPED_POSTROUTING: &str = "mapped_postrouting";

/// First port of the block that a carrier gives to this subscriber.
pub const BLOCK_FIRST: u16 = 20_480;
/// Ports in that block: what large carriers give.
pub const BLOCK_PORTS: u16 = 1_024;
/// First port of the counted and the hashed ones.
const CHOSEN_FIRST: u16 = 20_000;
/// How many of those there are: enough that a run never comes round, few enough that the map loads in milliseconds.
const CHOSEN_PORTS: u16 = 4_096;
/// Bindings that the router remembers in the map and the set.
const BINDINGS_MAX: u32 = 65_535;

/// The rules of a router whose address on the Internet side is `wan`; replaces those that it had.
#[must_use]
pub fn ruleset(router: &Router, wan: Ipv4Addr) -> String {
    let mut text = format!("table inet {TABLE} {{ }}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    for part in
        [sets(router), prerouting(router, wan), postrouting(router, wan), input(router), forward(router)]
    {
        text += &part;
    }
    text + "}\n"
}

/// Forgets every binding that the rules remember; the kernel's own table is not theirs.
#[must_use]
pub fn forget(router: &Router) -> String {
    if is_independent(router) {
        format!("flush map inet {TABLE} inside\nflush set inet {TABLE} called\n")
    } else {
        String::new()
    }
}

fn is_independent(router: &Router) -> bool {
    matches!(router.translation, Translation::Independent(_))
}

fn sets(router: &Router) -> String {
    let mut text = String::new();
    for chain in [MAPPED_FORWARD, MAPPED_PREROUTING, MAPPED_POSTROUTING] {
        put(&mut text, format_args!("  chain {chain} {{ }}"));
    }
    if is_independent(router) {
        let age = router.lifetimes.stream.as_secs().max(1);
        let common = format!("flags dynamic,timeout; timeout {age}s; size {BINDINGS_MAX};");
        put(
            &mut text,
            format_args!("  map inside {{ type inet_service : ipv4_addr . inet_service; {common} }}"),
        );
        put(
            &mut text,
            format_args!("  set called {{ type ipv4_addr . inet_service . ipv4_addr; {common} }}"),
        );
    }
    text
}

fn prerouting(router: &Router, wan: Ipv4Addr) -> String {
    let mut text = "  chain prerouting { type nat hook prerouting priority dstnat;\n".to_owned();
    put(&mut text, format_args!("    iifname {WAN} jump {MAPPED_PREROUTING}"));
    if is_independent(router) {
        put(
            &mut text,
            format_args!(
                "    iifname {WAN} ip daddr {wan} meta l4proto udp dnat ip to udp dport map @inside"
            ),
        );
    }
    if router.has_hairpin {
        put(
            &mut text,
            format_args!(
                "    iifname \"{LAN}*\" ip daddr {wan} meta l4proto udp dnat ip to udp dport map @inside"
            ),
        );
    }
    text + "  }\n"
}

fn postrouting(router: &Router, wan: Ipv4Addr) -> String {
    let mut text = "  chain postrouting { type nat hook postrouting priority srcnat;\n".to_owned();
    put(&mut text, format_args!("    jump {MAPPED_POSTROUTING}"));
    if router.has_hairpin {
        // Both ends of a hairpin see the public address, as RFC 4787 REQ-9a asks.
        put(
            &mut text,
            format_args!("    iifname \"{LAN}*\" oifname \"{LAN}*\" ct status dnat snat ip to {wan}"),
        );
    }
    let udp = format!("    oifname {WAN} meta nfproto ipv4 meta l4proto udp");
    let chosen = |number: &str| format!("{udp} snat ip to {wan} : {number} map {{ {} }}", chosen_ports());
    let rule = match router.translation {
        Translation::None => return text + "  }\n",
        Translation::Independent(_) => format!("{udp} snat ip to {wan}"),
        Translation::Home { .. } => String::new(),
        Translation::PerAddress => {
            chosen(&format!("jhash ip saddr . udp sport . ip daddr mod {CHOSEN_PORTS} seed 0x5eed"))
        }
        Translation::PerDestination(Ports::Sequential) => chosen(&format!("numgen inc mod {CHOSEN_PORTS}")),
        Translation::PerDestination(Ports::Block) => {
            let last = BLOCK_FIRST + (BLOCK_PORTS - 1);
            format!("{udp} masquerade to :{BLOCK_FIRST}-{last} fully-random")
        }
        Translation::PerDestination(Ports::Random) => format!("{udp} masquerade fully-random"),
    };
    put(&mut text, format_args!("{rule}"));
    put(&mut text, format_args!("    oifname {WAN} meta nfproto ipv4 masquerade"));
    text + "  }\n"
}

fn input(router: &Router) -> String {
    let unasked = match router.translation {
        Translation::Home { input: Input::Answered } => "accept",
        Translation::None
        | Translation::Independent(_)
        | Translation::Home { input: Input::Dropped }
        | Translation::PerAddress
        | Translation::PerDestination(_) => "drop",
    };
    let mut text = "  chain input { type filter hook input priority filter;\n".to_owned();
    put(&mut text, format_args!("    ct state established,related accept"));
    put(&mut text, format_args!("    meta l4proto {{ icmp, icmpv6 }} accept"));
    put(&mut text, format_args!("    iifname {WAN} {unasked}"));
    text + "  }\n"
}

fn forward(router: &Router) -> String {
    let mut text = "  chain forward { type filter hook forward priority filter;\n".to_owned();
    put(&mut text, format_args!("    meta l4proto {{ icmp, icmpv6 }} accept"));
    match router.outbound {
        Outbound::All => {}
        Outbound::NoUdp => put(&mut text, format_args!("    meta l4proto udp drop")),
        Outbound::Tcp443 => {
            put(&mut text, format_args!("    oifname {WAN} tcp dport 443 accept"));
            put(&mut text, format_args!("    oifname {WAN} drop"));
        }
    }
    if is_independent(router) {
        // Each packet renews what is remembered: RFC 4787 REQ-6, outbound refresh.
        let udp = format!("    oifname {WAN} meta nfproto ipv4 meta l4proto udp");
        put(&mut text, format_args!("{udp} update @inside {{ udp sport : ip saddr . udp sport }}"));
        put(&mut text, format_args!("{udp} update @called {{ ip saddr . udp sport . ip daddr }}"));
    }
    put(&mut text, format_args!("    iifname {WAN} ct state established,related accept"));
    put(&mut text, format_args!("    iifname {WAN} jump {MAPPED_FORWARD}"));
    if let Translation::Independent(filtering) = router.translation {
        let udp = format!("    iifname {WAN} meta nfproto ipv4 meta l4proto udp");
        match filtering {
            Filtering::Independent => put(&mut text, format_args!("{udp} ct status dnat accept")),
            Filtering::ByAddress => {
                put(&mut text, format_args!("{udp} ip daddr . udp dport . ip saddr @called accept"));
            }
            Filtering::ByAddressAndPort => {}
        }
    }
    put(&mut text, format_args!("    iifname {WAN} drop"));
    text + "  }\n"
}

/// `0 : 20000, 1 : 20001, ...`
fn chosen_ports() -> String {
    let pairs: Vec<_> =
        (0..CHOSEN_PORTS).map(|number| format!("{number} : {}", CHOSEN_FIRST + number)).collect();
    pairs.join(", ")
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Kind;

    const WAN_IP: Ipv4Addr = Ipv4Addr::new(45, 1, 0, 2);

    #[test]
    fn rules_replace_those_before_them_in_one_transaction() {
        let text = rules_of(Kind::Home);
        let head: Vec<_> = text.lines().take(3).collect();
        assert_eq!(head, ["table inet lab { }", "delete table inet lab", "table inet lab {"]);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }

    #[test]
    fn a_firewall_translates_nothing_and_lets_nobody_in_uncalled() {
        let text = rules_of(Kind::Firewall);
        assert!(!text.contains("masquerade") && !text.contains("snat") && !text.contains("dnat ip"));
        assert!(text.contains("iifname wan ct state established,related accept"));
        assert!(text.contains("iifname wan drop"));
    }

    #[test]
    fn no_kind_ever_translates_ipv6() {
        for kind in Kind::ALL {
            for line in
                rules_of(kind).lines().filter(|line| line.contains("masquerade") || line.contains("snat"))
            {
                assert!(line.contains("nfproto ipv4") || line.contains("snat ip to"), "{kind}: {line}");
            }
        }
    }

    #[test]
    fn only_kinds_that_remember_by_rule_have_something_to_forget() {
        for kind in Kind::ALL {
            for router in kind.site("x").routers {
                assert_eq!(
                    forget(&router).is_empty(),
                    !ruleset(&router, WAN_IP).contains("map inside"),
                    "{kind}"
                );
            }
        }
    }

    #[test]
    fn only_the_collision_prone_router_answers_on_its_own_port() {
        for kind in Kind::ALL {
            let answers = rules_of(kind).contains("    iifname wan accept");
            assert_eq!(answers, kind == Kind::HomeOpen, "{kind}");
        }
    }

    fn rules_of(kind: Kind) -> String {
        kind.site("x").routers.iter().map(|router| ruleset(router, WAN_IP)).collect()
    }
}
