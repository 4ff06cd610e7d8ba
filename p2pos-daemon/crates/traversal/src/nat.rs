//! The words for what a NAT does, as RFC 4787 has them, and the classes that decide how two sides get through.
//!
//! A NAT is described by two habits that have nothing to do with each other. *Mapping* (RFC 4787 s4.1): does the same
//! inside socket keep the same outside port when it talks to somebody else? *Filtering* (s5): whom does an outside
//! port let in? Everything in this crate follows from the two, with a third for NATs that change the port: *how* they
//! choose the next one.
//!
//! Refuses to know: how the habits are found out (`verdict`), and what follows for two of them (`predict`).

use crate::signal::NatReport;

/// Whether the outside port depends on the destination (RFC 4787 s4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mapping {
    /// One outside port for all destinations ("BEHAVE"), or no translation at all.
    EndpointIndependent,
    /// Another outside port for each destination address.
    AddressDependent,
    /// Another outside port for each destination address and port ("symmetric").
    AddressAndPortDependent,
}

/// Whom an outside port lets in (RFC 4787 s5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filtering {
    /// Everybody.
    EndpointIndependent,
    /// Whoever has an address that was sent to.
    AddressDependent,
    /// Whoever has an address and port that was sent to.
    AddressAndPortDependent,
}

/// Ports from the first to the last, both included. Never empty, never port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Where NATs take outside ports from: all but the well-known ones, which RFC 4787 s4.2.1 keeps apart.
    pub const DYNAMIC: Self = Self { first: 1_024, last: u16::MAX };

    /// Makes a range; `None` if it is empty or begins at port 0.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first != 0 && first <= last).then_some(Self { first, last })
    }

    /// Returns the first port.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// Returns the last port.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }

    /// Returns how many ports there are.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    /// Tells whether a port is within.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// How a NAT with dependent mapping chooses the next outside port (RFC 4787 s4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PortPattern {
    /// Nothing is known; treated as anywhere.
    #[default]
    Unknown,
    /// Each new mapping so many ports after the last one. Never 0.
    Sequential {
        /// The step, in ports.
        delta: i16,
    },
    /// Anywhere in a block that the customer was given (usual for carriers).
    Block(PortRange),
    /// Anywhere.
    Random,
}

/// What decides how two sides get through: a column of the matrix in `predict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NatClass {
    /// P: reached at a known address by everybody: no NAT and no firewall, or a verified port mapping.
    Public,
    /// FC: one outside port, open to everybody.
    FullCone,
    /// R: one outside port, open to addresses that were sent to.
    AddressRestricted,
    /// H: one outside port, open to addresses and ports that were sent to. The ordinary home, and a stateful firewall.
    PortRestricted,
    /// O: as H, but a packet that comes before ours goes out takes our port away (see `opener`).
    CollisionProne,
    /// Q: a port for each destination, in steps.
    Sequential,
    /// B: a port for each destination, anywhere in a block.
    Block,
    /// S: a port for each destination, anywhere.
    Random,
    /// X: no UDP at all.
    UdpBlocked,
}

impl NatClass {
    /// Finds the class; `None` if the mapping is unknown. An unknown filter counts as the closest one, which is also
    /// the commonest.
    #[must_use]
    pub fn of(report: &NatReport) -> Option<Self> {
        if report.udp_blocked {
            return Some(Self::UdpBlocked);
        }
        if report.mapped {
            return Some(Self::Public);
        }
        let class = match (report.mapping?, report.filtering) {
            (Mapping::EndpointIndependent, Some(Filtering::EndpointIndependent)) => Self::FullCone,
            (Mapping::EndpointIndependent, Some(Filtering::AddressDependent)) => Self::AddressRestricted,
            (Mapping::EndpointIndependent, Some(Filtering::AddressAndPortDependent) | None) => {
                if report.collides == Some(true) { Self::CollisionProne } else { Self::PortRestricted }
            }
            (Mapping::AddressDependent | Mapping::AddressAndPortDependent, _) => match report.pattern() {
                PortPattern::Sequential { .. } => Self::Sequential,
                PortPattern::Block(_) => Self::Block,
                PortPattern::Random | PortPattern::Unknown => Self::Random,
            },
        };
        Some(class)
    }

    /// Tells whether packets reach it without a matching packet to the sender's exact port first.
    #[must_use]
    pub fn is_open(self) -> bool {
        match self {
            Self::Public | Self::FullCone | Self::AddressRestricted => true,
            Self::PortRestricted
            | Self::CollisionProne
            | Self::Sequential
            | Self::Block
            | Self::Random
            | Self::UdpBlocked => false,
        }
    }

    /// Tells whether its outside port towards a new peer is unknown beforehand: the hard side of a guess.
    #[must_use]
    pub fn is_hard(self) -> bool {
        match self {
            Self::Sequential | Self::Block | Self::Random => true,
            Self::Public
            | Self::FullCone
            | Self::AddressRestricted
            | Self::PortRestricted
            | Self::CollisionProne
            | Self::UdpBlocked => false,
        }
    }

    /// Returns the letter of the matrix, for tables and logs.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::Public => "P",
            Self::FullCone => "FC",
            Self::AddressRestricted => "R",
            Self::PortRestricted => "H",
            Self::CollisionProne => "O",
            Self::Sequential => "Q",
            Self::Block => "B",
            Self::Random => "S",
            Self::UdpBlocked => "X",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_is_empty_or_begins_at_port_zero_does_not_exist() {
        assert_eq!((PortRange::new(0, 5), PortRange::new(6, 5)), (None, None));
        let whole = PortRange::new(1, u16::MAX).unwrap();
        assert_eq!((whole.count(), whole.contains(1), whole.contains(0)), (65_535, true, false));
    }

    #[test]
    fn an_unknown_filter_counts_as_the_closest() {
        let report = NatReport { mapping: Some(Mapping::EndpointIndependent), ..NatReport::default() };
        assert_eq!(NatClass::of(&report), Some(NatClass::PortRestricted));
        assert_eq!(NatClass::of(&NatReport::default()), None);
    }

    #[test]
    fn a_verified_mapping_makes_any_nat_public_but_not_one_without_udp() {
        let symmetric = Some(Mapping::AddressAndPortDependent);
        let mapped = NatReport { mapping: symmetric, mapped: true, ..NatReport::default() };
        assert_eq!(NatClass::of(&mapped), Some(NatClass::Public));
        assert_eq!(NatClass::of(&NatReport { udp_blocked: true, ..mapped }), Some(NatClass::UdpBlocked));
    }
}
