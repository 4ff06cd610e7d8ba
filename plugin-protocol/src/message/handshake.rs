//! The messages of the handshake, and the secrets that travel in them.

use std::fmt;

use p2pos_identity::PeerId;
use subtle::ConstantTimeEq as _;

use crate::{
    code::Code,
    limits::{self, Limits},
};

/// Everything that is said before a session is open.
#[derive(Clone, Debug, PartialEq)]
pub enum Handshake {
    /// The plugin's first frame.
    Hello(Hello, Auth),
    /// The daemon's proof that it knows the endpoint secret, and its own challenge.
    Challenge {
        /// The daemon's part of the challenge.
        server_nonce: [u8; 32],
        /// HMAC-SHA256 over both nonces.
        server_proof: [u8; 32],
    },
    /// The plugin's proof.
    AuthProof {
        /// HMAC-SHA256 over both nonces.
        client_proof: [u8; 32],
    },
    /// The session is open.
    Welcome(Box<Welcome>),
    /// It is not; the socket closes.
    Refused(Refused),
    /// The only frame of a detached stream's socket.
    Attach(Ticket),
    /// From here on the socket is the stream.
    Attached,
}

/// What a plugin says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest protocol version that it speaks.
    pub min_version: u32,
    /// Newest protocol version that it speaks.
    pub max_version: u32,
    /// Optional parts of the protocol that it would like.
    pub features: Vec<String>,
    /// Name and version of its SDK, for logs.
    pub sdk: String,
    /// Largest frame body in bytes that it takes.
    pub frame_bytes_max: u32,
    /// Bytes that the daemon may send per stream before the plugin gives credit.
    pub stream_window_bytes: u32,
    /// The plugin gives no credit: what was written to its socket counts as consumed.
    pub auto_window: bool,
}

impl Default for Hello {
    fn default() -> Self {
        Self {
            min_version: crate::hello::VERSION_MIN,
            max_version: crate::hello::VERSION_MAX,
            features: Vec::new(),
            sdk: String::new(),
            frame_bytes_max: limits::FRAME_BYTES_MAX,
            stream_window_bytes: limits::STREAM_WINDOW_BYTES,
            auto_window: false,
        }
    }
}

/// How a plugin means to prove who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Not at all; this is always refused.
    None,
    /// By the token of its launch environment.
    LaunchToken(LaunchToken),
    /// By the secret of the endpoint file; asks the daemon to prove itself first.
    ClientNonce([u8; 32]),
}

/// What a daemon tells a plugin that it lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The protocol version of this session.
    pub version: u32,
    /// The optional parts that both sides know.
    pub features: Vec<String>,
    /// Name and version of the daemon, for logs.
    pub daemon: String,
    /// The plugin's id, as in its manifest.
    pub plugin_id: String,
    /// This run of the plugin; new at every launch.
    pub instance_id: String,
    /// The user's own PeerId.
    pub peer_id: PeerId,
    /// What the user allows the plugin.
    pub grants: Vec<String>,
    /// What the plugin has to keep to.
    pub limits: Limits,
}

/// What a daemon tells a plugin that it does not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub code: Code,
    /// Which field, which value.
    pub message: String,
    /// What to do next, for a person.
    pub hint: String,
    /// Oldest protocol version that the daemon serves.
    pub min_version: u32,
    /// Newest protocol version that the daemon serves.
    pub max_version: u32,
}

impl Refused {
    /// Refuses with the registry's hint and this version's range.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: code.hint().to_owned(),
            min_version: crate::hello::VERSION_MIN,
            max_version: crate::hello::VERSION_MAX,
        }
    }
}

/// The secret that the daemon put into a plugin's environment at launch. Good once.
#[derive(Clone, Eq)]
pub struct LaunchToken(String);

/// Longest launch token in bytes: 256 bits in hexadecimal are 64, and there is room for another spelling.
const LAUNCH_TOKEN_BYTES_MAX: usize = 128;

impl LaunchToken {
    /// Takes the text of `P2POS_TOKEN`; `None` if it is empty or over 128 bytes.
    #[must_use]
    pub fn from_env_text(text: &str) -> Option<Self> {
        (1..=LAUNCH_TOKEN_BYTES_MAX).contains(&text.len()).then(|| Self(text.to_owned()))
    }

    /// Spells 256 fresh random bits.
    #[must_use]
    pub fn from_random(random: [u8; 32]) -> Self {
        Self(hex(&random))
    }

    /// The text for `P2POS_TOKEN`. It is a secret: never log it.
    #[must_use]
    pub fn as_env_text(&self) -> &str {
        &self.0
    }

    /// Compares in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl PartialEq for LaunchToken {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other)
    }
}

impl fmt::Debug for LaunchToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LaunchToken(..)")
    }
}

/// The secret by which a socket becomes one detached stream. Good once, and for [`limits::TICKET_TTL`].
#[derive(Clone, Eq)]
pub struct Ticket([u8; 16]);

impl Ticket {
    /// Takes 128 fresh random bits.
    #[must_use]
    pub const fn from_random(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// Takes what stands in a frame; `None` unless it has 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes on the wire. They are a secret: never log them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Compares in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl PartialEq for Ticket {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(..)")
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_shows_in_debug_output() {
        let token = LaunchToken::from_random([0xab; 32]);
        assert_eq!(token.as_env_text(), "ab".repeat(32));
        assert_eq!(format!("{token:?} {:?}", Ticket::from_random([7; 16])), "LaunchToken(..) Ticket(..)");
    }

    #[test]
    fn tokens_compare_by_value_whatever_their_length() {
        let token = LaunchToken::from_env_text("abc").unwrap();
        assert!(token.matches(&LaunchToken::from_env_text("abc").unwrap()));
        assert!(!token.matches(&LaunchToken::from_env_text("ab").unwrap()));
        assert!(LaunchToken::from_env_text("").is_none());
        assert!(LaunchToken::from_env_text(&"x".repeat(129)).is_none());
    }
}
