//! The messages that a host or a plugin handles itself: requests, their answers, and life-cycle notes.

use std::time::Duration;

use p2pos_identity::{PeerId, ProtocolName};

use super::{Rid, Role, StreamId, Ticket};
use crate::code::Code;

/// A request, an answer or a note. Stream frames, pings and the handshake never show up here.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Plugin: asks for a protocol at a peer. Answer: [`Body::Opened`] or [`Body::Error`].
    Open(Open),
    /// Daemon: the answer.
    Opened(Opened),
    /// Daemon: a peer asks for a protocol of this plugin. Answer: [`Body::Accept`] or [`Body::Reject`].
    Incoming(Incoming),
    /// Plugin: takes it.
    Accept(Accept),
    /// Plugin: does not.
    Reject(Reject),
    /// The answer to any request that failed; without `rid` a complaint.
    Error(ErrorReply),
    /// The answer to a request that has nothing to tell.
    Done,
    /// Plugin: serves protocols from now on.
    Register(Register),
    /// Plugin: serves them no more.
    Unregister(Unregister),
    /// Plugin: gives up one of its requests.
    Cancel(Rid),
    /// Plugin: start-up is over.
    Ready,
    /// Plugin: how it is.
    Status(Status),
    /// Plugin: a line for its log.
    Log(Log),
    /// Plugin: which events it wants.
    Subscribe(Subscribe),
    /// Daemon: something happened.
    Event(Event),
    /// Plugin: asks for the user's contacts. Answer: [`Body::Contacts`].
    ContactList,
    /// Daemon: the answer.
    Contacts(Vec<Contact>),
    /// Either: no new streams after this.
    GoAway(GoAway),
    /// Daemon: please end within the deadline.
    Shutdown(Shutdown),
}

impl Body {
    /// Tells whether this answers a request, rather than being one.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        match self {
            Self::Opened(_)
            | Self::Accept(_)
            | Self::Reject(_)
            | Self::Error(_)
            | Self::Done
            | Self::Contacts(_) => true,
            Self::Open(_)
            | Self::Incoming(_)
            | Self::Register(_)
            | Self::Unregister(_)
            | Self::Cancel(_)
            | Self::Ready
            | Self::Status(_)
            | Self::Log(_)
            | Self::Subscribe(_)
            | Self::Event(_)
            | Self::ContactList
            | Self::GoAway(_)
            | Self::Shutdown(_) => false,
        }
    }

    /// Tells whether `sender` may say this.
    #[must_use]
    pub const fn may_come_from(&self, sender: Role) -> bool {
        match self {
            Self::Error(_) | Self::Done | Self::GoAway(_) => true,
            Self::Opened(_) | Self::Incoming(_) | Self::Event(_) | Self::Contacts(_) | Self::Shutdown(_) => {
                matches!(sender, Role::Daemon)
            }
            Self::Open(_)
            | Self::Accept(_)
            | Self::Reject(_)
            | Self::Register(_)
            | Self::Unregister(_)
            | Self::Cancel(_)
            | Self::Ready
            | Self::Status(_)
            | Self::Log(_)
            | Self::Subscribe(_)
            | Self::ContactList => matches!(sender, Role::Plugin),
        }
    }
}

/// What flows between the two plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Kind {
    /// Bytes, in order, both ways.
    #[default]
    Stream,
    /// Unreliable messages, both ways.
    Datagram,
}

/// Where a stream's bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Attachment {
    /// In Data frames, beside everything else.
    #[default]
    Mux,
    /// On a socket of their own.
    Socket,
}

/// Whether a stream may go through a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum RelayUse {
    /// If nothing better is there.
    #[default]
    Allow,
    /// Not even then.
    Never,
}

/// What kind of way leads to the peer now. A plugin never sees an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum PathKind {
    /// One that this version has no word for.
    #[default]
    Unknown,
    /// Through the internet, without a helper.
    Direct,
    /// Inside the local network.
    Lan,
    /// Inside this machine.
    Loopback,
    /// Through a relay, which sees only ciphertext.
    Relayed,
}

/// Who may open a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Trust {
    /// The user's contacts.
    #[default]
    Contacts,
    /// Everybody who knows the PeerId.
    Anyone,
}

/// How a plugin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Health {
    /// It works.
    #[default]
    Ok,
    /// It works in part.
    Degraded,
    /// It will work once there is a network.
    WaitingNetwork,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Level {
    /// For the author.
    Debug,
    /// For the user who looks.
    #[default]
    Info,
    /// For the user to look at some day.
    Warn,
    /// For the user to look at now.
    Error,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// Something that this version has no word for. Nobody can subscribe to it.
    Unknown,
    /// A peer came or went.
    Peer,
    /// The address book changed.
    Contact,
    /// The way to a peer changed.
    Path,
}

/// "This protocol, at that peer."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Chosen by the plugin; Data on it may follow at once.
    pub stream: StreamId,
    /// At whom.
    pub peer: PeerId,
    /// In order of preference.
    pub protocols: Vec<ProtocolName>,
    /// Stream or datagrams.
    pub kind: Kind,
    /// Muxed or on a socket of its own.
    pub attachment: Attachment,
    /// How long to try; `None`: the daemon's default.
    pub timeout: Option<Duration>,
    /// Whether a relay will do.
    pub relay: RelayUse,
}

/// The stream is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Which.
    pub stream: StreamId,
    /// The protocol that the other side picked.
    pub protocol: ProtocolName,
    /// The way it takes.
    pub path: PathKind,
    /// For a detached stream.
    pub ticket: Option<Ticket>,
    /// For a flow: the largest payload in bytes that fits the path now.
    pub datagram_max: u32,
}

/// A peer asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Chosen by the daemon; Data on it may follow at once.
    pub stream: StreamId,
    /// Who asks.
    pub peer: PeerId,
    /// For what.
    pub protocol: ProtocolName,
    /// Stream or datagrams.
    pub kind: Kind,
    /// The way it came.
    pub path: PathKind,
    /// The user's own name for the peer.
    pub petname: Option<String>,
    /// Whether the peer is in the address book.
    pub is_contact: bool,
    /// For a detached stream.
    pub ticket: Option<Ticket>,
    /// For a flow: the largest payload in bytes that fits the path now.
    pub datagram_max: u32,
}

/// Takes an incoming stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// Which.
    pub stream: StreamId,
}

/// Refuses an incoming stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Which.
    pub stream: StreamId,
    /// [`Code::REFUSED`] or [`Code::NOT_READY`].
    pub code: Code,
    /// For the peer's plugin to show.
    pub reason: String,
}

/// Says what went wrong, for programs by code and for people by text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// What.
    pub code: Code,
    /// Which value, which limit.
    pub message: String,
    /// What to do next, for a person.
    pub hint: String,
    /// When it makes sense to try again.
    pub retry_after: Option<Duration>,
    /// Which stream it is about, if any.
    pub stream: Option<StreamId>,
    /// More facts, one line each.
    pub details: Vec<String>,
}

impl ErrorReply {
    /// An error with the registry's hint.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: code.hint().to_owned(),
            retry_after: None,
            stream: None,
            details: Vec::new(),
        }
    }

    /// The same, about one stream.
    #[must_use]
    pub const fn about(mut self, stream: StreamId) -> Self {
        self.stream = Some(stream);
        self
    }
}

/// Serves protocols: all of the list or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// Never empty, no name twice.
    pub protocols: Vec<Registration>,
}

/// How one protocol is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its name.
    pub name: ProtocolName,
    /// Stream or datagrams.
    pub kind: Kind,
    /// Who may open it.
    pub trust: Trust,
    /// How many at once; `None`: as many as the session allows.
    pub concurrent_max: Option<u32>,
    /// Muxed or on a socket of its own.
    pub attachment: Attachment,
}

impl Registration {
    /// A protocol for the user's contacts, with muxed streams.
    #[must_use]
    pub const fn new(name: ProtocolName, kind: Kind) -> Self {
        Self { name, kind, trust: Trust::Contacts, concurrent_max: None, attachment: Attachment::Mux }
    }
}

/// Serves protocols no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unregister {
    /// Their names.
    pub names: Vec<ProtocolName>,
}

/// How a plugin is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// In one word.
    pub health: Health,
    /// In one line, for `p2pos plugins list`.
    pub text: String,
}

/// One line for the plugin's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How much it matters.
    pub level: Level,
    /// The line.
    pub text: String,
}

/// Which events a plugin wants from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Empty: none.
    pub kinds: Vec<EventKind>,
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts up by one.
    pub seq: u64,
    /// What it is about.
    pub kind: EventKind,
    /// Events dropped just before this one.
    pub missed: u32,
    /// About whom.
    pub peer: PeerId,
    /// The user's own name for the peer.
    pub petname: Option<String>,
    /// What happened, in one word.
    pub what: String,
}

/// One entry of the user's address book, as far as plugins see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub peer: PeerId,
    /// The user's own name for the peer.
    pub petname: String,
    /// Whether a connection is up now.
    pub is_connected: bool,
}

/// No new streams after this; what runs may end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoAway {
    /// Why.
    pub code: Code,
    /// For people.
    pub reason: String,
}

/// The daemon asks the plugin to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long until it is ended.
    pub deadline: Duration,
    /// For people.
    pub reason: String,
}
