//! Every limit of this crate, with its unit and reason.

use std::time::Duration;

use p2pos_traversal::BackoffSettings;

/// Peers with a task. A daemon's contacts are tens to hundreds; each idle task costs a few kB and ends by itself.
pub(crate) const PEERS_MAX: usize = 1_024;

/// Strangers connected at once, where the policy lets them in at all: contacts must always find room.
pub(crate) const STRANGERS_MAX: usize = 32;

/// Connections of one pair held at once: the one in use, one being retired, and two left over from a race of candidates.
pub(crate) const CONNECTIONS_PER_PEER_MAX: usize = 4;

/// Commands waiting for a peer's task; it answers within microseconds.
pub(crate) const COMMANDS_QUEUE: usize = 64;

/// Opens waiting for one peer to be connected. As many as a plugin may have streams.
pub(crate) const OPENS_WAITING_MAX: usize = 256;

/// Streams of one connection whose hello is not yet read or not yet answered: 4 KiB each in the worst case.
pub(crate) const UNANSWERED_PER_CONNECTION_MAX: usize = 64;

/// Incoming streams waiting for `Node::accept`, of all peers together.
pub(crate) const INCOMING_QUEUE: usize = 256;

/// Time to send the hello. It travels with the stream's first packet; only a hostile or broken peer takes longer.
pub(crate) const HELLO_MAX: Duration = Duration::from_secs(5);

/// Time until an incoming stream is answered for whoever does not answer it: with 306 NOT_READY. A second more than a plugin
/// has (SPEC.md, limits: 10 s), so that one clock decides, the plugin's, and an answer in time is never overtaken.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(11);

/// Default time for an open, from the request to the answer.
pub(crate) const OPEN_DEFAULT: Duration = Duration::from_secs(10);

/// Times that one open is tried anew because the connection ended under it before its answer.
pub(crate) const OPEN_TRIES_MAX: usize = 3;

/// Waits between dials while somebody wants the peer. Sooner than [`p2pos_traversal::RECONNECT`] at first, because a
/// person may be waiting; a peer that comes back calls us too.
pub(crate) const REDIAL: BackoffSettings = BackoffSettings {
    first: Duration::from_millis(250),
    max: Duration::from_secs(30),
    healthy: Duration::from_secs(10),
};

/// Two connections established within this time are a simultaneous dial; with a greater distance the older one is a
/// leftover that the peer no longer knows. A little more than the longest handshake.
pub(crate) const SIMULTANEOUS_MAX: Duration = Duration::from_secs(6);

/// Silence, in round trips of the path, after which a connection that was nudged is dead: the nudge, two repetitions and the
/// answer.
pub(crate) const DOUBT_ROUND_TRIPS: u32 = 4;

/// Least such silence. A busy machine answers late; half would cut living connections on it.
pub(crate) const DOUBT_MIN: Duration = Duration::from_secs(1);

/// Longest such silence, over a satellite and back.
pub(crate) const DOUBT_MAX: Duration = Duration::from_secs(5);

/// First look whether a nudged connection was heard; the pauses double from there.
pub(crate) const DOUBT_FIRST_LOOK: Duration = Duration::from_millis(10);

/// Least life of a connection that lost against its twin: until then the peer has heard of the twin too, and opens
/// nothing here any more. Dozens of round trips.
pub(crate) const RETIRE_GRACE: Duration = Duration::from_secs(2);

/// Longest life of a connection that lost: its streams have moved on or ended; a chat that lasts longer is cut once.
pub(crate) const RETIRE_MAX: Duration = Duration::from_secs(60 * 60);

/// The peer with the greater PeerId leaves the closing to the other, and does it itself only so much later.
pub(crate) const RETIRE_SECOND: Duration = Duration::from_secs(30);

/// A connection without streams and flows is closed after this time (connectivity.md s6, state Idle).
pub(crate) const IDLE_CLOSE: Duration = Duration::from_secs(60);

/// A peer's task without connection, wish or backoff ends after this time.
pub(crate) const FORGET: Duration = Duration::from_secs(60);

/// A connection that the peer dialled and that is younger than this may be one of several that it tried at once, of which it
/// closes all but one: nobody writes on it before the answer. One that lost against its twin is no reason: its streams live
/// on, and it is closed long after the last of them. Dozens of round trips.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// A connection that was heard within this time is taken to be alive; otherwise the answer must come first, because the
/// peer may have been restarted.
pub(crate) const FRESH_FOR: Duration = Duration::from_secs(1);

/// A connection used within this time cannot be in the middle of the peer's idle close. Half of [`IDLE_CLOSE`].
pub(crate) const IN_USE_FOR: Duration = Duration::from_secs(30);

/// An open that failed by time after at least so long, with not one packet heard meanwhile, condemns its connection.
pub(crate) const SUSPECT_AFTER: Duration = Duration::from_secs(3);

/// A finished stream holds its connection until its last byte is delivered, at most for this time.
pub(crate) const LINGER_MAX: Duration = Duration::from_secs(60);

/// Datagrams waiting in one flow. Drop-oldest beyond: a late datagram is worth less than a fresh one.
pub(crate) const FLOW_QUEUE_DATAGRAMS: usize = 256;

/// Bytes waiting in one flow (plugin-host.md C8).
pub(crate) const FLOW_QUEUE_BYTES: usize = 256 * 1024;

/// Datagrams taken from a connection at once.
pub(crate) const DATAGRAM_BATCH: usize = 32;

/// Pings of one call.
pub(crate) const PINGS_MAX: u32 = 1_000;

/// Wait for one pong.
pub(crate) const PONG_MAX: Duration = Duration::from_secs(5);

/// Life of a ping stream at the answering side, and bytes echoed on it: [`PINGS_MAX`] pings, one a second or slower.
pub(crate) const PING_STREAM_MAX: Duration = Duration::from_secs(2 * 60 * 60);

/// Events kept for a subscriber that does not read.
pub(crate) const EVENTS_QUEUE: usize = 256;

/// Pause after a try to heal the sockets. While a machine has no network every try fails, and costs two system calls.
pub(crate) const HEAL_PAUSE: Duration = Duration::from_secs(5);
