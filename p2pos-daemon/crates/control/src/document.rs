//! The documents: what the daemon answers, and what `--json` prints.
//!
//! Each carries its schema and version (`"schema": "p2pos.status/1"`). Within a version, members are only added;
//! taking one away or changing its meaning makes a new version. Everything a person is shown stands in a document,
//! so that no script has to read prose. Refuses to know how they are laid out for people: that is the command line's.

mod reach;
mod relay;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::reach::{
    DialAttempt, Explained, Family, Known, NatSide, Netcheck, RouterAnswer, TimelineEntry,
};
pub use self::relay::{RelayDetail, RelayDrop, RelayLease, RelayShare, RelayUser};
use crate::failure::Failure;

/// One answer, named by its schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "schema")]
pub enum Document {
    /// Nothing more to say than that it is done.
    #[serde(rename = "p2pos.done/1")]
    Done(Done),
    /// The daemon as a whole.
    #[serde(rename = "p2pos.status/1")]
    Status(Status),
    /// Who we are.
    #[serde(rename = "p2pos.identity/1")]
    Identity(Identity),
    /// All contacts.
    #[serde(rename = "p2pos.contacts/1")]
    Contacts(ContactList),
    /// One contact.
    #[serde(rename = "p2pos.contact/1")]
    Contact(Contact),
    /// Several plugins in one line each.
    #[serde(rename = "p2pos.plugins/1")]
    Plugins(PluginList),
    /// One plugin in full.
    #[serde(rename = "p2pos.plugin/1")]
    Plugin(Box<PluginDetail>),
    /// One line of a plugin's log.
    #[serde(rename = "p2pos.plugin-log/1")]
    LogLine(LogLine),
    /// What a check of a plugin's directory found.
    #[serde(rename = "p2pos.plugin-check/1")]
    Check(CheckReport),
    /// What a tool or a plugin under development needs to connect. Never printed.
    #[serde(rename = "p2pos.session/1")]
    Session(ToolSession),
    /// One round trip.
    #[serde(rename = "p2pos.ping-round/1")]
    PingRound(PingRound),
    /// All round trips.
    #[serde(rename = "p2pos.ping/1")]
    Ping(PingReport),
    /// How one peer is reached, and why so.
    #[serde(rename = "p2pos.explain/1")]
    Explain(Box<Explained>),
    /// What is known of our own network.
    #[serde(rename = "p2pos.netcheck/1")]
    Netcheck(Box<Netcheck>),
    /// What is relayed for others, and where we can be called.
    #[serde(rename = "p2pos.relay/1")]
    Relay(Box<RelayDetail>),
    /// The settings and where each comes from.
    #[serde(rename = "p2pos.config/1")]
    Config(Settings),
    /// What the demo moved and measured.
    #[serde(rename = "p2pos.demo/1")]
    Demo(Box<DemoReport>),
    /// What went wrong; with `--json` on stderr.
    #[serde(rename = "p2pos.error/1")]
    Error(Failure),
}

/// Nothing more to say than that it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// One line about what was done; may be empty.
    pub what: String,
}

/// The daemon as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's own version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Who we are.
    pub peer_id: String,
    /// Seconds since it became ready.
    pub uptime_s: u64,
    /// Where key, contacts and plugins' data lie.
    pub data_dir: String,
    /// The UDP port that peers reach.
    pub udp_port: u16,
    /// How many plugins there are.
    pub plugins: u32,
    /// How many of them run.
    pub plugins_running: u32,
    /// How many contacts there are.
    pub contacts: u32,
    /// Peers that a connection stands to, or is being tried to.
    pub peers: Vec<PeerStatus>,
}

/// One peer as the daemon sees it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Who.
    pub peer_id: String,
    /// The user's name for it, if it is a contact.
    pub petname: Option<String>,
    /// `connected`, `dialing`, `waiting` (for the next try) or `idle`.
    pub state: String,
    /// `direct`, `lan`, `loopback`, `relayed` or `relayed over tcp`; absent while there is no path.
    pub path: Option<String>,
    /// The relay's name, if it carries the path and is known: a petname or PeerId.
    #[serde(default)]
    pub relay: Option<String>,
    /// Smoothed round trip in microseconds; absent while there is no path.
    pub rtt_us: Option<u64>,
    /// Streams open now.
    pub streams: u32,
    /// Why it is so, for a person; may be empty.
    pub why: String,
}

/// Who we are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The PeerId's text: what others need to know.
    pub peer_id: String,
    /// Four words to compare by ear.
    pub words: Vec<String>,
    /// The file that holds the key.
    pub key_file: String,
    /// The key did not exist before this command.
    pub is_new: bool,
}

/// All contacts, by petname.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactList {
    /// The contacts.
    pub contacts: Vec<Contact>,
}

/// One contact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The user's own name for it.
    pub petname: String,
    /// Who it is.
    pub peer_id: String,
    /// `new`, `verified`, `introduced` or `changed`.
    pub trust: String,
    /// Where it may be reached, as given by the user: HOST:PORT or `relay:PEERID@HOST:PORT/TOKEN`.
    pub addresses: Vec<String>,
    /// Whether packets to and from it may go through relays: `auto` or `never`.
    #[serde(default)]
    pub relay: String,
    /// When it was added, seconds since 1970.
    pub added_unix_s: u64,
}

/// Several plugins in one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginList {
    /// The plugins, by id.
    pub plugins: Vec<PluginRow>,
}

/// A plugin in one line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRow {
    /// Its id, which is its directory's name.
    pub id: String,
    /// Its name for people, as its author gave it.
    pub name: String,
    /// Its version, as its author gave it.
    pub version: String,
    /// `disabled`, `running`, `backoff`, ...: the states of ARCHITECTURE.md.
    pub state: String,
    /// Why it is in that state; may be empty.
    pub reason: String,
    /// The process, while there is one.
    pub pid: Option<u32>,
    /// Seconds in this state.
    pub since_s: u64,
    /// Streams open now.
    pub streams: u32,
    /// Restarts since it was last healthy for a while.
    pub restarts: u32,
    /// Its own line about itself; may be empty.
    pub status: String,
}

/// A plugin in full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginDetail {
    /// What the list shows.
    #[serde(flatten)]
    pub row: PluginRow,
    /// What it is for, as its author says.
    pub description: String,
    /// Where it lies.
    pub directory: String,
    /// ProtocolNames that it offers to peers.
    pub protocols: Vec<String>,
    /// Permissions that its manifest asks for, in words.
    pub asks: Vec<String>,
    /// Permissions that the user has given.
    pub granted: Vec<String>,
    /// Names exactly this manifest and these permissions: what `plugins enable` approves.
    pub approval: String,
    /// What holds it, in fact and not in intention.
    pub sandbox: Vec<String>,
    /// What is odd in its manifest, with places.
    pub warnings: Vec<String>,
    /// What is wrong in its manifest, with places.
    pub errors: Vec<String>,
    /// How its last run ended; absent if it never ran.
    pub last_exit: Option<String>,
    /// The newest lines of its log.
    pub log_tail: Vec<String>,
}

/// One line of a plugin's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When, milliseconds since 1970.
    pub unix_ms: u64,
    /// `stdout`, `stderr`, `log` (a Log frame) or `p2pos` (the daemon about the plugin).
    pub source: String,
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// The text, as the plugin wrote it.
    pub text: String,
}

/// What a check of a plugin's directory found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// The directory.
    pub directory: String,
    /// The plugin's id, if the manifest could be read that far.
    pub id: Option<String>,
    /// What is wrong; errors first.
    pub problems: Vec<Problem>,
}

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// It cannot work so; otherwise it is a warning.
    pub is_error: bool,
    /// `FILE:LINE`, as far as known.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

/// What a tool or a plugin under development needs to connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSession {
    /// The environment to launch with; it holds the single-use token.
    pub environment: Vec<(String, Secret)>,
    /// The manifest's own command, for a plugin under development; empty for a tool.
    pub exec: Vec<String>,
}

impl ToolSession {
    /// The value of one environment variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.reveal())
    }
}

/// A text that is never logged or printed by accident.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Shows it: only to whom it is meant for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// One round trip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingRound {
    /// Counts up from 1.
    pub seq: u32,
    /// How long it took, in microseconds; absent if no answer came.
    pub rtt_us: Option<u64>,
    /// `direct`, `lan`, `loopback`, `relayed` or `relayed over tcp`; absent if no answer came.
    pub path: Option<String>,
    /// The relay's name, if it carries the path and is known: a petname or PeerId.
    #[serde(default)]
    pub relay: Option<String>,
    /// Why no answer came; may be empty.
    pub why: String,
}

/// All round trips.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingReport {
    /// Who was asked.
    pub peer_id: String,
    /// The user's name for it, if it is a contact.
    pub petname: Option<String>,
    /// Round trips begun.
    pub sent: u32,
    /// Round trips ended.
    pub received: u32,
    /// The quickest, in microseconds; absent if none ended.
    pub min_us: Option<u64>,
    /// The median, in microseconds; absent if none ended.
    pub median_us: Option<u64>,
    /// The slowest, in microseconds; absent if none ended.
    pub max_us: Option<u64>,
}

/// The settings and where each comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The file, which need not exist.
    pub file: String,
    /// The settings, in the order of the documentation.
    pub settings: Vec<Setting>,
    /// What is wrong in the file; errors first.
    pub problems: Vec<Problem>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name: `network.port`.
    pub key: String,
    /// What holds now.
    pub value: String,
    /// `environment`, `file` or `default`.
    pub origin: String,
    /// What would hold if nobody said anything.
    pub default: String,
    /// What it does.
    pub help: String,
}

/// What the demo moved and measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DemoReport {
    /// Every byte that was sent came back or arrived as it was sent.
    pub is_verified: bool,
    /// Daemons that took part.
    pub peers: u32,
    /// The path of each pair.
    pub paths: Vec<DemoPath>,
    /// Lines that the chat plugins carried; empty if there is no Python for them.
    pub chat: Vec<DemoChat>,
    /// Bulk transfers.
    pub transfers: Vec<DemoTransfer>,
    /// 64 bytes there and back on one open stream.
    pub round_trip: DemoRoundTrip,
    /// Datagrams sent.
    pub datagrams_sent: u32,
    /// Datagrams that came back. They may get lost on the way; what comes must be right.
    pub datagrams_received: u32,
    /// What was left out and why; empty if nothing was.
    pub skipped: Vec<String>,
    /// The whole demo, in milliseconds.
    pub took_ms: u64,
}

/// The path of one pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoPath {
    /// The daemon that opened.
    pub from: String,
    /// The other.
    pub to: String,
    /// `direct`, `lan`, `loopback` or `relayed`.
    pub path: String,
}

/// One line of chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoChat {
    /// Who wrote it.
    pub from: String,
    /// Who read it.
    pub to: String,
    /// The line.
    pub text: String,
}

/// One bulk transfer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DemoTransfer {
    /// The daemon whose plugin sent.
    pub from: String,
    /// The daemon whose plugin received.
    pub to: String,
    /// Payload bytes.
    pub bytes: u64,
    /// How long, in milliseconds.
    pub took_ms: u64,
    /// The rate in MiB/s.
    pub mib_per_s: f64,
    /// Both ends computed the same checksum.
    pub is_verified: bool,
}

/// 64 bytes there and back on one open stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoRoundTrip {
    /// How many were made.
    pub rounds: u32,
    /// Half were quicker, in microseconds.
    pub p50_us: u64,
    /// 99 of 100 were quicker, in microseconds.
    pub p99_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_names_its_schema_first() {
        let text = serde_json::to_string(&Document::Done(Done { what: "gone".into() })).unwrap();
        assert_eq!(text, r#"{"schema":"p2pos.done/1","what":"gone"}"#);
    }

    #[test]
    fn a_plugin_in_full_has_the_members_of_the_list_at_its_top() {
        let row = PluginRow { id: "chat".into(), ..PluginRow::default() };
        let document = Document::Plugin(Box::new(PluginDetail { row, ..PluginDetail::default() }));
        let value = serde_json::to_value(&document).unwrap();
        assert_eq!(value["id"], "chat");
        assert_eq!(serde_json::from_value::<Document>(value).unwrap(), document);
    }

    #[test]
    fn an_older_reader_passes_over_members_that_it_does_not_know() {
        let text = r#"{"schema":"p2pos.done/1","what":"gone","later":true}"#;
        assert_eq!(
            serde_json::from_str::<Document>(text).unwrap(),
            Document::Done(Done { what: "gone".into() })
        );
    }

    #[test]
    fn a_token_does_not_show_in_debug_output() {
        let token = Secret::new("do not print me");
        let session = ToolSession { environment: vec![("P2POS_TOKEN".into(), token)], exec: Vec::new() };
        assert!(!format!("{session:?}").contains("print me"));
        assert_eq!(session.variable("P2POS_TOKEN"), Some("do not print me"));
        assert_eq!(session.variable("P2POS_ENDPOINT"), None);
    }
}
