//! What a relay gives to whom: the tariffs, and what bounds everything. RELAY.md section 6 is this file in words.

use std::time::Duration;

use crate::{RelayMode, bucket::Rate, stamp::STAMP_BITS};

/// How long a lease lasts unless it is renewed. A user renews at half of it, so an hour survives half an hour without
/// the relay; at a quarter, a laptop's short sleep would lose it, and longer would keep places for the dead.
pub const LEASE_TIME: Duration = Duration::from_secs(3600);

/// How long a lease outlives the connection that asked for it: enough to change networks and come back.
pub(super) const LEASE_GRACE: Duration = Duration::from_secs(60);

/// A flow that carried nothing for so long is ended. Above the longest keepalive (240 s).
pub(super) const FLOW_IDLE: Duration = Duration::from_secs(300);

/// How often leases and flows are looked over for their ends; they end this much late at most.
pub(super) const SWEEP: Duration = Duration::from_secs(5);

/// What "a day" is for daily shares, from the start of the service.
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// When somebody who found a relay full may ask again.
pub(super) const FULL_RETRY: Duration = Duration::from_secs(60);

/// Leases of strangers from one /24 or /56. A household has a few; a thousand addresses of one provider's customer
/// get no more.
pub(super) const PREFIX_LEASES_MAX: u16 = 4;

/// Flows beyond the tariff's number, for signalling only: a full relay still introduces peers. An introduction lasts
/// seconds, so these are thousands an hour.
pub(super) const INTRODUCTION_FLOWS_MAX: u32 = 64;

/// Sources remembered for their daily share. They take 15 MiB at most; who comes beyond them waits until somebody's day
/// is over. Room for both sides of 10,000 circuits, with their prefixes.
pub(super) const ACCOUNTS_MAX: usize = 65_536;

/// What every source may send as signalling: a handshake, candidates, a punch and pings. 64 KiB at once hold 40
/// handshakes' first flights.
pub(super) const SIGNALLING: (u64, u64) = (1_000, 64 * 1024);

/// What of a source counts as interactive beyond signalling: voice, a shell, a game. 128 kbit/s.
pub(super) const INTERACTIVE: (u64, u64) = (16_000, 64 * 1024);

/// Calls of one source: one a second, 16 at once. Each rings at somebody's, who did nothing to deserve a thousand.
pub(super) const CALLS: (u64, u64) = (1, 16);

/// When a source that calls faster may call again.
pub(super) const CALL_RETRY: Duration = Duration::from_secs(1);

/// The most flows that any setting allows: a flow's number has 20 bits for its place.
pub(super) const FLOWS_MAX: u32 = 1 << 20;

/// At which part of the month's bytes the owner is warned, in percent.
pub(super) const MONTH_WARNING_PERCENT: u64 = 80;

/// From which part of the month's bytes on only signalling passes, in percent: the rest introduces peers until the
/// month is over.
pub(super) const MONTH_PAYLOAD_PERCENT: u64 = 99;

/// What one kind of user gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tariff {
    /// For each direction of each flow.
    pub flow: Rate,
    /// For all that one source sends.
    pub source: Rate,
    /// What one source may send in a day; `None` is without end.
    pub day_bytes_max: Option<u64>,
    /// How many leases there are for all users of this kind.
    pub leases_max: u32,
    /// How many flows for payload.
    pub flows_max: u32,
    /// How many flows one source may have made, or a contact's guests. Most peers are direct after seconds.
    pub source_flows_max: u16,
}

/// The owner's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelaySettings {
    /// For whom.
    pub mode: RelayMode,
    /// What contacts get.
    pub contacts: Tariff,
    /// What everybody else gets.
    pub community: Tariff,
    /// What all together get.
    pub total: Rate,
    /// The most bytes forwarded in a month; `None` is without end.
    pub month_bytes_max: Option<u64>,
    /// The work that a stranger does for a lease while more than half of them are taken; at most [`STAMP_BITS`].
    pub stamp_bits: u32,
    /// Loopback addresses may be sides: for tests on one machine.
    pub allows_loopback: bool,
}

impl Tariff {
    /// For contacts: 2 Mbit/s, no daily share.
    #[must_use]
    pub fn contacts() -> Self {
        let rate = Rate::new(250_000, 4 << 20);
        Self {
            flow: rate,
            source: rate,
            day_bytes_max: None,
            leases_max: 128,
            flows_max: 128,
            source_flows_max: 16,
        }
    }

    /// For strangers: 256 kbit/s a flow after 4 MiB at once, twice that a source, 64 MiB a day, 32 leases, 16 flows.
    #[must_use]
    pub fn community() -> Self {
        Self {
            flow: Rate::new(32_000, 4 << 20),
            source: Rate::new(64_000, 8 << 20),
            day_bytes_max: Some(64 << 20),
            leases_max: 32,
            flows_max: 16,
            source_flows_max: 4,
        }
    }
}

impl Default for RelaySettings {
    /// Nobody is served. Where the owner says who, all together get 20 Mbit/s: a fifth of a common uplink.
    fn default() -> Self {
        Self {
            mode: RelayMode::Off,
            contacts: Tariff::contacts(),
            community: Tariff::community(),
            total: Rate::new(2_500_000, 4 << 20),
            month_bytes_max: None,
            stamp_bits: STAMP_BITS,
            allows_loopback: false,
        }
    }
}
