//! What there is to say about a NAT, and what each kind of the lab must turn out to be. Pure.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::topology::{Filtering, Kind};

/// What a judge found. `None`: it makes no difference here, or could not be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether UDP gets out and back at all.
    pub udp: bool,
    /// Whether TCP to port 443 does.
    pub tcp443: bool,
    /// Whether TCP to other ports does.
    pub tcp: bool,
    /// Whether strangers see another address than the host has.
    pub translated: Option<bool>,
    /// Which part of a destination gets a mapping of its own: of the same kinds as filtering, so the same words.
    #[serde(serialize_with = "mapping_word")]
    pub mapping: Option<Filtering>,
    /// Whose packets come in.
    #[serde(serialize_with = "filtering_word")]
    pub filtering: Option<Filtering>,
    /// How ports are chosen.
    pub ports: Option<PortChoice>,
    /// Whether a stranger's early packet makes the NAT use another port towards him.
    pub collides: Option<bool>,
    /// Whether a host behind reaches itself by the public address.
    pub hairpin: Option<bool>,
}

/// How a NAT chooses the port of a new mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PortChoice {
    /// The host's own.
    Preserved,
    /// The next one.
    Sequential,
    /// Any within a small block.
    Block,
    /// Any.
    Scattered,
}

impl Verdict {
    /// What a kind must turn out to be.
    #[must_use]
    pub fn intended(kind: Kind) -> Self {
        use Filtering::{ByAddress, ByAddressAndPort, Independent};
        let nat = |mapping, filtering, ports| Self {
            udp: true,
            tcp443: true,
            tcp: true,
            translated: Some(true),
            mapping: Some(mapping),
            filtering: Some(filtering),
            ports: Some(ports),
            collides: (mapping == Independent).then_some(false),
            hairpin: Some(false),
        };
        let symmetric = |ports| nat(ByAddressAndPort, ByAddressAndPort, ports);
        let untouched = |filtering| Self {
            translated: Some(false),
            hairpin: None,
            ..nat(Independent, filtering, PortChoice::Preserved)
        };
        let eim = |filtering| nat(Independent, filtering, PortChoice::Preserved);
        match kind {
            Kind::Public => untouched(Independent),
            Kind::FullCone => eim(Independent),
            Kind::AddressRestricted => eim(ByAddress),
            Kind::PortRestricted | Kind::Home => eim(ByAddressAndPort),
            Kind::Hairpin => Self { hairpin: Some(true), ..eim(ByAddressAndPort) },
            Kind::HomeOpen => Self { collides: Some(true), ..eim(ByAddressAndPort) },
            Kind::AddressDependent => nat(ByAddress, ByAddressAndPort, PortChoice::Scattered),
            Kind::Sequential => symmetric(PortChoice::Sequential),
            Kind::PortBlock => symmetric(PortChoice::Block),
            Kind::Random | Kind::CarrierOverHome => symmetric(PortChoice::Scattered),
            Kind::Firewall | Kind::Ipv6Only => untouched(ByAddressAndPort),
            Kind::UdpBlocked => Self { tcp443: true, tcp: true, ..Self::default() },
            Kind::Tcp443Only => Self { tcp443: true, ..Self::default() },
            // Judged by its IPv4.
            Kind::DualStack => eim(ByAddressAndPort),
        }
    }

    /// In which points a finding is not what was intended, in words.
    #[must_use]
    pub fn objections(&self, found: &Self) -> Vec<String> {
        let mut said = Vec::new();
        for (what, should, is) in [
            ("udp", self.udp, found.udp),
            ("tcp443", self.tcp443, found.tcp443),
            ("tcp", self.tcp, found.tcp),
        ] {
            if should != is {
                said.push(format!("{what} should be {should}, is {is}"));
            }
        }
        let mut compare = |what: &str, should: Option<String>, is: Option<String>| {
            // What was not intended in any way may turn out as it likes.
            if should.is_some() && should != is {
                let word = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
                said.push(format!("{what} should be {}, is {}", word(should), word(is)));
            }
        };
        let yes_no = |value: Option<bool>| value.map(|value| value.to_string());
        let choice = |value: Option<PortChoice>| value.map(|value| format!("{value:?}").to_lowercase());
        let word = |value: Option<Filtering>| value.map(|value| value.word().to_owned());
        compare("translated", yes_no(self.translated), yes_no(found.translated));
        compare("mapping", word(self.mapping), word(found.mapping));
        compare("filtering", word(self.filtering), word(found.filtering));
        compare("ports", choice(self.ports), choice(found.ports));
        compare("collides", yes_no(self.collides), yes_no(found.collides));
        compare("hairpin", yes_no(self.hairpin), yes_no(found.hairpin));
        said
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tcp = if self.tcp { "TCP" } else { "TCP 443 only" };
        if !self.udp {
            return write!(f, "no UDP, {}", if self.tcp443 { tcp } else { "no TCP" });
        }
        let mapping = self.mapping.map_or("?", mapping_name);
        let filtering = self.filtering.map_or("?", Filtering::word);
        write!(f, "{mapping} {filtering}")?;
        if let Some(ports) = self.ports {
            write!(f, " {}", format!("{ports:?}").to_lowercase())?;
        }
        let marks = [
            (self.translated, Some(false), "no NAT"),
            (self.collides, Some(true), "collides"),
            (self.hairpin, Some(true), "hairpin"),
        ];
        marks
            .iter()
            .filter(|(is, worth_saying, _)| is == worth_saying)
            .try_for_each(|(.., word)| write!(f, ", {word}"))
    }
}

/// The word for a mapping that differs by as much as a filter of that kind does.
pub(super) fn mapping_name(mapping: Filtering) -> &'static str {
    match mapping {
        Filtering::Independent => "EIM",
        Filtering::ByAddress => "ADM",
        Filtering::ByAddressAndPort => "APDM",
    }
}

pub(super) fn mapping_word<S: Serializer>(
    mapping: &Option<Filtering>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    mapping.map(mapping_name).serialize(serializer)
}

pub(super) fn filtering_word<S: Serializer>(
    filtering: &Option<Filtering>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    filtering.map(Filtering::word).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_from_what_was_intended_is_an_objection() {
        let intended = Verdict::intended(Kind::Home);
        assert!(intended.objections(&intended).is_empty());
        let other = Verdict { collides: Some(true), ports: None, ..intended };
        let said = intended.objections(&other);
        assert_eq!(said, ["ports should be preserved, is unknown", "collides should be false, is true"]);
        assert_eq!(intended.objections(&Verdict::default())[0], "udp should be true, is false");
    }

    #[test]
    fn no_two_kinds_that_are_meant_to_differ_look_the_same_to_the_judge() {
        let same = [
            // One NAT or two, and which IP, the judge does not see.
            (Kind::Random, Kind::CarrierOverHome),
            (Kind::Firewall, Kind::Ipv6Only),
            // By a map or by masquerade: the difference is the collision, which plain home routers avoid by dropping.
            (Kind::PortRestricted, Kind::Home),
            (Kind::PortRestricted, Kind::DualStack),
            (Kind::Home, Kind::DualStack),
        ];
        for a in Kind::ALL {
            for b in Kind::ALL {
                let may_look_alike = a == b || same.contains(&(a, b)) || same.contains(&(b, a));
                assert_eq!(Verdict::intended(a) == Verdict::intended(b), may_look_alike, "{a} and {b}");
            }
        }
    }
}
