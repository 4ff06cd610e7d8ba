//! How peers are reached and why: the documents of `p2pos explain` and `p2pos netcheck`.
//!
//! What is not known is said to be unknown: a text is `unknown`, a number is absent. Nothing is guessed here.

use serde::{Deserialize, Serialize};

/// A fact that may not be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// It is so.
    Yes,
    /// It is not.
    No,
    /// Nobody knows.
    #[default]
    Unknown,
}

impl From<Option<bool>> for Known {
    fn from(fact: Option<bool>) -> Self {
        fact.map_or(Self::Unknown, |is_so| if is_so { Self::Yes } else { Self::No })
    }
}

/// How one peer is reached, and why so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// Who.
    pub peer_id: String,
    /// The user's name for it, if it is a contact.
    pub petname: Option<String>,
    /// `connected`, `dialing`, `waiting` (for the next try) or `idle`.
    pub state: String,
    /// `direct`, `lan`, `loopback`, `relayed` or `relayed over tcp`; absent while there is no path.
    pub path: Option<String>,
    /// The relay's name, if it carries the path and is known: a petname or PeerId.
    pub relay: Option<String>,
    /// Smoothed round trip in microseconds; absent while there is no path.
    pub rtt_us: Option<u64>,
    /// Why it is so, in one line.
    pub why: String,
    /// What is being done: `direct`, `connected`, `punch`, `guess`, `suspect` (the path is silent), `idle`, `lookup`, `dial`;
    /// absent where nothing is, as within this machine.
    pub doing: Option<String>,
    /// What our NAT does.
    pub ours: NatSide,
    /// What the peer says of its own.
    pub theirs: NatSide,
    /// What the two allow: `direct`, `direct-with-opener`, `direct-by-guess`, `relayed`, `tcp-relayed` or `unknown`.
    pub expected: String,
    /// The one change that would make the path direct; absent if none is needed.
    pub advice: Option<String>,
    /// What each router of ours said to the wish for a port mapping.
    pub routers: Vec<RouterAnswer>,
    /// The addresses that the last dial tried.
    pub attempts: Vec<DialAttempt>,
    /// What was tried on the connection, oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// Lines that were left out of the middle of it.
    pub left_out: u64,
}

/// What one side's NAT does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatSide {
    /// `public`, `full-cone`, `address-restricted`, `port-restricted`, `collision-prone`, `sequential`, `port-block`, `random`,
    /// `udp-blocked` or `unknown`.
    pub class: String,
    /// The same for a person.
    pub words: String,
    /// `endpoint-independent`, `address-dependent`, `address-and-port-dependent` or `unknown` (RFC 4787 s4.1).
    pub mapping: String,
    /// The same words, for whom a port lets in (RFC 4787 s5).
    pub filtering: String,
    /// Routers that translate, one behind the other.
    pub layers: Option<u8>,
    /// How long an unused binding lives, in seconds.
    pub lifetime_s: Option<u16>,
    /// Whether hosts behind it reach each other by outside addresses.
    pub hairpin: Known,
    /// Whether a port mapping was made and seen to work.
    pub is_mapped: bool,
}

/// What one router said to the wish for a port mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterAnswer {
    /// The router's address.
    pub router: String,
    /// `PCP`, `NAT-PMP` or `UPnP`.
    pub protocol: String,
    /// Behind two routers: the address and port of the inner one, in whose name the outer one was asked.
    pub on_behalf_of: Option<String>,
    /// `asking`, `mapped`, `absent` or `refused`.
    pub state: String,
    /// Where the router lets packets in for us.
    pub external: Option<String>,
    /// Whether a packet from outside has come through; until then nobody is told of the mapping.
    pub is_verified: bool,
    /// How long the mapping lasts unless renewed, in seconds.
    pub lease_s: Option<u64>,
    /// What it said, or why nothing was heard; may be empty.
    pub said: String,
}

/// One address that was dialled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialAttempt {
    /// Where: a person's address, or the relay's; empty if the relay is known by a name only that was not found.
    pub address: String,
    /// The relay through which it went: a petname or PeerId; absent if it went there directly.
    #[serde(default)]
    pub relay: Option<String>,
    /// When, in milliseconds since the dial began.
    pub after_ms: u64,
    /// How long it took until the outcome, in milliseconds.
    pub took_ms: u64,
    /// What came of it.
    pub outcome: String,
}

/// One line of what was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// When, in milliseconds since the timeline began.
    pub after_ms: u64,
    /// What: `connect`, `open NATs`, `punch`, `guess port`, `use path` and so on.
    pub step: String,
    /// By which way: `LAN`, `IPv6`, `IPv4`, `guessed port`, `relay`, `TCP relay`; may be empty.
    pub way: String,
    /// `began`, `worked`, `failed`, `not allowed` or `again in N s`.
    pub outcome: String,
}

/// What is known of our own network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netcheck {
    /// Whether UDP goes out and comes back.
    pub udp: Known,
    /// IPv4.
    pub ipv4: Family,
    /// IPv6.
    pub ipv6: Family,
    /// The machine's ways out.
    pub gateways: Vec<String>,
    /// Whether routers are asked for port mappings (`network.port_mapping`).
    pub asks_routers: bool,
    /// What each router said to the wish for a port mapping.
    pub routers: Vec<RouterAnswer>,
    /// Where peers are told that we might be reached.
    pub told: Vec<String>,
    /// How often an idle path is kept alive, in seconds.
    pub keepalive_s: u64,
}

/// What is known of one address family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    /// Addresses of this machine's interfaces that reach beyond it.
    pub addresses: Vec<String>,
    /// Our address for everybody, if unrelated peers agree about it.
    pub external: Option<String>,
    /// Whether there is a translation at all.
    pub is_translated: Known,
    /// Whether the outside port is the inside port.
    pub preserves_port: Known,
    /// How outside ports are chosen where they depend on the destination: `steps of N`, `N to M`, `random` or `unknown`.
    pub ports: String,
    /// What the NAT does.
    pub nat: NatSide,
    /// How far that may be trusted: `unknown`, `contested`, `agreed` (two say so), `certain` (three or more).
    pub confidence: String,
    /// Unrelated observers who say so.
    pub agreeing: u64,
    /// Those who contradict.
    pub dissenting: u64,
}
