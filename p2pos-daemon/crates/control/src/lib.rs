//! The control socket: how the command line asks the daemon, and how the daemon answers.
//!
//! Owns the wire (u32 big-endian length, then JSON), the list of requests, the documents that answer them, and
//! both ends of the socket. The documents are the `--json` output too: one definition, one schema, so that what a
//! script reads can never lag behind what a person reads.
//!
//! Refuses to know what a node or a plugin host is: whoever serves implements [`Handler`]. Plugins never speak
//! this protocol; only processes of the same user get past the accept loop.
//!
//! The framing is that of the plugin protocol (SPEC.md, "Frames") with the same first-byte rule: a length within the
//! limit begins with 0, so a browser's request is cut off at its first four bytes, unanswered.

mod client;
mod document;
mod failure;
mod frame;
mod request;
mod server;
mod socket_path;

pub use client::{Answers, CallError, Client, ConnectError, Step};
pub use document::{
    CheckReport, Contact, ContactList, DemoChat, DemoPath, DemoReport, DemoRoundTrip, DemoTransfer,
    DialAttempt, Document, Done, Explained, Family, Identity, Known, LogLine, NatSide, Netcheck, PeerStatus,
    PingReport, PingRound, PluginDetail, PluginList, PluginRow, Problem, RelayDetail, RelayDrop, RelayLease,
    RelayShare, RelayUser, RouterAnswer, Secret, Setting, Settings, Status, TimelineEntry, ToolSession,
};
pub use failure::{Exit, Failure};
pub use request::{ContactRequest, Request};
pub use server::{BindError, Gone, Handler, Items, Server};
pub use socket_path::{PATH_BYTES_MAX, PathTooLong, private_dir};
