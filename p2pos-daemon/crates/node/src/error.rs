//! Why a stream or flow could not be opened, one variant per reaction of the caller, numbered as in the error registry.

use std::time::Duration;

use p2pos_identity::ProtocolName;
use p2pos_peer_protocol::{EndCode, Refusal, RefusalCode};
use p2pos_transport::{Attempt, DialError, Lost};

/// Why an open failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Nobody ever told us an address of this peer.
    #[error("no address of this peer is known")]
    UnknownPeer,
    /// The peer is known, but no address of it can be found now.
    #[error("no current address of this peer was found")]
    Offline,
    /// Addresses were tried and none answered. Whoever else may be at an address cannot even read the first packet, which is
    /// made for the peer's key, and stays as silent as an empty address: there is no "somebody else answered".
    #[error("none of the peer's {} addresses answered", distinct_addresses(.attempts))]
    Unreachable {
        /// What was tried, oldest first.
        attempts: Vec<Attempt>,
    },
    /// Only a relay would lead to the peer, and the user or the plugin wants none.
    #[error("only a relay would lead to the peer, and none is allowed")]
    NeedsRelay {
        /// What was tried without, oldest first.
        attempts: Vec<Attempt>,
    },
    /// The peer serves none of the protocols.
    #[error("the peer serves none of the protocols asked for")]
    NotSupported {
        /// What it would serve.
        offered: Vec<ProtocolName>,
    },
    /// The peer said no.
    #[error("the peer refused (code {code})")]
    Refused {
        /// Its code: 305 REFUSED, 403 PLUGIN_GONE if it vanished before the answer, or another of the registry.
        code: u16,
    },
    /// The peer serves the protocol, but not now.
    #[error("the peer is not ready")]
    NotReady {
        /// When to try again, if the peer said so.
        retry_after: Option<Duration>,
    },
    /// This machine has no network that leads to the peer.
    #[error("this machine has no network that leads to the peer")]
    LocalOffline {
        /// What was tried.
        attempts: Vec<Attempt>,
    },
    /// The peer is connected but did not answer in time.
    #[error("the peer did not answer within {} ms", .after.as_millis())]
    Timeout {
        /// The time given.
        after: Duration,
    },
    /// The connection ended before the answer came.
    #[error("the connection ended before the peer answered: {0}")]
    ConnectionLost(Lost),
    /// Too many streams, here or there.
    #[error("too many streams to this peer are open or waiting")]
    StreamLimit,
    /// This node is going down.
    #[error("the daemon is shutting down")]
    ShuttingDown,
    /// The request makes no sense.
    #[error("the request cannot be served: {0}")]
    Misuse(&'static str),
}

impl OpenError {
    /// The number in the error registry (plugin-host.md C6).
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::UnknownPeer => 300,
            Self::Offline => 301,
            Self::Unreachable { .. } => 302,
            Self::NeedsRelay { .. } => 303,
            Self::NotSupported { .. } => 304,
            Self::Refused { code } => *code,
            Self::NotReady { .. } => 306,
            Self::LocalOffline { .. } => 308,
            Self::Timeout { .. } => 207,
            Self::ConnectionLost(_) => 404,
            Self::StreamLimit => 401,
            Self::ShuttingDown => 105,
            Self::Misuse(_) => 200,
        }
    }

    /// What was tried, where dialling was the trouble.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        match self {
            Self::Unreachable { attempts }
            | Self::NeedsRelay { attempts }
            | Self::LocalOffline { attempts } => attempts,
            Self::UnknownPeer
            | Self::Offline
            | Self::NotSupported { .. }
            | Self::Refused { .. }
            | Self::NotReady { .. }
            | Self::Timeout { .. }
            | Self::ConnectionLost(_)
            | Self::StreamLimit
            | Self::ShuttingDown
            | Self::Misuse(_) => &[],
        }
    }

    /// Reads the peer's answer.
    pub(crate) fn of_refusal(refusal: &Refusal) -> Self {
        match refusal.code() {
            RefusalCode::PROTOCOL_NOT_SUPPORTED => Self::NotSupported { offered: refusal.offered().to_vec() },
            RefusalCode::NOT_READY => {
                let after = refusal.retry_after_ms();
                let retry_after = (after > 0).then(|| Duration::from_millis(after.into()));
                Self::NotReady { retry_after }
            }
            RefusalCode::STREAM_LIMIT => Self::StreamLimit,
            other => Self::Refused { code: other.number() },
        }
    }

    /// Reads a reset that came instead of an answer.
    pub(crate) fn of_reset(code: EndCode) -> Self {
        if code == EndCode::STREAM_LIMIT { Self::StreamLimit } else { Self::Refused { code: code.code } }
    }

    /// Reads a dial that failed.
    pub(crate) fn of_dial(error: DialError) -> Self {
        if error.attempts.is_empty() {
            Self::Offline
        } else if error.is_local() {
            Self::LocalOffline { attempts: error.attempts }
        } else {
            Self::Unreachable { attempts: error.attempts }
        }
    }

    /// The same failure of a dial, after all ways were tried.
    pub(crate) fn with_all_that_was_tried(self, attempts: Vec<Attempt>, are_relays_forbidden: bool) -> Self {
        if !matches!(self, Self::UnknownPeer | Self::Offline | Self::Unreachable { .. }) {
            return self;
        }
        match (are_relays_forbidden, attempts.is_empty()) {
            (true, _) => Self::NeedsRelay { attempts },
            // Perhaps it has no address of its own; then no relay leads there.
            (false, false) => Self::Unreachable { attempts },
            (false, true) => self,
        }
    }

    /// Whether dialling again soon could help, so that a waiting open goes on waiting.
    pub(crate) fn is_worth_another_dial(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            // Without any address of its own, no try can end otherwise.
            Self::NeedsRelay { attempts } => !attempts.is_empty(),
            Self::UnknownPeer
            | Self::Offline
            | Self::NotSupported { .. }
            | Self::Refused { .. }
            | Self::NotReady { .. }
            | Self::LocalOffline { .. }
            | Self::Timeout { .. }
            | Self::ConnectionLost(_)
            | Self::StreamLimit
            | Self::ShuttingDown
            | Self::Misuse(_) => false,
        }
    }
}

fn distinct_addresses(attempts: &[Attempt]) -> usize {
    let mut addresses: Vec<_> = attempts.iter().map(|attempt| (attempt.relay, attempt.address)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.len()
}
