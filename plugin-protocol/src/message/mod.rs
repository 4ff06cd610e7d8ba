//! What the frames say, as types of our own: checked once at the door, then trusted inside.
//!
//! The protobuf types stop in this module's two converters (`decode`, `encode`). What comes out of [`Frame::decode`]
//! keeps every rule that one frame alone can keep or break: ids are not 0, names and PeerIds are well-formed, lists are
//! short enough. Rules that need a memory (is this stream open? was that asked?) are [`crate::streams`]' and the
//! driver's. SPEC.md, "Messages".

mod body;
mod decode;
mod encode;
mod handshake;
mod peers;

use std::{fmt, num::NonZeroU32};

use bytes::Bytes;

use crate::code::{Code, End};

pub use body::{
    Accept, Attachment, Body, Contact, ErrorReply, Event, EventKind, GoAway, Health, Incoming, Kind, Level,
    Log, Open, Opened, PathKind, Register, Registration, Reject, RelayUse, Shutdown, Status, Subscribe,
    Trust, Unregister,
};
pub use decode::DecodeError;
pub use handshake::{Auth, Handshake, Hello, LaunchToken, Refused, Ticket, Welcome};

/// Who is speaking, or listening: the protocol has two roles and is the same seen from both, except where told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The program that uses the network.
    Plugin,
    /// The daemon that reaches it.
    Daemon,
}

impl Role {
    /// The one at the other end of the socket.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Plugin => Self::Daemon,
            Self::Daemon => Self::Plugin,
        }
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU32);

        impl $name {
            /// Takes a number from the wire; 0 is none.
            #[must_use]
            pub const fn new(number: u32) -> Option<Self> {
                match NonZeroU32::new(number) {
                    Some(number) => Some(Self(number)),
                    None => None,
                }
            }

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u32 {
                self.0.get()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

number! {
    /// Names a request, so that its answer finds back. Each side counts its own.
    Rid
}

number! {
    /// Names a stream or a flow of one session: odd numbers are the plugin's, even ones the daemon's.
    StreamId
}

impl StreamId {
    /// Who chose this number, and so who opened the stream.
    #[must_use]
    pub const fn opener(self) -> Role {
        if self.number() % 2 == 1 { Role::Plugin } else { Role::Daemon }
    }
}

/// One frame, without its length prefix.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Names the request that this asks or answers; `None`: nobody waits.
    pub rid: Option<Rid>,
    /// What it says.
    pub message: Message,
}

/// What a frame can say, by who handles it.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// For the stream machine.
    Stream(StreamMessage),
    /// For the handshake machine.
    Handshake(Handshake),
    /// Asks for a Pong with the same number.
    Ping(u64),
    /// Answers a Ping.
    Pong(u64),
    /// For the host or the plugin itself.
    Body(Body),
    /// A message of a later version: answered by 201 if it has a `rid`, ignored otherwise.
    Unknown,
}

/// The messages about one stream or flow that is already open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamMessage {
    /// Bytes, in order; their boundaries mean nothing.
    Data {
        /// Whose.
        stream: StreamId,
        /// The bytes; may be empty.
        payload: Bytes,
        /// The sender writes no more.
        fin: bool,
    },
    /// The receiver has consumed this many bytes more.
    Window {
        /// Whose.
        stream: StreamId,
        /// How many.
        bytes: u32,
    },
    /// One unreliable message.
    Datagram {
        /// Of which flow.
        flow: StreamId,
        /// The message.
        payload: Bytes,
    },
    /// Ends a stream at once, both ways.
    Reset {
        /// Which.
        stream: StreamId,
        /// Why.
        end: End,
    },
    /// The receiver will read no more.
    StopSending {
        /// Of which stream.
        stream: StreamId,
        /// Why.
        end: End,
    },
    /// The daemon's last word about a stream.
    StreamClosed {
        /// Which.
        stream: StreamId,
        /// How it truly ended.
        facts: StreamClosed,
    },
}

impl StreamMessage {
    /// The stream or flow that it is about.
    #[must_use]
    pub const fn stream(&self) -> StreamId {
        match self {
            Self::Data { stream, .. }
            | Self::Window { stream, .. }
            | Self::Datagram { flow: stream, .. }
            | Self::Reset { stream, .. }
            | Self::StopSending { stream, .. }
            | Self::StreamClosed { stream, .. } => *stream,
        }
    }
}

/// How a stream truly ended, seen from the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamClosed {
    /// Who ended it.
    pub cause: Cause,
    /// Why; meaningless for [`Cause::Finished`], then `None`.
    pub end: Option<End>,
    /// Payload bytes that the plugin was sent.
    pub bytes_in: u64,
    /// Payload bytes that the plugin sent.
    pub bytes_out: u64,
}

/// Who ended a stream, seen from its plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Both directions ended by fin, all bytes handed over.
    Finished,
    /// This plugin reset or stopped it.
    ResetLocal,
    /// The other plugin did, or a daemon; the code says which.
    ResetRemote,
}

impl Message {
    /// Tells whether this message may come from `sender` once the session is open.
    #[must_use]
    pub const fn may_come_from(&self, sender: Role) -> bool {
        match self {
            Self::Stream(StreamMessage::StreamClosed { .. }) => matches!(sender, Role::Daemon),
            Self::Stream(_) | Self::Ping(_) | Self::Pong(_) | Self::Unknown => true,
            Self::Handshake(_) => false,
            Self::Body(body) => body.may_come_from(sender),
        }
    }
}

/// Fault of a sender that ends the whole session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Violation {
    /// The code that answers it.
    pub code: Code,
    /// Which rule was broken, in words and by its name in SPEC.md.
    pub what: &'static str,
}

impl Violation {
    /// A broken rule of the protocol: 100. `what` cites the rule.
    #[must_use]
    pub const fn protocol(what: &'static str) -> Self {
        Self { code: Code::PROTOCOL, what }
    }
}
