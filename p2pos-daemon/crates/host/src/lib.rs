//! Finds, launches, supervises and serves plugins.
//!
//! ```text
//!   plugins directory ─ scan ─> plugin (one task each) ── supervise (pure) ── spawner ─> guard ─> the plugin's process
//!                                  │ grants, log                                                       │
//!   socket ─ greeting ─> session (one task each) <───────────── driver (plugin-protocol) ──────────────┘
//!                                  │ open, directory, offer
//!   bridge <── Network, Host::ask ─── stream (frames, detached sockets, stream commands: one set of calls)
//! ```
//!
//! | file | what it owns |
//! |---|---|
//! | [`manifest`](check) | `plugin.toml`, `plugins check`, the hash an approval is bound to |
//! | `grants`, `permissions` | what the user allowed |
//! | `supervise` | the life of a plugin, as a pure machine |
//! | `plugin` | the task that gives this machine a process, a clock and ears |
//! | `spawner`, `guard`, `processes`, `sandbox` | processes that cannot outlive us |
//! | `endpoint`, `greeting`, `tokens`, `tickets` | who may connect |
//! | `session`, `open`, `offer`, `directory` | requests, registrations, grants in action |
//! | `stream`, `serve`, `commands`, `throttle` | the plugin's end of a stream; stream commands, and how often |
//! | `log` | what plugins say |
//!
//! Refuses to know: IP addresses, QUIC, keys, the command line. The daemon never waits for a plugin without a deadline.
//! Follows DESIGN sections 5 and 9, plugin-host.md part C. Linux only so far: see `processes` and `guard`.

mod commands;
mod directory;
mod endpoint;
mod grants;
mod greeting;
mod guard;
mod host;
mod launch;
mod log;
mod manifest;
mod network;
mod offer;
mod open;
mod permissions;
mod plugin;
mod plugin_id;
mod processes;
mod sandbox;
mod scan;
mod serve;
mod session;
mod shared;
mod snapshot;
mod spawner;
mod stream;
mod supervise;
mod throttle;
mod tickets;
mod tokens;

pub use p2pos_plugin_protocol::{
    code::{Code, End},
    message::{EventKind, Kind, PathKind, RelayUse},
};

pub use crate::{
    endpoint::EndpointError,
    guard::guard_main,
    host::{Host, HostConfig, StartError, ToolGrants, ToolOpen},
    log::{Level, LogFollow, LogLine, LogSource, LogTail},
    manifest::{MANIFEST_BYTES_MAX, MANIFEST_FILE, Problem, Report, check, check_manifest},
    network::{
        Accepted, ConnectedPeer, ContactInfo, Network, NetworkEvent, Offer, OpenFailure, OpenRequest,
        OpenedInfo, Refusal,
    },
    offer::{OfferAnswer, Offered, OfferedEnd},
    open::{GivenUp, OpenAnswer, PluginGone},
    permissions::{Permission, Permissions},
    plugin_id::{PLUGIN_ID_BYTES_MAX, PluginId, PluginIdError},
    sandbox::{Level as SandboxLevel, Sandbox},
    snapshot::{CommandError, DevLaunch, HostEvent, PluginSnapshot, ToolLaunch},
    spawner::Exit,
    stream::{
        Ended, PluginCloser, PluginEnd, PluginFlow, PluginFlowCloser, PluginFlowReader, PluginFlowWriter,
        PluginReader, PluginStream, PluginWriter,
    },
    supervise::State,
};

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String never fails");
        text
    })
}
