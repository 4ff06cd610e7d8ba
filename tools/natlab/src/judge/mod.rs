//! Says what kind of NAT a site really has, so that no result of the lab rests on a NAT that is not what its name says.
//!
//! Two judges that share no code: [`probe`] is ours, [`coturn`] is a stranger's program (RFC 5780). [`prove`] asks both about every kind and
//! compares them with [`Verdict::intended`].

pub mod coturn;
pub mod probe;
mod verdict;

use std::thread;

use anyhow::{Context as _, Result, anyhow};
use serde::Serialize;

pub use self::verdict::{PortChoice, Verdict};
use crate::lab::Lab;
use crate::topology::{Filtering, Kind, Stack};

/// What both judges say about one kind.
#[derive(Debug, Serialize)]
pub struct Proof {
    /// The kind.
    pub kind: Kind,
    /// What it should be.
    pub intended: Verdict,
    /// What our probe found.
    pub probed: Verdict,
    /// What coturn found; absent where it cannot judge: without IPv4, or without UDP.
    pub coturn: Option<coturn::Opinion>,
    /// Where they disagree; empty is good.
    pub objections: Vec<String>,
}

/// Builds each kind and lets both judges look at it, all kinds at once.
///
/// # Errors
/// The lab cannot be built, or a judge does not work. Disagreement is no error: see [`Proof::objections`].
pub fn prove(kinds: &[Kind]) -> Result<Vec<Proof>> {
    let lab = Lab::new()?;
    let ours = probe::Judge::at(&lab.landmark("judge")?)?;
    let theirs = lab.landmark("coturn")?;
    let server = coturn::Server::start(&lab, &theirs)?;
    let prove = |kind| prove_one(&lab, &ours, &server, kind).with_context(|| format!("judge {kind}"));
    thread::scope(|scope| {
        let running: Vec<_> = kinds.iter().map(|&kind| scope.spawn(move || prove(kind))).collect();
        running.into_iter().map(|one| one.join().map_err(|_| anyhow!("a judge panicked"))?).collect()
    })
}

fn prove_one(lab: &Lab, ours: &probe::Judge, server: &coturn::Server, kind: Kind) -> Result<Proof> {
    let site = lab.site(&kind.site(kind.name()))?;
    let host = site.host();
    let intended = Verdict::intended(kind);
    let probed = if host.v4.is_some() { ours.by_v4(host)? } else { ours.by_v6(host)? };
    let mut objections = intended.objections(&probed);
    if site.plan().stack == Stack::Dual {
        // Its IPv6 is no NAT's: behind a router it is a firewall's.
        let like = if site.routers().is_empty() { Kind::Public } else { Kind::Ipv6Only };
        let found = Verdict::intended(like).objections(&ours.by_v6(host)?);
        objections.extend(found.into_iter().map(|what| format!("IPv6: {what}")));
    }
    let coturn = match (host.v4, intended.udp) {
        (Some(ip), true) => Some(server.judge(&host.namespace, ip)?),
        _ => None,
    };
    if let Some(opinion) = coturn {
        objections.extend(opinion.objections(&intended));
    }
    Ok(Proof { kind, intended, probed, coturn, objections })
}

impl Filtering {
    /// RFC 4787's short word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Independent => "EIF",
            Self::ByAddress => "ADF",
            Self::ByAddressAndPort => "APDF",
        }
    }
}
