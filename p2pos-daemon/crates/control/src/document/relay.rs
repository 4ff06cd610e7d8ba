//! What this computer relays for others, and where it can be called: the document of `p2pos relay status`.
//!
//! Counts and limits as the relay keeps them, in bytes and seconds. Refuses to know what they look like to people.

use serde::{Deserialize, Serialize};

/// Both sides of relaying.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayDetail {
    /// For whom: `off`, `contacts` or `community`.
    pub mode: String,
    /// It is going down: who uses it has been told to go elsewhere.
    pub is_draining: bool,
    /// Leases held by contacts.
    pub contact_leases: u32,
    /// Leases held by everybody else.
    pub community_leases: u32,
    /// Flows now, introductions among them.
    pub flows: u32,
    /// Flows that carry signalling only.
    pub introductions: u32,
    /// What its users sent today, in bytes; a day is 24 hours from the start of the relay.
    pub day_bytes: u64,
    /// Forwarded this month (UTC), in bytes.
    pub month_bytes: u64,
    /// The most for a month; absent if there is no limit.
    pub month_bytes_max: Option<u64>,
    /// Forwarded since the start of the daemon, in bytes.
    pub forwarded_bytes: u64,
    /// The same in packets.
    pub forwarded_packets: u64,
    /// What all together get, in bytes a second.
    pub total_bytes_per_s: u64,
    /// What each contact gets.
    pub contacts: RelayShare,
    /// What everybody else gets; nothing unless the mode is `community`.
    pub community: RelayShare,
    /// Packets that were not forwarded since the start of the daemon, for each reason for which there were any.
    pub dropped: Vec<RelayDrop>,
    /// Who uses it, most bytes first.
    pub users: Vec<RelayUser>,
    /// Users that the list leaves out: those who sent least.
    pub users_left_out: u32,
    /// Where we can be called.
    pub callable_at: Vec<RelayLease>,
}

/// What one kind of user gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayShare {
    /// Of all that one user sends, bytes a second.
    pub source_bytes_per_s: u64,
    /// In each direction of one flow, bytes a second.
    pub flow_bytes_per_s: u64,
    /// Sent by one user in a day, bytes; absent if there is no limit.
    pub day_bytes_max: Option<u64>,
    /// Leases of all users of this kind.
    pub leases_max: u32,
    /// Flows of all users of this kind, introductions not counted.
    pub flows_max: u32,
    /// Flows of one user.
    pub source_flows_max: u32,
}

/// Packets that were not forwarded for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayDrop {
    /// The reason: `flow rate`, `source rate`, `day share`, `total rate`, `month`, `replayed`, ...: RELAY.md.
    pub why: String,
    /// How many.
    pub packets: u64,
}

/// Somebody who uses our relay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayUser {
    /// Who.
    pub peer_id: String,
    /// The user's name for it, if it is a contact.
    pub petname: Option<String>,
    /// Can be called through us.
    pub has_lease: bool,
    /// Flows now.
    pub flows: u32,
    /// Sent today, bytes.
    pub day_bytes: u64,
    /// Sent for as long as the relay remembers, bytes.
    pub bytes: u64,
}

/// A relay at which we can be called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayLease {
    /// Which.
    pub peer_id: String,
    /// The user's name for it, if it is a contact.
    pub petname: Option<String>,
    /// Flows through it now, whoever called.
    pub flows: u32,
    /// What friends write into their contacts: `relay:PEERID@HOST:PORT/TOKEN`. Whoever has it can have us called.
    pub address: Option<String>,
}
