//! What was asked of which router by which protocol, and what came of it: the words of the mapping reports.
//!
//! A router's answer is checked here before anybody relies on it: it may be broken, or a neighbour's machine.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{ask::AskError, natpmp, pcp};
use crate::gateways::Gateway;

/// How long we ask a mapping to last. It is long enough that renewals are rare, and short enough that a port of a machine
/// that vanished is not open for long.
pub(crate) const LEASE: Duration = Duration::from_secs(1800);
/// A router that grants less is taken to grant this: renewing more often would load it more than a mapping is worth.
const LEASE_MIN: Duration = Duration::from_secs(60);
/// A router that grants more is not believed: it may restart and forget.
const LEASE_MAX: Duration = Duration::from_secs(7200);
/// The text of a router's refusal that is kept.
const SAID_CHARS_MAX: usize = 160;

/// How a router can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MappingProtocol {
    /// Port Control Protocol, RFC 6887.
    Pcp,
    /// NAT Port Mapping Protocol, RFC 6886.
    NatPmp,
    /// UPnP Internet Gateway Device 1 or 2.
    UpnpIgd,
}

impl MappingProtocol {
    /// All of them: they are asked at once, since no router says beforehand which it knows.
    pub const ALL: [Self; 3] = [Self::Pcp, Self::NatPmp, Self::UpnpIgd];

    /// The name people know it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::UpnpIgd => "UPnP",
        }
    }
}

/// One question to one router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    /// Whom we ask.
    pub gateway: Gateway,
    /// How.
    pub protocol: MappingProtocol,
    /// In whose name: `None` is ourselves; behind two routers the outer one is asked in the name of the inner one's outer
    /// address and port.
    pub on_behalf_of: Option<SocketAddr>,
}

/// A mapping that a router made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Where the router lets packets in for us.
    pub(crate) external: SocketAddr,
    /// For how long.
    pub(crate) lease: Duration,
    /// How long the router says it has kept its mappings, in s, where the protocol tells.
    pub(crate) epoch_s: Option<u32>,
}

impl Grant {
    /// Checks what a router granted to somebody who asked for `asked`.
    ///
    /// # Errors
    /// [`Denied::Absurd`] for an address that no packet can come to.
    pub(crate) fn checked(
        external: SocketAddr,
        lifetime_s: u32,
        epoch_s: Option<u32>,
        asked: Duration,
    ) -> Result<Self, Denied> {
        let ip = external.ip();
        if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || external.port() == 0 {
            return Err(Denied::Absurd(external));
        }
        let lease = Duration::from_secs(lifetime_s.into()).clamp(LEASE_MIN.min(asked), LEASE_MAX);
        Ok(Self { external, lease, epoch_s })
    }
}

/// Why there is no mapping.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied {
    #[error(transparent)]
    NotAnswered(#[from] AskError),
    #[error(transparent)]
    NatPmp(natpmp::Refusal),
    #[error("{refusal}")]
    Pcp { refusal: pcp::Refusal, holds_s: u32 },
    #[error("{}", short(.0))]
    Upnp(String),
    #[error("the router grants {0}, where nothing can arrive")]
    Absurd(SocketAddr),
}

impl Denied {
    /// Whether there is nobody who would answer: no fault, and not worth asking often.
    pub(crate) fn is_absence(&self) -> bool {
        match self {
            Self::NotAnswered(AskError::Silent | AskError::SwitchedOff) => true,
            Self::NotAnswered(AskError::Gibberish | AskError::System(_))
            | Self::NatPmp(_)
            | Self::Pcp { .. }
            | Self::Upnp(_)
            | Self::Absurd(_) => false,
        }
    }

    /// How long the router wants its refusal to hold, if it says so.
    pub(crate) fn holds(&self) -> Option<Duration> {
        match self {
            Self::Pcp { holds_s, .. } if *holds_s > 0 => Some(Duration::from_secs((*holds_s).into())),
            Self::Pcp { .. } | Self::NotAnswered(_) | Self::NatPmp(_) | Self::Upnp(_) | Self::Absurd(_) => {
                None
            }
        }
    }
}

/// What a router sends as text may be long, or not text at all.
fn short(said: &str) -> String {
    said.chars().filter(|c| !c.is_control()).take(SAID_CHARS_MAX).collect()
}

/// How far one question got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MappingState {
    /// The answer is awaited.
    Asking,
    /// A mapping stands.
    Mapped {
        /// Where packets are let in.
        external: SocketAddr,
        /// How long it lasts unless renewed, which happens at half of it.
        lease: Duration,
        /// Whether a packet from outside has come through.
        is_verified: bool,
    },
    /// There is nobody who would answer.
    Absent {
        /// In words.
        why: String,
    },
    /// The router will not, or its answer is of no use.
    Refused {
        /// What it said, in words.
        said: String,
    },
}

/// One question, and how far it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingReport {
    /// What was asked.
    pub question: Question,
    /// What came of it.
    pub state: MappingState,
}

/// Whether an address is one that the whole Internet can send to, as far as its range tells: the shared range of providers
/// (RFC 6598) is not.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    let is_shared = matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 100 && v4.octets()[1] & 0xC0 == 64);
    !is_shared && p2pos_traversal::scope_of(ip) >= p2pos_traversal::Scope::Global
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_where_nothing_can_arrive_is_no_grant() {
        for absurd in ["0.0.0.0:4000", "127.0.0.1:4000", "224.0.0.1:4000", "45.0.0.7:0", "[::]:4000"] {
            let external = absurd.parse().expect("an address");
            assert!(matches!(Grant::checked(external, 60, None, LEASE), Err(Denied::Absurd(_))), "{absurd}");
        }
    }

    #[test]
    fn lifetimes_are_bounded_both_ways() {
        let lease = |lifetime_s| {
            let external = "45.0.0.7:4000".parse().expect("an address");
            Grant::checked(external, lifetime_s, None, LEASE).expect("a usable address").lease
        };
        assert_eq!(lease(0), LEASE_MIN);
        assert_eq!(lease(600).as_secs(), 600);
        assert_eq!(lease(u32::MAX), LEASE_MAX);
    }

    #[test]
    fn what_a_router_says_is_kept_short_and_printable() {
        let said = Denied::Upnp(format!("\x1b[31m{}", "x".repeat(1000))).to_string();
        assert_eq!(said.chars().count(), SAID_CHARS_MAX);
        assert!(!said.contains('\x1b'));
    }

    #[test]
    fn private_and_shared_ranges_are_not_public() {
        for (text, expected) in [
            ("45.0.0.7", true),
            ("192.168.1.7", false),
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("100.127.255.255", false),
            ("100.128.0.1", true),
        ] {
            assert_eq!(is_public(text.parse().expect("an address")), expected, "{text}");
        }
    }
}
