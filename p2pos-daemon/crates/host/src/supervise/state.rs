//! The states of a plugin, by the names that people see (plugin-host.md C11). Owns the words; no behaviour.

use std::fmt;

use serde::Serialize;

/// Where a plugin is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its manifest has errors.
    Invalid,
    /// The user has not enabled it.
    Disabled,
    /// It changed since the user enabled it.
    NeedsApproval,
    /// It may run and does not.
    Stopped,
    /// Launched, and not Ready yet.
    Starting,
    /// Working.
    Running,
    /// Working, and says that something is wrong.
    Degraded,
    /// Working, and waiting for the network.
    WaitingNetwork,
    /// On its way out.
    Stopping,
    /// Ended badly, will be started again.
    Backoff,
    /// Given up; the user must look.
    Failed,
    /// Run by its author in a terminal.
    Dev,
}

impl State {
    /// The name that people and programs see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Disabled => "disabled",
            Self::NeedsApproval => "needs-approval",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::WaitingNetwork => "waiting-network",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
            Self::Dev => "dev",
        }
    }

    /// Ready was said, and it has not ended.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Degraded | Self::WaitingNetwork)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
