//! `p2pos netcheck`: what is known of our own network, laid out for people. What is not known is shown as unknown.

use p2pos_control::{Family, Known, Netcheck};

use super::explain::{nat, routers};
use super::render::Facts;
use super::units::{duration_s, plural};

/// The lines of a check.
pub(super) fn render(check: &Netcheck) -> String {
    let mut facts = Facts::new();
    facts.add("UDP", known(check.udp, "works", "does not get through"));
    facts.add("IPv4", &family(&check.ipv4));
    facts.add("IPv6", &family(&check.ipv6));
    let v4 = &check.ipv4;
    facts.add("router", &nat(&v4.nat));
    facts.add("mapping", &v4.nat.mapping);
    facts.add("filtering", &v4.nat.filtering);
    facts.add("ports", &ports(v4));
    facts.add("confidence", &confidence(v4));
    facts.add("hairpin", known(v4.nat.hairpin, "works", "does not work"));
    let lifetime = v4.nat.lifetime_s.map_or_else(|| "unknown".to_owned(), |life| duration_s(life.into()));
    facts.add("remembers", &lifetime);
    facts.add("keepalive", &format!("every {} s", check.keepalive_s));
    facts.add("gateways", &check.gateways.join(" "));
    facts.add("told peers", &check.told.join(" "));
    let routers = routers(&check.routers);
    match (check.asks_routers, routers.is_empty()) {
        (false, _) => facts.add("mappings", "not asked for: network.port_mapping is off"),
        (true, true) => facts.add("mappings", "no router to ask"),
        (true, false) => return format!("{}\n{routers}", facts.0),
    }
    facts.0
}

fn known(fact: Known, yes: &'static str, no: &'static str) -> &'static str {
    match fact {
        Known::Yes => yes,
        Known::No => no,
        Known::Unknown => "unknown",
    }
}

fn family(family: &Family) -> String {
    if family.addresses.is_empty() {
        return "no address".to_owned();
    }
    let outside = family.external.as_deref().unwrap_or("unknown");
    let translated = known(family.is_translated, "yes", "no");
    format!("{}; outside {outside}; translated: {translated}", family.addresses.join(" "))
}

/// How outside ports are chosen.
fn ports(family: &Family) -> String {
    match (family.preserves_port, family.ports.as_str()) {
        (Known::Yes, _) => "kept as this computer chose them".to_owned(),
        (Known::No | Known::Unknown, ports) => ports.to_owned(),
    }
}

fn confidence(family: &Family) -> String {
    let (agreeing, dissenting) = (family.agreeing, family.dissenting);
    let networks = usize::try_from(agreeing).unwrap_or(usize::MAX);
    format!("{}: {} agree, {dissenting} contradict", family.confidence, plural(networks, "network"))
}
