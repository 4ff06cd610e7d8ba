//! Things that happen to people in the middle of a conversation: another address, a rebooted router, silence, loss, a flood.
//!
//! Each scenario is one async function that builds what it needs, lets it happen, and either gives figures or says in which way it went
//! wrong. Those that rest on a part which is not built are named, and count as missing; `--all` tries them too.

mod evil;
mod gateways;
mod lines;
mod load;
mod moves;
mod relays;
mod strangers;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Error, Result, bail};
use serde::{Serialize, Serializer};

use crate::people::{Program, World};
use crate::promise::{BUILT, Part};
use crate::topology::Kind;

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Whoever dialled gets another public address while talking.
    DiallerRoams,
    /// Whoever was dialled does.
    AcceptorRoams,
    /// Both do at once.
    BothRoam,
    /// The random NAT of whoever dialled forgets everything while they talk.
    DiallerReboots,
    /// The full cone of whoever was dialled does.
    AcceptorReboots,
    /// Nobody says a word for 45 s behind a NAT that forgets after 12 s; then the other side speaks first.
    SilenceBehindShortNat,
    /// The same with 75 s and 30 s.
    SilenceBehindUsualNat,
    /// A line that loses 5 % one way and nothing the other.
    AsymmetricLoss,
    /// Three home routers, one behind the other.
    ThreeLayers,
    /// Strangers knock 5,000 times a second while two people talk.
    Flood,
    /// The direct way between two people is cut while they talk.
    DirectPathCut,
    /// A router forgets everything in the middle of a punch.
    RebootMidPunch,
    /// The gateway that mapped a port starts anew.
    GatewayRestarts,
    /// Two routers, one behind the other, both of which map ports.
    Cascade,
    /// A relay loses, delays, replays, cuts, alters and swaps what it forwards.
    EvilRelay,
    /// Somebody tells a peer that he lives at a victim's.
    Victim,
    /// The relay over which two people talk is killed.
    RelayDies,
    /// The same over TCP, which is all that one of them has.
    TcpRelayDies,
    /// The relay over which two people talk ends in good order.
    RelayDrains,
    /// Two people find a direct way, and need the relay no more.
    RelayGoesQuiet,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::DiallerRoams,
        Self::AcceptorRoams,
        Self::BothRoam,
        Self::DiallerReboots,
        Self::AcceptorReboots,
        Self::SilenceBehindShortNat,
        Self::SilenceBehindUsualNat,
        Self::AsymmetricLoss,
        Self::ThreeLayers,
        Self::Flood,
        Self::DirectPathCut,
        Self::RebootMidPunch,
        Self::GatewayRestarts,
        Self::Cascade,
        Self::EvilRelay,
        Self::Victim,
        Self::RelayDies,
        Self::TcpRelayDies,
        Self::RelayDrains,
        Self::RelayGoesQuiet,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DiallerRoams => "dialler-roams",
            Self::AcceptorRoams => "acceptor-roams",
            Self::BothRoam => "both-roam",
            Self::DiallerReboots => "dialler-reboots",
            Self::AcceptorReboots => "acceptor-reboots",
            Self::SilenceBehindShortNat => "silence-12s",
            Self::SilenceBehindUsualNat => "silence-30s",
            Self::AsymmetricLoss => "asymmetric-loss",
            Self::ThreeLayers => "three-layers",
            Self::Flood => "flood",
            Self::DirectPathCut => "direct-path-cut",
            Self::RebootMidPunch => "reboot-mid-punch",
            Self::GatewayRestarts => "gateway-restarts",
            Self::Cascade => "cascade",
            Self::EvilRelay => "evil-relay",
            Self::Victim => "victim",
            Self::RelayDies => "relay-dies",
            Self::TcpRelayDies => "tcp-relay-dies",
            Self::RelayDrains => "relay-drains",
            Self::RelayGoesQuiet => "relay-goes-quiet",
        }
    }

    /// Whether nothing happens in it for most of the time: others may be played meanwhile.
    #[must_use]
    pub fn is_quiet(self) -> bool {
        matches!(
            self,
            Self::SilenceBehindShortNat | Self::SilenceBehindUsualNat | Self::Victim | Self::RelayGoesQuiet
        )
    }

    /// Whether one failed run says little. One cut in forty stands still for two seconds, for a reason that lies in QUIC (decision 0057).
    /// And both pairs of `EvilRelay` may leave the evil relay for the good one while it only does mischief at times, which is good for
    /// them, and leaves nothing to try. All runs are told.
    fn may_be_repeated(self) -> bool {
        matches!(self, Self::DirectPathCut | Self::EvilRelay)
    }

    /// The part of p2pOS that it rests on.
    #[must_use]
    pub fn needs(self) -> Part {
        match self {
            Self::AcceptorReboots
            | Self::SilenceBehindShortNat
            | Self::SilenceBehindUsualNat
            | Self::AsymmetricLoss
            | Self::ThreeLayers
            | Self::Flood => Part::KnownAddress,
            Self::DiallerRoams | Self::AcceptorRoams | Self::BothRoam => Part::NetworkChange,
            Self::DiallerReboots | Self::DirectPathCut | Self::EvilRelay => Part::Failover,
            Self::RebootMidPunch | Self::Victim => Part::Punching,
            Self::GatewayRestarts => Part::PortMapping,
            Self::Cascade => Part::Cascade,
            Self::RelayDies | Self::RelayDrains => Part::Failover,
            Self::TcpRelayDies => Part::TcpRelay,
            Self::RelayGoesQuiet => Part::Relay,
        }
    }
}

/// Runs of a scenario of which one failed run says little (`may_be_repeated`). Each that failed is told and counted.
const RUNS_MAX: usize = 2;

/// What was measured, by name with its unit: `stall_ms`.
pub type Figures = BTreeMap<&'static str, f64>;

/// How a scenario ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// As it should.
    Passed {
        /// What was measured.
        figures: Figures,
    },
    /// Otherwise.
    Failed {
        /// In which way.
        why: String,
    },
    /// It was not tried, because a part that it rests on is not built.
    Missing {
        /// That part.
        part: Part,
    },
}

/// One scenario with its result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScenarioReport {
    /// Which.
    pub scenario: Scenario,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How long it took, seconds.
    pub took_s: f64,
    /// In which ways the runs before this one failed.
    pub failed_before: Vec<String>,
}

/// Plays one, in a world of its own.
pub async fn play(program: &Program, scenario: Scenario, tries_all: bool) -> ScenarioReport {
    let begun = Instant::now();
    let part = scenario.needs();
    let mut failed_before = Vec::new();
    let outcome = if tries_all || BUILT.contains(&part) {
        let mut played = try_play(program, scenario).await;
        for _ in 1..RUNS_MAX {
            let Err(error) = &played else { break };
            if !scenario.may_be_repeated() {
                break;
            }
            failed_before.push(format!("{error:#}"));
            played = try_play(program, scenario).await;
        }
        match played {
            Ok(figures) => Outcome::Passed { figures },
            Err(error) => Outcome::Failed { why: format!("{error:#}") },
        }
    } else {
        Outcome::Missing { part }
    };
    ScenarioReport { scenario, outcome, took_s: begun.elapsed().as_secs_f64(), failed_before }
}

async fn try_play(program: &Program, scenario: Scenario) -> Result<Figures> {
    let world = World::new(program).await?;
    match scenario {
        Scenario::DiallerRoams => moves::roam(&world, moves::Who::Dialler).await,
        Scenario::AcceptorRoams => moves::roam(&world, moves::Who::Acceptor).await,
        Scenario::BothRoam => moves::roam(&world, moves::Who::Both).await,
        Scenario::DiallerReboots => moves::dialler_reboots(&world).await,
        Scenario::AcceptorReboots => moves::acceptor_reboots(&world).await,
        Scenario::SilenceBehindShortNat => lines::silence(&world, 12, 45).await,
        Scenario::SilenceBehindUsualNat => lines::silence(&world, 30, 75).await,
        Scenario::AsymmetricLoss => lines::asymmetric_loss(&world).await,
        Scenario::ThreeLayers => lines::three_layers(&world).await,
        Scenario::Flood => strangers::flood(&world).await,
        Scenario::DirectPathCut => moves::direct_path_cut(&world).await,
        Scenario::RebootMidPunch => moves::reboot_mid_punch(&world).await,
        Scenario::GatewayRestarts => gateways::restart(&world).await,
        Scenario::Cascade => gateways::cascade(&world).await,
        Scenario::EvilRelay => Box::pin(evil::relay(world)).await,
        Scenario::Victim => evil::victim(&world).await,
        Scenario::RelayDies => relays::ends(world, relays::End::Killed, [Kind::Home, Kind::Public]).await,
        Scenario::TcpRelayDies => {
            relays::ends(world, relays::End::Killed, [Kind::UdpBlocked, Kind::Home]).await
        }
        Scenario::RelayDrains => relays::ends(world, relays::End::Drained, [Kind::Home, Kind::Public]).await,
        Scenario::RelayGoesQuiet => relays::goes_quiet(&world).await,
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Scenario {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        if let Some(scenario) = Self::ALL.into_iter().find(|scenario| scenario.name() == name) {
            return Ok(scenario);
        }
        let all: Vec<_> = Self::ALL.iter().map(|scenario| scenario.name()).collect();
        bail!("there is no scenario {name:?}; there are: {}", all.join(", "));
    }
}

impl Serialize for Scenario {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
