//! Snapshots of node and host as documents of the control socket: plain translation, no decisions.

use std::time::Duration;

use p2pos_control::{LogLine, PeerStatus, PluginDetail, PluginRow};
use p2pos_host::{LogSource, PluginSnapshot};
use p2pos_node::{Explanation, PeerSnapshot, PeerState};

use super::reach::why;

/// A plugin in one line.
pub(super) fn plugin_row(plugin: &PluginSnapshot) -> PluginRow {
    PluginRow {
        id: plugin.id.clone(),
        name: plugin.name.clone(),
        version: plugin.version.clone(),
        state: plugin.state.to_string(),
        reason: plugin.reason.clone(),
        pid: plugin.pid,
        since_s: plugin.since.as_secs(),
        streams: plugin.streams,
        restarts: plugin.restarts,
        status: plugin.status.clone(),
    }
}

/// A plugin in full.
pub(super) fn plugin_detail(plugin: &PluginSnapshot) -> PluginDetail {
    PluginDetail {
        row: plugin_row(plugin),
        description: plugin.description.clone(),
        directory: plugin.dir.display().to_string(),
        protocols: plugin.protocols.clone(),
        asks: plugin.permissions.clone(),
        granted: plugin.granted.clone(),
        approval: approval(plugin),
        sandbox: vec![plugin.sandbox.to_owned()],
        warnings: plugin.warnings.clone(),
        errors: plugin.errors.clone(),
        last_exit: plugin.last_exit.as_ref().map(ToString::to_string),
        log_tail: plugin.recent.clone(),
    }
}

/// Names the program and the permissions that the user was shown; any change to either makes another text.
pub(super) fn approval(plugin: &PluginSnapshot) -> String {
    format!("{}: {}", plugin.exec_hash.as_deref().unwrap_or("-"), plugin.permissions.join(", "))
}

/// A line of a plugin's log.
pub(super) fn log_line(line: &p2pos_host::LogLine) -> LogLine {
    let (source, level) = match line.source {
        LogSource::Stdout => ("stdout", "info"),
        LogSource::Stderr => ("stderr", "info"),
        LogSource::Debug => ("log", "debug"),
        LogSource::Info => ("log", "info"),
        LogSource::Warn => ("log", "warn"),
        LogSource::Error => ("log", "error"),
        LogSource::Life => ("p2pos", "info"),
    };
    LogLine {
        unix_ms: line.unix_ms,
        source: source.to_owned(),
        level: level.to_owned(),
        text: line.text.clone(),
    }
}

/// A peer as the node sees it, and why it is reached so.
pub(super) fn peer_status(
    peer: &PeerSnapshot,
    petname: Option<String>,
    relay: Option<String>,
    explanation: Option<&Explanation>,
) -> PeerStatus {
    PeerStatus {
        peer_id: peer.peer.to_string(),
        petname,
        state: peer_state(peer).to_owned(),
        path: peer.path.as_ref().map(|path| path.kind.to_string()),
        relay,
        rtt_us: peer.path.as_ref().map(|path| micros(path.rtt)),
        streams: u32::try_from(peer.streams + peer.flows).unwrap_or(u32::MAX),
        why: why(peer, explanation),
    }
}

/// What is being done about a peer.
pub(super) fn peer_state(peer: &PeerSnapshot) -> &'static str {
    match peer.state {
        PeerState::Idle => "idle",
        PeerState::Dialing => "dialing",
        PeerState::Connected => "connected",
        PeerState::Backoff => "waiting",
    }
}

/// Whole microseconds, as documents carry them.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
