//! Everything the command line can ask of a running daemon, and how long each may take.
//!
//! Names of people are texts here (a petname or a PeerId): resolving them is the daemon's work, because the daemon
//! holds the contacts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What most questions get: they read memory or write one small file. A daemon that needs longer is stuck, and the
/// user should hear it.
const QUICK: Duration = Duration::from_secs(10);
/// Starting waits for the plugin's Ready (60 s by default in its manifest) or for its fifth early death.
const START: Duration = Duration::from_secs(90);
/// The stop ladder ends within 15 s by its own rules; the rest is room for several plugins at once.
const STOP: Duration = Duration::from_secs(30);

/// One question to the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// How is everything? Answer: `Status`.
    Status,
    /// About the people the user knows. Answer: see [`ContactRequest`].
    Contacts(ContactRequest),
    /// Which plugins are there? Answer: `Plugins`.
    PluginList,
    /// Everything about one plugin. Answer: `Plugin`.
    PluginInfo {
        /// The plugin's id, or the last part of it if that names only one.
        plugin: String,
    },
    /// Starts plugins and waits until they are ready. Answer: `Plugins`, those asked for.
    PluginStart {
        /// Plugin ids.
        plugins: Vec<String>,
    },
    /// Stops plugins and waits until their processes are gone. Answer: `Plugins`, those asked for.
    PluginStop {
        /// Plugin ids.
        plugins: Vec<String>,
    },
    /// Stops, then starts. Answer: `Plugins`, those asked for.
    PluginRestart {
        /// Plugin ids.
        plugins: Vec<String>,
    },
    /// Lets a plugin run from now on, with exactly the permissions that the user saw. Answer: `Plugin`.
    PluginEnable {
        /// The plugin's id.
        plugin: String,
        /// `approval` of the `Plugin` document that was shown; anything else means that it changed meanwhile.
        approval: String,
    },
    /// Takes that back; a running plugin is stopped. Answer: `Plugin`.
    PluginDisable {
        /// The plugin's id.
        plugin: String,
    },
    /// Its log. Items: `LogLine`, then `Done`.
    PluginLogs {
        /// The plugin's id.
        plugin: String,
        /// How many of the newest lines first.
        lines: u32,
        /// Then every new line, until the asker leaves.
        follow: bool,
    },
    /// A launch environment for a plugin that its author starts himself. Item: `ToolSession`; there is no last word,
    /// because the plugin is known until the asker leaves.
    PluginRun {
        /// The plugin's directory, absolute.
        dir: String,
    },
    /// A session for a command of ours that opens streams itself. Answer: `ToolSession`.
    Tool {
        /// What for, in words for the log: `dial`.
        what: String,
    },
    /// How is this peer reached, and why so? Answer: `Explain`.
    Explain {
        /// Petname or PeerId.
        who: String,
    },
    /// What is known of our own network? Answer: `Netcheck`.
    Netcheck,
    /// What is relayed for others, and where can we be called? Answer: `Relay`.
    RelayStatus,
    /// Round trips to a peer, plugin-free. Items: `PingRound`, then `PingReport`.
    Ping {
        /// Petname or PeerId.
        who: String,
        /// How many.
        count: u32,
        /// Pause between them.
        interval_ms: u32,
    },
}

/// One question about contacts, which can be answered without a daemon too: from the address book itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum ContactRequest {
    /// Everybody. Answer: `Contacts`.
    List,
    /// One of them. Answer: `Contact`.
    Show {
        /// Petname or PeerId.
        who: String,
    },
    /// A new one. Answer: `Contact`.
    Add {
        /// The PeerId's text.
        peer_id: String,
        /// The user's own name for it.
        petname: String,
        /// Where it may be reached, each HOST:PORT or through a relay.
        addresses: Vec<String>,
        /// `auto` or `never`; absent is `auto`.
        #[serde(default)]
        relay: Option<String>,
    },
    /// Another petname. Answer: `Contact`.
    Rename {
        /// Petname or PeerId.
        who: String,
        /// The new petname.
        petname: String,
    },
    /// Other addresses instead of those there were. Answer: `Contact`.
    Addresses {
        /// Petname or PeerId.
        who: String,
        /// Where it may be reached, each HOST:PORT or through a relay.
        addresses: Vec<String>,
    },
    /// Lets packets to and from one go through relays, or not. Answer: `Contact`.
    Relay {
        /// Petname or PeerId.
        who: String,
        /// `auto` or `never`.
        relay: String,
    },
    /// Forgets one. Answer: `Contact`, as it was.
    Remove {
        /// Petname or PeerId.
        who: String,
    },
}

impl Request {
    /// How long the answer may take; `None` for what runs until the asker leaves.
    pub fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Status
            | Self::Contacts(_)
            | Self::PluginList
            | Self::PluginInfo { .. }
            | Self::Explain { .. }
            | Self::Netcheck
            | Self::RelayStatus
            | Self::Tool { .. } => Some(QUICK),
            Self::PluginStop { .. } | Self::PluginDisable { .. } => Some(STOP),
            Self::PluginEnable { .. } | Self::PluginStart { .. } => Some(START),
            Self::PluginRestart { .. } => Some(START.saturating_add(STOP)),
            Self::PluginLogs { follow, .. } => (!follow).then_some(QUICK),
            // Each round has its own deadline; how many there are is the asker's choice.
            Self::Ping { .. } | Self::PluginRun { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_a_flat_and_readable_form() {
        let request = Request::Contacts(ContactRequest::Show { who: "bo".into() });
        let text = r#"{"do":"contacts","what":"show","who":"bo"}"#;
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        assert_eq!(serde_json::from_str::<Request>(r#"{"do":"status"}"#).unwrap(), Request::Status);
    }

    #[test]
    fn only_what_the_asker_ends_has_no_deadline() {
        let logs = |follow| Request::PluginLogs { plugin: "x".into(), lines: 1, follow };
        assert!(logs(true).deadline().is_none());
        assert!(logs(false).deadline().is_some());
    }
}
