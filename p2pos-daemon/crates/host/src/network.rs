//! The host's view of the world outside: one trait that the bridge implements, and the words both use. Owns no state.
//!
//! No IP address appears here, and none may: plugins deal with PeerIds and ProtocolNames (DESIGN section 3).

use std::time::Duration;

use p2pos_identity::{PeerId, ProtocolName};
use p2pos_plugin_protocol::{
    code::Code,
    message::{EventKind, Kind, PathKind, RelayUse},
};

use crate::{open::OpenAnswer, stream::PluginEnd};

/// What the host needs from the network.
pub trait Network: Send + Sync + 'static {
    /// A plugin asks for one of `protocols` at `peer`; its grants are already checked.
    ///
    /// Must not block: start a task, and use `answer` there.
    fn open(&self, request: OpenRequest, answer: OpenAnswer);

    /// The user's contacts, now.
    fn contacts(&self) -> Vec<ContactInfo>;

    /// One contact; `None` if the peer is none.
    fn contact(&self, peer: &PeerId) -> Option<ContactInfo>;

    /// Who is connected, now.
    fn connected(&self) -> Vec<ConnectedPeer>;
}

/// A contact as plugins may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContactInfo {
    /// Who.
    pub peer: PeerId,
    /// The user's own name for them.
    pub petname: String,
    /// Whether a connection stands.
    pub is_connected: bool,
}

/// A connected peer as plugins may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectedPeer {
    /// Who.
    pub peer: PeerId,
    /// The user's own name for them, if they are a contact.
    pub petname: Option<String>,
    /// How.
    pub path: PathKind,
}

/// What a plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRequest {
    /// The plugin's id, or the tool's name.
    pub plugin: String,
    /// Whom.
    pub peer: PeerId,
    /// In order of preference; at least one.
    pub protocols: Vec<ProtocolName>,
    /// Stream or datagrams.
    pub kind: Kind,
    /// How long the plugin is willing to wait; [`OpenAnswer::given_up`] tells when it is over.
    pub timeout: Duration,
    /// Whether a relay may help.
    pub relay: RelayUse,
}

/// How an open went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedInfo {
    /// The protocol that the other side chose.
    pub protocol: ProtocolName,
    /// How the peer is reached now.
    pub path: PathKind,
    /// Largest datagram payload in bytes that fits the path now; 0 for streams.
    pub datagram_max: u32,
}

/// How an open failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFailure {
    /// The registry's number, 2xx to 5xx.
    pub code: Code,
    /// What happened, for a person.
    pub message: String,
    /// More facts, one line each; never an address.
    pub details: Vec<String>,
    /// When trying again may help.
    pub retry_after: Option<Duration>,
}

/// Something happened that plugins may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkEvent {
    /// What it is about.
    pub kind: EventKind,
    /// Whom it is about.
    pub peer: PeerId,
    /// The user's own name for them, if they are a contact.
    pub petname: Option<String>,
    /// The word that the protocol has for it: "connected", "disconnected", "added", "direct", ...
    pub what: &'static str,
}

/// Another person's plugin wants to open a protocol here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Who asks.
    pub peer: PeerId,
    /// The user's own name for them, if they are a contact.
    pub petname: Option<String>,
    /// Whether they are a contact.
    pub is_contact: bool,
    /// In their order of preference.
    pub protocols: Vec<ProtocolName>,
    /// Stream or datagrams.
    pub kind: Kind,
    /// How they are reached now.
    pub path: PathKind,
    /// Largest datagram payload in bytes that fits the path now; 0 for streams.
    pub datagram_max: u32,
}

/// A plugin took the offer.
#[derive(Debug)]
pub struct Accepted {
    /// The protocol chosen.
    pub protocol: ProtocolName,
    /// The plugin's end.
    pub end: PluginEnd,
}

/// Nobody took the offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 304 to 306, or 401.
    pub code: Code,
    /// When trying again may help.
    pub retry_after: Option<Duration>,
    /// What this peer could open instead; only with 304.
    pub offered: Vec<ProtocolName>,
    /// Why, for our own log; not meant for the peer.
    pub reason: String,
}

/// The protocol's word for a path.
pub(crate) const fn path_word(path: PathKind) -> &'static str {
    match path {
        PathKind::Direct | PathKind::Unknown => "direct",
        PathKind::Lan => "lan",
        PathKind::Loopback => "loopback",
        PathKind::Relayed => "relayed",
    }
}
