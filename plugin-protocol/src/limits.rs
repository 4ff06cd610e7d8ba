//! Every limit of the plugin protocol: value, unit, why this much (SPEC.md, "Limits").
//!
//! The constants are version 1's defaults and hard bounds; [`Limits`] is what a daemon tells its plugin in Welcome.
//! This file refuses to know who enforces them.

use std::time::Duration;

/// Bytes of the length prefix before every frame.
pub const PREFIX_BYTES: usize = 4;

/// Largest frame body in bytes by default: room for 16 full Data frames' worth of anything, and for long contact
/// lists. At half, a list of 10,000 contacts would not fit; at double, one plugin could pin twice the memory.
pub const FRAME_BYTES_MAX: u32 = 1024 * 1024;

/// Largest frame body in bytes that anybody may agree on: one less than 2^24, so that the first byte of every frame
/// is 0 and nothing that a browser or a TLS client says can look like one.
pub const FRAME_BYTES_HARD_MAX: u32 = (1 << 24) - 1;

/// Smallest `frame_bytes_max` that a plugin may ask for, in bytes: the handshake's own frames must fit.
pub const FRAME_BYTES_HARD_MIN: u32 = HELLO_BYTES_MAX;

/// Largest frame body in bytes before the other side has proved who it is: a Hello is under 1 KiB; a stranger cannot
/// make us keep more than this.
pub const HELLO_BYTES_MAX: u32 = 4 * 1024;

/// Largest payload in bytes of one Data frame: small enough that a stream waits at most 64 KiB for its turn, large
/// enough that a frame's cost (about 100 ns) vanishes beside its copy (about 10 us).
pub const DATA_BYTES_MAX: u32 = 64 * 1024;

/// Bytes that may be on their way in one stream before the receiver has consumed any. A local socket and two task
/// switches take about 50 us, so this allows 5 GB/s; it is also what one stalled stream can cost the receiver.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// Most credit in bytes that a stream may have at once; more is 402 FLOW_CONTROL.
pub const CREDIT_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Bytes that one stream's unsent data may take before its writer waits, however large the credit is.
pub const SEND_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// Bytes of datagrams that wait in one flow, per direction; the oldest go first, and a counter tells.
pub const DATAGRAM_QUEUE_BYTES_MAX: usize = 256 * 1024;

/// What every waiting datagram counts on top of its payload, in bytes, so that empty ones cannot pile up for ever.
pub const DATAGRAM_OVERHEAD_BYTES: usize = 64;

/// Streams, flows and detached streams together that one plugin may have at once.
pub const STREAMS_MAX: u32 = 256;

/// Protocols that one plugin may register.
pub const PROTOCOLS_MAX: u32 = 64;

/// Requests that may wait for their answer at once, in each direction.
pub const REQUESTS_MAX: u32 = 1024;

/// Protocol names in one Open: a preference list, not a catalogue.
pub const OPEN_PROTOCOLS_MAX: usize = 16;

/// Bytes of one log line; longer ones are cut, with a mark.
pub const LOG_LINE_BYTES_MAX: u32 = 64 * 1024;

/// Feature names in one Hello, and bytes of each.
pub const FEATURES_MAX: usize = 32;
/// Bytes of one feature name.
pub const FEATURE_BYTES_MAX: usize = 64;
/// Bytes of `Hello.sdk`, which is shown in logs.
pub const SDK_BYTES_MAX: usize = 128;

/// Bytes of control frames that may wait to be sent in one session. The other side fills this only by asking without
/// reading the answers, and is then closed with 106 SLOW_CONSUMER. At half, a burst of 1,024 long answers would not
/// fit; at double, one deaf plugin pins more memory than a stalled stream does.
pub const CONTROL_QUEUE_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX as usize;

/// Frames that may wait between the session's task and its owner (host or SDK).
pub const INBOX_FRAMES_MAX: usize = 1024;

/// How many of those may be Log frames, so that a flood of them never hides a Ready.
pub const INBOX_LOGS_MAX: usize = INBOX_FRAMES_MAX / 2;

/// How long a fresh connection may take until its Hello is there.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a plugin may take to answer an Incoming; then the peer is told 306 NOT_READY.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the ticket of a detached stream is good.
pub const TICKET_TTL: Duration = Duration::from_secs(10);

/// Silence after which a Ping asks whether the other side still lives.
pub const PING_AFTER: Duration = Duration::from_secs(15);

/// Silence after which the other side counts as dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(45);

/// How long a closing session tries to hand over what is still queued.
pub const CLOSE_LINGER: Duration = Duration::from_secs(1);

/// What the daemon tells the plugin in Welcome, so that no author has to guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest frame body in bytes that the daemon takes.
    pub frame_bytes_max: u32,
    /// Largest payload in bytes of one Data frame, both ways.
    pub data_bytes_max: u32,
    /// Bytes that the plugin may send per stream before the daemon gives credit.
    pub stream_window_bytes: u32,
    /// Streams, flows and detached streams at once.
    pub streams_max: u32,
    /// Registered protocols.
    pub protocols_max: u32,
    /// Requests waiting for their answer at once.
    pub requests_max: u32,
    /// Bytes of one log line.
    pub log_line_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: FRAME_BYTES_MAX,
            data_bytes_max: DATA_BYTES_MAX,
            stream_window_bytes: STREAM_WINDOW_BYTES,
            streams_max: STREAMS_MAX,
            protocols_max: PROTOCOLS_MAX,
            requests_max: REQUESTS_MAX,
            log_line_bytes_max: LOG_LINE_BYTES_MAX,
        }
    }
}
