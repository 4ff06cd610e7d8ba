//! Counts what a host really sends: to whom, by what, and with how long a life. So a path is judged by packets and not by anybody's word.
//!
//! The counters are nftables sets on the host's way out, one entry for each destination. A train of UDP datagrams counts as one packet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::namespace::Namespace;

/// Hops below which a packet is meant to die on its way: an opener. Ordinary packets begin with 64.
const OPENER_HOPS_MAX: u8 = 16;
/// Destinations counted: a port scan's budget is 1,024.
const DESTINATIONS_MAX: u16 = 65_535;

/// What a packet travels by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// What went to one destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Packets.
    pub packets: u64,
    /// Bytes with all heads.
    pub bytes: u64,
}

/// What a host has sent since it is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By destination.
    pub sent: BTreeMap<(Carrier, SocketAddr), Sent>,
    /// UDP packets that were meant to die on their way.
    pub openers: u64,
}

/// Begins to count.
///
/// # Errors
/// The rules were refused.
pub fn start(host: &Namespace) -> Result<()> {
    let mut rules = String::from("table inet watch {\n  counter openers { }\n");
    for (carrier, family, ip) in MAPS {
        rules += &format!(
            "  set {carrier}{family} {{ type {ip} . inet_service; flags dynamic; size {DESTINATIONS_MAX}; counter; }}\n"
        );
    }
    rules += "  chain output { type filter hook output priority filter;\n    oifname lo accept\n";
    rules += &format!("    meta l4proto udp ip ttl < {OPENER_HOPS_MAX} counter name openers\n");
    rules += &format!("    meta l4proto udp ip6 hoplimit < {OPENER_HOPS_MAX} counter name openers\n");
    for (carrier, family, _) in MAPS {
        let (nfproto, head) = if family == "4" { ("ipv4", "ip") } else { ("ipv6", "ip6") };
        rules += &format!(
            "    meta nfproto {nfproto} meta l4proto {carrier} update @{carrier}{family} {{ {head} daddr . {carrier} dport }}\n"
        );
    }
    host.nft(&(rules + "  }\n}\n"))
}

/// One set for each carrier and IP.
const MAPS: [(&str, &str, &str); 4] = [
    ("udp", "4", "ipv4_addr"),
    ("udp", "6", "ipv6_addr"),
    ("tcp", "4", "ipv4_addr"),
    ("tcp", "6", "ipv6_addr"),
];

/// What was counted so far.
///
/// # Errors
/// Nobody began to count, or `nft` says something that we do not understand.
pub fn read(host: &Namespace) -> Result<Tally> {
    understand(&host.run("nft", &["-j", "list", "table", "inet", "watch"], "")?)
}

impl Tally {
    /// What came on top of an earlier tally.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let added = |(to, now): (&(Carrier, SocketAddr), &Sent)| {
            let before = earlier.sent.get(to).copied().unwrap_or_default();
            (*to, Sent { packets: now.packets - before.packets, bytes: now.bytes - before.bytes })
        };
        Self { sent: self.sent.iter().map(added).collect(), openers: self.openers - earlier.openers }
    }

    /// Bytes to destinations that `is_meant` by such a carrier.
    pub fn bytes_to(&self, carrier: Carrier, is_meant: impl Fn(IpAddr) -> bool) -> u64 {
        self.to(carrier, is_meant).map(|(_, sent)| sent.bytes).sum()
    }

    /// Destinations that `is_meant`, with what they got.
    pub fn to(
        &self,
        carrier: Carrier,
        is_meant: impl Fn(IpAddr) -> bool,
    ) -> impl Iterator<Item = (SocketAddr, Sent)> {
        self.sent
            .iter()
            .filter(move |((by, to), _)| *by == carrier && is_meant(to.ip()))
            .map(|((_, to), sent)| (*to, *sent))
    }
}

fn understand(json: &str) -> Result<Tally> {
    let document: Value = serde_json::from_str(json).context("read nft's JSON")?;
    let objects = document["nftables"].as_array().context("nft lists no objects")?;
    let mut tally = Tally::default();
    for object in objects {
        if let Some(openers) = object["counter"]["packets"].as_u64() {
            tally.openers = openers;
        }
        let set = &object["set"];
        let carrier = match set["name"].as_str().and_then(|name| name.get(..3)) {
            Some("udp") => Carrier::Udp,
            Some("tcp") => Carrier::Tcp,
            _ => continue,
        };
        for element in set["elem"].as_array().into_iter().flatten() {
            let element = &element["elem"];
            let (to, sent) =
                destination(element).with_context(|| format!("an element of a set: {element}"))?;
            tally.sent.insert((carrier, to), sent);
        }
    }
    Ok(tally)
}

fn destination(element: &Value) -> Option<(SocketAddr, Sent)> {
    let to = element["val"]["concat"].as_array()?;
    let [ip, port] = to.as_slice() else { return None };
    let to = SocketAddr::new(ip.as_str()?.parse().ok()?, u16::try_from(port.as_u64()?).ok()?);
    let counter = &element["counter"];
    Some((to, Sent { packets: counter["packets"].as_u64()?, bytes: counter["bytes"].as_u64()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"counter": {"family": "inet", "name": "openers", "packets": 2, "bytes": 58}},
        {"set": {"name": "udp4", "elem": [
            {"elem": {"val": {"concat": ["45.2.0.2", 99]}, "counter": {"packets": 3, "bytes": 300}}},
            {"elem": {"val": {"concat": ["80.9.0.10", 443]}, "counter": {"packets": 1, "bytes": 128}}}]}},
        {"set": {"name": "tcp6"}}]}"#;

    #[test]
    fn destinations_are_read_with_what_they_got() {
        let tally = understand(JSON).unwrap();
        let is_site = |ip: IpAddr| ip.to_string().starts_with("45.");
        assert_eq!(tally.openers, 2);
        assert_eq!(tally.bytes_to(Carrier::Udp, is_site), 300);
        assert_eq!(tally.bytes_to(Carrier::Tcp, is_site), 0);
    }

    #[test]
    fn what_was_there_before_does_not_count_twice() {
        let before = understand(JSON).unwrap();
        let mut now = before.clone();
        let to = (Carrier::Udp, "45.2.0.2:99".parse().unwrap());
        now.sent.insert(to, Sent { packets: 5, bytes: 550 });
        let since = now.since(&before);
        assert_eq!(since.sent[&to], Sent { packets: 2, bytes: 250 });
        assert_eq!((since.sent.values().map(|sent| sent.bytes).sum::<u64>(), since.openers), (250, 0));
    }

    #[test]
    fn an_odd_element_is_an_error_and_not_a_silence() {
        assert!(understand(&JSON.replace("99", "\"x\"")).is_err());
        assert!(understand("{}").is_err());
    }
}
