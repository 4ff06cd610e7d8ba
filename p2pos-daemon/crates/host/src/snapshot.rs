//! What people and programs see of a plugin, and how a command about one can fail. Owns the words; no behaviour.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use p2pos_plugin_protocol::driver::Session;
use serde::Serialize;
use thiserror::Error;
use tokio_util::task::TaskTracker;

use crate::{manifest::Problem, spawner::Exit, supervise::State};

/// A plugin, at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct PluginSnapshot {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// One line about it.
    pub description: String,
    /// Where it lies.
    pub dir: PathBuf,
    /// Where it is in its life.
    pub state: State,
    /// Since when, milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Since how long.
    pub since: Duration,
    /// Why, if there is something to say.
    pub reason: String,
    /// In how long the next restart is tried.
    pub next_try: Option<Duration>,
    /// What it says about itself.
    pub status: String,
    /// Process number, for people to look at.
    pub pid: Option<u32>,
    /// Streams and flows open now, stream commands included.
    pub streams: u32,
    /// Restarts since the user started it.
    pub restarts: u32,
    /// How it ended the last time.
    pub last_exit: Option<Exit>,
    /// Its last lines (20 at most), as the log file has them.
    pub recent: Vec<String>,
    /// Protocols that it serves now.
    pub protocols: Vec<String>,
    /// What its manifest asks for.
    pub permissions: Vec<String>,
    /// What the user granted.
    pub granted: Vec<String>,
    /// What its author should look at.
    pub warnings: Vec<String>,
    /// What keeps it from running.
    pub errors: Vec<String>,
    /// SHA-256 over the manifest and the programs it names.
    pub exec_hash: Option<String>,
    /// How far it is fenced in.
    pub sandbox: &'static str,
}

/// A plugin's state changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEvent {
    /// Whose.
    pub id: String,
    /// To what.
    pub state: State,
    /// Why, if there is something to say.
    pub reason: String,
}

/// What an author's own process needs to be a plugin: see `Host::run_dev`.
#[derive(Clone, Debug)]
pub struct DevLaunch {
    /// The plugin's id.
    pub id: String,
    /// To be set on top of the author's own environment.
    pub env: Vec<(String, String)>,
    /// Where to run it.
    pub dir: PathBuf,
    /// The manifest's command line; empty for a plugin of stream commands only.
    pub exec: Vec<String>,
    /// What the author should look at.
    pub warnings: Vec<Problem>,
}

/// What a tool needs to open a session: see `Host::mint_tool`.
#[derive(Clone, Debug)]
pub struct ToolLaunch {
    /// P2POS_ENDPOINT, P2POS_TOKEN, P2POS_PROTOCOL_VERSIONS, P2POS_PLUGIN_ID.
    pub env: Vec<(String, String)>,
}

/// Why a command about a plugin did not work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// There is no such plugin.
    #[error("there is no plugin {id:?}{}", nearest.as_ref().map_or_else(String::new, |near| format!("; did you mean {near:?}?")))]
    NotFound {
        /// As it was asked for.
        id: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// The user has to allow it first.
    #[error("{id} needs approval: {reason}")]
    NeedsApproval {
        /// Which plugin.
        id: String,
        /// Disabled, changed, or wanting more.
        reason: String,
        /// What it asks for beyond what was granted.
        new_permissions: Vec<String>,
    },
    /// Its manifest has errors.
    #[error("{id} cannot run: {}", errors.join("; "))]
    Invalid {
        /// Which plugin.
        id: String,
        /// The errors, with their places.
        errors: Vec<String>,
    },
    /// It was tried and failed.
    #[error("{id}: {reason}")]
    Failed {
        /// Which plugin.
        id: String,
        /// The state it ended up in.
        state: State,
        /// Why.
        reason: String,
        /// The last lines of its log.
        recent: Vec<String>,
    },
    /// It took too long; it may still happen.
    #[error("{id} is still {state}; look again with `p2pos plugins list`")]
    Timeout {
        /// Which plugin.
        id: String,
        /// The state it is in.
        state: State,
    },
    /// The daemon ends.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

/// What a supervisor publishes; the rest of a snapshot is looked up when somebody asks.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) description: String,
    pub(crate) dir: PathBuf,
    pub(crate) state: State,
    pub(crate) since: Instant,
    pub(crate) reason: String,
    pub(crate) next_try: Option<Instant>,
    pub(crate) status: String,
    pub(crate) pid: Option<u32>,
    pub(crate) restarts: u32,
    pub(crate) last_exit: Option<Exit>,
    pub(crate) permissions: Vec<String>,
    pub(crate) granted: Vec<String>,
    pub(crate) new_permissions: Vec<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) errors: Vec<String>,
    pub(crate) exec_hash: Option<String>,
    pub(crate) session: Option<Session>,
    /// Counts the stream commands that run.
    pub(crate) commands: Option<TaskTracker>,
}
